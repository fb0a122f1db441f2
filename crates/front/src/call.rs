//! One request at the door, and the answers that handlers give.

use bytes::Bytes;
use http::{Response, StatusCode, header, request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use serde_json::Value;

use herder_pool::{Body, full};

use crate::ApiError;

/// What a handler answers.
pub type Reply = Response<Body>;

/// A JSON body may have this many bytes; engines accept about as much, and nobody writes more by hand. A larger one gets
/// 413 before it is read.
pub(crate) const JSON_BYTES_MAX: usize = 8 << 20;

/// One request: parsed as far as every handler needs it, its body not yet read.
#[derive(Debug)]
pub struct Call {
    /// Method, headers, extensions (the upgrade handle too) and the URI as the client sent it, version included.
    pub parts: request::Parts,
    /// Not yet read.
    pub body: Body,
    /// `v1.41` → `Some("1.41")`.
    pub version: Option<String>,
    /// The path without version, percent-decoded: `/containers/web/json`.
    pub path: String,
    pub query: Query,
}

/// The query string, in the order given, percent-decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// All values of `key`.
    pub fn all<'q>(&'q self, key: &str) -> impl Iterator<Item = &'q str> {
        let key = key.to_owned();
        self.0.iter().filter(move |(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    /// As Docker reads booleans: absent, empty, `0`, `no`, `false`, `none` are false, all else is true.
    pub fn flag(&self, key: &str) -> bool {
        let value = self.get(key).unwrap_or("").trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }
}

impl Call {
    /// Reads the body as JSON. Empty is `Null`. Errors: 400 if it is no JSON, 413 over [`JSON_BYTES_MAX`].
    pub async fn json(&mut self) -> Result<Value, ApiError> {
        let bytes = self.bytes(JSON_BYTES_MAX).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| ApiError::bad_request(format!("invalid JSON body: {error}")))
    }

    /// Reads the whole body, up to `limit` bytes.
    pub async fn bytes(&mut self, limit: usize) -> Result<Bytes, ApiError> {
        let declared = self.parts.headers.get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
        if declared.is_some_and(|length| length > limit as u64) {
            return Err(ApiError::too_large(limit));
        }
        let body = std::mem::replace(&mut self.body, herder_pool::empty());
        match Limited::new(body, limit).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit)),
            Err(error) => Err(ApiError::bad_request(format!("the request body broke off: {error}"))),
        }
    }
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    raw_json(status, bytes)
}

/// An answer with a JSON body that is already text.
pub(crate) fn raw_json(status: StatusCode, bytes: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(full(bytes));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    reply
}

/// An answer without body.
pub(crate) fn no_content(status: StatusCode) -> Reply {
    let mut reply = Response::new(herder_pool::empty());
    *reply.status_mut() = status;
    reply
}
