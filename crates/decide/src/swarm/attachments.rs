//! Plain containers on networks of the swarm.
//!
//! A node names the containers of its engine that want to be on networks. For each of them the leader keeps a task of runtime
//! `attachment`, which holds the addresses. The task has no service and is never given to another node.

use std::sync::Arc;

use herder_model::swarm::{
    AttachRefusal, Attached, AttachedNetwork, Attachment, Change, ContainerStatus, Kind, NetworkAttachmentSpec,
    NetworkRecord, RUNTIME_ATTACHMENT, Task, TaskNetwork, TaskRecord, TaskSpec, TaskState, TaskStatus, Time, View,
};

use super::allocate::{Addresses, subnet_of, v6_of};
use super::control::lookup;

const MESSAGE: &str = "attached";
/// Status of a network that was removed while the container was stopped. Another one of that name is not the one that it was on.
const REMOVED: u16 = 410;

/// Returns whether the task stands for a plain container.
pub fn is_attachment(record: &TaskRecord) -> bool {
    record.attached.is_some()
}

/// Writes down what a node wants for one of its containers. Networks that cannot be given are noted with the reason. Nothing, if all
/// of it is written already, or the id is that of something else.
pub fn attach(
    view: &View,
    addresses: &mut Addresses,
    node: &str,
    id: &str,
    wanted: &Attachment,
    now: Time,
) -> Option<Change> {
    let before = view.tasks.get(id);
    if before.is_some_and(|it| !is_attachment(it) || it.task.node_id != node) {
        return None;
    }
    let had = before.map_or(&[][..], |it| &it.networks);
    let refused = before.and_then(|it| it.attached.as_ref()).map(|it| it.refused.clone()).unwrap_or_default();
    let mut attached = Attached { wanted: wanted.clone(), ..Attached::default() };
    let mut networks: Vec<TaskNetwork> = Vec::new();
    for asked in &wanted.networks {
        if let Some(removed) = refused.get(&asked.target).filter(|it| it.status == REMOVED) {
            attached.refused.insert(asked.target.clone(), removed.clone());
            continue;
        }
        match place(view, addresses, had, asked) {
            Ok(place) => {
                attached.given.insert(asked.target.clone(), place.network_id.clone());
                if !networks.iter().any(|it| it.network_id == place.network_id) {
                    networks.push(place);
                }
            }
            Err(refusal) => drop(attached.refused.insert(asked.target.clone(), refusal)),
        }
    }
    let mut record = before.map(|it| TaskRecord::clone(it)).unwrap_or_else(|| made(node, id, now));
    record.networks = networks;
    record.task.name.clone_from(&wanted.container_name);
    record.task.spec = Arc::new(TaskSpec {
        runtime: RUNTIME_ATTACHMENT.into(),
        network_attachment_spec: Some(NetworkAttachmentSpec {
            container_id: wanted.container_id.clone(),
            ..NetworkAttachmentSpec::default()
        }),
        ..TaskSpec::default()
    });
    record.task.status.container_status = (!wanted.container_id.is_empty())
        .then(|| ContainerStatus { container_id: wanted.container_id.clone(), ..ContainerStatus::default() });
    record.attached = Some(Arc::new(attached));
    (before.is_none_or(|it| **it != record)).then(|| record.into())
}

fn made(node: &str, id: &str, now: Time) -> TaskRecord {
    let status = TaskStatus {
        state: TaskState::Running,
        timestamp: now.to_string(),
        message: MESSAGE.into(),
        ..TaskStatus::default()
    };
    let task = Task {
        id: id.to_owned(),
        node_id: node.to_owned(),
        status,
        desired_state: TaskState::Running,
        ..Task::default()
    };
    TaskRecord { task, made_at: now, applied_at: now, running_since: Some(now), ..TaskRecord::default() }
}

/// The container is gone: its addresses are free.
pub fn release(view: &View, node: &str, id: &str) -> Option<Change> {
    let record = view.tasks.get(id).filter(|it| is_attachment(it) && it.task.node_id == node)?;
    Some(Change::Remove(Kind::Task, record.task.id.clone()))
}

/// The attachment of a container that was stopped when one of its networks was removed.
pub(super) fn without(record: &TaskRecord, network: &str) -> TaskRecord {
    let mut record = record.clone();
    record.networks.retain(|it| it.network_id != network);
    if let Some(attached) = &mut record.attached {
        let attached = Arc::make_mut(attached);
        let had: Vec<String> =
            attached.given.iter().filter(|(_, id)| *id == network).map(|(target, _)| target.clone()).collect();
        for target in had {
            attached.given.remove(&target);
            let reason = format!("network {target} was removed while the container was stopped");
            attached.refused.insert(target, refusal(REMOVED, reason));
        }
    }
    record
}

/// A place in the network. One that the container has already stays, unless another address is asked for.
fn place(
    view: &View,
    addresses: &mut Addresses,
    had: &[TaskNetwork],
    asked: &AttachedNetwork,
) -> Result<TaskNetwork, AttachRefusal> {
    let network =
        lookup::network(view, &asked.target).map_err(|denial| refusal(denial.status(), denial.to_string()))?;
    if let Some(had) = had.iter().find(|it| it.network_id == network.id)
        && (asked.any || asked.v4.is_none_or(|it| had.v4 == Some(it)))
    {
        return Ok(TaskNetwork { aliases: asked.aliases.clone(), ..had.clone() });
    }
    let name = &network.spec.name;
    let denied = |reason: String| {
        let text = format!("Could not attach to network {}: rpc error: code = {reason}", asked.target);
        Err(refusal(403, text))
    };
    if !network.spec.attachable {
        return denied(format!("PermissionDenied desc = network {name} not manually attachable"));
    }
    let Some(subnet) = subnet_of(network) else {
        return denied(format!(
            "FailedPrecondition desc = network {name} has no addresses of its own: only overlay networks take plain containers"
        ));
    };
    let wanted = asked.v4.filter(|_| !asked.any);
    let given = match asked.v4 {
        Some(v4) => addresses
            .one(view, network, Some(v4))
            .or_else(|| asked.any.then(|| addresses.one(view, network, None)).flatten()),
        None => addresses.one(view, network, None),
    };
    let Some(v4) = given else {
        let why = match wanted {
            Some(_) if !subnet.net.contains(&wanted.unwrap_or(subnet.gateway)) => "it is not one of its own",
            Some(_) => "it is in use",
            None => "",
        };
        return Err(refusal(403, not_given(network, wanted, why, || addresses.exhausted(view, network, &subnet))));
    };
    Ok(TaskNetwork {
        network_id: network.id.clone(),
        v4: Some(v4),
        v6: v6_of(network, &subnet, v4),
        aliases: asked.aliases.clone(),
        ..TaskNetwork::default()
    })
}

fn not_given(
    network: &NetworkRecord,
    wanted: Option<std::net::Ipv4Addr>,
    why: &str,
    exhausted: impl Fn() -> String,
) -> String {
    match wanted {
        Some(wanted) => format!("address {wanted} of network {} cannot be given: {why}", network.spec.name),
        None => exhausted(),
    }
}

fn refusal(status: u16, reason: String) -> AttachRefusal {
    AttachRefusal { status, reason, ..AttachRefusal::default() }
}

#[cfg(test)]
mod tests;
