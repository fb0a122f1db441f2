//! `GET /events/stream?address=…`: messages as server-sent events, for browsers and curl.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use herder_bus::bridge::EVENT_ADDRESSES;
use herder_bus::{Inbox, Message};
use herder_pool::BoxError;
use http::header::HeaderValue;
use http::{Response, StatusCode, header};
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use serde_json::json;
use tokio::time::timeout;

use crate::{ApiError, Call, Front, Reply};

/// Interval of comments on a silent stream, so that proxies keep it, and a client that is gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Events that wait for the client to read; then its queue in the bus fills.
const EVENTS_WAITING_MAX: usize = 16;

/// Answers with all messages to the addresses given, by default the events of the cluster.
pub(crate) async fn stream(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let door = super::door(front)?;
    let origin = super::origin(front, &call.parts.headers, "the event bus")?;
    let mut addresses: Vec<&str> = call.query.all("address").collect();
    if addresses.is_empty() {
        addresses = EVENT_ADDRESSES.to_vec();
    }
    if addresses.len() > door.bridge.limits.handlers {
        return Err(ApiError::bad_request(format!("more than {} addresses are too many", door.bridge.limits.handlers)));
    }
    let mut inbox = door.bridge.bus.inbox();
    for address in addresses {
        if !door.bridge.rules.may_register(address) {
            let sentence = format!("no rule of the event bus lets clients listen to `{address}`");
            return Err(ApiError::new(StatusCode::FORBIDDEN, sentence));
        }
        inbox.register(address).map_err(|error| ApiError::bad_request(error.to_string()))?;
    }
    let bridge = door.bridge.clone();
    let (mut out, body) = Channel::<Bytes, BoxError>::new(EVENTS_WAITING_MAX);
    tokio::spawn(async move {
        let mut dropped = 0;
        let mut piece = String::from(": herder\n\n");
        while out.send_data(piece.into()).await.is_ok() {
            piece =
                next(&mut inbox, &mut dropped, |message| bridge.rules.may_see(&message.address, &message.body)).await;
        }
    });
    let mut reply = Response::new(body.boxed_unsync());
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    Ok(reply)
}

/// Returns the next piece of the stream: a message, the number of dropped ones, or a comment after long silence.
async fn next(inbox: &mut Inbox, dropped: &mut u64, is_allowed: impl Fn(&Message) -> bool) -> String {
    let now = inbox.dropped();
    if now > *dropped {
        let lost = now - std::mem::replace(dropped, now);
        return format!("event: dropped\ndata: {lost}\n\n");
    }
    loop {
        match timeout(HEARTBEAT, inbox.recv()).await {
            Ok(message) if is_allowed(&message) => return event(&message),
            Ok(_) => {}
            Err(_) => return ": alive\n\n".to_owned(),
        }
    }
}

fn event(message: &Message) -> String {
    let mut data = json!({"address": &*message.address, "body": &*message.body});
    if !message.headers.0.is_empty() {
        data["headers"] = message.headers.to_json().into();
    }
    format!("data: {data}\n\n")
}
