//! Filter of task writes: decides whether a service must be reconciled after a write. Most of what is written is that a
//! task came a step further, and nothing follows from that: its service, with all its other tasks, need not be looked
//! at.

use herder_model::swarm::{Availability, ServiceRecord, SwarmNodeState, TaskRecord, TaskState, View};

use super::update;

/// True if [`reconcile`](super::reconcile) may have new work, or new times, after this write, provided that it had none
/// before. `view` is of after the write.
pub fn matters(view: &View, before: Option<&TaskRecord>, after: Option<&TaskRecord>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return true };
    let goes_on = |it: &TaskRecord| it.task.status.state <= TaskState::Running;
    if !goes_on(before) || !goes_on(after) || !same_but_for_progress(before, after) {
        return true;
    }
    if before.task.node_id != after.task.node_id && !(before.task.node_id.is_empty() && is_fine(view, after)) {
        return true;
    }
    let begins = before.task.status.state != TaskState::Running && after.task.status.state == TaskState::Running;
    view.services.get(&after.task.service_id).is_none_or(|service| match update::state(service) {
        // A task that runs may take over from another one of its slot, also when the update that made it was declared over.
        "" | update::COMPLETED | update::ROLLBACK_COMPLETED => begins && was_updated(service),
        _ => true,
    })
}

/// True if this write of a task may let a waiting task find a node. The task waits since then, or another one holds
/// less.
pub fn frees(before: Option<&TaskRecord>, after: Option<&TaskRecord>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return true };
    let holds = |it: &TaskRecord| (TaskState::Assigned..=TaskState::Running).contains(&it.task.status.state);
    let waits = |it: &TaskRecord| it.task.status.state == TaskState::Pending;
    let tasks = (&before.task, &after.task);
    let same = tasks.0.desired_state == tasks.1.desired_state;
    let moved = tasks.0.node_id != tasks.1.node_id;
    let holds_as_much = holds(before) && holds(after) && !moved;
    let still_waits = waits(before) && waits(after) && !moved;
    !(same && (holds_as_much || still_waits || waits(before) && holds(after)))
}

/// Only how far the task is differs, and which node has it.
fn same_but_for_progress(before: &TaskRecord, after: &TaskRecord) -> bool {
    let tasks = (&before.task, &after.task);
    let same = tasks.0.desired_state == tasks.1.desired_state
        && tasks.0.service_id == tasks.1.service_id
        && tasks.0.slot == tasks.1.slot
        && tasks.0.job_iteration == tasks.1.job_iteration;
    let kept = |it: &TaskRecord| (it.spec_version, it.made_at, it.not_before, it.restarted, it.by_update);
    same && kept(before) == kept(after) && before.restarts == after.restarts && before.ports == after.ports
}

/// The task can stay on its node.
fn is_fine(view: &View, task: &TaskRecord) -> bool {
    view.nodes.get(&task.task.node_id).is_some_and(|node| {
        node.node.status.state != SwarmNodeState::Down && node.node.spec.availability != Availability::Drain
    })
}

fn was_updated(service: &ServiceRecord) -> bool {
    service.service.previous_spec.is_some() || !update::state(service).is_empty()
}
