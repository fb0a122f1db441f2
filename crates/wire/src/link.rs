//! The node link: connections between nodes, mutual TLS only, each for one purpose that its first bytes name (ALPN).
//!
//! A protocol's version is part of its name. A node of the next version offers its own names first and these after them, so
//! that the two still talk. ARCHITECTURE.md says what may differ between two versions; `skew.rs` proves it.

mod handshakes;
mod join;
mod root;
mod rotate;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream, client};
use tokio_util::sync::CancellationToken;

use crate::identity::{Identity, IdentityError, node_of, server_name};
use crate::join_code::Secret;
use crate::rotation::Rotation;

use handshakes::{Handshakes, LogLimit};
pub use join::join;

/// How long a connection may take to open, TLS included. A node in reach answers in milliseconds.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// How long renewal sleeps at most. Sleep stands still while the host is suspended, and a clock may be set at any time: so
/// long after either, a certificate that has expired meanwhile is replaced.
const RENEWAL_LOOK: Duration = Duration::from_secs(20);

/// After a renewal that failed.
const RENEWAL_REST: Duration = Duration::from_secs(10);

/// What a connection between two nodes is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// The bytes of a connection to the peer's engine.
    Engine,
    /// Typed calls to the peer (gRPC).
    Calls,
    /// Frames of the event bus, one direction.
    Bus,
    /// Calls of managers to each other, and sessions of nodes with their leader (gRPC).
    Swarm,
    /// A newcomer asks to be let in. The only one without a certificate.
    Join,
}

impl Road {
    const ALL: [Road; 5] = [Road::Engine, Road::Calls, Road::Bus, Road::Swarm, Road::Join];

    fn protocol(self) -> &'static [u8] {
        match self {
            Road::Engine => b"herder-engine/1",
            Road::Calls => b"herder-calls/1",
            Road::Bus => b"herder-bus/1",
            Road::Swarm => b"herder-swarm/1",
            Road::Join => b"herder-join/1",
        }
    }

    /// Names of the protocols for this, the newest first. A version that changes one puts the new name before the old one.
    fn protocols(self) -> Vec<Vec<u8>> {
        vec![self.protocol().to_vec()]
    }
}

/// Why a peer cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("cannot reach node {addr}: {source}")]
    Connect { addr: String, source: io::Error },
    #[error("node {addr} did not answer within {} s", CONNECT_TIME_MAX.as_secs())]
    Late { addr: String },
    #[error("{addr} is no node of this pool: {source}")]
    Stranger { addr: String, source: io::Error },
    #[error(
        "node {addr} does not speak {protocol}: its version of herder and this one ({}) are too far apart, or it is no herder; \
         update the older of the two",
        env!("CARGO_PKG_VERSION")
    )]
    Version { addr: String, protocol: String },
    #[error("{addr} does not let this node in: {reason}")]
    Refused { addr: String, reason: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A connection that a peer opened.
#[derive(Debug)]
pub struct Incoming {
    pub road: Road,
    /// Id of the node, proved by its certificate.
    pub node: String,
    pub stream: TlsStream<TcpStream>,
}

#[derive(Debug)]
struct Current {
    identity: Arc<Identity>,
    server: Arc<ServerConfig>,
    /// In the order of [`Road::ALL`].
    clients: Vec<Arc<ClientConfig>>,
}

impl Current {
    fn new(identity: Identity) -> Result<Current, IdentityError> {
        let server = identity.server(Road::ALL.into_iter().flat_map(Road::protocols).collect())?;
        let clients = Road::ALL.iter().map(|road| identity.client(road.protocols())).collect::<Result<_, _>>()?;
        Ok(Current { identity: Arc::new(identity), server, clients })
    }
}

/// This node's end of all links.
#[derive(Debug)]
pub struct Link {
    current: ArcSwap<Current>,
    /// Where a renewed identity is kept.
    folder: PathBuf,
    /// Held while the identity is changed, so that no change undoes another.
    changing: Mutex<()>,
    rotation: watch::Sender<Rotation>,
    identities: watch::Sender<Arc<Identity>>,
    /// Secrets that let a newcomer in besides the pool's own: those of a swarm's tokens, on its managers.
    also_in: Mutex<Vec<Secret>>,
    /// Connections of peers that know no protocol of this version.
    misfits: AtomicU64,
    limits: LogLimits,
}

/// Limits of log lines that a stranger can cause.
#[derive(Debug, Default)]
struct LogLimits {
    too_many: LogLimit,
    strangers: LogLimit,
    newcomers: LogLimit,
}

impl Link {
    pub fn new(identity: Identity, folder: PathBuf) -> Result<Arc<Link>, IdentityError> {
        let (rotation, _) = watch::channel(identity.shared.rotation());
        let current = Current::new(identity)?;
        let (identities, _) = watch::channel(current.identity.clone());
        let current = ArcSwap::from_pointee(current);
        Ok(Arc::new(Link {
            current,
            folder,
            changing: Mutex::default(),
            rotation,
            identities,
            also_in: Mutex::default(),
            misfits: AtomicU64::new(0),
            limits: LogLimits::default(),
        }))
    }

    pub fn identity(&self) -> Arc<Identity> {
        self.current.load().identity.clone()
    }

    /// This node's identity, whenever it changes.
    pub fn identities(&self) -> watch::Receiver<Arc<Identity>> {
        self.identities.subscribe()
    }

    /// From now on, whoever comes with one of these secrets is let in, as with that of the pool's join code.
    pub fn let_in_also(&self, secrets: Vec<Secret>) {
        *self.also_in.lock() = secrets;
    }

    /// Opens a connection to the node with this id at this address. Whoever else answers there is a stranger.
    pub async fn dial(&self, addr: &str, node: &str, road: Road) -> Result<TlsStream<TcpStream>, LinkError> {
        let config = self.current.load().clients[road as usize].clone();
        let stranger = |source| LinkError::Stranger { addr: addr.to_owned(), source };
        let name = ServerName::try_from(server_name(node))
            .map_err(|error| stranger(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let opened = async {
            let tcp = connect(addr).await?;
            shake(config, name, tcp, addr, road).await
        };
        let stream = timeout(CONNECT_TIME_MAX, opened).await.map_err(|_| LinkError::Late { addr: addr.to_owned() })?;
        Ok(stream?.into())
    }

    /// Takes connections of peers until `stop`. Newcomers are answered here; everything else goes to `accept`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken, accept: impl Accept) {
        let handshakes = Arc::new(Handshakes::default());
        let accept = Arc::new(accept);
        loop {
            let (tcp, from) = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, most likely: some will be given back.
                        tracing::warn!(%error, "cannot take a node's connection");
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let Some(permit) = handshakes.begin(from.ip()) else {
                if let Some(silent) = self.limits.too_many.due() {
                    tracing::warn!(%from, silent, "too many handshakes are under way; a connection is refused");
                }
                continue;
            };
            let (link, accept) = (self.clone(), accept.clone());
            tokio::spawn(async move {
                let opened = timeout(CONNECT_TIME_MAX, link.open(tcp, from)).await;
                drop(permit);
                match opened {
                    Ok(Ok(Some(incoming))) => accept.accept(incoming),
                    Ok(Ok(None)) => {}
                    Ok(Err(error)) if error.kind() == io::ErrorKind::Unsupported => {
                        link.tell_misfit(from, &error);
                    }
                    Ok(Err(error)) => {
                        if let Some(silent) = link.limits.strangers.due() {
                            tracing::warn!(%from, %error, silent, "a stranger is refused");
                        }
                    }
                    Err(_) => tracing::debug!(%from, "a connection was not opened in time"),
                }
            });
        }
    }

    /// Shakes hands. Nothing, if it was a newcomer and has its answer.
    async fn open(&self, tcp: TcpStream, from: SocketAddr) -> io::Result<Option<Incoming>> {
        tcp.set_nodelay(true)?;
        let current = self.current.load_full();
        let accepted = TlsAcceptor::from(current.server.clone()).accept(tcp).await;
        let stream = accepted.map_err(|error| if tells_of_version(&error) { unknown() } else { error })?;
        let session = stream.get_ref().1;
        let protocol = session.alpn_protocol().ok_or_else(unknown)?;
        let road = Road::ALL.into_iter().find(|road| road.protocol() == protocol).ok_or_else(unknown)?;
        if road == Road::Join {
            join::answer(self, stream, from).await?;
            return Ok(None);
        }
        let node = session.peer_certificates().and_then(<[_]>::first).and_then(node_of);
        let node =
            node.ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, "no certificate of this pool"))?;
        Ok(Some(Incoming { road, node, stream: stream.into() }))
    }

    /// Tells of a peer that does not fit: it comes again and again until it is updated, and need not be told each time.
    fn tell_misfit(&self, from: SocketAddr, error: &io::Error) {
        let count = self.misfits.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::warn!(%from, %error, count, "a peer of another version is refused");
        }
    }

    /// Renews the certificate before its end, again and again. Connections that are open stay open.
    pub async fn keep_renewed(self: Arc<Self>, stop: CancellationToken) {
        let mut identities = self.identities();
        loop {
            identities.mark_unchanged();
            let left = self.identity().renew_at().duration_since(SystemTime::now()).unwrap_or_default();
            if left.is_zero() {
                match self.renew(SystemTime::now()) {
                    Ok(()) => tracing::info!("the certificate of this node was renewed"),
                    Err(error) => tracing::error!(%error, "cannot renew the certificate of this node; trying again"),
                }
            }
            // At once after a renewal that failed would be in a loop without rest.
            let rest = left.clamp(RENEWAL_REST, RENEWAL_LOOK);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(rest) => {}
                // A certificate that was made meanwhile may end sooner.
                _ = identities.changed() => {}
            }
        }
    }

    /// A new key and certificate, in use for connections from now on.
    pub fn renew(&self, now: SystemTime) -> Result<(), IdentityError> {
        let _changing = self.changing.lock();
        let renewed = self.identity().renewed(now)?;
        renewed.save(&self.folder)?;
        self.put_in_force(Current::new(renewed)?);
        Ok(())
    }
}

/// Who takes connections of peers.
pub trait Accept: Send + Sync + 'static {
    /// Must not wait: each connection is worked on in a task of its own.
    fn accept(&self, incoming: Incoming);
}

impl<F: Fn(Incoming) + Send + Sync + 'static> Accept for F {
    fn accept(&self, incoming: Incoming) {
        self(incoming);
    }
}

/// Why a peer is refused that asks for nothing this version knows.
fn unknown() -> io::Error {
    let known = Road::ALL.map(|road| String::from_utf8_lossy(road.protocol()).into_owned()).join(", ");
    let text = format!(
        "it speaks none of {known}: its version of herder and this one ({}) are too far apart, or it is no herder",
        env!("CARGO_PKG_VERSION")
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// Whether two ends of TLS found no protocol that both know.
fn tells_of_version(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let refused = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    error.is_some_and(|error| *error == rustls::Error::NoApplicationProtocol || *error == refused)
}

/// TLS towards a peer, for one purpose.
async fn shake(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    tcp: TcpStream,
    addr: &str,
    road: Road,
) -> Result<client::TlsStream<TcpStream>, LinkError> {
    let version = || {
        let protocol = String::from_utf8_lossy(road.protocol()).into_owned();
        LinkError::Version { addr: addr.to_owned(), protocol }
    };
    let opened =
        TlsConnector::from(config).connect(name, tcp).await.map_err(|source| match tells_of_version(&source) {
            true => version(),
            false => LinkError::Stranger { addr: addr.to_owned(), source },
        })?;
    // Whoever chooses nothing does not know what a road is.
    if opened.get_ref().1.alpn_protocol().is_none() { Err(version()) } else { Ok(opened) }
}

async fn connect(addr: &str) -> Result<TcpStream, LinkError> {
    let failed = |source| LinkError::Connect { addr: addr.to_owned(), source };
    let tcp = TcpStream::connect(addr).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    Ok(tcp)
}

#[cfg(test)]
mod skew;
#[cfg(test)]
mod tests;
