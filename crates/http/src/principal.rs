//! The caller of a request: how it reached this door, and the certificate it showed.

use std::fmt;
use std::net::SocketAddr;

use herder_tls::names::Names;

/// The caller of a request, as far as the connection proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub peer: Peer,
    /// The client certificate of a TLS connection that asks for one; its CA was checked in the handshake.
    pub certificate: Option<Names>,
}

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine, by the credentials that the kernel keeps for a unix socket. `pid` is missing for a
    /// process of another PID namespace.
    Unix { uid: u32, gid: u32, pid: Option<i32> },
    /// An address on the network. It proves nothing: on plain TCP everybody who can connect is the same caller.
    Tcp(SocketAddr),
    /// herder itself, or a test: no connection.
    Local,
}

impl Principal {
    /// A caller without a connection.
    pub fn local() -> Principal {
        Principal { peer: Peer::Local, certificate: None }
    }

    /// True if the connection proves the caller's identity. It is a unix socket (its file's owner decided who may open
    /// it), a client certificate, or herder itself.
    pub fn is_known(&self) -> bool {
        !matches!(self.peer, Peer::Tcp(_)) || self.certificate.is_some()
    }

    /// The name for logs: the certificate's common name, or `uid=1000`; nothing for a bare address.
    pub fn name(&self) -> Option<String> {
        match (&self.certificate, &self.peer) {
            (Some(certificate), _) => Some(certificate.common_name.clone()),
            (None, Peer::Unix { uid, .. }) => Some(format!("uid={uid}")),
            (None, Peer::Tcp(_) | Peer::Local) => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Unix { uid, gid, pid: Some(pid) } => write!(f, "unix:uid={uid},gid={gid},pid={pid}"),
            Peer::Unix { uid, gid, pid: None } => write!(f, "unix:uid={uid},gid={gid}"),
            Peer::Tcp(addr) => write!(f, "tcp:{addr}"),
            Peer::Local => f.write_str("local"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_known_by_its_socket_or_its_certificate_and_not_by_its_address() {
        let tcp = || Peer::Tcp("10.0.0.1:4711".parse().expect("an address"));
        let unix = Peer::Unix { uid: 1000, gid: 100, pid: Some(7) };
        let names = Names { common_name: "admin".into(), ..Names::default() };
        let check = |peer: Peer, certificate: Option<&Names>, expected: &str| {
            let caller = Principal { peer, certificate: certificate.cloned() };
            let name = caller.name().unwrap_or_else(|| "-".into());
            assert_eq!(format!("{} {name} {}", caller.peer, caller.is_known()), expected);
        };
        check(tcp(), None, "tcp:10.0.0.1:4711 - false");
        check(tcp(), Some(&names), "tcp:10.0.0.1:4711 admin true");
        check(unix.clone(), None, "unix:uid=1000,gid=100,pid=7 uid=1000 true");
        check(unix, Some(&names), "unix:uid=1000,gid=100,pid=7 admin true");
        check(Peer::Local, None, "local - true");
    }
}
