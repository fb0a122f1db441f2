//! Comparison of a task with its service's declaration.

use herder_model::swarm::{NodeRecord, ServiceRecord, TaskRecord, TaskSpec};

use crate::swarm::schedule::eligible;

/// True if the task has to be replaced to be what its service declares. Another number of replicas, labels of the
/// service or settings of its updates replace nothing; other constraints do if the task's node does not fit to them.
pub fn is_dirty(service: &ServiceRecord, task: &TaskRecord, node: Option<&NodeRecord>) -> bool {
    if service.spec_version == task.spec_version {
        return false;
    }
    let template = &service.service.spec.task_template;
    let ports = service.service.spec.endpoint_spec.as_ref().map_or(&[][..], |it| &it.ports);
    if ports != task.ports
        || super::draft::endpoint_mode(service) != task.endpoint_mode
        || !runs_the_same(template, &task.task.spec)
    {
        return true;
    }
    template.placement != task.task.spec.placement && !node.is_some_and(|node| eligible(node, template))
}

/// True if two specifications differ only in where their tasks may run.
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
        rest,
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
        && *rest == those.rest
        && (*runtime == those.runtime || is_container(runtime) && is_container(&those.runtime))
}
