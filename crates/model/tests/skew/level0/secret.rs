//! Frozen: see the module above.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Driver, Meta, is_default};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SecretSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) data: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) driver: Option<Driver>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) templating: Option<Driver>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ConfigSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) data: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) templating: Option<Driver>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Secret {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    pub(crate) spec: SecretSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Config {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    pub(crate) spec: ConfigSpec,
}
