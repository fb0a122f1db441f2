//! Plain containers on networks of the swarm.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{Rest, is_default, keeps_rest};

/// Runtime of the tasks that stand for plain containers on networks of the swarm.
pub const RUNTIME_ATTACHMENT: &str = "attachment";

/// A wish of a node for a plain container of its engine: places on networks of the swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct Attachment {
    /// Empty until the container exists.
    #[serde(skip_serializing_if = "is_default")]
    pub container_id: String,
    #[serde(skip_serializing_if = "is_default")]
    pub container_name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: String,
    #[serde(skip_serializing_if = "is_default")]
    pub networks: Vec<AttachedNetwork>,
    /// The container runs, so that its names resolve. It keeps its addresses while it does not.
    #[serde(skip_serializing_if = "is_default")]
    pub running: bool,
    /// Name servers that the container was made with.
    #[serde(skip_serializing_if = "is_default")]
    pub dns: Vec<IpAddr>,
    /// Its addresses on networks of the engine alone, if it was made without a network of the swarm.
    #[serde(skip_serializing_if = "is_default")]
    pub others: Vec<Ipv4Addr>,
    /// True if the container was created without a network of the swarm.
    #[serde(skip_serializing_if = "is_default")]
    pub late: bool,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// A network that a plain container is to be on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct AttachedNetwork {
    /// Id, name, or the beginning of the id, as the client gave it.
    pub target: String,
    /// The address that the client asks for.
    #[serde(skip_serializing_if = "is_default")]
    pub v4: Option<Ipv4Addr>,
    /// The address may be another one: it is that of the container that this one is made for again.
    #[serde(skip_serializing_if = "is_default")]
    pub any: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// The managers' record of a plain container on networks of the swarm, beside its task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct Attached {
    /// The last wish of the node.
    pub wanted: Attachment,
    /// Reasons why networks were not given, by target.
    #[serde(skip_serializing_if = "is_default")]
    pub refused: BTreeMap<String, AttachRefusal>,
    /// Id of each network that was given, by target.
    #[serde(skip_serializing_if = "is_default")]
    pub given: BTreeMap<String, String>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Reason why a plain container cannot be on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct AttachRefusal {
    /// Status code of the answer to the client. 404: the swarm has no such network.
    pub status: u16,
    pub reason: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

keeps_rest!(Attachment, AttachedNetwork, Attached, AttachRefusal);
