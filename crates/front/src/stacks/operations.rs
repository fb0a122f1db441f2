//! `/v2/operations`: looked at, waited for, followed and ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use herder_pool::BoxError;
use herder_stacks::{Operation, cancel, find, kinds, operations};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::asked::Asker;
use super::listed::paged;
use super::problem::Problem;
use super::shown;
use super::v2::{ATTEMPTS_MAX, Answered, ok, swarm_of};
use crate::{ApiError, Call, Front, call, swarm};

/// The pause between two looks at an operation that a client waits for.
pub(crate) const LOOK_PERIOD: Duration = Duration::from_millis(150);

/// The operation: 202 at once, or its end where the client waits for it (`Prefer: wait=120`).
pub(crate) async fn reply_of(
    front: &Arc<Front>,
    asker: &Asker,
    id: &str,
    notes: Vec<Value>,
    done: StatusCode,
) -> Answered {
    let deadline = Instant::now() + asker.wait;
    let (mut value, mut is_over) = one_operation(front, id).await?;
    while !is_over && Instant::now() < deadline {
        sleep(LOOK_PERIOD).await;
        (value, is_over) = one_operation(front, id).await?;
    }
    value["notes"] = notes.into();
    let status = match (is_over, value["state"].as_str()) {
        (false, _) => StatusCode::ACCEPTED,
        (true, Some("succeeded")) => done,
        (true, _) => StatusCode::CONFLICT,
    };
    let mut reply = call::json(status, &value);
    if let Ok(location) = HeaderValue::from_str(&format!("/v2/operations/{id}")) {
        reply.headers_mut().insert(header::LOCATION, location);
    }
    Ok(reply)
}

pub(crate) async fn one_operation(front: &Arc<Front>, id: &str) -> Result<(Value, bool), Problem> {
    let view = swarm::read(swarm_of(front)?).await?;
    let found = kinds().and_then(|kinds| find::<Operation>(&view, kinds.operation, id));
    let found = found.ok_or_else(|| no_operation(id))?;
    Ok((shown::operation(&found), found.record.state.is_over()))
}

fn no_operation(id: &str) -> Problem {
    herder_stacks::Refused::NoOperation(id.to_owned()).into()
}

/// `GET /v2/operations`.
pub(crate) async fn list_operations(front: &Arc<Front>, call: Call) -> Answered {
    let view = swarm::read(swarm_of(front)?).await?;
    let mut all = operations(&view);
    if let Some(stack) = call.query.get("stack") {
        all.retain(|it| it.record.stack == stack);
    }
    if let Some(target) = call.query.get("target") {
        all.retain(|it| it.record.target == target);
    }
    paged(&call, all.iter().map(shown::operation).collect(), "id")
}

/// `GET /v2/operations/{operation}`.
pub(crate) async fn operation(front: &Arc<Front>, call: Call) -> Answered {
    ok(&one_operation(front, &call.hole("operation")).await?.0)
}

/// `DELETE /v2/operations/{operation}`: asks for its end; what it did is undone.
pub(crate) async fn cancel_operation(front: &Arc<Front>, call: Call) -> Answered {
    let id = call.hole("operation");
    let swarm = swarm_of(front)?;
    let mut attempts = 1;
    loop {
        let changes = cancel(&swarm::read(swarm).await?, &id)?;
        match swarm.commit(changes).await {
            Ok(_) => break,
            Err(swarm::NotWritten::Conflict(_)) if attempts < ATTEMPTS_MAX => attempts += 1,
            Err(swarm::NotWritten::Conflict(conflict)) => return Err(ApiError::conflict(conflict.to_string()).into()),
            Err(swarm::NotWritten::Failed(error)) => return Err(error.into()),
        }
    }
    Ok(call::json(StatusCode::ACCEPTED, &one_operation(front, &id).await?.0))
}

/// Pieces of a stream that wait for the client to read.
const PIECES_WAITING_MAX: usize = 16;

/// `GET /v2/operations/{operation}/events`: the news as server-sent events, from `Last-Event-ID` on; the last one is `end`.
pub(crate) async fn operation_events(front: &Arc<Front>, call: Call) -> Answered {
    let id = call.hole("operation");
    one_operation(front, &id).await?;
    let last = call.parts.headers.get("last-event-id").and_then(|it| it.to_str().ok()?.parse().ok());
    let mut seen: u64 = last.unwrap_or(0);
    let (mut out, body) = Channel::<Bytes, BoxError>::new(PIECES_WAITING_MAX);
    let front = Arc::downgrade(front);
    tokio::spawn(async move {
        loop {
            let Some(front) = front.upgrade() else { return };
            let Ok((value, is_over)) = one_operation(&front, &id).await else { return };
            let dropped = value["log_dropped"].as_u64().unwrap_or(0);
            let mut text = String::new();
            for (n, line) in value["log"].as_array().into_iter().flatten().enumerate() {
                let number = dropped + n as u64 + 1;
                if number > seen {
                    text.push_str(&format!("id: {number}\ndata: {line}\n\n"));
                    seen = number;
                }
            }
            if is_over {
                text.push_str(&format!("event: end\ndata: {value}\n\n"));
            }
            // A comment also tells whether the client is still there.
            let piece = if text.is_empty() { ":\n\n".to_owned() } else { text };
            if out.send_data(piece.into()).await.is_err() || is_over {
                return;
            }
            drop(front);
            sleep(EVENTS_PERIOD).await;
        }
    });
    let mut reply = Response::new(body.boxed_unsync());
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

/// The pause between two looks at an operation that somebody follows.
const EVENTS_PERIOD: Duration = Duration::from_millis(500);
