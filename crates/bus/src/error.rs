//! Errors of a message, in the words of Vert.x, which existing clients know.

use serde::{Deserialize, Serialize};

/// Reason why there is no answer. Names on the wire (`failureType`) are those of Vert.x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    /// There was no answer in time.
    Timeout,
    /// The address has no receivers.
    NoHandlers,
    /// The receiver failed: by its own words, or because it could not be reached.
    RecipientFailure,
    /// The message itself could not be sent.
    Error,
}

impl Kind {
    /// Returns the name that clients read.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Timeout => "TIMEOUT",
            Kind::NoHandlers => "NO_HANDLERS",
            Kind::RecipientFailure => "RECIPIENT_FAILURE",
            Kind::Error => "ERROR",
        }
    }
}

/// A message that was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BusError {
    pub kind: Kind,
    /// Code of the failure. It is -1 for timeouts and missing receivers as in Vert.x, the receiver's own, or a constant
    /// below for errors of the bus.
    pub code: i32,
    /// One sentence for people.
    pub message: String,
}

impl BusError {
    /// The code of [`Kind::Timeout`] and [`Kind::NoHandlers`].
    pub const CODE_NONE: i32 = -1;
    /// A queue on the way is full: the receiver's own, or that to its node.
    pub const CODE_OVERFLOW: i32 = -2;
    /// The receiver or its node went away before it answered.
    pub const CODE_GONE: i32 = -3;
    /// The address, headers or body are not allowed.
    pub const CODE_INVALID: i32 = -4;

    /// A failure that a receiver tells, with its own number.
    pub fn failure(code: i32, message: impl Into<String>) -> BusError {
        BusError { kind: Kind::RecipientFailure, code, message: message.into() }
    }

    pub(crate) fn no_handlers(address: &str) -> BusError {
        BusError {
            kind: Kind::NoHandlers,
            code: BusError::CODE_NONE,
            message: format!("No handlers for address {address}"),
        }
    }

    pub(crate) fn timeout(address: &str, limit: std::time::Duration) -> BusError {
        let message = format!("Timed out after waiting {}(ms) for a reply. address: {address}", limit.as_millis());
        BusError { kind: Kind::Timeout, code: BusError::CODE_NONE, message }
    }

    pub(crate) fn overflow(address: &str) -> BusError {
        let message = format!("a receiver at {address} does not keep up: its queue is full; try again later");
        BusError { kind: Kind::RecipientFailure, code: BusError::CODE_OVERFLOW, message }
    }

    pub(crate) fn link_full(node: &str) -> BusError {
        let message = format!("the queue to node {node} is full or the node is gone; try again later");
        BusError { kind: Kind::RecipientFailure, code: BusError::CODE_OVERFLOW, message }
    }

    pub(crate) fn gone(node: &str) -> BusError {
        let message = format!("node {node} went away before it answered");
        BusError { kind: Kind::RecipientFailure, code: BusError::CODE_GONE, message }
    }

    pub(crate) fn unanswered() -> BusError {
        let message = "the receiver let go of the request without an answer".to_owned();
        BusError { kind: Kind::RecipientFailure, code: BusError::CODE_GONE, message }
    }

    pub(crate) fn invalid(message: String) -> BusError {
        BusError { kind: Kind::Error, code: BusError::CODE_INVALID, message }
    }
}
