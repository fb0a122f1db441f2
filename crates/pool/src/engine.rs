//! One engine of the pool: a link to it and what was last seen on it.

mod read;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use herder_drivers::engine::{Body, EngineLink, LinkError, empty, full};
use herder_model::{Node, NodeState};
use http::{Method, Request, Response, header};
use http_body_util::BodyExt as _;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::board::Board;
use crate::pool::Settings;

/// How long an engine may take for a call of herder's own. As in classic Swarm.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// A JSON answer of an engine may have this many bytes; 10,000 containers make about 20 MB.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The newest version of the Docker API that herder speaks with engines.
const API_VERSION_MAX: &str = "1.50";

/// What can go wrong between herder and one engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The engine answered with an error; status and message are its own.
    #[error("{message}")]
    Answer { status: u16, message: String },
    /// The engine's answer is not what its API promises.
    #[error("the engine at {addr} answered {path} with something unreadable: {reason}")]
    Unreadable { addr: String, path: String, reason: String },
}

/// One engine of the pool.
#[derive(Debug)]
pub struct Engine {
    addr: String,
    link: EngineLink,
    pub(crate) settings: Arc<Settings>,
    pub(crate) board: Arc<Board>,
    node: RwLock<Arc<Node>>,
    /// Each read takes a number when it starts; what a read saw never replaces what a later read saw.
    reads: AtomicU64,
    /// Container id → number of the read that last told about it.
    told: Mutex<HashMap<String, u64>>,
    /// Seconds to add to the engine's times, when its clock differs from ours.
    pub(crate) shift: AtomicI64,
    /// Somebody saw a sign that the engine may be gone.
    pub(crate) suspicion: Notify,
    healthy: watch::Sender<bool>,
}

impl Engine {
    pub(crate) fn new(addr: &str, settings: Arc<Settings>, board: Arc<Board>) -> Engine {
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
        let node = Node { addr: addr.to_owned(), ip: host.trim_matches(['[', ']']).to_owned(), ..Node::default() };
        Engine {
            addr: addr.to_owned(),
            link: EngineLink::new(addr, settings.tls.clone()),
            settings,
            board,
            node: RwLock::new(Arc::new(node)),
            reads: AtomicU64::new(1),
            told: Mutex::default(),
            shift: AtomicI64::new(0),
            suspicion: Notify::new(),
            healthy: watch::Sender::new(false),
        }
    }

    /// The node as last seen. Never waits.
    pub fn node(&self) -> Arc<Node> {
        self.node.read().clone()
    }

    /// `host:port` as discovery knows it.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Waits until the engine is not healthy (any more). For streams that would else hang on a dead host.
    pub async fn until_lost(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.healthy.subscribe().wait_for(|healthy| !healthy).await;
    }

    /// Passes a request through. The path is sent as it is (with the client's own version in it).
    /// A connection error makes the pool look at once whether the engine lives.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, EngineError> {
        self.link.send(request).await.map_err(|error| {
            self.suspicion.notify_one();
            error.into()
        })
    }

    /// A call of herder's own: `path` without version (`/containers/json?all=1`); the version negotiated with the
    /// engine is put in front. Bounded by the request timeout and by a maximal size of the answer.
    /// An answer of 400 and above is `EngineError::Answer`. An empty answer is `Value::Null`.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, EngineError> {
        let bytes = self.fetch(method, path, body, CALL_TIME_MAX).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| self.unreadable(path, error.to_string()))
    }

    /// As [`Engine::call`], the answer as bytes and the time limit given.
    pub async fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<bytes::Bytes, EngineError> {
        let work = async {
            let response = self.open(method, path, body).await?;
            self.gather(response.into_body()).await
        };
        let late = || LinkError::Timeout { url: self.link.url(), seconds: limit.as_secs().max(1) };
        timeout(limit, work).await.unwrap_or_else(|_| Err(late().into()))
    }

    /// Reads a body whole, up to [`ANSWER_BYTES_MAX`].
    async fn gather(&self, mut body: Body) -> Result<bytes::Bytes, EngineError> {
        let broken = |source| LinkError::Broken { url: self.link.url(), source };
        let mut gathered = bytes::BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(broken)?;
            gathered.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if gathered.len() > ANSWER_BYTES_MAX {
                return Err(broken(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes").into()).into());
            }
        }
        Ok(gathered.freeze())
    }

    /// Sends a call of herder's own and gives the answer before its body is read. Unbounded in time.
    pub async fn open(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Body>, EngineError> {
        let version = self.node.read().api_version.clone();
        let uri = if version.is_empty() { path.to_owned() } else { format!("/v{version}{path}") };
        let body = body.map(|value| full(value.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.unwrap_or_else(empty))
            .map_err(|error| self.unreadable(path, error.to_string()))?;
        let response = self.send(request).await?;
        if response.status().as_u16() < 400 {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let bytes = self.gather(response.into_body()).await.unwrap_or_default();
        Err(EngineError::Answer { status, message: error_message(&bytes) })
    }

    fn unreadable(&self, path: &str, reason: String) -> EngineError {
        EngineError::Unreadable { addr: self.addr.clone(), path: path.to_owned(), reason }
    }

    /// Changes the picture of the node and tells whoever waits for changes.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Node) -> T) -> T {
        let answer = {
            let mut node = self.node.write();
            let answer = change(Arc::make_mut(&mut node));
            self.healthy.send_if_modified(|healthy| std::mem::replace(healthy, node.is_healthy()) != node.is_healthy());
            answer
        };
        self.board.changed();
        answer
    }

    /// The engine answered: failures are forgotten.
    pub(crate) fn note_success(&self) {
        if self.node.read().failures > 0 {
            self.update(|node| {
                node.failures = 0;
                if node.state == NodeState::Healthy {
                    node.error = None;
                    node.health_indicator = 100;
                }
            });
        }
    }

    /// The engine did not answer. True if that makes a healthy node unhealthy.
    pub(crate) fn note_failure(&self, error: &EngineError) -> bool {
        let retry = self.settings.failure_retry;
        self.update(|node| {
            node.failures = node.failures.saturating_add(1);
            node.error = Some(error.to_string());
            let lost = node.failures >= retry && node.state == NodeState::Healthy;
            if lost {
                node.state = NodeState::Unhealthy;
            }
            node.health_indicator = match node.state {
                NodeState::Healthy => 100 - i64::from(node.failures) * 100 / i64::from(retry.max(1)),
                NodeState::Pending | NodeState::Unhealthy => 0,
            };
            lost
        })
    }

    pub(crate) fn next_read(&self) -> u64 {
        self.reads.fetch_add(1, Ordering::Relaxed)
    }
}

/// The `message` of Docker's error form, or the text itself.
fn error_message(bytes: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(bytes).ok();
    let message = value.as_ref().and_then(|value| value["message"].as_str());
    message.map_or_else(|| String::from_utf8_lossy(bytes).trim().to_owned(), str::to_owned)
}

/// The older of two API versions, such as `1.41` and `1.50`.
pub(crate) fn older_version(engine: &str) -> String {
    let parts = |version: &str| -> Vec<u32> { version.split('.').filter_map(|part| part.parse().ok()).collect() };
    if engine.is_empty() || parts(engine) > parts(API_VERSION_MAX) { API_VERSION_MAX.into() } else { engine.into() }
}
