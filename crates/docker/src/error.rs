//! Errors of calls to an engine.

use crate::LinkError;

/// Error between herder and one engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The engine answered with an error; status and message are its own.
    #[error("{message}")]
    Answer { status: u16, message: String },
    /// The engine answers but is rejected as a node, with the reason of classic Swarm where there is one.
    #[error("{reason}")]
    Refused { addr: String, reason: String },
    /// The engine's answer is not what its API promises.
    #[error("the engine at {addr} answered {path} with something unreadable: {reason}")]
    Unreadable { addr: String, path: String, reason: String },
}
