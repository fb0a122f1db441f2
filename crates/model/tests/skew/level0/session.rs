//! Frozen: see the module above.

use serde::{Deserialize, Serialize};

use super::{AssignmentChanges, Assignments, Availability, NewRoot, NodeDescription, Report, Role, is_default};

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ManagerAddr {
    pub(crate) id: String,
    pub(crate) addr: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ToLeader {
    Hello(Box<Hello>),
    Reports(Vec<Report>),
    Describe(Box<NodeDescription>),
    Alive,
    Ready,
    Whole,
    Leave,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hello {
    pub(crate) addr: String,
    pub(crate) description: NodeDescription,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) token: String,
    pub(crate) availability: Availability,
    pub(crate) ready: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ToNode {
    Welcome(Welcome),
    Assignments(Box<Assignments>),
    Changes(Box<AssignmentChanges>),
    Heard,
    Elsewhere(Option<ManagerAddr>),
    Dissolved,
    Refused(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Welcome {
    pub(crate) cluster: String,
    pub(crate) role: Role,
    pub(crate) managers: Vec<ManagerAddr>,
    pub(crate) heartbeat_ms: u64,
    pub(crate) lease_ms: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) new_root: Option<NewRoot>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) trust_root: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) cert_expiry_s: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) snapshot_interval: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) keep_entries: u64,
}
