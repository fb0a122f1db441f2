//! Frozen: see the module above.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Driver, Meta, TlsInfo, is_default};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ClusterSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) orchestration: Orchestration,
    pub(crate) raft: Raft,
    pub(crate) dispatcher: Dispatcher,
    #[serde(rename = "CAConfig")]
    pub(crate) ca_config: CaConfig,
    pub(crate) task_defaults: TaskDefaults,
    pub(crate) encryption_config: Encryption,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Orchestration {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) task_history_retention_limit: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Raft {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) snapshot_interval: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) keep_old_snapshots: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) log_entries_for_slow_followers: u64,
    pub(crate) election_tick: i64,
    pub(crate) heartbeat_tick: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Dispatcher {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) heartbeat_period: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CaConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) node_cert_expiry: i64,
    #[serde(rename = "ExternalCAs", skip_serializing_if = "is_default")]
    pub(crate) external_cas: Vec<ExternalCa>,
    #[serde(rename = "SigningCACert", skip_serializing_if = "is_default")]
    pub(crate) signing_ca_cert: String,
    #[serde(rename = "SigningCAKey", skip_serializing_if = "is_default")]
    pub(crate) signing_ca_key: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) force_rotate: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ExternalCa {
    pub(crate) protocol: String,
    #[serde(rename = "URL")]
    pub(crate) url: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(rename = "CACert")]
    pub(crate) ca_cert: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TaskDefaults {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) log_driver: Option<Driver>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Encryption {
    pub(crate) auto_lock_managers: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Cluster {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    pub(crate) spec: ClusterSpec,
    #[serde(rename = "TLSInfo")]
    pub(crate) tls_info: TlsInfo,
    pub(crate) root_rotation_in_progress: bool,
    pub(crate) default_addr_pool: Option<Vec<String>>,
    pub(crate) subnet_size: u32,
    pub(crate) data_path_port: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) join_tokens: Option<JoinTokens>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct JoinTokens {
    pub(crate) worker: String,
    pub(crate) manager: String,
}
