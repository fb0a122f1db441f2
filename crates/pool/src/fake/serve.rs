//! The HTTP side of a fake engine.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{FakeContainer, Shared, objects};

/// A body that cannot fail.
type Body = UnsyncBoxBody<Bytes, Infallible>;

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).boxed_unsync()
}

pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken) {
    while let Some(Ok((connection, _))) = stop.run_until_cancelled(listener.accept()).await {
        tokio::spawn(serve(shared.clone(), connection));
    }
}

async fn serve(shared: Arc<Shared>, connection: TcpStream) {
    let stop = shared.connected.lock().clone();
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(shared, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service);
    // A connection that breaks is normal here.
    let _ = stop.run_until_cancelled(served).await;
}

async fn while_hung(shared: &Shared) {
    // The sender lives as long as `shared`.
    let _ = shared.hung.subscribe().wait_for(|hung| !hung).await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = without_version(parts.uri.path()).to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    *shared.requests.lock().entry(kind(&parts.method, &path)).or_default() += 1;
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    while_hung(&shared).await;
    if !shared.spec.latency.is_zero() {
        tokio::time::sleep(shared.spec.latency).await;
    }
    let failure = shared.errors.lock().iter().find(|(part, _)| path.contains(part.as_str())).map(|(_, status)| *status);
    if let Some(status) = failure {
        return reply(status, &json!({"message": "made to fail"}));
    }
    match (parts.method, path.as_str()) {
        (Method::GET | Method::HEAD, "/_ping") => Response::new(full("OK".into())),
        (Method::GET, "/info") => reply(200, &shared.info()),
        (Method::GET, "/version") => reply(200, &json!({"Version": "20.10.24", "ApiVersion": "1.41"})),
        (Method::GET, "/events") => Response::new(events(shared, &query)),
        (Method::GET, "/images/json") => reply(200, &objects::images()),
        (Method::GET, "/networks") => reply(200, &objects::networks()),
        (Method::GET, "/volumes") => reply(200, &json!({"Volumes": [], "Warnings": null})),
        (Method::GET, "/containers/json") => list(&shared, &query),
        (Method::POST, "/containers/create") => create(&shared, &query, &body),
        (method, path) => container(&shared, &method, path),
    }
}

fn without_version(path: &str) -> &str {
    let version = path.strip_prefix("/v").and_then(|rest| rest.find('/'));
    version.map_or(path, |end| if path.as_bytes()[2].is_ascii_digit() { &path[end + 2..] } else { path })
}

/// `GET /containers/{id}/json` and the like, without the ids.
fn kind(method: &Method, path: &str) -> String {
    let id = |part: &str| if part.len() == 64 { "{id}".to_owned() } else { part.to_owned() };
    format!("{method} {}", path.split('/').map(id).collect::<Vec<_>>().join("/"))
}

fn reply(status: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn list(shared: &Shared, query: &str) -> Response<Body> {
    let wanted = parameter(query, "filters").map(unescape).and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let wanted = wanted.as_ref().and_then(|filters| filters["id"][0].as_str());
    let containers = shared.containers.lock();
    let seen = containers.values().filter(|container| wanted.is_none_or(|id| container.id.starts_with(id)));
    reply(200, &seen.map(FakeContainer::entry).collect())
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).filter(|_| *first == b'%');
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn create(shared: &Shared, query: &str, body: &[u8]) -> Response<Body> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return reply(400, &json!({"message": "invalid JSON"}));
    };
    let name = parameter(query, "name");
    if shared.containers.lock().values().any(|container| Some(container.name.as_str()) == name) {
        return reply(409, &json!({"message": "Conflict. The container name is already in use"}));
    }
    let id = shared.add(FakeContainer::from_create(name, &body));
    reply(201, &json!({"Id": id, "Warnings": []}))
}

/// Answers calls about one container.
fn container(shared: &Shared, method: &Method, path: &str) -> Response<Body> {
    let mut words = path.split('/').skip(1);
    let (Some("containers"), Some(name)) = (words.next(), words.next()) else {
        return reply(404, &json!({"message": "page not found"}));
    };
    let found =
        shared.containers.lock().values().find(|container| container.id == name || container.name == name).cloned();
    let Some(found) = found else {
        return reply(404, &json!({"message": format!("No such container: {name}")}));
    };
    let state = |state: &str, action: &str| {
        if let Some(container) = shared.containers.lock().get_mut(&found.id) {
            container.state = state.to_owned();
        }
        shared.tell(action, &found.id);
        reply(204, &Value::Null)
    };
    match (method, words.next()) {
        (&Method::GET, Some("json")) => reply(200, &found.inspect()),
        (&Method::POST, Some("start")) => state("running", "start"),
        (&Method::POST, Some("stop" | "kill")) => state("exited", "die"),
        (&Method::DELETE, None) => {
            shared.tell("destroy", &found.id);
            shared.containers.lock().remove(&found.id);
            reply(204, &Value::Null)
        }
        _ => reply(404, &json!({"message": "page not found"})),
    }
}

/// Streams events. With `since`, remembered ones come first; with `until` (always in the past) the stream ends after
/// them.
fn events(shared: Arc<Shared>, query: &str) -> Body {
    let receiver = shared.events.subscribe();
    let nano = |text: &str| {
        let (seconds, nano) = text.split_once('.').unwrap_or((text, "0"));
        Some(seconds.parse::<i64>().ok()? * 1_000_000_000 + nano.parse::<i64>().ok()?)
    };
    let since = parameter(query, "since").and_then(nano);
    let past: Vec<Arc<str>> = match since {
        None => vec![],
        Some(since) => shared.past.lock().iter().filter(|(at, _)| *at >= since).map(|(_, it)| it.clone()).collect(),
    };
    let over = parameter(query, "until").is_some();
    let live = stream::unfold((shared, receiver), |(shared, mut receiver)| async move {
        let event = receiver.recv().await.ok()?;
        while_hung(&shared).await;
        Some((event, (shared, receiver)))
    });
    let live = live.take(if over { 0 } else { usize::MAX });
    let frames = stream::iter(past).chain(live).map(|event| Frame::data(Bytes::copy_from_slice(event.as_bytes())));
    StreamBody::new(frames.map(Ok)).boxed_unsync()
}
