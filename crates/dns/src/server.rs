//! The server: one UDP and one TCP socket per gateway address.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use herder_decide::net::Names;
use herder_parts::aside::{self, AsideError};
use hickory_proto::op::ResponseCode;
use rand::rngs::SmallRng;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::DNS_PORT;
use crate::feed::{CHANGES, Feed, Knowledge};
use crate::packet::{Reply, failure, reply};
use crate::relay::{ask, read_framed, write_framed};

/// Questions that wait for other servers at the same time; further ones are refused.
const RELAYS_MAX: usize = 1024;

/// TCP connections at the same time, and how long one may be without a question.
const CONNECTIONS_MAX: usize = 256;
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);

const PACKET_BYTES_MAX: usize = 4096;

/// Pause after a socket failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Pause between a change and saving it: a busy swarm changes many times in it. A server that is started meanwhile, without herder, knows what was
/// before.
const SAVE_PAUSE: Duration = Duration::from_secs(2);

/// File, below the server's folder, with its last feed.
pub const KEPT: &str = "net-dns.json";

#[derive(Debug)]
struct Server {
    names: ArcSwap<Names>,
    relays: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    kept: PathBuf,
    state: Mutex<State>,
    /// Something is to be saved.
    changed: Notify,
    end: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    knowledge: Knowledge,
    /// Keyed by gateway address. An entry's sockets end with it.
    listeners: BTreeMap<IpAddr, (String, JoinSet<()>)>,
}

/// Answers until `end`, fed over the Unix socket `path`. What was fed last is kept in `folder`, and answered by at once after a start.
///
/// # Errors
///
/// If the Unix socket cannot be made.
pub async fn serve(path: &Path, folder: &Path, end: CancellationToken) -> Result<(), AsideError> {
    let server = Arc::new(Server {
        names: ArcSwap::default(),
        relays: Arc::new(Semaphore::new(RELAYS_MAX)),
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        kept: folder.join(KEPT),
        state: Mutex::default(),
        changed: Notify::new(),
        end: end.clone(),
    });
    let kept = tokio::fs::read(&server.kept).await.unwrap_or_default();
    if let Ok(feed) = serde_json::from_slice::<Feed>(&kept) {
        let networks = feed.put.len();
        match server.take(feed).await {
            Ok(()) => info!(networks, "answering by what was known last"),
            Err(error) => warn!(%error, "cannot answer by all that was known last"),
        }
    }
    let saving = server.clone();
    let taking = move |feed: Feed| {
        let server = server.clone();
        async move {
            if feed.end {
                info!("another DNS server has taken over");
                server.end.cancel();
                return Ok(());
            }
            server.take(feed).await
        }
    };
    let serving = async {
        tokio::select! {
            outcome = aside::serve(path, CHANGES, taking) => outcome,
            () = saving.clone().keep() => Ok(()),
        }
    };
    let outcome = end.run_until_cancelled(serving).await.unwrap_or(Ok(()));
    saving.save().await;
    outcome
}

impl Server {
    async fn take(self: &Arc<Self>, feed: Feed) -> Result<(), String> {
        let mut state = self.state.lock().await;
        let before = (state.knowledge.states.clone(), state.knowledge.host());
        state.knowledge.take(feed);
        let after = (&state.knowledge.states, &state.knowledge.host());
        self.names.store(Arc::new(self.names.load().advance((&before.0, &before.1), after)));
        let mut error = Ok(());
        let wanted = state.knowledge.gateways();
        state.listeners.retain(|address, (network, _)| wanted.get(address) == Some(network));
        for (address, network) in wanted {
            if state.listeners.contains_key(&address) {
                continue;
            }
            match self.listen(address, &network) {
                Ok(tasks) => _ = state.listeners.insert(address, (network, tasks)),
                Err(source) => error = Err(format!("{address} port {DNS_PORT}: {source}")),
            }
        }
        self.changed.notify_one();
        error
    }

    /// Saves what is known, some time after each change.
    async fn keep(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(SAVE_PAUSE).await;
            self.save().await;
        }
    }

    async fn save(&self) {
        let feed = self.state.lock().await.knowledge.as_feed();
        let part = self.kept.with_extension("part");
        let written = async {
            tokio::fs::write(&part, serde_json::to_vec(&feed)?).await?;
            tokio::fs::rename(&part, &self.kept).await?;
            Ok::<(), io::Error>(())
        };
        if let Err(error) = written.await {
            warn!(%error, path = %self.kept.display(), "cannot save the names of networks");
        }
    }

    fn listen(self: &Arc<Self>, address: IpAddr, network: &str) -> io::Result<JoinSet<()>> {
        let at = SocketAddr::new(address, DNS_PORT);
        let udp = UdpSocket::from_std(bound(at, Type::DGRAM)?.into())?;
        let tcp = bound(at, Type::STREAM)?;
        tcp.listen(128)?;
        let tcp = TcpListener::from_std(tcp.into())?;
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().datagrams(Arc::new(udp), network.to_owned()));
        tasks.spawn(self.clone().accept(tcp, network.to_owned()));
        Ok(tasks)
    }

    async fn datagrams(self: Arc<Self>, socket: Arc<UdpSocket>, network: String) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut chance: SmallRng = rand::make_rng();
        loop {
            let (count, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    debug!(%error, network, "cannot receive a question");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let packet = &buffer[..count];
            let answer = match reply(&self.names.load(), &network, from.ip(), packet, false, &mut chance) {
                Reply::Bytes(bytes) => Some(bytes),
                Reply::Ignore => None,
                Reply::Forward(servers) => match self.relays.clone().try_acquire_owned() {
                    Err(_) => failure(packet, ResponseCode::Refused),
                    Ok(turn) => {
                        let (socket, packet) = (socket.clone(), packet.to_vec());
                        tokio::spawn(async move {
                            let _turn = turn;
                            if let Some(answer) = ask(&servers, &packet, false).await {
                                // Its client may be gone.
                                let _ = socket.send_to(&answer, from).await;
                            }
                        });
                        None
                    }
                },
            };
            if let Some(answer) = answer {
                // Its client may be gone.
                let _ = socket.send_to(&answer, from).await;
            }
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, network: String) {
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Ok(turn) = self.connections.clone().try_acquire_owned() else { continue };
            let (server, network) = (self.clone(), network.clone());
            tokio::spawn(async move {
                let _turn = turn;
                let mut chance: SmallRng = rand::make_rng();
                let _ = server.connection(stream, from.ip(), &network, &mut chance).await;
            });
        }
    }

    async fn connection(
        &self,
        mut stream: TcpStream,
        from: IpAddr,
        network: &str,
        chance: &mut SmallRng,
    ) -> io::Result<()> {
        loop {
            let packet = timeout(IDLE_TIME_MAX, read_framed(&mut stream)).await??;
            let said = reply(&self.names.load(), network, from, &packet, true, chance);
            let answer = match said {
                Reply::Bytes(bytes) => Some(bytes),
                Reply::Ignore => None,
                Reply::Forward(servers) => match self.relays.try_acquire() {
                    Err(_) => failure(&packet, ResponseCode::Refused),
                    Ok(_turn) => ask(&servers, &packet, true).await,
                },
            };
            if let Some(answer) = answer {
                write_framed(&mut stream, &answer).await?;
            }
        }
    }
}

/// A socket on an address that need not be there yet: the engine makes the bridge. A server that takes over binds beside the old one.
fn bound(at: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::DGRAM { Protocol::UDP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
    match at {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}
