//! Carries the frames of a bus over streams to its peers: four bytes of length (big-endian), then the frame.
//!
//! What the streams are and who may open them is somebody else's: they come from node links, which are mutual TLS. Of two
//! nodes only one opens the stream; if both did, each could keep the one that the other gave up.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Transport};
use crate::frame::FRAME_BYTES_MAX;

/// Frames that may wait for a link. Measured: less than 100 ms of the fastest stream.
const FRAMES_WAITING_MAX: usize = 16_384;

/// Maximum memory of waiting frames, in bytes.
const BYTES_WAITING_MAX: usize = 32 << 20;

/// Frames that wait go out together, up to this many bytes; a TLS record has 16 KiB.
const BATCH_BYTES: usize = 64 << 10;

/// A peer that takes nothing for this long is given up. Gossip finds dead nodes long before.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);

/// The links of one node's bus.
#[derive(Debug, Default)]
pub struct Links {
    open: Mutex<HashMap<String, Arc<Link>>>,
    /// Held while a link replaces another, so that the bus sees the changes in order.
    change: Mutex<()>,
}

#[derive(Debug)]
struct Link {
    queue: mpsc::Sender<Bytes>,
    bytes: AtomicUsize,
    /// Another link took its place.
    replaced: CancellationToken,
}

impl Transport for Links {
    fn send(&self, node: &str, frame: Bytes) -> bool {
        let open = self.open.lock();
        let Some(link) = open.get(node) else { return false };
        let bytes = frame.len();
        if link.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= BYTES_WAITING_MAX
            && link.queue.try_send(frame).is_ok()
        {
            return true;
        }
        link.bytes.fetch_sub(bytes, Ordering::Relaxed);
        false
    }
}

impl Links {
    /// A bus and the links that carry its frames.
    pub fn bus(node: &str, settings: crate::Settings) -> (Arc<Bus>, Arc<Links>) {
        let links = Arc::new(Links::default());
        (Bus::new(node, settings, links.clone()), links)
    }

    /// Carries frames to and from `peer` until the stream ends, or a newer one to the same peer replaces it. The bus is
    /// informed of begin and end. Dropping the future ends the link, too.
    pub async fn carry(&self, bus: &Arc<Bus>, peer: &str, stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let (queue, frames) = mpsc::channel(FRAMES_WAITING_MAX);
        let link = Arc::new(Link { queue, bytes: AtomicUsize::new(0), replaced: CancellationToken::new() });
        let _open = self.open(bus, peer, &link);
        let (reader, writer) = tokio::io::split(stream);
        tokio::select! {
            result = write(writer, frames, &link.bytes) => result,
            result = read(reader, bus, peer, &link.replaced) => result,
            () = link.replaced.cancelled() => Ok(()),
        }
    }

    fn open<'l>(&'l self, bus: &'l Arc<Bus>, peer: &'l str, link: &'l Arc<Link>) -> Open<'l> {
        let _change = self.change.lock();
        let former = self.open.lock().insert(peer.to_owned(), link.clone());
        if let Some(former) = former {
            former.replaced.cancel();
            bus.peer_down(peer);
        }
        bus.peer_up(peer);
        Open { links: self, bus, peer, link }
    }
}

/// Takes the link away when it ends, however that comes.
struct Open<'l> {
    links: &'l Links,
    bus: &'l Arc<Bus>,
    peer: &'l str,
    link: &'l Arc<Link>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let _change = self.links.change.lock();
        let mut open = self.links.open.lock();
        let is_ours = open.get(self.peer).is_some_and(|link| Arc::ptr_eq(link, self.link));
        if is_ours {
            open.remove(self.peer);
        }
        drop(open);
        if is_ours {
            self.bus.peer_down(self.peer);
        }
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Bytes>,
    bytes: &AtomicUsize,
) -> io::Result<()> {
    let mut batch = BytesMut::with_capacity(BATCH_BYTES);
    while let Some(frame) = frames.recv().await {
        append(&mut batch, &frame, bytes);
        while batch.len() < BATCH_BYTES
            && let Ok(frame) = frames.try_recv()
        {
            append(&mut batch, &frame, bytes);
        }
        let written = async {
            writer.write_all(&batch).await?;
            writer.flush().await
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the peer does not read");
        timeout(WRITE_TIME_MAX, written).await.map_err(late)??;
        batch.clear();
    }
    Ok(())
}

fn append(batch: &mut BytesMut, frame: &Bytes, bytes: &AtomicUsize) {
    bytes.fetch_sub(frame.len(), Ordering::Relaxed);
    // A frame is at most `FRAME_BYTES_MAX` long.
    batch.extend_from_slice(&u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes());
    batch.extend_from_slice(frame);
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    bus: &Arc<Bus>,
    peer: &str,
    replaced: &CancellationToken,
) -> io::Result<()> {
    let mut input = BytesMut::with_capacity(BATCH_BYTES);
    loop {
        if reader.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        while let Some(frame) = split(&mut input)? {
            if replaced.is_cancelled() {
                return Ok(());
            }
            bus.receive(peer, frame);
        }
    }
}

/// Takes the first frame out of what was read, if it is complete.
fn split(input: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let Some(head) = input.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > FRAME_BYTES_MAX {
        let sentence = format!("the peer announces a frame of {length} bytes; at most {FRAME_BYTES_MAX} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
    }
    if input.len() < 4 + length {
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(input.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncWriteExt as _, DuplexStream};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::{Headers, Settings};

    struct Node {
        bus: Arc<Bus>,
        links: Arc<Links>,
    }

    fn node(name: &str) -> Node {
        let (bus, links) = Links::bus(name, Settings::default());
        Node { bus, links }
    }

    fn carry(node: &Node, peer: &str, stream: DuplexStream) -> JoinHandle<io::Result<()>> {
        let (bus, links, peer) = (node.bus.clone(), node.links.clone(), peer.to_owned());
        tokio::spawn(async move { links.carry(&bus, &peer, stream).await })
    }

    fn join(one: &Node, other: &Node) -> [JoinHandle<io::Result<()>>; 2] {
        let (a, b) = tokio::io::duplex(64 << 10);
        [carry(one, other.bus.node(), a), carry(other, one.bus.node(), b)]
    }

    async fn until(what: impl Fn() -> bool) {
        let waiting = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), waiting).await.expect("in time");
    }

    #[tokio::test]
    async fn messages_cross_in_order_and_the_end_is_noticed() {
        let (one, two) = (node("n1"), node("n2"));
        let mut consumer = two.bus.register("a").expect("an address");
        let [first, second] = join(&one, &two);
        until(|| one.bus.stats().addresses == 1).await;
        for number in 0..1000 {
            one.bus.send("a", Headers::default(), json!(number)).expect("sent");
        }
        for number in 0..1000 {
            assert_eq!(*consumer.recv().await.body, json!(number));
        }
        first.abort();
        second.await.expect("no panic").expect("an orderly end");
        until(|| one.bus.stats().addresses == 0).await;
        assert!(one.bus.send("a", Headers::default(), json!(1)).is_err());
    }

    #[tokio::test]
    async fn a_newer_link_takes_the_place_of_the_older() {
        let (one, two) = (node("n1"), node("n2"));
        let mut consumer = two.bus.register("a").expect("an address");
        let older = join(&one, &two);
        until(|| one.bus.stats().addresses == 1).await;
        let newer = join(&one, &two);
        for link in older {
            link.await.expect("no panic").expect("an orderly end");
        }
        until(|| one.bus.stats().addresses == 1).await;
        one.bus.send("a", Headers::default(), json!("new")).expect("sent");
        assert_eq!(*consumer.recv().await.body, json!("new"));
        assert!(newer.iter().all(|link| !link.is_finished()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up_and_bounded() {
        let one = node("n1");
        let (stream, mut silent) = tokio::io::duplex(1000);
        let link = carry(&one, "n2", stream);
        // The peer says that it has receivers at `a`, and then nothing more.
        silent.write_all(b"\0\0\0\x04\x01\x01\x01a").await.expect("written");
        until(|| one.bus.stats().addresses == 1).await;
        let body = json!("x".repeat(100_000));
        let sent = (0..1000).filter(|_| one.bus.send("a", Headers::default(), body.clone()).is_ok()).count();
        assert!((300..340).contains(&sent), "{sent} messages of 100 kB are 32 MiB");
        let error = link.await.expect("no panic").expect_err("given up");
        assert_eq!(error.to_string(), "the peer does not read");
        assert_eq!(one.bus.stats().addresses, 0);
    }

    #[tokio::test]
    async fn a_length_out_of_bounds_ends_the_link() {
        let one = node("n1");
        let (stream, mut other) = tokio::io::duplex(1000);
        let link = carry(&one, "n2", stream);
        other.write_all(&[0xff; 8]).await.expect("written");
        let error = link.await.expect("no panic").expect_err("refused");
        assert_eq!(error.to_string(), "the peer announces a frame of 4294967295 bytes; at most 1048576 are allowed");
    }
}
