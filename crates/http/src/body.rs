//! Bodies with something around them: an end when the node is lost, or work before the end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, StreamBody};

use crate::{Body, BoxError};

/// Work that a body waits for.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Wraps a body that is aborted when `lost` completes. A body of known length that is there already is left as it is.
pub fn until(body: Body, lost: Work) -> Body {
    if body.is_end_stream() { body } else { Until { body, lost }.boxed_unsync() }
}

/// Wraps a body: `work` completes before its last frame is passed on.
pub fn after(body: Body, work: impl Future<Output = ()> + Send + 'static) -> Body {
    After { body, work: Some(Box::pin(work)) }.boxed_unsync()
}

/// Holds an answer of one small document back until it is whole and `work` is done. Clients go on as soon as the
/// document has come, and do not wait for the end of the body. The head of the answer is not held back.
pub fn hold_until(body: Body, work: impl Future<Output = ()> + Send + 'static) -> Body {
    let whole = async move {
        let whole = body.collect().await;
        work.await;
        whole.map(|whole| Frame::data(whole.to_bytes()))
    };
    StreamBody::new(futures_util::stream::once(whole)).boxed_unsync()
}

struct Until {
    body: Body,
    lost: Work,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.lost.as_mut().poll(cx).map(|()| Some(Err("the node of this stream is lost".into())))
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct After {
    body: Body,
    work: Option<Work>,
}

impl http_body::Body for After {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(None) => {}
            other => return other,
        }
        if let Some(work) = &mut this.work {
            std::task::ready!(work.as_mut().poll(cx));
            this.work = None;
        }
        Poll::Ready(None)
    }
    // The length stays unknown, so that the end is only written after the work.
    fn is_end_stream(&self) -> bool {
        self.work.is_none() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &'static str) -> Body {
        http_body_util::Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
    }

    #[tokio::test]
    async fn work_is_done_before_the_end_is_seen() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut body = after(full("text"), async move { sender.send("done").expect("a listener") });
        let first = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(first.into_data().expect("data"), "text");
        assert!(receiver.try_recv().is_err(), "too early");
        assert!(body.frame().await.is_none());
        assert_eq!(receiver.try_recv(), Ok("done"));
    }

    #[tokio::test]
    async fn a_document_is_held_back_until_the_work_is_done() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut body = hold_until(full("{}"), async move { sender.send("done").expect("a listener") });
        let first = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(first.into_data().expect("data"), "{}");
        assert_eq!(receiver.try_recv(), Ok("done"));
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_breaks_off_when_its_node_is_lost() {
        let (_sender, channel) = http_body_util::channel::Channel::<Bytes, BoxError>::new(1);
        let mut body = until(channel.boxed_unsync(), Box::pin(std::future::ready(())));
        let error = body.frame().await.expect("a frame").expect_err("an error");
        assert_eq!(error.to_string(), "the node of this stream is lost");
    }
}
