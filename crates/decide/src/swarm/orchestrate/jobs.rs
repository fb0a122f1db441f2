//! Jobs: services whose tasks are to complete, a number of them or one on each node. Each update of the service runs
//! them again.

use std::collections::BTreeMap;
use std::sync::Arc;

use herder_model::swarm::{Availability, ServiceRecord, SwarmNodeState, TaskRecord, TaskState};

use super::draft::{Draft, is_wanted};
use super::global::forget_nodes;
use super::reconcile::{Key, Mode, iteration};
use super::restart;
use crate::swarm::schedule::eligible;

pub(super) fn replicated(draft: &mut Draft<'_>, service: &ServiceRecord, concurrent: u64, total: u64) {
    begin(draft, service);
    let mode = Mode::ReplicatedJob { concurrent, total };
    let slots = this_run(draft, service, mode);
    let running = slots.values().filter(|it| is(it, Progress::Running, mode)).count() as u64;
    let left = slots.values().filter(|it| !is(it, Progress::Open, mode)).count() as u64;
    let new = concurrent.saturating_sub(running).min(total.saturating_sub(left));
    let open = |number: &u64| slots.get(&Key::Slot(*number)).is_none_or(|it| is(it, Progress::Open, mode));
    let numbers: Vec<u64> = (0..total).filter(open).take(usize::try_from(new).unwrap_or(usize::MAX)).collect();
    for number in numbers {
        draft.make(service, &Key::Slot(number), restart::first_state(service, mode));
    }
    restart::promote(draft, service);
}

pub(super) fn global(draft: &mut Draft<'_>, service: &ServiceRecord) {
    forget_nodes(draft);
    begin(draft, service);
    let spec = &service.service.spec.task_template;
    let by_node = this_run(draft, service, Mode::GlobalJob);
    for (id, node) in &draft.view.nodes {
        let ready = node.node.status.state == SwarmNodeState::Ready;
        if !ready || node.node.spec.availability != Availability::Active || !eligible(node, spec) {
            continue;
        }
        let key = Key::Node(id.to_string());
        if by_node.get(&key).is_none_or(|it| is(it, Progress::Open, Mode::GlobalJob)) {
            draft.make(service, &key, TaskState::Ready);
        }
    }
    restart::promote(draft, service);
}

/// Runs before this one are forgotten; what ended in this one is made again.
fn begin(draft: &mut Draft<'_>, service: &ServiceRecord) {
    let now = iteration(service);
    for id in draft.ids_where(|it| it.task.job_iteration.map_or(0, |it| it.index) != now) {
        draft.want(&id, TaskState::Remove);
    }
    restart::replace_ended(draft, service);
}

fn this_run(draft: &Draft<'_>, service: &ServiceRecord, mode: Mode) -> BTreeMap<Key, Vec<Arc<TaskRecord>>> {
    let mut keys = draft.by_key(mode);
    let now = iteration(service);
    for tasks in keys.values_mut() {
        tasks.retain(|it| {
            it.task.desired_state < TaskState::Remove && it.task.job_iteration.map_or(0, |it| it.index) == now
        });
    }
    keys
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The slot is to be filled.
    Open,
    Running,
    Complete,
    /// The restart policy lets nothing follow.
    GivenUp,
}

fn is(tasks: &[Arc<TaskRecord>], progress: Progress, mode: Mode) -> bool {
    let complete = tasks.iter().any(|it| it.task.status.state == TaskState::Complete);
    let found = if complete {
        Progress::Complete
    } else if tasks.iter().any(|it| is_wanted(it)) {
        Progress::Running
    } else if tasks.last().is_some_and(|last| restart::gave_up(last, mode)) {
        Progress::GivenUp
    } else {
        Progress::Open
    };
    found == progress
}
