//! Routes of Docker's objects on engines: containers, images, networks, volumes, and the engine itself.
//!
//! What an engine may know and this table does not, is sent to it where its path names the engine.

use std::sync::Arc;

use http::StatusCode;

use super::{Answer, Route, route};
use crate::{ApiError, Call, Front, build, containers, create, events, exec, images, networks, system, volumes};

pub(super) static ROUTES: &[Route] = &[
    route("GET", "/_ping", "system.ping", |front, call| Box::pin(system::ping(front, call))),
    route("GET", "/version", "system.version", |front, call| Box::pin(system::version(front, call))),
    route("GET", "/info", "system.info", |front, call| Box::pin(system::info(front, call))),
    route("GET", "/events", "system.events", |front, call| Box::pin(events::events(front, call))),
    route("GET", "/system/df", "system.df", |front, call| Box::pin(system::df(front, call))).since(25),
    route("POST", "/auth", "registry.login", any_engine),
    route("GET", "/distribution/{name*}", "registry.inspect", any_engine).since(30),
    route("GET", "/plugins", "plugin.list", plugins),
    route("*", "/plugins/{rest*}", "plugin.other", plugins),
    route("POST", "/session", "build.session", session),
    route("POST", "/grpc", "build.grpc", session),
    route("POST", "/build", "build.run", |front, call| Box::pin(build::build(front, call))),
    route("POST", "/build/prune", "build.prune", |front, call| Box::pin(build::prune_cache(front, call))).since(31),
    route("POST", "/build/cancel", "build.cancel", session),
    // Containers.
    route("GET", "/containers/json", "container.list", |front, call| Box::pin(containers::list(front, call))),
    route("GET", "/containers/ps", "container.list", |front, call| Box::pin(containers::list(front, call))),
    route("POST", "/containers/create", "container.create", |front, call| Box::pin(create::create(front, call))),
    route("POST", "/containers/prune", "container.prune", |front, call| Box::pin(containers::prune(front, call)))
        .since(25),
    route("POST", "/commit", "container.commit", |front, call| Box::pin(containers::commit(front, call))),
    route("GET", "/containers/{name*}/attach/ws", "container.attach", container),
    route("GET", "/containers/{name*}/json", "container.inspect", |front, call| {
        let name = call.hole("name");
        Box::pin(async move { containers::inspect(front, call, &name).await })
    }),
    route("GET", "/containers/{name*}/top", "container.top", container),
    route("GET", "/containers/{name*}/logs", "container.logs", container),
    route("GET", "/containers/{name*}/changes", "container.changes", container),
    route("GET", "/containers/{name*}/export", "container.export", container),
    route("GET", "/containers/{name*}/stats", "container.stats", container),
    route("HEAD", "/containers/{name*}/archive", "container.stat", container),
    route("GET", "/containers/{name*}/archive", "container.copy-from", container),
    route("PUT", "/containers/{name*}/archive", "container.copy-to", container),
    route("POST", "/containers/{name*}/start", "container.start", container),
    route("POST", "/containers/{name*}/stop", "container.stop", container),
    route("POST", "/containers/{name*}/restart", "container.restart", container),
    route("POST", "/containers/{name*}/kill", "container.kill", container),
    route("POST", "/containers/{name*}/pause", "container.pause", container),
    route("POST", "/containers/{name*}/unpause", "container.unpause", container),
    route("POST", "/containers/{name*}/update", "container.update", container),
    route("POST", "/containers/{name*}/wait", "container.wait", container),
    route("POST", "/containers/{name*}/resize", "container.resize", container),
    route("POST", "/containers/{name*}/attach", "container.attach", container),
    route("POST", "/containers/{name*}/rename", "container.rename", |front, call| {
        let name = call.hole("name");
        Box::pin(async move { containers::rename(front, call, &name).await })
    }),
    route("POST", "/containers/{name*}/exec", "exec.create", |front, call| {
        let name = call.hole("name");
        Box::pin(async move { exec::create(front, call, &name).await })
    }),
    route("DELETE", "/containers/{name*}", "container.remove", |front, call| {
        let name = call.hole("name");
        Box::pin(async move { containers::remove(front, call, &name).await })
    }),
    route("*", "/containers/{name*}", "container.other", container),
    route("POST", "/exec/{id}/start", "exec.start", exec_),
    route("POST", "/exec/{id}/resize", "exec.resize", exec_),
    route("GET", "/exec/{id}/json", "exec.inspect", exec_),
    route("*", "/exec/{id}/{verb}", "exec.other", exec_),
    // Images.
    route("GET", "/images/json", "image.list", |front, call| Box::pin(images::list(front, call))),
    route("GET", "/images/get", "image.save", |front, call| Box::pin(images::get_many(front, call))),
    route("GET", "/images/search", "registry.search", any_engine),
    route("GET", "/images/viz", "image.viz", |_, _| {
        let error = ApiError::new(StatusCode::NOT_IMPLEMENTED, "Not supported in clustering mode.");
        Box::pin(std::future::ready(Err(error)))
    }),
    route("POST", "/images/create", "image.pull", |front, call| Box::pin(images::create(front, call))),
    route("POST", "/images/load", "image.load", |front, call| Box::pin(images::load(front, call))),
    route("POST", "/images/prune", "image.prune", |front, call| Box::pin(images::prune(front, call))).since(25),
    route("GET", "/images/{name*}/json", "image.inspect", |front, call| {
        let name = call.hole("name");
        Box::pin(async move { images::inspect(front, call, &name).await })
    }),
    route("GET", "/images/{name*}/history", "image.history", |front, call| image(front, call, "history")),
    route("GET", "/images/{name*}/get", "image.save", |front, call| image(front, call, "get")),
    route("POST", "/images/{name*}/tag", "image.tag", |front, call| {
        let name = call.hole("name");
        Box::pin(async move { images::tag(front, call, &name).await })
    }),
    route("POST", "/images/{name*}/push", "image.push", |front, call| {
        let name = call.hole("name");
        Box::pin(async move { images::push(front, call, &name).await })
    }),
    route("DELETE", "/images/{name*}", "image.remove", |front, call| {
        let name = call.hole("name");
        Box::pin(async move { images::remove(front, call, &name).await })
    }),
    route("*", "/images/{name*}/{verb}", "image.other", |front, call| {
        let verb = call.hole("verb");
        image(front, call, &verb)
    }),
    // Networks.
    route("GET", "/networks", "network.list", |front, call| Box::pin(networks::list(front, call))),
    route("POST", "/networks/create", "network.create", |front, call| Box::pin(networks::create(front, call))),
    route("POST", "/networks/prune", "network.prune", |front, call| Box::pin(networks::prune(front, call))).since(25),
    route("POST", "/networks/{name*}/connect", "network.connect", |front, call| attach(front, call, "connect")),
    route("POST", "/networks/{name*}/disconnect", "network.disconnect", |front, call| {
        attach(front, call, "disconnect")
    }),
    route("GET", "/networks/{name*}", "network.inspect", |front, call| {
        let name = call.hole("name");
        Box::pin(async move { networks::inspect(front, call, &name).await })
    }),
    route("DELETE", "/networks/{name*}", "network.remove", |front, call| {
        let name = call.hole("name");
        Box::pin(async move { networks::remove(front, call, &name).await })
    }),
    // Volumes.
    route("GET", "/volumes", "volume.list", |front, call| Box::pin(volumes::list(front, call))),
    route("POST", "/volumes/create", "volume.create", |front, call| Box::pin(volumes::create(front, call))),
    route("POST", "/volumes/prune", "volume.prune", |front, call| Box::pin(volumes::prune(front, call))).since(25),
    route("GET", "/volumes/{name*}", "volume.inspect", volume),
    route("DELETE", "/volumes/{name*}", "volume.remove", |front, call| {
        let name = call.hole("name");
        Box::pin(async move { volumes::remove(front, call, &name).await })
    }),
    route("*", "/volumes/{name*}", "volume.other", volume),
];

/// Passes a call to the engine of its container unchanged.
fn container(front: &Arc<Front>, call: Call) -> Answer<'_> {
    let path = call.path.clone();
    Box::pin(async move {
        let rest = path.trim_matches('/').strip_prefix("containers/").unwrap_or_default();
        containers::act(front, call, rest).await
    })
}

fn exec_(front: &Arc<Front>, call: Call) -> Answer<'_> {
    let (id, path) = (call.hole("id"), call.path.clone());
    Box::pin(async move {
        let verb = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        exec::act(front, call, &id, verb).await
    })
}

fn image<'f>(front: &'f Arc<Front>, call: Call, verb: &str) -> Answer<'f> {
    let (name, verb) = (call.hole("name"), verb.to_owned());
    Box::pin(async move { images::act(front, call, &name, &verb).await })
}

fn attach<'f>(front: &'f Arc<Front>, call: Call, verb: &'static str) -> Answer<'f> {
    let name = call.hole("name");
    Box::pin(async move { networks::attach(front, call, &name, verb).await })
}

fn volume(front: &Arc<Front>, call: Call) -> Answer<'_> {
    let name = call.hole("name");
    Box::pin(async move { volumes::act(front, call, &name).await })
}

fn any_engine(front: &Arc<Front>, call: Call) -> Answer<'_> {
    Box::pin(system::any_engine(front, call))
}

fn plugins(front: &Arc<Front>, call: Call) -> Answer<'_> {
    Box::pin(system::plugins(front, call))
}

fn session(front: &Arc<Front>, call: Call) -> Answer<'_> {
    Box::pin(build::session(front, call))
}
