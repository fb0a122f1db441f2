//! Replicated services: a number of tasks, each in a slot of its own, numbered from 1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herder_model::swarm::{ServiceRecord, TaskRecord, TaskState};

use super::draft::{Draft, is_running, is_wanted};
use super::reconcile::{Key, Mode, ServiceChange};
use super::{restart, update};

/// All tasks of a slot, in the order in which they were made.
type Slot = Vec<Arc<TaskRecord>>;

pub(super) fn reconcile(draft: &mut Draft<'_>, service: &ServiceRecord, replicas: u64) -> Option<ServiceChange> {
    restart::replace_ended(draft, service);
    let mode = Mode::Replicated(replicas);
    let (occupied, free): (BTreeMap<Key, Slot>, BTreeMap<Key, Slot>) =
        draft.by_key(mode).into_iter().partition(|(_, tasks)| is_occupied(tasks, service, mode));
    let have = occupied.len() as u64;
    let numbers: Vec<u64> =
        (1..).filter(|number| !occupied.contains_key(&Key::Slot(*number))).take(count(replicas, have)).collect();
    let new: BTreeSet<Key> = numbers.into_iter().map(Key::Slot).collect();
    let surplus = surplus(draft, &occupied, count(have, replicas));

    let given_away = surplus.iter().map(|key| &occupied[key]);
    let not_used = free.iter().filter(|(key, _)| !new.contains(key)).map(|(_, tasks)| tasks);
    for task in given_away.chain(not_used).flatten() {
        draft.want(&task.task.id, TaskState::Remove);
    }
    for key in &new {
        draft.make(service, key, restart::first_state(service, mode));
    }
    let kept = occupied.into_keys().filter(|key| !surplus.contains(key)).collect();
    let change = update::roll(draft, service, &kept);
    restart::promote(draft, service);
    change
}

/// Returns `these` minus `those`, or zero.
fn count(these: u64, those: u64) -> usize {
    usize::try_from(these.saturating_sub(those)).unwrap_or(usize::MAX)
}

/// Something is wanted there, or nothing may follow what was there.
pub(super) fn is_occupied(tasks: &[Arc<TaskRecord>], service: &ServiceRecord, mode: Mode) -> bool {
    let mut present = tasks.iter().filter(|it| !it.ahead);
    if present.clone().any(|it| is_wanted(it)) {
        return true;
    }
    // A rollback shall get the service back to where it was: what ended under the other specification does not hold its slot.
    let rolling_back = update::state(service) == update::ROLLBACK_STARTED;
    present.next_back().is_some_and(|last| {
        restart::gave_up(last, mode) && !(rolling_back && last.spec_version != service.spec_version)
    })
}

/// Returns the slots to give up. First those that do not run, then those on nodes that have the most of them, then the
/// highest numbers.
fn surplus(draft: &Draft<'_>, occupied: &BTreeMap<Key, Slot>, count: usize) -> BTreeSet<Key> {
    if count == 0 {
        return BTreeSet::new();
    }
    let runs = |tasks: &Slot| tasks.iter().any(|it| is_wanted(it) && is_running(it) && draft.answers(&it.task.node_id));
    let mut slots: Vec<(bool, &Key, &Slot)> = occupied.iter().map(|(key, tasks)| (!runs(tasks), key, tasks)).collect();
    slots.sort_by_key(|(idle, key, _)| (*idle, *key));
    let mut copies: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ranked = Vec::with_capacity(slots.len());
    for (idle, key, tasks) in slots {
        let mut wanted = tasks.iter().filter(|it| is_wanted(it) && !it.ahead);
        let nth = match (wanted.next(), wanted.next()) {
            (Some(only), None) if !only.task.node_id.is_empty() => {
                let copies = copies.entry(only.task.node_id.as_str()).or_default();
                *copies += 1;
                *copies
            }
            _ => u64::MAX,
        };
        ranked.push((idle, nth, key));
    }
    ranked.sort();
    ranked.into_iter().rev().take(count).map(|(_, _, key)| key.clone()).collect()
}
