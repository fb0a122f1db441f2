//! Refusals in the words of swarm mode. Clients compare the texts, so they are kept to the letter (moby
//! `daemon/server/httpstatus`, swarmkit `manager/controlapi`).

use std::fmt;

use herder_model::swarm::{Conflict, Kind};

use crate::list::ListError;

/// The kind of a refusal, as swarm mode's managers tell it (gRPC status codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Unknown,
    InvalidArgument,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    FailedPrecondition,
    Unimplemented,
    Unavailable,
}

impl Code {
    /// The HTTP status that the Docker Engine makes of it.
    pub fn status(self) -> u16 {
        match self {
            Code::InvalidArgument | Code::FailedPrecondition => 400,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::AlreadyExists => 409,
            Code::Unknown => 500,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
        }
    }
}

/// Reason why an object cannot be declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    pub code: Code,
    pub text: String,
}

impl Refusal {
    pub fn new(code: Code, text: impl Into<String>) -> Refusal {
        Refusal { code, text: text.into() }
    }

    pub(super) fn invalid(text: impl Into<String>) -> Refusal {
        Refusal::new(Code::InvalidArgument, text)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {:?} desc = {}", self.code, self.text)
    }
}

impl From<Conflict> for Refusal {
    /// Maps a write that came too late to the words of swarm mode's managers.
    fn from(conflict: Conflict) -> Refusal {
        match &conflict {
            Conflict::Sequence { .. } => Refusal::new(Code::Unknown, conflict.to_string()),
            Conflict::Gone { .. } => Refusal::new(Code::NotFound, conflict.to_string()),
            Conflict::Name { kind: kind @ (Kind::Secret | Kind::Config), name } => {
                Refusal::new(Code::AlreadyExists, format!("{kind} {name} already exists"))
            }
            Conflict::Name { .. } => Refusal::new(Code::AlreadyExists, conflict.to_string()),
        }
    }
}

/// Reason why a call about the swarm is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Refusal by a manager; the text has its prefix.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Refusal by the node that was asked: HTTP status and the whole text.
    #[error("{text}")]
    Plain { status: u16, text: String },
    #[error(transparent)]
    List(#[from] ListError),
}

impl Denial {
    pub fn plain(status: u16, text: impl Into<String>) -> Denial {
        Denial::Plain { status, text: text.into() }
    }

    /// The HTTP status that the Docker Engine answers with.
    pub fn status(&self) -> u16 {
        match self {
            Denial::Refused(refusal) => refusal.code.status(),
            Denial::Plain { status, .. } => *status,
            Denial::List(error) => error.status(),
        }
    }
}

impl From<Conflict> for Denial {
    fn from(conflict: Conflict) -> Denial {
        Denial::Refused(conflict.into())
    }
}
