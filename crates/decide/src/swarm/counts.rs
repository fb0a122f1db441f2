//! How many tasks a service has, and how many it should have.

use herder_model::swarm::{ServiceStatus, SwarmNodeState, TaskRecord, TaskState, View};

use super::orchestrate::draft::{is_running, is_wanted};
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
    ServiceStatus {
        running_tasks: count(&|it| is_wanted(it) && is_running(it) && node_up(&it.task.node_id)),
        desired_tasks,
        completed_tasks: if mode.is_job() { count(&|it| it.task.status.state == TaskState::Complete) } else { 0 },
        ..ServiceStatus::default()
    }
}
