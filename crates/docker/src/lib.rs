//! The client of a Docker engine: HTTP/1.1 over TCP, TLS or a unix socket. Bytes pass through undecoded.
//!
//! Nothing here decides: requests go out as they are, each failure says what failed, and every wait is bounded. See
//! ARCHITECTURE.md.

mod body;
mod connect;
mod link;
pub mod path;

pub use body::{NotWhole, error_message, gather};
pub use connect::{Dial, Dialling, Duplex, Way};
pub use link::{Body, BoxError, EngineLink, LinkError, empty, full};
