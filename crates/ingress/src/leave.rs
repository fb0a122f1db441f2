//! Streams to tasks that leave. They last as long as draining may, and then end in the way of their protocol.
//!
//! A websocket is closed with 1001 (going away) between two frames, a call of gRPC ends with status 14 (unavailable). Their clients begin
//! anew, and come to another task.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use herder_http::{Body, BoxError};
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, sink, split};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Bytes moved at once, each way.
const PIECE_BYTES: usize = 64 << 10;
/// An end that was told waits so long for the other one's farewell.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);
/// Close frames with the code 1001. Those of a client are masked; a mask of zeros leaves the text as it is.
const CLOSE_OF_SERVER: &[u8] = &[0x88, 0x02, 0x03, 0xe9];
const CLOSE_OF_CLIENT: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// Position in the frames of a websocket (RFC 6455, 5.2).
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    left: u64,
}

impl Frames {
    fn is_between(&self) -> bool {
        self.head.is_empty() && self.left == 0
    }

    /// Passes over bytes; with `one`, at most to the end of the frame that is under way. Returns how many.
    fn pass(&mut self, bytes: &[u8], one: bool) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += count;
                self.left -= count as u64;
            } else {
                self.head.push(bytes[at]);
                at += 1;
                if let Some(left) = body_length(&self.head) {
                    self.left = left;
                    self.head.clear();
                }
            }
            if one && self.is_between() {
                break;
            }
        }
        at
    }
}

/// The length of a frame's body. None, while its head is not whole.
fn body_length(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let (extended, short) = match second & 0x7f {
        126 => (2, 0),
        127 => (8, 0),
        short => (0, u64::from(short)),
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    (head.len() == 2 + extended + mask).then(|| {
        let long = head[2..2 + extended].iter().fold(0, |all: u64, it| all << 8 | u64::from(*it));
        if extended == 0 { short } else { long }
    })
}

/// Carries a websocket between a client and a task. When the time is up, both are told that the other one goes away.
pub(crate) async fn websocket(
    client: impl AsyncRead + AsyncWrite + Unpin,
    task: impl AsyncRead + AsyncWrite + Unpin,
    time_is_up: impl Future<Output = ()>,
) -> io::Result<()> {
    let leaving = CancellationToken::new();
    let ((from_client, to_client), (from_task, to_task)) = (split(client), split(task));
    let mut both = std::pin::pin!(async {
        tokio::try_join!(
            one_way(from_client, to_task, &leaving, CLOSE_OF_CLIENT),
            one_way(from_task, to_client, &leaving, CLOSE_OF_SERVER),
        )
    });
    tokio::select! {
        ended = both.as_mut() => return ended.map(drop),
        () = time_is_up => leaving.cancel(),
    }
    // A frame that does not end keeps nobody waiting.
    timeout(FAREWELL_TIME_MAX, both).await.map_or(Ok(()), |ended| ended.map(drop))
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    leaving: &CancellationToken,
    close: &[u8],
) -> io::Result<()> {
    let mut frames = Frames::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let leaves = leaving.is_cancelled();
        if leaves && frames.is_between() {
            to.write_all(close).await?;
            to.shutdown().await?;
            // What still comes is read, so that the close frame is not lost to a reset.
            tokio::io::copy(&mut from, &mut sink()).await?;
            return Ok(());
        }
        let count = tokio::select! {
            biased;
            // The farewell goes before the answer of the other end to its own one.
            () = leaving.cancelled(), if !leaves => continue,
            read = from.read(&mut piece) => read?,
        };
        if count == 0 {
            return to.shutdown().await;
        }
        let count = frames.pass(&piece[..count], leaves);
        to.write_all(&piece[..count]).await?;
    }
}

/// The answer of a gRPC call, which ends with status 14 when the time is up.
struct Call {
    body: Body,
    time_is_up: Option<BoxFuture<'static, ()>>,
}

impl http_body::Body for Call {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(time_is_up) = &mut self.time_is_up else { return Poll::Ready(None) };
        if time_is_up.as_mut().poll(cx).is_ready() {
            self.time_is_up = None;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("14"));
            trailers.insert("grpc-message", HeaderValue::from_static("the task of this call is replaced"));
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.time_is_up.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer of a task that may leave. Only a call of gRPC has an end of its own.
pub(crate) fn body(headers: &HeaderMap, body: Body, time_is_up: impl Future<Output = ()> + Send + 'static) -> Body {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/grpc") || body.is_end_stream() {
        return body;
    }
    Call { body, time_is_up: Some(Box::pin(time_is_up)) }.boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_end_where_their_heads_say() {
        let masked = [&[0x82, 0x83, 1, 2, 3, 4][..], b"abc"].concat();
        let long = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        let longer = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 65536]].concat();
        let empty = vec![0x8a, 0];
        for frame in [masked, long, longer, empty] {
            let both = [&frame[..], &frame[..]].concat();
            let mut frames = Frames::default();
            assert_eq!(frames.pass(&both, true), frame.len());
            for piece in [1, 3, 1000] {
                let mut frames = Frames::default();
                for (at, bytes) in both.chunks(piece).enumerate() {
                    let is_end = [frame.len(), both.len()].contains(&((at * piece) + bytes.len()));
                    frames.pass(bytes, false);
                    if piece == 1 {
                        assert_eq!(frames.is_between(), is_end, "{at}");
                    }
                }
                assert!(frames.is_between());
            }
        }
    }

    #[tokio::test]
    async fn a_websocket_is_closed_between_two_frames() {
        let (mut client, ours) = tokio::io::duplex(1000);
        let (theirs, mut task) = tokio::io::duplex(1000);
        let (up, is_up) = tokio::sync::oneshot::channel::<()>();
        let carried = tokio::spawn(websocket(ours, theirs, async { is_up.await.unwrap_or_default() }));
        task.write_all(&[0x82, 4, b'a', b'b']).await.expect("written");
        let mut begun = [0; 4];
        client.read_exact(&mut begun).await.expect("read");
        up.send(()).expect("it waits");
        // To the task nothing is under way, to the client half a frame is.
        let mut close = [0; 8];
        task.read_exact(&mut close).await.expect("read");
        assert_eq!(close, CLOSE_OF_CLIENT);
        task.write_all(b"cd").await.expect("written");
        let mut rest = [0; 6];
        client.read_exact(&mut rest).await.expect("read");
        assert_eq!(&rest, &[b'c', b'd', 0x88, 0x02, 0x03, 0xe9]);
        drop((client, task));
        carried.await.expect("it ends").expect("well");
    }

    #[tokio::test]
    async fn a_call_of_grpc_ends_with_its_own_status() {
        let headers: HeaderMap =
            [(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))].into_iter().collect();
        let never = || herder_http::Body::new(http_body_util::StreamBody::new(futures_util::stream::pending()));
        let ended = body(&headers, never(), std::future::ready(()));
        let trailers = ended.collect().await.expect("a body").trailers().cloned().expect("trailers");
        assert_eq!(trailers["grpc-status"], "14");
    }
}
