//! State of overlay networks for nodes: versions of each network, and the changes from one to the next.
//!
//! The leader keeps one [`Nets`], follows what is written with it, and forgets it with its leadership: all of it is made anew
//! from a view, and each session begins with whole states.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herder_model::swarm::{
    Affinity, BalanceMode, KeepAddress, NetBody, NetChanges, NetEndpoint, NetFacts, NetNode, NetPort, NetService,
    NetState, NetSubnet, NetUpdate, NetworkRecord, NodeRecord, Object, Protocol, ServiceRecord, SwarmNodeState,
    TaskRecord, TaskState, View, Written, ingress_kind,
};

use super::allocate::{self, attached};
use super::networks::data_path;
use super::task::container::task_name;
use crate::ingress;
use crate::net::{TUNNEL_OVERHEAD_V4, TUNNEL_OVERHEAD_V6};

/// The option with the MTU of the underlay, as swarm mode has it.
const MTU_OPTION: &str = "com.docker.network.driver.mtu";
/// Bytes that VXLAN adds to each packet, over IPv4 and over IPv6.
const VXLAN_BYTES: u32 = 50;
const VXLAN_V6_BYTES: u32 = 70;
const AFFINITY_LABEL: &str = "herder.affinity";
const KEEP_LABEL: &str = "herder.keep-address";

/// All overlay networks in the form for their nodes.
#[derive(Debug, Default)]
pub struct Nets {
    logs: BTreeMap<String, Log>,
    /// Node → network → how many tasks it has there.
    places: BTreeMap<String, BTreeMap<String, usize>>,
    touched: BTreeMap<String, Touched>,
}

/// One network.
#[derive(Debug, Default)]
struct Log {
    version: u64,
    state: NetState,
    /// The version that kernel and DNS server of each node have reached.
    applied: BTreeMap<String, u64>,
    settled: u64,
    /// Versions in which an endpoint stopped serving, and that have not settled.
    leaving: BTreeSet<u64>,
}

/// Possible changes of a network since its last version.
#[derive(Debug, Default)]
struct Touched {
    facts: bool,
    nodes: BTreeSet<String>,
    endpoints: BTreeSet<String>,
    services: BTreeSet<String>,
}

impl Nets {
    /// Builds the state from all objects in a store.
    pub fn of(view: &View) -> Nets {
        let mut nets = Nets::default();
        let written: Vec<Written> = view.objects().map(|after| Written { before: None, after: Some(after) }).collect();
        nets.see(view, &written);
        nets.advance(view);
        nets
    }

    /// Notes what was written. `view` is of after the writes.
    pub fn see(&mut self, view: &View, written: &[Written]) {
        for written in written {
            for object in [&written.before, &written.after].into_iter().flatten() {
                match object {
                    Object::Task(_) => {}
                    Object::Network(network) => {
                        // A network that came or went begins anew: while it was away, nothing of it was followed.
                        if written.before.is_none() || written.after.is_none() {
                            self.logs.remove(&network.id);
                        }
                        self.touch(&network.id).facts = true;
                    }
                    Object::Service(service) => self.see_service(view, service),
                    Object::Node(node) => self.see_node(view, node),
                    Object::Cluster(_) => {
                        for id in view.networks.keys() {
                            self.touch(id).facts = true;
                        }
                    }
                    // Which services have routes depends on the ingress.
                    Object::Resource(it) if ingress_kind().is_some_and(|kind| kind == it.kind) => {
                        for service in view.services.values() {
                            self.see_service(view, service);
                        }
                    }
                    Object::Secret(_) | Object::Config(_) | Object::Resource(_) => {}
                }
            }
            if let Some(Object::Task(before)) = &written.before {
                self.see_task(before, false);
            }
            if let Some(Object::Task(after)) = &written.after {
                self.see_task(after, true);
            }
        }
    }

    fn touch(&mut self, network: &str) -> &mut Touched {
        self.touched.entry(network.to_owned()).or_default()
    }

    fn see_task(&mut self, task: &TaskRecord, comes: bool) {
        if task.networks.is_empty() || !is_there(task) {
            return;
        }
        let node = &task.task.node_id;
        for network in task.networks.iter().filter(|it| it.v4.is_some()) {
            let count = self.places.entry(node.clone()).or_default().entry(network.network_id.clone()).or_default();
            *count = if comes { *count + 1 } else { count.saturating_sub(1) };
            let is_first_or_last = *count == usize::from(comes);
            let touched = self.touch(&network.network_id);
            touched.endpoints.insert(task.task.id.clone());
            if is_first_or_last {
                touched.nodes.insert(node.clone());
            }
        }
        if !comes && let Some(networks) = self.places.get_mut(node) {
            networks.retain(|_, count| *count > 0);
            if networks.is_empty() {
                self.places.remove(node);
            }
        }
    }

    fn see_service(&mut self, view: &View, service: &ServiceRecord) {
        let id = &service.service.id;
        let vips = service.service.endpoint.virtual_ips.iter().map(|it| it.network_id.clone());
        let named = service.service.spec.task_template.networks.iter().map(|it| it.target.clone());
        let ingress = view.ingress().map(|it| it.id.clone());
        for network in vips.chain(named).chain(ingress).collect::<BTreeSet<String>>() {
            if view.networks.contains_key(&*network) {
                self.touch(&network).services.insert(id.clone());
            }
        }
    }

    fn see_node(&mut self, view: &View, node: &NodeRecord) {
        let id = &node.node.id;
        let carried = self.places.get(id).into_iter().flatten().map(|(network, _)| network.clone());
        let ingress = view.ingress().map(|it| it.id.clone());
        for network in carried.chain(ingress).collect::<BTreeSet<String>>() {
            let touched = self.touch(&network);
            touched.nodes.insert(id.clone());
            // The MTU is that of the smallest data path.
            touched.facts = true;
        }
    }

    /// Makes the next version of each network that was touched, and tells the changes. Nothing for networks that are the same.
    pub fn advance(&mut self, view: &View) -> BTreeMap<String, NetUpdate> {
        let mut updates = BTreeMap::new();
        for (id, touched) in std::mem::take(&mut self.touched) {
            let Some(network) = view.networks.get(&*id).filter(|it| it.is_overlay()) else {
                self.logs.remove(&id);
                continue;
            };
            let mut touched = touched;
            if !self.logs.contains_key(&id) {
                self.touch_all(view, &id, &mut touched);
            }
            let log = self.logs.entry(id.clone()).or_default();
            let changes = changes(view, network, &touched, &log.state, &self.places);
            if changes.is_empty() && log.version > 0 {
                continue;
            }
            let applies_to = log.version;
            log.version = (log.version + 1).max(view.index);
            if leaves(&log.state, &changes) {
                log.leaving.insert(log.version);
            }
            log.state.apply(&changes);
            updates.insert(
                id.clone(),
                NetUpdate {
                    network_id: id,
                    applies_to,
                    results_in: log.version,
                    settled: log.settled,
                    body: NetBody::Changes(Box::new(changes)),
                    ..NetUpdate::default()
                },
            );
        }
        updates
    }

    /// Everything that may be in a network that nothing is known of yet.
    fn touch_all(&self, view: &View, network: &str, touched: &mut Touched) {
        touched.facts = true;
        touched.services.extend(view.services.keys().map(ToString::to_string));
        let carriers = self.places.iter().filter(|(_, networks)| networks.contains_key(network));
        touched.nodes.extend(carriers.map(|(node, _)| node.clone()));
        for node in &touched.nodes {
            touched.endpoints.extend(view.tasks_of_node(node).map(|it| it.task.id.clone()));
        }
        touched.nodes.extend(view.nodes.keys().map(ToString::to_string));
    }

    /// Returns the networks that a node receives: those of its tasks, and the ingress network.
    pub fn of_node<'n>(&'n self, view: &'n View, node: &str) -> BTreeSet<&'n str> {
        let carried = self.places.get(node).into_iter().flatten().map(|(network, _)| network.as_str());
        let ingress = view.ingress().map(|it| it.id.as_str());
        carried.chain(ingress).filter(|it| self.logs.contains_key(*it)).collect()
    }

    /// The whole state of a network.
    pub fn whole(&self, network: &str) -> Option<NetUpdate> {
        let log = self.logs.get(network)?;
        Some(NetUpdate {
            network_id: network.to_owned(),
            results_in: log.version,
            settled: log.settled,
            body: NetBody::Whole(Box::new(log.state.clone())),
            ..NetUpdate::default()
        })
    }

    /// A node's kernel and DNS server have reached this version.
    pub fn applied(&mut self, node: &str, network: &str, version: u64) {
        if let Some(log) = self.logs.get_mut(network) {
            log.applied.insert(node.to_owned(), version.min(log.version));
        }
    }

    /// A node begins anew, or is gone: what it applied before counts no more.
    pub fn forget(&mut self, node: &str) {
        for log in self.logs.values_mut() {
            log.applied.remove(node);
        }
    }

    /// Finds what all live nodes of a network have applied. The networks in which an endpoint has left for good since the last
    /// time are told so. Nodes that are not `live` are not waited for.
    pub fn settle(&mut self, live: impl Fn(&str) -> bool) -> Vec<NetUpdate> {
        let mut told = Vec::new();
        for (id, log) in self.logs.iter_mut().filter(|(_, log)| !log.leaving.is_empty()) {
            let nodes = log.state.nodes.iter().filter(|(node, it)| it.up && live(node.as_str()));
            let applied = nodes.map(|(node, _)| log.applied.get(node).copied().unwrap_or_default());
            let settled = applied.min().unwrap_or(log.version);
            if settled <= log.settled {
                continue;
            }
            log.settled = settled;
            let still_leaving = log.leaving.split_off(&(settled + 1));
            if std::mem::replace(&mut log.leaving, still_leaving).is_empty() {
                continue;
            }
            told.push(NetUpdate {
                network_id: id.clone(),
                applies_to: log.version,
                results_in: log.version,
                settled,
                ..NetUpdate::default()
            });
        }
        told
    }
}

/// The task has a container on its node, or is about to.
fn is_there(task: &TaskRecord) -> bool {
    !task.task.node_id.is_empty() && (TaskState::Assigned..=TaskState::Running).contains(&task.task.status.state)
}

fn changes(
    view: &View,
    network: &NetworkRecord,
    touched: &Touched,
    state: &NetState,
    places: &BTreeMap<String, BTreeMap<String, usize>>,
) -> NetChanges {
    let mut changes = NetChanges::default();
    if touched.facts {
        changes.facts = Some(facts(view, network)).filter(|it| *it != state.facts);
    }
    fn note<T: PartialEq>(
        patch: &mut herder_model::swarm::Patch<T>,
        known: &imbl::OrdMap<String, T>,
        key: &str,
        now: Option<T>,
    ) {
        match now {
            Some(now) if known.get(key) == Some(&now) => {}
            Some(now) => drop(patch.put.insert(key.to_owned(), now)),
            None if known.contains_key(key) => drop(patch.removed.insert(key.to_owned())),
            None => {}
        }
    }
    for id in &touched.nodes {
        let carries = network.spec.ingress || places.get(id).is_some_and(|it| it.contains_key(&network.id));
        note(
            &mut changes.nodes,
            &state.nodes,
            id,
            view.nodes.get(&**id).filter(|_| carries).and_then(|it| node(it, network)),
        );
    }
    for id in &touched.endpoints {
        let task = view.tasks.get(&**id).filter(|it| is_there(it));
        note(&mut changes.endpoints, &state.endpoints, id, task.and_then(|it| endpoint(it, network)));
    }
    for id in &touched.services {
        let record = view.services.get(&**id);
        note(&mut changes.services, &state.services, id, record.and_then(|it| service(view, it, network)));
        if network.spec.ingress {
            let now: BTreeMap<String, NetPort> =
                record.into_iter().flat_map(|it| ports(it)).map(|it| (it.key(), it)).collect();
            let gone = state.ports.iter().filter(|(key, it)| it.service == *id && !now.contains_key(*key));
            let gone: Vec<String> = gone.map(|(key, _)| key.clone()).collect();
            changes.ports.removed.extend(gone);
            for (key, port) in now {
                changes.ports.removed.remove(&key);
                note(&mut changes.ports, &state.ports, &key, Some(port));
            }
        }
    }
    // A port may go from one service to another in one write.
    let NetChanges { ports, .. } = &mut changes;
    ports.removed.retain(|key| !ports.put.contains_key(key));
    changes
}

/// True if an endpoint that served does not serve after these changes.
fn leaves(state: &NetState, changes: &NetChanges) -> bool {
    let served = |id: &String| state.endpoints.get(id).is_some_and(|it| it.serving);
    changes.endpoints.removed.iter().any(served)
        || changes.endpoints.put.iter().any(|(id, it)| !it.serving && served(id))
}

fn facts(view: &View, network: &NetworkRecord) -> NetFacts {
    let subnets = network.subnets().iter().filter_map(|it| {
        let (subnet, gateway) = (it.subnet.parse().ok()?, it.gateway.parse().ok()?);
        Some(NetSubnet { subnet, gateway, rest: serde_json::Map::new() })
    });
    let mut subnets: Vec<NetSubnet> = subnets.collect();
    subnets.sort_by_key(|it| it.gateway.is_ipv6());
    let port = view.cluster.as_ref().map_or(0, |it| it.cluster.data_path_port);
    NetFacts {
        name: network.spec.name.clone(),
        vni: network.vni,
        subnets,
        internal: network.spec.internal,
        ipv6: network.spec.ipv6_enabled,
        mtu: mtu(view, network),
        encrypted: network.is_encrypted(),
        ingress: network.spec.ingress,
        data_path_port: u16::try_from(port).unwrap_or_default(),
        ..NetFacts::default()
    }
}

/// The MTU inside of the network: of the option, else of the smallest data path that nodes tell of.
fn mtu(view: &View, network: &NetworkRecord) -> u32 {
    let said = network.option(MTU_OPTION).and_then(|it| it.parse::<u32>().ok());
    let paths = view.nodes.values().filter(|it| it.description().underlay.mtu > 0);
    let room = paths.map(|it| {
        let is_v6 = data_path(it).parse::<IpAddr>().is_ok_and(|it| it.is_ipv6());
        let overhead = match (network.is_encrypted(), is_v6) {
            (true, true) => VXLAN_BYTES + TUNNEL_OVERHEAD_V6,
            (true, false) => VXLAN_BYTES + TUNNEL_OVERHEAD_V4,
            (false, true) => VXLAN_V6_BYTES,
            (false, false) => VXLAN_BYTES,
        };
        it.description().underlay.mtu.saturating_sub(overhead)
    });
    let in_tunnel = if network.is_encrypted() { TUNNEL_OVERHEAD_V4 } else { 0 };
    match said {
        Some(said) => said.saturating_sub(VXLAN_BYTES + in_tunnel),
        None => room.min().unwrap_or_default(),
    }
}

fn node(record: &NodeRecord, network: &NetworkRecord) -> Option<NetNode> {
    let ingress = record.addresses.get(&network.id).copied().filter(|_| network.spec.ingress);
    let subnet = allocate::subnet_of(network);
    Some(NetNode {
        vtep: data_path(record).parse().ok()?,
        ingress,
        ingress6: ingress.zip(subnet).and_then(|(it, subnet)| allocate::v6_of(network, &subnet, it)),
        tunnel: record
            .description()
            .underlay
            .tunnel
            .as_ref()
            .map(|it| it.key.clone())
            .filter(|_| network.is_encrypted()),
        addresses: record.node.status.addr.parse().ok().filter(|_| network.spec.ingress).into_iter().collect(),
        up: record.node.status.state != SwarmNodeState::Down,
        rest: serde_json::Map::new(),
    })
}

fn endpoint(task: &TaskRecord, network: &NetworkRecord) -> Option<NetEndpoint> {
    let place = task.networks.iter().find(|it| it.network_id == network.id)?;
    let spec = task.task.spec.container_spec.as_ref();
    let attached = task.attached.as_ref().map(|it| &it.wanted);
    let mut names = vec![task_name(task)];
    names.extend(attached.map(|it| it.hostname.clone()).filter(|it| !it.is_empty()));
    // A template is filled in on the node.
    names.extend(spec.map(|it| it.hostname.clone()).filter(|it| !it.is_empty() && !it.contains("{{")));
    let container = task.task.status.container_status.as_ref().map(|it| it.container_id.as_str()).unwrap_or_default();
    names.extend(container.get(..SHORT_ID).map(str::to_owned));
    if task.task.service_id.is_empty() {
        names.extend(place.aliases.iter().cloned());
    }
    let servers = spec.and_then(|it| it.dns_config.as_ref()).map(|it| &it.nameservers);
    let mut dns: Vec<IpAddr> = servers.into_iter().flatten().filter_map(|it| it.parse().ok()).collect();
    dns.extend(attached.iter().flat_map(|it| &it.dns));
    let runs = task.task.status.state == TaskState::Running && task.task.desired_state <= TaskState::Complete;
    Some(NetEndpoint {
        node: task.task.node_id.clone(),
        v4: place.v4?,
        v6: place.v6,
        names,
        service: Some(task.task.service_id.clone()).filter(|it| !it.is_empty()),
        serving: runs && attached.is_none_or(|it| it.running),
        dns,
        others: attached.map(|it| it.others.clone()).unwrap_or_default(),
        rest: serde_json::Map::new(),
    })
}

/// Digits of a container's id that stand for it: its hostname, if the service gives none.
const SHORT_ID: usize = 12;

/// Service label: addresses of hosts on which its ports are published, with commas between.
pub(in crate::swarm) const PUBLISH_ON: &str = "herder.publish-on";

/// Service label: names by which the service was known before its stack was renamed, with commas between.
pub const FORMER_NAMES: &str = "herder.stack.former-names";

fn service(view: &View, record: &ServiceRecord, network: &NetworkRecord) -> Option<NetService> {
    let places = attached(view, record);
    let place = places.iter().find(|it| it.id == network.id)?;
    let service = &record.service;
    let label = |key: &str| service.spec.labels.as_ref().and_then(|it| it.get(key)).map(String::as_str);
    let former = label(FORMER_NAMES).into_iter().flat_map(|names| names.split(',').map(str::to_owned));
    let is_dnsrr = service.spec.endpoint_spec.as_ref().is_some_and(|it| it.mode == "dnsrr");
    let vip = service.endpoint.virtual_ips.iter().find(|it| it.network_id == network.id).and_then(|it| it.address());
    let subnet = allocate::subnet_of(network);
    Some(NetService {
        name: service.spec.name.clone(),
        aliases: place.aliases.iter().cloned().chain(former).collect(),
        mode: if is_dnsrr { BalanceMode::Dnsrr } else { BalanceMode::Vip },
        vip4: vip,
        vip6: vip.zip(subnet).and_then(|(vip, subnet)| allocate::v6_of(network, &subnet, vip)),
        affinity: if label(AFFINITY_LABEL) == Some("source") { Affinity::Source } else { Affinity::None },
        keep: if label(KEEP_LABEL) == Some("udp") { KeepAddress::Udp } else { KeepAddress::Tcp },
        reached: if network.spec.ingress { ingress::routed_ports(view, record) } else { BTreeSet::new() },
        ..NetService::default()
    })
}

/// Reads a value of [`PUBLISH_ON`]. Nothing if a part of it is no address.
pub(in crate::swarm) fn addresses(text: &str) -> Option<Vec<IpAddr>> {
    text.split(',').map(|it| it.trim().parse().ok()).collect()
}

fn ports(record: &ServiceRecord) -> impl Iterator<Item = NetPort> {
    let ports = record.service.endpoint.ports.iter().filter(|it| it.is_ingress() && it.published_port != 0);
    let labels = record.service.spec.labels.as_ref();
    let on = labels.and_then(|it| it.get(PUBLISH_ON)).and_then(|it| addresses(it)).unwrap_or_default();
    ports.map(move |it| NetPort {
        on: on.clone(),
        protocol: match it.protocol.as_str() {
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
        published: it.published_port,
        target: it.target_port,
        service: record.service.id.clone(),
        ..NetPort::default()
    })
}

#[cfg(test)]
mod tests;
