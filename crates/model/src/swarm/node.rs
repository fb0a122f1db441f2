//! A node of the swarm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Meta, Reservations, Rest, TlsInfo, Underlay, is_default, keeps_rest, words};

words! {
    /// Role of a node.
    #[derive(Default)]
    pub enum Role {
        /// Runs tasks.
        #[default]
        Worker = "worker",
        /// Runs tasks, and is one of those that agree on what is declared.
        Manager = "manager",
        ;
        /// A value that a later release added.
        Other
    }
}

words! {
    /// Availability of a node for tasks.
    #[derive(Default)]
    pub enum Availability {
        #[default]
        Active = "active",
        /// Keeps those that run, takes no new ones.
        Pause = "pause",
        /// Gives all of them away.
        Drain = "drain",
        ;
        /// A value that a later release added.
        Other
    }
}

/// Settings of a node that operators declare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct NodeSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    pub labels: Option<BTreeMap<String, String>>,
    pub role: Role,
    pub availability: Availability,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Description of a node that the node itself reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct NodeDescription {
    pub hostname: String,
    pub platform: Platform,
    pub resources: Reservations,
    pub engine: Engine,
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    /// Place in the physical network. Not part of Docker's API: only managers see it.
    #[serde(skip_serializing_if = "is_default")]
    pub underlay: Underlay,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Platform of a node (`x86_64`, `linux`) or of an image (`amd64`, `linux`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Platform {
    #[serde(skip_serializing_if = "is_default")]
    pub architecture: String,
    #[serde(rename = "OS", skip_serializing_if = "is_default")]
    pub os: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Engine {
    #[serde(skip_serializing_if = "is_default")]
    pub engine_version: String,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub plugins: Vec<Plugin>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Plugin {
    /// `Log`, `Network`, `Volume`.
    #[serde(rename = "Type", skip_serializing_if = "is_default")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

words! {
    /// Liveness of a node, as the leader sees it.
    #[derive(Default)]
    pub enum SwarmNodeState {
        #[default]
        Unknown = "unknown",
        Down = "down",
        Ready = "ready",
        Disconnected = "disconnected",
        ;
        /// A value that a later release added.
        Other
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct NodeStatus {
    pub state: SwarmNodeState,
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
    /// An address without a port.
    #[serde(skip_serializing_if = "is_default")]
    pub addr: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

words! {
    /// Liveness of a manager, as the leader sees it.
    #[derive(Default)]
    pub enum Reachability {
        #[default]
        Unknown = "unknown",
        Unreachable = "unreachable",
        Reachable = "reachable",
        ;
        /// A value that a later release added.
        Other
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ManagerStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub leader: bool,
    pub reachability: Reachability,
    /// `host:port`.
    #[serde(skip_serializing_if = "is_default")]
    pub addr: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// `GET /nodes/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SwarmNode {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: NodeSpec,
    pub description: NodeDescription,
    pub status: NodeStatus,
    /// Status as a manager; `None` on workers.
    #[serde(skip_serializing_if = "is_default")]
    pub manager_status: Option<ManagerStatus>,
    #[serde(flatten)]
    pub rest: Rest,
}

keeps_rest!(NodeSpec, NodeDescription, Platform, Engine, Plugin, NodeStatus, ManagerStatus);
