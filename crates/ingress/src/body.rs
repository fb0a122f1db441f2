//! Bodies of requests and answers. Those of requests may be sent again; those of answers hold a resource
//! until they end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use herder_http::{Body, BoxError};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use crate::page::full;

/// A request's body that can be taken back as long as nothing of it was read.
#[derive(Clone)]
pub(crate) struct Lent(Arc<Mutex<Lending>>);

struct Lending {
    body: Body,
    begun: bool,
    /// The body is these bytes, and can begin again.
    kept: Option<Bytes>,
}

impl Lent {
    pub(crate) fn new(body: Body, kept: Option<Bytes>) -> Lent {
        Lent(Arc::new(Mutex::new(Lending { body, begun: false, kept })))
    }

    pub(crate) fn empty() -> Lent {
        Lent::new(full(""), None)
    }

    /// The same body for another attempt. None, if something of it is gone.
    pub(crate) fn again(&self) -> Option<Lent> {
        let mut lending = self.0.lock();
        if let Some(kept) = lending.kept.clone() {
            return Some(Lent::new(full(kept.clone()), Some(kept)));
        }
        if lending.begun && !lending.body.is_end_stream() {
            return None;
        }
        let body = std::mem::replace(&mut lending.body, full(""));
        Some(Lent::new(body, None))
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut lending = self.0.lock();
        lending.begun = true;
        Pin::new(&mut lending.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().body.size_hint()
    }
}

/// An answer's body, with what is held until it ends.
pub(crate) struct HeldBody<T> {
    pub(crate) body: Body,
    pub(crate) bytes: u64,
    pub(crate) end: Option<Box<dyn FnOnce(u64) + Send>>,
    pub(crate) _held: T,
}

impl<T: Unpin> http_body::Body for HeldBody<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.bytes += data.len() as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<T> Drop for HeldBody<T> {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end(self.bytes);
        }
    }
}
