//! Services with one task on each node that fits.

use std::collections::BTreeSet;
use std::sync::Arc;

use herder_model::swarm::{Availability, NodeRecord, ServiceRecord, SwarmNodeState, TaskState};

use super::draft::{Draft, is_wanted};
use super::reconcile::{Key, Mode, ServiceChange};
use super::replicated::is_occupied;
use super::{restart, update};
use crate::swarm::schedule::eligible;

pub(super) fn reconcile(draft: &mut Draft<'_>, service: &ServiceRecord) -> Option<ServiceChange> {
    forget_nodes(draft);
    let spec = &service.service.spec.task_template;
    // Once the service no longer fits to a node, it goes from there, and is not counted as failed.
    for id in draft.ids_where(is_wanted) {
        let Some(task) = draft.task(&id) else { continue };
        if draft.node(&task.task.node_id).is_some_and(|node| !eligible(node, spec)) {
            draft.want(&id, TaskState::Shutdown);
        }
    }
    restart::replace_ended(draft, service);
    let by_node = draft.by_key(Mode::Global);
    let mut kept = BTreeSet::new();
    for (id, node) in &draft.view.nodes {
        if !takes_part(node) || !eligible(node, spec) || node.node.spec.availability == Availability::Pause {
            continue;
        }
        let key = Key::Node(id.to_string());
        let tasks: &[Arc<_>] = by_node.get(&key).map_or(&[], Vec::as_slice);
        if is_occupied(tasks, service, Mode::Global) {
            kept.insert(key);
        } else {
            // The one before may still be stopping, with the ports that this one needs.
            draft.make(service, &key, TaskState::Ready);
        }
    }
    let change = update::roll(draft, service, &kept);
    restart::promote(draft, service);
    change
}

/// Tasks that belong to a node go with it.
pub(super) fn forget_nodes(draft: &mut Draft<'_>) {
    let view = draft.view;
    for id in draft.ids_where(|it| !view.nodes.contains_key(&it.task.node_id)) {
        draft.forget(&id);
    }
}

fn takes_part(node: &NodeRecord) -> bool {
    node.node.status.state != SwarmNodeState::Down && node.node.spec.availability != Availability::Drain
}
