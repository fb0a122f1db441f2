//! Connections between nodes: to a peer's engine, and from peers to ours.

use std::io;
use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use herder_docker::{Dialling, Duplex};
use herder_place::Placer;
use herder_place::peers::Templates;
use herder_pool::Dial;
use herder_wire::link::{Access, Incoming, Link, Road};
use herder_wire::{calls, swarm};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::bus::PoolBus;
use crate::exports;
use crate::members::Directory;
use crate::peers::PeerService;
use crate::swarm::Door;

/// Bytes moved at once, each way; as at the door.
const PIECE_BYTES: usize = 64 << 10;

/// The way to engines: ours by its socket, others through the node beside them.
#[derive(Debug)]
pub struct NodeDialler {
    engine: String,
    link: Arc<Link>,
    directory: Arc<Directory>,
}

impl NodeDialler {
    pub fn new(engine: &str, link: Arc<Link>, directory: Arc<Directory>) -> NodeDialler {
        NodeDialler { engine: engine.to_owned(), link, directory }
    }
}

impl Dial for NodeDialler {
    fn dial<'d>(&'d self, addr: &'d str) -> Dialling<'d> {
        Box::pin(async move {
            if addr == self.directory.here {
                return local(&self.engine).await;
            }
            let unknown = || io::Error::new(io::ErrorKind::NotFound, "no node is known at this address");
            let peer = self.directory.at(addr).ok_or_else(unknown)?;
            let stream = self.link.dial(addr, &peer.id, Road::Engine).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}

pub(crate) async fn local(engine: &str) -> io::Result<Box<dyn Duplex>> {
    Ok(match engine.strip_prefix("unix://") {
        Some(path) => Box::new(UnixStream::connect(path).await?),
        None => Box::new(TcpStream::connect(engine.strip_prefix("tcp://").unwrap_or(engine)).await?),
    })
}

/// Takes what peers open.
#[derive(Debug)]
pub struct LinkAcceptor {
    engine: String,
    placer: Weak<Placer>,
    service: Arc<PeerService>,
    bus: Arc<PoolBus>,
    door: Arc<Door>,
    stop: CancellationToken,
}

impl LinkAcceptor {
    /// Calls that peers made of this life of the node end with `stop`: its next life answers those after it.
    pub fn new(
        engine: &str,
        here: &str,
        placer: &Arc<Placer>,
        templates: Weak<dyn Templates>,
        bus: Arc<PoolBus>,
        door: Arc<Door>,
        stop: CancellationToken,
    ) -> LinkAcceptor {
        let service = Arc::new(PeerService::new(placer, templates, here));
        LinkAcceptor { engine: engine.to_owned(), placer: Arc::downgrade(placer), service, bus, door, stop }
    }
}

impl herder_wire::link::Accept for LinkAcceptor {
    fn accept(&self, incoming: Incoming) {
        if self.placer.strong_count() == 0 {
            return;
        }
        let road = incoming.road;
        let (revoked, outgrown, peer) = (incoming.revoked(), incoming.outgrown(), incoming.node.clone());
        let (engine, access) = (self.engine.clone(), incoming.access);
        let serving: BoxFuture<'static, ()> = match (road, access) {
            (Road::Engine, Access::Full) => Box::pin(to_engine(engine, incoming.stream)),
            (Road::Engine, Access::Worker) => Box::pin(exports::serve(engine, incoming.stream, outgrown)),
            (Road::Calls, _) => Box::pin(calls::serve(self.service.with(access), incoming.stream, outgrown)),
            (Road::Bus, _) => Box::pin(self.bus.clone().carry(incoming)),
            (Road::Swarm, _) => Box::pin(swarm::serve(self.door.clone(), incoming.subject, incoming.stream)),
            (Road::Ingress, _) => Box::pin(self.door.clone().tunnel(incoming.node, incoming.stream)),
            // Answered by the link itself.
            (Road::Join | Road::Renew, _) => return,
        };
        // What passes through to the engine has nothing of this life.
        let stop = if road == Road::Engine { CancellationToken::new() } else { self.stop.clone() };
        tokio::spawn(async move {
            tokio::select! {
                () = serving => {}
                () = stop.cancelled() => {}
                () = revoked => tracing::info!(peer, "a connection is closed: its node was removed or demoted"),
            }
        });
    }
}

/// Joins a peer's connection with one to our engine; each direction has its own end.
async fn to_engine(engine: String, mut peer: impl AsyncRead + AsyncWrite + Unpin) {
    let joined = async {
        let mut engine = local(&engine).await?;
        copy_bidirectional_with_sizes(&mut peer, &mut engine, PIECE_BYTES, PIECE_BYTES).await
    };
    if let Err(error) = joined.await {
        tracing::debug!(%error, "a peer's connection to the engine ended");
    }
}
