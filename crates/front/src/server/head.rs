//! A limit for the head of a request, counted from its first byte; an idle connection may stay silent much longer.
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
use herder_pool::{Body, BoxError};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Counts requests twice, at their begin and their end: odd means that one is under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy(Arc<AtomicU64>);

impl Busy {
    pub(crate) fn begin(&self) -> UnderWay {
        let count = self.0.load(Ordering::Relaxed);
        let started = count + 1 + count % 2;
        self.0.store(started, Ordering::Relaxed);
        UnderWay { busy: Some(self.clone()), started }
    }
}

/// Ends the request when dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    busy: Option<Busy>,
    started: u64,
}

impl UnderWay {
    /// The connection is hijacked: no head will ever follow.
    pub(crate) fn for_ever(mut self) {
        self.busy = None;
    }

    /// The request lasts until its answer was written.
    pub(crate) fn until_the_end_of(self, body: Body) -> Body {
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
pub(crate) struct HeadLimit<S> {
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
    pub(crate) fn new(stream: S, busy: Busy, limit: Duration) -> HeadLimit<S> {
        HeadLimit { stream, busy, limit, head: None }
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
