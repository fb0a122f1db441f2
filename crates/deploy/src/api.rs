//! The target of a deployment, as an HTTP client.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use http::Method;
use serde_json::Value;

use crate::plan::Kind;

/// The pieces of an answer that comes bit by bit.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// The Docker API of a target.
pub trait Api: Sync {
    /// Sends one request without an API version in its path. A status that is no success comes back as an answer.
    fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> impl Future<Output = Result<Answer, Fault>> + Send;

    /// Asks for an answer that may never end: logs.
    fn pieces(&self, path: &str) -> impl Future<Output = Result<Pieces, Fault>> + Send;

    /// Tells the content of a secret or config that exists. A target that keeps no such objects needs it for its containers.
    fn content(&self, _kind: Kind, _name: &str, _body: &Value) {}

    /// Ends a deployment that all went well in: what was kept for going back may go.
    fn settle(&self, _stack: &str) -> impl Future<Output = Result<(), Fault>> + Send {
        std::future::ready(Ok(()))
    }
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// The body; null where it is empty.
    pub body: Value,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The reason for which a deployment stops.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is no usable answer: the target cannot be reached, or its answer is malformed.
    #[error("{0}")]
    Unreachable(String),
    /// The target cannot be used, for a cause that programs can tell apart.
    #[error("{reason}")]
    Unusable { cause: Cause, reason: String },
    /// The target refused a request.
    #[error("{what}: {message}")]
    Refused { what: String, status: u16, message: String },
    /// Objects that the stack needs do not exist, or belong to somebody else.
    #[error("{}", .0.join("; "))]
    Missing(Vec<String>),
    /// Tasks did not come to run.
    #[error("{service}: {reason}")]
    Failed { service: String, reason: String },
    /// The time was over before all tasks ran. The target goes on.
    #[error("not all services run as declared after {seconds} s: {}", .waiting.join(", "))]
    Late { seconds: u64, waiting: Vec<String> },
}

/// The cause for which a target cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It did not answer in time.
    Timeout,
    /// It answers without TLS.
    PlainServer,
    /// It wants TLS.
    NeedsTls,
    /// Its certificate is not of the CA that was given.
    UnknownCa,
    /// Its certificate is not valid now.
    Expired,
    /// Its certificate is for other names.
    Name,
    /// It does not take the client's certificate.
    ClientRefused,
    /// The client's key is not that of its certificate.
    KeyMismatch,
    /// The client's certificate or key cannot be read.
    BadPem,
    /// Its API is too old.
    EngineVersion,
    /// It is a worker of its swarm.
    NotAManager,
    /// It is in no swarm.
    SwarmInactive,
    /// Its swarm is locked.
    SwarmLocked,
    /// Its answer is too large or makes no sense.
    BadAnswer,
}

impl Cause {
    /// The code of the stack API.
    pub fn code(self) -> &'static str {
        match self {
            Cause::Timeout => "target_timeout",
            Cause::PlainServer => "tls_plain_server",
            Cause::NeedsTls => "tls_needed",
            Cause::UnknownCa => "tls_unknown_ca",
            Cause::Expired => "tls_expired",
            Cause::Name => "tls_name",
            Cause::ClientRefused => "tls_client_refused",
            Cause::KeyMismatch => "tls_key_mismatch",
            Cause::BadPem => "tls_bad_pem",
            Cause::EngineVersion => "engine_version",
            Cause::NotAManager => "not_a_manager",
            Cause::SwarmInactive => "swarm_inactive",
            Cause::SwarmLocked => "swarm_locked",
            Cause::BadAnswer => "bad_answer",
        }
    }
}

/// Sends a request and gives its body, or the refusal. `what` names the object in the refusal.
pub(crate) async fn ask(
    api: &impl Api,
    method: Method,
    path: &str,
    body: Option<&Value>,
    what: &str,
) -> Result<Value, Fault> {
    let answer = api.call(method, path, body).await?;
    if answer.is_success() {
        return Ok(answer.body);
    }
    let message = answer.body["message"].as_str().unwrap_or("no reason is given").to_owned();
    Err(Fault::Refused { what: what.to_owned(), status: answer.status, message })
}

/// A list; none where the target answers null.
pub(crate) async fn list(api: &impl Api, path: &str, what: &str) -> Result<Vec<Value>, Fault> {
    let body = ask(api, Method::GET, path, None, what).await?;
    Ok(body.as_array().cloned().unwrap_or_default())
}

/// Filters as part of a path.
pub(crate) fn filters(filters: &Value) -> String {
    escape(&filters.to_string())
}

/// A text as part of a path.
pub fn escape(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    escaped.collect()
}
