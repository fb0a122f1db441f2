//! Which handler answers which route. Every route exists bare and below `/v1.xx`.

use std::pin::Pin;
use std::sync::Arc;

use http::StatusCode;

use crate::{ApiError, Call, Front, Reply, containers, create, exec};

/// An answer under way.
pub(crate) type Answer<'f> = Pin<Box<dyn Future<Output = Result<Reply, ApiError>> + Send + 'f>>;

/// Docker's own sentence for what needs swarm mode.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                        node to swarm and try again.";

/// Finds the handler and starts it.
pub(crate) fn route<'f>(front: &'f Arc<Front>, call: Call) -> Answer<'f> {
    let path = call.path.clone();
    let segments: Vec<&str> = path.trim_start_matches('/').trim_end_matches('/').split('/').collect();
    // HEAD is answered as GET; the body is dropped on the way out. Only `archive` has a HEAD of its own.
    let method = if call.parts.method == http::Method::HEAD { "GET" } else { call.parts.method.as_str() };
    match (method, segments.as_slice()) {
        ("GET", ["containers", "json" | "ps"]) => Box::pin(containers::list(front, call)),
        ("POST", ["containers", "create"]) => Box::pin(create::create(front, call)),
        ("POST", ["containers", "prune"]) => Box::pin(containers::prune(front, call)),
        ("POST", ["commit"]) => Box::pin(containers::commit(front, call)),
        (_, ["containers", rest @ ..]) if !rest.is_empty() => container(front, call, rest.join("/")),
        (_, ["exec", id, action]) => {
            let (id, action) = (id.to_string(), action.to_string());
            Box::pin(async move { exec::act(front, call, &id, &action).await })
        }
        // Owner of the objects: add `("GET", ["images", "json"]) => Box::pin(crate::images::list(front, call)),` and so on here.
        (_, ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..]) => {
            fail(StatusCode::SERVICE_UNAVAILABLE, NO_SWARM)
        }
        _ => fail(StatusCode::NOT_FOUND, "page not found"),
    }
}

/// Everything below one container.
fn container<'f>(front: &'f Arc<Front>, call: Call, rest: String) -> Answer<'f> {
    let method = call.parts.method.clone();
    Box::pin(async move {
        let action = rest.rsplit_once('/').map(|(name, action)| (name.to_owned(), action));
        match (method.as_str(), action) {
            ("DELETE", _) => containers::remove(front, call, &rest).await,
            ("GET", Some((name, "json"))) => containers::inspect(front, call, &name).await,
            ("POST", Some((name, "exec"))) => exec::create(front, call, &name).await,
            ("POST", Some((name, "rename"))) => containers::rename(front, call, &name).await,
            _ => containers::act(front, call, &rest).await,
        }
    })
}

fn fail<'f>(status: StatusCode, message: &str) -> Answer<'f> {
    let error = ApiError::new(status, message);
    Box::pin(async move { Err(error) })
}
