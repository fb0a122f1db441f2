//! A node: one Docker host as last seen, with everything on it.

use std::collections::BTreeMap;
use std::ops::{Add, AddAssign, SubAssign};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Container, Image, Name, NameIndex, Network, Volume};

/// State of an engine in the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NodeState {
    /// Known by address only; its engine has not been validated yet.
    #[default]
    Pending,
    /// Answers; takes new work.
    Healthy,
    /// Was validated once and does not answer now.
    Unhealthy,
}

impl NodeState {
    /// The word `docker info` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Pending => "Pending",
            NodeState::Healthy => "Healthy",
            NodeState::Unhealthy => "Unhealthy",
        }
    }
}

/// An amount of what containers share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Billionths of a processor, as in Docker's `NanoCpus`.
    pub nano_cpus: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
}

impl Add for Resources {
    type Output = Resources;
    fn add(self, other: Resources) -> Resources {
        Resources {
            nano_cpus: self.nano_cpus.saturating_add(other.nano_cpus),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }
}

impl AddAssign for Resources {
    fn add_assign(&mut self, other: Resources) {
        *self = *self + other;
    }
}

impl SubAssign for Resources {
    fn sub_assign(&mut self, other: Resources) {
        self.nano_cpus = self.nano_cpus.saturating_sub(other.nano_cpus);
        self.memory_bytes = self.memory_bytes.saturating_sub(other.memory_bytes);
    }
}

/// One Docker host as last seen. Immutable: the inventory replaces it as a whole. Written down (serde), it is without what is
/// on it, which is much more and changes more often.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// `host:port` (or `unix:///path`) under which discovery knows the engine. Unique in the pool.
    pub addr: String,
    /// The address part as an IP, for published ports and events.
    pub ip: String,
    /// `<engine id>|<addr>`; the address keeps cloned machines apart. Empty while pending.
    pub id: String,
    /// The engine's `Name`. Empty while pending.
    pub name: String,
    pub state: NodeState,
    /// The reason why the node is not healthy, as text.
    pub error: Option<String>,
    /// Connection failures in a row.
    pub failures: u32,
    /// 0 (not healthy) to 100; falls with each failure in a row.
    pub health_indicator: i64,
    /// Daemon labels plus `storagedriver`, `kernelversion`, `operatingsystem`, `ostype`.
    pub labels: BTreeMap<String, String>,
    /// The processors the engine has, without overcommit.
    pub ncpu: i64,
    /// Resources that may be promised, overcommit included.
    pub total: Resources,
    /// Resources that all containers on the node reserve, running or not.
    #[serde(skip)]
    pub used: Resources,
    /// `linux` or `windows`.
    pub os_type: String,
    pub architecture: String,
    pub server_version: String,
    /// The version of the API in which herder and the engine talk, such as `1.41`.
    pub api_version: String,
    /// Seconds since 1970 of the last successful look.
    pub updated_at: i64,
    /// Keyed by full id.
    #[serde(skip)]
    pub containers: BTreeMap<String, Arc<Container>>,
    /// The same ones by name; kept by [`Node::put_container`] and [`Node::remove_container`].
    #[serde(skip)]
    pub names: NameIndex,
    #[serde(skip)]
    pub images: Vec<Arc<Image>>,
    #[serde(skip)]
    pub networks: Vec<Arc<Network>>,
    /// Keyed by id of the engine's bridge network: the overlay network that it carries.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub overlays: BTreeMap<String, String>,
    #[serde(skip)]
    pub volumes: Vec<Arc<Volume>>,
}

impl Node {
    pub fn is_healthy(&self) -> bool {
        self.state == NodeState::Healthy
    }

    /// Puts `container` in (or replaces it) and keeps `used` right.
    pub fn put_container(&mut self, container: Arc<Container>) {
        self.used += container.reserved;
        self.names.put(container.clone());
        if let Some(old) = self.containers.insert(container.id.clone(), container) {
            self.used -= old.reserved;
            self.names.remove(&old);
        }
    }

    /// Takes the container with this full id out and keeps `used` right.
    pub fn remove_container(&mut self, id: &str) -> Option<Arc<Container>> {
        let old = self.containers.remove(id)?;
        self.used -= old.reserved;
        self.names.remove(&old);
        Some(old)
    }

    /// The containers with this name; Docker allows one, but a name may be on its way from one to another.
    pub fn named<'n>(&'n self, name: &Name<'n>) -> impl Iterator<Item = &'n Arc<Container>> {
        self.names.find(name)
    }
}

/// One event of the cluster, as `docker events` shows it.
#[derive(Clone, Debug)]
pub struct ClusterEvent {
    /// Nanoseconds since 1970.
    pub time_nano: i64,
    /// Name of the node it came from.
    pub node: String,
    /// The JSON object as sent to clients, node fields included, without newline.
    pub json: Arc<serde_json::Value>,
}
