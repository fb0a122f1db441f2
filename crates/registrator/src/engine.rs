//! Calls to the engine: its events, its containers.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use herder_docker::{Decoder, EngineLink, empty, gather};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// One answer of the engine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Minimum and maximum backoff before the event stream is reopened.
const REST_MIN: Duration = Duration::from_millis(500);
const REST_MAX: Duration = Duration::from_secs(10);

/// Containers that are read at the same time.
const READS_MAX: usize = 8;

/// Events that are followed. They are starts, ends, names and health of containers; and, from an endpoint over many
/// engines, engines that come and go.
const EVENTS: &str = "/events?filters=%7B%22event%22%3A%5B%22start%22%2C%22die%22%2C%22rename%22%2C%22health_status%22%2C\
                      %22engine_connect%22%2C%22engine_reconnect%22%2C%22engine_disconnect%22%5D%7D";

/// The state of containers on a host that does not answer, as an endpoint over many engines lists them.
const HOST_DOWN: &str = "Host Down";

/// Something happened at the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// Events arrive from now on; earlier state must be read.
    Attached,
    Started(String),
    Died(String),
    Renamed(String),
    Health(String, String),
    /// An engine behind the endpoint came or went.
    Engines,
}

/// Says why the engine did not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("the Docker engine at {url}: {reason}")]
pub struct EngineFailed {
    url: String,
    reason: String,
}

fn failed(link: &EngineLink, reason: impl ToString) -> EngineFailed {
    EngineFailed { url: link.url(), reason: reason.to_string() }
}

/// Returns the engine's answer to a path; none if it does not know the object.
pub(crate) async fn read(link: &EngineLink, path: &str) -> Result<Option<Value>, EngineFailed> {
    let request = Request::builder().method(Method::GET).uri(path).body(empty());
    let request = request.map_err(|error| failed(link, error))?;
    let asked = async {
        let response = link.send(request).await.map_err(|error| failed(link, error))?;
        let status = response.status();
        let bytes = gather(response.into_body(), ANSWER_BYTES_MAX).await.map_err(|error| failed(link, error))?;
        match status.as_u16() {
            404 => Ok(None),
            200..300 => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(link, error)),
            _ => Err(failed(link, format!("{status}: {}", herder_docker::error_message(&bytes)))),
        }
    };
    let late = |_| failed(link, format!("no answer within {} s to {path}", ANSWER_TIME_MAX.as_secs()));
    timeout(ANSWER_TIME_MAX, asked).await.map_err(late)?
}

/// A container as the engine describes it.
pub(crate) async fn inspect(link: &EngineLink, id: &str) -> Result<Option<Value>, EngineFailed> {
    read(link, &format!("/containers/{id}/json")).await
}

/// All running containers.
pub(crate) async fn running(link: &EngineLink) -> Result<Vec<Value>, EngineFailed> {
    let list = read(link, "/containers/json").await?.unwrap_or_default();
    let there = list.as_array().into_iter().flatten();
    let up = there.filter(|it| !it["Status"].as_str().is_some_and(|status| status.starts_with(HOST_DOWN)));
    let ids: Vec<String> = up.filter_map(|it| it["Id"].as_str().map(str::to_owned)).collect();
    let reads = stream::iter(ids).map(|id| async move { inspect(link, &id).await }).buffer_unordered(READS_MAX);
    let found: Vec<Result<Option<Value>, EngineFailed>> = reads.collect().await;
    found.into_iter().filter_map(Result::transpose).collect()
}

/// Sends the engine's events for ever; a stream that breaks is opened anew.
pub(crate) async fn follow(link: &EngineLink, happened: mpsc::Sender<Happened>, stop: &CancellationToken) {
    let mut rest = REST_MIN;
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = hear(link, &happened, &mut rest) => heard,
        };
        if let Err(error) = heard {
            warn!(%error, "cannot follow the events of the engine");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(rest) => {}
        }
        rest = (rest * 2).min(REST_MAX);
    }
}

async fn hear(link: &EngineLink, happened: &mpsc::Sender<Happened>, rest: &mut Duration) -> Result<(), EngineFailed> {
    let request = Request::builder().uri(EVENTS).body(empty()).map_err(|error| failed(link, error))?;
    let late = |_| failed(link, "no answer to the request for events");
    let response = timeout(ANSWER_TIME_MAX, link.send_at_once(request)).await.map_err(late)?;
    let response = response.map_err(|error| failed(link, error))?;
    if !response.status().is_success() {
        return Err(failed(link, response.status()));
    }
    info!(engine = link.url(), "following events");
    *rest = REST_MIN;
    let mut body = response.into_body();
    let mut decoder = Decoder::default();
    let ended = || failed(link, "stopping");
    happened.send(Happened::Attached).await.map_err(|_| ended())?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed(link, error))?;
        let Ok(bytes) = frame.into_data() else { continue };
        decoder.push(&bytes);
        while let Some(event) = decoder.next().map_err(|error| failed(link, error))? {
            if let Some(event) = event_of(&event) {
                happened.send(event).await.map_err(|_| ended())?;
            }
        }
    }
    Err(failed(link, "the stream of events ended"))
}

fn event_of(event: &Value) -> Option<Happened> {
    let id = event.pointer("/Actor/ID").or_else(|| event.get("id"))?.as_str()?.to_owned();
    let action = event.get("Action").or_else(|| event.get("status"))?.as_str()?;
    if event["Type"] == "swarm" {
        return Some(Happened::Engines);
    }
    if event.get("Type").is_some_and(|kind| kind != "container") {
        return None;
    }
    match action {
        "start" => Some(Happened::Started(id)),
        "die" => Some(Happened::Died(id)),
        "rename" => Some(Happened::Renamed(id)),
        action => {
            let status = action.strip_prefix("health_status: ")?;
            Some(Happened::Health(id, status.to_owned()))
        }
    }
}
