//! Everything that one node's kernel has to contain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use herder_model::swarm::{Affinity, KeepAddress, NetEndpoint, NetNode, NetPort, NetService, NetState, Protocol};
use ipnet::IpNet;

use super::backends::backends;
use super::item::{Family, Field, Item, Mac, Set, Value, VxlanDevice};
use super::nft::{self, BASE_SIZES, Base, EXIT_MAC, Ingress, MARK_KEPT};
use super::scope::{Members, Scope, differences};
use super::tunnel::{self, TUNNEL, Vteps};
use super::{Flows, Host, Op, States, ended, plan};

/// Bytes that VXLAN adds to a packet: Ethernet 14, VXLAN 8, UDP 8, and the outer IP header.
const VXLAN_OVERHEAD_V4: u32 = 50;
const VXLAN_OVERHEAD_V6: u32 = 70;

/// Smallest MTU that IPv6 works with.
const MTU_MIN: u32 = 1280;

/// Next hop of the way back to entry nodes. Link-local, so it never is an address of a network.
const EXIT_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 72, 72);
const EXIT_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x4872, 0, 0, 1);

/// Wanted contents of a node's kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub items: BTreeMap<Item, Value>,
    /// Addresses of containers on nodes that are down or suspected.
    pub(super) lost: BTreeSet<IpAddr>,
    pub(super) bases: BTreeMap<Family, Base>,
    /// Endpoints of services, by network.
    members: BTreeMap<String, Members>,
}

/// Name of the bridge of a network.
pub fn bridge_name(vni: u32) -> String {
    format!("hv{vni}")
}

/// Name of the VXLAN device of a network.
pub fn vxlan_name(vni: u32) -> String {
    format!("hx{vni}")
}

/// MTU of a network on this node: that of the network, or less if the node's data path is smaller.
pub fn mtu(state: &NetState, host: &Host) -> u32 {
    let is_v6 = state.nodes.get(&host.node).is_some_and(|node| node.vtep.is_ipv6());
    let overhead = if is_v6 { VXLAN_OVERHEAD_V6 } else { VXLAN_OVERHEAD_V4 };
    let in_tunnel = tunnel::overhead(&state.facts, state.nodes.get(&host.node));
    // VXLAN is in packets of IPv4 there, whatever the data path has.
    let overhead = if in_tunnel > 0 { in_tunnel + VXLAN_OVERHEAD_V4 } else { overhead };
    let room = host.underlay_mtu.saturating_sub(overhead).max(MTU_MIN);
    if state.facts.mtu == 0 { room } else { state.facts.mtu.min(room) }
}

/// Computes the table of a node. Networks without a data path address of this node are left out.
pub fn table(states: &States, host: &Host) -> Table {
    let mut table = Table::default();
    if states.is_empty() {
        return table;
    }
    table.members = states.iter().map(|(id, state)| (id.clone(), Members::of(state))).collect();
    let (mut ingress, mut inner) = (None, None);
    let mut clamps = Vec::new();
    let members = table.members.clone();
    for (id, state) in states {
        let Some(net) = Net::of(state, host, members.get(id), None) else { continue };
        if let (true, IpAddr::V4(vtep)) = (state.facts.encrypted, net.vtep) {
            let address = tunnel::tunnel_net(vtep).map(|it| Item::Address { dev: TUNNEL.into(), address: it.into() });
            table.items.extend(address.map(|it| (it, Value::Set)));
            inner = Some(tunnel::inner_port(&state.facts));
        }
        net.links(&mut table);
        net.entry_nodes(&mut table);
        net.places(&mut table);
        clamps.push((net.vxlan.clone(), mtu(state, host)));
        if state.facts.ingress {
            net.mesh(&mut table);
            ingress = Some(net);
        }
    }
    table.items.insert(Item::Sysctl("net/ipv4/ip_forward".into()), Value::Text("1".into()));
    let is_v6 = states.values().any(|state| state.facts.ipv6);
    let families = [Family::Ip, Family::Ip6].into_iter().filter(|family| *family == Family::Ip || is_v6);
    for family in families {
        let ingress = ingress.as_ref().and_then(|net| net.ingress(family));
        table.base(family, nft::inet(family, ingress.as_ref(), inner.filter(|_| family == Family::Ip), host.dns_port));
    }
    table.base(Family::Bridge, nft::bridge(&clamps));
    table
}

impl Table {
    /// Brings the table to the next version of its states, at the cost of what differs. Returns the steps for the
    /// kernel and the connections that end; `None` if the table must be computed from scratch.
    pub fn advance(&mut self, before: (&States, &Host), after: (&States, &Host)) -> Option<(Vec<Op>, Flows)> {
        let scopes = differences(before, after)?;
        let old = self.part(before, &scopes);
        for (id, scope) in &scopes {
            if let (Some(members), Some(before), Some(after)) =
                (self.members.get_mut(id), before.0.get(id), after.0.get(id))
            {
                members.follow(scope, before, after);
            }
        }
        let new = self.part(after, &scopes);
        let (ops, flows) = (plan(&new, &old.items), ended(&old, &new));
        for item in old.items.keys().filter(|it| !matches!(it, Item::Chain(..)) && !new.items.contains_key(*it)) {
            self.items.remove(item);
        }
        self.items.extend(new.items);
        self.lost.retain(|it| !old.lost.contains(it));
        self.lost.extend(new.lost);
        Some((ops, flows))
    }

    /// True if a container of any node has this address.
    pub(super) fn has_container(&self, address: IpAddr) -> bool {
        let first = Item::BridgeCalls(String::new());
        let mut bridges = self.items.range(first..).map_while(|(item, _)| match item {
            Item::BridgeCalls(bridge) => Some(bridge.clone()),
            _ => None,
        });
        bridges.any(|dev| {
            let key = vec![Field::Ifname(dev.clone()), address.into(), address.into()];
            let family = if address.is_ipv6() { Family::Ip6 } else { Family::Ip };
            self.items.contains_key(&Item::Neighbour { dev, address })
                || self.items.contains_key(&Item::Element(family, Set::Hairpin, key))
        })
    }

    /// Items that follow from these endpoints, services and ports alone.
    fn part(&self, (states, host): (&States, &Host), scopes: &BTreeMap<String, Scope>) -> Table {
        let mut part = Table::default();
        for (id, scope) in scopes {
            let net = states.get(id).and_then(|state| Net::of(state, host, self.members.get(id), Some(scope)));
            let Some(net) = net else { continue };
            net.places(&mut part);
            if net.state.facts.ingress {
                for (family, ..) in net.families() {
                    net.ports(&mut part, family);
                }
            }
        }
        part
    }

    fn base(&mut self, family: Family, base: Base) {
        self.items.insert(Item::Base(family), base.stamp());
        self.bases.insert(family, base);
    }

    fn element(&mut self, family: Family, set: Set, key: Vec<Field>, data: Vec<Field>) {
        let value = if data.is_empty() { Value::Set } else { Value::Fields(data) };
        self.items.insert(Item::Element(family, set, key), value);
    }

    fn sysctl(&mut self, path: String, value: &str) {
        self.items.insert(Item::Sysctl(path), Value::Text(value.into()));
    }

    /// Sends elements to the chain for this number of backends. Chains beyond those of the base are items.
    fn goto(&mut self, family: Family, is_port: bool, affinity: Affinity, count: usize) -> Field {
        let name = nft::chain_name(is_port, affinity == Affinity::Source, count);
        if count > BASE_SIZES as usize {
            let rule = nft::chain_rule(family, &name);
            self.items.insert(Item::Chain(family, name.clone()), Value::Text(rule));
        }
        Field::Goto(name)
    }

    /// The text that replaces one nft table, with all its elements.
    pub(super) fn script(&self, family: Family) -> String {
        let Some(base) = self.bases.get(&family) else { return String::new() };
        nft::script(family, base, self.items.iter().filter(|(item, _)| item.family() == Some(family)))
    }
}

/// One network, seen from one node.
struct Net<'s> {
    state: &'s NetState,
    own: &'s NetNode,
    vteps: Vteps<'s>,
    /// This node's end of the network's VXLAN device.
    vtep: IpAddr,
    host: &'s Host,
    members: Option<&'s Members>,
    /// Only these endpoints and services; none: all.
    scope: Option<&'s Scope>,
    bridge: String,
    vxlan: String,
}

impl<'s> Net<'s> {
    /// Nothing if the node has no data path in this network.
    fn of(
        state: &'s NetState,
        host: &'s Host,
        members: Option<&'s Members>,
        scope: Option<&'s Scope>,
    ) -> Option<Net<'s>> {
        let own = state.nodes.get(&host.node)?;
        let vteps = Vteps::of(state);
        let vtep = vteps.get(&host.node)?;
        let (bridge, vxlan) = (bridge_name(state.facts.vni), vxlan_name(state.facts.vni));
        Some(Net { state, own, vteps, vtep, host, members, scope, bridge, vxlan })
    }

    fn endpoints(&self) -> Box<dyn Iterator<Item = &'s NetEndpoint> + '_> {
        let state = self.state;
        match self.scope {
            Some(scope) => Box::new(scope.endpoints.iter().filter_map(|id| state.endpoints.get(id))),
            None => Box::new(state.endpoints.values()),
        }
    }

    fn services(&self) -> Box<dyn Iterator<Item = (&'s String, &'s NetService)> + '_> {
        let state = self.state;
        match self.scope {
            Some(scope) => Box::new(scope.services.iter().filter_map(|id| Some((id, state.services.get(id)?)))),
            None => Box::new(state.services.iter()),
        }
    }

    fn members(&self, service: &str) -> impl Iterator<Item = (&'s String, &'s NetEndpoint)> {
        let state = self.state;
        let ids = self.members.into_iter().flat_map(move |it| it.service(service));
        ids.filter_map(|id| Some((id, state.endpoints.get(id)?)))
    }

    fn ifname(&self) -> Field {
        Field::Ifname(self.bridge.clone())
    }

    fn subnet(&self, family: Family) -> Option<(IpNet, IpAddr)> {
        let fits =
            |subnet: &IpNet| matches!((subnet, family), (IpNet::V4(_), Family::Ip) | (IpNet::V6(_), Family::Ip6));
        self.state.facts.subnets.iter().find(|it| fits(&it.subnet)).map(|it| (it.subnet, it.gateway))
    }

    fn families(&self) -> impl Iterator<Item = (Family, IpNet, IpAddr)> {
        let is_v6 = self.state.facts.ipv6;
        let families = [Family::Ip, Family::Ip6].into_iter().filter(move |family| *family == Family::Ip || is_v6);
        families.filter_map(|family| self.subnet(family).map(|(subnet, gateway)| (family, subnet, gateway)))
    }

    fn node_address(node: &NetNode, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ip6 => node.ingress6.map(IpAddr::V6),
            Family::Ip | Family::Bridge => node.ingress.map(IpAddr::V4),
        }
    }

    fn ingress(&self, family: Family) -> Option<Ingress> {
        let (subnet, _) = self.subnet(family)?;
        Some(Ingress { bridge: self.bridge.clone(), subnet, own: Net::node_address(self.own, family)? })
    }

    /// The VXLAN device, the settings and addresses of the bridge.
    fn links(&self, table: &mut Table) {
        let facts = &self.state.facts;
        let port = match facts.encrypted {
            true => tunnel::inner_port(facts),
            false => tunnel::data_path_port(facts),
        };
        let device = VxlanDevice {
            vni: facts.vni,
            local: self.vtep,
            port,
            mtu: mtu(self.state, self.host),
            bridge: self.bridge.clone(),
            over: facts.encrypted.then(|| TUNNEL.to_owned()),
        };
        table.items.insert(Item::Vxlan(self.vxlan.clone()), Value::Vxlan(Box::new(device)));
        table.items.insert(Item::BridgeCalls(self.bridge.clone()), Value::Set);
        // Without it, bridged frames need the engine's own rules, which firewall scripts flush.
        let rule = format!("-i {0} -o {0} -j ACCEPT", self.bridge);
        table.items.insert(Item::DockerUser(rule), Value::Set);
        // Without a fixed one a bridge takes the lowest MAC of its ports, and containers lose their gateway when a port comes.
        let own = Net::node_address(self.own, Family::Ip).filter(|_| facts.ingress);
        if let Some(IpAddr::V4(address)) = own.or_else(|| self.subnet(Family::Ip).map(|(_, gateway)| gateway)) {
            table.items.insert(Item::BridgeMac(self.bridge.clone()), Value::Mac(Mac::of(address)));
        }
        for (family, subnet, gateway) in self.families() {
            table.element(family, Set::Dns, vec![self.ifname(), gateway.into()], Vec::new());
            table.element(family, Set::Gateways, vec![self.ifname()], vec![gateway.into()]);
            // Only ingress has an address of each node; there the engine gives the bridge none.
            let own = Net::node_address(self.own, family).filter(|_| facts.ingress);
            for address in own.into_iter().chain([gateway]) {
                let Ok(address) = IpNet::new(address, subnet.prefix_len()) else { continue };
                table.items.insert(Item::Address { dev: self.bridge.clone(), address }, Value::Set);
            }
        }
    }

    /// Everything that follows from endpoints and services, except published ports.
    fn places(&self, table: &mut Table) {
        self.remotes(table);
        self.balancing(table);
        self.lost(table);
    }

    /// Adds the containers of other nodes.
    fn remotes(&self, table: &mut Table) {
        for endpoint in self.endpoints().filter(|endpoint| endpoint.node != self.host.node) {
            let Some(vtep) = self.vteps.get(&endpoint.node) else { continue };
            let addresses = [Some(IpAddr::V4(endpoint.v4)), endpoint.v6.map(IpAddr::V6)];
            self.remote(table, vtep, Mac::of(endpoint.v4), addresses.into_iter().flatten());
        }
    }

    /// Adds the other nodes, where they have addresses.
    fn entry_nodes(&self, table: &mut Table) {
        for (id, node) in self.state.nodes.iter().filter(|(id, _)| **id != self.host.node) {
            let Some(address) = node.ingress.filter(|_| self.state.facts.ingress) else { continue };
            let Some(vtep) = self.vteps.get(id) else { continue };
            let addresses = [Some(IpAddr::V4(address)), node.ingress6.map(IpAddr::V6)];
            self.remote(table, vtep, Mac::of(address), addresses.into_iter().flatten());
        }
    }

    fn lost(&self, table: &mut Table) {
        let is_lost = |it: &&NetEndpoint| {
            it.node != self.host.node
                && (self.host.suspects.contains(&it.node) || self.state.nodes.get(&it.node).is_none_or(|node| !node.up))
        };
        let lost = self.endpoints().filter(is_lost);
        let addresses = lost.flat_map(|it| [Some(IpAddr::V4(it.v4)), it.v6.map(IpAddr::V6)]);
        table.lost.extend(addresses.flatten());
    }

    fn remote(&self, table: &mut Table, vtep: IpAddr, mac: Mac, addresses: impl Iterator<Item = IpAddr>) {
        table.items.insert(Item::Fdb { dev: self.vxlan.clone(), mac }, Value::Addr(vtep));
        table.items.insert(Item::BridgeFdb { dev: self.vxlan.clone(), mac }, Value::Set);
        for address in addresses {
            table.items.insert(Item::Neighbour { dev: self.bridge.clone(), address }, Value::Mac(mac));
        }
    }

    /// Virtual IPs, and endpoints that may be sent to themselves.
    fn balancing(&self, table: &mut Table) {
        for endpoint in self.endpoints().filter(|endpoint| endpoint.node == self.host.node) {
            for (family, address) in addresses(endpoint) {
                let key = vec![self.ifname(), address.clone(), address];
                table.element(family, Set::Hairpin, key, Vec::new());
            }
        }
        if self.state.facts.ingress {
            return;
        }
        self.late(table);
        // A service that changes to `dnsrr` keeps its virtual IPs while it is updated.
        for (id, service) in self.services() {
            let vips = [service.vip4.map(IpAddr::V4), service.vip6.map(IpAddr::V6)];
            for vip in vips.into_iter().flatten() {
                let family = if vip.is_ipv6() { Family::Ip6 } else { Family::Ip };
                table.items.insert(Item::LocalRoute { dev: self.bridge.clone(), address: vip }, Value::Set);
                table.element(family, Set::VipAddrs, vec![vip.into()], Vec::new());
                let targets = self.targets(id, family);
                for (n, target) in (0..).zip(&targets) {
                    let key = vec![vip.into(), Field::Index(n)];
                    table.element(family, Set::VipSlots, key, vec![target.clone()]);
                }
                if !targets.is_empty() {
                    let chain = table.goto(family, false, service.affinity, targets.len());
                    table.element(family, Set::Vips, vec![self.ifname(), vip.into()], vec![chain]);
                }
            }
        }
    }

    /// Redirects queries of containers that joined the network late, and ask name servers of their own, to the
    /// network's server.
    fn late(&self, table: &mut Table) {
        let Some((_, IpAddr::V4(gateway))) = self.subnet(Family::Ip) else { return };
        let own = self.endpoints().filter(|it| it.node == self.host.node && !it.others.is_empty());
        for address in own.flat_map(|it| it.others.iter().chain([&it.v4])) {
            table.element(Family::Ip, Set::Late, vec![Field::V4(*address)], vec![Field::V4(gateway)]);
        }
    }

    fn targets(&self, service: &str, family: Family) -> Vec<Field> {
        let backends = backends(self.state, self.members(service), self.host);
        let addresses = backends.into_iter().flat_map(addresses);
        addresses.filter(|(it, _)| *it == family).map(|(_, address)| address).collect()
    }

    /// The routing mesh: published ports, and the way back of connections that keep their client's address.
    fn mesh(&self, table: &mut Table) {
        for (name, value) in [("rp_filter", "0"), ("send_redirects", "0"), ("route_localnet", "1")] {
            table.sysctl(format!("net/ipv4/conf/{}/{name}", self.bridge), value);
        }
        table.sysctl("net/ipv4/conf/all/rp_filter".into(), "0");
        table.sysctl("net/ipv4/conf/all/send_redirects".into(), "0");
        for rule in [
            format!("-i {} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", self.bridge),
            format!("-o {} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", self.bridge),
            format!("-o {} -m conntrack --ctstate DNAT -j ACCEPT", self.bridge),
        ] {
            table.items.insert(Item::DockerUser(rule), Value::Set);
        }
        table.items.insert(Item::BridgeFdb { dev: self.vxlan.clone(), mac: EXIT_MAC }, Value::Set);
        for (family, ..) in self.families() {
            let exit = if family == Family::Ip6 { EXIT_V6.into() } else { EXIT_V4.into() };
            let neighbour = Item::Neighbour { dev: self.bridge.clone(), address: exit };
            table.items.insert(neighbour, Value::Mac(EXIT_MAC));
            table.items.insert(Item::ExitRoute(family), Value::Text(format!("via {exit} dev {}", self.bridge)));
            table.items.insert(Item::ExitRule(family), Value::Set);
            self.entries(table, family);
            self.ports(table, family);
        }
    }

    /// Marks the entry node of a connection, which the MAC of its ingress bridge shows.
    fn entries(&self, table: &mut Table, family: Family) {
        for node in self.state.nodes.values() {
            let all = [node.vtep].into_iter().chain(node.addresses.iter().copied());
            for address in all.filter(|address| address.is_ipv6() == (family == Family::Ip6)) {
                table.element(family, Set::Nodes, vec![address.into()], Vec::new());
            }
            if let Some(address) = Net::node_address(node, family) {
                table.element(family, Set::Entries, vec![address.into()], Vec::new());
            }
            let Some(address) = node.ingress else { continue };
            let [_, b, c, d] = address.octets();
            let mark = Field::Mark(MARK_KEPT | u32::from_be_bytes([0, b, c, d]));
            let mac = Field::Mac(Mac::of(address));
            table.element(family, Set::Entry, vec![mac.clone()], vec![mark.clone()]);
            table.element(family, Set::NodesMac, vec![mac.clone()], Vec::new());
            table.element(Family::Bridge, Set::Exits, vec![mark], vec![mac]);
        }
    }

    /// Lets nodes connect to a port of the tasks that this node has of a service.
    fn reached(&self, table: &mut Table, family: Family, service: &str, protocol: &Field, port: &Field) {
        for (_, endpoint) in self.members(service).filter(|(_, it)| it.node == self.host.node) {
            for (_, address) in addresses(endpoint).filter(|(it, _)| *it == family) {
                table.element(family, Set::Targets, vec![address, protocol.clone(), port.clone()], Vec::new());
            }
        }
    }

    fn ports(&self, table: &mut Table, family: Family) {
        for (id, service) in self.services() {
            for (protocol, port) in &service.reached {
                self.reached(table, family, id, &Field::Proto(protocol.number()), &Field::Port(*port));
            }
        }
        let is_meant = |it: &NetPort| self.scope.is_none_or(|scope| scope.services.contains(&it.service));
        let ports = self.state.ports.iter().filter(|(_, it)| is_meant(it));
        for (_, port) in ports.filter(|(key, _)| !self.host.taken.contains(*key)) {
            let protocol = Field::Proto(port.protocol.number());
            let service = self.state.services.get(&port.service);
            if port.protocol == Protocol::Udp && service.is_some_and(|service| service.keep == KeepAddress::Udp) {
                table.element(family, Set::KeepUdp, vec![Field::Port(port.published)], Vec::new());
            }
            let target = Field::Port(port.target);
            self.reached(table, family, &port.service, &protocol, &target);
            let key = vec![protocol.clone(), Field::Port(port.published)];
            if !port.on.is_empty() {
                table.element(family, Set::Limited, key.clone(), Vec::new());
            }
            for address in port.on.iter().filter(|it| it.is_ipv6() == (family == Family::Ip6)) {
                let key = vec![(*address).into(), protocol.clone(), Field::Port(port.published)];
                table.element(family, Set::PublishedOn, key, Vec::new());
            }
            let targets = self.targets(&port.service, family);
            for (n, address) in (0..).zip(&targets) {
                let key = vec![protocol.clone(), Field::Port(port.published), Field::Index(n)];
                table.element(family, Set::PortSlots, key, vec![address.clone(), target.clone()]);
            }
            if targets.is_empty() {
                table.element(family, Set::NoPorts, key, Vec::new());
            } else {
                let affinity = service.map_or(Affinity::None, |service| service.affinity);
                let chain = table.goto(family, true, affinity, targets.len());
                table.element(family, Set::Ports, key, vec![chain]);
            }
        }
    }
}

fn addresses(endpoint: &NetEndpoint) -> impl Iterator<Item = (Family, Field)> {
    let v6 = endpoint.v6.map(|address| (Family::Ip6, Field::V6(address)));
    [(Family::Ip, Field::V4(endpoint.v4))].into_iter().chain(v6)
}
