//! Secrets and configs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Driver, Meta, Rest, is_default, keeps_rest};

/// A secret as it is declared.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct SecretSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    pub labels: Option<BTreeMap<String, String>>,
    /// Base64. Never given back to a client.
    #[serde(skip_serializing_if = "is_default")]
    pub data: String,
    /// Driver that stores the secret, if the store does not.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<Driver>,
    #[serde(skip_serializing_if = "is_default")]
    pub templating: Option<Driver>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

impl fmt::Debug for SecretSpec {
    /// The data stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSpec").field("name", &self.name).field("labels", &self.labels).finish_non_exhaustive()
    }
}

/// A config as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ConfigSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    pub labels: Option<BTreeMap<String, String>>,
    /// Base64.
    #[serde(skip_serializing_if = "is_default")]
    pub data: String,
    #[serde(skip_serializing_if = "is_default")]
    pub templating: Option<Driver>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// `GET /secrets/{id}`; without its data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Secret {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: SecretSpec,
    #[serde(flatten)]
    pub rest: Rest,
}

/// `GET /configs/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: ConfigSpec,
    #[serde(flatten)]
    pub rest: Rest,
}

keeps_rest!(SecretSpec, ConfigSpec);
