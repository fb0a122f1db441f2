//! The types of the log: who agrees, on what.

use std::fmt;
use std::sync::Arc;

use herder_model::swarm::{Command, Conflict};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::machine::Machine;

openraft::declare_raft_types!(
    /// Several leaders may be elected in one term, the last one counts: votes are never split.
    pub(crate) Types:
        D = Proposal,
        R = Outcome,
        NodeId = Member,
        Node = Address,
        LeaderId = openraft::impls::leader_id_adv::LeaderId<Self::Term, Self::NodeId>,
);

pub(crate) type Raft = openraft::Raft<Types, Machine>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type Membership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(crate) type Metrics = openraft::RaftMetrics<Types>;

/// One folder of one node: `node id:folder id`. A node that lost its folder comes back as another member, as raft demands: one
/// that forgot what it promised must not be taken for the one that promised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Member(Arc<str>);

impl Member {
    pub(crate) fn new(node: &str) -> Member {
        Member(format!("{node}:{:016x}", rand::random::<u64>()).into())
    }

    pub(crate) fn node(&self) -> &str {
        self.0.rsplit_once(':').map_or(&self.0, |(node, _)| node)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Member, D::Error> {
        String::deserialize(deserializer).map(|text| Member(text.into()))
    }
}

#[cfg(test)]
impl From<u64> for Member {
    fn from(number: u64) -> Member {
        Member(format!("node{number}:0").into())
    }
}

/// Address of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Address {
    pub(crate) addr: String,
}

/// Identity of a proposal. One that arrives twice counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId(pub(crate) u128);

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", self.0))
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RequestId, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(RequestId).map_err(serde::de::Error::custom)
    }
}

/// A command on its way into the log.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) request: RequestId,
    /// The last command that was known when the request was made: it cannot have been applied before.
    pub(crate) since: u64,
    pub(crate) command: Command,
}

impl fmt::Debug for Proposal {
    /// Raft logs what it handles: secrets stay out of that.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({self})")
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} changes", self.command.changes.len())
    }
}

/// Result of a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Applied as this command.
    Done(u64),
    Conflict(Conflict),
    /// The proposal came too late to know whether it was applied before. It was not applied now.
    Late,
}
