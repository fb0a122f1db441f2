//! The assignments that a node of the swarm receives, and the reports that it returns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Config, Driver, Kind, Secret, ServiceRecord, Task, TaskRecord, TaskState, TaskStatus, View, is_default};

/// The whole of what one node shall know: what is not in it is not the node's (any more).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assignments {
    /// Number of this state within the node's session; changes name the state that they apply to.
    #[serde(skip_serializing_if = "is_default")]
    pub sequence: u64,
    /// Sorted by id, as all lists here.
    pub tasks: Vec<Arc<TaskRecord>>,
    /// Only those that the tasks use which shall still run.
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<Arc<Secret>>,
    #[serde(skip_serializing_if = "is_default")]
    pub configs: Vec<Arc<Config>>,
    /// Keyed by id: what nodes need of the services of their tasks.
    #[serde(skip_serializing_if = "is_default")]
    pub services: BTreeMap<String, ServiceFacts>,
    /// Log driver for containers whose service names none.
    #[serde(skip_serializing_if = "is_default")]
    pub log_driver: Option<Driver>,
}

/// The changes since the last message to a node. Apart from the log driver, which only the whole has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AssignmentChanges {
    /// The [`Assignments::sequence`] that the node must be at. At any other one something was lost.
    pub applies_to: u64,
    /// The one that it is at afterwards.
    pub results_in: u64,
    /// New ones, and those of which something else is wanted now.
    #[serde(skip_serializing_if = "is_default")]
    pub tasks: Vec<Arc<TaskRecord>>,
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<Arc<Secret>>,
    #[serde(skip_serializing_if = "is_default")]
    pub configs: Vec<Arc<Config>>,
    #[serde(skip_serializing_if = "is_default")]
    pub services: BTreeMap<String, ServiceFacts>,
    /// The removed objects, by kind and id. An id that the node does not have changes nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub removed: Vec<(Kind, String)>,
}

impl AssignmentChanges {
    /// True if there is no change that the node needs.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
            && self.secrets.is_empty()
            && self.configs.is_empty()
            && self.services.is_empty()
            && self.removed.is_empty()
    }
}

/// The facts of a service that its nodes need.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceFacts {
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// `X-Registry-Auth` for pulls; empty: none was given.
    #[serde(skip_serializing_if = "is_default")]
    pub registry_auth: String,
}

impl ServiceFacts {
    pub fn of(record: &ServiceRecord) -> ServiceFacts {
        let labels = record.service.spec.labels.clone().unwrap_or_default();
        ServiceFacts { labels, registry_auth: record.registry_auth.clone() }
    }
}

impl fmt::Debug for ServiceFacts {
    /// Credentials stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceFacts").field("labels", &self.labels).finish_non_exhaustive()
    }
}

/// State of a task, as its node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    pub task_id: String,
    pub status: TaskStatus,
}

impl Assignments {
    /// Returns the assignments of `node` in this view. A task is a node's from [`TaskState::Assigned`] until it is
    /// removed: ended ones keep their containers as long.
    pub fn of(view: &View, node: &str) -> Assignments {
        let tasks: Vec<Arc<TaskRecord>> = view.tasks_of_node(node).filter(|it| is_told(it)).cloned().collect();
        let needs: BTreeSet<(Kind, &str)> = tasks.iter().flat_map(|it| needs(&it.task)).collect();
        let defaults = view.cluster.as_ref().map(|it| &it.cluster.spec.task_defaults);
        let mut told =
            Assignments { log_driver: defaults.and_then(|it| it.log_driver.clone()), ..Assignments::default() };
        for (kind, id) in needs {
            match kind {
                Kind::Secret => told.secrets.extend(view.secrets.get(id).cloned()),
                Kind::Config => told.configs.extend(view.configs.get(id).cloned()),
                Kind::Service => {
                    told.services.extend(view.services.get(id).map(|it| (id.to_owned(), ServiceFacts::of(it))));
                }
                // No task needs such an object at its node.
                Kind::Cluster | Kind::Node | Kind::Task | Kind::Network | Kind::Resource(_) => {}
            }
        }
        Assignments { tasks, ..told }
    }

    /// Takes in what changed. False, and nothing is done, if that was not said of what is known here.
    pub fn apply(&mut self, changes: AssignmentChanges) -> bool {
        if self.sequence != changes.applies_to {
            return false;
        }
        self.sequence = changes.results_in;
        for (kind, id) in &changes.removed {
            match kind {
                Kind::Task => remove(&mut self.tasks, id, |it| &it.task.id),
                Kind::Secret => remove(&mut self.secrets, id, |it| &it.id),
                Kind::Config => remove(&mut self.configs, id, |it| &it.id),
                Kind::Service => drop(self.services.remove(id)),
                // A leader of a later release takes back what this node never had.
                Kind::Cluster | Kind::Node | Kind::Network | Kind::Resource(_) => {}
            }
        }
        put(&mut self.tasks, changes.tasks, |it| &it.task.id);
        put(&mut self.secrets, changes.secrets, |it| &it.id);
        put(&mut self.configs, changes.configs, |it| &it.id);
        self.services.extend(changes.services);
        true
    }
}

fn remove<T>(list: &mut Vec<T>, id: &str, id_of: impl Fn(&T) -> &String) {
    if let Ok(at) = list.binary_search_by(|it| id_of(it).as_str().cmp(id)) {
        list.remove(at);
    }
}

/// Puts some into a list that is in the order of the ids, instead of those that have the same.
fn put<T>(list: &mut Vec<T>, new: Vec<T>, id_of: impl Fn(&T) -> &String) {
    for it in new {
        match list.binary_search_by(|old| id_of(old).cmp(id_of(&it))) {
            Ok(at) => list[at] = it,
            Err(at) => list.insert(at, it),
        }
    }
}

/// True if the task is among the assignments of its node.
pub fn is_told(task: &TaskRecord) -> bool {
    task.task.status.state >= TaskState::Assigned
}

/// Returns the objects that a task needs while it runs: its secrets and configs, and its service.
pub fn needs(task: &Task) -> impl Iterator<Item = (Kind, &str)> {
    let runs = task.status.state <= TaskState::Running && task.desired_state <= TaskState::Complete;
    let container = task.spec.container_spec.as_ref().filter(|_| runs);
    let secrets = container.into_iter().flat_map(|it| &it.secrets).map(|it| (Kind::Secret, it.secret_id.as_str()));
    let configs = container.into_iter().flat_map(|it| &it.configs).map(|it| (Kind::Config, it.config_id.as_str()));
    let service = runs.then_some((Kind::Service, task.service_id.as_str()));
    secrets.chain(configs).chain(service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::Object;

    /// Tasks as `id state desired secret`; the assignments in short. A leader of a later release sends members, kinds
    /// and words that this node does not know: all else still counts.
    #[test]
    fn changes_of_a_later_release_are_taken_in_as_far_as_they_are_known() {
        let mut assigned = Assignments::default();
        assigned.secrets.push(Arc::new(Secret { id: "s1".into(), ..Secret::default() }));
        let changes = serde_json::json!({
            "applies_to": 0, "results_in": 1, "novelties": [{"ID": "x"}],
            "tasks": [{"task": {"ID": "t1", "DesiredState": "migrating", "Novelty": {"x": 1}}, "novelty": true}],
            "removed": [["novelty", "x"], ["secret", "s1"], ["node", "n1"]],
        });
        let changes: AssignmentChanges = serde_json::from_value(changes).expect("changes");
        assert!(assigned.apply(changes));
        assert_eq!((assigned.tasks.len(), assigned.secrets.len(), assigned.sequence), (1, 0, 1));
        assert!(assigned.tasks[0].task.desired_state > TaskState::Remove);
        let text = serde_json::to_string(&assigned).expect("JSON");
        assert!(text.contains(r#""DesiredState":"migrating""#) && text.contains(r#""novelty":true"#), "{text}");
    }

    #[test]
    fn a_node_is_told_of_its_tasks_and_of_what_they_use_while_they_run() {
        let task = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let [id, node, state, desired, secret] = words[..] else { panic!("five words a line: {line}") };
            let task = serde_json::json!({"ID": id, "NodeID": node, "ServiceID": "web", "Status": {"State": state},
                "DesiredState": desired, "Spec": {"ContainerSpec": {"Secrets": [{"SecretID": secret}]}}});
            let task = serde_json::from_value(task).expect("a task");
            Object::Task(Arc::new(TaskRecord { task, ..TaskRecord::default() }))
        };
        let secret = |id: &str| Object::Secret(Arc::new(Secret { id: id.to_owned(), ..Secret::default() }));
        let mut web = ServiceRecord { registry_auth: "a".into(), ..ServiceRecord::default() };
        web.service.id = "web".into();
        let lines = [
            "t1 n1 assigned running s1",
            "t2 n1 running running s1",
            "t3 n1 failed shutdown s2",
            "t4 n1 running remove s3",
            "t5 n1 pending running s4",
            "t6 n2 running running s5",
        ];
        let secrets = ["s1", "s2", "s3", "s4", "s5"].map(secret);
        let objects = secrets.into_iter().chain(lines.map(task)).chain([Object::Service(Arc::new(web))]);
        let told = Assignments::of(&View::of(1, objects), "n1");
        let tasks: Vec<&str> = told.tasks.iter().map(|it| it.task.id.as_str()).collect();
        let secrets: Vec<&str> = told.secrets.iter().map(|it| it.id.as_str()).collect();
        assert_eq!((tasks.join(" "), secrets.join(" ")), ("t1 t2 t3 t4".to_owned(), "s1".to_owned()));
        assert_eq!(told.services["web"].registry_auth, "a");
        let text = serde_json::to_string(&told).expect("json");
        assert_eq!(serde_json::from_str::<Assignments>(&text).expect("the same"), told);
    }
}
