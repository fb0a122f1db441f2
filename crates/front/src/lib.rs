//! The doors: the Docker API over all nodes.
//!
//! A call that belongs to one object goes to its engine as bytes; JSON is parsed only where it must be read or rewritten.
//! Lists are answered from the pool's memory. No handler keeps state of its own. See ARCHITECTURE.md.

pub mod actions;
pub mod audit;
mod budget;
mod build;
mod bus;
mod call;
mod containers;
mod create;
mod events;
mod exec;
mod fanout;
pub mod forward;
mod front;
pub mod fuzz;
mod guard;
mod hijack;
mod images;
mod layers;
mod networks;
mod path;
mod principal;
pub mod replica;
mod router;
mod routes;
pub mod server;
pub mod swarm;
mod system;
mod volumes;

pub use call::{Call, Query, Reply};
pub use front::{Front, FrontSettings};
pub use herder_place::Error as ApiError;
pub use layers::{Authorise, Everybody};
pub use path::encode_query;
pub use principal::{Peer, Principal};
pub use router::Action;
