//! Frozen: see the module above.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Meta, NetworkAttachmentConfig, TaskSpec, Version, is_default};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ServiceSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) task_template: TaskSpec,
    pub(crate) mode: ServiceMode,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) update_config: Option<UpdateConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) rollback_config: Option<UpdateConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) networks: Vec<NetworkAttachmentConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) endpoint_spec: Option<EndpointSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ServiceMode {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) replicated: Option<Replicated>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) global: Option<Empty>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) replicated_job: Option<ReplicatedJob>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) global_job: Option<Empty>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Empty {}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Replicated {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) replicas: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ReplicatedJob {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) max_concurrent: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) total_completions: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct UpdateConfig {
    pub(crate) parallelism: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) delay: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) failure_action: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) monitor: i64,
    pub(crate) max_failure_ratio: Ratio,
    pub(crate) order: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub(crate) struct Ratio(pub(crate) f64);

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

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct EndpointSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) mode: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ports: Vec<PortConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PortConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) protocol: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) target_port: u16,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) published_port: u16,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) publish_mode: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Service {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    pub(crate) spec: ServiceSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) previous_spec: Option<ServiceSpec>,
    pub(crate) endpoint: Endpoint,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) update_status: Option<UpdateStatus>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) service_status: Option<ServiceStatus>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) job_status: Option<JobStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Endpoint {
    pub(crate) spec: EndpointSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ports: Vec<PortConfig>,
    #[serde(rename = "VirtualIPs", skip_serializing_if = "is_default")]
    pub(crate) virtual_ips: Vec<VirtualIp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct VirtualIp {
    #[serde(rename = "NetworkID", skip_serializing_if = "is_default")]
    pub(crate) network_id: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) addr: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct UpdateStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) state: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) started_at: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) completed_at: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ServiceStatus {
    pub(crate) running_tasks: u64,
    pub(crate) desired_tasks: u64,
    pub(crate) completed_tasks: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct JobStatus {
    pub(crate) job_iteration: Version,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) last_execution: String,
}
