//! A call that changes what is declared: what is to be written for it, or why not.
//!
//! Ids, time and randomness are handed in. Whether an object is still what the client saw is checked again by the write.

mod admission;
mod check;
mod cluster;
mod files;
pub mod lookup;
mod network;
mod node;
mod resources;
mod service;
pub mod spec;
mod supersede;

pub use admission::{TakenPort, admit_ports, new_ports};
pub use check::{config, node, secret, service};
pub use cluster::{
    ClusterUpdate, Fresh, check_init, check_join, cluster_spec, externals_of, settle_root, take_external,
    update_cluster, wants_root,
};
pub use files::{create_config, create_secret, remove_config, remove_secret, update_config, update_secret};
pub use network::{Ipam, IpamRequest, NetworkRequest, create_network, prune_networks, remove_network, settle_networks};
pub use node::{remove_node, update_node};
pub use resources::{create_resource, remove_resource, resource, update_resource};
pub use service::{AuthFrom, Declared, ServiceUpdate, create_service, remove_service, update_service};
pub use supersede::{SUPERSEDED_LABEL, remove_superseded};

use herder_model::swarm::{Conflict, Kind};

use super::Denial;

/// Result of [`create_service`] and the like: the changes to write.
pub type Changes = Result<Vec<herder_model::swarm::Change>, Denial>;

/// Refuses a write of what the client has not seen.
fn check_version(kind: Kind, id: &str, seen: u64, is: u64) -> Result<(), Denial> {
    if seen == is { Ok(()) } else { Err(Conflict::Sequence { kind, id: id.to_owned() }.into()) }
}

#[cfg(test)]
mod tests;
