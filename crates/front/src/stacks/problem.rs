//! Problem documents (RFC 9457): the refusals of the stack API.

use herder_deploy::{Cause, Fault};
use herder_pool::full;
use herder_stacks::{BundleError, Refused, TargetError};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::{ApiError, Reply};

/// A refusal, with a stable code and what else a program can read of it.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    pub(crate) more: Map<String, Value>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, code, detail: detail.into(), more: Map::new() }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Problem {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn into_reply(self) -> Reply {
        let mut document = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
            // Docker's clients read this one.
            "message": self.detail,
        });
        if let Some(members) = document.as_object_mut() {
            members.extend(self.more);
        }
        let mut reply = Response::new(full(document.to_string()));
        *reply.status_mut() = self.status;
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        reply
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Problem {
        let status = error.status();
        let code = match status {
            StatusCode::BAD_REQUEST => "bad_request",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::CONFLICT => "conflict",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::SERVICE_UNAVAILABLE => "no_swarm",
            _ => "failed",
        };
        Problem::new(status, code, error.to_string())
    }
}

impl From<BundleError> for Problem {
    fn from(error: BundleError) -> Problem {
        let detail = error.to_string();
        match error {
            BundleError::Wrong(_) => Problem::new(StatusCode::BAD_REQUEST, "invalid_bundle", detail),
            BundleError::Files(diagnostics) => {
                let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_compose_file", detail);
                problem.with("errors", json!(diagnostics))
            }
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        let detail = refused.to_string();
        match refused {
            Refused::Wrong(_) => Problem::bad_request(detail),
            Refused::Busy { operation, .. } => {
                Problem::new(StatusCode::CONFLICT, "operation_in_progress", detail).with("operation", operation)
            }
            Refused::Full(_) => Problem::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", detail),
            Refused::TooMany => Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_operations", detail),
            Refused::Level(_) => Problem::new(StatusCode::CONFLICT, "managers_too_old", detail),
            Refused::NoStack(_) => Problem::new(StatusCode::NOT_FOUND, "stack_not_found", detail),
            Refused::NoRevision { .. } => Problem::new(StatusCode::NOT_FOUND, "revision_not_found", detail),
            Refused::NoOperation(_) => Problem::new(StatusCode::NOT_FOUND, "operation_not_found", detail),
            Refused::Over(_) => Problem::new(StatusCode::CONFLICT, "operation_over", detail),
            Refused::Record(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail),
        }
    }
}

impl From<TargetError> for Problem {
    fn from(error: TargetError) -> Problem {
        let detail = error.to_string();
        match error {
            TargetError::Wrong(_) => Problem::bad_request(detail),
            TargetError::Missing(_) => Problem::new(StatusCode::NOT_FOUND, "target_not_found", detail),
            TargetError::Taken(_) => Problem::new(StatusCode::CONFLICT, "target_exists", detail),
            TargetError::InUse { .. } => Problem::new(StatusCode::CONFLICT, "target_in_use", detail),
            TargetError::Level(_) => Problem::new(StatusCode::CONFLICT, "managers_too_old", detail),
            TargetError::Unreadable(_) => Problem::new(StatusCode::CONFLICT, "credentials_unreadable", detail),
            TargetError::Record(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail),
        }
    }
}

/// The status of an answer about a target that cannot be used.
fn status_of(cause: Cause) -> StatusCode {
    match cause {
        Cause::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Cause::KeyMismatch | Cause::BadPem => StatusCode::BAD_REQUEST,
        Cause::EngineVersion | Cause::NotAManager | Cause::SwarmInactive | Cause::SwarmLocked => StatusCode::CONFLICT,
        Cause::PlainServer
        | Cause::NeedsTls
        | Cause::UnknownCa
        | Cause::Expired
        | Cause::Name
        | Cause::ClientRefused
        | Cause::BadAnswer => StatusCode::BAD_GATEWAY,
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Problem {
        let detail = fault.to_string();
        match fault {
            Fault::Unreachable(_) => Problem::new(StatusCode::BAD_GATEWAY, "target_unreachable", detail),
            Fault::Unusable { cause, .. } => Problem::new(status_of(cause), cause.code(), detail),
            Fault::Refused { status, message, .. } => {
                let code = match status {
                    404 => StatusCode::NOT_FOUND,
                    409 => StatusCode::CONFLICT,
                    503 => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::BAD_GATEWAY,
                };
                let cause = json!({"status": status, "message": message});
                Problem::new(code, "target_refused", detail).with("cause", cause)
            }
            Fault::Missing(reasons) => Problem::new(StatusCode::CONFLICT, "refused", detail).with("errors", reasons),
            Fault::Failed { .. } => Problem::new(StatusCode::BAD_GATEWAY, "failed", detail),
            Fault::Late { .. } => Problem::new(StatusCode::GATEWAY_TIMEOUT, "target_timeout", detail),
        }
    }
}
