//! Rolling updates: outdated tasks are replaced, some slots at a time. The new tasks' fate decides whether the update
//! goes on, stops, or rolls back.
//!
//! While some slots are in work, the tasks of the next ones are prepared ([`ahead`]).
//!
//! How far an update is can be read from its tasks: those that it made are marked, and have the version of the specification.
//! A slot is in work until its new task runs (or ended), and then for the delay. All slots of the update are those that are
//! dirty and those that have such a task.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use herder_model::swarm::{ServiceRecord, TaskRecord, TaskState, Time, UpdateConfig, UpdateStatus};

use super::ahead;
use super::dirty::is_dirty;
use super::draft::{Draft, ended_by_itself, is_dead, is_running, is_wanted};
use super::reconcile::{Key, Mode, ServiceChange};
use super::restart::{is_fenced, nanos};
use crate::swarm::schedule::demand::PORT_TAKEN;

const UPDATING: &str = "updating";
const PAUSED: &str = "paused";
pub(super) const COMPLETED: &str = "completed";
pub(super) const ROLLBACK_STARTED: &str = "rollback_started";
const ROLLBACK_PAUSED: &str = "rollback_paused";
pub(super) const ROLLBACK_COMPLETED: &str = "rollback_completed";

/// Default time for which an update watches a new task. Swarm mode's number.
const MONITOR: Duration = Duration::from_secs(5);

/// Time added to a delay that is longer than the monitoring, before the last slot counts as done. Swarm mode's number.
const AFTER_DELAY: Duration = Duration::from_secs(1);

/// The state of a service's update; empty if it has none.
pub(super) fn state(service: &ServiceRecord) -> &str {
    service.service.update_status.as_ref().map_or("", |it| &it.state)
}

/// True if an update or a rollback is under way.
pub(super) fn is_active(service: &ServiceRecord) -> bool {
    [UPDATING, ROLLBACK_STARTED].contains(&state(service))
}

/// Made by the update that is under way, or was last.
pub(super) fn is_watched(task: &TaskRecord, service: &ServiceRecord) -> bool {
    task.by_update && task.spec_version == service.spec_version
}

/// Parameters of an update under way.
struct Course {
    rollback: bool,
    parallelism: usize,
    delay: Duration,
    monitor: Duration,
    start_first: bool,
    failures_max: f64,
    action: Action,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Pause,
    Continue,
    Rollback,
}

impl Course {
    fn of(service: &ServiceRecord) -> Course {
        let rollback = [ROLLBACK_STARTED, ROLLBACK_PAUSED, ROLLBACK_COMPLETED].contains(&state(service));
        let spec = &service.service.spec;
        let config = if rollback { &spec.rollback_config } else { &spec.update_config };
        let config = config.clone().unwrap_or_else(|| UpdateConfig { parallelism: 1, ..UpdateConfig::default() });
        Course {
            rollback,
            parallelism: match config.parallelism {
                0 => usize::MAX,
                some => usize::try_from(some).unwrap_or(usize::MAX),
            },
            delay: nanos(config.delay),
            monitor: if config.monitor == 0 { MONITOR } else { nanos(config.monitor) },
            start_first: config.order == "start-first" && !is_fenced(service),
            failures_max: config.max_failure_ratio.0,
            action: match config.failure_action.as_str() {
                "continue" => Action::Continue,
                "rollback" => Action::Rollback,
                _ => Action::Pause,
            },
        }
    }

    /// Returns the time from the end of the last slot to the end of the update.
    fn settling(&self) -> Duration {
        if self.delay >= self.monitor { self.delay + AFTER_DELAY } else { self.monitor }
    }
}

/// Advances the update by these slots. Returns the changes in the service itself.
pub(super) fn roll(draft: &mut Draft<'_>, service: &ServiceRecord, slots: &BTreeSet<Key>) -> Option<ServiceChange> {
    let mode = Mode::of(&service.service.spec.mode);
    let course = Course::of(service);
    let mut by_key = draft.by_key(mode);
    // Where nothing begins at the moment, such as on nodes that are paused, what has begun is finished.
    for (_, tasks) in by_key.extract_if(.., |key, _| !slots.contains(key)) {
        hand_over(draft, service, &tasks, &course);
    }
    let dirty: Vec<Key> =
        by_key.iter().filter(|(_, tasks)| hand_over(draft, service, tasks, &course)).map(|it| it.0.clone()).collect();
    ahead::take_back(draft, service, &by_key, &dirty);
    if [PAUSED, ROLLBACK_PAUSED].contains(&state(service))
        || (service.service.update_status.is_none() && dirty.is_empty())
    {
        return None;
    }
    let watched = by_key.values().flatten().filter(|it| is_watched(it, service)).cloned().collect();
    let work = Work { watched, mode, dirty };
    if is_active(service)
        && let Some(failed) = work.too_many_failed(&course)
        && let Some(change) = react(service, &course, failed)
    {
        ahead::take_back(draft, service, &by_key, &[]);
        return Some(change);
    }
    if !work.dirty.is_empty() {
        // Nothing is stopped for these, and the room that comes free is not for them as they are.
        let (waiting, dirty): (Vec<Key>, Vec<Key>) =
            work.dirty.iter().cloned().partition(|key| waits_for_a_node(&by_key[key]));
        for key in &waiting {
            let made = begin(draft, service, key, &by_key[key], &course);
            draft.edit(&made, |it| it.in_place_of_waiting = true);
        }
        let free = course.parallelism.saturating_sub(work.in_work(draft, &course));
        let (now, next) = dirty.split_at(free.min(dirty.len()));
        for key in now {
            begin(draft, service, key, &by_key[key], &course);
        }
        // Also in slots that are not counted at the moment.
        let has_come_up = draft.tasks().any(|it| is_watched(it, service) && it.running_since.is_some());
        if has_come_up {
            ahead::prepare(draft, service, &by_key, next, course.parallelism);
        }
    }
    if service.service.update_status.is_none() {
        return Some(started(service, draft.now));
    }
    let done = is_active(service) && work.is_done(draft, &course);
    done.then(|| completed(service, &course, draft.now))
}

/// Removes the other tasks of a slot when one of the new specification takes over. Returns true if the slot is still to
/// be updated.
fn hand_over(draft: &mut Draft<'_>, service: &ServiceRecord, tasks: &[Arc<TaskRecord>], course: &Course) -> bool {
    let (dirty, clean): (Vec<_>, Vec<_>) =
        tasks.iter().filter(|it| is_wanted(it) && !it.ahead).partition(|it| dirty_here(draft, service, it));
    let best = |of: &[&Arc<TaskRecord>]| {
        of.iter().copied().max_by_key(|it| (is_running(it), !is_dead(it), it.made_at)).cloned()
    };
    let (old, new) = (best(&dirty), best(&clean));
    // A new task that waits for the ports of the old one would wait for ever: it is told that they are taken.
    let blocked = new
        .as_ref()
        .is_some_and(|it| it.task.status.state == TaskState::Pending && it.task.status.err.contains(PORT_TAKEN));
    let waits = course.start_first && !blocked && new.as_ref().is_some_and(|it| !is_running(it));
    // Of two tasks that are both out of date, an update between them was not finished.
    let stays = |it: &TaskRecord| match (&old, &new) {
        (_, Some(new)) if new.task.id == it.task.id => true,
        (Some(old), Some(_)) => waits && is_running(it) && old.task.id == it.task.id,
        (Some(old), None) => old.task.id == it.task.id,
        (None, _) => false,
    };
    for task in dirty.iter().chain(&clean).filter(|it| !stays(it)) {
        draft.want(&task.task.id, TaskState::Shutdown);
    }
    let last = tasks.iter().rfind(|it| !it.ahead);
    new.is_none() && (old.is_some() || last.is_some_and(|it| dirty_here(draft, service, it)))
}

fn dirty_here(draft: &Draft<'_>, service: &ServiceRecord, task: &TaskRecord) -> bool {
    is_dirty(service, task, draft.node(&task.task.node_id).map(AsRef::as_ref))
}

/// Puts a task of the new specification into the slot.
fn begin(
    draft: &mut Draft<'_>,
    service: &ServiceRecord,
    key: &Key,
    tasks: &[Arc<TaskRecord>],
    course: &Course,
) -> String {
    let keeps = |it: &TaskRecord| course.start_first && is_running(it) && draft.answers(&it.task.node_id);
    let present = tasks.iter().filter(|it| is_wanted(it) && !it.ahead);
    let (kept, leaving): (Vec<_>, Vec<_>) = present.partition(|it| keeps(it));
    // Without one that runs there is nothing to keep until the new one does.
    let desired = if kept.is_empty() { TaskState::Ready } else { TaskState::Running };
    let taken = ahead::take(draft, tasks, desired);
    let made = taken.unwrap_or_else(|| {
        let id = draft.make(service, key, desired);
        draft.edit(&id, |it| it.by_update = true);
        id
    });
    for task in leaving {
        draft.want(&task.task.id, TaskState::Shutdown);
    }
    ahead::succeeded(draft, tasks, false);
    made
}

/// True if all that is wanted in a slot waits, because the scheduler found no node for it.
fn waits_for_a_node(tasks: &[Arc<TaskRecord>]) -> bool {
    let waits = |it: &TaskRecord| {
        it.task.status.state <= TaskState::Pending && it.task.node_id.is_empty() && !it.task.status.err.is_empty()
    };
    let mut wanted = tasks.iter().filter(|it| is_wanted(it)).peekable();
    wanted.peek().is_some() && wanted.all(|it| waits(it))
}

/// Progress of an update: done and remaining slots.
struct Work {
    /// Those that were only prepared among them.
    watched: Vec<Arc<TaskRecord>>,
    mode: Mode,
    dirty: Vec<Key>,
}

impl Work {
    fn key(&self, task: &TaskRecord) -> Key {
        super::draft::key(self.mode, task)
    }

    /// The last task that failed, if the share of slots that may is exceeded.
    fn too_many_failed(&self, course: &Course) -> Option<&TaskRecord> {
        let failed: Vec<&Arc<TaskRecord>> = self.watched.iter().filter(|it| has_failed(it, course.monitor)).collect();
        let slots: BTreeSet<Key> =
            self.watched.iter().map(|it| self.key(it)).chain(self.dirty.iter().cloned()).collect();
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 slots")]
        let share = failed.len() as f64 / slots.len().max(1) as f64;
        let last = failed.into_iter().max_by_key(|it| (it.applied_at, &it.task.id))?;
        (share > course.failures_max).then_some(last)
    }

    /// Tasks that had their turn.
    fn begun(&self) -> impl Iterator<Item = &Arc<TaskRecord>> {
        self.watched.iter().filter(|it| !it.ahead)
    }

    /// Returns the number of slots that wait for their task, or for the delay after it.
    fn in_work(&self, draft: &mut Draft<'_>, course: &Course) -> usize {
        let delayed = self.begun().filter(|it| done_at(it).is_some_and(|at| !draft.due(at + course.delay)));
        let delayed: BTreeSet<Key> = delayed.map(|it| self.key(it)).collect();
        delayed.len() + self.waiting(&delayed)
    }

    /// Returns the number of other slots that wait for their task, less those filled without stopping a task. Where
    /// there is room for some of the tasks only, it does not matter which of them run.
    fn waiting(&self, others: &BTreeSet<Key>) -> usize {
        let stopped = self.begun().filter(|it| !it.in_place_of_waiting && is_wanted(it) && done_at(it).is_none());
        let stopped: BTreeSet<Key> = stopped.map(|it| self.key(it)).filter(|key| !others.contains(key)).collect();
        let filled = self.begun().filter(|it| it.in_place_of_waiting && is_wanted(it) && it.running_since.is_some());
        stopped.len().saturating_sub(filled.count())
    }

    /// True if nothing is left to do, and the last slot has been watched for long enough.
    fn is_done(&self, draft: &mut Draft<'_>, course: &Course) -> bool {
        let waits = self.waiting(&BTreeSet::new()) > 0;
        let last = self.begun().filter_map(|it| done_at(it)).max();
        self.dirty.is_empty() && !waits && last.is_none_or(|at| draft.due(at + course.settling()))
    }
}

/// Returns the time at which the task came up, or ended before it did. `None` for one that was stopped before: another
/// one replaces it.
fn done_at(task: &TaskRecord) -> Option<Time> {
    task.running_since.or_else(|| ended_by_itself(task).then_some(task.applied_at))
}

/// True if the task ended by itself before the end of its monitoring.
fn has_failed(task: &TaskRecord, monitor: Duration) -> bool {
    ended_by_itself(task) && task.running_since.is_none_or(|since| task.applied_at <= since + monitor)
}

fn started(service: &ServiceRecord, now: Time) -> ServiceChange {
    with_status(service, |status| {
        status.state = UPDATING.into();
        status.message = "update in progress".into();
        status.started_at = Some(now.to_string());
    })
}

fn completed(service: &ServiceRecord, course: &Course, now: Time) -> ServiceChange {
    let (state, message) =
        if course.rollback { (ROLLBACK_COMPLETED, "rollback completed") } else { (COMPLETED, "update completed") };
    with_status(service, |status| {
        status.state = state.into();
        status.message = message.into();
        status.completed_at = Some(now.to_string());
    })
}

/// Reacts to too many failed tasks. A rollback is not rolled back.
fn react(service: &ServiceRecord, course: &Course, failed: &TaskRecord) -> Option<ServiceChange> {
    let because = format!("due to failure or early termination of task {}", failed.task.id);
    match course.action {
        Action::Continue => None,
        Action::Pause => Some(paused(service, course, format!("update paused {because}"))),
        Action::Rollback if course.rollback => Some(paused(service, course, format!("rollback paused {because}"))),
        Action::Rollback => Some(rolled_back(service, format!("update rolled back {because}")).unwrap_or_else(|| {
            // There is nothing to go back to.
            paused(service, course, format!("update paused {because}"))
        })),
    }
}

fn paused(service: &ServiceRecord, course: &Course, message: String) -> ServiceChange {
    with_status(service, |status| {
        status.state = if course.rollback { ROLLBACK_PAUSED } else { PAUSED }.into();
        status.message = message;
    })
}

fn rolled_back(service: &ServiceRecord, message: String) -> Option<ServiceChange> {
    let ServiceChange::Status(mut service) = with_status(service, |status| {
        status.state = ROLLBACK_STARTED.into();
        status.message = message;
    }) else {
        return None;
    };
    let spec = service.service.previous_spec.take()?;
    service.registry_auth = std::mem::take(&mut service.previous_registry_auth);
    service.service.spec = spec;
    Some(ServiceChange::Spec(service))
}

fn with_status(service: &ServiceRecord, edit: impl FnOnce(&mut UpdateStatus)) -> ServiceChange {
    let mut service = service.clone();
    edit(service.service.update_status.get_or_insert_default());
    ServiceChange::Status(service)
}
