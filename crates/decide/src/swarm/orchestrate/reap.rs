//! Removal of tasks: those that shall be gone, and old ones of each slot.

use std::time::Duration;

use herder_model::swarm::{ServiceRecord, SwarmNodeState, TaskRecord, TaskState, TaskStatus};

use super::draft::{Draft, is_dead, is_on_node, is_wanted};
use super::reconcile::Mode;
use super::update;

/// Tasks of each slot that are kept, the present one among them, if the swarm does not say. Swarm mode's number.
const HISTORY: i64 = 5;

/// Time after which a node that is down is no longer believed to run anything. Swarm mode's number.
pub(super) const NODE_DOWN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const MESSAGE_ORPHANED: &str = "Task belonged to a node that has been deleted";

/// Tasks whose node is gone, or was away for too long, have ended.
pub(super) fn orphan(draft: &mut Draft<'_>) {
    for id in draft.ids_where(is_on_node) {
        let Some(task) = draft.task(&id).cloned() else { continue };
        let gone = match draft.node(&task.task.node_id) {
            None => true,
            // Tasks that are wanted have moved elsewhere long before.
            Some(node) => {
                node.node.status.state == SwarmNodeState::Down
                    && !is_wanted(&task)
                    && draft.due(node.state_since + NODE_DOWN_MAX)
            }
        };
        if gone {
            let (now, timestamp) = (draft.now, draft.now.to_string());
            draft.edit(&id, |it| {
                it.applied_at = now;
                it.task.status = TaskStatus {
                    timestamp,
                    state: TaskState::Orphaned,
                    message: MESSAGE_ORPHANED.into(),
                    ..it.task.status.clone()
                };
            });
        }
    }
}

/// Tasks that shall be gone are forgotten when they have ended. A node that is down is told so when it comes back: it is told
/// all that it should run, and takes away the rest.
pub(super) fn removed(draft: &mut Draft<'_>) {
    for id in draft.ids_where(|it| it.task.desired_state == TaskState::Remove) {
        let on_node = draft.task(&id).filter(|it| is_on_node(it)).map(|it| it.task.node_id.clone());
        if on_node.is_none_or(|node| !draft.may_run(&node)) {
            draft.forget(&id);
        }
    }
}

/// Removes old tasks: each slot keeps its last ones, and none that never had a node. What a job completed stays, and
/// what an update that is under way is judged by.
pub(super) fn history(draft: &mut Draft<'_>, service: &ServiceRecord) {
    let mode = Mode::of(&service.service.spec.mode);
    let limit = draft.view.cluster.as_ref().and_then(|it| it.cluster.spec.orchestration.task_history_retention_limit);
    let limit = limit.unwrap_or(HISTORY);
    for id in draft.ids_where(|it| !is_wanted(it) && it.task.status.state < TaskState::Assigned) {
        draft.forget(&id);
    }
    for tasks in draft.by_key(mode).into_values() {
        let Some((last, earlier)) = tasks.split_last() else { continue };
        let attempts = last.task.spec.restart_policy.as_ref().and_then(|it| it.max_attempts).filter(|it| *it > 0);
        let kept = match attempts {
            // Swarm mode shows every attempt.
            Some(attempts) => usize::try_from(attempts).unwrap_or(usize::MAX).saturating_add(1),
            None => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let judged = |it: &TaskRecord| update::is_active(service) && update::is_watched(it, service);
        let old = earlier.iter().filter(|it| !is_wanted(it) && is_dead(it) && !judged(it));
        for task in old.take(tasks.len().saturating_sub(kept)) {
            draft.forget(&task.task.id);
        }
    }
}
