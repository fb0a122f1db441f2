//! `POST /build`: scheduled like a container, then streamed to that one engine. Other nodes get the image when a container
//! needs it there.

use std::sync::Arc;
use std::time::Duration;

use herder_decide::{ground, names, prune, request};
use herder_model::Node;
use herder_pool::Engine;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

use crate::path::{encode_query, for_engine};
use crate::{ApiError, Call, Front, Reply, call, fanout, forward};

/// Time for a client to open its session. The docker CLI opens it beside the build, and hangs if the build is refused before.
const SESSION_OPEN_TIME: Duration = Duration::from_millis(500);

pub(crate) async fn build(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let text = call.query.get("buildargs").unwrap_or("{}");
    let arguments: Value =
        serde_json::from_str(text).map_err(|error| ApiError::bad_request(format!("invalid buildargs: {error}")))?;
    let memory = call.query.get("memory").and_then(|text| text.parse().ok()).unwrap_or_default();
    let parsed = request::parse_build(&arguments, memory).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let (request, arguments) = parsed;
    let ranked = front.placer.scheduler.rank(&request, &front.pool.nodes(), &mut rand::rng());
    let mut ranked = ranked.map_err(|error| ApiError::internal(error.to_string()))?;
    let replaced = replace_network(front, &mut call, &ranked)?;
    if let Some(addr) = &replaced {
        ranked.retain(|node| node.addr == *addr);
    }
    let node = match call.query.get("session").is_some_and(|session| !session.is_empty()) {
        true => match with_session(front, ranked) {
            Ok(node) => node,
            Err(error) => {
                sleep(SESSION_OPEN_TIME).await;
                return Err(error);
            }
        },
        false => ranked.swap_remove(0),
    };
    let engine = front.pool.engine(&node.addr).ok_or_else(|| ApiError::internal("the chosen node has just left"))?;
    if call.query.get("buildargs").is_some() {
        replace(&mut call, "buildargs", &arguments.to_string())?;
    }
    if let Some(network) = call.query.get("networkmode").map(str::to_owned) {
        herder_place::create::ground::network(&front.placer, &engine, &network).await?;
    }
    tracing::info!(node = node.name, "building an image");
    let reply = forward::to_engine(front, call, &engine, "/build".into()).await?;
    let again = async move {
        if let Err(error) = engine.refresh_images().await {
            tracing::debug!(%error, "cannot read images after a build");
        }
    };
    Ok(reply.map(|body| forward::after(body, again)))
}

/// Replaces the value of `--network`. An id of the cluster or `node/name` becomes the name that engines know;
/// `container:NAME` becomes the id, and the address of the container's node is returned.
fn replace_network(front: &Front, call: &mut Call, ranked: &[Arc<Node>]) -> Result<Option<String>, ApiError> {
    let Some(mode) = call.query.get("networkmode").map(str::to_owned) else { return Ok(None) };
    let nodes = front.pool.nodes();
    if let Some(name) = mode.strip_prefix("container:") {
        let found = names::container(&nodes, name);
        let (node, container) =
            found.map_err(|error| ApiError::bad_request(error.sentence(names::Kind::Container, name)))?;
        if !ranked.iter().any(|it| it.addr == node.addr) {
            let sentence = format!("the build cannot run on node {}, where container {name} is", node.name);
            return Err(ApiError::bad_request(sentence));
        }
        replace(call, "networkmode", &format!("container:{}", container.id))?;
        return Ok(Some(node.addr.clone()));
    }
    if let Some(name) = ground::localise(&nodes, &mode) {
        replace(call, "networkmode", &name)?;
    }
    Ok(None)
}

/// Gives one query parameter another value; the others stay as they were.
fn replace(call: &mut Call, key: &str, value: &str) -> Result<(), ApiError> {
    let pair = |(name, old): &(String, String)| {
        let value = if name == key { value } else { old };
        format!("{}={}", encode_query(name), encode_query(value))
    };
    let query: Vec<String> = call.query.0.iter().map(pair).collect();
    let set = |(name, old): &(String, String)| (name.clone(), if name == key { value.to_owned() } else { old.clone() });
    let pairs = call.query.0.iter().map(set).collect();
    let path = PathAndQuery::try_from(format!("{}?{}", call.parts.uri.path(), query.join("&")));
    let path = path.map_err(|error| ApiError::bad_request(format!("invalid query: {error}")))?;
    call.parts.uri = http::Uri::from(path);
    call.query.0 = pairs;
    Ok(())
}

/// `POST /build/prune` on every node.
pub(crate) async fn prune_cache(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let path = for_engine(None, "/build/prune", call.parts.uri.query());
    let parts = fanout::ask_all(front, Method::POST, &path, None).await;
    Ok(call::json(StatusCode::OK, &prune::over_nodes(parts, front.pool.settings().naming).map_err(ApiError::internal)?))
}

/// Returns the engine for BuildKit. One build comes over several connections (`/session`, `/grpc`, `/build`), of which
/// only some name the build. One node for all keeps them together.
fn buildkit(front: &Front) -> Result<Arc<Engine>, ApiError> {
    fanout::any(front)
}

/// The node of BuildKit, if the build may run there.
fn with_session(front: &Front, ranked: Vec<Arc<Node>>) -> Result<Arc<Node>, ApiError> {
    let engine = buildkit(front)?;
    let fits = ranked.into_iter().find(|node| node.addr == engine.addr());
    fits.ok_or_else(|| {
        ApiError::bad_request(format!(
            "a BuildKit build runs on node {}, and the build arguments ask for another: use the classic builder for \
             constraints and affinities (DOCKER_BUILDKIT=0 docker build …)",
            engine.node().name
        ))
    })
}

/// `POST /session`, `/grpc` and `/build/cancel`: to where BuildKit lives.
pub(crate) async fn session(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let engine = buildkit(front)?;
    let path = call.path.clone();
    forward::to_engine(front, call, &engine, path).await
}
