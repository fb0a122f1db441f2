//! Replacements that an update prepares before the turn of their slots: image pulled and container created, but not
//! started. The task before runs until then, so that a slot in work only has to stop and to start.
//!
//! Only what takes nothing is prepared: ports and resources that are asked for are those of the task before, as long as it
//! runs. And only once a task of the update has come up: one that cannot is not spread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herder_model::swarm::{ServiceRecord, TaskRecord, TaskState};

use super::draft::{Draft, is_dead, is_wanted};
use super::reconcile::{Key, Mode};
use super::update::{is_active, is_watched};

/// Prepared, and not in its turn yet.
pub(super) fn is_ahead(task: &TaskRecord) -> bool {
    task.ahead && is_wanted(task)
}

/// Removes prepared tasks whose turn does not come any more. The update stopped, went back or was overtaken, or the
/// slot was filled otherwise.
pub(super) fn take_back(
    draft: &mut Draft<'_>,
    service: &ServiceRecord,
    slots: &BTreeMap<Key, Vec<Arc<TaskRecord>>>,
    dirty: &[Key],
) {
    let dirty: BTreeSet<&Key> = dirty.iter().collect();
    for (key, tasks) in slots {
        let waits =
            |it: &TaskRecord| is_watched(it, service) && is_active(service) && dirty.contains(key) && !is_dead(it);
        let (stay, go): (Vec<_>, Vec<_>) = tasks.iter().filter(|it| is_ahead(it)).partition(|it| waits(it));
        for task in go {
            // Nothing of it has run: there is nothing to remember.
            draft.want(&task.task.id, TaskState::Remove);
        }
        if stay.is_empty() {
            succeeded(draft, tasks, false);
        }
    }
}

/// The task that was prepared for this slot, as one whose turn it is.
pub(super) fn take(draft: &mut Draft<'_>, tasks: &[Arc<TaskRecord>], desired: TaskState) -> Option<String> {
    let waits = |id: &str| draft.task(id).is_some_and(|it| is_ahead(it) && !is_dead(it));
    let id = tasks.iter().map(|it| &it.task.id).find(|id| waits(id))?.clone();
    let now = draft.now;
    draft.edit(&id, |it| (it.ahead, it.not_before) = (false, Some(now)));
    draft.want(&id, desired);
    Some(id)
}

/// Prepares replacements for the first of these slots, so many in all.
pub(super) fn prepare(
    draft: &mut Draft<'_>,
    service: &ServiceRecord,
    slots: &BTreeMap<Key, Vec<Arc<TaskRecord>>>,
    next: &[Key],
    count: usize,
) {
    // Where nodes come and go, slots do: those of a global service are left alone.
    let is_global = Mode::of(&service.service.spec.mode).is_global();
    if is_global || !is_active(service) || !takes_nothing(service) {
        return;
    }
    let there = draft.tasks().filter(|it| is_ahead(it) && is_watched(it, service)).count();
    // One that could not be prepared is made when it is its turn, as if there had been none.
    let fresh = next.iter().take(count).filter(|key| !slots[key].iter().any(|it| is_watched(it, service)));
    for key in fresh.take(count.saturating_sub(there)) {
        let id = draft.make(service, key, TaskState::Ready);
        draft.edit(&id, |it| (it.ahead, it.by_update) = (true, true));
        succeeded(draft, &slots[key], true);
    }
}

/// Notes on the tasks of a slot whether another one is to be counted in their place.
pub(super) fn succeeded(draft: &mut Draft<'_>, tasks: &[Arc<TaskRecord>], is_so: bool) {
    for id in tasks.iter().filter(|it| !it.ahead).map(|it| &it.task.id) {
        if draft.task(id).is_some_and(|it| is_wanted(it) && it.succeeded != is_so) {
            draft.edit(id, |it| it.succeeded = is_so);
        }
    }
}

/// True if it is no matter to others on a node that a task of the service is there.
fn takes_nothing(service: &ServiceRecord) -> bool {
    let spec = &service.service.spec;
    let reserved = spec.task_template.resources.as_ref().and_then(|it| it.reservations.as_ref());
    let is_limited = spec.task_template.placement.as_ref().is_some_and(|it| it.max_replicas > 0);
    let ports = spec.endpoint_spec.as_ref().is_some_and(|it| it.ports.iter().any(|it| it.publish_mode == "host"));
    !is_limited && !ports && reserved.is_none_or(|it| *it == Default::default())
}
