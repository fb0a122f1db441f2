//! Encrypted tunnels between nodes: WireGuard under the VXLAN packets of encrypted networks.
//!
//! Every node has one tunnel device with an address that follows from its public key, so a node cannot choose the address of another
//! one's key. VXLAN devices of encrypted networks are bound to the tunnel device: without it nothing leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use herder_model::swarm::{NetFacts, NetNode, NetState, VXLAN_PORT};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{Host, States};

/// Name of the tunnel device.
pub const TUNNEL: &str = "hw0";

/// Length of the prefix that tunnel addresses share. `240.0.0.0/4` is reserved (RFC 1112), and routed by kernels: no host or
/// network has an address there that tunnels could hide.
const PREFIX: u8 = 4;
const FIRST: u32 = 0xf000_0000;

/// Bytes that WireGuard adds to a packet: 32 of its own, UDP 8, and the outer IP header.
pub(crate) const TUNNEL_OVERHEAD_V4: u32 = 60;
pub(crate) const TUNNEL_OVERHEAD_V6: u32 = 80;

/// Wanted tunnels of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Address and UDP port of this node's end.
    pub local: SocketAddr,
    /// MTU of the tunnel device.
    pub mtu: u32,
    /// Other nodes, by public key.
    pub peers: BTreeMap<String, TunnelPeer>,
}

/// Other end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelPeer {
    pub endpoint: SocketAddr,
    /// The only address that packets out of the tunnel may come from.
    pub address: Ipv4Addr,
}

/// Address of a node's tunnel device: 28 bits of a hash (FNV-1a) of its public key.
pub fn tunnel_address(key: &str) -> Ipv4Addr {
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let folded = (hash ^ (hash >> 32)) as u32 & !FIRST;
    // Neither the address of the whole network nor the broadcast address.
    Ipv4Addr::from(FIRST | folded.clamp(1, !FIRST - 1))
}

/// The same with the prefix of the network that all tunnel addresses are in.
pub(super) fn tunnel_net(address: Ipv4Addr) -> Option<Ipv4Net> {
    Ipv4Net::new(address, PREFIX).ok()
}

pub(super) fn data_path_port(facts: &NetFacts) -> u16 {
    if facts.data_path_port == 0 { VXLAN_PORT } else { facts.data_path_port }
}

/// UDP port of WireGuard between nodes: the one after the data path port.
fn tunnel_port(facts: &NetFacts) -> u16 {
    data_path_port(facts).saturating_add(1)
}

/// UDP port of VXLAN in tunnels. It differs from that of other networks: a clear packet never gets into an encrypted one.
pub(super) fn inner_port(facts: &NetFacts) -> u16 {
    data_path_port(facts).saturating_add(2)
}

/// Bytes that packets of a network grow by in the tunnel, if it is encrypted.
pub(super) fn overhead(facts: &NetFacts, node: Option<&NetNode>) -> u32 {
    match node {
        Some(node) if facts.encrypted && node.vtep.is_ipv6() => TUNNEL_OVERHEAD_V6,
        _ if facts.encrypted => TUNNEL_OVERHEAD_V4,
        _ => 0,
    }
}

/// Ends of the VXLAN devices of a network's nodes. They are the tunnel addresses if it is encrypted, else those of
/// their data paths.
#[derive(Debug)]
pub(super) enum Vteps<'s> {
    Clear(&'s NetState),
    /// Tunnel addresses by node id. A node without a key has none; neither have two that share one: packets for either could go to the other.
    Sealed(BTreeMap<&'s str, Ipv4Addr>),
}

impl<'s> Vteps<'s> {
    pub(super) fn of(state: &'s NetState) -> Vteps<'s> {
        if !state.facts.encrypted {
            return Vteps::Clear(state);
        }
        let keys = || state.nodes.iter().filter_map(|(id, node)| Some((id.as_str(), node.tunnel.as_deref()?)));
        let mut owners: BTreeMap<Ipv4Addr, BTreeSet<&str>> = BTreeMap::new();
        for (_, key) in keys() {
            owners.entry(tunnel_address(key)).or_default().insert(key);
        }
        let own = keys().map(|(id, key)| (id, tunnel_address(key)));
        Vteps::Sealed(own.filter(|(_, address)| owners.get(address).is_some_and(|it| it.len() == 1)).collect())
    }

    pub(super) fn get(&self, node: &str) -> Option<IpAddr> {
        match self {
            Vteps::Clear(state) => state.nodes.get(node).map(|it| it.vtep),
            Vteps::Sealed(addresses) => addresses.get(node).copied().map(IpAddr::V4),
        }
    }
}

/// Computes the tunnels that a node needs: one to each node that is on an encrypted network with it. Nothing without such networks.
pub fn tunnel(states: &States, host: &Host) -> Option<Tunnel> {
    let mut wanted: Option<Tunnel> = None;
    for state in states.values().filter(|it| it.facts.encrypted) {
        let vteps = Vteps::of(state);
        let Some(own) = state.nodes.get(&host.node).filter(|_| vteps.get(&host.node).is_some()) else { continue };
        let port = tunnel_port(&state.facts);
        let tunnel = wanted.get_or_insert_with(|| Tunnel {
            local: SocketAddr::new(own.vtep, port),
            mtu: host.underlay_mtu.saturating_sub(overhead(&state.facts, Some(own))),
            peers: BTreeMap::new(),
        });
        for (id, node) in state.nodes.iter().filter(|(id, _)| **id != host.node) {
            if let (Some(key), Some(IpAddr::V4(address))) = (&node.tunnel, vteps.get(id)) {
                let peer = TunnelPeer { endpoint: SocketAddr::new(node.vtep, port), address };
                tunnel.peers.insert(key.clone(), peer);
            }
        }
    }
    wanted
}

/// True if this node cannot be on an encrypted network: it has no key, or the address of another node.
pub fn lacks_tunnel(state: &NetState, host: &Host) -> bool {
    state.facts.encrypted && state.nodes.contains_key(&host.node) && Vteps::of(state).get(&host.node).is_none()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{host, states};
    use super::*;
    use std::sync::Arc;

    fn encrypted() -> States {
        let mut states = states();
        let state = Arc::make_mut(states.get_mut("ov").unwrap());
        state.facts.encrypted = true;
        for id in ["n1", "n2"] {
            state.nodes.get_mut(id).unwrap().tunnel = Some(format!("key of {id}"));
        }
        states
    }

    #[test]
    fn a_node_has_a_tunnel_to_each_node_of_its_encrypted_networks() {
        assert_eq!(tunnel(&states(), &host("n1")), None);
        let tunnel = tunnel(&encrypted(), &host("n1")).unwrap();
        assert_eq!((tunnel.local.to_string().as_str(), tunnel.mtu), ("192.168.0.1:4790", 1440));
        let peers: Vec<String> =
            tunnel.peers.iter().map(|(key, it)| format!("{key} {} {}", it.endpoint, it.address)).collect();
        assert_eq!(peers, [format!("key of n2 192.168.0.2:4790 {}", tunnel_address("key of n2"))]);
    }

    #[test]
    fn tunnel_addresses_are_in_the_reserved_block() {
        for key in ["", "a", "key of n1", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
            assert_eq!(tunnel_address(key).octets()[0] >> 4, 15, "{key}");
        }
        assert_ne!(tunnel_address("a"), tunnel_address("b"));
    }

    #[test]
    fn nodes_that_share_an_address_are_left_out() {
        let mut keys = std::collections::HashMap::new();
        let (one, other) = (0_u32..)
            .find_map(|n| {
                let key = n.to_string();
                keys.insert(tunnel_address(&key), key.clone()).map(|it| (it, key))
            })
            .unwrap();
        let mut states = encrypted();
        let state = Arc::make_mut(states.get_mut("ov").unwrap());
        state.nodes.get_mut("n1").unwrap().tunnel = Some(one);
        state.nodes.get_mut("n2").unwrap().tunnel = Some(other);
        assert_eq!(tunnel(&states, &host("n1")), None);
        assert!(lacks_tunnel(&states["ov"], &host("n1")));
        assert!(!super::super::table(&states, &host("n1")).items.keys().any(|it| it.to_string().contains("4097")));
    }
}
