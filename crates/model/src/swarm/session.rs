//! Messages between a node and the leader, in JSON.
//!
//! Members and messages are only added. A message that the receiver does not know is passed over ([`decode`]) and does not end the
//! session; one that it knows and cannot read ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{
    AssignmentChanges, Assignments, Attachment, Availability, IngressApplied, IngressNews, IngressServed, NetUpdate,
    NetworkRecord, NewRoot, NodeDescription, Report, Role, is_default,
};

/// A manager, and where it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ManagerAddr {
    /// Id of the node.
    pub id: String,
    /// `host:port` of its node link.
    pub addr: String,
}

/// Messages from a node to the leader.
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
    /// Asks for the whole state, because the last changes do not apply to the state that the node has.
    Whole,
    /// The version of each network, by id, that kernel and DNS server of the node have reached.
    NetApplied(BTreeMap<String, u64>),
    /// Asks for the whole state of all networks, after a version gap.
    NetWhole,
    /// Plain containers that are to be on networks of the swarm, by id of the attachment. Nothing: the container is gone.
    Attach(BTreeMap<String, Option<Attachment>>),
    /// The version that it has applied as an ingress node.
    IngressApplied(Box<IngressApplied>),
    /// Asks for the whole state of the ingress, after a version gap.
    IngressWhole,
    /// The node goes away for good.
    Leave,
}

/// Messages in one direction of a session.
pub trait Message: Serialize + DeserializeOwned {
    /// The names of all messages that this release knows.
    const NAMES: &[&str];
}

impl Message for ToLeader {
    const NAMES: &[&str] = &[
        "hello",
        "reports",
        "describe",
        "alive",
        "ready",
        "whole",
        "netapplied",
        "netwhole",
        "attach",
        "ingressapplied",
        "ingresswhole",
        "leave",
    ];
}

impl Message for ToNode {
    const NAMES: &[&str] = &[
        "welcome",
        "assignments",
        "changes",
        "networks",
        "ingress",
        "served",
        "heard",
        "elsewhere",
        "dissolved",
        "refused",
    ];
}

/// Reads a message.
///
/// # Errors
///
/// Returns an error for bytes that are no message, and for a malformed message of this release.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<Option<M>, serde_json::Error> {
    serde_json::from_slice(bytes).map(Some).or_else(|error| match name(bytes) {
        Some(name) if !M::NAMES.contains(&name.as_str()) => Ok(None),
        Some(_) | None => Err(error),
    })
}

/// The name of a message; nothing if it has none.
fn name(bytes: &[u8]) -> Option<String> {
    match serde_json::from_slice(bytes).ok()? {
        serde_json::Value::String(name) => Some(name),
        serde_json::Value::Object(message) if message.len() == 1 => message.into_iter().next().map(|(name, _)| name),
        _ => None,
    }
}

/// Writes a message.
///
/// # Errors
///
/// Returns an error if the message cannot be written as JSON; nothing must be sent then.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(message)
}

/// The first message of a session: identifies the node.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// `host:port` of its node link.
    pub addr: String,
    pub description: NodeDescription,
    /// The join token that it came with, until the swarm knows it.
    #[serde(skip_serializing_if = "is_default")]
    pub token: String,
    /// Initial availability of the node.
    pub availability: Availability,
    /// True if its store is open.
    pub ready: bool,
    /// Reason why the node's engine counts as dead or hanging. Empty while it answers.
    #[serde(skip_serializing_if = "is_default")]
    pub engine_error: String,
    /// The highest feature level that its release knows; 0: it tells none.
    #[serde(skip_serializing_if = "is_default")]
    pub level: u32,
}

impl std::fmt::Debug for Hello {
    /// The token stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// Messages from the leader to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToNode {
    /// The answer to [`ToLeader::Hello`], and again when it changes.
    Welcome(Welcome),
    /// All of it: the first in a session, and whenever the node asks for it.
    Assignments(Box<Assignments>),
    /// The changes since the last message.
    Changes(Box<AssignmentChanges>),
    /// Changes in the networks of the node.
    Networks(Box<NetNews>),
    /// Changes of the ingress, for nodes that listen.
    Ingress(Box<IngressNews>),
    /// The tasks of the node that get requests from ingress nodes.
    Served(Box<IngressServed>),
    /// Acknowledges any message of the node.
    Heard,
    /// The node that was asked does not lead.
    Elsewhere(Option<ManagerAddr>),
    /// The swarm has ended: its last manager left.
    Dissolved,
    /// This node is none of the swarm's, and why.
    Refused(String),
}

/// Changes in the networks of a node.
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
    /// Networks of the swarm that are new or have changed, whether or not the node is on them. With `whole`, all of
    /// them.
    #[serde(skip_serializing_if = "is_default")]
    pub known: Vec<Arc<NetworkRecord>>,
    /// Ids of networks that were removed.
    #[serde(skip_serializing_if = "is_default")]
    pub removed: Vec<String>,
}

/// The leader's answer to a `Hello`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome {
    /// Id of the swarm.
    pub cluster: String,
    /// Role that the node is to take.
    pub role: Role,
    pub managers: Vec<ManagerAddr>,
    /// Interval of heartbeats to the leader, in milliseconds.
    pub heartbeat_ms: u64,
    /// Lease in milliseconds: without an answer of the leader for this long, the node's tasks may be given to others.
    pub lease_ms: u64,
    /// The root that this node is to get its certificate from; nothing while none is on its way.
    #[serde(skip_serializing_if = "is_default")]
    pub new_root: Option<NewRoot>,
    /// PEM. While no other one is on its way, the only root to be trusted.
    #[serde(skip_serializing_if = "is_default")]
    pub trust_root: String,
    /// True if managers certify the nodes. Else each node signs for itself, as in earlier releases.
    #[serde(skip_serializing_if = "is_default")]
    pub certified: bool,
    /// Ids of nodes that were removed: nothing is said to them, and nothing they say counts.
    #[serde(skip_serializing_if = "is_default")]
    pub removed: BTreeSet<String>,
    /// Nodes that were managers, as in [`super::ClusterRecord::demoted`].
    #[serde(skip_serializing_if = "is_default")]
    pub demoted: BTreeMap<String, u64>,
    /// Lifetime of new certificates in seconds; 0 keeps the present one.
    #[serde(skip_serializing_if = "is_default")]
    pub cert_expiry_s: u64,
    /// Commands between two snapshots, and commands that are kept for slow managers, for stores that are opened from
    /// now on. 0 stands for the defaults.
    #[serde(skip_serializing_if = "is_default")]
    pub snapshot_interval: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub keep_entries: u64,
    /// The feature level of the swarm: the node says nothing that needs a higher one.
    #[serde(skip_serializing_if = "is_default")]
    pub level: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_later_release_are_passed_over_and_broken_ones_are_not() {
        fn check<M: Message>(text: &str, expected: &str) {
            let said = match decode::<M>(text.as_bytes()) {
                Ok(Some(message)) => String::from_utf8(encode(&message).expect("JSON")).expect("text"),
                Ok(None) => "passed over".to_owned(),
                Err(_) => "broken".to_owned(),
            };
            assert_eq!(said, expected, "{text}");
        }
        check::<ToLeader>(r#""alive""#, r#""alive""#);
        check::<ToLeader>(r#""marvel""#, "passed over");
        check::<ToLeader>(r#"{"marvel":{"x":[1]}}"#, "passed over");
        check::<ToLeader>(r#"{"reports":5}"#, "broken");
        check::<ToLeader>(r#"{"reports":[],"marvel":1}"#, "broken");
        check::<ToLeader>("", "broken");
        check::<ToLeader>("17", "broken");
        check::<ToNode>(r#"{"marvel":1}"#, "passed over");
        check::<ToNode>(r#"{"elsewhere":null}"#, r#"{"elsewhere":null}"#);
        check::<ToNode>(r#"{"welcome":{"cluster":5}}"#, "broken");
    }

    /// A message that is missing in the names would be passed over when it is broken.
    #[test]
    fn every_message_is_named() {
        for message in [
            ToLeader::Hello(Box::default()),
            ToLeader::Reports(Vec::new()),
            ToLeader::Describe(Box::default()),
            ToLeader::Alive,
            ToLeader::Ready,
            ToLeader::Whole,
            ToLeader::Attach(BTreeMap::new()),
            ToLeader::IngressApplied(Box::default()),
            ToLeader::IngressWhole,
            ToLeader::Leave,
        ] {
            let text = encode(&message).expect("JSON");
            assert!(ToLeader::NAMES.contains(&name(&text).expect("a name").as_str()), "{message:?}");
        }
        for message in [
            ToNode::Welcome(Welcome::default()),
            ToNode::Assignments(Box::default()),
            ToNode::Changes(Box::default()),
            ToNode::Networks(Box::default()),
            ToNode::Ingress(Box::default()),
            ToNode::Served(Box::default()),
            ToNode::Heard,
            ToNode::Elsewhere(None),
            ToNode::Dissolved,
            ToNode::Refused(String::new()),
        ] {
            let text = encode(&message).expect("JSON");
            assert!(ToNode::NAMES.contains(&name(&text).expect("a name").as_str()), "{message:?}");
        }
    }
}
