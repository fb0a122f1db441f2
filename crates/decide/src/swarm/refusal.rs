//! Refusals in the words of swarm mode. Clients compare the texts, so they are kept to the letter (moby
//! `daemon/server/httpstatus`, swarmkit `manager/controlapi`).

use std::fmt;

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

/// Why something cannot be declared.
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
