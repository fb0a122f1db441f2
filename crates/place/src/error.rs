//! The one place where errors become status codes. The body is Docker's `{"message": …}`.

use bytes::Bytes;
use herder_decide::placing::Refusal;
use herder_decide::swarm::Denial;
use herder_docker::{Body, NotWhole, full, gather};
use herder_pool::{EngineError, LinkError};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

/// An answer other than success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A refusal or failure of herder itself.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The outcome is unknown: the call may have been carried out.
    #[error(transparent)]
    InDoubt(Box<Error>),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::NameTaken(_) | Refusal::NameClaimed(_) => Error::conflict(refusal.to_string()),
            Refusal::Unplaceable(_) | Refusal::NobodyLeft => Error::internal(refusal.to_string()),
        }
    }
}

impl Error {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Error {
        Error::Refused { status, message: message.into() }
    }
    pub fn bad_request(message: impl Into<String>) -> Error {
        Error::new(StatusCode::BAD_REQUEST, message)
    }
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(StatusCode::NOT_FOUND, message)
    }
    pub fn conflict(message: impl Into<String>) -> Error {
        Error::new(StatusCode::CONFLICT, message)
    }
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
    pub fn too_large(limit: usize) -> Error {
        Error::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the request body is larger than {limit} bytes"))
    }

    /// Marks the error as in doubt: the engine may have carried the call out.
    pub fn in_doubt(self) -> Error {
        Error::InDoubt(Box::new(self))
    }

    /// Returns the error without the doubt about its outcome.
    pub fn plain(&self) -> &Error {
        if let Error::InDoubt(error) = self { error.plain() } else { self }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Error::Refused { status, .. } => *status,
            Error::InDoubt(error) => error.status(),
            Error::Engine(EngineError::Answer { status, .. }) => {
                StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Error::Engine(EngineError::Link(LinkError::Timeout { .. })) => StatusCode::GATEWAY_TIMEOUT,
            Error::Engine(EngineError::Link(_) | EngineError::Refused { .. } | EngineError::Unreadable { .. }) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// The answer that Docker clients get.
    pub fn into_reply(self) -> Response<Body> {
        let mut reply = Response::new(full(json!({ "message": self.to_string() }).to_string()));
        *reply.status_mut() = self.status();
        reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        reply
    }

    /// A node that does not answer was needed.
    pub fn unhealthy(node: &str) -> Error {
        Error::internal(format!("node {node} is unhealthy"))
    }
}

impl From<Denial> for Error {
    fn from(denial: Denial) -> Error {
        let status = StatusCode::from_u16(denial.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Error::new(status, denial.to_string())
    }
}

/// Reads the answer of an engine whole, up to `limit` bytes.
pub async fn gather_answer(body: Body, limit: usize) -> Result<Bytes, Error> {
    gather(body, limit).await.map_err(|error| match error {
        NotWhole::TooLarge(limit) => Error::internal(format!("the engine's answer is larger than {limit} bytes")),
        NotWhole::Broken(error) => Error::internal(format!("the engine's answer broke off: {error}")),
    })
}
