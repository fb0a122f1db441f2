//! Path from the ingress of this node to tasks: by their addresses on this host, on the ingress network, or on their
//! own hosts.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use herder_agent::Agent;
use herder_ingress::{Conn, Reach};
use herder_model::swarm::Backend;
use parking_lot::Mutex;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// Addresses of containers that are remembered. They do not change while a container runs.
const KNOWN_MAX: usize = 4096;

/// Reaches tasks from this node.
#[derive(Debug)]
pub(crate) struct TaskReach {
    node: String,
    agent: Arc<Agent>,
    known: Mutex<HashMap<String, IpAddr>>,
}

impl TaskReach {
    pub(crate) fn new(node: &str, agent: Arc<Agent>) -> TaskReach {
        TaskReach { node: node.to_owned(), agent, known: Mutex::default() }
    }

    /// The ways to a port of a task, the shortest first.
    async fn ways(&self, backend: &Backend, port: u16) -> Vec<Way> {
        let mut ways = Vec::new();
        if backend.node == self.node {
            if !backend.container.is_empty() {
                ways.extend(self.local(&backend.container).await.map(|ip| Way::of(SocketAddr::new(ip, port))));
            }
            // The bridge of an overlay network leads to its containers of this host.
            let carried = backend.addresses.iter().filter(|(id, _)| self.agent.networks().state(id).is_some());
            ways.extend(carried.map(|(_, ip)| Way::of(SocketAddr::new(*ip, port))));
        } else {
            for (id, ip) in &backend.addresses {
                if let Some(from) = self.on_ingress(id) {
                    ways.push(Way { to: SocketAddr::new(*ip, port), from: Some(from) });
                }
            }
        }
        ways.extend(backend.published.map(Way::of));
        ways
    }

    /// The address of this node on the ingress network. Tasks on other nodes answer only to it: other bridges have the same
    /// address on each host.
    fn on_ingress(&self, network: &str) -> Option<IpAddr> {
        let state = self.agent.networks().state(network).filter(|it| it.facts.ingress)?;
        state.nodes.get(&self.node)?.ingress.map(IpAddr::from)
    }

    async fn local(&self, container: &str) -> Option<IpAddr> {
        if let Some(known) = self.known.lock().get(container) {
            return Some(*known);
        }
        let address = self.agent.address(container).await?;
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(container.to_owned(), address);
        Some(address)
    }
}

impl Reach for TaskReach {
    fn connect<'r>(&'r self, task: &'r str, backend: &'r Backend, port: u16) -> BoxFuture<'r, io::Result<Conn>> {
        Box::pin(async move {
            let mut last = none(task, backend);
            for way in self.ways(backend, port).await {
                match way.connect().await {
                    Ok(stream) => {
                        let _ = stream.set_nodelay(true);
                        return Ok(Box::new(stream) as Conn);
                    }
                    Err(error) => last = io::Error::new(error.kind(), format!("{}: {error}", way.to)),
                }
            }
            Err(last)
        })
    }

    fn datagrams<'r>(&'r self, task: &'r str, backend: &'r Backend, port: u16) -> BoxFuture<'r, io::Result<UdpSocket>> {
        Box::pin(async move {
            let way = self.ways(backend, port).await.into_iter().next().ok_or_else(|| none(task, backend))?;
            let socket = UdpSocket::bind(SocketAddr::new(way.source(), 0)).await?;
            socket.connect(way.to).await?;
            Ok(socket)
        })
    }
}

/// An address of a task, and the one of this node from which it is reached.
#[derive(Debug)]
struct Way {
    to: SocketAddr,
    /// Source address; `None` for any.
    from: Option<IpAddr>,
}

impl Way {
    fn of(to: SocketAddr) -> Way {
        Way { to, from: None }
    }

    fn source(&self) -> IpAddr {
        let any = if self.to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        self.from.unwrap_or(any)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = if self.to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if self.from.is_some() {
            socket.bind(SocketAddr::new(self.source(), 0))?;
        }
        socket.connect(self.to).await
    }
}

fn none(task: &str, backend: &Backend) -> io::Error {
    let text = format!(
        "task {task} on node {} cannot be reached from here: it has no address on the ingress network (it is older than the \
         ingress: `docker service update --force`), and no port that is published on its host",
        backend.node
    );
    io::Error::new(io::ErrorKind::NotFound, text)
}
