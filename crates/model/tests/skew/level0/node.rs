//! Frozen: see the module above.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Meta, Reservations, TlsInfo, is_default};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    #[default]
    Worker,
    Manager,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Availability {
    #[default]
    Active,
    Pause,
    Drain,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NodeSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) role: Role,
    pub(crate) availability: Availability,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NodeDescription {
    pub(crate) hostname: String,
    pub(crate) platform: Platform,
    pub(crate) resources: Reservations,
    pub(crate) engine: Engine,
    #[serde(rename = "TLSInfo")]
    pub(crate) tls_info: TlsInfo,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Platform {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) architecture: String,
    #[serde(rename = "OS", skip_serializing_if = "is_default")]
    pub(crate) os: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Engine {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) engine_version: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) plugins: Vec<Plugin>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Plugin {
    #[serde(rename = "Type", skip_serializing_if = "is_default")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SwarmNodeState {
    #[default]
    Unknown,
    Down,
    Ready,
    Disconnected,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NodeStatus {
    pub(crate) state: SwarmNodeState,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) message: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) addr: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reachability {
    #[default]
    Unknown,
    Unreachable,
    Reachable,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ManagerStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) leader: bool,
    pub(crate) reachability: Reachability,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) addr: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SwarmNode {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    pub(crate) spec: NodeSpec,
    pub(crate) description: NodeDescription,
    pub(crate) status: NodeStatus,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) manager_status: Option<ManagerStatus>,
}
