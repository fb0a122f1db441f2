//! One Docker engine, reached by HTTP/1.1 over TCP, TLS or a unix socket. Bytes in, bytes out: nothing is decoded here.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::TlsFault;
use crate::connect::{Connector, Refusal, Way, tls_error};

/// Any error that a body can end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streaming body, in either direction.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body of no bytes.
pub fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Requests to one engine that may wait for an answer at the same time. Engines work on far fewer; more would only pile up
/// sockets. Streams that already answer do not count.
const REQUESTS_MAX: usize = 128;

/// Requests to one engine that may wait for their turn. More are refused at once: they could only time out.
const REQUESTS_WAITING_MAX: usize = 1024;

/// Maximum time that a request waits for its turn among [`REQUESTS_MAX`].
const TURN_WAIT_MAX: Duration = Duration::from_secs(30);

/// Connections without work that are kept for the next request.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// Time for which an idle connection is kept. Each costs some 20 kB here, and a thousand engines are read in turn; the
/// pings keep one connection open anyway.
const IDLE_TIME_MAX: Duration = Duration::from_secs(2);

/// Reason why an engine gave no HTTP response. Error statuses such as 404 are responses, not link errors.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The engine's socket refuses or cannot be reached. Text is what Docker clients know.
    #[error("Cannot connect to the Docker daemon at {url}. Is the docker daemon running?")]
    Connect { url: String, source: BoxError },
    /// One side does not take the other's certificate, or does not speak TLS at all.
    #[error("no TLS connection to the Docker engine at {url}: {reason}")]
    Tls { url: String, reason: String, fault: TlsFault },
    /// There was no answer in time.
    #[error("the Docker engine at {url} did not answer within {seconds} s")]
    Timeout { url: String, seconds: u64 },
    /// More requests wait than the engine could ever answer in time.
    #[error("the Docker engine at {url} has {waiting} requests waiting already; try again later")]
    Busy { url: String, waiting: usize },
    /// The connection broke in the middle.
    #[error("the connection to the Docker engine at {url} broke: {source}")]
    Broken { url: String, source: BoxError },
}

/// A way to reach one engine: keeps a bounded number of connections.
#[derive(Debug)]
pub struct EngineLink {
    addr: String,
    client: Client<Connector, Body>,
    refusal: Refusal,
    turns: Semaphore,
    /// Room for those that wait for a turn or have one.
    room: Semaphore,
}

impl EngineLink {
    /// `addr` is `host:port` or `unix:///path`, or what the dialler of `way` knows.
    pub fn new(addr: &str, way: Way) -> EngineLink {
        let refusal = Refusal::default();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .set_host(false)
            .build(Connector::new(addr, way, refusal.clone()));
        let (turns, room) = (Semaphore::new(REQUESTS_MAX), Semaphore::new(REQUESTS_MAX + REQUESTS_WAITING_MAX));
        EngineLink { addr: addr.to_owned(), client, refusal, turns, room }
    }

    /// `tcp://host:port` or `unix:///path`.
    pub fn url(&self) -> String {
        if self.addr.contains("://") { self.addr.clone() } else { format!("tcp://{}", self.addr) }
    }

    /// Sends one request and gives the answer as soon as its head is there. The path is sent as it is.
    /// For a request with `Upgrade`, `hyper::upgrade::on(response)` gives the raw stream after a 101.
    /// Unbounded in time: callers that need a limit put one around it.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, LinkError> {
        let busy = |_| LinkError::Busy { url: self.url(), waiting: REQUESTS_WAITING_MAX };
        let _room = self.room.try_acquire().map_err(busy)?;
        let late = |_| LinkError::Timeout { url: self.url(), seconds: TURN_WAIT_MAX.as_secs() };
        let _turn = timeout(TURN_WAIT_MAX, self.turns.acquire()).await.map_err(late)?;
        self.send_at_once(request).await
    }

    /// Same as [`EngineLink::send`], without waiting for a turn. It is for the few requests that must not queue behind
    /// those of clients: their number says nothing about an engine's health.
    pub async fn send_at_once(&self, request: Request<Body>) -> Result<Response<Body>, LinkError> {
        let request = self.address(request)?;
        let again = repeatable(&request);
        let answer = match (self.client.request(request).await, again) {
            (Err(error), Some(again)) if was_closed(&error) => self.client.request(again).await,
            (answer, _) => answer,
        };
        let url = || self.url();
        match answer {
            Ok(response) => Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync())),
            Err(error) if let Some(reason) = tls_reason(&error).or_else(|| self.refusal.lock().take()) => {
                Err(LinkError::Tls { url: url(), reason: reason.to_string(), fault: TlsFault::of(&reason) })
            }
            Err(error) if error.is_connect() => Err(LinkError::Connect { url: url(), source: error.into() }),
            Err(error) => Err(LinkError::Broken { url: url(), source: error.into() }),
        }
    }

    /// Makes the request one for this engine.
    fn address(&self, mut request: Request<Body>) -> Result<Request<Body>, LinkError> {
        let wrong = |error: http::Error| LinkError::Connect { url: self.url(), source: error.into() };
        let host = if self.addr.contains("://") { "docker" } else { &self.addr };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() =
            Uri::builder().scheme("http").authority(host).path_and_query(path).build().map_err(wrong)?;
        let host = HeaderValue::from_str(host).map_err(|error| wrong(error.into()))?;
        request.headers_mut().insert(header::HOST, host);
        Ok(request)
    }
}

/// The same request once more, if it may be sent twice: it only reads, and has no body.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.method().is_safe() || !request.body().is_end_stream() || request.headers().contains_key(header::UPGRADE)
    {
        return None;
    }
    let mut again = Request::new(empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Returns the TLS error in the source chain of an error. In TLS 1.3 a rejected client certificate shows only at the
/// first read.
fn tls_reason(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|cause| cause.downcast_ref::<std::io::Error>().and_then(tls_error))
}

/// The connection ended before a byte of the answer came. That is normal for a connection that was kept from an earlier
/// request, when the engine closed it at the same moment (it was restarted, say).
fn was_closed(error: &hyper_util::client::legacy::Error) -> bool {
    let source = std::error::Error::source(error);
    let Some(error) = source.and_then(|source| source.downcast_ref::<hyper::Error>()) else { return false };
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let reset =
        io.is_some_and(|io| matches!(io.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe));
    error.is_incomplete_message() || reset
}
