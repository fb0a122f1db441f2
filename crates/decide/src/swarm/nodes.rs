//! Nodes of a swarm: which of them are up, and what this node is in it.

pub mod level;
pub mod local;
pub mod members;
