//! Calls to the engine of this node.

use std::time::Duration;

pub(crate) use herder_docker::path::encode_query as escaped;
use herder_docker::{
    Body, EngineError, EngineLink, LinkError, Way, empty, error_message, full, gather, spoken_version,
};
use http::{Method, Request, Response, header};
use parking_lot::RwLock;
use serde_json::Value;
use tokio::time::timeout;

/// Maximum time of an engine for a short call. An engine that makes a hundred containers at the same time is slow for
/// all.
pub(crate) const CALL_TIME_MAX: Duration = Duration::from_secs(120);

/// A list of 10,000 containers has some 20 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The engine beside this node.
#[derive(Debug)]
pub(crate) struct Engine {
    addr: String,
    link: EngineLink,
    /// `/v1.41`, once the engine has said what it speaks.
    version: RwLock<String>,
}

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct Call<'c> {
    engine: &'c Engine,
    method: Method,
    path: String,
    body: Option<&'c Value>,
    registry_auth: &'c str,
    limit: Duration,
}

impl Engine {
    pub(crate) fn new(addr: &str, way: Way) -> Engine {
        Engine { addr: addr.to_owned(), link: EngineLink::new(addr, way), version: RwLock::default() }
    }

    /// Checks that the engine answers at all. The call does not queue behind others: their number says nothing about
    /// the engine's health.
    pub(crate) async fn ping(&self, limit: Duration) -> Result<(), EngineError> {
        let uri = format!("{}/_ping", self.version.read());
        let request = Request::builder().uri(uri).body(empty()).map_err(|error| self.unreadable("/_ping", error))?;
        let answer = timeout(limit, self.link.send_at_once(request)).await.map_err(|_| self.late(limit))??;
        match answer.status().as_u16() {
            status @ 400.. => Err(EngineError::Answer { status, message: format!("/_ping answers {status}") }),
            // Read to its end, or the connection could not be used again.
            _ => timeout(limit, gather(answer.into_body(), ANSWER_BYTES_MAX))
                .await
                .map_err(|_| self.late(limit))
                .map(drop),
        }
    }

    pub(crate) fn get(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::GET, path)
    }

    pub(crate) fn post(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::POST, path)
    }

    pub(crate) fn delete(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::DELETE, path)
    }

    fn call(&self, method: Method, path: impl Into<String>) -> Call<'_> {
        Call { engine: self, method, path: path.into(), body: None, registry_auth: "", limit: CALL_TIME_MAX }
    }

    /// Learns which version of the API the engine speaks.
    pub(crate) async fn greet(&self) -> Result<(), EngineError> {
        self.version.write().clear();
        let answer = self.get("/version").json().await?;
        let spoken = spoken_version(answer["ApiVersion"].as_str().unwrap_or_default());
        *self.version.write() = format!("/v{spoken}");
        Ok(())
    }

    fn unreadable(&self, path: &str, reason: impl ToString) -> EngineError {
        EngineError::Unreadable { addr: self.addr.clone(), path: path.to_owned(), reason: reason.to_string() }
    }

    fn late(&self, limit: Duration) -> EngineError {
        LinkError::Timeout { url: self.link.url(), seconds: limit.as_secs().max(1) }.into()
    }
}

impl<'c> Call<'c> {
    pub(crate) fn body(self, body: &'c Value) -> Self {
        Call { body: Some(body), ..self }
    }

    pub(crate) fn registry_auth(self, auth: &'c str) -> Self {
        Call { registry_auth: auth, ..self }
    }

    pub(crate) fn limit(self, limit: Duration) -> Self {
        Call { limit, ..self }
    }

    /// The answer as soon as its head is there; one of 400 and above is an error. The limit is for the head.
    pub(crate) async fn open(self) -> Result<Response<Body>, EngineError> {
        let engine = self.engine;
        let uri = format!("{}{}", engine.version.read(), self.path);
        let mut request = Request::builder().method(self.method).uri(uri);
        if !self.registry_auth.is_empty() {
            request = request.header("X-Registry-Auth", self.registry_auth);
        }
        let request = match self.body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(full(body.to_string())),
            None => request.body(empty()),
        };
        let request = request.map_err(|error| engine.unreadable(&self.path, error))?;
        let answer = timeout(self.limit, engine.link.send(request)).await;
        let response = answer.map_err(|_| engine.late(self.limit))??;
        if response.status().as_u16() < 400 {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let bytes = timeout(self.limit, gather(response.into_body(), ANSWER_BYTES_MAX)).await;
        let bytes = bytes.map_err(|_| engine.late(self.limit))?.unwrap_or_default();
        Err(EngineError::Answer { status, message: error_message(&bytes) })
    }

    /// The whole answer; nothing is `null`.
    pub(crate) async fn json(self) -> Result<Value, EngineError> {
        let (engine, path, limit) = (self.engine, self.path.clone(), self.limit);
        let response = self.open().await?;
        let bytes =
            timeout(limit, gather(response.into_body(), ANSWER_BYTES_MAX)).await.map_err(|_| engine.late(limit))?;
        let bytes = bytes.map_err(|reason| engine.unreadable(&path, reason))?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| engine.unreadable(&path, error))
    }

    /// Only whether it was done. What is done already is as good.
    pub(crate) async fn done(self) -> Result<(), EngineError> {
        self.json().await.map(drop)
    }
}

/// The engine said no. Else nothing is known: it did not answer, or not in a way that makes sense.
pub(crate) fn refusal(error: &EngineError) -> Option<(u16, &str)> {
    match error {
        EngineError::Answer { status, message } => Some((*status, message)),
        EngineError::Link(_) | EngineError::Refused { .. } | EngineError::Unreadable { .. } => None,
    }
}
