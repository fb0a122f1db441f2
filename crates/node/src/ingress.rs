//! Path from the ingress of this node to tasks. Addresses on this host, on the ingress network and on the tasks' own
//! hosts come first, then a tunnel to the node beside them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use herder_agent::Agent;
use herder_decide::endpoints::{self, ServiceEndpoints};
use herder_ingress::{Conn, Reach};
use herder_model::swarm::Backend;
use herder_pool::Pool;
use herder_wire::link::{Link, Road};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

/// Addresses of containers that are remembered. They do not change while a container runs.
const KNOWN_MAX: usize = 4096;

/// While there is another way, one is given up after so long.
const WAY_TIME_MAX: Duration = Duration::from_secs(1);
/// The wish of an ingress at the begin of a tunnel takes some hundred bytes.
const WISH_BYTES_MAX: usize = 512;
const WISH_TIME_MAX: Duration = Duration::from_secs(10);
/// The first byte of an answer: the task is reached.
const REACHED: u8 = 1;
const REFUSED: u8 = 0;
/// Bytes moved at once, each way.
const PIECE_BYTES: usize = 64 << 10;

/// Reaches tasks from this node.
#[derive(Debug)]
pub(crate) struct TaskReach {
    node: String,
    link: Arc<Link>,
    agent: Arc<Agent>,
    known: Mutex<HashMap<String, IpAddr>>,
}

impl TaskReach {
    pub(crate) fn new(node: &str, agent: Arc<Agent>, link: Arc<Link>) -> TaskReach {
        TaskReach { node: node.to_owned(), link, agent, known: Mutex::default() }
    }

    /// The ways to a port of a task, the shortest first.
    async fn ways(&self, task: &str, backend: &Backend, port: u16) -> Vec<Way> {
        let mut ways = Vec::new();
        if backend.node == self.node {
            if !backend.container.is_empty() {
                ways.extend(self.local(task, &backend.container).await.map(|ip| Way::of(SocketAddr::new(ip, port))));
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

    async fn local(&self, task: &str, container: &str) -> Option<IpAddr> {
        if let Some(known) = self.known.lock().get(container) {
            return Some(*known);
        }
        let address = self.agent.address(task, container).await?;
        // A plain container that is restarted may get another one.
        if task == container {
            return Some(address);
        }
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
            for way in self.ways(task, backend, port).await {
                let connected = timeout(WAY_TIME_MAX, way.connect()).await;
                match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(stream) => {
                        let _ = stream.set_nodelay(true);
                        return Ok(Box::new(stream) as Conn);
                    }
                    Err(error) => last = io::Error::new(error.kind(), format!("{}: {error}", way.to)),
                }
            }
            // A port that refuses is no matter of the way.
            if backend.node == self.node || backend.link.is_empty() || last.kind() == io::ErrorKind::ConnectionRefused {
                return Err(last);
            }
            self.tunnel(task, backend, port).await
        })
    }

    fn datagrams<'r>(&'r self, task: &'r str, backend: &'r Backend, port: u16) -> BoxFuture<'r, io::Result<UdpSocket>> {
        Box::pin(async move {
            let way = self.ways(task, backend, port).await.into_iter().next().ok_or_else(|| none(task, backend))?;
            let socket = UdpSocket::bind(SocketAddr::new(way.source(), 0)).await?;
            socket.connect(way.to).await?;
            Ok(socket)
        })
    }
}

impl TaskReach {
    /// Opens a connection through the node beside the task.
    async fn tunnel(&self, task: &str, backend: &Backend, port: u16) -> io::Result<Conn> {
        let dialled = self.link.dial(&backend.link, &backend.node, Road::Ingress).await;
        let mut stream = dialled.map_err(io::Error::other)?;
        stream.write_all(format!("{task} {} {port}\n", backend.container).as_bytes()).await?;
        if stream.read_u8().await? == REACHED {
            return Ok(Box::new(stream));
        }
        let mut text = String::new();
        let _ = stream.take(WISH_BYTES_MAX as u64).read_to_string(&mut text).await;
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, text))
    }
}

/// Keeps the table of plain containers with routing labels up to date.
pub(crate) async fn follow_routed(pool: Arc<Pool>, told: watch::Sender<Arc<Vec<ServiceEndpoints>>>) {
    let mut changes = pool.changes();
    loop {
        changes.borrow_and_update();
        let nodes = pool.nodes();
        let seen = Arc::new(endpoints::plain(nodes.iter().map(AsRef::as_ref)));
        told.send_if_modified(|known| std::mem::replace(known, seen.clone()) != seen);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Carries a connection of a peer's ingress to a task of this node. The leader must have said that the peer routes to
/// it.
pub(crate) async fn serve(agent: &Agent, from: &str, mut peer: impl AsyncRead + AsyncWrite + Unpin) {
    let carried = async {
        let wish = timeout(WISH_TIME_MAX, wish(&mut peer)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        match reached(agent, from, &wish).await {
            Ok(mut task) => {
                peer.write_u8(REACHED).await?;
                copy_bidirectional_with_sizes(&mut peer, &mut task, PIECE_BYTES, PIECE_BYTES).await.map(drop)
            }
            Err(error) => {
                peer.write_u8(REFUSED).await?;
                peer.write_all(error.to_string().as_bytes()).await?;
                peer.shutdown().await
            }
        }
    };
    if let Err(error) = carried.await {
        tracing::debug!(from, %error, "a tunnel to a task ended badly");
    }
}

/// Task, container and port that a peer's ingress wishes to reach.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    task: String,
    container: String,
    port: u16,
}

async fn wish(peer: &mut (impl AsyncRead + Unpin)) -> io::Result<Wish> {
    let mut line = Vec::new();
    while line.len() < WISH_BYTES_MAX {
        match peer.read_u8().await? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    let words: Vec<&str> = std::str::from_utf8(&line).unwrap_or_default().split(' ').collect();
    let is_id = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric());
    match words[..] {
        [task, container, port] if is_id(task) && is_id(container) => {
            let port = port.parse().map_err(|_| io::ErrorKind::InvalidData)?;
            Ok(Wish { task: task.to_owned(), container: container.to_owned(), port })
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn reached(agent: &Agent, from: &str, wish: &Wish) -> io::Result<TcpStream> {
    let Wish { task, container, port } = wish;
    let refused = |text: String| io::Error::new(io::ErrorKind::PermissionDenied, text);
    if !agent.is_served(from, task, *port) {
        return Err(refused(format!("node {from} routes nothing to port {port} of task {task}")));
    }
    let address = agent.address(task, container).await;
    let address = address.ok_or_else(|| refused(format!("task {task} has no address on this node")))?;
    let stream = TcpStream::connect(SocketAddr::new(address, *port)).await?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
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
        "task {task} on node {} has no address on the ingress network (it is older than the ingress: `docker service update \
         --force`), and no port that is published on its host",
        backend.node
    );
    io::Error::new(io::ErrorKind::NotFound, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_names_a_task_its_container_and_a_port() {
        let check = async |text: &str, expected: Option<u16>| {
            let found = wish(&mut text.as_bytes()).await.ok();
            assert_eq!(found.map(|it| it.port), expected, "{text:?}");
        };
        check("t1 c1 80\nGET /", Some(80)).await;
        check("t1 c1 80", None).await;
        check("t1 c1 80000\n", None).await;
        check("t1 c1\n", None).await;
        check("t1 ../c1 80\n", None).await;
        check(" c1 80\n", None).await;
        check(&"t".repeat(WISH_BYTES_MAX + 1), None).await;
    }
}
