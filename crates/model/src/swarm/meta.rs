//! The members that all declared objects have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Rest, is_default, keeps_rest};

/// Number of the store's write that last changed an object. An update names the number that its author has seen, and is
/// refused if the object has a later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    #[serde(skip_serializing_if = "is_default")]
    pub index: u64,
}

/// Version and times of writing of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Meta {
    pub version: Version,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
}

/// A driver of logs, secrets, volumes or templates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct Driver {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// The CA that a node or the swarm trusts. Both byte fields in base64, as Go writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct TlsInfo {
    /// PEM.
    #[serde(skip_serializing_if = "is_default")]
    pub trust_root: String,
    #[serde(skip_serializing_if = "is_default")]
    pub cert_issuer_subject: String,
    #[serde(skip_serializing_if = "is_default")]
    pub cert_issuer_public_key: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

keeps_rest!(Driver, TlsInfo);
