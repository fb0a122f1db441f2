//! herder's own routes: DockerMod's actions, the event bus, and what operators ask.

use super::{Route, route};
use crate::{actions, bus, console, swarm, system};

pub(super) static ROUTES: &[Route] = &[
    route("POST", "/", "action.run", |front, call| Box::pin(actions::post(front, call))).unversioned(),
    route("GET", "/", "action.greet", |front, call| Box::pin(actions::greet(front, call))).unversioned(),
    route("GET", "/herder/templates", "template.list", |front, call| Box::pin(actions::list_templates(front, call))),
    route("GET", "/herder/nodes", "pool.nodes", |front, call| Box::pin(system::nodes(front, call))),
    route("GET", "/herder/why/{subject}", "swarm.why", |front, call| {
        let subject = call.hole("subject");
        Box::pin(swarm::why(front, subject))
    }),
    route("GET", "/herder/ingress", "ingress.inspect", |front, call| Box::pin(swarm::ingress::show(front, call))),
    route("GET", "/herder/ui", "ingress.inspect", |front, call| Box::pin(console::routes(front, call))),
    route("GET", "/herder/ui/certificates", "certificate.list", |front, call| {
        Box::pin(console::certificates(front, call))
    }),
    route("GET", "/herder/ui/problems", "ingress.inspect", |front, call| Box::pin(console::problems(front, call))),
    route("PUT", "/herder/ingress", "ingress.enable", |front, call| Box::pin(swarm::ingress::enable(front, call))),
    route("DELETE", "/herder/ingress", "ingress.disable", |front, call| Box::pin(swarm::ingress::disable(front, call))),
    route("GET", "/herder/certificates", "certificate.list", |front, call| {
        Box::pin(swarm::ingress::certificates(front, call))
    }),
    route("PUT", "/herder/certificates/{name}", "certificate.import", |front, call| {
        Box::pin(swarm::ingress::import(front, call))
    })
    .only_for_known(),
    route("GET", "/herder/certificates/{name}/key", "certificate.export", |front, call| {
        Box::pin(swarm::ingress::export(front, call))
    })
    .only_for_known(),
    route("POST", "/herder/certificates/{name}/renew", "certificate.renew", |front, call| {
        Box::pin(swarm::ingress::renew(front, call))
    }),
    route("GET", "/herder/ingress/authority", "certificate.authority", |front, call| {
        Box::pin(swarm::ingress::authority(front, call))
    }),
    route("DELETE", "/herder/certificates/{name}", "certificate.remove", |front, call| {
        Box::pin(swarm::ingress::remove(front, call))
    }),
    route("GET", "/herder/exports", "export.list", |front, call| Box::pin(swarm::export::list(front, call))),
    route("POST", "/herder/exports", "export.add", |front, call| Box::pin(swarm::export::add(front, call))),
    route("DELETE", "/herder/exports/{id}", "export.remove", |front, call| {
        Box::pin(swarm::export::remove(front, call))
    }),
    route("POST", "/herder/backup", "swarm.backup", |front, call| Box::pin(swarm::backup::backup(front, call)))
        .only_for_known(),
    route("POST", "/herder/restore", "swarm.restore", |front, call| Box::pin(swarm::backup::restore(front, call))),
    route("POST", "/herder/token/rotate", "pool.token-rotate", |front, call| {
        Box::pin(system::rotate_token(front, call))
    }),
    route("GET", "/events/stream", "bus.stream", |front, call| Box::pin(bus::stream(front, call))),
    route("*", "/eventbus", "bus.greet", |front, call| Box::pin(bus::eventbus(front, call))),
    route("*", "/eventbus/{rest*}", "bus.bridge", |front, call| Box::pin(bus::eventbus(front, call))),
];
