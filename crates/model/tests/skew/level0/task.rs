//! Frozen: see the module above.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ContainerSpec, Driver, Meta, Platform, PortConfig, Version, is_default};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TaskSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) container_spec: Option<ContainerSpec>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) plugin_spec: Option<Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) network_attachment_spec: Option<Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) resources: Option<ResourceRequirements>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) restart_policy: Option<RestartPolicy>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) placement: Option<Placement>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) networks: Vec<NetworkAttachmentConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) log_driver: Option<Driver>,
    pub(crate) force_update: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) runtime: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ResourceRequirements {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) limits: Option<Limits>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) reservations: Option<Reservations>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) swap_bytes: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) memory_swappiness: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Limits {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_default")]
    pub(crate) nano_cpus: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) memory_bytes: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) pids: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Reservations {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_default")]
    pub(crate) nano_cpus: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) memory_bytes: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) generic_resources: Vec<GenericResource>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct GenericResource {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) named_resource_spec: Option<NamedResource>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) discrete_resource_spec: Option<DiscreteResource>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NamedResource {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DiscreteResource {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) value: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RestartPolicy {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) condition: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) delay: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) max_attempts: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) window: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Placement {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) constraints: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) preferences: Vec<Preference>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) max_replicas: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) platforms: Vec<Platform>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Preference {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) spread: Option<Spread>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Spread {
    pub(crate) spread_descriptor: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NetworkAttachmentConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) aliases: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) driver_opts: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TaskState {
    #[default]
    New,
    Allocated,
    Pending,
    Assigned,
    Accepted,
    Preparing,
    Ready,
    Starting,
    Running,
    Complete,
    Shutdown,
    Failed,
    Rejected,
    Remove,
    Orphaned,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TaskStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) timestamp: String,
    pub(crate) state: TaskState,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) message: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) err: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) container_status: Option<ContainerStatus>,
    pub(crate) port_status: PortStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    pub(crate) container_id: String,
    #[serde(rename = "PID")]
    pub(crate) pid: i64,
    pub(crate) exit_code: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PortStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ports: Vec<PortConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Task {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) spec: Arc<TaskSpec>,
    #[serde(rename = "ServiceID", skip_serializing_if = "is_default")]
    pub(crate) service_id: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) slot: u64,
    #[serde(rename = "NodeID", skip_serializing_if = "is_default")]
    pub(crate) node_id: String,
    pub(crate) status: TaskStatus,
    pub(crate) desired_state: TaskState,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) networks_attachments: Vec<Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) generic_resources: Vec<GenericResource>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) job_iteration: Option<Version>,
}
