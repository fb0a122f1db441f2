//! The swarm itself: its settings, its tokens, and how it is entered.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Driver, Meta, Rest, TlsInfo, is_default, keeps_rest};

/// Settings of the swarm that `docker swarm update` changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ClusterSpec {
    /// `default`; swarm mode knows no other.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    pub labels: Option<BTreeMap<String, String>>,
    pub orchestration: Orchestration,
    pub raft: Raft,
    pub dispatcher: Dispatcher,
    #[serde(rename = "CAConfig")]
    pub ca_config: CaConfig,
    pub task_defaults: TaskDefaults,
    pub encryption_config: Encryption,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Orchestration {
    /// Ended tasks that are kept for each slot; negative: all of them.
    #[serde(skip_serializing_if = "is_default")]
    pub task_history_retention_limit: Option<i64>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Raft {
    /// Log entries between two snapshots.
    #[serde(skip_serializing_if = "is_default")]
    pub snapshot_interval: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub keep_old_snapshots: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub log_entries_for_slow_followers: u64,
    pub election_tick: i64,
    pub heartbeat_tick: i64,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Dispatcher {
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub heartbeat_period: i64,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Settings of the CA. The signing certificate and key are only ever sent to the swarm.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct CaConfig {
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub node_cert_expiry: i64,
    #[serde(rename = "ExternalCAs", skip_serializing_if = "is_default")]
    pub external_cas: Vec<ExternalCa>,
    #[serde(rename = "SigningCACert", skip_serializing_if = "is_default")]
    pub signing_ca_cert: String,
    #[serde(rename = "SigningCAKey", skip_serializing_if = "is_default")]
    pub signing_ca_key: String,
    /// A higher number makes a new root.
    #[serde(skip_serializing_if = "is_default")]
    pub force_rotate: u64,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

impl fmt::Debug for CaConfig {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaConfig")
            .field("node_cert_expiry", &self.node_cert_expiry)
            .field("external_cas", &self.external_cas)
            .field("force_rotate", &self.force_rotate)
            .finish_non_exhaustive()
    }
}

/// A CA elsewhere that signs for this swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ExternalCa {
    /// `cfssl`.
    pub protocol: String,
    #[serde(rename = "URL")]
    pub url: String,
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
    #[serde(rename = "CACert")]
    pub ca_cert: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct TaskDefaults {
    #[serde(skip_serializing_if = "is_default")]
    pub log_driver: Option<Driver>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Encryption {
    pub auto_lock_managers: bool,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// `GET /swarm`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Cluster {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: ClusterSpec,
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    pub root_rotation_in_progress: bool,
    pub default_addr_pool: Option<Vec<String>>,
    pub subnet_size: u32,
    pub data_path_port: u32,
    /// The join tokens; `GET /info` leaves them out.
    #[serde(skip_serializing_if = "is_default")]
    pub join_tokens: Option<JoinTokens>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// The tokens with which nodes join, one for each role.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct JoinTokens {
    pub worker: String,
    pub manager: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

impl fmt::Debug for JoinTokens {
    /// Tokens stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTokens").finish_non_exhaustive()
    }
}

/// Body of `POST /swarm/init`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InitRequest {
    pub listen_addr: String,
    pub advertise_addr: String,
    pub data_path_addr: String,
    pub data_path_port: u32,
    pub force_new_cluster: bool,
    pub spec: ClusterSpec,
    pub auto_lock_managers: bool,
    /// `active`, `pause`, `drain`; empty is `active`.
    pub availability: String,
    pub default_addr_pool: Option<Vec<String>>,
    pub subnet_size: u32,
    /// All overlay networks are to be encrypted. A member of herder's own.
    #[serde(skip_serializing_if = "is_default")]
    pub encrypt_networks: bool,
}

/// Body of `POST /swarm/join`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinRequest {
    pub listen_addr: String,
    pub advertise_addr: String,
    pub data_path_addr: String,
    pub remote_addrs: Option<Vec<String>>,
    pub join_token: String,
    /// `active`, `pause`, `drain`; empty is `active`.
    pub availability: String,
}

impl fmt::Debug for JoinRequest {
    /// The token stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest").field("remote_addrs", &self.remote_addrs).finish_non_exhaustive()
    }
}

/// Body of `POST /swarm/unlock`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UnlockRequest {
    pub unlock_key: String,
}

impl fmt::Debug for UnlockRequest {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnlockRequest").finish_non_exhaustive()
    }
}

keeps_rest!(ClusterSpec, Orchestration, Raft, Dispatcher, CaConfig, ExternalCa, TaskDefaults, Encryption, JoinTokens,);
