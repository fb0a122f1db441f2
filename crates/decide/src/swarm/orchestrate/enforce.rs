//! Constraint enforcer: tasks that their nodes should no longer run.
//!
//! Labels are changed and resources go away while tasks run. What no longer fits is written off as rejected, so that it is made
//! again elsewhere. Only on nodes that are active: a paused one keeps what it has, a drained one loses it anyway. Pure.

use herder_model::swarm::{
    Availability, Change, NodeRecord, Placement, Reservations, TaskRecord, TaskState, Time, View,
};

use crate::swarm::schedule::Constraint;
use crate::swarm::schedule::generic::{self, Claims};

const REJECTED: &str = "task rejected by constraint enforcer";
const NO_LONGER: &str = "assigned node no longer meets constraints";

/// Checks all nodes, as at the start of a leader.
pub fn enforce(view: &View, now: Time) -> Vec<Change> {
    view.nodes.keys().flat_map(|node| enforce_node(view, node, now)).collect()
}

/// Checks one node, as after its change.
pub fn enforce_node(view: &View, node: &str, now: Time) -> Vec<Change> {
    let Some(node) = view.nodes.get(node) else { return Vec::new() };
    if node.node.spec.availability != Availability::Active {
        return Vec::new();
    }
    let mut room = Room::of(node);
    let tasks = view.tasks_of_node(&node.node.id).filter(|record| is_there(record));
    // In the order of the store: those that come first keep their room.
    let mismatched = tasks.filter(|record| !(meets_constraints(view, node, record) && room.take(record)));
    mismatched.map(|record| rejected(record, now)).collect()
}

/// True if the task is assigned to the node, should be there, and has not ended.
fn is_there(record: &TaskRecord) -> bool {
    let task = &record.task;
    (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
        && (TaskState::Assigned..=TaskState::Complete).contains(&task.desired_state)
}

/// True if the node meets the service's present constraints. A service whose constraints alone have changed keeps its
/// tasks where they fit.
fn meets_constraints(view: &View, node: &NodeRecord, record: &TaskRecord) -> bool {
    let placement = |it: &Option<Placement>| it.as_ref().is_none_or(|it| meets(&it.constraints, node));
    match view.services.get(&record.task.service_id) {
        Some(service) => placement(&service.service.spec.task_template.placement),
        None => placement(&record.task.spec.placement),
    }
}

fn meets(constraints: &[String], node: &NodeRecord) -> bool {
    constraints.iter().all(|text| Constraint::parse(text).is_ok_and(|it| it.accepts(node)))
}

/// Resources of a node for the remaining tasks.
struct Room<'n> {
    has: &'n Reservations,
    nano_cpus: i64,
    memory_bytes: i64,
    claims: Claims,
}

impl<'n> Room<'n> {
    fn of(node: &'n NodeRecord) -> Room<'n> {
        let has = &node.description().resources;
        Room { has, nano_cpus: has.nano_cpus, memory_bytes: has.memory_bytes, claims: Claims::default() }
    }

    /// Takes what the task holds, if that is there.
    fn take(&mut self, record: &TaskRecord) -> bool {
        let task = &record.task;
        let Some(asked) = task.spec.resources.as_ref().and_then(|it| it.reservations.as_ref()) else { return true };
        let fits = |asked: i64, left: i64| asked <= 0 || asked <= left;
        if !fits(asked.nano_cpus, self.nano_cpus) || !fits(asked.memory_bytes, self.memory_bytes) {
            return false;
        }
        if generic::claim(&self.has.generic_resources, &self.claims, &task.generic_resources).is_none() {
            return false;
        }
        self.nano_cpus -= asked.nano_cpus;
        self.memory_bytes -= asked.memory_bytes;
        self.claims.add(&task.generic_resources);
        true
    }
}

fn rejected(record: &TaskRecord, now: Time) -> Change {
    let mut record = record.clone();
    let status = &mut record.task.status;
    status.state = TaskState::Rejected;
    status.timestamp = now.to_string();
    REJECTED.clone_into(&mut status.message);
    NO_LONGER.clone_into(&mut status.err);
    record.applied_at = now;
    record.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::testing::{changes, view};

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(changes(&enforce(&view(text), Time(0))), expected, "{text}");
    }

    const GONE: &str = "assigned node no longer meets constraints";

    #[test]
    fn a_task_goes_when_its_node_loses_the_label() {
        let task = "task web.1 running on=a if=node.labels.zone==east";
        check(&format!("node a zone=east\n{task}"), "");
        check(&format!("node a zone=west\n{task}"), &format!("web.1 rejected: {GONE}"));
        check(&format!("node a zone=west pause\n{task}"), "");
        check(&format!("node a zone=west drain\n{task}"), "");
        check(&format!("node a zone=west\n{task} want=shutdown"), "");
        check("node a zone=west\ntask web.1 failed on=a if=node.labels.zone==east", "");
        check("node a zone=west\ntask web.1 pending on=a if=node.labels.zone==east", "");
    }

    #[test]
    fn the_constraints_of_the_service_count_and_not_those_of_the_task() {
        let task = "task web.1 running on=a if=node.labels.zone==east";
        check(&format!("node a zone=west\nservice web\n{task}"), "");
        check("node a\nservice web if=node.role==manager\ntask web.1 running on=a", &format!("web.1 rejected: {GONE}"));
    }

    #[test]
    fn tasks_that_came_first_keep_what_is_left() {
        let tasks = "task web.1 running on=a mem=60\ntask web.2 running on=a mem=60\ntask web.3 running on=a mem=40";
        check(&format!("node a mem=160\n{tasks}"), "");
        check(&format!("node a mem=100\n{tasks}"), &format!("web.2 rejected: {GONE}"));
        check(&format!("node a mem=50\n{tasks}"), &format!("web.1 rejected: {GONE}; web.2 rejected: {GONE}"));
    }

    #[test]
    fn a_generic_resource_that_is_gone_takes_its_task_with_it() {
        let tasks = "task web.1 running on=a res=GPU:1 holds=GPU=x\ntask web.2 running on=a res=GPU:1 holds=GPU=y";
        check(&format!("node a res=GPU=x,GPU=y\n{tasks}"), "");
        check(&format!("node a res=GPU=y\n{tasks}"), &format!("web.1 rejected: {GONE}"));
        check(&format!("node a res=GPU:2\n{tasks}"), &format!("web.1 rejected: {GONE}; web.2 rejected: {GONE}"));
        check("node a\ntask web.1 running on=a mem=0", "");
    }
}
