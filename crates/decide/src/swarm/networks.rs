//! Networks of the swarm as clients see them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use herder_model::swarm::{
    Driver, IpamConfig, NetworkRecord, NetworkSpec, NodeRecord, OVERLAY, ServiceRecord, SwarmNodeState, TaskNetwork,
    TaskRecord, TaskState, VNI_OPTION, View,
};
use serde_json::{Map, Value, json};

use super::allocate::{self, subnet_of};
use super::control::lookup;
use super::{Code, Denial, Refusal};
use crate::list::Filters;
use crate::versions::Version;

/// API version from which networks show whether they have IPv4.
const ENABLE_IPV4: Version = Version { major: 1, minor: 48 };

/// Returns a driver's state of a network: the given options, and the VXLAN network identifier.
pub(super) fn driver_state(name: &str, spec: &NetworkSpec, vni: u32) -> Driver {
    let mut options = spec.driver_configuration.as_ref().map(|it| it.options.clone()).unwrap_or_default();
    if vni != 0 {
        options.insert(VNI_OPTION.into(), vni.to_string());
    }
    Driver { name: name.into(), options, ..Driver::default() }
}

/// The network that `text` means: by its full id, else its name, else the beginning of its id.
pub fn find<'v>(view: &'v View, text: &str) -> Result<&'v std::sync::Arc<NetworkRecord>, Denial> {
    lookup::network(view, text)
}

/// An entry of `GET /networks`.
pub fn entry(record: &NetworkRecord, client: Option<&str>) -> Value {
    let spec = &record.spec;
    let driver = record.driver_state.clone().unwrap_or_default();
    let labels = spec.labels.clone().filter(|it| !it.is_empty());
    let mut entry = json!({
        "Name": spec.name,
        "Id": record.id,
        "Created": record.meta.created_at,
        "Scope": "swarm",
        "Driver": driver.name,
        "EnableIPv4": true,
        "EnableIPv6": spec.ipv6_enabled,
        "IPAM": {"Driver": "default", "Options": null, "Config": configs(record)},
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": spec.config_from.as_ref().map_or("", |it| &it.network)},
        "ConfigOnly": false,
        "Containers": null,
        "Options": if driver.options.is_empty() { Value::Null } else { json!(driver.options) },
        "Labels": labels,
    });
    if let Some(members) = entry.as_object_mut().filter(|_| older(client, ENABLE_IPV4)) {
        members.shift_remove("EnableIPv4");
    }
    entry
}

fn older(client: Option<&str>, than: Version) -> bool {
    client.and_then(Version::parse).is_some_and(|it| it < than)
}

fn configs(record: &NetworkRecord) -> Value {
    if record.subnets().is_empty() {
        return Value::Null;
    }
    let config = |at: usize, config: &IpamConfig| {
        let mut shown = Map::new();
        let members = [("Subnet", &config.subnet), ("IPRange", &config.range), ("Gateway", &config.gateway)];
        for (name, value) in members.into_iter().filter(|(_, value)| !value.is_empty()) {
            shown.insert(name.into(), value.as_str().into());
        }
        if at == 0 && !record.auxiliary.is_empty() {
            shown.insert("AuxiliaryAddresses".into(), json!(record.auxiliary));
        }
        Value::Object(shown)
    };
    record.subnets().iter().enumerate().map(|(at, it)| config(at, it)).collect()
}

/// `GET /networks/{id}`: with its containers, and with `verbose` the services that are reached there.
pub fn inspect(view: &View, record: &NetworkRecord, verbose: bool, client: Option<&str>) -> Value {
    let mut shown = entry(record, client);
    if record.is_encrypted() {
        shown["Options"][ENCRYPTION] = encryption(view).into();
    }
    let tasks: Vec<Endpoint<'_>> = endpoints(view, record).collect();
    let mut containers = Map::new();
    for Endpoint { record: task, place } in &tasks {
        let container =
            task.task.status.container_status.as_ref().map(|it| it.container_id.as_str()).unwrap_or_default();
        if !container.is_empty() {
            containers.insert(container.to_owned(), container_entry(record, task, place));
        }
    }
    let mut nodes: BTreeSet<&str> = tasks.iter().map(|it| it.record.task.node_id.as_str()).collect();
    if record.spec.ingress {
        nodes.extend(view.nodes.keys().map(|it| it.as_str()));
    }
    let peers = nodes
        .iter()
        .filter_map(|id| view.nodes.get(*id))
        .map(|node| json!({"Name": digest(&[&node.node.id], 12), "IP": data_path(node)}));
    let peers: Vec<Value> = peers.collect();
    if !containers.is_empty() || !peers.is_empty() {
        shown["Containers"] = Value::Object(containers);
        shown["Labels"] = json!(record.spec.labels.clone().unwrap_or_default());
        shown["Peers"] = Value::Array(peers);
    }
    if verbose && !tasks.is_empty() {
        shown["Services"] = services(view, record, &tasks);
    }
    shown
}

/// The option that shows by which implementation of WireGuard a network is encrypted.
const ENCRYPTION: &str = "herder.encryption";

/// The slower implementation, if nodes have several.
fn encryption(view: &View) -> &'static str {
    let ways = view.nodes.values().filter_map(|it| Some(it.description().underlay.tunnel.as_ref()?.way));
    ways.max().unwrap_or_default().name()
}

struct Endpoint<'v> {
    record: &'v TaskRecord,
    place: &'v TaskNetwork,
}

/// Tasks that run with an address in this network, on nodes that are not down.
fn endpoints<'v>(view: &'v View, network: &'v NetworkRecord) -> impl Iterator<Item = Endpoint<'v>> {
    let runs =
        |it: &&std::sync::Arc<TaskRecord>| (TaskState::Starting..=TaskState::Running).contains(&it.task.status.state);
    let is_shown = |it: &&std::sync::Arc<TaskRecord>| it.attached.as_ref().is_none_or(|it| it.wanted.running);
    let is_lost = |it: &&std::sync::Arc<TaskRecord>| {
        view.nodes.get(it.task.node_id.as_str()).is_some_and(|it| it.node.status.state == SwarmNodeState::Down)
    };
    let all = view.tasks.values().filter(runs).filter(is_shown).filter(move |it| !is_lost(it));
    all.filter_map(|record| {
        let place = record.networks.iter().find(|it| it.network_id == network.id)?;
        Some(Endpoint { record, place })
    })
}

fn container_entry(network: &NetworkRecord, task: &TaskRecord, place: &TaskNetwork) -> Value {
    let length = subnet_of(network).map_or(0, |it| it.net.prefix_len());
    let v4 = place.v4.map(|it| format!("{it}/{length}")).unwrap_or_default();
    json!({
        "Name": endpoint_name(task),
        "EndpointID": endpoint_id(network, task),
        "MacAddress": place.v4.map(mac).unwrap_or_default(),
        "IPv4Address": v4,
        "IPv6Address": place.v6.map(|it| format!("{it}/64")).unwrap_or_default(),
    })
}

fn endpoint_name(task: &TaskRecord) -> String {
    if task.task.name.is_empty() { lookup::task_name(task) } else { task.task.name.clone() }
}

/// Returns the MAC of an IPv4 address in an overlay network: a reused address then never meets a stale entry.
pub fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn endpoint_id(network: &NetworkRecord, task: &TaskRecord) -> String {
    digest(&[&network.id, &task.task.id], 64)
}

/// Hexadecimal digits that stand for these texts. Not for secrets: FNV-1a, again for every 16 digits.
fn digest(texts: &[&str], digits: usize) -> String {
    let mut text = String::new();
    let mut round = 0_u64;
    while text.len() < digits {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ round;
        for byte in texts.iter().flat_map(|it| it.bytes().chain([0])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        text.push_str(&format!("{hash:016x}"));
        round += 1;
    }
    text.truncate(digits);
    text
}

/// The address that other nodes send encapsulated packets to.
pub(super) fn data_path(node: &NodeRecord) -> &str {
    let said = &node.description().underlay.data_path_addr;
    if said.is_empty() { &node.node.status.addr } else { said }
}

fn services(view: &View, network: &NetworkRecord, tasks: &[Endpoint<'_>]) -> Value {
    let mut by_service: BTreeMap<&str, Vec<&Endpoint<'_>>> = BTreeMap::new();
    for endpoint in tasks.iter().filter(|it| !it.record.task.service_id.is_empty()) {
        by_service.entry(&endpoint.record.task.service_id).or_default().push(endpoint);
    }
    let mut shown = Map::new();
    // Indices of this kind count from here in swarm mode.
    for (index, (id, endpoints)) in (257..).zip(by_service) {
        let service = view.services.get(id);
        let name = service.map_or_else(|| endpoints[0].record.service_name.clone(), |it| it.service.spec.name.clone());
        let tasks: Vec<Value> = endpoints.iter().map(|it| task_entry(view, network, it)).collect();
        let ports = service.filter(|_| network.spec.ingress).map(|it| ports(it)).unwrap_or_default();
        let entry = json!({
            "VIP": service.and_then(|it| vip(it, network)).unwrap_or_else(|| "<nil>".into()),
            "Ports": ports,
            "LocalLBIndex": index,
            "Tasks": tasks,
        });
        shown.insert(name, entry);
    }
    Value::Object(shown)
}

fn task_entry(view: &View, network: &NetworkRecord, endpoint: &Endpoint<'_>) -> Value {
    let node = view.nodes.get(&*endpoint.record.task.node_id);
    json!({
        "Name": endpoint_name(endpoint.record),
        "EndpointID": endpoint_id(network, endpoint.record),
        "EndpointIP": endpoint.place.v4.map(|it| it.to_string()).unwrap_or_default(),
        "Info": {"Host IP": node.map(|it| data_path(it)).unwrap_or_default()},
    })
}

/// The virtual IP of a service in a network.
pub(super) fn vip(service: &ServiceRecord, network: &NetworkRecord) -> Option<String> {
    let mut vips = service.service.endpoint.virtual_ips.iter();
    vips.find(|it| it.network_id == network.id).and_then(|it| it.address()).map(|it| it.to_string())
}

fn ports(service: &ServiceRecord) -> Vec<String> {
    let ports = service.service.endpoint.ports.iter().filter(|it| it.is_ingress());
    ports.map(|it| format!("Target: {}, Publish: {}", it.target_port, it.published_port)).collect()
}

/// The networks of a task as clients see them: the place alone is kept.
pub fn attachments(view: &View, record: &TaskRecord) -> Vec<Value> {
    let places = record.networks.iter().filter_map(|place| {
        let network = view.networks.get(&*place.network_id)?;
        let mut attachment = json!({"Network": network.shown()});
        if let (Some(v4), Some(subnet)) = (place.v4, subnet_of(network)) {
            let v6 = place.v6.map(|it| format!("{it}/64"));
            let addresses: Vec<String> =
                [Some(format!("{v4}/{}", subnet.net.prefix_len())), v6].into_iter().flatten().collect();
            attachment["Addresses"] = json!(addresses);
        }
        Some(attachment)
    });
    places.collect()
}

/// True if a network of the swarm passes the filters of `GET /networks`, which were checked before.
pub fn is_wanted(view: &View, record: &NetworkRecord, filters: &Filters, dangling: Option<bool>) -> bool {
    let driver = record.driver_state.as_ref().map_or(OVERLAY, |it| &it.name);
    let labels = record.spec.labels.as_ref();
    filters.patterns("id").match_any(&[&record.id])
        && filters.patterns("name").match_any(&[&record.name])
        && filters.is("driver", driver)
        && filters.is("scope", "swarm")
        && filters.is("type", "custom")
        && !filters.has("node")
        && filters.labels(|key| labels.and_then(|it| it.get(key)).map(String::as_str))
        && dangling.is_none_or(|wanted| wanted != is_used(view, record))
}

/// The moment that the filter `until` means: a time, or how long ago. Nothing for text that is neither.
pub fn moment(text: &str, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let span = jiff::SignedDuration::try_from_secs_f64(seconds).ok()?;
        return jiff::Timestamp::UNIX_EPOCH.checked_add(span).ok();
    }
    let ago: jiff::SignedDuration = text.parse().ok()?;
    now.checked_sub(ago).ok()
}

/// True if a service names the network, or a container is there.
pub fn is_used(view: &View, record: &NetworkRecord) -> bool {
    view.services.values().any(|it| names(it, &record.id)) || users(view, &record.id).next().is_some()
}

/// True if the service declares to be on the network.
pub(super) fn names(service: &ServiceRecord, network: &str) -> bool {
    service.service.spec.task_template.networks.iter().any(|it| it.target == network)
}

/// Tasks that have not ended and have a place in the network.
pub(super) fn users<'v>(view: &'v View, network: &str) -> impl Iterator<Item = &'v TaskRecord> + use<'v> {
    let network = network.to_owned();
    let all = view.tasks.values().map(AsRef::as_ref).filter(|it| it.task.status.state <= TaskState::Running);
    all.filter(move |it: &&TaskRecord| it.networks.iter().any(|it| it.network_id == network))
}

/// Ids of plain containers that have a place in the network.
pub fn plain_containers<'v>(view: &'v View, network: &str) -> impl Iterator<Item = &'v str> + use<'v> {
    users(view, network).filter_map(|it| Some(it.attached.as_ref()?.wanted.container_id.as_str()))
}

/// True if the managers know of a running plain container on the network.
pub fn has_running(view: &View, network: &str) -> bool {
    users(view, network).any(|it| it.attached.as_ref().is_some_and(|it| it.wanted.running))
}

/// The refusal to remove a network that a plain container is on.
pub fn in_use(view: &View, network: &str, container: &str) -> Denial {
    let mut all = users(view, network);
    let task = all.find(|it| it.attached.as_ref().is_some_and(|it| it.wanted.container_id == container));
    let task = task.map_or(container, |it| it.task.id.as_str());
    Refusal::new(Code::FailedPrecondition, format!("network {network} is in use by task {task}")).into()
}

/// The networks that a client may see, in the order of their ids.
pub fn visible(view: &View) -> impl Iterator<Item = &std::sync::Arc<NetworkRecord>> {
    view.networks.values().filter(|it| !it.is_removing())
}

/// Returns the networks that fill up: name, addresses in use, addresses.
pub fn filling(view: &View) -> Vec<(String, usize, usize)> {
    let almost_full = visible(view).filter_map(|it| {
        let size = allocate::subnet_of(it)?.size();
        let used = view.held(&it.id).len() + 1;
        (used * 100 >= size * WARN_PERCENT).then(|| (it.name.clone(), used, size))
    });
    almost_full.collect()
}

/// Percentage of addresses in use from which a network causes a warning.
const WARN_PERCENT: usize = 80;
