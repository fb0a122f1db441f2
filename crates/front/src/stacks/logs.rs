//! `…/stacks/{stack}/logs`: the lines of all tasks of a stack, as text or as JSON.

use std::sync::Arc;

use bytes::Bytes;
use herder_deploy::logs;
use herder_pool::BoxError;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use serde_json::json;

use super::problem::Problem;
use super::v2::{Answered, api_of, request_id};
use crate::{Call, Front};

/// Lines that wait for the client to read.
const LINES_WAITING_MAX: usize = 64;

/// `GET …/stacks/{stack}/logs?follow&tail&since&service&timestamps&format`.
pub(crate) async fn stack_logs(front: &Arc<Front>, call: Call) -> Answered {
    let (target, stack) = (call.hole("target"), call.hole("stack"));
    let text = |key: &str| call.query.get(key).unwrap_or_default().to_owned();
    let asked = logs::Asked {
        services: call.query.all("service").map(str::to_owned).collect(),
        follow: call.query.flag("follow"),
        tail: text("tail"),
        since: text("since"),
    };
    let as_json = match call.query.get("format") {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(Problem::bad_request(format!("format: `{other}` is not text or json"))),
    };
    let has_times = call.query.flag("timestamps");
    let api = api_of(front, &target, &request_id(&call)).await?;
    let mut lines = logs::open(&api, &stack, &asked).await.map_err(|fault| match fault {
        herder_deploy::Fault::Missing(reasons) => Problem::new(StatusCode::NOT_FOUND, "not_found", reasons.join("; ")),
        fault => fault.into(),
    })?;
    let (mut out, body) = Channel::<Bytes, BoxError>::new(LINES_WAITING_MAX);
    tokio::spawn(async move {
        while let Some(line) = lines.next().await {
            let piece = match line {
                Ok(line) if as_json => format!("{}\n", json!(line)),
                Ok(line) => line.shown(lines.width, has_times),
                Err(error) if as_json => format!("{}\n", json!({"error": error})),
                Err(error) => format!("the logs broke off: {error}\n"),
            };
            if out.send_data(piece.into()).await.is_err() {
                return;
            }
        }
    });
    let mut reply = Response::new(body.boxed_unsync());
    let kind = if as_json { "application/x-ndjson" } else { "text/plain; charset=utf-8" };
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(reply)
}
