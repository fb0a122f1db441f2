//! What managers keep: the objects that clients see, with what only managers need to know.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Attached, Cluster, Driver, NodeDescription, PortConfig, Rest, Role, RootRotation, Service, SwarmNode, Task,
    TaskNetwork, Time, Version, is_default, keeps_rest,
};

/// The swarm. There is one in a store, with [`Cluster::id`].
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct ClusterRecord {
    pub cluster: Cluster,
    /// `SWMKEY-1-…`, where managers are locked when they start. Else empty.
    #[serde(skip_serializing_if = "is_default")]
    pub unlock_key: String,
    /// Ids of nodes that were removed. They are not let in again.
    #[serde(skip_serializing_if = "is_default")]
    pub removed: BTreeSet<String>,
    /// The root that all nodes are being brought to, if there is one.
    #[serde(skip_serializing_if = "is_default")]
    pub root_rotation: Option<RootRotation>,
    /// What managers, and only they, have: they prove with it that they are some. Empty in swarms of before.
    #[serde(skip_serializing_if = "is_default")]
    pub managers_key: String,
    /// The ingress network was made once. Whoever removes it afterwards does not want it.
    #[serde(skip_serializing_if = "is_default")]
    pub has_networks: bool,
    /// The feature level: no manager writes what a release of a lower level cannot read. 0 while a manager has a release that
    /// tells no level. It only rises (`decide::swarm::level`).
    #[serde(skip_serializing_if = "is_default")]
    pub level: u32,
    /// Key of the root in `cluster.tls_info` (PEM). Empty where nodes sign their certificates by themselves, as in earlier
    /// releases, and where a CA elsewhere signs.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_key: String,
    /// Nodes that were managers, with when they ceased to be, in milliseconds since 1970. Certificates of managers that are
    /// not newer do not count.
    #[serde(skip_serializing_if = "is_default")]
    pub demoted: BTreeMap<String, u64>,
    /// Seals gossip, in base64. Only in backups: with it, hosts that are left find the one that restores the swarm.
    #[serde(skip_serializing_if = "is_default")]
    pub gossip_key: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

impl fmt::Debug for ClusterRecord {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterRecord").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl ClusterRecord {
    /// Whether managers certify the nodes. Else each node signs for itself, as in earlier releases.
    pub fn certifies(&self) -> bool {
        !self.ca_key.is_empty() || !self.cluster.spec.ca_config.external_cas.is_empty()
    }
}

/// A node. Its `manager_status` is not kept: whoever shows it asks raft.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct NodeRecord {
    pub node: SwarmNode,
    /// What it is now; `node.spec.role` is what it should be.
    pub role: Role,
    /// `host:port` of its node link.
    #[serde(skip_serializing_if = "is_default")]
    pub addr: String,
    /// Since when its state is what it is.
    pub state_since: Time,
    /// It is down, and for so long that it has ended by itself what must never run twice.
    #[serde(skip_serializing_if = "is_default")]
    pub fenced_off: bool,
    /// The time since which its tasks are replaced, while it is down; 0 before that.
    #[serde(skip_serializing_if = "is_default")]
    pub given_up_at: Time,
    /// Network → the node's own address there. Only ingress networks give nodes one.
    #[serde(skip_serializing_if = "is_default")]
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// The highest feature level that its release knows, as it told when its session began. 0: it tells none.
    #[serde(skip_serializing_if = "is_default")]
    pub level: u32,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

impl NodeRecord {
    pub fn description(&self) -> &NodeDescription {
        &self.node.description
    }
}

/// A service.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct ServiceRecord {
    pub service: Service,
    /// The write that gave it its specification. Tasks of that write are up to date.
    pub spec_version: Version,
    /// The write that gave it the specification before.
    pub previous_spec_version: Version,
    /// `X-Registry-Auth` of whoever declared it, for pulls. Else empty.
    #[serde(skip_serializing_if = "is_default")]
    pub registry_auth: String,
    #[serde(skip_serializing_if = "is_default")]
    pub previous_registry_auth: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

impl fmt::Debug for ServiceRecord {
    /// Credentials stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceRecord")
            .field("service", &self.service)
            .field("spec_version", &self.spec_version)
            .finish_non_exhaustive()
    }
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct TaskRecord {
    pub task: Task,
    /// Name of the service when the task was made.
    pub service_name: String,
    /// [`ServiceRecord::spec_version`] when the task was made.
    pub spec_version: Version,
    /// Ports that the service published when the task was made.
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Vec<PortConfig>,
    /// When a manager wrote the task's state.
    pub applied_at: Time,
    /// When the task was first seen to run.
    #[serde(skip_serializing_if = "is_default")]
    pub running_since: Option<Time>,
    /// When the task may be started: the end of a restart delay.
    #[serde(skip_serializing_if = "is_default")]
    pub not_before: Option<Time>,
    /// When tasks that ended in this slot (on this node, if the service is global) were made again, the oldest first: as far
    /// as a restart policy with a window counts them.
    #[serde(skip_serializing_if = "is_default")]
    pub restarts: Vec<Time>,
    /// How many tasks of the same specification ended in this slot (on this node) before.
    #[serde(skip_serializing_if = "is_default")]
    pub restarted: u64,
    /// When the task was made, by the leader's clock. Of two tasks of one slot the later one has the greater time.
    pub made_at: Time,
    /// A rolling update made it, and is judged by how it does.
    #[serde(skip_serializing_if = "is_default")]
    pub by_update: bool,
    /// That update made it in place of one that had found no node: nothing was stopped for it.
    #[serde(skip_serializing_if = "is_default")]
    pub in_place_of_waiting: bool,
    /// Such an update has it prepared before the turn of its slot has come: the task before it shall run until then.
    #[serde(skip_serializing_if = "is_default")]
    pub ahead: bool,
    /// The next task of its slot is prepared and counts on its node already, this one does not any more.
    #[serde(skip_serializing_if = "is_default")]
    pub succeeded: bool,
    /// Where its output goes if the specification does not say: the default of the swarm when the task was made.
    #[serde(skip_serializing_if = "is_default")]
    pub log_driver: Option<Driver>,
    /// Its networks with its addresses there, in the order of interfaces: ingress first, then as the service names them.
    #[serde(skip_serializing_if = "is_default")]
    pub networks: Vec<TaskNetwork>,
    /// `vip` or `dnsrr`, as the service had it when the task was made; empty is `vip`.
    #[serde(skip_serializing_if = "is_default")]
    pub endpoint_mode: String,
    /// Only of plain containers on networks of the swarm.
    #[serde(skip_serializing_if = "is_default")]
    pub attached: Option<Arc<Attached>>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

keeps_rest!(ClusterRecord, NodeRecord, ServiceRecord, TaskRecord);
