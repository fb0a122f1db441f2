//! Listening sockets, and the connections on them: TCP, TLS over TCP, unix sockets (TLS there too, as in classic Swarm).
//! Clients of HTTP come to [`serve_newest`], those of another protocol to [`serve_raw`].
//!
//! Every wait before a request is bounded; a request itself may last as long as its engine's stream does.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::future::join_all;
use herder_tls::names::names;
use herder_tls::tcp;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
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

use crate::budget::{Budget, LISTENER_BYTES};
use crate::head::{Busy, HeadLimit};
use crate::{Body, Peer, Principal};

/// Connections of one TCP listener that are served at the same time, hijacked ones included; more wait in the kernel. Bounds
/// memory and files.
const TCP_CONNECTIONS_MAX: usize = 8192;

/// Same as [`TCP_CONNECTIONS_MAX`], for one unix socket. It is separate, so that clients on the network cannot shut out
/// the operator.
const UNIX_CONNECTIONS_MAX: usize = 1024;

/// File descriptors reserved for unix sockets, engines, peers and the store.
const FILES_RESERVED: usize = 512;

/// A connection may need two open files: its own, and one to an engine.
const FILES_PER_CONNECTION: usize = 2;

/// A head (request line and headers) must be complete this long after its first byte.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// A connection without a request is closed after this long. Docker's clients open a new one when they need it.
const IDLE_TIME_MAX: Duration = Duration::from_secs(300);

/// A head may have this many bytes: registry passwords for a build (`X-Registry-Config`) take some kilobytes. Also the
/// largest piece in which a body is read.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// A TLS handshake takes at most this long.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Refusal of a client without TLS, in Docker's words.
const PLAIN_REFUSED: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\
    {\"message\":\"Client sent an HTTP request to an HTTPS server.\"}\n";

/// Time for requests under way after a stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);

/// Pause after a failed `accept` (no more files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Reason why a listener could not be opened.
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
    /// Names in the certificate.
    names: Arc<[String]>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Returns the URL as given to [`bind`].
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

    /// Clients may reach this listener under these names, too: those in its certificate. A name may begin with `*.`.
    pub fn named(mut self, names: impl IntoIterator<Item = String>) -> Listener {
        self.names = names.into_iter().collect();
        self
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
/// the new one is only for the owner: everybody who may write to it has root.
pub async fn bind(url: &str, tls: Option<Arc<rustls::ServerConfig>>) -> Result<Listener, BindError> {
    let socket = match url.split_once("://") {
        Some(("tcp", addr)) => bind_tcp(url, addr).await?,
        Some(("unix", path)) => bind_unix(url, Path::new(path)).await?,
        Some((other, _)) => return Err(BindError::Protocol(other.to_owned())),
        None => bind_tcp(url, url).await?,
    };
    Ok(Listener { url: url.to_owned(), socket, tls, names: Arc::new([]) })
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

/// An answer under way.
pub type Answer = BoxFuture<'static, Response<Body>>;

/// Answers requests. Never fails: trouble is an answer.
pub trait Handler: Send + Sync + std::fmt::Debug + 'static {
    fn handle(self: Arc<Self>, request: Request<Body>) -> Answer;
}

/// Serves connections that are not HTTP.
pub trait RawHandler: Send + Sync + std::fmt::Debug + 'static {
    /// Serves one connection to its end.
    fn serve(self: Arc<Self>, stream: Box<dyn Stream>) -> BoxFuture<'static, io::Result<()>>;
    /// Names the client in its log lines.
    fn span(&self, peer: &Peer) -> Span;
}

/// Extension of a request: the names in the certificate of its listener.
#[derive(Clone, Debug)]
pub struct ListenerNames(pub Arc<[String]>);

/// Serves until `stop`; then no connection is taken any more, and requests under way have a moment to end. Each request is
/// given to the handler that is the newest when it comes.
pub async fn serve_newest<H: Handler>(
    fronts: watch::Receiver<Arc<H>>,
    listeners: Vec<Listener>,
    stop: CancellationToken,
) {
    let tcp = listeners.iter().filter(|it| matches!(it.socket, Socket::Tcp(_))).count();
    serve_limited(fronts, listeners, stop, tcp_connections_max(files_max(), tcp)).await;
}

async fn serve_limited<H: Handler>(
    fronts: watch::Receiver<Arc<H>>,
    listeners: Vec<Listener>,
    stop: CancellationToken,
    tcp_max: usize,
) {
    let shared = Shared { service: Http(fronts), tasks: TaskTracker::new(), stop };
    join_all(listeners.into_iter().map(|listener| {
        let connections = if matches!(listener.socket, Socket::Tcp(_)) { tcp_max } else { UNIX_CONNECTIONS_MAX };
        accept_loop(listener, shared.clone(), connections)
    }))
    .await;
    shared.end().await;
}

/// Returns the number of files that this process may have open.
fn files_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Returns the number of connections for each TCP listener, so that files are left for the rest of the node.
fn tcp_connections_max(files: usize, listeners: usize) -> usize {
    let share = files.saturating_sub(FILES_RESERVED) / FILES_PER_CONNECTION / listeners.max(1);
    share.clamp(1, TCP_CONNECTIONS_MAX)
}

/// Serves clients of another protocol until `stop`, at most `connections_max` at the same time; more wait in the kernel.
pub async fn serve_raw<R: RawHandler>(
    handler: Arc<R>,
    listener: Listener,
    connections_max: usize,
    stop: CancellationToken,
) {
    let shared = Shared { service: Raw(handler), tasks: TaskTracker::new(), stop };
    accept_loop(listener, shared.clone(), connections_max).await;
    shared.end().await;
}

/// State for each connection.
#[derive(Clone, Debug)]
struct Shared<S> {
    service: S,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Facts of a connection for the extensions of each of its requests.
#[derive(Clone, Debug)]
struct Origin {
    caller: Arc<Principal>,
    names: ListenerNames,
    budget: Budget,
    counted: Counted,
}

/// Serves connections of one kind.
trait Service: Clone + Send + Sync + 'static {
    /// Returns the tracing span that identifies the client.
    fn span(&self, peer: &Peer) -> Span;
    fn serve(&self, stream: impl Stream, stop: CancellationToken, origin: Origin) -> impl Future<Output = ()> + Send;
}

#[derive(Debug)]
struct Http<H>(watch::Receiver<Arc<H>>);

impl<H> Clone for Http<H> {
    fn clone(&self) -> Self {
        Http(self.0.clone())
    }
}

impl<H: Handler> Service for Http<H> {
    /// Clients are many and short; their requests speak for themselves.
    fn span(&self, _: &Peer) -> Span {
        Span::none()
    }

    async fn serve(&self, stream: impl Stream, stop: CancellationToken, origin: Origin) {
        http_client(stream, self.0.clone(), &stop, origin).await;
    }
}

#[derive(Debug)]
struct Raw<R>(Arc<R>);

impl<R> Clone for Raw<R> {
    fn clone(&self) -> Self {
        Raw(self.0.clone())
    }
}

impl<R: RawHandler> Service for Raw<R> {
    fn span(&self, peer: &Peer) -> Span {
        self.0.span(peer)
    }

    async fn serve(&self, stream: impl Stream, stop: CancellationToken, _: Origin) {
        let served = stop.run_until_cancelled(self.0.clone().serve(Box::new(stream))).await;
        if let Some(Err(error)) = served {
            tracing::debug!(%error, "a raw connection ended badly");
        }
    }
}

impl<S> Shared<S> {
    /// Waits a moment for what is under way.
    async fn end(self) {
        self.tasks.close();
        if timeout(STOP_TIME_MAX, self.tasks.wait()).await.is_err() {
            tracing::info!(connections = self.tasks.len(), "streams are cut off");
        }
    }
}

/// Extension of a request: keeps its connection counted after the connection was hijacked.
#[derive(Clone, Debug)]
pub struct Counted {
    _permit: Arc<OwnedSemaphorePermit>,
}

async fn accept_loop(listener: Listener, shared: Shared<impl Service>, connections_max: usize) {
    tracing::info!(url = listener.url, connections_max, "listening");
    let limit = Arc::new(Semaphore::new(connections_max));
    let budget = Budget::new(LISTENER_BYTES);
    let stop = shared.stop.clone();
    loop {
        let next = async {
            let permit = limit.clone().acquire_owned().await.ok()?;
            Some((accept(&listener.socket).await, permit))
        };
        let Some(Some((accepted, permit))) = stop.run_until_cancelled(next).await else { return };
        match accepted {
            Ok((stream, peer)) => {
                let tls = listener.tls.clone().map(TlsAcceptor::from);
                let span = shared.service.span(&peer);
                let origin = Origin {
                    caller: Arc::new(Principal { peer, certificate: None }),
                    names: ListenerNames(listener.names.clone()),
                    budget: budget.clone(),
                    counted: Counted { _permit: Arc::new(permit) },
                };
                shared.tasks.spawn(greet(stream, tls, shared.clone(), origin).instrument(span));
            }
            Err(error) => {
                tracing::warn!(url = listener.url, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

async fn accept(socket: &Socket) -> io::Result<(Accepted, Peer)> {
    match socket {
        Socket::Tcp(listener) => {
            let (stream, addr) = listener.accept().await?;
            tcp::tune(&stream);
            Ok((Accepted::Tcp(stream), Peer::Tcp(addr)))
        }
        Socket::Unix(listener, _) => {
            let (stream, _) = listener.accept().await?;
            let from = stream.peer_cred()?;
            let peer = Peer::Unix { uid: from.uid(), gid: from.gid(), pid: from.pid().filter(|pid| *pid > 0) };
            Ok((Accepted::Unix(stream), peer))
        }
    }
}

enum Accepted {
    Tcp(TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn greet(stream: Accepted, tls: Option<TlsAcceptor>, shared: Shared<impl Service>, origin: Origin) {
    match (stream, tls) {
        (Accepted::Tcp(tcp), None) => connection(tcp, shared, origin).await,
        (Accepted::Unix(unix), None) => connection(unix, shared, origin).await,
        (Accepted::Tcp(tcp), Some(tls)) => match timeout(HANDSHAKE_TIME_MAX, speaks_plainly(&tcp)).await {
            Ok(true) => refuse_plain(tcp).await,
            _ => secure(tcp, &tls, shared, origin).await,
        },
        (Accepted::Unix(unix), Some(tls)) => secure(unix, &tls, shared, origin).await,
    }
}

/// True if the first byte is that of an HTTP request; a TLS handshake begins with 22.
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

async fn secure(stream: impl Stream, tls: &TlsAcceptor, shared: Shared<impl Service>, origin: Origin) {
    match timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            // The handshake has checked it, or asked for none.
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| names(chain.first()?));
            let caller = Arc::new(Principal { peer: origin.caller.peer.clone(), certificate });
            connection(stream, shared, Origin { caller, ..origin }).await;
        }
        Ok(Err(error)) => tracing::info!(%error, "a TLS handshake failed"),
        Err(_) => tracing::info!(limit = ?HANDSHAKE_TIME_MAX, "a TLS handshake took too long"),
    }
}

/// Serves one connection without a listener, as if it had come from one.
pub async fn one_connection<H: Handler>(handler: Arc<H>, stream: impl Stream) {
    let Ok(permit) = Arc::new(Semaphore::new(1)).acquire_owned().await else { return };
    let origin = Origin {
        caller: Arc::new(Principal { peer: Peer::Unix { uid: 0, gid: 0, pid: None }, certificate: None }),
        names: ListenerNames(Arc::new([])),
        budget: Budget::new(LISTENER_BYTES),
        counted: Counted { _permit: Arc::new(permit) },
    };
    http_client(stream, watch::channel(handler).1, &CancellationToken::new(), origin).await;
}

async fn connection(stream: impl Stream, shared: Shared<impl Service>, origin: Origin) {
    let Shared { service, stop, .. } = shared;
    service.serve(stream, stop, origin).await;
}

/// Serves HTTP/1.1 on one connection. As in Docker's own server, a client that closes its side while it waits is gone, and
/// its request ends; only a hijacked connection has two ends.
async fn http_client<H: Handler>(
    stream: impl Stream,
    fronts: watch::Receiver<Arc<H>>,
    stop: &CancellationToken,
    origin: Origin,
) {
    let busy = Busy::default();
    let io = TokioIo::new(HeadLimit::new(stream, busy.clone(), HEAD_TIME_MAX));
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let front = fronts.borrow().clone();
        let Origin { caller, names, budget, counted } = origin.clone();
        let under_way = busy.begin();
        async move {
            if names_no_path(request.uri()) {
                return Ok(without_path());
            }
            let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            let extensions = request.extensions_mut();
            extensions.insert(caller);
            extensions.insert(names);
            extensions.insert(budget);
            extensions.insert(counted);
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

/// The answer to a request without a path, in the form of Docker's errors.
fn without_path() -> Response<Body> {
    let text = r#"{"message":"the request names no path; it must begin with a slash"}"#;
    let mut reply = Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
    *reply.status_mut() = StatusCode::BAD_REQUEST;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// `GET containers HTTP/1.1` and `CONNECT host:1 HTTP/1.1`: what stands for the path is read as a host.
fn names_no_path(uri: &http::Uri) -> bool {
    uri.scheme().is_none() && uri.authority().is_some()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        for (files, listeners, expected) in
            [(1 << 20, 1, 8192), (1 << 20, 3, 8192), (1024, 1, 256), (1024, 2, 128), (100, 1, 1), (usize::MAX, 0, 8192)]
        {
            assert_eq!(tcp_connections_max(files, listeners), expected, "{files} files, {listeners} listeners");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_all_connections_of_tcp_leaves_those_of_the_socket() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("herder.sock");
        let unix = bind(&format!("unix://{}", path.display()), None).await.expect("a socket");
        let tcp = bind("tcp://127.0.0.1:0", None).await.expect("a free port");
        let addr = tcp.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let _stopped = stop.clone().drop_guard();
        tokio::spawn(serve_limited(watch::channel(Arc::new(Empty)).1, vec![unix, tcp], stop, 2));
        let idle = [TcpStream::connect(addr).await.expect("one"), TcpStream::connect(addr).await.expect("two")];
        let mut third = TcpStream::connect(addr).await.expect("the kernel takes it");
        assert!(timeout(Duration::from_secs(60), ping(&mut third)).await.is_err(), "it waits");
        let mut unix = tokio::net::UnixStream::connect(&path).await.expect("a connection");
        assert_eq!(ping(&mut unix).await, "HTTP/1.1 200 OK");
        drop(idle);
        let mut answer = [0; 15];
        tokio::io::AsyncReadExt::read_exact(&mut third, &mut answer).await.expect("its turn");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
    }

    /// Answers every request with 200.
    #[derive(Debug)]
    struct Empty;

    impl Handler for Empty {
        fn handle(self: Arc<Self>, _: Request<Body>) -> Answer {
            let body = Full::default().map_err(|never| match never {}).boxed_unsync();
            Box::pin(std::future::ready(Response::new(body)))
        }
    }

    async fn ping(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
        let mut answer = [0; 15];
        tokio::io::AsyncReadExt::read_exact(stream, &mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

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
