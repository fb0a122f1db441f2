//! Actions that ask engines: on one container, and lists of one node or of all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use herder_decide::actions::{Verb, What, shape};
use herder_decide::names::{self, Kind, NotFound};
use herder_model::Node;
use herder_pool::{Engine, EngineError, LinkError};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header, response};
use serde_json::Value;
use tokio::time::timeout;

use super::{node_named, shown};
use crate::call::gather_answer;
use crate::{ApiError, Front, containers};

/// A list of 10,000 containers takes some 20 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Docker's default time between a container's stop signal and its kill.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Headers of a request that belong to a connection and not to what is asked.
const NOT_PASSED_ON: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// One question to one engine.
struct Question {
    method: Method,
    /// Without version.
    path: String,
    headers: HeaderMap,
    limit: Duration,
    /// Full id of a container that is not the same afterwards.
    changes: Option<String>,
}

/// Reads the headers that a client wants engines to see.
fn headers_of(wanted: &[(String, String)]) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::new();
    for (name, value) in wanted {
        let read = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
        let (name, value) = read.ok_or_else(|| ApiError::bad_request(format!("headers.{name} cannot be sent")))?;
        if !NOT_PASSED_ON.contains(&name) {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

pub(super) async fn on_container(
    front: &Front,
    verb: Verb,
    id: &str,
    headers: &[(String, String)],
) -> Result<Value, ApiError> {
    let headers = headers_of(headers)?;
    let (node, container) = match names::container(&front.pool.nodes(), id) {
        Ok(found) => found,
        Err(NotFound::Unknown) => {
            return Ok(shape::unknown_id(&NotFound::Unknown.sentence(Kind::Container, id)));
        }
        Err(other) => return Err(ApiError::bad_request(other.sentence(Kind::Container, id))),
    };
    let engine = front.pool.engine(&node.addr).ok_or_else(|| ApiError::not_found("the node has just left"))?;
    let on = One { front, engine: &engine, id: &container.id, headers };
    Ok(match verb {
        Verb::Inspect => on.ask(Method::GET, "/json", Duration::ZERO).await,
        Verb::Start => on.ask(Method::POST, "/start", Duration::ZERO).await,
        Verb::Stop(grace) => on.stop("stop", grace).await,
        Verb::Restart(grace) => on.stop("restart", grace).await,
        Verb::Delete { force } => on.ask(Method::DELETE, if force { "?force=1" } else { "" }, Duration::ZERO).await,
        Verb::Shutdown(grace) => {
            let stopped = on.stop("stop", grace).await;
            match stopped["statusCode"].as_u64() {
                Some(..400) => on.ask(Method::DELETE, "", Duration::ZERO).await,
                _ => stopped,
            }
        }
    })
}

/// One container and its engine.
struct One<'o> {
    front: &'o Front,
    engine: &'o Arc<Engine>,
    id: &'o str,
    headers: HeaderMap,
}

impl One<'_> {
    /// `rest` is what follows the id in the path; `grace` the time that the engine may take besides its own.
    async fn ask(&self, method: Method, rest: &str, grace: Duration) -> Value {
        let changes = (method != Method::GET).then(|| self.id.to_owned());
        let path = format!("/containers/{}{rest}", self.id);
        let limit = self.front.actions.settings().task_timeout + grace;
        ask(self.engine, Question { method, path, headers: self.headers.clone(), limit, changes }).await
    }

    /// The engine answers when the container has stopped, so it is waited for as long as that may take.
    async fn stop(&self, action: &str, grace: Option<u64>) -> Value {
        if let Some(seconds) = grace {
            return self.ask(Method::POST, &format!("/{action}?t={seconds}"), Duration::from_secs(seconds)).await;
        }
        let seen = self.ask(Method::GET, "/json", Duration::ZERO).await;
        let config = &seen["Response"]["Body"]["Config"];
        if !config.is_object() {
            return seen;
        }
        let grace = config["StopTimeout"].as_u64().map_or(STOP_GRACE, Duration::from_secs);
        self.ask(Method::POST, &format!("/{action}"), grace).await
    }
}

/// Lists what is on one node: the one named, this door's own, or the next in turn.
pub(super) async fn list_one(
    front: &Front,
    what: What,
    hostname: Option<&str>,
    headers: &[(String, String)],
) -> Result<Value, ApiError> {
    let node = match hostname {
        Some(hostname) => node_named(front, hostname)?,
        None => any_node(front)?,
    };
    let engine = front.pool.engine(&node.addr).ok_or_else(|| ApiError::not_found("the node has just left"))?;
    Ok(list(front, &engine, what, headers_of(headers)?).await)
}

fn any_node(front: &Front) -> Result<Arc<Node>, ApiError> {
    let nodes = front.pool.nodes();
    let here = front.placer.peers().map(|peers| peers.here());
    if let Some(local) = here.and_then(|here| nodes.iter().find(|node| node.addr == here)) {
        return Ok(local.clone());
    }
    let healthy: Vec<&Arc<Node>> = nodes.iter().filter(|node| node.is_healthy()).collect();
    let round = front.actions.round.fetch_add(1, Ordering::Relaxed);
    let next = healthy.get(round % healthy.len().max(1)).copied().cloned();
    next.ok_or_else(|| ApiError::internal("No healthy node available in the cluster"))
}

/// Asks all members at once. Who does not answer in time is in the answer as late.
pub(super) async fn list_all(front: &Front, what: What, headers: &[(String, String)]) -> Result<Value, ApiError> {
    let headers = headers_of(headers)?;
    let nodes = front.pool.nodes();
    let engines: Vec<Arc<Engine>> = nodes.iter().filter_map(|node| front.pool.engine(&node.addr)).collect();
    let asked = engines.iter().map(|engine| list(front, engine, what, headers.clone()));
    Ok(shape::gathered(what, join_all(asked).await))
}

async fn list(front: &Front, engine: &Arc<Engine>, what: What, headers: HeaderMap) -> Value {
    let path = match what {
        What::Containers => "/containers/json?all=1",
        What::Images => "/images/json",
    };
    let limit = front.actions.settings().task_timeout;
    let question = Question { method: Method::GET, path: path.to_owned(), headers, limit, changes: None };
    let mut reply = ask(engine, question).await;
    if what == What::Images && reply["error"].is_null() {
        // Documented for this action alone.
        let status = reply["statusCode"].clone();
        reply["Response-Code"] = status;
    }
    reply
}

/// Asks one engine; its reply, or that it was late. Never fails: trouble is a reply, too.
async fn ask(engine: &Arc<Engine>, question: Question) -> Value {
    let node = engine.node();
    let name = shown(&node);
    if !node.is_healthy() {
        let reason = node.error.as_deref().unwrap_or("no reason known");
        return shape::late(Some(name), &format!("the node is {}: {reason}", node.state.as_str().to_lowercase()));
    }
    let (limit, changes) = (question.limit, question.changes.is_some());
    let work = exchange(engine.clone(), question);
    let answer = if changes {
        // In a task of its own: what was begun is brought to its end, and read again, however late.
        timeout(limit, tokio::spawn(work)).await.map(|done| {
            done.unwrap_or_else(|error| Err(ApiError::internal(format!("the action was broken off: {error}"))))
        })
    } else {
        timeout(limit, work).await
    };
    match answer {
        Ok(Ok(Some((parts, body)))) => shape::node_reply(name, parts.status.as_u16(), texts(&parts.headers), &body),
        Ok(Ok(None)) => shape::late(Some(name), "the node was lost meanwhile"),
        Ok(Err(ApiError::Engine(EngineError::Link(LinkError::Timeout { .. })))) | Err(_) => {
            shape::late(Some(name), &format!("the node did not answer within {limit:?}"))
        }
        Ok(Err(error)) => shape::failed(Some(name), error.status().as_u16(), &error.to_string()),
    }
}

/// Asks an engine; `None` if the node was lost meanwhile.
async fn exchange(engine: Arc<Engine>, question: Question) -> Result<Option<(response::Parts, Bytes)>, ApiError> {
    let Question { method, path, headers, changes, .. } = question;
    let mut request = Request::new(herder_pool::empty());
    *request.method_mut() = method;
    let uri = format!("/v{}{path}", engine.node().api_version);
    *request.uri_mut() = uri.parse().map_err(|_| ApiError::bad_request(format!("invalid path {uri:?}")))?;
    *request.headers_mut() = headers;
    let answer = async {
        let (parts, body) = engine.send(request).await?.into_parts();
        Ok::<_, ApiError>((parts, gather_answer(body, ANSWER_BYTES_MAX).await?))
    };
    let answer = tokio::select! {
        answer = answer => answer?,
        () = engine.until_lost() => return Ok(None),
    };
    if let Some(id) = changes {
        containers::reread(&engine, &id).await;
    }
    Ok(Some(answer))
}

/// Headers that are texts.
pub(super) fn texts(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
}
