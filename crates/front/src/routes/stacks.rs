//! The stack API.

use super::{Route, route};
use crate::stacks::v2::{self, answered};
use crate::stacks::{asked, operations};

const ONE: &str = "/v2/targets/{target}/stacks/{stack}";

pub(super) static ROUTES: &[Route] = &[
    route("GET", "/v2/targets", "target.list", |front, _| Box::pin(answered(v2::targets(front)))),
    route("GET", "/v2/targets/{target}", "target.inspect", |front, call| Box::pin(answered(v2::target(front, call)))),
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
    route("GET", "/v2/targets/{target}/stacks/{stack}/revisions", "stack.revisions", |front, call| {
        Box::pin(answered(v2::list_revisions(front, call)))
    }),
    route("GET", "/v2/targets/{target}/stacks/{stack}/revisions/{number}", "stack.revision", |front, call| {
        Box::pin(answered(v2::revision(front, call)))
    }),
    route("POST", "/v2/targets/{target}/stacks/{stack}/rollback", "stack.rollback", |front, call| {
        Box::pin(answered(v2::rollback(front, call)))
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
    route("POST", "/v2/compose/check", "compose.check", |_, call| Box::pin(answered(asked::check(call)))),
    route("POST", "/v2/compose/config", "compose.config", |_, call| Box::pin(answered(asked::config(call)))),
    route("POST", "/v2/compose/variables", "compose.variables", |_, call| Box::pin(answered(asked::variables(call)))),
];
