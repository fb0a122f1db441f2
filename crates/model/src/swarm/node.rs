//! A node of the swarm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Meta, Reservations, Rest, TlsInfo, Underlay, is_default, keeps_rest, words};

words! {
    /// What a node may do.
    #[derive(Default)]
    pub enum Role {
        /// Runs tasks.
        #[default]
        Worker = "worker",
        /// Runs tasks, and is one of those that agree on what is declared.
        Manager = "manager",
        ;
        /// Of a later release.
        Other
    }
}

words! {
    /// Whether a node takes tasks.
    #[derive(Default)]
    pub enum Availability {
        #[default]
        Active = "active",
        /// Keeps those that run, takes no new ones.
        Pause = "pause",
        /// Gives all of them away.
        Drain = "drain",
        ;
        /// Of a later release.
        Other
    }
}

/// What a person says about a node.
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

/// What a node says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct NodeDescription {
    pub hostname: String,
    pub platform: Platform,
    pub resources: Reservations,
    pub engine: Engine,
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    /// Not part of Docker's API: only managers see it.
    #[serde(skip_serializing_if = "is_default")]
    pub underlay: Underlay,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Of a node (`x86_64`, `linux`) or of an image (`amd64`, `linux`).
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
    /// Whether a node is heard of.
    #[derive(Default)]
    pub enum SwarmNodeState {
        #[default]
        Unknown = "unknown",
        Down = "down",
        Ready = "ready",
        Disconnected = "disconnected",
        ;
        /// Of a later release.
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
    /// Whether the leader hears of a manager.
    #[derive(Default)]
    pub enum Reachability {
        #[default]
        Unknown = "unknown",
        Unreachable = "unreachable",
        Reachable = "reachable",
        ;
        /// Of a later release.
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
    /// Of managers only.
    #[serde(skip_serializing_if = "is_default")]
    pub manager_status: Option<ManagerStatus>,
    #[serde(flatten)]
    pub rest: Rest,
}

keeps_rest!(NodeSpec, NodeDescription, Platform, Engine, Plugin, NodeStatus, ManagerStatus);
