//! Restarts after the end of a task or the loss of its node, and the turn of its successor.

use std::time::Duration;

use herder_model::swarm::{RestartPolicy, ServiceRecord, TaskRecord, TaskState, Time};

use super::ahead::is_ahead;
use super::draft::{Draft, Place, ended_by_itself, is_dead, is_on_node, is_wanted, key};
use super::reconcile::{Key, Mode};
use crate::swarm::nodes::members::FENCE;

/// Default time between the end of a task and the start of the next one. Swarm mode's number.
const DELAY: Duration = Duration::from_secs(5);

/// Maximum time that a task waits for the one before it to stop. Swarm mode's number.
pub(super) const OLD_TASK_TIMEOUT: Duration = Duration::from_secs(60);

/// Time that a task may need beyond its grace period to end: the kill, and the way of the report.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// Default time between a task's stop signal and its kill. Swarm mode's number.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The first pause after a task that never came to run; it doubles with each further one, up to [`DELAY`].
const BACKOFF: Duration = Duration::from_millis(200);

/// A slot whose tasks are lost with their nodes before they ran gets a new one no sooner.
const LOST_PAUSE_MIN: Duration = Duration::from_secs(1);

/// Times of restarts that are kept for a policy with a window. More attempts than this within one window are not told from
/// this many.
const RESTARTS_KEPT_MAX: usize = 1000;

/// True if no task of the service may run before the one before it has stopped.
pub(super) fn is_fenced(service: &ServiceRecord) -> bool {
    let labels = service.service.spec.labels.as_ref();
    labels.and_then(|it| it.get(FENCE)).is_some_and(|it| it == "true")
}

/// Returns the desired state of a new task: run at once, or wait for its turn.
pub(super) fn first_state(service: &ServiceRecord, mode: Mode) -> TaskState {
    if is_fenced(service) { TaskState::Ready } else { mode.target() }
}

/// Converts a duration of Docker's; a negative one was refused.
pub(super) fn nanos(duration: i64) -> Duration {
    Duration::from_nanos(u64::try_from(duration).unwrap_or(0))
}

/// Replaces what ended or lost its node, as far as restart policies let it. The new tasks wait for their turn.
pub(super) fn replace_ended(draft: &mut Draft<'_>, service: &ServiceRecord) {
    let mode = Mode::of(&service.service.spec.mode);
    for id in draft.ids_where(is_wanted) {
        let Some(task) = draft.task(&id).cloned() else { continue };
        if mode.is_job() && task.task.status.state == TaskState::Complete {
            continue;
        }
        let fine = draft.place(&task) == Place::Fine;
        if is_ahead(&task) {
            // Nothing was lost: the task before it runs.
            if is_dead(&task) || !fine {
                draft.want(&id, TaskState::Shutdown);
            }
        } else if mode.is_global() && !fine {
            // It comes back with its node.
            draft.want(&id, TaskState::Shutdown);
        } else if ended_by_itself(&task) || task.task.status.state == TaskState::Shutdown {
            // What ended before its delay was over is as if it had ended then: else an image that is not there would be asked
            // for without a pause.
            if task.not_before.is_none_or(|at| draft.due(at)) {
                replace(draft, service, &task, Cause::Ended);
            }
        } else if is_dead(&task) || !fine {
            replace(draft, service, &task, Cause::NodeLost);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Ended,
    /// No fault of the task: it costs no attempt, and there is nothing to wait for.
    NodeLost,
}

fn replace(draft: &mut Draft<'_>, service: &ServiceRecord, old: &TaskRecord, cause: Cause) {
    let mode = Mode::of(&service.service.spec.mode);
    draft.want(&old.task.id, TaskState::Shutdown);
    let key = key(mode, old);
    if has_later(draft, mode, &key, old) || !may_restart(old, mode, cause) {
        return;
    }
    let id = draft.make(service, &key, TaskState::Ready);
    let now = draft.now;
    draft.edit(&id, |new| {
        let same = new.spec_version == old.spec_version;
        if same {
            (new.restarted, new.restarts) = (old.restarted, old.restarts.clone());
        }
        if cause == Cause::Ended {
            count(new, old.task.spec.restart_policy.as_ref(), now);
        }
        new.by_update = same && cause == Cause::NodeLost && old.by_update && old.running_since.is_none();
        // What the clock of another leader wrote is no later than now.
        new.in_place_of_waiting = same && old.in_place_of_waiting && new.by_update;
        let held = old.not_before.unwrap_or_default();
        new.not_before = Some(now.max(match cause {
            Cause::Ended => old.applied_at.max(held).min(now) + delay(old).max(backoff(old)),
            // A node that comes and goes must not be given one task after the other.
            Cause::NodeLost if !has_run(old) => held.max(old.made_at.min(now) + LOST_PAUSE_MIN),
            Cause::NodeLost => held,
        }));
    });
}

fn has_run(task: &TaskRecord) -> bool {
    task.running_since.is_some() || task.task.status.state >= TaskState::Running && !ended_by_itself(task)
}

/// Returns the back-off of a task that cannot start anywhere, also with a delay of 0.
fn backoff(old: &TaskRecord) -> Duration {
    match old.restarted {
        0 => Duration::ZERO,
        _ if has_run(old) => Duration::ZERO,
        times => BACKOFF.saturating_mul(1 << (times - 1).min(8)).min(DELAY),
    }
}

/// The longest that a task of this specification may have to wait for its turn.
pub(super) fn wait_max(task: &TaskRecord) -> Duration {
    delay(task).max(DELAY)
}

/// Returns the maximum time that the slot's next task waits for this one to stop.
fn stop_time_max(old: &TaskRecord) -> Duration {
    let grace = old.task.spec.container_spec.as_ref().and_then(|it| it.stop_grace_period).map_or(STOP_GRACE, nanos);
    OLD_TASK_TIMEOUT.max(grace + STOP_MARGIN)
}

fn has_later(draft: &Draft<'_>, mode: Mode, slot: &Key, old: &TaskRecord) -> bool {
    let later = |it: &TaskRecord| it.made_at > old.made_at && is_wanted(it) && !it.ahead;
    draft.tasks().any(|it| later(it) && key(mode, it) == *slot)
}

fn delay(old: &TaskRecord) -> Duration {
    old.task.spec.restart_policy.as_ref().and_then(|it| it.delay).map_or(DELAY, nanos)
}

fn count(new: &mut TaskRecord, policy: Option<&RestartPolicy>, now: Time) {
    new.restarted += 1;
    let Some((attempts, window)) = policy.and_then(windowed) else { return new.restarts.clear() };
    // Times that another leader's clock wrote are no later than now.
    new.restarts.iter_mut().for_each(|at| *at = now.min(*at));
    new.restarts.push(now);
    new.restarts.retain(|at| *at > now - window);
    let kept = usize::try_from(attempts).unwrap_or(usize::MAX).min(RESTARTS_KEPT_MAX);
    new.restarts.drain(..new.restarts.len().saturating_sub(kept));
}

/// Attempts and the window within which they count, if both are limited. The delays between them are added to the window: else
/// attempts would never count where it is no longer than the delay.
fn windowed(policy: &RestartPolicy) -> Option<(u64, Duration)> {
    let attempts = policy.max_attempts.filter(|it| *it > 0)?;
    let window = policy.window.filter(|it| *it > 0)?;
    let attempts = attempts.min(RESTARTS_KEPT_MAX as u64);
    let delays = policy.delay.map_or(DELAY, nanos).saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX));
    Some((attempts, nanos(window).saturating_add(delays)))
}

fn may_restart(old: &TaskRecord, mode: Mode, cause: Cause) -> bool {
    let policy = old.task.spec.restart_policy.clone().unwrap_or_default();
    let complete = old.task.status.state == TaskState::Complete;
    let condition = match policy.condition.as_str() {
        "none" => false,
        "on-failure" => !complete,
        _ => !(mode.is_job() && complete),
    };
    condition && (cause == Cause::NodeLost || attempts_left(old, &policy))
}

fn attempts_left(old: &TaskRecord, policy: &RestartPolicy) -> bool {
    match windowed(policy) {
        Some((attempts, window)) => {
            let since = old.applied_at - window;
            let recent = old.restarts.iter().filter(|at| **at > since).count();
            (recent as u64) < attempts
        }
        None => policy.max_attempts.is_none_or(|attempts| attempts == 0 || old.restarted < attempts),
    }
}

/// True if the last task of a slot leaves it occupied, though nothing runs there: its policy lets nothing follow. It is
/// for the next update to fill the slot again.
pub(crate) fn gave_up(last: &TaskRecord, mode: Mode) -> bool {
    let by_itself = ended_by_itself(last);
    if last.task.desired_state != TaskState::Shutdown || (mode.is_global() && !by_itself) {
        return false;
    }
    let cause = if by_itself { Cause::Ended } else { Cause::NodeLost };
    !may_restart(last, mode, cause)
}

/// Starts tasks whose turn it is. Their delay is over, and the one before them in their slot has stopped, is on a lost
/// node, or takes too long. A fenced task starts only when the earlier one has surely stopped.
pub(super) fn promote(draft: &mut Draft<'_>, service: &ServiceRecord) {
    let mode = Mode::of(&service.service.spec.mode);
    let waits = |it: &TaskRecord| it.task.desired_state < TaskState::Running && !is_dead(it) && !it.ahead;
    if !draft.tasks().any(|it| waits(it)) {
        return;
    }
    // No wait is too long for what must never run twice.
    let fenced = is_fenced(service);
    for (_, tasks) in draft.by_key(mode) {
        for (at, task) in tasks.iter().enumerate().filter(|(_, it)| waits(it)) {
            let start = task.not_before.unwrap_or(task.made_at);
            let mut there = |node: &str| if fenced { draft.may_run(node) } else { draft.answers(node) };
            let mut stops = |it: &TaskRecord| !is_wanted(it) && is_on_node(it) && there(&it.task.node_id);
            let stopping: Vec<_> = tasks[..at].iter().filter(|it| stops(it)).collect();
            if !draft.due(start) {
                continue;
            }
            let longest = stopping.iter().map(|it| stop_time_max(it)).max();
            if longest.is_none_or(|longest| !fenced && draft.due(start + longest)) {
                draft.want(&task.task.id, mode.target());
            }
        }
    }
}
