//! Which handler answers which route. Every route exists bare and below `/v1.xx`.

use std::pin::Pin;
use std::sync::Arc;

use http::StatusCode;

use crate::{
    ApiError, Call, Front, Reply, actions, build, bus, containers, create, events, exec, images, networks, swarm,
    system, volumes,
};

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
        ("GET", ["_ping"]) => Box::pin(system::ping(front, call)),
        ("GET", ["version"]) => Box::pin(system::version(front, call)),
        ("GET", ["info"]) => Box::pin(system::info(front, call)),
        ("POST", [""]) if call.version.is_none() => Box::pin(actions::post(front, call)),
        ("GET", [""]) if call.version.is_none() => Box::pin(actions::greet(front, call)),
        ("GET", ["herder", "templates"]) => Box::pin(actions::list_templates(front, call)),
        ("GET", ["herder", "nodes"]) => Box::pin(system::nodes(front, call)),
        ("GET", ["herder", "why", subject]) => Box::pin(swarm::why(front, (*subject).to_owned())),
        ("POST", ["herder", "backup"]) => Box::pin(swarm::backup::backup(front, call)),
        ("POST", ["herder", "restore"]) => Box::pin(swarm::backup::restore(front, call)),
        ("POST", ["herder", "token", "rotate"]) => Box::pin(system::rotate_token(front, call)),
        ("GET", ["events", "stream"]) => Box::pin(bus::stream(front, call)),
        (_, ["eventbus", ..]) => Box::pin(bus::eventbus(front, call)),
        ("GET", ["events"]) => Box::pin(events::events(front, call)),
        ("GET", ["system", "df"]) => Box::pin(system::df(front, call)),
        ("POST", ["auth"]) | ("GET", ["images", "search"] | ["distribution", ..]) => {
            Box::pin(system::any_engine(front, call))
        }
        (_, ["plugins", ..]) => Box::pin(system::plugins(front, call)),
        ("POST", ["build"]) => Box::pin(build::build(front, call)),
        ("POST", ["build", "prune"]) => Box::pin(build::prune_cache(front, call)),
        ("POST", ["session"] | ["grpc"] | ["build", "cancel"]) => Box::pin(build::session(front, call)),
        (_, ["images", rest @ ..]) if !rest.is_empty() => image(front, call, rest),
        (_, ["networks", rest @ ..]) => network(front, call, rest),
        (_, ["volumes", rest @ ..]) => volume(front, call, rest),
        (_, ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..]) => match front.swarm() {
            Some(swarm) => {
                swarm::route(swarm, call, &segments).unwrap_or_else(|| fail(StatusCode::NOT_FOUND, "page not found"))
            }
            None => fail(StatusCode::SERVICE_UNAVAILABLE, NO_SWARM),
        },
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

/// Everything about images. Names contain slashes; the last segment may be an action.
fn image<'f>(front: &'f Arc<Front>, call: Call, rest: &[&str]) -> Answer<'f> {
    match (verb(&call), rest) {
        ("GET", ["json"]) => return Box::pin(images::list(front, call)),
        ("GET", ["get"]) => return Box::pin(images::get_many(front, call)),
        ("GET", ["viz"]) => return fail(StatusCode::NOT_IMPLEMENTED, "Not supported in clustering mode."),
        ("POST", ["create"]) => return Box::pin(images::create(front, call)),
        ("POST", ["load"]) => return Box::pin(images::load(front, call)),
        ("POST", ["prune"]) => return Box::pin(images::prune(front, call)),
        _ => {}
    }
    let whole = rest.join("/");
    let verb = verb(&call).to_owned();
    Box::pin(async move {
        match (verb.as_str(), whole.rsplit_once('/')) {
            ("DELETE", _) => images::remove(front, call, &whole).await,
            ("GET", Some((name, "json"))) => images::inspect(front, call, name).await,
            ("POST", Some((name, "tag"))) => images::tag(front, call, name).await,
            ("POST", Some((name, "push"))) => images::push(front, call, name).await,
            (_, Some((name, action))) => images::act(front, call, name, action).await,
            (_, None) => Err(ApiError::not_found("page not found")),
        }
    })
}

/// Everything about networks. Names may be `node/name`.
fn network<'f>(front: &'f Arc<Front>, call: Call, rest: &[&str]) -> Answer<'f> {
    let (verb, name) = (verb(&call).to_owned(), rest.join("/"));
    match (verb.as_str(), rest) {
        ("GET", []) => Box::pin(networks::list(front, call)),
        ("POST", ["create"]) => Box::pin(networks::create(front, call)),
        ("POST", ["prune"]) => Box::pin(networks::prune(front, call)),
        ("POST", [_, .., "connect" | "disconnect"]) => Box::pin(async move {
            let (name, action) = name.rsplit_once('/').unwrap_or((&name, ""));
            networks::attach(front, call, name, action).await
        }),
        ("GET", _) => Box::pin(async move { networks::inspect(front, call, &name).await }),
        ("DELETE", [_, ..]) => Box::pin(async move { networks::remove(front, call, &name).await }),
        _ => fail(StatusCode::NOT_FOUND, "page not found"),
    }
}

/// Everything about volumes. Names may be `node/name`.
fn volume<'f>(front: &'f Arc<Front>, call: Call, rest: &[&str]) -> Answer<'f> {
    let (verb, name) = (verb(&call).to_owned(), rest.join("/"));
    match (verb.as_str(), rest) {
        ("GET", []) => Box::pin(volumes::list(front, call)),
        ("POST", ["create"]) => Box::pin(volumes::create(front, call)),
        ("POST", ["prune"]) => Box::pin(volumes::prune(front, call)),
        ("DELETE", [_, ..]) => Box::pin(async move { volumes::remove(front, call, &name).await }),
        (_, [_, ..]) => Box::pin(async move { volumes::act(front, call, &name).await }),
        _ => fail(StatusCode::NOT_FOUND, "page not found"),
    }
}

/// The method, HEAD taken as GET: it is answered alike, and the body is dropped on the way out.
fn verb(call: &Call) -> &str {
    if call.parts.method == http::Method::HEAD { "GET" } else { call.parts.method.as_str() }
}

fn fail<'f>(status: StatusCode, message: &str) -> Answer<'f> {
    let error = ApiError::new(status, message);
    Box::pin(async move { Err(error) })
}
