//! WireGuard of the kernel: the device of encrypted networks and its peers, by generic netlink (`linux/wireguard.h`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use herder_decide::net::{TUNNEL, Tunnel, TunnelPeer};

use crate::NetError;
use crate::links::{IFNAME, INFO_KIND, LINKINFO, Links, MTU, NEW_LINK, UP, info, remove_link};
use crate::netlink::{ACK, Attrs, Bus, CREATE, EXCLUSIVE, Message, Socket, address_bytes, failed};

const FAMILY: &str = "wireguard";

const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const SET_DEVICE: u8 = 1;
const DEVICE_NAME: u16 = 2;
const DEVICE_KEY: u16 = 3;
const DEVICE_FLAGS: u16 = 5;
const DEVICE_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;
const REPLACE_PEERS: u32 = 1;
const PEER_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_ALLOWED: u16 = 9;
const REMOVE: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_LENGTH: u16 = 3;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Peers in one message: an attribute holds at most 64 KiB.
const PEERS_MAX: usize = 200;

/// Keys as the kernel takes them.
type Key = [u8; 32];

/// True if the kernel has WireGuard.
pub fn has_wireguard() -> bool {
    Socket::open(Bus::Generic).is_ok_and(|mut socket| family_id(&mut socket).is_ok())
}

fn family_id(socket: &mut Socket) -> Result<u16, NetError> {
    let message = generic(CONTROL, ACK, GET_FAMILY).text(FAMILY_NAME, FAMILY);
    let answers = socket.dump("family wireguard", message)?;
    let id = answers.iter().find_map(|it| {
        let id = Attrs::new(it.body.get(4..)?).get(FAMILY_ID)?;
        Some(u16::from_ne_bytes(id.get(..2)?.try_into().ok()?))
    });
    id.ok_or_else(|| failed("family wireguard", std::io::ErrorKind::NotFound.into()))
}

fn generic(kind: u16, flags: u16, command: u8) -> Message {
    Message::new(kind, flags).head(&[command, 1, 0, 0])
}

/// The tunnel device of this host.
#[derive(Debug, Default)]
pub struct Wireguard {
    /// Peers that the kernel has; nothing until they were set once.
    peers: Option<BTreeMap<Key, TunnelPeer>>,
    mtu: u32,
}

impl Wireguard {
    /// Makes the device where it is missing, and gives it these peers. `decoded` reads a key.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn set(
        &mut self,
        wanted: &Tunnel,
        private: Key,
        decoded: impl Fn(&str) -> Option<Key>,
    ) -> Result<(), NetError> {
        let mut route = Socket::open(Bus::Route)?;
        if Links::read(&mut route)?.named(TUNNEL).is_none() {
            self.peers = None;
            route.one("tunnel device", device(wanted.mtu))?;
        } else if self.mtu != wanted.mtu {
            let index = Links::read(&mut route)?.index(TUNNEL)?;
            route.one("tunnel device", Message::new(NEW_LINK, ACK).head(&info(index, UP, UP)).u32(MTU, wanted.mtu))?;
        }
        self.mtu = wanted.mtu;
        let peers = wanted.peers.iter().filter_map(|(key, peer)| Some((decoded(key)?, *peer)));
        let peers: BTreeMap<Key, TunnelPeer> = peers.collect();
        let mut socket = Socket::open(Bus::Generic)?;
        let family = family_id(&mut socket)?;
        for message in messages(family, wanted.local.port(), private, self.peers.as_ref(), &peers) {
            socket.one("peers of tunnels", message)?;
        }
        self.peers = Some(peers);
        Ok(())
    }

    /// Removes the device.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn remove(&mut self) -> Result<(), NetError> {
        self.peers = None;
        remove_link(&mut Socket::open(Bus::Route)?, TUNNEL)
    }
}

fn device(mtu: u32) -> Message {
    let message = Message::new(NEW_LINK, ACK | CREATE | EXCLUSIVE).head(&info(0, UP, UP)).text(IFNAME, TUNNEL);
    message.u32(MTU, mtu).nest(LINKINFO).text(INFO_KIND, FAMILY).end()
}

/// The messages that lead from the peers of before to those that are wanted. Sessions with peers that stay go on. The first ones replace
/// whatever is there: peers of a herder before.
fn messages(
    family: u16,
    port: u16,
    private: Key,
    before: Option<&BTreeMap<Key, TunnelPeer>>,
    wanted: &BTreeMap<Key, TunnelPeer>,
) -> Vec<Message> {
    let gone = before.into_iter().flatten().filter(|(key, _)| !wanted.contains_key(*key)).map(|(key, _)| (key, None));
    let new = wanted.iter().filter(|(key, peer)| before.and_then(|it| it.get(*key)) != Some(*peer));
    let changes: Vec<(&Key, Option<&TunnelPeer>)> = gone.chain(new.map(|(key, peer)| (key, Some(peer)))).collect();
    let message = |n: usize, part: &[(&Key, Option<&TunnelPeer>)]| {
        let mut message = generic(family, ACK, SET_DEVICE).text(DEVICE_NAME, TUNNEL);
        if before.is_none() && n == 0 {
            message = message.attr(DEVICE_KEY, &private).u32(DEVICE_FLAGS, REPLACE_PEERS);
            message = message.attr(DEVICE_PORT, &port.to_ne_bytes());
        }
        message = message.nest(DEVICE_PEERS);
        for (key, peer) in part {
            message = with_peer(message, key, *peer);
        }
        message.end()
    };
    match changes.is_empty() {
        true if before.is_none() => vec![message(0, &[])],
        true => Vec::new(),
        false => changes.chunks(PEERS_MAX).enumerate().map(|(n, part)| message(n, part)).collect(),
    }
}

fn with_peer(message: Message, key: &Key, peer: Option<&TunnelPeer>) -> Message {
    let message = message.nest(0).attr(PEER_KEY, key);
    let Some(TunnelPeer { endpoint, address }) = peer else { return message.u32(PEER_FLAGS, REMOVE).end() };
    let message = message.u32(PEER_FLAGS, REPLACE_ALLOWED).attr(PEER_ENDPOINT, &socket_address(*endpoint));
    let message = message.nest(PEER_ALLOWED).nest(0).attr(ALLOWED_FAMILY, &AF_INET.to_ne_bytes());
    message.addr(ALLOWED_ADDRESS, IpAddr::V4(*address)).attr(ALLOWED_LENGTH, &[32]).end().end().end()
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let (port, ip) = (address.port().to_be_bytes(), address_bytes(address.ip()));
    match address {
        SocketAddr::V4(_) => [&AF_INET.to_ne_bytes()[..], &port, &ip, &[0; 8]].concat(),
        SocketAddr::V6(_) => [&AF_INET6.to_ne_bytes()[..], &port, &[0; 4], &ip, &[0; 4]].concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn peers(numbers: &[u8]) -> BTreeMap<Key, TunnelPeer> {
        let peer = |n: &u8| {
            let endpoint = SocketAddr::from(([192, 168, 0, *n], 4790));
            ([*n; 32], TunnelPeer { endpoint, address: Ipv4Addr::new(240, 0, 0, *n) })
        };
        numbers.iter().map(peer).collect()
    }

    fn said(before: Option<&[u8]>, wanted: &[u8]) -> Vec<String> {
        let before = before.map(peers);
        let all = messages(0x1f, 4790, [9; 32], before.as_ref(), &peers(wanted));
        all.into_iter().map(|it| hex(&it.finish(1))).collect()
    }

    /// The netlink bytes that `wg set hw0` sends, on a little-endian machine. Its arguments are `private-key …
    /// listen-port 4790 peer … endpoint … allowed-ips …`.
    #[cfg(target_endian = "little")]
    #[test]
    fn messages_are_those_of_the_kernels_interface() {
        let peer = |n: &str, length: &str| {
            format!(
                "{length}0080 24000100{key} 08000300 02000000 14000400 020012b6c0a800{n}0000000000000000 \
                 20000980 1c000080 06000100 02000000 08000200 f00000{n} 05000300 20000000",
                key = n.repeat(32)
            )
        };
        let first = format!(
            "b8000000 1f00 0500 01000000 00000000 01010000 08000200 68773000 24000300 {} 08000500 01000000 06000600 b6120000 \
             68000880 {}",
            "09".repeat(32),
            peer("02", "6400")
        );
        let without_blanks = |text: &str| text.replace(char::is_whitespace, "");
        assert_eq!(said(None, &[2]), [without_blanks(&first)]);
        let change = format!(
            "b4000000 1f00 0500 01000000 00000000 01010000 08000200 68773000 98000880 \
             30000080 24000100 {} 08000300 01000000 {}",
            "02".repeat(32),
            peer("03", "6400")
        );
        assert_eq!(said(Some(&[2]), &[3]), [without_blanks(&change)]);
        assert!(said(Some(&[2]), &[2]).is_empty());
        assert_eq!(said(None, &[]).len(), 1, "the key");
    }

    #[test]
    fn many_peers_are_several_messages() {
        let all: Vec<u8> = (0..=250).collect();
        let said = said(None, &all);
        assert_eq!(said.len(), 2);
        assert!(said[0].len() > said[1].len());
    }
}
