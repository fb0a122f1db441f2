//! The container of a task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Rest, is_default, keeps_rest};

/// The container of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ContainerSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub image: String,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Instead of the image's entrypoint.
    #[serde(skip_serializing_if = "is_default")]
    pub command: Vec<String>,
    /// Instead of the image's command.
    #[serde(skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: String,
    #[serde(skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub dir: String,
    #[serde(skip_serializing_if = "is_default")]
    pub user: String,
    #[serde(skip_serializing_if = "is_default")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub privileges: Option<Privileges>,
    #[serde(skip_serializing_if = "is_default")]
    pub init: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: String,
    #[serde(rename = "TTY", skip_serializing_if = "is_default")]
    pub tty: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub open_stdin: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// Nanoseconds between the signal and the kill; 10 s by default.
    #[serde(skip_serializing_if = "is_default")]
    pub stop_grace_period: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub healthcheck: Option<Healthcheck>,
    /// `address name …`, as in hosts(5).
    #[serde(skip_serializing_if = "is_default")]
    pub hosts: Vec<String>,
    #[serde(rename = "DNSConfig", skip_serializing_if = "is_default")]
    pub dns_config: Option<DnsConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<SecretRef>,
    #[serde(skip_serializing_if = "is_default")]
    pub configs: Vec<ConfigRef>,
    #[serde(skip_serializing_if = "is_default")]
    pub isolation: String,
    #[serde(skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub capability_add: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub capability_drop: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub ulimits: Vec<Ulimit>,
    #[serde(skip_serializing_if = "is_default")]
    pub oom_score_adj: i64,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Privileges of the container, and their limits. Members that are not set are `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Privileges {
    pub credential_spec: Option<CredentialSpec>,
    #[serde(rename = "SELinuxContext")]
    pub selinux_context: Option<SeLinuxContext>,
    #[serde(skip_serializing_if = "is_default")]
    pub seccomp: Option<Seccomp>,
    #[serde(skip_serializing_if = "is_default")]
    pub app_armor: Option<AppArmor>,
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_privileges: Option<bool>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct CredentialSpec {
    pub config: String,
    pub file: String,
    pub registry: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct SeLinuxContext {
    pub disable: bool,
    pub user: String,
    pub role: String,
    #[serde(rename = "Type")]
    pub kind: String,
    pub level: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Seccomp {
    /// `default`, `unconfined`, `custom`.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: String,
    /// Base64.
    #[serde(skip_serializing_if = "is_default")]
    pub profile: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct AppArmor {
    /// `default`, `disabled`.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// A mount, as `docker run --mount` knows it. Options of its kind are passed to the engine as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`.
    #[serde(rename = "Type", skip_serializing_if = "is_default")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub consistency: String,
    #[serde(skip_serializing_if = "is_default")]
    pub bind_options: Option<Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub volume_options: Option<Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub tmpfs_options: Option<Value>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Durations are nanoseconds; 0 is what the image says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Healthcheck {
    #[serde(skip_serializing_if = "is_default")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub retries: i64,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct DnsConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub nameservers: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub search: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub options: Vec<String>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// A secret in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct SecretRef {
    pub file: Option<FileTarget>,
    #[serde(rename = "SecretID")]
    pub secret_id: String,
    pub secret_name: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// A config in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ConfigRef {
    #[serde(skip_serializing_if = "is_default")]
    pub file: Option<FileTarget>,
    /// Set if this is a credential spec for the runtime and not a file.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: Option<Value>,
    #[serde(rename = "ConfigID")]
    pub config_id: String,
    pub config_name: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// A file in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct FileTarget {
    /// A path; of secrets, without a slash it is below `/run/secrets`.
    pub name: String,
    /// A number, as text.
    #[serde(rename = "UID")]
    pub uid: String,
    /// A number, as text.
    #[serde(rename = "GID")]
    pub gid: String,
    pub mode: u32,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Ulimit {
    pub name: String,
    pub hard: i64,
    pub soft: i64,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

keeps_rest!(
    ContainerSpec,
    Privileges,
    CredentialSpec,
    SeLinuxContext,
    Seccomp,
    AppArmor,
    Mount,
    Healthcheck,
    DnsConfig,
    SecretRef,
    ConfigRef,
    FileTarget,
    Ulimit,
);
