//! Entrypoints: sockets that listen, and the first bytes of each connection.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use herder_decide::ingress::Subject;
use herder_model::swarm::{Entrypoint, IngressSettings};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::connect::Stream;
use crate::hold::{HoldSettings, Holder};
use crate::request::Arrival;
use crate::{Shared, http1, metrics, proxy, tcp, tls};

/// Stands for the address of the figures among entrypoints; labels cannot name it.
const METRICS: &str = "(metrics)";
/// Connections of clients at the same time, on all entrypoints; more wait in the kernel.
const CONNECTIONS_MAX: usize = 20_000;
/// Those of one client.
const CLIENT_CONNECTIONS_MAX: usize = 1_000;
/// A head must be complete so long after its first byte; the same for a TLS greeting and its handshake.
pub(crate) const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// A connection without a request is closed after this long.
pub(crate) const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;
pub(crate) const HEADERS_MAX: usize = 100;
/// Requests at once in one connection of HTTP/2.
const STREAMS_MAX: u32 = 250;
/// A connection of HTTP/2 that says nothing is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// The first bytes that are looked at. A TLS greeting takes some hundred.
const GREETING_BYTES_MAX: usize = 16 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for requests to end at a stop.
pub(crate) const STOP_TIME_MAX: Duration = Duration::from_secs(30);
const TLS_HANDSHAKE: u8 = 0x16;

/// Sockets that are open.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    open: BTreeMap<String, Open>,
    holder: Option<Holder>,
    /// Sockets of an earlier herder, by address. None, if nobody has looked yet.
    left: Option<BTreeMap<String, OwnedFd>>,
}

#[derive(Debug)]
struct Open {
    is: Entrypoint,
    address: SocketAddr,
    /// The same socket, for the process that holds it.
    socket: OwnedFd,
    /// Cancelled when it is dropped.
    _end: tokio_util::sync::DropGuard,
}

impl Listeners {
    pub(crate) fn hold(&mut self, settings: HoldSettings) {
        self.holder = Some(Holder::new(settings));
    }

    /// Listens no more. What is held stays so.
    pub(crate) fn close(&mut self) {
        self.open.clear();
    }

    /// Listens on these entrypoints and no others. Returns those that could not be opened, and why.
    pub(crate) fn listen(&mut self, shared: &Arc<Shared>, settings: &IngressSettings) -> BTreeMap<String, String> {
        let mut wanted = settings.entrypoints.clone();
        if !settings.metrics.is_empty() {
            let metrics = Entrypoint { address: settings.metrics.clone(), ..Entrypoint::default() };
            wanted.insert(METRICS.to_owned(), metrics);
        }
        let count = self.open.len();
        self.open.retain(|name, open| wanted.get(name) == Some(&open.is));
        let mut changed = self.open.len() != count || self.left.is_none();
        let holder = self.holder.as_mut();
        let mut left = self.left.take().unwrap_or_else(|| holder.map(Holder::take).unwrap_or_default());
        let mut failed = BTreeMap::new();
        for (name, entrypoint) in &wanted {
            if self.open.contains_key(name) {
                continue;
            }
            let known = left.remove(&entrypoint.address);
            match open(shared, name, entrypoint, known) {
                Ok(open) => {
                    changed = true;
                    self.open.insert(name.clone(), open);
                }
                Err(error) => {
                    let text = format!("cannot listen on {}: {error}", entrypoint.address);
                    tracing::warn!(entrypoint = name, text, "an entrypoint is not open");
                    failed.insert(name.clone(), text);
                }
            }
        }
        self.left = Some(BTreeMap::new());
        if let Some(holder) = self.holder.as_mut().filter(|_| changed) {
            holder.keep(&self.open.values().map(|it| (it.is.address.clone(), it.socket.as_fd())).collect());
        }
        failed
    }

    pub(crate) fn addresses(&self) -> BTreeMap<String, SocketAddr> {
        self.open.iter().map(|(name, open)| (name.clone(), open.address)).collect()
    }
}

/// `:80` is every address, of both families.
fn bind<T>(address: &str, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, "it must be :PORT or ADDRESS:PORT");
    match address.strip_prefix(':') {
        Some(port) => {
            let port = port.parse().map_err(|_| bad())?;
            bind(SocketAddr::from(([0u16; 8], port))).or_else(|error| match error.kind() {
                // A host without IPv6.
                io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported => {
                    bind(SocketAddr::from(([0, 0, 0, 0], port)))
                }
                _ => Err(error),
            })
        }
        None => bind(address.parse().map_err(|_| bad())?),
    }
}

/// Opens an entrypoint, on the socket that an earlier herder left if there is one.
fn open(shared: &Arc<Shared>, name: &str, entrypoint: &Entrypoint, known: Option<OwnedFd>) -> io::Result<Open> {
    let stop = shared.stop.child_token();
    let (shared, name, is) = (shared.clone(), name.to_owned(), entrypoint.clone());
    let (address, held) = if let Some(address) = entrypoint.address.strip_suffix("/udp") {
        let socket = known.map_or_else(|| bind(address, std::net::UdpSocket::bind), |it| Ok(it.into()))?;
        let held = socket.as_fd().try_clone_to_owned()?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let address = socket.local_addr()?;
        let socket = Arc::new(socket);
        let parts = shared.parts.until(stop.clone());
        parts.looping("ingress entrypoint", move || tcp::carry_udp(shared.clone(), name.clone(), socket.clone()));
        (address, held)
    } else {
        let listener =
            known.map_or_else(|| bind(&entrypoint.address, std::net::TcpListener::bind), |it| Ok(it.into()))?;
        let held = listener.as_fd().try_clone_to_owned()?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let (parts, listener, of) = (shared.parts.until(stop.clone()), Arc::new(listener), is.clone());
        if name == METRICS {
            parts.looping("ingress metrics", move || metrics::serve(shared.clone(), listener.clone()));
        } else {
            let again = move || accept(shared.clone(), name.clone(), of.clone(), listener.clone());
            parts.looping("ingress entrypoint", again);
        }
        (address, held)
    };
    Ok(Open { is, address, socket: held, _end: stop.drop_guard() })
}

/// Connections by client.
#[derive(Debug, Default)]
struct Counts(Mutex<HashMap<IpAddr, usize>>);

struct OneOf {
    of: Arc<Counts>,
    client: IpAddr,
}

impl Counts {
    fn take(self: &Arc<Counts>, client: IpAddr) -> Option<OneOf> {
        let mut counts = self.0.lock();
        let count = counts.entry(client).or_default();
        if *count >= CLIENT_CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(OneOf { of: self.clone(), client })
    }
}

impl Drop for OneOf {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

async fn accept(shared: Arc<Shared>, name: String, is: Entrypoint, listener: Arc<TcpListener>) {
    let (limit, counts) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Arc::new(Counts::default()));
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(entrypoint = name, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peer = canonical(peer);
        let Some(one) = counts.take(peer.ip()) else { continue };
        let _ = stream.set_nodelay(true);
        let (shared, name, is) = (shared.clone(), name.clone(), is.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(&shared, name, &is, stream, peer).await {
                tracing::debug!(%peer, %error, "a connection ended badly");
            }
            drop((permit, one));
        });
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A connection whose first bytes were read already.
pub(crate) struct Prefixed {
    pub(crate) head: Bytes,
    pub(crate) stream: TcpStream,
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.head.len().min(buffer.remaining());
        buffer.put_slice(&self.head[..count]);
        self.head.advance(count);
        if self.head.is_empty() {
            // Gives the buffer back.
            self.head = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// The first bytes of a connection, parsed.
enum Greeting {
    Tls { sni: String, alpn: Vec<Vec<u8>> },
    H2,
    Other,
}

/// A connection as TCP rules see it.
struct Beginning<'b> {
    client: IpAddr,
    sni: &'b str,
    alpn: &'b [Vec<u8>],
}

impl Subject for Beginning<'_> {
    fn host(&self) -> &str {
        ""
    }

    fn path(&self) -> &str {
        ""
    }

    fn method(&self) -> &str {
        ""
    }

    fn header(&self, _: &str, _: &dyn Fn(&str) -> bool) -> bool {
        false
    }

    fn query(&self, _: &str, _: &dyn Fn(&str) -> bool) -> bool {
        false
    }

    fn client(&self) -> IpAddr {
        self.client
    }

    fn sni(&self) -> &str {
        self.sni
    }

    fn alpn(&self, name: &str) -> bool {
        self.alpn.iter().any(|it| it == name.as_bytes())
    }
}

async fn connection(
    shared: &Arc<Shared>,
    entrypoint: String,
    is: &Entrypoint,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    let mut head = BytesMut::new();
    let local = canonical(stream.local_addr()?);
    let mut arrival = Arrival { entrypoint, peer, local, tls: false, sni: String::new() };
    if is.proxy_protocol.iter().any(|it| it.contains(&peer.ip())) {
        let read = timeout(HEAD_TIME_MAX, tcp::read_proxy_header(&mut stream, &mut head)).await;
        if let Some((from, to)) = read.map_err(|_| io::ErrorKind::TimedOut)?? {
            (arrival.peer, arrival.local) = (from, to);
        }
    }
    let client = arrival.peer.ip();
    let plain = |shared: &Shared| {
        shared.table.load().find_tcp(&arrival.entrypoint, false, &Beginning { client, sni: "", alpn: &[] }).cloned()
    };
    // Of some protocols the server speaks first.
    let is_plain_tcp = shared.table.load().is_plain_tcp(&arrival.entrypoint);
    if is_plain_tcp && let Some(route) = plain(shared) {
        return Box::pin(tcp::carry(shared, &route, Prefixed { head: head.freeze(), stream }, &arrival)).await;
    }
    let greeting = greeting(&mut stream, &mut head).await?;
    let stream = Prefixed { head: head.freeze(), stream };
    // What a waiting connection does not need is boxed: there may be many of them.
    match greeting {
        Greeting::Tls { sni, alpn } => Box::pin(encrypted(shared, arrival, stream, sni, &alpn)).await,
        Greeting::H2 => {
            http(shared, arrival, stream, true).await;
            Ok(())
        }
        Greeting::Other => match plain(shared) {
            Some(route) => Box::pin(tcp::carry(shared, &route, stream, &arrival)).await,
            None => {
                http(shared, arrival, stream, false).await;
                Ok(())
            }
        },
    }
}

/// Serves a connection that begins with a TLS greeting.
async fn encrypted(
    shared: &Arc<Shared>,
    mut arrival: Arrival,
    stream: Prefixed,
    sni: String,
    alpn: &[Vec<u8>],
) -> io::Result<()> {
    let beginning = Beginning { client: arrival.peer.ip(), sni: &sni, alpn };
    let route = shared.table.load().find_tcp(&arrival.entrypoint, true, &beginning).cloned();
    if let Some(route) = route.as_ref().filter(|it| it.tls.as_ref().is_some_and(|it| it.passthrough)) {
        return tcp::carry(shared, route, stream, &arrival).await;
    }
    let is_challenge = alpn.iter().any(|it| it == tls::ACME);
    let protocols: &[&[u8]] = match (&route, is_challenge) {
        (_, true) => &[tls::ACME],
        (Some(_), _) => &[],
        (None, _) => &[b"h2", b"http/1.1"],
    };
    let acceptor = TlsAcceptor::from(tls::server(shared, protocols)?);
    let accepted = timeout(HEAD_TIME_MAX, acceptor.accept(stream)).await;
    let stream = accepted.map_err(|_| io::ErrorKind::TimedOut)??;
    shared.metrics.handshake();
    if is_challenge {
        return Ok(());
    }
    (arrival.tls, arrival.sni) = (true, sni);
    if let Some(route) = route {
        return Box::pin(tcp::carry(shared, &route, stream, &arrival)).await;
    }
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    http(shared, arrival, stream, is_h2).await;
    Ok(())
}

/// Reads until it is clear what a connection begins with.
async fn greeting(stream: &mut TcpStream, head: &mut BytesMut) -> io::Result<Greeting> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    if head.is_empty() {
        let read = timeout(IDLE_TIME_MAX, stream.read_buf(head)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let look = async {
        loop {
            if head.first() == Some(&TLS_HANDSHAKE) {
                let mut acceptor = Acceptor::default();
                acceptor.read_tls(&mut &head[..])?;
                match acceptor.accept() {
                    Ok(Some(accepted)) => {
                        let hello = accepted.client_hello();
                        let sni = hello.server_name().unwrap_or_default().to_ascii_lowercase();
                        let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                        return Ok(Greeting::Tls { sni, alpn });
                    }
                    Ok(None) => {}
                    Err((error, _)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                }
            } else if head.len() >= PREFACE.len() && head.starts_with(PREFACE) {
                return Ok(Greeting::H2);
            } else if !PREFACE.starts_with(&head[..head.len().min(PREFACE.len())]) {
                return Ok(Greeting::Other);
            }
            if head.len() > GREETING_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the greeting is too long"));
            }
            if stream.read_buf(head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    timeout(HEAD_TIME_MAX, look).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// Serves the requests of one connection.
async fn http(shared: &Arc<Shared>, arrival: Arrival, stream: impl Stream + 'static, is_h2: bool) {
    let arrival = Arc::new(arrival);
    let _counted = shared.connections.lock().token();
    let result = match is_h2 {
        true => Box::pin(http2(shared, arrival, stream)).await.map_err(Into::into),
        false => http1::serve(shared, &arrival, stream).await,
    };
    if let Err(error) = result {
        tracing::debug!(error, "a connection ended badly");
    }
}

async fn http2(shared: &Arc<Shared>, arrival: Arc<Arrival>, stream: impl Stream + 'static) -> hyper::Result<()> {
    let service = service_fn(|request: http::Request<Incoming>| {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let handled = proxy::handle(shared.clone(), arrival.clone(), request);
        async move { Ok::<_, std::convert::Infallible>(handled.await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => result,
        () = shared.leaving.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(STOP_TIME_MAX, connection).await.unwrap_or(Ok(()))
        }
    }
}
