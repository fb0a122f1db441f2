//! Time limit for the head of a request, counted from its first byte. An idle connection may stay silent much longer.
//!
//! hyper has one timer for both, and closing a client's idle connection every few seconds would make its next request fail
//! now and then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{Body, BoxError};

/// Counts requests twice, at their begin and their end: odd means that one is under way.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<AtomicU64>);

impl Busy {
    /// Returns how often a request began or ended. Odd while one is under way.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn begin(&self) -> UnderWay {
        let count = self.0.load(Ordering::Relaxed);
        let started = count + 1 + count % 2;
        self.0.store(started, Ordering::Relaxed);
        UnderWay { busy: Some(self.clone()), started }
    }
}

/// Ends the request when dropped.
#[derive(Debug)]
pub struct UnderWay {
    busy: Option<Busy>,
    started: u64,
}

impl UnderWay {
    /// Disables the head timeout for a hijacked connection.
    pub fn for_ever(mut self) {
        self.busy = None;
    }

    /// Keeps the request counted as active until the response body is written.
    pub fn until_the_end_of(self, body: Body) -> Body {
        Held { body, _under_way: self }.boxed_unsync()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(Busy(count)) = &self.busy {
            // Fails if the next request has already begun, which is as well.
            let _ = count.compare_exchange(self.started, self.started + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

struct Held {
    body: Body,
    _under_way: UnderWay,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream on which reading fails when a head does not end in time.
#[derive(Debug)]
pub struct HeadLimit<S> {
    stream: S,
    busy: Busy,
    limit: Duration,
    head: Option<Head>,
}

/// A head that has begun.
#[derive(Debug)]
struct Head {
    /// The count of requests when it began.
    count: u64,
    began: Instant,
    /// Only made for a head that does not come in one piece.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> HeadLimit<S> {
    pub fn new(stream: S, busy: Busy, limit: Duration) -> HeadLimit<S> {
        HeadLimit { stream, busy, limit, head: None }
    }

    /// Returns the stream without the limit.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadLimit<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let count = this.busy.0.load(Ordering::Relaxed);
        let under_way = count % 2 == 1;
        if under_way {
            this.head = None;
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        this.head.take_if(|head| head.count != count);
        let result = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if result.is_ready() {
            let head = this.head.get_or_insert_with(|| Head { count, began: Instant::now(), timer: None });
            return if head.began.elapsed() > this.limit { late() } else { result };
        }
        let Some(head) = &mut this.head else { return result };
        let deadline = head.began + this.limit;
        let timer = head.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.as_mut().poll(cx).is_ready() { late() } else { Poll::Pending }
    }
}

fn late() -> Poll<io::Result<()>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the head of a request did not end in time")))
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadLimit<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn limited() -> (DuplexStream, HeadLimit<DuplexStream>, Busy) {
        let (client, ours) = tokio::io::duplex(1000);
        let busy = Busy::default();
        (client, HeadLimit::new(ours, busy.clone(), LIMIT), busy)
    }

    async fn read(stream: &mut HeadLimit<DuplexStream>) -> Result<usize, io::ErrorKind> {
        stream.read(&mut [0; 100]).await.map_err(|error| error.kind())
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_is_given_up() {
        let (mut client, mut stream, _busy) = limited();
        let start = Instant::now();
        client.write_all(b"GET").await.expect("written");
        assert_eq!(read(&mut stream).await, Ok(3));
        assert_eq!(read(&mut stream).await, Err(io::ErrorKind::TimedOut));
        assert!(start.elapsed() >= LIMIT && start.elapsed() < LIMIT * 2, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_byte_by_byte_is_given_up_too() {
        let (mut client, mut stream, _busy) = limited();
        let mut bytes = 0;
        while read_one(&mut client, &mut stream).await == Ok(1) {
            bytes += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!((10..=11).contains(&bytes), "{bytes}");
    }

    async fn read_one(client: &mut DuplexStream, stream: &mut HeadLimit<DuplexStream>) -> Result<usize, io::ErrorKind> {
        client.write_all(b"x").await.expect("written");
        read(stream).await
    }

    #[tokio::test(start_paused = true)]
    async fn silence_before_during_and_after_a_request_is_no_head() {
        let (mut client, mut stream, busy) = limited();
        let still_open =
            async |stream: &mut HeadLimit<DuplexStream>| tokio::time::timeout(LIMIT * 5, read(stream)).await.is_err();
        assert!(still_open(&mut stream).await, "before");
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
        assert_eq!(read(&mut stream).await, Ok(18));
        let under_way = busy.begin();
        assert!(still_open(&mut stream).await, "during");
        drop(under_way);
        assert!(still_open(&mut stream).await, "after");
        client.write_all(b"GET").await.expect("written");
        assert_eq!(read(&mut stream).await, Ok(3));
        assert_eq!(read(&mut stream).await, Err(io::ErrorKind::TimedOut), "the next head");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hijacked_connection_has_no_heads() {
        let (mut client, mut stream, busy) = limited();
        busy.begin().for_ever();
        client.write_all(b"abc").await.expect("written");
        assert_eq!(read(&mut stream).await, Ok(3));
        assert!(tokio::time::timeout(LIMIT * 5, read(&mut stream)).await.is_err());
    }
}
