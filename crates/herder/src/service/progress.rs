//! Progress of a service towards its declaration. Pure.

use std::collections::BTreeMap;

use herder_decide::swarm::is_dirty;
use herder_model::swarm::{Service, ServiceRecord, Task, TaskRecord, TaskState, Version};

/// One place for a task: a slot, or a node for a global service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// `web.1`, or `web` and the node.
    pub(super) name: String,
    /// Present state of its task.
    pub(super) state: String,
    /// Number of the step, of [`STEPS`].
    pub(super) step: u64,
    /// Reason why an earlier task ended or this one waits. Empty while all is well.
    pub(super) error: String,
}

/// Number of steps, from `new` to `running`.
pub(super) const STEPS: u64 = 9;

/// Result of the wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The service is as declared.
    Done,
    /// The service will not get there by itself, with the reason.
    Stuck(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) slots: Vec<Slot>,
    /// Tasks that are as declared, and how many there shall be.
    pub(super) done: u64,
    pub(super) wanted: u64,
    /// Reason why the whole waits or rolls back.
    pub(super) note: String,
    pub(super) outcome: Option<Outcome>,
}

/// A node where tasks are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    /// True on a node that is down: its tasks cannot end, and are not awaited.
    pub(super) is_down: bool,
}

/// Returns the progress of a service with these tasks. `hosts` are nodes by id.
pub(super) fn progress(service: &Service, tasks: &[Task], hosts: &BTreeMap<String, Host>) -> Progress {
    let status = service.service_status.clone().unwrap_or_default();
    let mut record = ServiceRecord { spec_version: Version { index: 1 }, ..ServiceRecord::default() };
    record.service.spec = service.spec.clone();
    let ports = service.spec.endpoint_spec.as_ref().map(|it| it.ports.clone()).unwrap_or_default();
    let is_old = |task: &Task| {
        let task = TaskRecord { task: task.clone(), ports: ports.clone(), ..TaskRecord::default() };
        is_dirty(&record, &task, None)
    };
    let mut places: BTreeMap<(u64, &str), Vec<&Task>> = BTreeMap::new();
    for task in tasks {
        let node = if task.slot == 0 { task.node_id.as_str() } else { "" };
        places.entry((task.slot, node)).or_default().push(task);
    }
    let (mut slots, mut done, mut leftover) = (Vec::new(), 0, 0);
    for ((number, node), mut tasks) in places {
        // The newest first.
        tasks.sort_by(|a, b| b.meta.created_at.cmp(&a.meta.created_at));
        let is_up = |it: &Task| hosts.get(&it.node_id).is_some_and(|it| !it.is_down);
        let ends = |it: &&&Task| it.desired_state > TaskState::Running && is_alive(it) && is_up(it);
        leftover += tasks.iter().filter(ends).count();
        let host = |it: &Task| hosts.get(&it.node_id).map(|it| it.name.clone()).unwrap_or_default();
        let name = match number {
            0 => format!("{}.{}", service.spec.name, hosts.get(node).map_or(node, |it| &it.name)),
            number => format!("{}.{number}", service.spec.name),
        };
        let Some(wanted) = tasks.iter().find(|it| it.desired_state <= TaskState::Complete && is_hoped_for(it)) else {
            if let Some(ending) = tasks.iter().find(ends) {
                let state = format!("ends{}", on(&host(ending)));
                slots.push(Slot { name, state, step: 0, error: String::new() });
            }
            continue;
        };
        // Its own, or else that of the last one that ended here.
        let mut errors = std::iter::once(*wanted).chain(tasks.iter().copied()).map(|it| it.status.err.clone());
        let error = errors.find(|it| !it.is_empty()).unwrap_or_default();
        let old = is_old(wanted);
        let runs = wanted.status.state == TaskState::Running || wanted.status.state == TaskState::Complete;
        let slot = match (old, runs) {
            (true, _) => Slot { name, state: "waits for its turn".to_owned(), step: 0, error: String::new() },
            (false, true) => {
                done += 1;
                let state = format!("{}{}", word(wanted.status.state), on(&host(wanted)));
                Slot { name, state, step: STEPS, error: String::new() }
            }
            (false, false) => {
                let state = format!("{}{}", word(wanted.status.state), on(&host(wanted)));
                Slot { name, state, step: step(wanted.status.state), error }
            }
        };
        slots.push(slot);
    }
    let wanted = status.desired_tasks.max(status.completed_tasks);
    let (note, outcome) = judge(service, done, wanted, leftover);
    Progress { slots, done, wanted, note, outcome }
}

fn judge(service: &Service, done: u64, wanted: u64, leftover: usize) -> (String, Option<Outcome>) {
    let update = service.update_status.clone().unwrap_or_default();
    let message = update.message;
    // Of jobs, some tasks are done and others run. Right after a change, there may be too many.
    let is_job = service.spec.mode.replicated_job.is_some() || service.spec.mode.global_job.is_some();
    let complete = (done == wanted || is_job && done > wanted) && leftover == 0;
    match update.state.as_str() {
        "paused" => (String::new(), Some(Outcome::Stuck(format!("the update is paused: {message}")))),
        "rollback_completed" => {
            (String::new(), Some(Outcome::Stuck(format!("the service is as it was before: {message}"))))
        }
        "rollback_paused" => (String::new(), Some(Outcome::Stuck(format!("the rollback is paused: {message}")))),
        "rollback_started" => (format!("goes back to what it was: {message}"), None),
        "updating" if complete => ("all tasks run; they are watched for a while".to_owned(), None),
        _ if complete => (String::new(), Some(Outcome::Done)),
        _ if leftover > 0 && done >= wanted => ("tasks that are not wanted any more end".to_owned(), None),
        _ => (String::new(), None),
    }
}

/// True if it may still run, or does.
fn is_alive(task: &Task) -> bool {
    task.status.state <= TaskState::Running && task.status.state > TaskState::Pending
}

fn is_hoped_for(task: &Task) -> bool {
    task.desired_state <= TaskState::Running || task.desired_state == TaskState::Complete
}

fn on(host: &str) -> String {
    if host.is_empty() { String::new() } else { format!(" on {host}") }
}

/// The words of the API.
fn word(state: TaskState) -> String {
    serde_json::to_value(state).ok().and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default()
}

fn step(state: TaskState) -> u64 {
    let order = [
        TaskState::New,
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Accepted,
        TaskState::Preparing,
        TaskState::Ready,
        TaskState::Starting,
    ];
    order.iter().position(|it| *it == state).map_or(0, |it| it as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Tasks as `SLOT IMAGE DESIRED STATE [error]`, the oldest first, then the printed progress. A `!` after the slot
    /// marks a node that is down.
    #[track_caller]
    fn check(image: &str, desired: u64, update: (&str, &str), tasks: &[&str], expected: &[&str]) {
        let service = json!({
            "ID": "s", "Spec": {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": image}},
                                "Mode": {"Replicated": {"Replicas": desired}}},
            "ServiceStatus": {"RunningTasks": 0, "DesiredTasks": desired},
            "UpdateStatus": {"State": update.0, "Message": update.1},
        });
        let tasks = tasks.iter().enumerate().map(|(at, line)| {
            let mut words = line.splitn(5, ' ');
            let mut next = || words.next().unwrap_or_default();
            let (slot, image, desired, state, error) = (next(), next(), next(), next(), next());
            serde_json::from_value(json!({
                "ID": format!("t{at}"), "Slot": slot.trim_end_matches('!').parse::<u64>().expect("a slot"),
                "NodeID": if slot.ends_with('!') { "n2" } else { "n1" },
                "CreatedAt": format!("2026-11-21T00:00:{at:02}Z"), "Spec": {"ContainerSpec": {"Image": image}},
                "DesiredState": desired, "Status": {"State": state, "Err": error},
            }))
            .expect("a task")
        });
        let tasks: Vec<Task> = tasks.collect();
        let host = |name: &str, is_down| Host { name: name.to_owned(), is_down };
        let hosts = BTreeMap::from([("n1".to_owned(), host("h1", false)), ("n2".to_owned(), host("h2", true))]);
        let told = progress(&serde_json::from_value(service).expect("a service"), &tasks, &hosts);
        let slots = told
            .slots
            .iter()
            .map(|it| format!("{}: {} {} {}", it.name, it.step, it.state, it.error).trim_end().to_owned());
        let end = match told.outcome {
            None => format!("{}/{} {}", told.done, told.wanted, told.note).trim_end().to_owned(),
            Some(Outcome::Done) => format!("{}/{} done", told.done, told.wanted),
            Some(Outcome::Stuck(why)) => format!("{}/{} stuck: {why}", told.done, told.wanted),
        };
        let lines: Vec<String> = slots.chain([end]).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn tasks_are_followed_until_all_run() {
        check("a", 2, ("", ""), &[], &["0/2"]);
        check(
            "a",
            2,
            ("", ""),
            &["1 a running running", "2 a running preparing"],
            &["web.1: 9 running on h1", "web.2: 5 preparing on h1", "1/2"],
        );
        check("a", 1, ("", ""), &["1 a running running"], &["web.1: 9 running on h1", "1/1 done"]);
    }

    #[test]
    fn who_is_too_many_has_to_end() {
        check(
            "a",
            1,
            ("", ""),
            &["1 a running running", "2 a shutdown running"],
            &["web.1: 9 running on h1", "web.2: 0 ends on h1", "1/1 tasks that are not wanted any more end"],
        );
        check("a", 0, ("", ""), &["1 a shutdown shutdown"], &["0/0 done"]);
        // Who waits for a dead node waits for ever.
        check(
            "a",
            1,
            ("", ""),
            &["1! a shutdown running", "1 a running running"],
            &["web.1: 9 running on h1", "1/1 done"],
        );
        check("a", 0, ("", ""), &["2! a shutdown running"], &["0/0 done"]);
        // Nobody was told yet.
        check("a", 0, ("", ""), &["1 a running running"], &["web.1: 9 running on h1", "1/0"]);
    }

    #[test]
    fn an_update_counts_what_is_new_and_ends_when_it_was_watched() {
        let tasks = ["1 a shutdown shutdown", "1 b running running", "2 a running running"];
        check("b", 2, ("updating", ""), &tasks, &["web.1: 9 running on h1", "web.2: 0 waits for its turn", "1/2"]);
        let tasks = ["1 b running running", "2 b running running"];
        let slots = ["web.1: 9 running on h1", "web.2: 9 running on h1"];
        let watched = "2/2 all tasks run; they are watched for a while";
        check("b", 2, ("updating", ""), &tasks, &[slots[0], slots[1], watched]);
        check("b", 2, ("completed", ""), &tasks, &[slots[0], slots[1], "2/2 done"]);
    }

    #[test]
    fn what_stops_says_why() {
        check(
            "b",
            1,
            ("paused", "task t1 failed"),
            &["1 b shutdown failed exit 1", "1 b running starting"],
            &["web.1: 7 starting on h1 exit 1", "0/1 stuck: the update is paused: task t1 failed"],
        );
        check("a", 0, ("rollback_completed", "why"), &[], &["0/0 stuck: the service is as it was before: why"]);
        check("a", 1, ("rollback_started", "why"), &[], &["0/1 goes back to what it was: why"]);
    }

    #[test]
    fn a_task_that_waits_says_for_what() {
        check(
            "a",
            1,
            ("", ""),
            &["1 a running pending no suitable node"],
            &["web.1: 2 pending on h1 no suitable node", "0/1"],
        );
    }
}
