//! Frozen: see the module above.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ClusterRecord, Config, NodeRecord, Secret, ServiceRecord, TaskRecord, Time};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Cluster,
    Node,
    Service,
    Task,
    Secret,
    Config,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Object {
    Cluster(Arc<ClusterRecord>),
    Node(Arc<NodeRecord>),
    Service(Arc<ServiceRecord>),
    Task(Arc<TaskRecord>),
    Secret(Arc<Secret>),
    Config(Arc<Config>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    Put(Object),
    PutSpec(Arc<ServiceRecord>),
    Remove(Kind, String),
    Expect(Kind, String, u64),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) at: Time,
    pub(crate) changes: Vec<Change>,
}
