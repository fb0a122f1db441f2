//! Tasks: one container each, on one node, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ContainerSpec, Driver, Meta, NetworkAttachmentSpec, Platform, PortConfig, Rest, Version, is_default, keeps_rest,
    words,
};

/// Specification of the tasks of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct TaskSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub container_spec: Option<ContainerSpec>,
    /// Plugin specification; stored so that it can be refused by name.
    #[serde(skip_serializing_if = "is_default")]
    pub plugin_spec: Option<Value>,
    /// Set for tasks that stand for a plain container on an attachable network.
    #[serde(skip_serializing_if = "is_default")]
    pub network_attachment_spec: Option<NetworkAttachmentSpec>,
    #[serde(skip_serializing_if = "is_default")]
    pub resources: Option<ResourceRequirements>,
    #[serde(skip_serializing_if = "is_default")]
    pub restart_policy: Option<RestartPolicy>,
    #[serde(skip_serializing_if = "is_default")]
    pub placement: Option<Placement>,
    #[serde(skip_serializing_if = "is_default")]
    pub networks: Vec<NetworkAttachmentConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub log_driver: Option<Driver>,
    /// Another number replaces all tasks.
    pub force_update: u64,
    /// `container`; empty is the same.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ResourceRequirements {
    /// Limits that the kernel enforces on the container.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Option<Limits>,
    /// Free resources that a node must have for the task. They do not limit the container.
    #[serde(skip_serializing_if = "is_default")]
    pub reservations: Option<Reservations>,
    /// Bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub swap_bytes: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub memory_swappiness: Option<i64>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Limits {
    /// Billionths of a processor.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_default")]
    pub nano_cpus: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub memory_bytes: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub pids: i64,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Resources of a node, or those that a task takes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Reservations {
    /// Billionths of a processor.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_default")]
    pub nano_cpus: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub memory_bytes: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub generic_resources: Vec<GenericResource>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// A resource of which a node has several, each with a name or only a number of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct GenericResource {
    #[serde(skip_serializing_if = "is_default")]
    pub named_resource_spec: Option<NamedResource>,
    #[serde(skip_serializing_if = "is_default")]
    pub discrete_resource_spec: Option<DiscreteResource>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct NamedResource {
    #[serde(skip_serializing_if = "is_default")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub value: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct DiscreteResource {
    #[serde(skip_serializing_if = "is_default")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub value: i64,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Rules for restarts after the end of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct RestartPolicy {
    /// `none`, `on-failure`, `any`; empty is `any`.
    #[serde(skip_serializing_if = "is_default")]
    pub condition: String,
    /// Nanoseconds; 5 s by default.
    #[serde(skip_serializing_if = "is_default")]
    pub delay: Option<i64>,
    /// 0: no end.
    #[serde(skip_serializing_if = "is_default")]
    pub max_attempts: Option<u64>,
    /// Nanoseconds within which attempts count; 0: always.
    #[serde(skip_serializing_if = "is_default")]
    pub window: Option<i64>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Placement {
    #[serde(skip_serializing_if = "is_default")]
    pub constraints: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub preferences: Vec<Preference>,
    /// Maximum on one node; 0 for no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub max_replicas: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub platforms: Vec<Platform>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Preference {
    #[serde(skip_serializing_if = "is_default")]
    pub spread: Option<Spread>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Spread {
    /// `node.labels.zone`, `engine.labels.zone`.
    pub spread_descriptor: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct NetworkAttachmentConfig {
    /// Id or name of the network.
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

words! {
    /// State of a task, present or desired. A task only ever goes forward: the order is that of the variants.
    #[derive(Default)]
    pub enum TaskState {
        /// Just made.
        #[default]
        New = "new",
        /// State of old swarms; never set.
        Allocated = "allocated",
        /// Waits for a node.
        Pending = "pending",
        Assigned = "assigned",
        /// The node knows of it.
        Accepted = "accepted",
        /// Its image and volumes are brought.
        Preparing = "preparing",
        /// Made, and waits for its turn.
        Ready = "ready",
        /// Started, and not yet healthy.
        Starting = "starting",
        Running = "running",
        /// Ended by itself, with 0.
        Complete = "complete",
        /// The task ended because it was stopped.
        Shutdown = "shutdown",
        /// Ended otherwise.
        Failed = "failed",
        /// Could not be started.
        Rejected = "rejected",
        /// Only desired: the task shall be gone.
        Remove = "remove",
        /// Its node was away for too long, or is gone.
        Orphaned = "orphaned",
        ;
        /// A value that a later release added.
        Other
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct TaskStatus {
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub timestamp: String,
    pub state: TaskState,
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
    #[serde(skip_serializing_if = "is_default")]
    pub err: String,
    #[serde(skip_serializing_if = "is_default")]
    pub container_status: Option<ContainerStatus>,
    pub port_status: PortStatus,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    #[serde(rename = "PID")]
    pub pid: i64,
    pub exit_code: i64,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Ports that were published on the node itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct PortStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Vec<PortConfig>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// `GET /tasks/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Task {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    pub labels: Option<BTreeMap<String, String>>,
    /// The same for all tasks of a service that were made at one time.
    pub spec: Arc<TaskSpec>,
    #[serde(rename = "ServiceID", skip_serializing_if = "is_default")]
    pub service_id: String,
    /// Number of the slot, from 1; 0 in a global service.
    #[serde(skip_serializing_if = "is_default")]
    pub slot: u64,
    #[serde(rename = "NodeID", skip_serializing_if = "is_default")]
    pub node_id: String,
    pub status: TaskStatus,
    pub desired_state: TaskState,
    /// Networks with the addresses that the task has there.
    #[serde(skip_serializing_if = "is_default")]
    pub networks_attachments: Vec<Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub generic_resources: Vec<GenericResource>,
    /// Iteration of a job; `None` for other services.
    #[serde(skip_serializing_if = "is_default")]
    pub job_iteration: Option<Version>,
    #[serde(flatten)]
    pub rest: Rest,
}

keeps_rest!(
    TaskSpec,
    ResourceRequirements,
    Limits,
    Reservations,
    GenericResource,
    NamedResource,
    DiscreteResource,
    RestartPolicy,
    Placement,
    Preference,
    Spread,
    NetworkAttachmentConfig,
    TaskStatus,
    ContainerStatus,
    PortStatus,
);
