//! Packets in and out of tunnels, without I/O: who a packet goes to, and whom one may come from.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use herder_decide::net::TunnelPeer;
use parking_lot::{Mutex, RwLock};

use crate::key;

/// Handshakes per second that are answered without a proof of the sender's address.
const HANDSHAKES_MAX: u64 = 100;

/// Length of a buffer for one packet: the longest of IP, and what WireGuard adds.
pub(crate) const BUFFER_BYTES: usize = 65_535 + 256;

/// Tunnels of this node.
pub(crate) struct Core {
    secret: StaticSecret,
    public: PublicKey,
    limiter: Arc<RateLimiter>,
    peers: RwLock<Peers>,
}

#[derive(Default)]
struct Peers {
    by_key: BTreeMap<[u8; 32], Arc<Peer>>,
    by_address: HashMap<Ipv4Addr, Arc<Peer>>,
    /// Indices are in packets; they are not given again while the process lives.
    by_index: HashMap<u32, Arc<Peer>>,
    next: u32,
}

struct Peer {
    index: u32,
    to: TunnelPeer,
    tunnel: Mutex<Tunn>,
}

/// Receiver of packets.
pub(crate) trait Sink {
    /// Sends a datagram to another node.
    fn network(&mut self, datagram: &[u8], to: SocketAddr);
    /// Passes a packet to this host.
    fn host(&mut self, packet: &[u8]);
}

impl Core {
    pub(crate) fn new(private: [u8; 32]) -> Core {
        let secret = StaticSecret::from(private);
        let public = PublicKey::from(&secret);
        let limiter = Arc::new(RateLimiter::new(&public, HANDSHAKES_MAX));
        Core { secret, public, limiter, peers: RwLock::default() }
    }

    /// Has tunnels to these nodes, by public key, and to no others. Sessions with nodes that stay go on. New ones are greeted at once: a
    /// node that lost its sessions would be sent packets it cannot read otherwise, until the sender misses answers.
    pub(crate) fn set(&self, wanted: &BTreeMap<String, TunnelPeer>, sink: &mut impl Sink) {
        let wanted = wanted.iter().filter_map(|(key, to)| Some((key::decoded(key)?, *to)));
        let wanted: BTreeMap<[u8; 32], TunnelPeer> = wanted.collect();
        let mut peers = self.peers.write();
        peers.by_key.retain(|key, peer| wanted.get(key) == Some(&peer.to));
        let mut buffer = vec![0; BUFFER_BYTES];
        for (key, to) in wanted {
            if peers.by_key.contains_key(&key) {
                continue;
            }
            let index = peers.next;
            peers.next = (peers.next + 1) & 0x00ff_ffff;
            let limiter = Some(self.limiter.clone());
            let mut tunnel = Tunn::new(self.secret.clone(), PublicKey::from(key), None, None, index, limiter);
            if let TunnResult::WriteToNetwork(datagram) = tunnel.format_handshake_initiation(&mut buffer, false) {
                sink.network(datagram, to.endpoint);
            }
            peers.by_key.insert(key, Arc::new(Peer { index, to, tunnel: Mutex::new(tunnel) }));
        }
        let all: Vec<Arc<Peer>> = peers.by_key.values().cloned().collect();
        peers.by_address = all.iter().map(|it| (it.to.address, it.clone())).collect();
        peers.by_index = all.iter().map(|it| (it.index, it.clone())).collect();
    }

    /// Takes a packet of this host. One for nobody is dropped.
    pub(crate) fn outgoing(&self, packet: &[u8], buffer: &mut [u8], sink: &mut impl Sink) {
        let Some(IpAddr::V4(to)) = Tunn::dst_address(packet) else { return };
        let Some(peer) = self.peers.read().by_address.get(&to).cloned() else { return };
        let sealed = peer.tunnel.lock().encapsulate(packet, buffer).into_datagram();
        if let Some(count) = sealed {
            sink.network(&buffer[..count], peer.to.endpoint);
        }
    }

    /// Takes a datagram of another node. One of a stranger, or with the address of another node, is dropped.
    pub(crate) fn incoming(&self, datagram: &[u8], from: SocketAddr, buffer: &mut [u8], sink: &mut impl Sink) {
        let Some(peer) = self.sender(datagram) else { return };
        let mut tunnel = peer.tunnel.lock();
        let mut rest = datagram;
        loop {
            match tunnel.decapsulate(Some(from.ip()), rest, buffer) {
                // Packets that waited for a session follow.
                TunnResult::WriteToNetwork(answer) => sink.network(answer, peer.to.endpoint),
                TunnResult::WriteToTunnelV4(packet, source) => {
                    if source == peer.to.address {
                        sink.host(packet);
                    }
                    return;
                }
                TunnResult::Done | TunnResult::Err(_) | TunnResult::WriteToTunnelV6(..) => return,
            }
            rest = &[];
        }
    }

    fn sender(&self, datagram: &[u8]) -> Option<Arc<Peer>> {
        let index = match Tunn::parse_incoming_packet(datagram).ok()? {
            Packet::HandshakeInit(init) => {
                let half = parse_handshake_anon(&self.secret, &self.public, &init).ok()?;
                return self.peers.read().by_key.get(&half.peer_static_public).cloned();
            }
            Packet::HandshakeResponse(packet) => packet.receiver_idx,
            Packet::PacketCookieReply(packet) => packet.receiver_idx,
            Packet::PacketData(packet) => packet.receiver_idx,
        };
        self.peers.read().by_index.get(&(index >> 8)).cloned()
    }

    /// Renews keys and repeats what was not answered; to be called a few times a second.
    pub(crate) fn tick(&self, buffer: &mut [u8], sink: &mut impl Sink) {
        let all: Vec<Arc<Peer>> = self.peers.read().by_key.values().cloned().collect();
        for peer in all {
            let sealed = peer.tunnel.lock().update_timers(buffer).into_datagram();
            if let Some(count) = sealed {
                sink.network(&buffer[..count], peer.to.endpoint);
            }
        }
    }

    /// Tells of each peer, by its address and port, whether a tunnel to it is built.
    pub(crate) fn built(&self) -> BTreeMap<SocketAddr, bool> {
        let peers = self.peers.read();
        peers.by_key.values().map(|it| (it.to.endpoint, it.tunnel.lock().stats().0.is_some())).collect()
    }

    /// Counts handshakes anew; to be called every second.
    pub(crate) fn next_second(&self) {
        self.limiter.reset_count();
    }
}

trait IntoDatagram {
    /// Length of the datagram in the buffer, if there is one to send.
    fn into_datagram(self) -> Option<usize>;
}

impl IntoDatagram for TunnResult<'_> {
    fn into_datagram(self) -> Option<usize> {
        if let TunnResult::WriteToNetwork(datagram) = self { Some(datagram.len()) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        network: Vec<(Vec<u8>, SocketAddr)>,
        host: Vec<Vec<u8>>,
    }

    impl Sink for Seen {
        fn network(&mut self, datagram: &[u8], to: SocketAddr) {
            self.network.push((datagram.to_vec(), to));
        }

        fn host(&mut self, packet: &[u8]) {
            self.host.push(packet.to_vec());
        }
    }

    struct Node {
        core: Core,
        address: Ipv4Addr,
        at: SocketAddr,
        key: String,
    }

    fn node(n: u8) -> Node {
        use base64::Engine as _;
        let private = [n; 32];
        let public = PublicKey::from(&StaticSecret::from(private));
        Node {
            core: Core::new(private),
            address: Ipv4Addr::new(240, 0, 0, n),
            at: SocketAddr::from(([192, 0, 2, n], 4790)),
            key: base64::engine::general_purpose::STANDARD.encode(public.as_bytes()),
        }
    }

    fn knows(from: &Node, to: &[&Node]) -> Seen {
        let peer = |it: &&Node| (it.key.clone(), TunnelPeer { endpoint: it.at, address: it.address });
        let mut seen = Seen::default();
        from.core.set(&to.iter().map(peer).collect(), &mut seen);
        seen
    }

    /// Carries datagrams until there are no more. Returns the packets that came out of tunnels, with the sizes of
    /// datagrams.
    fn carry(nodes: &[&Node], from: &Node, first: Seen) -> (Vec<Vec<u8>>, usize) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let (mut out, mut count) = (Vec::new(), 0);
        let mut waiting: Vec<(SocketAddr, Vec<u8>, SocketAddr)> =
            first.network.into_iter().map(|(datagram, to)| (from.at, datagram, to)).collect();
        while let Some((at, datagram, to)) = waiting.pop() {
            count += 1;
            let Some(receiver) = nodes.iter().find(|it| it.at == to) else { continue };
            let mut seen = Seen::default();
            receiver.core.incoming(&datagram, at, &mut buffer, &mut seen);
            out.extend(seen.host);
            waiting.extend(seen.network.into_iter().map(|(datagram, to)| (receiver.at, datagram, to)));
        }
        (out, count)
    }

    fn packet(from: Ipv4Addr, to: Ipv4Addr, text: &str) -> Vec<u8> {
        let length = u16::try_from(20 + text.len()).unwrap().to_be_bytes();
        let head = [0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 17, 0, 0];
        [&head[..], &from.octets(), &to.octets(), text.as_bytes()].concat()
    }

    fn send(nodes: &[&Node], from: &Node, packet: &[u8]) -> Vec<Vec<u8>> {
        let (mut buffer, mut seen) = (vec![0; BUFFER_BYTES], Seen::default());
        from.core.outgoing(packet, &mut buffer, &mut seen);
        let is_clear = |datagram: &[u8]| datagram.windows(6).any(|it| it == b"canary");
        assert!(!seen.network.iter().any(|(datagram, _)| is_clear(datagram)), "a packet left in the clear");
        carry(nodes, from, seen).0
    }

    #[test]
    fn packets_come_out_at_the_other_end_as_they_went_in() {
        let (a, b) = (node(1), node(2));
        carry(&[&a, &b], &b, knows(&b, &[&a]));
        let greeting = knows(&a, &[&b]);
        carry(&[&a, &b], &a, greeting);
        let there = packet(a.address, b.address, "canary");
        assert_eq!(send(&[&a, &b], &a, &there), std::slice::from_ref(&there));
        let back = packet(b.address, a.address, "canary");
        assert_eq!(send(&[&a, &b], &b, &back), [back]);
    }

    #[test]
    fn a_node_that_began_anew_is_reached_at_once() {
        let (a, b) = (node(1), node(2));
        knows(&b, &[&a]);
        carry(&[&a, &b], &a, knows(&a, &[&b]));
        let there = packet(b.address, a.address, "canary");
        assert_eq!(send(&[&a, &b], &b, &there).len(), 1);
        // Handshakes of the same node must not be of the same moment.
        let again = node(1);
        carry(&[&again, &b], &again, knows(&again, &[&b]));
        assert_eq!(send(&[&again, &b], &b, &there).len(), 1);
    }

    #[test]
    fn packets_of_strangers_and_of_false_addresses_are_dropped() {
        let (a, b, c) = (node(1), node(2), node(3));
        knows(&b, &[&a]);
        carry(&[&a, &b], &a, knows(&a, &[&b]));
        assert_eq!(send(&[&a, &b], &a, &packet(c.address, b.address, "canary")), [[0; 0]; 0], "another node's address");
        // b does not know c.
        carry(&[&b, &c], &c, knows(&c, &[&b]));
        assert_eq!(send(&[&b, &c], &c, &packet(c.address, b.address, "canary")), [[0; 0]; 0], "a stranger");
        // Nobody has this address.
        assert_eq!(send(&[&a, &b], &a, &packet(a.address, c.address, "canary")), [[0; 0]; 0]);
        // Nodes that are no peers any more are strangers.
        knows(&b, &[]);
        assert_eq!(send(&[&a, &b], &a, &packet(a.address, b.address, "canary")), [[0; 0]; 0], "a former peer");
    }

    #[test]
    fn rubbish_changes_nothing() {
        let (a, b) = (node(1), node(2));
        knows(&b, &[&a]);
        carry(&[&a, &b], &a, knows(&a, &[&b]));
        let mut buffer = vec![0; BUFFER_BYTES];
        for kind in 0..6_u8 {
            for length in [0, 1, 4, 31, 32, 64, 92, 148, 1500] {
                let mut datagram = vec![kind; length];
                datagram.iter_mut().skip(1).take(3).for_each(|it| *it = 0);
                let mut seen = Seen::default();
                b.core.incoming(&datagram, a.at, &mut buffer, &mut seen);
                assert!(seen.host.is_empty());
            }
        }
        let there = packet(a.address, b.address, "canary");
        assert_eq!(send(&[&a, &b], &a, &there), [there]);
    }
}
