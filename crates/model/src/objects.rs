//! Images, networks and volumes as one engine lists them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// An entry of `GET /images/json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// `sha256:…`.
    pub id: String,
    pub parent_id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub created: i64,
    pub size: i64,
    /// The engine's own entry, unchanged.
    pub summary: Arc<serde_json::Value>,
}

/// An entry of `GET /networks`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    pub id: String,
    pub name: String,
    pub driver: String,
    /// `local`, `global` or `swarm`.
    pub scope: String,
    pub labels: BTreeMap<String, String>,
    /// The engine's own entry, unchanged.
    pub summary: Arc<serde_json::Value>,
}

/// An entry of `GET /volumes`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub name: String,
    pub driver: String,
    pub labels: BTreeMap<String, String>,
    /// The engine's own entry, unchanged.
    pub summary: Arc<serde_json::Value>,
}
