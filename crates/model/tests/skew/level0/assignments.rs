//! Frozen: see the module above.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Config, Driver, Kind, Secret, TaskRecord, TaskStatus, is_default};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Assignments {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) sequence: u64,
    pub(crate) tasks: Vec<Arc<TaskRecord>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) secrets: Vec<Arc<Secret>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) configs: Vec<Arc<Config>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) services: BTreeMap<String, ServiceFacts>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) log_driver: Option<Driver>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AssignmentChanges {
    pub(crate) applies_to: u64,
    pub(crate) results_in: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) tasks: Vec<Arc<TaskRecord>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) secrets: Vec<Arc<Secret>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) configs: Vec<Arc<Config>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) services: BTreeMap<String, ServiceFacts>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) removed: Vec<(Kind, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceFacts {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) registry_auth: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    pub(crate) task_id: String,
    pub(crate) status: TaskStatus,
}
