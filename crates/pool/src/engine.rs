//! One engine of the pool: a link to it and what was last seen on it.

mod read;

pub(crate) use read::Depth;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use herder_docker::{Body, EngineError, EngineLink, LinkError, empty, error_message, full, gather};
use herder_model::{Node, NodeState};
use http::{Method, Request, Response, StatusCode, header};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::Source;
use crate::board::{Board, now_nano};
use crate::ingest::Facts;
use crate::pool::Settings;

/// Maximum time of an engine for herder's own calls. As in classic Swarm.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// A JSON answer of an engine may have this many bytes; 10,000 containers make about 20 MB.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// One engine of the pool.
#[derive(Debug)]
pub struct Engine {
    addr: String,
    link: EngineLink,
    pub(crate) settings: Arc<Settings>,
    pub(crate) board: Arc<Board>,
    node: RwLock<Arc<Node>>,
    /// Each read takes a number when it starts; what a read saw never replaces what a later read saw.
    pub(crate) reads: Arc<AtomicU64>,
    pub(crate) told: Mutex<read::LatestReads>,
    /// Numbers of the latest reads of images, networks, volumes.
    lists_told: read::ListsTold,
    readings: read::Readings,
    /// The engine's latest description of itself.
    pub(crate) facts: Mutex<Option<Facts>>,
    /// Seconds to add to the engine's times, when its clock differs from ours.
    pub(crate) shift: AtomicI64,
    /// A call gave a sign that the engine may be gone.
    pub(crate) suspicion: Notify,
    healthy: watch::Sender<bool>,
    described: Mutex<Description>,
    /// Another part reports that the host is gone.
    pub(crate) presumed: Notify,
    /// Grows with each new picture of the node.
    version: watch::Sender<u64>,
    /// The node that reads this engine, if it is not this one.
    pub(crate) source: Option<Arc<dyn Source>>,
    /// Number of the last picture that came from there.
    pub(crate) arrived: watch::Sender<u64>,
}

/// Name and labels that are configured for a node and override those of its engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Instead of the engine's own name, unless empty.
    pub name: String,
    /// Besides those of the engine; these win.
    pub labels: BTreeMap<String, String>,
}

impl Engine {
    pub(crate) fn new(addr: &str, settings: Arc<Settings>, board: Arc<Board>) -> Engine {
        let host = herder_model::host_of(addr);
        let node = Node { addr: addr.to_owned(), ip: host.trim_matches(['[', ']']).to_owned(), ..Node::default() };
        let source = settings.source.clone().filter(|source| source.reports_on(addr));
        Engine {
            addr: addr.to_owned(),
            link: EngineLink::new(addr, settings.way.clone()),
            settings,
            board,
            node: RwLock::new(Arc::new(node)),
            reads: Arc::new(AtomicU64::new(1)),
            told: Mutex::default(),
            lists_told: read::ListsTold::default(),
            readings: read::Readings::default(),
            facts: Mutex::default(),
            shift: AtomicI64::new(0),
            suspicion: Notify::new(),
            healthy: watch::Sender::new(false),
            described: Mutex::default(),
            presumed: Notify::new(),
            // Larger than all numbers before a restart.
            version: watch::Sender::new(now_nano().unsigned_abs()),
            source,
            arrived: watch::Sender::new(0),
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

    /// Number of the picture that [`Engine::node`] gives.
    pub(crate) fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Number of the picture that [`Engine::node`] gives, as the node beside the engine counts its pictures.
    pub fn picture(&self) -> u64 {
        if self.source.is_some() { *self.arrived.borrow() } else { self.version() }
    }

    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Waits until the engine is not healthy (any more). For streams that would else hang on a dead host.
    pub async fn until_lost(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.healthy.subscribe().wait_for(|healthy| !healthy).await;
    }

    /// Says what the engine itself does not. Shown from now on.
    pub fn describe(&self, description: Description) {
        let mut described = self.described.lock();
        if *described == description {
            return;
        }
        *described = description;
        drop(described);
        if let Some(facts) = self.facts.lock().clone() {
            self.update(|node| {
                node.name = facts.name;
                node.labels = facts.labels;
                self.add_description(node);
            });
        }
    }

    pub(crate) fn add_description(&self, node: &mut Node) {
        let described = self.described.lock();
        if !described.name.is_empty() {
            node.name.clone_from(&described.name);
        }
        node.labels.extend(described.labels.clone());
    }

    /// Marks the node as unhealthy at once, until it answers again, since another source says that its host is gone.
    pub fn presume_lost(&self) {
        self.presumed.notify_one();
    }

    /// Passes a request through. The path is sent as it is (with the client's own version in it).
    /// A connection error makes the pool look at once whether the engine lives.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, EngineError> {
        let answer = self.link.send(request).await;
        self.judge(&answer);
        Ok(answer?)
    }

    /// An answer of any kind is a sign of life; none is a reason to look.
    fn judge(&self, answer: &Result<Response<Body>, LinkError>) {
        match answer {
            Ok(_) => self.note_success(),
            // Not the engine's fault.
            Err(LinkError::Busy { .. }) => {}
            Err(
                LinkError::Connect { .. }
                | LinkError::Tls { .. }
                | LinkError::Timeout { .. }
                | LinkError::Broken { .. },
            ) => {
                self.suspicion.notify_one();
            }
        }
    }

    /// Asks whether the engine lives. Does not stand behind other requests. Who may not ask (403, say) is answered, too; but not
    /// by an engine that wants TLS now (400), or by a proxy before one that is away (502).
    pub(crate) async fn ping(&self) -> Result<(), EngineError> {
        let limit = self.settings.ping_timeout;
        let request = self.request(Method::GET, "/_ping", None)?;
        let work = async {
            let response = self.link.send_at_once(request).await?;
            let status = response.status();
            if status == StatusCode::BAD_REQUEST || status.is_server_error() {
                return self.answer(response).await.map(drop);
            }
            self.gather(response.into_body()).await.map(drop)
        };
        timeout(limit, work).await.unwrap_or_else(|_| Err(self.late(limit)))?;
        self.note_success();
        Ok(())
    }

    fn late(&self, limit: Duration) -> EngineError {
        LinkError::Timeout { url: self.link.url(), seconds: limit.as_secs().max(1) }.into()
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

    /// Same as [`Engine::call`], with the answer as bytes and a given limit.
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
        timeout(limit, work).await.unwrap_or_else(|_| Err(self.late(limit)))
    }

    /// Reads a body whole, up to [`ANSWER_BYTES_MAX`].
    async fn gather(&self, body: Body) -> Result<bytes::Bytes, EngineError> {
        let gathered = gather(body, ANSWER_BYTES_MAX).await;
        Ok(gathered.map_err(|error| error.on(&self.link.url()))?)
    }

    /// Sends a call of herder's own and gives the answer before its body is read. Unbounded in time.
    pub async fn open(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Body>, EngineError> {
        let version = self.node.read().api_version.clone();
        let uri = if version.is_empty() { path.to_owned() } else { format!("/v{version}{path}") };
        let request = self.request(method, &uri, body)?;
        self.answer(self.send(request).await?).await
    }

    /// `GET path` (without version: the engine may speak another one by now), the answer as JSON.
    pub(crate) async fn ask(&self, path: &str, limit: Duration) -> Result<Value, EngineError> {
        let request = self.request(Method::GET, path, None)?;
        let work = async {
            let response = self.answer(self.link.send_at_once(request).await?).await?;
            self.gather(response.into_body()).await
        };
        let bytes = timeout(limit, work).await.unwrap_or_else(|_| Err(self.late(limit)))?;
        serde_json::from_slice(&bytes).map_err(|error| self.unreadable(path, error.to_string()))
    }

    fn request(&self, method: Method, uri: &str, body: Option<&Value>) -> Result<Request<Body>, EngineError> {
        let request = Request::builder().method(method).uri(uri);
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(full(body.to_string())),
            None => request.body(empty()),
        };
        request.map_err(|error| self.unreadable(uri, error.to_string()))
    }

    /// Turns answers of 400 and above into errors.
    async fn answer(&self, response: Response<Body>) -> Result<Response<Body>, EngineError> {
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

    /// Changes the picture of the node and notifies waiting tasks.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Node) -> T) -> T {
        let answer = self.repaint(change);
        self.board.changed();
        answer
    }

    /// Changes what is no news: when the picture was taken, how often the engine failed.
    fn repaint<T>(&self, change: impl FnOnce(&mut Node) -> T) -> T {
        let answer = {
            let mut node = self.node.write();
            let answer = change(Arc::make_mut(&mut node));
            self.healthy.send_if_modified(|healthy| std::mem::replace(healthy, node.is_healthy()) != node.is_healthy());
            self.version.send_modify(|version| *version += 1);
            answer
        };
        self.board.repainted();
        answer
    }

    /// Notes that the picture is true as of now.
    pub(crate) fn touch(&self, now_s: i64) {
        self.repaint(|node| node.updated_at = now_s);
    }

    /// The engine answered: failures are forgotten.
    pub(crate) fn note_success(&self) {
        if self.node.read().failures > 0 {
            self.repaint(|node| {
                node.failures = 0;
                // An unhealthy node stays so until everything on it was read again.
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
        let lost = self.repaint(|node| {
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
        });
        if lost {
            self.board.changed();
        }
        lost
    }

    pub(crate) fn next_read(&self) -> u64 {
        self.reads.fetch_add(1, Ordering::Relaxed)
    }
}
