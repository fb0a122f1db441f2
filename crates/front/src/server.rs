//! Listening sockets, and the connections on them: TCP, TLS over TCP, unix sockets (TLS there too, as in classic Swarm).
//! Docker's clients come to [`serve`], Vert.x clients of the event bus by TCP to [`serve_bus`].
//!
//! Every wait before a request is bounded; a request itself may last as long as its engine's stream does.

mod head;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use herder_bus::bridge::{self, Bridge};
use herder_tls::tcp;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use crate::{ApiError, Front};
use head::{Busy, HeadLimit};

/// Connections served at the same time, hijacked ones included; more wait in the kernel. Bounds memory and files.
const CONNECTIONS_MAX: usize = 8192;

/// Clients of the bus by TCP at the same time; more wait in the kernel.
const BUS_CLIENTS_MAX: usize = 1024;

/// A head (request line and headers) must be complete this long after its first byte.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// A connection without a request is closed after this long. Docker's clients open a new one when they need it.
const IDLE_TIME_MAX: Duration = Duration::from_secs(300);

/// A head may have this many bytes: registry passwords for a build (`X-Registry-Config`) take some kilobytes. Also the
/// largest piece in which a body is read.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// A TLS handshake takes at most this long.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// What a client without TLS is told, in Docker's words.
const PLAIN_REFUSED: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\
    {\"message\":\"Client sent an HTTP request to an HTTPS server.\"}\n";

/// After the stop was asked for, requests under way have this long.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);

/// After a failed `accept` (no more files), the next attempt waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("unsupported protocol: {0:?}; listen on tcp://host:port or unix:///path")]
    Protocol(String),
    #[error(
        "cannot listen on {url}: the address is in use; is Docker already running on this machine? Try using a different port"
    )]
    DockersPort { url: String },
    #[error("cannot listen on {url}: another program listens on this socket")]
    SocketInUse { url: String },
    #[error("cannot listen on {url}")]
    Io { url: String, source: io::Error },
}

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    url: String,
    socket: Socket,
    tls: Option<Arc<rustls::ServerConfig>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// As given to [`bind`].
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address that was bound, for port 0.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(tcp) => tcp.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            // Nobody listens there any more; a file that stays would only be in the way.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Opens a listener on `tcp://host:port`, `host:port` or `unix:///path`. A socket file that nobody listens on is replaced;
/// the new one is only for the owner, as it gives root to whoever may write to it.
pub async fn bind(url: &str, tls: Option<Arc<rustls::ServerConfig>>) -> Result<Listener, BindError> {
    let socket = match url.split_once("://") {
        Some(("tcp", addr)) => bind_tcp(url, addr).await?,
        Some(("unix", path)) => bind_unix(url, Path::new(path)).await?,
        Some((other, _)) => return Err(BindError::Protocol(other.to_owned())),
        None => bind_tcp(url, url).await?,
    };
    Ok(Listener { url: url.to_owned(), socket, tls })
}

async fn bind_tcp(url: &str, addr: &str) -> Result<Socket, BindError> {
    let result = TcpListener::bind(addr.trim_end_matches('/')).await;
    result.map(Socket::Tcp).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse if addr.ends_with(":2375") => BindError::DockersPort { url: url.to_owned() },
        _ => BindError::Io { url: url.to_owned(), source },
    })
}

async fn bind_unix(url: &str, path: &Path) -> Result<Socket, BindError> {
    let failed = |source| BindError::Io { url: url.to_owned(), source };
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        return Err(BindError::SocketInUse { url: url.to_owned() });
    }
    // Made under another name, closed to others, then moved into place: at no moment can somebody else connect.
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary).map_err(failed)?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    let placed = std::fs::set_permissions(&temporary, private).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = placed {
        let _ = std::fs::remove_file(&temporary);
        return Err(failed(error));
    }
    Ok(Socket::Unix(listener, path.to_owned()))
}

/// Serves until `stop`; then no connection is taken any more, and requests under way have a moment to end.
pub async fn serve(front: Arc<Front>, listeners: Vec<Listener>, stop: CancellationToken) {
    serve_newest(watch::channel(front).1, listeners, stop).await;
}

/// As [`serve`]; each request is given to the front that is the newest when it comes.
pub async fn serve_newest(fronts: watch::Receiver<Arc<Front>>, listeners: Vec<Listener>, stop: CancellationToken) {
    let shared = Shared { service: Service::Docker(fronts), tasks: TaskTracker::new(), stop };
    let limit = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    join_all(listeners.into_iter().map(|listener| accept_loop(listener, shared.clone(), limit.clone()))).await;
    shared.end().await;
}

/// Serves clients of the event bus, which speak the TCP bridge protocol of Vert.x, until `stop`.
pub async fn serve_bus(bridge: Arc<Bridge>, listener: Listener, stop: CancellationToken) {
    let shared = Shared { service: Service::Bus(bridge), tasks: TaskTracker::new(), stop };
    accept_loop(listener, shared.clone(), Arc::new(Semaphore::new(BUS_CLIENTS_MAX))).await;
    shared.end().await;
}

/// What each connection needs.
#[derive(Clone, Debug)]
struct Shared {
    service: Service,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What clients come for.
#[derive(Clone, Debug)]
enum Service {
    Docker(watch::Receiver<Arc<Front>>),
    Bus(Arc<Bridge>),
}

impl Service {
    /// Names the client in what is logged about it. Docker's clients are many and short; their requests speak for themselves.
    fn span(&self, stream: &Accepted) -> Span {
        match (self, stream) {
            (Service::Bus(_), Accepted::Tcp(tcp)) => tracing::info_span!("bus", client = ?tcp.peer_addr().ok()),
            (Service::Bus(_), Accepted::Unix(_)) | (Service::Docker(_), _) => Span::none(),
        }
    }
}

impl Shared {
    /// Waits a moment for what is under way.
    async fn end(self) {
        self.tasks.close();
        if timeout(STOP_TIME_MAX, self.tasks.wait()).await.is_err() {
            tracing::info!(connections = self.tasks.len(), "streams are cut off");
        }
    }
}

/// In the extensions of a request: keeps its connection counted after the connection was hijacked.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    _permit: Arc<OwnedSemaphorePermit>,
}

async fn accept_loop(listener: Listener, shared: Shared, limit: Arc<Semaphore>) {
    tracing::info!(url = listener.url, "listening");
    let stop = shared.stop.clone();
    loop {
        let next = async {
            let permit = limit.clone().acquire_owned().await.ok()?;
            Some((accept(&listener.socket).await, permit))
        };
        let Some(Some((accepted, permit))) = stop.run_until_cancelled(next).await else { return };
        match accepted {
            Ok(stream) => {
                let tls = listener.tls.clone().map(TlsAcceptor::from);
                let span = shared.service.span(&stream);
                let greeted = greet(stream, tls, shared.clone(), Counted { _permit: Arc::new(permit) });
                shared.tasks.spawn(greeted.instrument(span));
            }
            Err(error) => {
                tracing::warn!(url = listener.url, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

async fn accept(socket: &Socket) -> io::Result<Accepted> {
    match socket {
        Socket::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            tcp::tune(&stream);
            Ok(Accepted::Tcp(stream))
        }
        Socket::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
    }
}

enum Accepted {
    Tcp(TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn greet(stream: Accepted, tls: Option<TlsAcceptor>, shared: Shared, counted: Counted) {
    match (stream, tls) {
        (Accepted::Tcp(tcp), None) => connection(tcp, shared, counted).await,
        (Accepted::Unix(unix), None) => connection(unix, shared, counted).await,
        (Accepted::Tcp(tcp), Some(tls)) => match timeout(HANDSHAKE_TIME_MAX, speaks_plainly(&tcp)).await {
            Ok(true) => refuse_plain(tcp).await,
            _ => secure(tcp, &tls, shared, counted).await,
        },
        (Accepted::Unix(unix), Some(tls)) => secure(unix, &tls, shared, counted).await,
    }
}

/// Whether the first byte is that of an HTTP request; a TLS handshake begins with 22.
async fn speaks_plainly(tcp: &TcpStream) -> bool {
    let mut first = [0];
    matches!(tcp.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase()
}

async fn refuse_plain(mut tcp: TcpStream) {
    tracing::info!("a client without TLS was refused");
    // What came is read, or closing would tear the answer away. A client that has gone needs none.
    let _ = tcp.try_read(&mut [0; 4096]);
    let _ = tcp.write_all(PLAIN_REFUSED.as_bytes()).await;
    let _ = tcp.shutdown().await;
}

async fn secure(stream: impl Stream, tls: &TlsAcceptor, shared: Shared, counted: Counted) {
    match timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => connection(stream, shared, counted).await,
        Ok(Err(error)) => tracing::info!(%error, "a TLS handshake failed"),
        Err(_) => tracing::info!(limit = ?HANDSHAKE_TIME_MAX, "a TLS handshake took too long"),
    }
}

/// Serves one connection that nobody accepted, as if it had come from a listener.
pub(crate) async fn one_connection(front: Arc<Front>, stream: tokio::io::DuplexStream) {
    let Ok(permit) = Arc::new(Semaphore::new(1)).acquire_owned().await else { return };
    let counted = Counted { _permit: Arc::new(permit) };
    docker_client(stream, watch::channel(front).1, &CancellationToken::new(), counted).await;
}

async fn connection(stream: impl Stream, shared: Shared, counted: Counted) {
    let Shared { service, stop, .. } = shared;
    match service {
        Service::Docker(fronts) => docker_client(stream, fronts, &stop, counted).await,
        Service::Bus(bridge) => {
            let served = stop.run_until_cancelled(bridge::tcp::connection(bridge, stream)).await;
            if let Some(Err(error)) = served {
                tracing::debug!(%error, "a client of the bus ended badly");
            }
        }
    }
}

/// Serves HTTP/1.1 on one connection. As in Docker's own server, a client that closes its side while it waits is gone, and
/// its request ends; only a hijacked connection has two ends.
async fn docker_client(
    stream: impl Stream,
    fronts: watch::Receiver<Arc<Front>>,
    stop: &CancellationToken,
    counted: Counted,
) {
    let busy = Busy::default();
    let io = TokioIo::new(HeadLimit::new(stream, busy.clone(), HEAD_TIME_MAX));
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let front = fronts.borrow().clone();
        let counted = counted.clone();
        let under_way = busy.begin();
        async move {
            if names_no_path(request.uri()) {
                return Ok(ApiError::bad_request("the request names no path; it must begin with a slash").into_reply());
            }
            let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            request.extensions_mut().insert(counted);
            let reply = front.handle(request).await;
            if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
                under_way.for_ever();
                return Ok::<_, Infallible>(reply);
            }
            Ok(reply.map(|body| under_way.until_the_end_of(body)))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(io, service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// `GET containers HTTP/1.1` and `CONNECT host:1 HTTP/1.1`: what stands for the path is read as a host.
fn names_no_path(uri: &http::Uri) -> bool {
    uri.scheme().is_none() && uri.authority().is_some()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("herder.sock");
        let url = format!("unix://{}", path.display());
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket that goes stale"));
        let listener = bind(&url, None).await.expect("bound");
        let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only for its owner");
        let error = bind(&url, None).await.expect_err("in use");
        assert_eq!(error.to_string(), format!("cannot listen on {url}: another program listens on this socket"));
        drop(listener);
        assert!(!path.exists(), "cleaned up");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[tokio::test]
    async fn what_cannot_be_listened_on_is_told() {
        let check = async |url: &str, expected: &str| {
            let error = bind(url, None).await.expect_err(url);
            assert_eq!(error.to_string(), expected);
        };
        let protocol = r#"unsupported protocol: "ftp"; listen on tcp://host:port or unix:///path"#;
        check("ftp://127.0.0.1:1", protocol).await;
        check("tcp://127.0.0.1", "cannot listen on tcp://127.0.0.1").await;
        check("unix:///nowhere/at/all.sock", "cannot listen on unix:///nowhere/at/all.sock").await;
        let taken = bind("tcp://127.0.0.1:0", None).await.expect("bound");
        let addr = taken.local_addr().expect("an address");
        check(&format!("tcp://{addr}"), &format!("cannot listen on tcp://{addr}")).await;
    }
}
