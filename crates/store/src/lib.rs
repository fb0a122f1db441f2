//! Replicated state of a swarm. It is a log of commands that managers agree on (raft), and the state that follows
//! from it.
//!
//! [`Store::commit`] writes, on any manager; [`Store::view`] is what this one knows, [`Store::read`] what the swarm knows;
//! [`Store::watch`] tells of every write. How requests come to other managers is the business of a [`Transport`].
//!
//! A write that was acknowledged is on the disks of a majority. Nothing in the folder can be read without its key.

mod ask;
mod backend;
mod backup;
mod board;
mod disk;
mod envelope;
mod error;
mod key;
mod leading;
mod link;
mod log;
mod machine;
mod members;
mod message;
mod proof;
mod raft;
mod running;
mod seal;
mod serve;
mod settings;
mod silence;
mod snapshot;
mod state;
mod store;
mod vault;

#[cfg(test)]
mod tests;

pub use backend::{Backend, Database, DatabaseBuilder, DatabaseError, StorageBackend};
pub use backup::Backup;
pub use board::{Seen, Watch};
pub use error::{StoreError, TransportError};
pub use key::Key;
pub use leading::Leadership;
pub use members::ManagerSeen;
pub use settings::{COMMAND_BYTES_MAX, Settings};
pub use store::{Store, Transport};
