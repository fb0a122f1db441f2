//! What one node of the swarm is told, and what it tells back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Config, Driver, Secret, TaskRecord, TaskState, TaskStatus, View, is_default};

/// The whole of what one node shall know, each time anew: what is not in it is not the node's (any more).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assignments {
    pub tasks: Vec<Arc<TaskRecord>>,
    /// Only those that the tasks use which shall still run.
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<Arc<Secret>>,
    #[serde(skip_serializing_if = "is_default")]
    pub configs: Vec<Arc<Config>>,
    /// By id: what nodes need of the services of their tasks.
    #[serde(skip_serializing_if = "is_default")]
    pub services: BTreeMap<String, ServiceFacts>,
    /// For containers whose service names none.
    #[serde(skip_serializing_if = "is_default")]
    pub log_driver: Option<Driver>,
}

/// What a node needs to know of a service.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceFacts {
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// `X-Registry-Auth` for pulls; empty: none was given.
    #[serde(skip_serializing_if = "is_default")]
    pub registry_auth: String,
}

impl fmt::Debug for ServiceFacts {
    /// Credentials stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceFacts").field("labels", &self.labels).finish_non_exhaustive()
    }
}

/// How far a task is, as its node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    pub task_id: String,
    pub status: TaskStatus,
}

impl Assignments {
    /// What `node` shall know of this view. A task is a node's from [`TaskState::Assigned`] until it is removed: ended ones keep
    /// their containers as long.
    pub fn of(view: &View, node: &str) -> Assignments {
        let tasks: Vec<Arc<TaskRecord>> =
            view.tasks_of_node(node).filter(|it| it.task.status.state >= TaskState::Assigned).cloned().collect();
        let (mut secrets, mut configs) = (BTreeSet::new(), BTreeSet::new());
        let mut services = BTreeMap::new();
        for task in tasks.iter().map(|it| &it.task) {
            if task.status.state > TaskState::Running || task.desired_state > TaskState::Complete {
                continue;
            }
            if let Some(container) = &task.spec.container_spec {
                secrets.extend(container.secrets.iter().map(|it| it.secret_id.as_str()));
                configs.extend(container.configs.iter().map(|it| it.config_id.as_str()));
            }
            if let Some(record) = view.services.get(&task.service_id) {
                let labels = record.service.spec.labels.clone().unwrap_or_default();
                let facts = ServiceFacts { labels, registry_auth: record.registry_auth.clone() };
                services.insert(task.service_id.clone(), facts);
            }
        }
        let defaults = view.cluster.as_ref().map(|it| &it.cluster.spec.task_defaults);
        Assignments {
            secrets: secrets.into_iter().filter_map(|id| view.secrets.get(id).cloned()).collect(),
            configs: configs.into_iter().filter_map(|id| view.configs.get(id).cloned()).collect(),
            services,
            log_driver: defaults.and_then(|it| it.log_driver.clone()),
            tasks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::{Object, ServiceRecord};

    /// Tasks as `id state desired secret`; what the node is told, in short.
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
