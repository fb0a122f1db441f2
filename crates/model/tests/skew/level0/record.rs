//! Frozen: see the module above.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Cluster, Driver, PortConfig, Role, RootRotation, Service, SwarmNode, Task, Time, Version, is_default};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ClusterRecord {
    pub(crate) cluster: Cluster,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) unlock_key: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) removed: BTreeSet<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) root_rotation: Option<RootRotation>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) managers_key: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NodeRecord {
    pub(crate) node: SwarmNode,
    pub(crate) role: Role,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) addr: String,
    pub(crate) state_since: Time,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) fenced_off: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceRecord {
    pub(crate) service: Service,
    pub(crate) spec_version: Version,
    pub(crate) previous_spec_version: Version,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) registry_auth: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) previous_registry_auth: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TaskRecord {
    pub(crate) task: Task,
    pub(crate) service_name: String,
    pub(crate) spec_version: Version,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ports: Vec<PortConfig>,
    pub(crate) applied_at: Time,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) running_since: Option<Time>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) not_before: Option<Time>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) restarts: Vec<Time>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) restarted: u64,
    pub(crate) made_at: Time,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) by_update: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ahead: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) succeeded: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) log_driver: Option<Driver>,
}
