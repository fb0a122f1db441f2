//! The client of a Docker engine: HTTP/1.1 over TCP, TLS or a unix socket. Bytes pass through undecoded.
//!
//! Nothing here decides: requests go out as they are, each failure says what failed, and every wait is bounded. See
//! ARCHITECTURE.md.

mod body;
pub mod classify;
mod connect;
mod decoder;
mod error;
mod link;
pub mod path;
mod tls_fault;
mod version;

pub use body::{NotWhole, error_message, gather};
pub use connect::{Dial, Dialling, Duplex, Way};
pub use decoder::Decoder;
pub use error::EngineError;
pub use link::{Body, BoxError, EngineLink, LinkError, empty, full};
pub use tls_fault::TlsFault;
pub use version::{API_VERSION_MAX, spoken_version};
