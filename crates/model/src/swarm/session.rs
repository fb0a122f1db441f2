//! What a node and the leader of the managers say to each other. JSON; members are only added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    AssignmentChanges, Assignments, Availability, NetUpdate, NewRoot, NodeDescription, Report, Role, is_default,
};

/// A manager, and where it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ManagerAddr {
    /// Id of the node.
    pub id: String,
    /// `host:port` of its node link.
    pub addr: String,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToLeader {
    /// The first of a session.
    Hello(Box<Hello>),
    /// Also says that the node lives.
    Reports(Vec<Report>),
    Describe(Box<NodeDescription>),
    /// Every [`Welcome::heartbeat_ms`], if there is nothing else to say.
    Alive,
    /// The store of this node that was made a manager is open.
    Ready,
    /// What it was told last does not fit what it was told before: it wants all of it.
    Whole,
    /// The version of each network, by id, that kernel and DNS server of the node have reached.
    NetApplied(BTreeMap<String, u64>),
    /// What it was told last of networks does not follow what it was told before: it wants all of them whole.
    NetWhole,
    /// The node goes away for good.
    Leave,
}

/// Who opens a session.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// `host:port` of its node link.
    pub addr: String,
    pub description: NodeDescription,
    /// The join token that it came with, until the swarm knows it.
    #[serde(skip_serializing_if = "is_default")]
    pub token: String,
    /// What it shall be to begin with.
    pub availability: Availability,
    /// Whether its store is open.
    pub ready: bool,
    /// Why its engine counts as dead or hanging. Empty while it answers.
    #[serde(skip_serializing_if = "is_default")]
    pub engine_error: String,
}

impl std::fmt::Debug for Hello {
    /// The token stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// What the leader says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToNode {
    /// The answer to [`ToLeader::Hello`], and again when it changes.
    Welcome(Welcome),
    /// All of it: the first in a session, and whenever the node asks for it.
    Assignments(Box<Assignments>),
    /// What changed since.
    Changes(Box<AssignmentChanges>),
    /// What is new in the networks of the node.
    Networks(Box<NetNews>),
    /// The answer to whatever was said: the node was heard.
    Heard,
    /// The node that was asked does not lead.
    Elsewhere(Option<ManagerAddr>),
    /// The swarm has ended: its last manager left.
    Dissolved,
    /// This node is none of the swarm's, and why.
    Refused(String),
}

/// What is new in the networks of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetNews {
    /// Networks that are not in `updates` are not the node's (any more).
    #[serde(skip_serializing_if = "is_default")]
    pub whole: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub updates: Vec<NetUpdate>,
    /// Ids of networks that the node has no tasks in any more.
    #[serde(skip_serializing_if = "is_default")]
    pub gone: Vec<String>,
}

/// What a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome {
    /// Id of the swarm.
    pub cluster: String,
    /// What the node is to be.
    pub role: Role,
    pub managers: Vec<ManagerAddr>,
    /// How often the leader wants to hear of the node, in milliseconds.
    pub heartbeat_ms: u64,
    /// Unless the leader is heard again within so many milliseconds, others may be told to do what this node does.
    pub lease_ms: u64,
    /// The root that this node is to get its certificate from; nothing while none is on its way.
    #[serde(skip_serializing_if = "is_default")]
    pub new_root: Option<NewRoot>,
    /// PEM. While no other one is on its way, the only root to be trusted.
    #[serde(skip_serializing_if = "is_default")]
    pub trust_root: String,
    /// How long new certificates are valid, in seconds; 0: as they are.
    #[serde(skip_serializing_if = "is_default")]
    pub cert_expiry_s: u64,
    /// For stores of managers that are opened from now on: commands between two snapshots, and commands that are kept for managers
    /// that are slow. 0: as many as without a word.
    #[serde(skip_serializing_if = "is_default")]
    pub snapshot_interval: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub keep_entries: u64,
}
