//! The nouns: nodes and what is on them, as values.
//!
//! No I/O, no clock, no async. A [`Node`] is an immutable picture of one Docker host; the inventory replaces it as a
//! whole, so the holder of one sees a consistent state. See ARCHITECTURE.md.

mod address;
mod container;
mod liveness;
mod names;
mod node;
mod objects;
mod pairs;
pub mod swarm;

pub use address::host_of;
pub use container::{Container, Entry, Health, Hole, HostPort, MountPoint, PublishedPort, Status};
pub use liveness::Liveness;
pub use names::{Name, NameIndex};
pub use node::{ClusterEvent, Node, NodeState, Resources};
pub use objects::{Image, Network, Volume};
pub use pairs::Pairs;

/// The port of node links and gossip; that of swarm mode's gossip, which engines in plain mode do not use.
pub const NODE_PORT: u16 = 7946;
/// Docker label under which the id that survives rescheduling is kept (64 hex digits; classic Swarm).
pub const LABEL_SWARM_ID: &str = "com.docker.swarm.id";
/// Docker label with a JSON array of constraint expressions (classic Swarm).
pub const LABEL_CONSTRAINTS: &str = "com.docker.swarm.constraints";
/// Docker label with a JSON array of affinity expressions (classic Swarm).
pub const LABEL_AFFINITIES: &str = "com.docker.swarm.affinities";
/// Docker label with a JSON array of whitelist expressions (classic Swarm).
pub const LABEL_WHITELISTS: &str = "com.docker.swarm.whitelists";
/// Docker label with a JSON array of reschedule policies (classic Swarm).
pub const LABEL_RESCHEDULE: &str = "com.docker.swarm.reschedule-policies";
/// Docker label that joins the networks of several nodes into one. Its value is the id that clients see (64 hex
/// digits).
pub const LABEL_NETWORK_ID: &str = "herder.network.id";
/// Marks the bridge of an engine that carries an overlay network; its value is the id of that.
pub const LABEL_OVERLAY: &str = "com.herder.network";
