//! Sockets that hold published ports, so that engines and other programs of this host see them taken.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use herder_model::swarm::{NetPort, Protocol};
use imbl::OrdMap;
use socket2::{Domain, Socket, Type};
use tracing::warn;

/// Sockets that reserve published ports on this host, by key (`8080/tcp`).
#[derive(Debug, Default)]
pub(super) struct Holders {
    held: BTreeMap<String, Socket>,
    /// Ports that were to be held last.
    wanted: OrdMap<String, NetPort>,
    taken: BTreeSet<String>,
}

impl Holders {
    /// Holds these ports, and no others. Returns those that something else on this host listens on.
    pub(super) fn hold(&mut self, ports: OrdMap<String, NetPort>) -> BTreeSet<String> {
        // One that is taken may be free now.
        if self.taken.is_empty() && self.wanted.ptr_eq(&ports) {
            return BTreeSet::new();
        }
        self.held.retain(|key, _| ports.contains_key(key));
        let mut taken = BTreeSet::new();
        for (key, port) in &ports {
            if self.held.contains_key(key) {
                continue;
            }
            match bound(port) {
                Ok(Some(socket)) => _ = self.held.insert(key.clone(), socket),
                // Not a kind of port that a program can hold.
                Ok(None) => {}
                Err(error) => {
                    if !self.taken.contains(key) {
                        warn!(port = key, %error, "a published port is taken on this host; other nodes publish it, this one does not");
                    }
                    taken.insert(key.clone());
                }
            }
        }
        self.wanted = ports;
        self.taken.clone_from(&taken);
        taken
    }
}

/// Those of the ports (`8080/tcp`) that a program of this host listens on, each with the program.
pub async fn listeners(ports: BTreeSet<String>) -> BTreeMap<String, String> {
    tokio::task::spawn_blocking(move || herder_net::listeners(&ports)).await.unwrap_or_default()
}

/// A socket that never listens: connections that the mesh does not take find a closed port.
fn bound(port: &NetPort) -> io::Result<Option<Socket>> {
    let kind = match port.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
        Protocol::Sctp => return Ok(None),
    };
    let both = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV6, kind, None)?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.published)).into())?;
        Ok(socket)
    };
    match both() {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // A host without IPv6.
        Err(_) => {
            let socket = Socket::new(Domain::IPV4, kind, None)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.published)).into())?;
            Ok(Some(socket))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_held_until_it_is_published_no_more() {
        let other = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let free = { std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port() };
        let port = |published| {
            let port = NetPort { published, ..NetPort::default() };
            (port.key(), port)
        };
        let taken = other.local_addr().unwrap().port();
        let mut holders = Holders::default();
        assert_eq!(holders.hold([port(taken), port(free)].into_iter().collect()), [format!("{taken}/tcp")].into());
        std::net::TcpListener::bind(("127.0.0.1", free)).expect_err("the port is held");
        holders.hold(OrdMap::new());
        std::net::TcpListener::bind(("127.0.0.1", free)).expect("the port is free again");
    }
}
