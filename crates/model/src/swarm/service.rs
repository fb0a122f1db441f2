//! Services.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{Meta, NetworkAttachmentConfig, Rest, TaskSpec, Version, is_default, keeps_rest};

/// A service as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ServiceSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    pub labels: Option<BTreeMap<String, String>>,
    pub task_template: TaskSpec,
    pub mode: ServiceMode,
    #[serde(skip_serializing_if = "is_default")]
    pub update_config: Option<UpdateConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub rollback_config: Option<UpdateConfig>,
    /// Networks in the place where old clients put them; newer ones put them into the task.
    #[serde(skip_serializing_if = "is_default")]
    pub networks: Vec<NetworkAttachmentConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub endpoint_spec: Option<EndpointSpec>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Number of tasks of a service, by mode. One of the four; none of them means one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ServiceMode {
    #[serde(skip_serializing_if = "is_default")]
    pub replicated: Option<Replicated>,
    #[serde(skip_serializing_if = "is_default")]
    pub global: Option<Empty>,
    #[serde(skip_serializing_if = "is_default")]
    pub replicated_job: Option<ReplicatedJob>,
    #[serde(skip_serializing_if = "is_default")]
    pub global_job: Option<Empty>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// `{}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct Empty {
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Replicated {
    /// 1 by default.
    #[serde(skip_serializing_if = "is_default")]
    pub replicas: Option<u64>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ReplicatedJob {
    /// 1 by default.
    #[serde(skip_serializing_if = "is_default")]
    pub max_concurrent: Option<u64>,
    /// Number of tasks that must complete; by default `max_concurrent`.
    #[serde(skip_serializing_if = "is_default")]
    pub total_completions: Option<u64>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Settings of an update or rollback.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct UpdateConfig {
    /// Slots at the same time; 0: all of them.
    pub parallelism: u64,
    /// Nanoseconds between two slots.
    #[serde(skip_serializing_if = "is_default")]
    pub delay: i64,
    /// `pause`, `continue`, `rollback`; empty is `pause`.
    #[serde(skip_serializing_if = "is_default")]
    pub failure_action: String,
    /// Nanoseconds for which a new task is watched; 0 is 5 s.
    #[serde(skip_serializing_if = "is_default")]
    pub monitor: i64,
    /// Share of the slots that may fail.
    pub max_failure_ratio: Ratio,
    /// `stop-first`, `start-first`; empty is `stop-first`.
    pub order: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// A number from 0 to 1 that is written as Go writes it: without a point if it needs none.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Ratio(pub f64);

impl Serialize for Ratio {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 {
            #[expect(clippy::cast_possible_truncation, reason = "a small whole number")]
            return to.serialize_i64(self.0 as i64);
        }
        to.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Ratio, D::Error> {
        f64::deserialize(from).map(Ratio)
    }
}

/// Ways in which a service is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct EndpointSpec {
    /// `vip`, `dnsrr`; empty is `vip`.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: String,
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Vec<PortConfig>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct PortConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// `tcp`, `udp`, `sctp`; empty is `tcp`.
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: String,
    #[serde(skip_serializing_if = "is_default")]
    pub target_port: u16,
    /// 0: any.
    #[serde(skip_serializing_if = "is_default")]
    pub published_port: u16,
    /// `ingress`, `host`; empty is `ingress`.
    #[serde(skip_serializing_if = "is_default")]
    pub publish_mode: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

impl PortConfig {
    /// Published on every node, not only on those of the tasks.
    pub fn is_ingress(&self) -> bool {
        matches!(self.publish_mode.as_str(), "" | "ingress")
    }

    pub fn protocol_name(&self) -> &str {
        if self.protocol.is_empty() { "tcp" } else { &self.protocol }
    }
}

/// `GET /services/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Service {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: ServiceSpec,
    /// The specification before the last update, for a rollback.
    #[serde(skip_serializing_if = "is_default")]
    pub previous_spec: Option<ServiceSpec>,
    pub endpoint: Endpoint,
    #[serde(skip_serializing_if = "is_default")]
    pub update_status: Option<UpdateStatus>,
    /// Only when it is asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub service_status: Option<ServiceStatus>,
    /// Status of a job; `None` for other services.
    #[serde(skip_serializing_if = "is_default")]
    pub job_status: Option<JobStatus>,
    #[serde(flatten)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Endpoint {
    pub spec: EndpointSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Vec<PortConfig>,
    #[serde(rename = "VirtualIPs", skip_serializing_if = "is_default")]
    pub virtual_ips: Vec<VirtualIp>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct VirtualIp {
    #[serde(rename = "NetworkID", skip_serializing_if = "is_default")]
    pub network_id: String,
    /// The address, with the length of its network's prefix.
    #[serde(skip_serializing_if = "is_default")]
    pub addr: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

impl VirtualIp {
    /// The address alone.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.addr.split('/').next()?.parse().ok()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct UpdateStatus {
    /// `updating`, `paused`, `completed`, `rollback_started`, `rollback_paused`, `rollback_completed`.
    #[serde(skip_serializing_if = "is_default")]
    pub state: String,
    /// Time at which the job was last started (RFC 3339).
    #[serde(skip_serializing_if = "is_default")]
    pub started_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub completed_at: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ServiceStatus {
    pub running_tasks: u64,
    pub desired_tasks: u64,
    pub completed_tasks: u64,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct JobStatus {
    pub job_iteration: Version,
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub last_execution: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

keeps_rest!(
    ServiceSpec,
    ServiceMode,
    Empty,
    Replicated,
    ReplicatedJob,
    UpdateConfig,
    EndpointSpec,
    PortConfig,
    Endpoint,
    VirtualIp,
    UpdateStatus,
    ServiceStatus,
    JobStatus,
);
