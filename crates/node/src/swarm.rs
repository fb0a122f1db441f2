//! This node's part in a swarm. It has a session with the leader for its tasks, and a store if it is a
//! manager.

mod api;
mod attachments;
mod certifier;
mod door;
mod enter;
mod external_ca;
mod first_root;
mod host;
mod kept;
mod logs;
mod managing;
mod restore;
mod root;
mod store_recovery;

pub use api::{Committed, LogPiece, LogsOf, LogsWanted, NotWritten, Restored, Swarm};
pub use door::Door;
pub use host::{FACT, Host, HostDeps, JoinStatus};
pub use kept::{enter, remotes};
