//! Frozen: see the module above.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_default;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Version {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) index: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Meta {
    pub(crate) version: Version,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Driver {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TlsInfo {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) trust_root: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) cert_issuer_subject: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) cert_issuer_public_key: String,
}
