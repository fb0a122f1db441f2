//! The doors: the Docker API over all nodes.
//!
//! A call that belongs to one object goes to its engine as bytes; JSON is parsed only where it must be read or rewritten.
//! Lists are answered from the pool's memory. No handler keeps state of its own. See ARCHITECTURE.md.

pub mod actions;
pub mod audit;
mod build;
mod bus;
mod call;
mod console;
mod containers;
mod create;
mod events;
mod exec;
mod fanout;
pub mod forward;
mod front;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod guard;
mod images;
mod layers;
mod networks;
mod path;
pub mod replica;
mod router;
mod routes;
pub mod server;
pub mod stacks;
pub mod swarm;
mod system;
mod volumes;

pub use call::{Call, Query, Reply};
pub use front::{Front, FrontSettings};
pub use herder_http::{Peer, Principal};
pub use herder_place::Error as ApiError;
pub use layers::{Authorise, Everybody};
pub use path::encode_query;
pub use router::Action;
