//! Whether a task is still what its service declares.

use herder_model::swarm::{NodeRecord, ServiceRecord, TaskRecord, TaskSpec};

/// Whether the task has to be replaced to be what its service declares. Another number of replicas, labels of the service or
/// settings of its updates replace nothing; other constraints do if the task's node does not fit to them.
pub fn is_dirty(service: &ServiceRecord, task: &TaskRecord, node: Option<&NodeRecord>) -> bool {
    if service.spec_version == task.spec_version {
        return false;
    }
    let template = &service.service.spec.task_template;
    let ports = service.service.spec.endpoint_spec.as_ref().map_or(&[][..], |it| &it.ports);
    if ports != task.ports || !runs_the_same(template, &task.task.spec) {
        return true;
    }
    template.placement != task.task.spec.placement && !node.is_some_and(|node| eligible(node, template))
}

/// Whether two specifications differ only in where their tasks may run.
fn runs_the_same(these: &TaskSpec, those: &TaskSpec) -> bool {
    // Each field is named, so that a new one is not forgotten.
    let TaskSpec {
        container_spec,
        plugin_spec,
        network_attachment_spec,
        resources,
        restart_policy,
        placement: _,
        networks,
        log_driver,
        force_update,
        runtime,
    } = these;
    let is_container = |runtime: &str| ["", "container"].contains(&runtime);
    *container_spec == those.container_spec
        && *plugin_spec == those.plugin_spec
        && *network_attachment_spec == those.network_attachment_spec
        && *resources == those.resources
        && *restart_policy == those.restart_policy
        && *networks == those.networks
        && *log_driver == those.log_driver
        && *force_update == those.force_update
        && (*runtime == those.runtime || is_container(runtime) && is_container(&those.runtime))
}

/// Whether the node's labels, role and platform are those that the specification asks for.
pub(super) fn eligible(node: &NodeRecord, spec: &TaskSpec) -> bool {
    let Some(placement) = &spec.placement else { return true };
    let holds = |constraint: &String| {
        let (key, value, equal) = match (constraint.split_once("=="), constraint.split_once("!=")) {
            (Some((key, value)), _) => (key.trim(), value.trim(), true),
            (None, Some((key, value))) => (key.trim(), value.trim(), false),
            (None, None) => return false,
        };
        value_of(node, key).is_some_and(|is| is.eq_ignore_ascii_case(value) == equal)
    };
    placement.constraints.iter().all(holds)
}

fn value_of<'n>(node: &'n NodeRecord, key: &str) -> Option<&'n str> {
    let description = node.description();
    let label = |labels: Option<&'n std::collections::BTreeMap<String, String>>, name: &str| {
        Some(labels.and_then(|it| it.get(name)).map_or("", String::as_str))
    };
    if let Some(name) = key.strip_prefix("node.labels.") {
        return label(node.node.spec.labels.as_ref(), name);
    }
    if let Some(name) = key.strip_prefix("engine.labels.") {
        return label(Some(&description.engine.labels), name);
    }
    match key {
        "node.id" => Some(&node.node.id),
        "node.hostname" => Some(&description.hostname),
        "node.ip" => Some(&node.node.status.addr),
        "node.platform.os" => Some(&description.platform.os),
        "node.platform.arch" => Some(&description.platform.architecture),
        "node.role" => Some(if node.role == herder_model::swarm::Role::Manager { "manager" } else { "worker" }),
        _ => None,
    }
}
