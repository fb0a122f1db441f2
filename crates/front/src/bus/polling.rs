//! SockJS without WebSocket: messages as the answers of long requests, and requests that bring messages.

use bytes::Bytes;
use herder_bus::bridge::sockjs::{self, Attached};
use herder_pool::BoxError;
use http::header::HeaderValue;
use http::{Response, StatusCode, header};
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};

use super::BusDoor;
use crate::call::no_content;
use crate::{ApiError, Call, Reply};

/// Bytes after which a stream ends and the client reconnects, so that browsers do not pile up what they read.
const STREAM_BYTES_MAX: usize = 128 << 10;

/// Some browsers show nothing of a stream before it has two kibibytes.
const PRELUDE_BYTES: usize = 2048;

/// Pieces that wait for the client to read.
const PIECES_WAITING_MAX: usize = 4;

/// The two kinds of streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    Xhr,
    EventSource,
}

/// `xhr`: one frame.
pub(super) async fn poll(door: &BusDoor, session: &str) -> Result<Reply, ApiError> {
    let frame = match attach(door, session)? {
        Some(mut attached) => attached.next().await,
        None => sockjs::ANOTHER.to_owned(),
    };
    let mut reply = Response::new(herder_pool::full(format!("{frame}\n")));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(SCRIPT));
    Ok(reply)
}

/// `xhr_streaming` and `eventsource`: frames, until there are enough.
pub(super) fn stream(door: &BusDoor, session: &str, kind: Stream) -> Result<Reply, ApiError> {
    let attached = attach(door, session)?;
    let (mut out, body) = Channel::<Bytes, BoxError>::new(PIECES_WAITING_MAX);
    tokio::spawn(async move {
        let prelude = kind.prelude();
        if out.send_data(prelude.into()).await.is_err() {
            return;
        }
        let Some(attached) = attached else {
            // The client has gone, or gets this and goes.
            let _ = out.send_data(kind.frame(sockjs::ANOTHER).into()).await;
            return;
        };
        copy(attached, &mut out, kind).await;
    });
    let mut reply = Response::new(body.boxed_unsync());
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.content_type()));
    Ok(reply)
}

async fn copy(mut attached: Attached, out: &mut Sender<Bytes, BoxError>, kind: Stream) {
    let mut written = 0;
    while written < STREAM_BYTES_MAX {
        let frame = attached.next().await;
        let piece = kind.frame(&frame);
        written += piece.len();
        if out.send_data(piece.into()).await.is_err() || frame == sockjs::GO_AWAY {
            return;
        }
    }
}

/// `xhr_send`: messages of the client.
pub(super) async fn take(door: &BusDoor, call: &mut Call, session: &str) -> Result<Reply, ApiError> {
    let bytes = call.bytes(door.bridge.limits.frame_bytes).await?;
    let Some(session) = door.sessions.find(session) else {
        return Err(ApiError::not_found("there is no such session"));
    };
    let texts = match sockjs::payload(&bytes) {
        Ok(texts) => texts,
        Err(error) => {
            let mut reply = Response::new(herder_pool::full(error.to_string()));
            *reply.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(reply);
        }
    };
    if !session.take(texts).await {
        return Err(ApiError::not_found("the session is over"));
    }
    let mut reply = no_content(StatusCode::NO_CONTENT);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    Ok(reply)
}

fn attach(door: &BusDoor, session: &str) -> Result<Option<Attached>, ApiError> {
    let session = door.sessions.open(session);
    let session = session.ok_or_else(|| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many clients use the event bus; try again later")
    })?;
    Ok(session.attach())
}

/// Content type of frames in SockJS.
const SCRIPT: &str = "application/javascript; charset=UTF-8";

impl Stream {
    fn content_type(self) -> &'static str {
        match self {
            Stream::Xhr => SCRIPT,
            Stream::EventSource => "text/event-stream; charset=UTF-8",
        }
    }

    fn prelude(self) -> String {
        match self {
            Stream::Xhr => format!("{}\n", "h".repeat(PRELUDE_BYTES)),
            Stream::EventSource => "\r\n".to_owned(),
        }
    }

    fn frame(self, frame: &str) -> String {
        match self {
            Stream::Xhr => format!("{frame}\n"),
            Stream::EventSource => format!("data: {frame}\r\n\r\n"),
        }
    }
}
