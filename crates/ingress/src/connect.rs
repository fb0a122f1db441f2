//! Connections to tasks, kept and used again.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use herder_model::swarm::Backend;
use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::Shared;
use crate::balance::Task;
use crate::body::Lent;
use crate::proxy::H2c;

/// Time limit for opening a connection to a task.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Time for which idle connections are kept, and their number for each task.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
const IDLE_MAX: usize = 64;

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to a task.
pub type Conn = Box<dyn Stream>;

/// Opens connections to tasks.
pub trait Reach: Send + Sync + std::fmt::Debug {
    /// Opens a connection to a port of a task.
    fn connect<'r>(&'r self, task: &'r str, backend: &'r Backend, port: u16) -> BoxFuture<'r, io::Result<Conn>>;

    /// Opens a socket for packets to and from a UDP port of a task.
    fn datagrams<'r>(&'r self, task: &'r str, backend: &'r Backend, port: u16) -> BoxFuture<'r, io::Result<UdpSocket>>;
}

/// Clients of tasks. Connections are kept by task.
#[derive(Debug)]
pub(crate) struct Clients {
    client: OnceLock<Client<Connector, Lent>>,
    /// Tasks by the host that stands for them in a URI.
    tasks: Arc<Mutex<HashMap<String, Weak<Task>>>>,
    pub(crate) h2c: H2c,
}

impl Clients {
    pub(crate) fn new() -> Clients {
        Clients { client: OnceLock::new(), tasks: Arc::default(), h2c: H2c::default() }
    }

    /// The client for HTTP/1.1, and the authority that stands for the task.
    pub(crate) fn get(&self, shared: &Arc<Shared>, task: &Arc<Task>, port: u16) -> (Client<Connector, Lent>, String) {
        // Ids of tasks are letters and digits; those of tests may be more.
        let host: String = task.id.chars().filter(char::is_ascii_alphanumeric).collect();
        let authority = format!("{host}:{port}");
        self.tasks.lock().insert(authority.clone(), Arc::downgrade(task));
        let client = self.client.get_or_init(|| {
            let connector = Connector { shared: Arc::downgrade(shared), tasks: self.tasks.clone() };
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIME_MAX)
                .pool_max_idle_per_host(IDLE_MAX)
                .set_host(false)
                .http1_max_headers(200)
                .build(connector)
        });
        (client.clone(), authority)
    }

    /// Forgets tasks that are gone.
    pub(crate) fn tidy(&self) {
        self.tasks.lock().retain(|_, task| task.strong_count() > 0);
    }
}

/// Opens connections for a client.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    shared: Weak<Shared>,
    tasks: Arc<Mutex<HashMap<String, Weak<Task>>>>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Opened>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Opened>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let shared = self.shared.clone();
        let task = uri.authority().and_then(|it| self.tasks.lock().get(it.as_str()).cloned());
        let port = uri.port_u16().unwrap_or_default();
        let is_tls = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        Box::pin(async move {
            let gone = || io::Error::new(io::ErrorKind::NotFound, "the task is gone");
            let (shared, task) =
                (shared.upgrade().ok_or_else(gone)?, task.and_then(|it| it.upgrade()).ok_or_else(gone)?);
            let conn = open_for(&shared, &task, port, is_tls).await?;
            Ok(TokioIo::new(Opened(conn)))
        })
    }
}

/// Opens a connection to a task, within a limit.
pub(crate) async fn open(shared: &Shared, task: &Task, port: u16) -> io::Result<Conn> {
    let backend = task.backend.read().clone();
    match timeout(CONNECT_TIME_MAX, shared.reach.connect(&task.id, &backend, port)).await {
        Ok(opened) => opened,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the task does not answer")),
    }
}

/// Opens a connection to a task, with TLS if it wants that. Whose certificate it has is not looked at: the way to a task leads to no other
/// one, and the certificates of tasks name nothing that is known here.
pub(crate) async fn open_for(shared: &Shared, task: &Task, port: u16, is_tls: bool) -> io::Result<Conn> {
    let conn = open(shared, task, port).await?;
    if !is_tls {
        return Ok(conn);
    }
    static CONFIG: OnceLock<Option<Arc<rustls::ClientConfig>>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| herder_tls::client_with(None, None).ok().map(Arc::new)).clone();
    let config = config.ok_or_else(|| io::Error::other("there is no TLS towards tasks"))?;
    let name = ServerName::try_from("task").map_err(io::Error::other)?;
    match timeout(CONNECT_TIME_MAX, TlsConnector::from(config).connect(name, conn)).await {
        Ok(opened) => opened.map(|it| Box::new(it) as Conn),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the task does not answer a TLS greeting")),
    }
}

/// A connection in a client's pool.
pub(crate) struct Opened(Conn);

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened")
    }
}

impl Connection for Opened {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Opened {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Opened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
