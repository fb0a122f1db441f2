//! Reports of nodes about their tasks.

use herder_model::swarm::{Change, TaskRecord, TaskState, TaskStatus, Time, View};

/// Returns the change for a node's report on a task. `None` if it is not news, or the node may not report it: the task
/// is not its own, would go backwards, or the state is the managers' to set.
pub fn on_task_report(view: &View, task_id: &str, status: TaskStatus, node_id: &str, now: Time) -> Option<Change> {
    let before = view.tasks.get(task_id)?;
    let is = &before.task.status;
    let may = status.state > TaskState::Assigned && !matches!(status.state, TaskState::Remove | TaskState::Orphaned);
    // A task is the node's once it was assigned, not when it is only meant for it.
    let own = !node_id.is_empty() && before.task.node_id == node_id && is.state >= TaskState::Assigned;
    // One that has ended does not end in another way.
    let forward = status.state == is.state || (status.state > is.state && is.state <= TaskState::Running);
    if !own || !may || !forward || status == *is {
        return None;
    }
    let mut task = TaskRecord::clone(before);
    if status.state > is.state {
        task.applied_at = now;
    }
    if status.state == TaskState::Running && task.running_since.is_none() {
        task.running_since = Some(now);
    }
    task.task.status = status;
    if task.task.status.timestamp.is_empty() {
        task.task.status.timestamp = now.to_string();
    }
    Some(task.into())
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{Object, Task};

    use super::*;

    /// A task of node `a` that is in a state gets a report. What is written: state, when, and since when it runs.
    #[track_caller]
    fn check(is: &str, from: &str, reported: &str, expected: &str) {
        let status = |text: &str| {
            let state = text.trim_end_matches('!');
            let message = if text.ends_with('!') { "other" } else { "" }.into();
            let state = serde_json::from_value(state.into()).expect("a state");
            TaskStatus { state, message, timestamp: "then".into(), ..TaskStatus::default() }
        };
        let task = Task { id: "t".into(), node_id: "a".into(), status: status(is), ..Task::default() };
        let record = TaskRecord { task, applied_at: Time(1), ..TaskRecord::default() };
        let view = View::of(1, [Object::Task(record.into())]);
        let written = match on_task_report(&view, "t", status(reported), from, Time(7)) {
            Some(Change::Put(Object::Task(it))) => {
                let since = it.running_since.map_or(String::new(), |since| format!(" since {}", since.0));
                format!("{:?} at {}{since}", it.task.status.state, it.applied_at.0)
            }
            other => format!("{other:?}"),
        };
        assert_eq!(written, expected, "{is} {from} {reported}");
    }

    #[test]
    fn reports_go_forward_and_come_from_the_node_that_has_the_task() {
        check("assigned", "a", "preparing", "Preparing at 7");
        check("starting", "a", "running", "Running at 7 since 7");
        check("running", "a", "failed", "Failed at 7");
        check("running", "a", "running!", "Running at 1 since 7");
        check("running", "a", "running", "None");
        check("running", "a", "starting", "None");
        check("failed", "a", "running", "None");
        check("complete", "a", "failed", "None");
        check("complete", "a", "complete!", "Complete at 1");
        check("running", "b", "failed", "None");
        check("running", "", "failed", "None");
        check("pending", "a", "running", "None");
        check("assigned", "a", "assigned!", "None");
        check("running", "a", "orphaned", "None");
        check("running", "a", "remove", "None");
        let view = View::default();
        assert_eq!(on_task_report(&view, "t", TaskStatus::default(), "a", Time(1)), None);
    }
}
