//! The way from the ingress of this node to tasks: their addresses on this host, on overlay networks, or on their own hosts.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use herder_agent::Agent;
use herder_ingress::{Conn, Reach};
use herder_model::swarm::Backend;
use parking_lot::Mutex;
use tokio::net::TcpStream;

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

    /// Where a port of a task is reached, the shortest way first.
    async fn addresses(&self, backend: &Backend, port: u16) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        // A network is in the kernel of this node if it has tasks there.
        let carried = backend.addresses.iter().filter(|(network, _)| self.agent.networks().state(network).is_some());
        addresses.extend(carried.map(|(_, ip)| SocketAddr::new(*ip, port)));
        if backend.node == self.node && !backend.container.is_empty() {
            addresses.extend(self.local(&backend.container).await.map(|ip| SocketAddr::new(ip, port)));
        }
        addresses.extend(backend.published);
        addresses
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
            for address in self.addresses(backend, port).await {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        let _ = stream.set_nodelay(true);
                        return Ok(Box::new(stream) as Conn);
                    }
                    Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
                }
            }
            Err(last)
        })
    }

    fn datagrams<'r>(
        &'r self,
        task: &'r str,
        backend: &'r Backend,
        port: u16,
    ) -> BoxFuture<'r, io::Result<SocketAddr>> {
        Box::pin(
            async move { self.addresses(backend, port).await.into_iter().next().ok_or_else(|| none(task, backend)) },
        )
    }
}

fn none(task: &str, backend: &Backend) -> io::Error {
    let text = format!(
        "task {task} on node {} cannot be reached from here: it has no address on an overlay network of this node, and no port that \
         is published on its host",
        backend.node
    );
    io::Error::new(io::ErrorKind::NotFound, text)
}
