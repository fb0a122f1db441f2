//! Comparison of a service's tasks with its declaration. Pure.

use serde::Serialize;
use serde_json::Value;

/// Progress of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub state: State,
    /// Tasks that run at the present specification, or that completed.
    pub done: u64,
    /// Tasks that are wanted.
    pub wanted: u64,
    /// The last failure of a task, if no task replaced it that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<TaskFailure>,
}

/// The state of a service as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Tasks are being made or started.
    Waiting,
    /// All wanted tasks run, or completed.
    Converged,
    /// An update stopped, went back, or tasks fail again and again.
    Failed,
}

/// A task that ended otherwise than it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskFailure {
    pub task: String,
    pub message: String,
    /// Failed tasks of the present specification.
    pub count: u64,
}

/// Failures of tasks after which a service that never ran is given up.
const FAILURES_MAX: u64 = 4;

/// Returns the status of a service from its object, all its tasks, and the number of nodes for them.
pub fn status(service: &Value, tasks: &[Value], nodes: u64) -> Status {
    let spec = &service["Spec"];
    let mode = &spec["Mode"];
    let number = |value: &Value| value.as_u64();
    let is_job = mode.get("ReplicatedJob").is_some() || mode.get("GlobalJob").is_some();
    let per_node = mode.get("Global").is_some() || mode.get("GlobalJob").is_some();
    let wanted = if per_node {
        nodes
    } else if is_job {
        number(&mode["ReplicatedJob"]["TotalCompletions"])
            .or(number(&mode["ReplicatedJob"]["MaxConcurrent"]))
            .unwrap_or(1)
    } else {
        number(&mode["Replicated"]["Replicas"]).unwrap_or(1)
    };
    let current = tasks.iter().filter(|task| is_current(spec, task));
    let state_of = |task: &Value| task["Status"]["State"].as_str().unwrap_or_default().to_owned();
    let is_done = |task: &&Value| {
        let state = state_of(task);
        if is_job { state == "complete" } else { state == "running" && task["DesiredState"] == "running" }
    };
    let done = current.clone().filter(is_done).count() as u64;
    let has_failed = |task: &&Value| matches!(state_of(task).as_str(), "failed" | "rejected" | "orphaned");
    let failures = current.clone().filter(has_failed).count() as u64;
    let newest =
        current.clone().filter(has_failed).max_by_key(|task| task["Status"]["Timestamp"].as_str().map(str::to_owned));
    let failure = newest.filter(|_| done < wanted).map(|task| TaskFailure {
        task: task["ID"].as_str().unwrap_or_default().to_owned(),
        message: task["Status"]["Err"].as_str().or(task["Status"]["Message"].as_str()).unwrap_or_default().to_owned(),
        count: failures,
    });
    // Old tasks that still run are part of an update that has not ended.
    let others = tasks.iter().filter(|task| !is_current(spec, task) && state_of(task) == "running").count();
    // A service without a restart policy of its own that completed is as it should be.
    let one_shot = spec["TaskTemplate"]["RestartPolicy"]["Condition"].as_str().is_some_and(|it| it != "any");
    let completed = current.clone().filter(|task| state_of(task) == "complete").count() as u64;
    let done = if one_shot && !is_job { done + completed } else { done };
    let update = service["UpdateStatus"]["State"].as_str().unwrap_or_default();
    let gave_up = one_shot
        && failures > 0
        && !tasks.iter().any(|task| is_current(spec, task) && !is_ended(&state_of(task)))
        && done < wanted;
    let state = match update {
        "paused" | "rollback_started" | "rollback_paused" | "rollback_completed" => State::Failed,
        _ if done >= wanted && others == 0 && update != "updating" => State::Converged,
        _ if gave_up || (failures >= FAILURES_MAX && done == 0) => State::Failed,
        _ => State::Waiting,
    };
    Status { state, done, wanted, failure }
}

fn is_ended(state: &str) -> bool {
    matches!(state, "complete" | "failed" | "rejected" | "orphaned" | "shutdown" | "remove")
}

/// True if a task was made from the present container spec of its service.
fn is_current(spec: &Value, task: &Value) -> bool {
    let container = |template: &Value| {
        let mut container = template["ContainerSpec"].clone();
        if let Some(map) = container.as_object_mut() {
            map.retain(|_, value| !value.is_null());
        }
        container
    };
    let force = |template: &Value| template["ForceUpdate"].as_u64().unwrap_or(0);
    let template = &spec["TaskTemplate"];
    container(template) == container(&task["Spec"]) && force(template) == force(&task["Spec"])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::status;

    fn service(mode: Value, update: &str) -> Value {
        json!({"Spec": {"Mode": mode, "TaskTemplate": {"ContainerSpec": {"Image": "new"}}}, "UpdateStatus": {"State": update}})
    }

    /// Tasks as `image:state`, each wanted to run.
    fn tasks(line: &str) -> Vec<Value> {
        let words = line.split_whitespace().filter_map(|word| word.split_once(':'));
        words
            .map(|(image, state)| {
                json!({"ID": "t", "DesiredState": "running", "Spec": {"ContainerSpec": {"Image": image}},
                       "Status": {"State": state, "Err": "exit 1"}})
            })
            .collect()
    }

    #[test]
    fn services_converge_when_all_tasks_run_at_the_present_specification() {
        let two = json!({"Replicated": {"Replicas": 2}});
        let job = json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}});
        let table = [
            (two.clone(), "", "new:running new:running", "Converged 2/2"),
            (two.clone(), "", "new:running new:starting", "Waiting 1/2"),
            (two.clone(), "updating", "new:running new:running", "Waiting 2/2"),
            (two.clone(), "", "new:running old:running new:running", "Waiting 2/2"),
            (two.clone(), "paused", "new:running old:running", "Failed 1/2"),
            (two.clone(), "rollback_completed", "new:running new:running", "Failed 2/2"),
            (two.clone(), "", "new:failed new:failed new:failed new:starting", "Waiting 0/2"),
            (two.clone(), "", "new:failed new:failed new:failed new:failed", "Failed 0/2"),
            (two, "", "new:failed new:failed new:failed new:failed new:running", "Waiting 1/2"),
            (job.clone(), "", "new:complete new:running", "Waiting 1/2"),
            (job, "", "new:complete new:complete", "Converged 2/2"),
            (json!({"Global": {}}), "", "new:running new:running new:running", "Converged 3/3"),
            (json!({"Replicated": {}}), "", "new:running", "Converged 1/1"),
        ];
        for (mode, update, line, wanted) in table {
            let status = status(&service(mode, update), &tasks(line), 3);
            assert_eq!(format!("{:?} {}/{}", status.state, status.done, status.wanted), wanted, "{line}");
        }
    }
}
