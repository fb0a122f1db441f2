//! The event bus over HTTP: `/eventbus/websocket` (raw), `/eventbus` (SockJS), `/events/stream` (server-sent events).
//!
//! Browsers let any page open a WebSocket to any host. Requests that name an origin are therefore answered only if it is the
//! host itself, or if other origins may call (`--api-enable-cors`).

mod polling;
mod sse;
mod websocket;

use std::sync::Arc;

use herder_bus::bridge::Bridge;
use herder_bus::bridge::sockjs::Sessions;
use http::header::{HeaderMap, HeaderValue};
use http::{Response, StatusCode, header};
use serde_json::json;

use crate::call::{json as answer_json, no_content};
use crate::{ApiError, Call, Front, Reply, guard};

pub(crate) use sse::stream;

/// Seconds for which a browser may cache its permissions: a year, as SockJS servers say.
const PREFLIGHT_AGE: &str = "31536000";

/// Bridge and sessions of the event bus endpoint.
#[derive(Debug)]
pub(crate) struct BusDoor {
    bridge: Arc<Bridge>,
    sessions: Arc<Sessions>,
}

impl BusDoor {
    pub(crate) fn new(bridge: Arc<Bridge>) -> BusDoor {
        BusDoor { sessions: Sessions::new(bridge.clone()), bridge }
    }
}

/// Everything below `/eventbus`.
pub(crate) async fn eventbus(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let door = door(front)?;
    let origin = origin(front, &call.parts.headers, "the event bus")?;
    let path = call.path.clone();
    let segments: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
    let method = call.parts.method.clone();
    let mut reply = match (method.as_str(), segments.as_slice()) {
        ("GET", [] | [""]) => text("Welcome to SockJS!\n"),
        ("GET", ["info"]) => info(),
        ("OPTIONS", [.., what]) => preflight(what),
        ("GET", ["websocket"]) => {
            let text = call.query.flag("text");
            websocket::open(door, &mut call, websocket::Form::Raw { text })?
        }
        ("GET", [server, session, "websocket"]) if fits(server) && fits(session) => {
            websocket::open(door, &mut call, websocket::Form::SockJs)?
        }
        ("POST", [server, session, "xhr"]) if fits(server) && fits(session) => polling::poll(door, session).await?,
        ("POST", [server, session, "xhr_streaming"]) if fits(server) && fits(session) => {
            polling::stream(door, session, polling::Stream::Xhr)?
        }
        ("GET", [server, session, "eventsource"]) if fits(server) && fits(session) => {
            polling::stream(door, session, polling::Stream::EventSource)?
        }
        ("POST", [server, session, "xhr_send"]) if fits(server) && fits(session) => {
            polling::take(door, &mut call, session).await?
        }
        _ => return Err(ApiError::not_found("page not found")),
    };
    let headers = reply.headers_mut();
    if reply_is_dynamic(&segments) {
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store, no-cache, no-transform, must-revalidate, max-age=0"),
        );
    }
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    Ok(reply)
}

fn door(front: &Front) -> Result<&BusDoor, ApiError> {
    front.bus.get().ok_or_else(|| ApiError::not_found("this door has no event bus; nodes of `herder up` have one"))
}

/// The origin that the request names, if it is allowed to use `what`.
pub(crate) fn origin(front: &Front, headers: &HeaderMap, what: &str) -> Result<Option<HeaderValue>, ApiError> {
    let origin = headers.get(header::ORIGIN);
    if front.settings.cors || guard::same_origin(headers) {
        return Ok(origin.cloned());
    }
    tracing::warn!(?origin, host = ?headers.get(header::HOST), "a page of another origin may not use {what}");
    let sentence = format!("pages of other origins may not use {what}; --api-enable-cors lets them");
    Err(ApiError::new(StatusCode::FORBIDDEN, sentence))
}

/// True if this may stand for a server or a session in a path.
fn fits(segment: &str) -> bool {
    !segment.is_empty() && !segment.contains('.') && segment.len() <= 64
}

fn reply_is_dynamic(segments: &[&str]) -> bool {
    !matches!(segments, [] | [""])
}

fn text(text: &'static str) -> Reply {
    let mut reply = Response::new(herder_pool::full(text));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    reply
}

/// Answers the first request of clients: the available transports.
fn info() -> Reply {
    let entropy: u32 = rand::random();
    answer_json(
        StatusCode::OK,
        &json!({"websocket": true, "cookie_needed": false, "origins": ["*:*"], "entropy": entropy}),
    )
}

fn preflight(what: &str) -> Reply {
    let mut reply = no_content(StatusCode::NO_CONTENT);
    let methods = if what == "info" { "OPTIONS, GET" } else { "OPTIONS, POST" };
    let headers = reply.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE));
    reply
}
