//! State of an overlay network as nodes receive it.
//!
//! The leader keeps one [`NetState`] with a version per network and sends it to every node that subscribes to the network: as a
//! whole first, then as [`NetChanges`]. A node derives its kernel tables and DNS answers from it (`decide::net`). Members that
//! this release does not know are kept, so a node can store a state and hand it on unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::is_default;

/// UDP port of VXLAN (RFC 7348), used unless the swarm has another data path port.
pub const VXLAN_PORT: u16 = 4789;

/// One step of the version log of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetUpdate {
    pub network_id: String,
    /// Version that the changes apply to; ignored for a whole state.
    #[serde(skip_serializing_if = "is_default")]
    pub applies_to: u64,
    /// Version of the network after this update.
    pub results_in: u64,
    /// Version that every live subscriber has applied.
    #[serde(skip_serializing_if = "is_default")]
    pub settled: u64,
    pub body: NetBody,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Contents of a [`NetUpdate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetBody {
    Whole(Box<NetState>),
    /// Empty changes announce a new [`NetUpdate::settled`] only.
    Changes(Box<NetChanges>),
}

impl Default for NetBody {
    fn default() -> NetBody {
        NetBody::Changes(Box::default())
    }
}

/// Everything that a subscriber needs to know about one overlay network. Versions share what is the same in them: a copy costs little, and
/// what differs is found without a look at the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetState {
    pub facts: NetFacts,
    /// Keyed by node id: every node that carries the network (on ingress: every node of the swarm).
    #[serde(skip_serializing_if = "is_default")]
    pub nodes: OrdMap<String, NetNode>,
    /// Keyed by id of the task or, for plain containers, of the attachment. A container that is on several networks has
    /// the same key in each of them.
    #[serde(skip_serializing_if = "is_default")]
    pub endpoints: OrdMap<String, NetEndpoint>,
    /// Keyed by service id.
    #[serde(skip_serializing_if = "is_default")]
    pub services: OrdMap<String, NetService>,
    /// Keyed by [`NetPort::key`]. Only the ingress network has ports.
    #[serde(skip_serializing_if = "is_default")]
    pub ports: OrdMap<String, NetPort>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Properties of a network that hardly ever change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetFacts {
    /// Name of the network, and of the bridge network on each engine.
    pub name: String,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// The subnets. At most one of each address family is used; the first IPv4 subnet comes first.
    pub subnets: Vec<NetSubnet>,
    /// Containers have no route out of the network.
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6: bool,
    /// MTU inside the overlay; 0: that of the node's data path less the encapsulation.
    #[serde(skip_serializing_if = "is_default")]
    pub mtu: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub encrypted: bool,
    /// The network of the routing mesh.
    #[serde(skip_serializing_if = "is_default")]
    pub ingress: bool,
    /// UDP port of VXLAN; 0: [`VXLAN_PORT`].
    #[serde(skip_serializing_if = "is_default")]
    pub data_path_port: u16,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A subnet with the gateway address that every node's bridge has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetSubnet {
    pub subnet: IpNet,
    pub gateway: IpAddr,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A node that carries the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetNode {
    /// Data path address: the end of its VXLAN tunnels.
    pub vtep: IpAddr,
    /// Its own address on the ingress network. Only set there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ingress: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub ingress6: Option<Ipv6Addr>,
    /// All addresses of its interfaces. Only set on ingress; [`NetNode::vtep`] counts in any case.
    #[serde(default, skip_serializing_if = "is_default")]
    pub addresses: Vec<IpAddr>,
    /// Public key of its tunnels, in base64. Only set on encrypted networks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tunnel: Option<String>,
    /// Endpoints of a node that is down do not serve.
    #[serde(default, skip_serializing_if = "is_default")]
    pub up: bool,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A container's place on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetEndpoint {
    /// Id of the node that runs the container.
    pub node: String,
    pub v4: Ipv4Addr,
    #[serde(default, skip_serializing_if = "is_default")]
    pub v6: Option<Ipv6Addr>,
    /// Names of this container alone, its own name first: that, its hostname, its short id, its network aliases.
    #[serde(default, skip_serializing_if = "is_default")]
    pub names: Vec<String>,
    /// Id of the service, if it is a task of one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub service: Option<String>,
    /// Running and healthy, and to stay so: its names resolve, and virtual IPs and published ports lead to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub serving: bool,
    /// Name servers for other names; none: those of its host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dns: Vec<IpAddr>,
    /// Addresses on networks of the engine alone, for a container that was created without a place in this network. It
    /// may ask name servers from there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub others: Vec<Ipv4Addr>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A service that is attached to the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetService {
    pub name: String,
    /// Further names on this network.
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    pub mode: BalanceMode,
    /// Virtual IPs; none in mode `dnsrr`.
    #[serde(skip_serializing_if = "is_default")]
    pub vip4: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "is_default")]
    pub vip6: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "is_default")]
    pub affinity: Affinity,
    #[serde(skip_serializing_if = "is_default")]
    pub keep: KeepAddress,
    /// Ports of its tasks that nodes connect to themselves, beside those that are published. Only set on ingress.
    #[serde(skip_serializing_if = "is_default")]
    pub reached: BTreeSet<(Protocol, u16)>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Resolution mode of a service's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BalanceMode {
    /// The name resolves to the addresses of the tasks.
    Dnsrr,
    /// The name resolves to the virtual IP. Modes of later releases count as this one.
    #[default]
    #[serde(other)]
    Vip,
}

/// Selection of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// Selects by a hash of the source address (label `herder.affinity=source`).
    Source,
    /// Round robin.
    #[default]
    #[serde(other)]
    None,
}

/// The protocols for which tasks behind a published port see the client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepAddress {
    /// TCP and UDP (label `herder.keep-address=udp`).
    Udp,
    #[default]
    #[serde(other)]
    Tcp,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// Assigned protocol number of IP.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// A port that every node publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetPort {
    pub protocol: Protocol,
    pub published: u16,
    pub target: u16,
    /// Id of the service.
    pub service: String,
    /// Addresses of hosts that it is published on; none: all.
    #[serde(skip_serializing_if = "is_default")]
    pub on: Vec<IpAddr>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl NetPort {
    /// `8080/tcp`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.published, self.protocol.name())
    }
}

/// Difference between two versions of a [`NetState`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetChanges {
    #[serde(skip_serializing_if = "is_default")]
    pub facts: Option<NetFacts>,
    #[serde(skip_serializing_if = "is_default")]
    pub nodes: Patch<NetNode>,
    #[serde(skip_serializing_if = "is_default")]
    pub endpoints: Patch<NetEndpoint>,
    #[serde(skip_serializing_if = "is_default")]
    pub services: Patch<NetService>,
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Patch<NetPort>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Changes of one map: entries to insert or replace, and keys to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch<T> {
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub put: BTreeMap<String, T>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<String>,
}

impl<T> Default for Patch<T> {
    fn default() -> Patch<T> {
        Patch { put: BTreeMap::new(), removed: BTreeSet::new() }
    }
}

impl<T: Clone + PartialEq> Patch<T> {
    pub(super) fn between(before: &OrdMap<String, T>, after: &OrdMap<String, T>) -> Patch<T> {
        let mut patch = Patch::default();
        for item in before.diff(after) {
            match item {
                DiffItem::Add(key, value) | DiffItem::Update { new: (key, value), .. } => {
                    patch.put.insert(key.clone(), value.clone());
                }
                DiffItem::Remove(key, _) => _ = patch.removed.insert(key.clone()),
            }
        }
        patch
    }

    pub(super) fn apply(&self, to: &mut OrdMap<String, T>) {
        for key in &self.removed {
            to.remove(key);
        }
        for (key, value) in &self.put {
            to.insert(key.clone(), value.clone());
        }
    }
}

impl NetChanges {
    /// Returns the changes that turn `before` into `after`.
    pub fn between(before: &NetState, after: &NetState) -> NetChanges {
        NetChanges {
            facts: (before.facts != after.facts).then(|| after.facts.clone()),
            nodes: Patch::between(&before.nodes, &after.nodes),
            endpoints: Patch::between(&before.endpoints, &after.endpoints),
            services: Patch::between(&before.services, &after.services),
            ports: Patch::between(&before.ports, &after.ports),
            rest: Map::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        is_default(self)
    }
}

impl NetState {
    pub fn apply(&mut self, changes: &NetChanges) {
        if let Some(facts) = &changes.facts {
            self.facts.clone_from(facts);
        }
        changes.nodes.apply(&mut self.nodes);
        changes.endpoints.apply(&mut self.endpoints);
        changes.services.apply(&mut self.services);
        changes.ports.apply(&mut self.ports);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(n: u8, serving: bool) -> NetEndpoint {
        NetEndpoint {
            node: "n1".into(),
            v4: Ipv4Addr::new(10, 0, 1, n),
            v6: None,
            names: vec![format!("web.{n}")],
            service: Some("web".into()),
            serving,
            dns: Vec::new(),
            others: Vec::new(),
            rest: Map::new(),
        }
    }

    fn states() -> impl Strategy<Value = NetState> {
        let endpoints = proptest::collection::btree_map("[a-d]", (any::<u8>(), any::<bool>()), 0..4);
        let ports = proptest::collection::vec(1_u16..4, 0..3);
        (endpoints, ports, 0_u32..3).prop_map(|(endpoints, ports, mtu)| NetState {
            facts: NetFacts { mtu, ..NetFacts::default() },
            endpoints: endpoints.into_iter().map(|(key, (n, serving))| (key, endpoint(n, serving))).collect(),
            ports: ports
                .into_iter()
                .map(|published| NetPort { published, ..NetPort::default() })
                .map(|port| (port.key(), port))
                .collect(),
            ..NetState::default()
        })
    }

    proptest! {
        #[test]
        fn changes_between_two_states_turn_one_into_the_other(before in states(), after in states()) {
            let changes = NetChanges::between(&before, &after);
            prop_assert_eq!(changes.is_empty(), before == after);
            let sent: NetChanges = serde_json::from_str(&serde_json::to_string(&changes).unwrap()).unwrap();
            let mut state = before;
            state.apply(&sent);
            prop_assert_eq!(state, after);
        }
    }

    #[test]
    fn members_of_later_releases_are_kept() {
        let text = r#"{"facts":{"name":"ov","vni":4097,"subnets":[{"subnet":"10.0.1.0/24","gateway":"10.0.1.1","x":1}],"y":2},
            "nodes":{"n1":{"vtep":"192.168.0.1","z":3}},"endpoints":{"t1":{"node":"n1","v4":"10.0.1.3","u":4}},
            "services":{"s1":{"name":"web","mode":"later","v":5}},
            "ports":{"80/tcp":{"protocol":"tcp","published":80,"target":80,"service":"s1","w":6}},"q":7}"#;
        let state: NetState = serde_json::from_str(text).unwrap();
        assert_eq!(state.services["s1"].mode, BalanceMode::Vip);
        let again = serde_json::to_value(&state).unwrap();
        let mut sent: Value = serde_json::from_str(text).unwrap();
        sent["services"]["s1"]["mode"] = "vip".into();
        assert_eq!(again, sent);
    }
}
