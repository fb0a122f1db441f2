//! Frozen: the records as the release of feature level 0 (commit 9dacb10) reads and writes them. Not to be edited: a release that is
//! out does not change any more.

mod assignments;
mod change;
mod cluster;
mod container;
mod meta;
mod node;
mod record;
mod root;
mod secret;
mod service;
mod session;
mod task;
mod time;

pub(crate) use assignments::{AssignmentChanges, Assignments, Report};
pub(crate) use change::{Command, Kind};
pub(crate) use cluster::{Cluster, ClusterSpec, JoinTokens};
pub(crate) use container::ContainerSpec;
pub(crate) use meta::{Driver, Meta, TlsInfo, Version};
pub(crate) use node::{Availability, NodeDescription, NodeSpec, NodeStatus, Platform, Role, SwarmNode};
pub(crate) use record::{ClusterRecord, NodeRecord, ServiceRecord, TaskRecord};
pub(crate) use root::{NewRoot, RootRotation};
pub(crate) use secret::{Config, ConfigSpec, Secret, SecretSpec};
pub(crate) use service::{PortConfig, Service, ServiceSpec};
pub(crate) use session::{ToLeader, ToNode};
pub(crate) use task::{NetworkAttachmentConfig, Reservations, Task, TaskSpec, TaskStatus};
pub(crate) use time::Time;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
