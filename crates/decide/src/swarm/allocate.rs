//! Allocation of subnets, VXLAN network identifiers, addresses and published ports to networks, services, tasks and
//! nodes.
//!
//! Everything is decided from a view, in the command that writes the object. What is held is read from the view itself, which
//! refuses a second owner ([`View::held`](herder_model::swarm::View::held)); a new leader therefore needs no memory of the old
//! one. [`Addresses`] only adds the order: addresses go on after the last one, and one that was just freed rests.

mod addresses;
mod attach;
mod ingress;
mod pool;
mod ports;
mod service;

pub use addresses::Addresses;
pub use attach::{Attached, FIXED_OPTION, attached, fixed_range, is_everywhere};
pub use ingress::{first_ingress, ingress_spec, node_addresses};
pub(crate) use pool::v6_of;
pub use pool::{Subnet, free_vni, overlap, subnet_of, subnets};
pub(crate) use service::published;
pub use service::{complete_endpoint, complete_endpoint_of};

/// Time for which a freed address is not assigned again, unless no other is left. By then every node knows that it was
/// freed.
pub const REST: std::time::Duration = std::time::Duration::from_secs(60);

#[cfg(test)]
mod tests;
