//! One request at the door, and the answers that handlers give.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, header, request};
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use herder_pool::{Body, BoxError, full};

use crate::router::Holes;
use crate::{ApiError, Principal, guard};
use herder_http::budget::{Budget, Share};

/// Answer of a handler.
pub type Reply = Response<Body>;

/// Maximum bytes of a JSON body; engines accept about as much, and hand-written ones are smaller. A larger one gets 413
/// before it is read.
pub(crate) const JSON_BYTES_MAX: usize = 8 << 20;

/// A JSON body must be there after this time; a client that stalls holds nothing for longer.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// One request: parsed as far as every handler needs it, its body not yet read.
#[derive(Debug)]
pub struct Call {
    /// Method, headers, extensions (the upgrade handle too) and the URI as the client sent it, version included.
    pub parts: request::Parts,
    /// Unread body.
    pub body: Body,
    /// `v1.41` → `Some("1.41")`.
    pub version: Option<String>,
    /// The path without version, percent-decoded: `/containers/web/json`.
    pub path: String,
    pub query: Query,
    /// Values of the holes in the route's pattern.
    pub(crate) holes: Holes,
    /// The caller.
    pub caller: Arc<Principal>,
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

    /// Parses a boolean as Docker does: absent, empty, `0`, `no`, `false`, `none` are false, all else is true.
    pub fn flag(&self, key: &str) -> bool {
        let value = self.get(key).unwrap_or("").trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }
}

impl Call {
    /// The part of the path in this hole of the route's pattern.
    pub(crate) fn hole(&self, name: &str) -> String {
        self.holes.get(name).to_owned()
    }

    /// Reads the body as a JSON object. Empty is `Null`. Errors: 400 if it is anything else or its type says so, 413 over 8 MiB.
    pub async fn json(&mut self) -> Result<Value, ApiError> {
        let bytes = self.bytes(JSON_BYTES_MAX).await?;
        guard::is_json(&self.parts.headers, bytes.is_empty())?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        match serde_json::from_slice(&bytes) {
            Ok(body @ (Value::Object(_) | Value::Null)) => Ok(body),
            Ok(_) => Err(ApiError::bad_request("invalid JSON body: expected an object")),
            Err(error) => Err(ApiError::bad_request(format!("invalid JSON body: {error}"))),
        }
    }

    /// Reads the whole body, up to `limit` bytes.
    pub async fn bytes(&mut self, limit: usize) -> Result<Bytes, ApiError> {
        let declared = self.parts.headers.get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
        if declared.is_some_and(|length| length > limit as u64) {
            return Err(ApiError::too_large(limit));
        }
        let body = std::mem::replace(&mut self.body, herder_pool::empty());
        let share = self.parts.extensions.get::<Budget>().map(Budget::share).unwrap_or_default();
        match timeout(BODY_TIME_MAX, gather_within(body, limit, share)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(NotWhole::TooLarge)) => Err(ApiError::too_large(limit)),
            Ok(Err(NotWhole::Broken(error))) => {
                Err(ApiError::bad_request(format!("the request body broke off: {error}")))
            }
            Err(_) => {
                let seconds = BODY_TIME_MAX.as_secs();
                let sentence = format!("the request body did not arrive within {seconds} s");
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, sentence))
            }
        }
    }
}

/// Reason why a body could not be read whole.
#[derive(Debug)]
pub(crate) enum NotWhole {
    TooLarge,
    Broken(BoxError),
}

/// Reads a body whole, up to `limit` bytes.
pub(crate) async fn gather(body: Body, limit: usize) -> Result<Bytes, NotWhole> {
    gather_within(body, limit, Share::default()).await
}

/// Same as [`gather`], but waits for its share of memory. The share is given back with the last of the bytes.
async fn gather_within(mut body: Body, limit: usize, mut share: Share) -> Result<Bytes, NotWhole> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(NotWhole::Broken)?.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            return Err(NotWhole::TooLarge);
        }
        share.grow_to(first.len() + all.len() + data.len()).await;
        // Most bodies come in one piece, which needs no copy.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(share.hold(if all.is_empty() { first } else { all.freeze() }))
}

/// Reads the answer of an engine whole, up to `limit` bytes.
pub(crate) async fn gather_answer(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    gather(body, limit).await.map_err(|error| match error {
        NotWhole::TooLarge => ApiError::internal(format!("the engine's answer is larger than {limit} bytes")),
        NotWhole::Broken(error) => ApiError::internal(format!("the engine's answer broke off: {error}")),
    })
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(bytes) => raw_json(status, bytes),
        Err(error) => ApiError::internal(format!("the answer cannot be written as JSON: {error}")).into_reply(),
    }
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
