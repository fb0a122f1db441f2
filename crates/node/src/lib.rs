//! One node's life: its identity, its links to other nodes, its membership of a pool and of a swarm.
//!
//! See ARCHITECTURE.md.

pub mod bus;
pub mod code;
mod exports;
pub mod identity;
pub mod images;
mod ingress;
pub mod members;
pub mod peers;
pub mod roads;
mod settings;
pub mod source;
pub mod store;
pub mod swarm;

pub use settings::NodeSettings;
