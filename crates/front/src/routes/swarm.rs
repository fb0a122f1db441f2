//! Routes of a swarm's objects.

use std::sync::Arc;

use super::{Answer, Handler, Route};
use crate::Call;
use crate::swarm::files::{self, Of};
use crate::swarm::{Swarm, cluster, logs, nodes, services, tasks};

pub(super) static ROUTES: &[Route] = &[
    route("GET", "/swarm", "swarm.inspect", |swarm, _| Box::pin(cluster::inspect(swarm))),
    route("POST", "/swarm/init", "swarm.init", |swarm, call| Box::pin(cluster::init(swarm, call))),
    route("POST", "/swarm/join", "swarm.join", |swarm, call| Box::pin(cluster::join(swarm, call))),
    route("POST", "/swarm/leave", "swarm.leave", |swarm, call| Box::pin(cluster::leave(swarm, call))),
    route("POST", "/swarm/update", "swarm.update", |swarm, call| Box::pin(cluster::update(swarm, call))),
    route("GET", "/swarm/unlockkey", "swarm.unlock-key", |swarm, _| Box::pin(cluster::unlock_key(swarm))),
    route("POST", "/swarm/unlock", "swarm.unlock", |swarm, call| Box::pin(cluster::unlock(swarm, call))),
    route("GET", "/nodes", "node.list", |swarm, call| Box::pin(nodes::all(swarm, call))),
    route("GET", "/nodes/{id}", "node.inspect", |swarm, call| Box::pin(nodes::inspect(swarm, call.hole("id")))),
    route("DELETE", "/nodes/{id}", "node.remove", |swarm, call| {
        let id = call.hole("id");
        Box::pin(nodes::remove(swarm, call, id))
    }),
    route("POST", "/nodes/{id}/update", "node.update", |swarm, call| {
        let id = call.hole("id");
        Box::pin(nodes::update(swarm, call, id))
    }),
    route("GET", "/services", "service.list", |swarm, call| Box::pin(services::all(swarm, call))),
    Route::new(
        "POST",
        "/services/create",
        "service.create",
        Handler::Front(|front, call| Box::pin(services::create(front, call))),
    ),
    route("GET", "/services/{id}", "service.inspect", |swarm, call| {
        let id = call.hole("id");
        Box::pin(services::inspect(swarm, call, id))
    }),
    route("DELETE", "/services/{id}", "service.remove", |swarm, call| {
        Box::pin(services::remove(swarm, call.hole("id")))
    }),
    Route::new(
        "POST",
        "/services/{id}/update",
        "service.update",
        Handler::Front(|front, call| {
            let id = call.hole("id");
            Box::pin(services::update(front, call, id))
        }),
    ),
    route("GET", "/services/{id}/logs", "service.logs", |swarm, call| {
        let id = call.hole("id");
        Box::pin(logs::of_service(swarm, call, id))
    })
    .since(29),
    route("GET", "/tasks", "task.list", |swarm, call| Box::pin(tasks::all(swarm, call))),
    route("GET", "/tasks/{id}", "task.inspect", |swarm, call| {
        let id = call.hole("id");
        Box::pin(tasks::inspect(swarm, call, id))
    }),
    route("GET", "/tasks/{id}/logs", "task.logs", |swarm, call| {
        let id = call.hole("id");
        Box::pin(logs::of_task(swarm, call, id))
    })
    .since(29),
    route("GET", "/secrets", "secret.list", |swarm, call| Box::pin(files::all(swarm, call, Of::Secrets))).since(25),
    route("POST", "/secrets/create", "secret.create", |swarm, call| Box::pin(files::create(swarm, call, Of::Secrets)))
        .since(25),
    route("GET", "/secrets/{id}", "secret.inspect", |swarm, call| {
        Box::pin(files::inspect(swarm, Of::Secrets, call.hole("id")))
    })
    .since(25),
    route("DELETE", "/secrets/{id}", "secret.remove", |swarm, call| {
        Box::pin(files::remove(swarm, Of::Secrets, call.hole("id")))
    })
    .since(25),
    route("POST", "/secrets/{id}/update", "secret.update", |swarm, call| {
        let id = call.hole("id");
        Box::pin(files::update(swarm, call, Of::Secrets, id))
    })
    .since(25),
    route("GET", "/configs", "config.list", |swarm, call| Box::pin(files::all(swarm, call, Of::Configs))).since(30),
    route("POST", "/configs/create", "config.create", |swarm, call| Box::pin(files::create(swarm, call, Of::Configs)))
        .since(30),
    route("GET", "/configs/{id}", "config.inspect", |swarm, call| {
        Box::pin(files::inspect(swarm, Of::Configs, call.hole("id")))
    })
    .since(30),
    route("DELETE", "/configs/{id}", "config.remove", |swarm, call| {
        Box::pin(files::remove(swarm, Of::Configs, call.hole("id")))
    })
    .since(30),
    route("POST", "/configs/{id}/update", "config.update", |swarm, call| {
        let id = call.hole("id");
        Box::pin(files::update(swarm, call, Of::Configs, id))
    })
    .since(30),
];

const fn route(
    method: &'static str,
    pattern: &'static str,
    action: &'static str,
    handler: for<'f> fn(&'f Arc<dyn Swarm>, Call) -> Answer<'f>,
) -> Route {
    Route::new(method, pattern, action, Handler::Swarm(handler))
}
