//! The stack API.

use super::{Route, route};
use crate::stacks::v1::{self, Simple};
use crate::stacks::v2::{self, answered};
use crate::stacks::{asked, document, inventory, logs, operations, reached, rename, targets};

const TARGET: &str = "/v2/targets/{target}";
const ONE: &str = "/v2/targets/{target}/stacks/{stack}";

pub(crate) static ROUTES: &[Route] = &[
    route("GET", "/v1/swagger.json", "document.swagger", |_, call| Box::pin(answered(document::swagger(call)))),
    route("GET", "/v2/openapi.json", "document.openapi", |_, call| Box::pin(answered(document::openapi(call)))),
    route("GET", "/v1/ui", "document.page", |_, call| Box::pin(answered(document::ui(call)))),
    route("GET", "/v1/ui/{file}", "document.file", |_, call| Box::pin(answered(document::ui(call)))),
    route("GET", "/v2/ui", "document.page", |_, call| Box::pin(answered(document::ui(call)))),
    route("GET", "/v2/ui/{file}", "document.file", |_, call| Box::pin(answered(document::ui(call)))),
    route("POST", "/v1/stack", "stack.deploy-at", |front, call| Box::pin(answered(v1::deploy(front, call)))),
    route("POST", "/v1/stack/{name}", "stack.inspect-at", |front, call| Box::pin(answered(v1::inspect(front, call)))),
    route("POST", "/v1/stack/delete/{name}", "stack.remove-at", |front, call| {
        Box::pin(answered(v1::delete(front, call)))
    }),
    route("POST", "/v1/swarm", "target.nodes-at", |front, call| Box::pin(answered(v1::swarm(front, call)))),
    route("GET", "/v1/network", "network.list-at", |front, call| {
        Box::pin(answered(v1::list(front, call, Simple::Network)))
    }),
    route("POST", "/v1/get_networks", "network.list-at", |front, call| {
        Box::pin(answered(v1::list(front, call, Simple::Network)))
    }),
    route("POST", "/v1/network", "network.create-at", |front, call| {
        Box::pin(answered(v1::create(front, call, Simple::Network)))
    }),
    route("POST", "/v1/create_network", "network.create-at", |front, call| {
        Box::pin(answered(v1::create(front, call, Simple::Network)))
    }),
    route("DELETE", "/v1/network/delete", "network.remove-at", |front, call| {
        Box::pin(answered(v1::delete_one(front, call, Simple::Network)))
    }),
    route("GET", "/v1/volume", "volume.list-at", |front, call| {
        Box::pin(answered(v1::list(front, call, Simple::Volume)))
    }),
    route("POST", "/v1/get_volumes", "volume.list-at", |front, call| {
        Box::pin(answered(v1::list(front, call, Simple::Volume)))
    }),
    route("POST", "/v1/volume", "volume.create-at", |front, call| {
        Box::pin(answered(v1::create(front, call, Simple::Volume)))
    }),
    route("POST", "/v1/create_volume", "volume.create-at", |front, call| {
        Box::pin(answered(v1::create(front, call, Simple::Volume)))
    }),
    route("DELETE", "/v1/volume/delete", "volume.remove-at", |front, call| {
        Box::pin(answered(v1::delete_one(front, call, Simple::Volume)))
    }),
    route("GET", "/v2/targets", "target.list", |front, call| Box::pin(answered(targets::list(front, call)))),
    route("POST", "/v2/targets", "target.create", |front, call| Box::pin(answered(targets::put(front, call)))),
    route("GET", TARGET, "target.inspect", |front, call| Box::pin(answered(targets::inspect(front, call)))),
    route("PUT", TARGET, "target.update", |front, call| Box::pin(answered(targets::put(front, call)))),
    route("PATCH", TARGET, "target.update", |front, call| Box::pin(answered(targets::patch(front, call)))),
    route("DELETE", TARGET, "target.remove", |front, call| Box::pin(answered(targets::delete(front, call)))),
    route("POST", "/v2/targets/{target}/check", "target.check", |front, call| {
        Box::pin(answered(targets::check(front, call)))
    }),
    route("GET", "/v2/targets/{target}/nodes", "target.nodes", |front, call| {
        Box::pin(answered(inventory::list(front, call, "nodes")))
    }),
    route("GET", "/v2/targets/{target}/networks", "target.networks", |front, call| {
        Box::pin(answered(inventory::list(front, call, "networks")))
    }),
    route("POST", "/v2/targets/{target}/networks", "network.create-at", |front, call| {
        Box::pin(answered(inventory::create(front, call, "networks")))
    }),
    route("DELETE", "/v2/targets/{target}/networks/{name}", "network.remove-at", |front, call| {
        Box::pin(answered(inventory::remove(front, call, "networks")))
    }),
    route("GET", "/v2/targets/{target}/volumes", "target.volumes", |front, call| {
        Box::pin(answered(inventory::list(front, call, "volumes")))
    }),
    route("POST", "/v2/targets/{target}/volumes", "volume.create-at", |front, call| {
        Box::pin(answered(inventory::create(front, call, "volumes")))
    }),
    route("DELETE", "/v2/targets/{target}/volumes/{name}", "volume.remove-at", |front, call| {
        Box::pin(answered(inventory::remove(front, call, "volumes")))
    }),
    route("GET", "/v2/targets/{target}/stacks", "stack.list", |front, call| Box::pin(answered(v2::list(front, call)))),
    route("POST", "/v2/targets/{target}/stacks", "stack.deploy", |front, call| {
        Box::pin(answered(v2::deploy(front, call)))
    }),
    route("GET", ONE, "stack.inspect", |front, call| Box::pin(answered(v2::inspect(front, call)))),
    route("PUT", ONE, "stack.deploy", |front, call| Box::pin(answered(v2::deploy(front, call)))),
    route("DELETE", ONE, "stack.remove", |front, call| Box::pin(answered(v2::remove(front, call)))),
    route("POST", "/v2/targets/{target}/stacks/{stack}/plan", "stack.plan", |front, call| {
        Box::pin(answered(v2::plan(front, call)))
    }),
    route("GET", "/v2/targets/{target}/stacks/{stack}/services", "stack.services", |front, call| {
        Box::pin(answered(v2::services(front, call)))
    }),
    route("GET", "/v2/targets/{target}/stacks/{stack}/tasks", "stack.tasks", |front, call| {
        Box::pin(answered(v2::tasks(front, call)))
    }),
    route("GET", "/v2/targets/{target}/stacks/{stack}/logs", "stack.logs", |front, call| {
        Box::pin(answered(logs::stack_logs(front, call)))
    }),
    route("GET", "/v2/targets/{target}/stacks/{stack}/endpoints", "stack.endpoints", |front, call| {
        Box::pin(answered(reached::endpoints(front, call)))
    }),
    route("GET", "/v2/targets/{target}/stacks/{stack}/events", "stack.events", |front, call| {
        Box::pin(answered(reached::events(front, call)))
    }),
    route("GET", "/v2/targets/{target}/stacks/{stack}/revisions", "stack.revisions", |front, call| {
        Box::pin(answered(v2::list_revisions(front, call)))
    }),
    route("GET", "/v2/targets/{target}/stacks/{stack}/revisions/{number}", "stack.revision", |front, call| {
        Box::pin(answered(v2::revision(front, call)))
    }),
    route("POST", "/v2/targets/{target}/stacks/{stack}/rollback", "stack.rollback", |front, call| {
        Box::pin(answered(v2::rollback(front, call)))
    }),
    route("POST", "/v2/targets/{target}/stacks/{stack}/rename", "stack.rename", |front, call| {
        Box::pin(answered(rename::rename_stack(front, call)))
    }),
    route("POST", "/v2/targets/{target}/stacks/{stack}/services/{service}/scale", "stack.scale", |front, call| {
        Box::pin(answered(v2::scale(front, call)))
    }),
    route("POST", "/v2/targets/{target}/stacks/{stack}/services/{service}/restart", "stack.restart", |front, call| {
        Box::pin(answered(v2::restart(front, call)))
    }),
    route("GET", "/v2/operations", "operation.list", |front, call| {
        Box::pin(answered(operations::list_operations(front, call)))
    }),
    route("GET", "/v2/operations/{operation}", "operation.inspect", |front, call| {
        Box::pin(answered(operations::operation(front, call)))
    }),
    route("DELETE", "/v2/operations/{operation}", "operation.cancel", |front, call| {
        Box::pin(answered(operations::cancel_operation(front, call)))
    }),
    route("GET", "/v2/operations/{operation}/events", "operation.events", |front, call| {
        Box::pin(answered(operations::operation_events(front, call)))
    }),
    route("GET", "/v2/metrics", "metrics.read", |front, _| {
        Box::pin(answered(std::future::ready(front.metrics.answer())))
    }),
    route("POST", "/v2/compose/check", "compose.check", |_, call| Box::pin(answered(asked::check(call)))),
    route("POST", "/v2/compose/config", "compose.config", |_, call| Box::pin(answered(asked::config(call)))),
    route("POST", "/v2/compose/variables", "compose.variables", |_, call| Box::pin(answered(asked::variables(call)))),
];
