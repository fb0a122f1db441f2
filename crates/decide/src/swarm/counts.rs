//! Counts of a service's tasks: existing and desired.

use std::collections::BTreeSet;

use herder_model::swarm::{ServiceStatus, SwarmNodeState, TaskRecord, TaskState, View};

use super::orchestrate::draft::{is_running, is_wanted, key};
use super::orchestrate::reconcile::{Mode, iteration};

/// `ServiceStatus` of a service; all 0 if there is none. Tasks of nodes that are down do not count as running.
pub fn service_status(view: &View, service_id: &str) -> ServiceStatus {
    let Some(service) = view.services.get(service_id) else { return ServiceStatus::default() };
    let mode = Mode::of(&service.service.spec.mode);
    let now = iteration(service);
    let of_this_run = |it: &TaskRecord| !mode.is_job() || it.task.job_iteration.map_or(0, |it| it.index) == now;
    let node_up = |id: &str| view.nodes.get(id).is_some_and(|it| it.node.status.state != SwarmNodeState::Down);
    let count = |holds: &dyn Fn(&TaskRecord) -> bool| {
        view.tasks_of_service(service_id).filter(|it| of_this_run(it) && holds(it)).count() as u64
    };
    let desired_tasks = match mode {
        Mode::Replicated(replicas) => replicas,
        Mode::ReplicatedJob { concurrent, .. } => concurrent,
        Mode::Global | Mode::GlobalJob => count(&|it| is_wanted(it) && !it.ahead),
    };
    // A slot whose node was lost may complete twice: it was asked for once.
    let completed = || {
        let done = view
            .tasks_of_service(service_id)
            .filter(|it| of_this_run(it) && it.task.status.state == TaskState::Complete);
        done.map(|it| key(mode, it)).collect::<BTreeSet<_>>().len() as u64
    };
    ServiceStatus {
        running_tasks: count(&|it| is_wanted(it) && is_running(it) && node_up(&it.task.node_id)),
        desired_tasks,
        completed_tasks: if mode.is_job() { completed() } else { 0 },
        ..ServiceStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use herder_model::swarm::{Object, ReplicatedJob, ServiceRecord, Task};

    use super::*;

    #[test]
    fn a_slot_that_completed_twice_counts_once() {
        let mut service = ServiceRecord::default();
        service.service.id = "job".into();
        service.service.spec.mode.replicated_job =
            Some(ReplicatedJob { max_concurrent: Some(2), total_completions: Some(2), ..ReplicatedJob::default() });
        let task = |id: &str, slot, state| {
            let mut task = Task { id: id.into(), service_id: "job".into(), slot, ..Task::default() };
            task.status.state = state;
            Object::Task(Arc::new(TaskRecord { task, ..TaskRecord::default() }))
        };
        let tasks = [
            task("a", 0, TaskState::Complete),
            task("b", 0, TaskState::Complete),
            task("c", 1, TaskState::Complete),
            task("d", 1, TaskState::Failed),
        ];
        let view = View::of(1, std::iter::once(Object::Service(service.into())).chain(tasks));
        assert_eq!(service_status(&view, "job").completed_tasks, 2);
    }
}
