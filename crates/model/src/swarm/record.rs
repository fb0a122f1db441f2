//! The records of managers: the objects that clients see, and the members that only managers need.

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
    /// Secret that only managers have, and prove their role with. Empty in swarms of earlier releases.
    #[serde(skip_serializing_if = "is_default")]
    pub managers_key: String,
    /// The ingress network was made once. Whoever removes it afterwards does not want it.
    #[serde(skip_serializing_if = "is_default")]
    pub has_networks: bool,
    /// All overlay networks are encrypted, also that of published ports.
    #[serde(skip_serializing_if = "is_default")]
    pub encrypts_networks: bool,
    /// Feature level of the swarm. No manager writes what a release of a lower level cannot read. 0 while a manager has
    /// a release that reports no level. It only rises (`decide::swarm::nodes::level`).
    #[serde(skip_serializing_if = "is_default")]
    pub level: u32,
    /// Key of the root in `cluster.tls_info` (PEM). Empty where nodes sign their certificates by themselves, as in earlier
    /// releases, and where a CA elsewhere signs.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_key: String,
    /// Demoted managers by node id, with the time of demotion in Unix milliseconds. Manager certificates issued up to
    /// that time are invalid.
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
    /// True if managers certify the nodes. Else each node signs for itself, as in earlier releases.
    pub fn certifies(&self) -> bool {
        !self.ca_key.is_empty() || !self.cluster.spec.ca_config.external_cas.is_empty()
    }
}

/// A node. Its `manager_status` is not kept: it is read from raft.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct NodeRecord {
    pub node: SwarmNode,
    /// Present role; `node.spec.role` is the declared one.
    pub role: Role,
    /// `host:port` of its node link.
    #[serde(skip_serializing_if = "is_default")]
    pub addr: String,
    /// Time of the last change of state.
    pub state_since: Time,
    /// True if the node has been down for so long that it has ended its fenced tasks by itself.
    #[serde(skip_serializing_if = "is_default")]
    pub fenced_off: bool,
    /// The time since which its tasks are replaced, while it is down; 0 before that.
    #[serde(skip_serializing_if = "is_default")]
    pub given_up_at: Time,
    /// Network → the node's own address there. Only ingress networks give nodes one.
    #[serde(skip_serializing_if = "is_default")]
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// Highest feature level of the node's release, from its `Hello`. 0 if it reports none.
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
    /// `X-Registry-Auth` of the client that declared the service, for pulls; empty if there was none. Else empty.
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
    /// Time at which a manager wrote the task's state.
    pub applied_at: Time,
    /// Time at which the task was first seen running.
    #[serde(skip_serializing_if = "is_default")]
    pub running_since: Option<Time>,
    /// Earliest start of the task: the end of a restart delay.
    #[serde(skip_serializing_if = "is_default")]
    pub not_before: Option<Time>,
    /// Times of restarts in this slot (of a global service: on this node), the oldest first. Only those that a restart
    /// policy with a window still counts are kept.
    #[serde(skip_serializing_if = "is_default")]
    pub restarts: Vec<Time>,
    /// Number of ended tasks of the same specification in this slot (on this node).
    #[serde(skip_serializing_if = "is_default")]
    pub restarted: u64,
    /// Time at which the task was created, by the leader's clock. Of two tasks of one slot the later one has the
    /// greater time.
    pub made_at: Time,
    /// A rolling update made it, and is judged by how it does.
    #[serde(skip_serializing_if = "is_default")]
    pub by_update: bool,
    /// True if that update made the task in place of one without a node. Nothing was stopped for it.
    #[serde(skip_serializing_if = "is_default")]
    pub in_place_of_waiting: bool,
    /// True if an update prepared the task before the turn of its slot. The task before it goes on until then.
    #[serde(skip_serializing_if = "is_default")]
    pub ahead: bool,
    /// The next task of its slot is prepared and counts on its node already, this one does not any more.
    #[serde(skip_serializing_if = "is_default")]
    pub succeeded: bool,
    /// Log driver if the specification names none: the default of the swarm when the task was created.
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
