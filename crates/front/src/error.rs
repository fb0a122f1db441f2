//! The one place where errors become status codes. The body is Docker's `{"message": …}`.

use herder_decide::placing::Refusal;
use herder_pool::{EngineError, LinkError};
use http::StatusCode;
use serde_json::json;

use crate::Reply;

/// An answer other than success.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// What herder itself refuses or cannot do.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nobody has said what became of what was asked: it may be done.
    #[error(transparent)]
    InDoubt(Box<ApiError>),
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        match refusal {
            Refusal::NameTaken(_) | Refusal::NameClaimed(_) => ApiError::conflict(refusal.to_string()),
            Refusal::Unplaceable(_) | Refusal::NobodyLeft => ApiError::internal(refusal.to_string()),
        }
    }
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError::Refused { status, message: message.into() }
    }
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }
    pub fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
    pub fn too_large(limit: usize) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the request body is larger than {limit} bytes"))
    }

    /// The same, where it may be done nevertheless.
    pub(crate) fn in_doubt(self) -> ApiError {
        ApiError::InDoubt(Box::new(self))
    }

    /// What the error is, however sure that is.
    pub(crate) fn plain(&self) -> &ApiError {
        if let ApiError::InDoubt(error) = self { error.plain() } else { self }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            ApiError::Refused { status, .. } => *status,
            ApiError::InDoubt(error) => error.status(),
            ApiError::Engine(EngineError::Answer { status, .. }) => {
                StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            ApiError::Engine(EngineError::Link(LinkError::Timeout { .. })) => StatusCode::GATEWAY_TIMEOUT,
            ApiError::Engine(EngineError::Link(_) | EngineError::Refused { .. } | EngineError::Unreadable { .. }) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    pub fn into_reply(self) -> Reply {
        crate::call::json(self.status(), &json!({ "message": self.to_string() }))
    }
}
