//! The node link: connections between nodes, mutual TLS only, each for one purpose that its first bytes name (ALPN).
//!
//! A protocol's version is part of its name. A node of the next version offers its own names first and these after them, so
//! that the two still talk. ARCHITECTURE.md says what may differ between two versions; `skew.rs` proves it.

mod access;
mod certify;
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
use rustls::server::Acceptor;
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, TlsStream, client};
use tokio_util::sync::CancellationToken;

use crate::channels::Peer;
use crate::identity::{Identity, IdentityError, seconds, server_name};
use crate::rotation::Rotation;
use crate::subject::{self, Subject};

pub use access::{Access, Denied, Roster};
pub use certify::{Certifier, Wish};
use handshakes::{Handshakes, LogLimit};
pub use join::{Joined, join};

/// Maximum time to open a connection, TLS included. A node in reach answers in milliseconds.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// Maximum sleep of the renewal loop. Sleep stands still while the host is suspended, and a clock may be set at any
/// time: so long after either, a certificate that has expired meanwhile is replaced.
const RENEWAL_LOOK: Duration = Duration::from_secs(20);

/// Pause after a failed renewal.
const RENEWAL_REST: Duration = Duration::from_secs(10);

/// Purpose of a connection between two nodes.
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
    /// The bytes of a connection from a peer's ingress to a task beside this node.
    Ingress,
    /// A node asks a manager for a new certificate. Its own one may have expired lately.
    Renew,
}

impl Road {
    const ALL: [Road; 7] = [Road::Engine, Road::Calls, Road::Bus, Road::Swarm, Road::Join, Road::Ingress, Road::Renew];

    fn protocol(self) -> &'static [u8] {
        match self {
            Road::Engine => b"herder-engine/1",
            Road::Calls => b"herder-calls/1",
            Road::Bus => b"herder-bus/1",
            Road::Swarm => b"herder-swarm/1",
            Road::Ingress => b"herder-ingress/1",
            Road::Join => b"herder-join/1",
            Road::Renew => b"herder-renew/1",
        }
    }

    /// Returns the ALPN protocol names for this purpose, newest first. A release that changes one puts the new name
    /// before the old one.
    fn protocols(self) -> Vec<Vec<u8>> {
        vec![self.protocol().to_vec()]
    }
}

/// Configurations are found by the place of a road in [`Road::ALL`].
const _: () = {
    let mut at = 0;
    while at < Road::ALL.len() {
        assert!(Road::ALL[at] as usize == at, "the roads stand in their order");
        at += 1;
    }
};

/// Reason why a peer cannot be reached.
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
    #[error("{addr} cannot let this node in at present: {reason}")]
    NotNow { addr: String, reason: String },
    #[error("node {addr} is not trusted: {denied}")]
    Denied { addr: String, denied: Denied },
    #[error("no node that could be asked is known")]
    NoManager,
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A connection that a peer opened.
#[derive(Debug)]
pub struct Incoming {
    pub road: Road,
    /// Id of the node, proved by its certificate.
    pub node: String,
    /// Subject of the certificate.
    pub subject: Subject,
    pub access: Access,
    pub stream: TlsStream<TcpStream>,
    rosters: watch::Receiver<Option<Arc<Roster>>>,
}

impl Incoming {
    /// Completes when the peer may not do any more what it could when it came: it was removed or demoted.
    pub fn revoked(&self) -> impl Future<Output = ()> + Send + 'static {
        let (mut rosters, subject) = (self.rosters.clone(), self.subject.clone());
        let (road, access) = (self.road, self.access);
        async move {
            let less = |roster: &Option<Arc<Roster>>| {
                let now = access::incoming(roster.as_deref(), &subject, road);
                now != Ok(Access::Full) && now != Ok(access)
            };
            if rosters.wait_for(less).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Completes when the peer, a worker when it came, has become a manager: a new connection gives it more rights.
    ///
    /// A node has its certificate as a manager before the roster names it.
    pub fn outgrown(&self) -> impl Future<Output = ()> + Send + 'static {
        let (mut rosters, node) = (self.rosters.clone(), self.node.clone());
        let names = move |roster: &Option<Arc<Roster>>| {
            roster.as_deref().is_some_and(|it| it.managers.iter().any(|manager| manager.id == node))
        };
        let may_grow = self.access == Access::Worker && !names(&rosters.borrow());
        async move {
            if !may_grow || rosters.wait_for(names).await.is_err() {
                std::future::pending().await
            }
        }
    }
}

#[derive(Debug)]
struct Current {
    identity: Arc<Identity>,
    server: Arc<ServerConfig>,
    /// TLS configuration for nodes that come for a new certificate.
    renewing: Arc<ServerConfig>,
    /// TLS configurations, in the order of [`Road::ALL`].
    clients: Vec<Arc<ClientConfig>>,
}

impl Current {
    fn new(identity: Identity) -> Result<Current, IdentityError> {
        let usual = Road::ALL.into_iter().filter(|road| *road != Road::Renew);
        let server = identity.server(usual.flat_map(Road::protocols).collect())?;
        let clients = Road::ALL.iter().map(|road| identity.client(road.protocols())).collect::<Result<_, _>>()?;
        let renewing = identity.renewing_server(Road::Renew.protocols())?;
        Ok(Current { identity: Arc::new(identity), server, renewing, clients })
    }
}

/// This node's end of all links.
#[derive(Debug)]
pub struct Link {
    current: ArcSwap<Current>,
    /// Folder in which a renewed identity is stored.
    folder: PathBuf,
    /// Held while the identity is changed, so that no change undoes another.
    changing: Mutex<()>,
    rotation: watch::Sender<Rotation>,
    identities: watch::Sender<Arc<Identity>>,
    /// On managers: the certifier of nodes.
    certifier: Mutex<Option<Arc<dyn Certifier>>>,
    /// The roster of the swarm; `None` in a pool without managers.
    rosters: watch::Sender<Option<Arc<Roster>>>,
    /// Connections of peers that know no protocol of this version.
    mismatched: AtomicU64,
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
            certifier: Mutex::default(),
            rosters: watch::channel(None).0,
            mismatched: AtomicU64::new(0),
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

    /// Replaces the roster. Connections of peers that lost their rights end.
    pub fn follow_roster(&self, roster: Option<Roster>) {
        self.rosters.send_if_modified(|known| {
            let changed = known.as_deref() != roster.as_ref();
            if changed {
                *known = roster.map(Arc::new);
            }
            changed
        });
    }

    pub fn roster(&self) -> Option<Arc<Roster>> {
        self.rosters.borrow().clone()
    }

    /// Watches the roster of the swarm.
    pub fn rosters(&self) -> watch::Receiver<Option<Arc<Roster>>> {
        self.rosters.subscribe()
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
        let stream = stream?;
        let subject = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(Subject::of);
        let subject = subject.ok_or_else(|| stranger(io::ErrorKind::InvalidData.into()))?;
        access::outgoing(self.roster().as_deref(), &subject, road)
            .map_err(|denied| LinkError::Denied { addr: addr.to_owned(), denied })?;
        Ok(stream.into())
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
                            tracing::warn!(%from, %error, silent, "refused a connection without a certificate of this pool");
                        }
                    }
                    Err(_) => tracing::debug!(%from, "a connection was not opened in time"),
                }
            });
        }
    }

    /// Performs the TLS handshake. Returns `None` if a join or renewal request was answered here.
    async fn open(&self, tcp: TcpStream, from: SocketAddr) -> io::Result<Option<Incoming>> {
        tcp.set_nodelay(true)?;
        let current = self.current.load_full();
        let begun = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        let renews = begun.client_hello().alpn().is_some_and(|mut it| it.any(|it| it == Road::Renew.protocol()));
        let config = if renews { &current.renewing } else { &current.server };
        let accepted = begun.into_stream(config.clone()).await;
        let stream = accepted.map_err(|error| if tells_of_version(&error) { unknown() } else { error })?;
        let session = stream.get_ref().1;
        let protocol = session.alpn_protocol().ok_or_else(unknown)?;
        let road = Road::ALL.into_iter().find(|road| road.protocol() == protocol).ok_or_else(unknown)?;
        if road == Road::Join {
            join::answer(self, stream, from).await?;
            return Ok(None);
        }
        let denied = |text: String| io::Error::new(io::ErrorKind::PermissionDenied, text);
        let cert = session.peer_certificates().and_then(<[_]>::first);
        let subject = cert.and_then(Subject::of).ok_or_else(|| denied("no certificate of this pool".to_owned()))?;
        if current.identity.shared.removed.contains(&subject.node) {
            return Err(denied(Denied::Removed(subject.node).to_string()));
        }
        let rosters = self.rosters.subscribe();
        let access = access::incoming(rosters.borrow().as_deref(), &subject, road);
        let access = access.map_err(|error| denied(error.to_string()))?;
        if road == Road::Renew {
            let is_valid = cert.and_then(|it| subject::not_after(it)).is_some_and(|it| it > seconds(SystemTime::now()));
            self.answer_renewal(stream, &subject, is_valid).await?;
            return Ok(None);
        }
        Ok(Some(Incoming { road, node: subject.node.clone(), subject, access, stream: stream.into(), rosters }))
    }

    /// Logs an incompatible peer, at most once in a while: it comes again and again until it is upgraded.
    fn tell_misfit(&self, from: SocketAddr, error: &io::Error) {
        let count = self.mismatched.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::warn!(%from, %error, count, "a peer of another version is refused");
        }
    }

    /// Renews the certificate before its end, again and again. Connections that are open stay open.
    pub async fn keep_renewed(self: Arc<Self>, stop: CancellationToken) {
        self.keep_renewed_by(SystemTime::now, RENEWAL_LOOK, stop).await;
    }

    /// The same by this clock, which is looked at once in `look`.
    async fn keep_renewed_by(&self, clock: impl Fn() -> SystemTime, look: Duration, stop: CancellationToken) {
        let mut identities = self.identities();
        loop {
            identities.mark_unchanged();
            let left = self.identity().renew_at().duration_since(clock()).unwrap_or_default();
            if left.is_zero() {
                match self.renew_anyhow().await {
                    Ok(()) => tracing::info!("the certificate of this node was renewed"),
                    Err(error) => tracing::error!(%error, "cannot renew the certificate of this node; trying again"),
                }
            }
            // At once after a renewal that failed would be in a loop without rest.
            let rest = left.max(RENEWAL_REST).min(look);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(rest) => {}
                // A certificate that was made meanwhile may end sooner.
                _ = identities.changed() => {}
            }
        }
    }

    /// Renews the certificate: by this node if it can, else by a manager.
    async fn renew_anyhow(&self) -> Result<(), LinkError> {
        let roster = self.roster();
        if roster.is_none() && self.identity().shared.has_authority() {
            return Ok(self.renew(SystemTime::now())?);
        }
        let managers = roster.map(|it| it.managers.clone()).unwrap_or_default();
        let peers: Vec<Peer> = managers.into_iter().map(|it| Peer { id: it.id, addr: it.addr }).collect();
        match self.obtain(&peers).await {
            // Managers of a release before this one certify nobody; each node has the key then.
            Err(LinkError::Version { .. } | LinkError::NoManager) if self.identity().shared.has_authority() => {
                Ok(self.renew(SystemTime::now())?)
            }
            obtained => obtained,
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

/// Accepts connections of peers.
pub trait Accept: Send + Sync + 'static {
    /// Must not wait: each connection is worked on in a task of its own.
    fn accept(&self, incoming: Incoming);
}

impl<F: Fn(Incoming) + Send + Sync + 'static> Accept for F {
    fn accept(&self, incoming: Incoming) {
        self(incoming);
    }
}

/// Returns the refusal of a peer that offers only unknown protocols.
fn unknown() -> io::Error {
    let known = Road::ALL.map(|road| String::from_utf8_lossy(road.protocol()).into_owned()).join(", ");
    let text = format!(
        "it speaks none of {known}: its version of herder and this one ({}) are too far apart, or it is no herder",
        env!("CARGO_PKG_VERSION")
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// True if two ends of TLS found no protocol that both know.
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
#[cfg(test)]
mod trust;
