//! Next step of a node for a task, one at a time. It follows from the desired state, the last report and the
//! container (swarmkit `agent/exec`, `Do`).

use herder_model::swarm::{ContainerStatus, TaskState, TaskStatus};

/// State of a task's container, as the engine shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// There is no container.
    #[default]
    Nothing,
    /// Made and never started.
    Created,
    Running(Health),
    Ended {
        exit_code: i64,
        /// Error of the engine, such as when the container could not be started. Mostly empty.
        error: String,
    },
}

/// State of a container's health check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// There is no check.
    #[default]
    Unchecked,
    Starting,
    Healthy,
    Unhealthy,
}

/// Next step. After it, one looks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait until something changes.
    Rest,
    /// Tell this state.
    Tell(TaskState),
    /// Bring what the container needs, and make it.
    Prepare,
    Start,
    /// Run the hooks in the container that has just been started.
    PostStart,
    /// End the container in the time that its task grants.
    Stop,
    /// Remove the container: it has ended, and is not kept as history.
    Remove,
    /// Tell that it has failed.
    Fail(String),
}

/// A task as [`next`] needs to know it.
#[derive(Clone, Copy, Debug)]
pub struct Task<'t> {
    /// State that the managers desire.
    pub desired: TaskState,
    /// Last, by this node; at first, by the managers.
    pub told: TaskState,
    /// Name of its container.
    pub name: &'t str,
    /// True if it counts as running only when its health check passes.
    pub is_checked: bool,
    /// Its container is being stopped because its check gave it up.
    pub is_unhealthy: bool,
    /// Its container has run, or may have.
    pub has_run: bool,
    /// Its container has hooks that run after its start, and they have not run yet.
    pub has_hooks: bool,
    /// The reason for which the container is being stopped; empty if there is none.
    pub failure: &'t str,
}

/// Docker's message for a container whose health check failed.
pub const UNHEALTHY: &str = "dockerexec: unhealthy container";

/// The next step of a task whose container is so.
pub fn next(task: Task<'_>, seen: &Seen) -> Step {
    let Task { desired, told, .. } = task;
    if desired >= TaskState::Shutdown {
        return match seen {
            Seen::Running(_) => Step::Stop,
            _ if told < TaskState::Complete => Step::Tell(TaskState::Shutdown),
            Seen::Created | Seen::Ended { .. } if desired == TaskState::Remove => Step::Remove,
            _ => Step::Rest,
        };
    }
    // What goes on although it shall not (any more), or not yet, is left alone.
    if told >= TaskState::Complete || told > desired {
        return Step::Rest;
    }
    match told {
        TaskState::New | TaskState::Allocated | TaskState::Pending | TaskState::Assigned => {
            Step::Tell(TaskState::Accepted)
        }
        TaskState::Accepted => Step::Tell(TaskState::Preparing),
        TaskState::Preparing if *seen == Seen::Nothing => Step::Prepare,
        // Prepared: now, or before this node's herder was started anew.
        TaskState::Preparing => Step::Tell(TaskState::Ready),
        // Somebody took it away (`docker container prune` takes all that does not run): nothing of it has run, so nothing is lost.
        TaskState::Ready if *seen == Seen::Nothing => Step::Prepare,
        TaskState::Ready if desired > TaskState::Ready => Step::Tell(TaskState::Starting),
        TaskState::Ready => Step::Rest,
        _ => running(task, seen),
    }
}

/// Returns the step from `Starting` on.
fn running(task: Task<'_>, seen: &Seen) -> Step {
    let Task { told, is_unhealthy, has_run, has_hooks, failure, .. } = task;
    match seen {
        Seen::Running(_) if !failure.is_empty() => Step::Stop,
        Seen::Ended { .. } if !failure.is_empty() => Step::Fail(failure.to_owned()),
        Seen::Nothing if !has_run => Step::Prepare,
        Seen::Nothing => Step::Fail(format!("No such container: {}", task.name)),
        Seen::Created => Step::Start,
        Seen::Running(Health::Unhealthy) => Step::Stop,
        Seen::Running(_) if is_unhealthy => Step::Stop,
        Seen::Running(_) if has_hooks && told < TaskState::Running => Step::PostStart,
        Seen::Running(Health::Starting) => Step::Rest,
        Seen::Running(_) if told < TaskState::Running => Step::Tell(TaskState::Running),
        Seen::Running(_) => Step::Rest,
        Seen::Ended { exit_code, .. } if is_unhealthy => {
            Step::Fail(if *exit_code == 0 { UNHEALTHY.into() } else { exit(*exit_code, UNHEALTHY) })
        }
        // It ran, if only for a moment.
        Seen::Ended { exit_code, error }
            if error.is_empty() && told < TaskState::Running && (*exit_code == 0 || !task.is_checked) =>
        {
            Step::Tell(TaskState::Running)
        }
        Seen::Ended { exit_code: 0, error } if error.is_empty() => Step::Tell(TaskState::Complete),
        Seen::Ended { exit_code, error } => Step::Fail(exit(*exit_code, error)),
    }
}

fn exit(code: i64, cause: &str) -> String {
    if cause.is_empty() {
        format!("task: non-zero exit ({code})")
    } else {
        format!("task: non-zero exit ({code}): {cause}")
    }
}

/// Returns the message of a reported state.
pub fn message(state: TaskState) -> &'static str {
    match state {
        TaskState::Accepted => "accepted",
        TaskState::Preparing => "preparing",
        TaskState::Ready => "prepared",
        TaskState::Starting => "starting",
        TaskState::Running => "started",
        TaskState::Complete => "finished",
        TaskState::Shutdown => "shutdown",
        TaskState::New
        | TaskState::Allocated
        | TaskState::Pending
        | TaskState::Assigned
        | TaskState::Failed
        | TaskState::Rejected
        | TaskState::Remove
        | TaskState::Orphaned
        | TaskState::Other(_) => "",
    }
}

/// Returns the status of a task that fails with `why`: one that never began to start is rejected. The message stays
/// what it was.
pub fn failed(told: &TaskStatus, why: String) -> TaskStatus {
    let state = if told.state < TaskState::Starting { TaskState::Rejected } else { TaskState::Failed };
    let container_status = told.container_status.clone().or(Some(ContainerStatus::default()));
    TaskStatus { state, err: why, container_status, ..told.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> TaskState {
        serde_json::from_value(text.into()).expect("a state")
    }

    fn task(desired: TaskState, told: TaskState) -> Task<'static> {
        Task {
            desired,
            told,
            name: "web.1.t",
            is_checked: false,
            is_unhealthy: false,
            has_run: true,
            has_hooks: false,
            failure: "",
        }
    }

    fn seen(text: &str) -> Seen {
        match text {
            "nothing" => Seen::Nothing,
            "created" => Seen::Created,
            "running" => Seen::Running(Health::Unchecked),
            "checking" => Seen::Running(Health::Starting),
            "healthy" => Seen::Running(Health::Healthy),
            "unhealthy" => Seen::Running(Health::Unhealthy),
            code => Seen::Ended { exit_code: code.parse().expect("an exit code"), error: String::new() },
        }
    }

    /// Each line: desired, reported, seen, then the step.
    #[test]
    fn a_task_goes_one_step_at_a_time() {
        for line in [
            "running assigned nothing: Tell(Accepted)",
            "running accepted nothing: Tell(Preparing)",
            "running preparing nothing: Prepare",
            "running preparing created: Tell(Ready)",
            "running preparing running: Tell(Ready)",
            "ready preparing created: Tell(Ready)",
            "ready ready created: Rest",
            "ready ready nothing: Prepare",
            "running ready nothing: Prepare",
            "running ready created: Tell(Starting)",
            "running starting created: Start",
            "running starting checking: Rest",
            "running starting running: Tell(Running)",
            "running starting healthy: Tell(Running)",
            "running starting unhealthy: Stop",
            "running starting 0: Tell(Running)",
            "running starting 1: Tell(Running)",
            "running starting nothing: Fail(\"No such container: web.1.t\")",
            "running running running: Rest",
            "running running checking: Rest",
            "running running unhealthy: Stop",
            "running running 0: Tell(Complete)",
            "running running 137: Fail(\"task: non-zero exit (137)\")",
            "running running nothing: Fail(\"No such container: web.1.t\")",
            "running failed 1: Rest",
            "running complete 0: Rest",
            // Jobs shall end by themselves.
            "complete running running: Rest",
            "complete running 0: Tell(Complete)",
            // Held back again: nothing is undone.
            "ready running running: Rest",
            "ready starting created: Rest",
            "shutdown assigned nothing: Tell(Shutdown)",
            "shutdown preparing created: Tell(Shutdown)",
            "shutdown running running: Stop",
            "shutdown running unhealthy: Stop",
            "shutdown running 0: Tell(Shutdown)",
            "shutdown running nothing: Tell(Shutdown)",
            "shutdown shutdown 0: Rest",
            "shutdown failed 1: Rest",
            // It was given up while nobody could ask its engine, and runs.
            "shutdown orphaned running: Stop",
            "remove running running: Stop",
            "remove running 143: Tell(Shutdown)",
            "remove shutdown 143: Remove",
            "remove failed 1: Remove",
            "remove ready created: Tell(Shutdown)",
            "remove rejected nothing: Rest",
        ] {
            let (words, expected) = line.split_once(": ").expect("a colon");
            let words: Vec<&str> = words.split(' ').collect();
            let step = next(task(state(words[0]), state(words[1])), &seen(words[2]));
            assert_eq!(format!("{step:?}"), expected, "{line}");
        }
    }

    #[test]
    fn a_container_that_its_check_gave_up_is_stopped_and_its_task_fails() {
        let starting = task(TaskState::Running, TaskState::Starting);
        let step = |seen: &Seen| next(Task { is_unhealthy: true, ..starting }, seen);
        assert_eq!(step(&seen("healthy")), Step::Stop);
        let ended = |code| Step::Fail(format!("task: non-zero exit ({code}): {UNHEALTHY}"));
        assert_eq!(step(&seen("137")), ended(137));
        assert_eq!(step(&seen("0")), Step::Fail(UNHEALTHY.into()));
        // One that ends before it was healthy never ran.
        let step = next(Task { is_checked: true, ..starting }, &seen("1"));
        assert_eq!(step, Step::Fail("task: non-zero exit (1)".into()));
    }

    #[test]
    fn hooks_run_once_before_the_task_counts_as_running() {
        let starting = Task { has_hooks: true, ..task(TaskState::Running, TaskState::Starting) };
        for seen_now in ["running", "checking", "healthy"] {
            assert_eq!(next(starting, &seen(seen_now)), Step::PostStart, "{seen_now}");
        }
        assert_eq!(next(starting, &seen("unhealthy")), Step::Stop);
        // It ended before they ran.
        assert_eq!(next(starting, &seen("0")), Step::Tell(TaskState::Running));
        assert_eq!(next(Task { told: TaskState::Running, ..starting }, &seen("running")), Step::Rest);
        let failed = Task { has_hooks: false, failure: "post_start 1: exit 3", ..starting };
        assert_eq!(next(failed, &seen("running")), Step::Stop);
        assert_eq!(next(failed, &seen("137")), Step::Fail("post_start 1: exit 3".into()));
        assert_eq!(
            next(Task { desired: TaskState::Shutdown, ..failed }, &seen("137")),
            Step::Tell(TaskState::Shutdown)
        );
    }

    #[test]
    fn a_task_that_never_began_to_start_is_rejected() {
        for (told, expected) in [
            (TaskState::Assigned, TaskState::Rejected),
            (TaskState::Preparing, TaskState::Rejected),
            (TaskState::Starting, TaskState::Failed),
            (TaskState::Running, TaskState::Failed),
        ] {
            let told = TaskStatus { state: told, message: message(told).into(), ..TaskStatus::default() };
            let status = failed(&told, "why".into());
            assert_eq!((status.state, &*status.err, &status.message), (expected, "why", &told.message));
        }
    }

    /// Every task comes to rest, whatever the engine shows, and reported states never go back.
    #[test]
    fn every_task_comes_to_rest() {
        let desired =
            [TaskState::Ready, TaskState::Running, TaskState::Complete, TaskState::Shutdown, TaskState::Remove];
        let starts = ["nothing", "created", "running", "checking", "healthy", "unhealthy", "0", "1"];
        for (desired, start) in desired.into_iter().flat_map(|it| starts.map(|start| (it, start))) {
            for told in [TaskState::Assigned, TaskState::Preparing, TaskState::Ready, TaskState::Running] {
                let (mut told, mut is, mut unhealthy, mut rests) = (told, seen(start), false, false);
                // There are fewer steps than this in the longest life.
                for _ in 0..12 {
                    let before = told;
                    match next(Task { is_unhealthy: unhealthy, ..task(desired, told) }, &is) {
                        Step::Rest => rests = true,
                        Step::Tell(state) => told = state,
                        Step::Prepare => is = Seen::Created,
                        Step::Start => is = Seen::Running(Health::Unchecked),
                        Step::PostStart => unreachable!("there are no hooks"),
                        Step::Stop => {
                            unhealthy = is == Seen::Running(Health::Unhealthy);
                            is = Seen::Ended { exit_code: 143, error: String::new() };
                        }
                        Step::Remove => is = Seen::Nothing,
                        Step::Fail(_) => told = TaskState::Failed,
                    }
                    assert!(told >= before, "{desired:?} {start}: {before:?} became {told:?}");
                }
                assert!(rests, "{desired:?} {start}");
            }
        }
    }
}
