//! Frozen: see the module above.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::is_default;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ContainerSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) image: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) command: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) args: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) hostname: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) env: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) dir: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) user: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) groups: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) privileges: Option<Privileges>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) init: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) stop_signal: String,
    #[serde(rename = "TTY", skip_serializing_if = "is_default")]
    pub(crate) tty: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) open_stdin: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) read_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) stop_grace_period: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) hosts: Vec<String>,
    #[serde(rename = "DNSConfig", skip_serializing_if = "is_default")]
    pub(crate) dns_config: Option<DnsConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) secrets: Vec<SecretRef>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) configs: Vec<ConfigRef>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) isolation: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) sysctls: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) capability_add: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) capability_drop: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ulimits: Vec<Ulimit>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) oom_score_adj: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Privileges {
    pub(crate) credential_spec: Option<CredentialSpec>,
    #[serde(rename = "SELinuxContext")]
    pub(crate) selinux_context: Option<SeLinuxContext>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) seccomp: Option<Seccomp>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) app_armor: Option<AppArmor>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) no_new_privileges: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CredentialSpec {
    pub(crate) config: String,
    pub(crate) file: String,
    pub(crate) registry: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SeLinuxContext {
    pub(crate) disable: bool,
    pub(crate) user: String,
    pub(crate) role: String,
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    pub(crate) level: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Seccomp {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) mode: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) profile: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct AppArmor {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) mode: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Mount {
    #[serde(rename = "Type", skip_serializing_if = "is_default")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) source: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) read_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) consistency: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) bind_options: Option<Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) volume_options: Option<Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) tmpfs_options: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Healthcheck {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) test: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) timeout: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) start_period: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) start_interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) retries: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DnsConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) nameservers: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) search: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) options: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SecretRef {
    pub(crate) file: Option<FileTarget>,
    #[serde(rename = "SecretID")]
    pub(crate) secret_id: String,
    pub(crate) secret_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ConfigRef {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) file: Option<FileTarget>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) runtime: Option<Value>,
    #[serde(rename = "ConfigID")]
    pub(crate) config_id: String,
    pub(crate) config_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct FileTarget {
    pub(crate) name: String,
    #[serde(rename = "UID")]
    pub(crate) uid: String,
    #[serde(rename = "GID")]
    pub(crate) gid: String,
    pub(crate) mode: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Ulimit {
    pub(crate) name: String,
    pub(crate) hard: i64,
    pub(crate) soft: i64,
}
