//! Identity and transport between nodes: the pool's CA, certificates, join codes, the node link, gossip.
//!
//! Nothing here knows what a container is. See ARCHITECTURE.md.

pub mod calls;
mod channels;
pub mod gossip;
pub mod identity;
mod join_code;
mod lenient;
pub mod link;
pub mod multicast;
pub mod rotation;
mod subject;
pub mod swarm;

pub use join_code::{JoinCode, JoinCodeError, Secret, same_secret};
pub use subject::Subject;
