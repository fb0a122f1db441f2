//! Connections for typed calls to other nodes, one for each node and purpose.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::link::{Link, LinkError, Road};

/// Interval of keep-alive; a peer that is silent for longer is lost.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// A node to call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub id: String,
    /// `host:port` of its node link.
    pub addr: String,
}

/// Opened when they are first needed, and again after they broke.
#[derive(Debug)]
pub(crate) struct Channels {
    link: Arc<Link>,
    road: Road,
    open: Mutex<HashMap<Peer, Channel>>,
}

impl Channels {
    pub(crate) fn new(link: Arc<Link>, road: Road) -> Channels {
        Channels { link, road, open: Mutex::default() }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn to(&self, peer: &Peer) -> Channel {
        let mut open = self.open.lock();
        let channel = open.entry(peer.clone()).or_insert_with(|| {
            let connector = Connector { link: self.link.clone(), road: self.road, peer: peer.clone() };
            let endpoint = Endpoint::from_static("http://node.herder").http2_keep_alive_interval(KEEPALIVE);
            endpoint.keep_alive_timeout(KEEPALIVE).connect_with_connector_lazy(connector)
        });
        channel.clone()
    }

    /// Forgets the connection to a node. The next call opens another one.
    pub(crate) fn forget(&self, peer: &Peer) {
        self.open.lock().remove(peer);
    }

    /// Forgets the connections to nodes that are not among these.
    pub(crate) fn keep(&self, peers: &[Peer]) {
        self.open.lock().retain(|peer, _| peers.contains(peer));
    }
}

/// Opens the connection to one peer.
struct Connector {
    link: Arc<Link>,
    road: Road,
    peer: Peer,
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = LinkError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (link, road, peer) = (self.link.clone(), self.road, self.peer.clone());
        Box::pin(async move { Ok(TokioIo::new(link.dial(&peer.addr, &peer.id, road).await?)) })
    }
}
