//! Nodes.

use std::sync::Arc;

use herder_model::swarm::{
    Change, ClusterRecord, Kind, NodeRecord, NodeSpec, Reachability, Role, SwarmNodeState, TaskRecord, TaskState, Time,
    View,
};

use super::{Changes, check_version};
use crate::swarm::attachments::is_attachment;
use crate::swarm::local::ManagerSeen;
use crate::swarm::{self, Code, Denial, Refusal, lookup, nodes::level};

/// Changes what a person says about a node. Who then is a manager or no longer one becomes so by itself.
pub fn update_node(view: &View, text: &str, version: u64, spec: NodeSpec, managers: &[ManagerSeen]) -> Changes {
    swarm::node(&spec)?;
    let mut record = NodeRecord::clone(lookup::node(view, text)?);
    if record.node.spec.role == Role::Manager && spec.role == Role::Worker {
        may_demote(view, &record.node.id, managers)?;
    }
    if spec.role == Role::Manager && record.node.spec.role != Role::Manager {
        level::may_manage(view, record.level).map_err(|text| Refusal::new(Code::FailedPrecondition, text))?;
    }
    check_version(Kind::Node, &record.node.id, version, record.node.meta.version.index)?;
    record.node.spec = spec;
    Ok(vec![record.into()])
}

/// Checks that the swarm has a quorum without this manager.
fn may_demote(view: &View, id: &str, managers: &[ManagerSeen]) -> Result<(), Denial> {
    let refused = |code, text: &str| Err(Refusal::new(code, text).into());
    // Who was demoted already, and only has not been taken off yet, is none to count on.
    let stays = |it: &str| view.nodes.get(it).is_none_or(|it| it.node.spec.role == Role::Manager);
    if !view.nodes.values().any(|it| it.role == Role::Manager && it.node.id != id && stays(&it.node.id)) {
        return refused(Code::FailedPrecondition, "attempting to demote the last manager of the swarm");
    }
    if !managers.iter().any(|it| it.node_id == id) {
        return refused(Code::NotFound, "can't find manager in raft memberlist");
    }
    let others: Vec<_> = managers.iter().filter(|it| it.node_id != id && stays(&it.node_id)).collect();
    let reachable = others.iter().filter(|it| it.reachability == Reachability::Reachable).count();
    if reachable < others.len() / 2 + 1 {
        let text = "can't remove member from the raft: this would result in a loss of quorum";
        return refused(Code::FailedPrecondition, text);
    }
    Ok(())
}

/// Takes a node out. What it ran is somebody else's from now on.
pub fn remove_node(view: &View, text: &str, force: bool, managers: &[ManagerSeen], now: Time) -> Changes {
    let record = lookup::node(view, text)?;
    let id = &record.node.id;
    let refused = |text: String| Err(Refusal::new(Code::FailedPrecondition, text).into());
    let is_member = managers.iter().any(|it| it.node_id == *id);
    if is_member || record.node.spec.role == Role::Manager && record.role == Role::Manager {
        return refused(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
        ));
    }
    if !force && record.node.status.state == SwarmNodeState::Ready {
        return refused(format!("node {id} is not down and can't be removed"));
    }
    let mut changes = vec![Change::Remove(Kind::Node, id.clone())];
    // It is not let in again, however valid its certificate is.
    if let Some(cluster) = &view.cluster {
        let mut cluster = ClusterRecord::clone(cluster);
        cluster.removed.insert(id.clone());
        changes.push(cluster.into());
    }
    let unfinished = view.tasks_of_node(id).filter(|it| it.task.status.state <= TaskState::Running);
    // Nothing else takes away what stands for a plain container.
    changes.extend(unfinished.map(|it| match is_attachment(it) {
        true => Change::Remove(Kind::Task, it.task.id.clone()),
        false => orphan(it, now).into(),
    }));
    Ok(changes)
}

fn orphan(record: &Arc<TaskRecord>, now: Time) -> TaskRecord {
    let mut record = TaskRecord::clone(record);
    record.applied_at = now;
    let status = &mut record.task.status;
    status.state = TaskState::Orphaned;
    status.timestamp = now.to_string();
    status.message = "Task belonged to a node that has been deleted".into();
    status.err.clear();
    record
}
