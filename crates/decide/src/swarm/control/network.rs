//! Networks of the swarm: made, and taken away.

use std::collections::BTreeMap;
use std::net::IpAddr;

use herder_model::swarm::{
    Change, ConfigFrom, Driver, ENCRYPTED_OPTION, Feature, IpamConfig, IpamOptions, Kind, NetworkRecord, NetworkSpec,
    NodeRecord, OVERLAY, SwarmNodeState, TaskRecord, TaskState, VNI_OPTION, View,
};
use ipnet::IpNet;
use serde::Deserialize;

use super::Changes;
use super::{check, lookup};
use crate::swarm::allocate::{self, free_vni};
use crate::swarm::attachments;
use crate::swarm::networks::{self, driver_state, names};
use crate::swarm::nodes::level;
use crate::swarm::{Code, Denial, Refusal};

/// The largest VXLAN network identifier: it has 24 bits.
const VNI_MAX: u32 = (1 << 24) - 1;
/// Label of the networks that every swarm has by itself.
const PREDEFINED: &str = "com.docker.swarm.predefined";
/// Set to `allow`, a subnet may overlap routes of nodes.
const OVERLAP_OPTION: &str = "herder.overlap";
/// Drivers that every engine has, and that need nothing from managers.
const LOCAL_DRIVERS: [&str; 5] = ["bridge", "macvlan", "ipvlan", "host", "null"];

/// Body of `POST /networks/create`, as far as it is about the swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkRequest {
    pub name: String,
    pub driver: String,
    pub scope: String,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_only: bool,
    pub config_from: Option<ConfigFrom>,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    pub ipam: Option<Ipam>,
    pub options: BTreeMap<String, String>,
    pub labels: Option<BTreeMap<String, String>>,
    /// No engine has the network that `config_from` names; the door knows that.
    #[serde(skip)]
    pub lacks_config: bool,
}

/// Address management that a client requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    pub driver: String,
    pub options: BTreeMap<String, String>,
    pub config: Vec<IpamRequest>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamRequest {
    pub subnet: String,
    #[serde(rename = "IPRange")]
    pub range: String,
    pub gateway: String,
    pub auxiliary_addresses: BTreeMap<String, String>,
}

impl NetworkRequest {
    /// True if the swarm is asked for, not the engines.
    pub fn is_swarms(&self) -> bool {
        // A configuration is kept by engines, whatever driver it is for.
        let is_config = self.config_only && !self.has_operator_fields();
        !is_config && (self.driver == OVERLAY || self.scope == "swarm" || self.ingress)
    }

    fn has_operator_fields(&self) -> bool {
        self.ingress || self.internal || self.attachable || !self.scope.is_empty()
    }

    /// Checks the name: engines have networks of these names by themselves.
    pub fn check_predefined(&self) -> Result<(), Denial> {
        if !matches!(self.name.as_str(), "bridge" | "host" | "none" | "default") {
            return Ok(());
        }
        let text = format!("operation is not permitted on predefined {} network ", self.name);
        Err(Denial::plain(403, text))
    }

    /// Checks what an engine refuses before it asks the managers, in its order.
    fn check(&self) -> Result<(), Denial> {
        let plain = |status, text: &str| Err(Denial::plain(status, text));
        self.check_predefined()?;
        self.check_ipam()?;
        if self.name.trim().is_empty() {
            return plain(400, "invalid name: name is empty");
        }
        if self.scope == "local" && self.driver == OVERLAY {
            return plain(403, "cannot downgrade network scope for overlay networks");
        }
        if self.ingress && self.scope != "swarm" && LOCAL_DRIVERS.contains(&self.driver.as_str()) {
            return plain(403, "Ingress network can only be global scope network");
        }
        if self.config_only && self.has_operator_fields() {
            return plain(
                403,
                "configuration network can only contain network specific fields. Network operator fields like \
                 [ ingress | internal | attachable | scope ] are not supported.",
            );
        }
        self.check_config_from()?;
        if self.enable_ipv4 == Some(false) {
            return plain(400, "IPv4 cannot be disabled in a Swarm scoped network");
        }
        Ok(())
    }

    fn check_ipam(&self) -> Result<(), Denial> {
        let configs = self.ipam.iter().flat_map(|it| &it.config);
        let errors: Vec<String> = configs.flat_map(|it| it.errors(self.enable_ipv6 == Some(true))).collect();
        let text = match &errors[..] {
            [] => return Ok(()),
            [one] => one.clone(),
            several => format!("* {}", several.join("\n* ")),
        };
        Err(Denial::plain(400, format!("invalid network config:\n{text}")))
    }

    fn check_config_from(&self) -> Result<(), Denial> {
        let name = self.config_name();
        if name.is_empty() {
            return Ok(());
        }
        if self.lacks_config {
            return Err(Denial::plain(404, format!("configuration network {name:?} does not exist")));
        }
        let own_ipam = self.ipam.as_ref().is_some_and(|it| !it.config.is_empty() || !it.options.is_empty());
        let own_labels = self.labels.as_ref().is_some_and(|it| !it.is_empty());
        let what = if own_ipam || own_labels || self.enable_ipv6 == Some(true) {
            "user-specified configurations"
        } else if !self.options.is_empty() {
            "network driver options"
        } else {
            return Ok(());
        };
        let text = format!("{what} are not supported if the network depends on a configuration network");
        Err(Denial::plain(403, text))
    }

    fn config_name(&self) -> &str {
        self.config_from.as_ref().map_or("", |it| &it.network)
    }

    /// Checks what managers refuse.
    fn check_as_managers(&self) -> Result<(), Refusal> {
        if self.attachable && self.ingress {
            return Err(Refusal::invalid("ingress network cannot be attachable"));
        }
        check::name(&self.name)?;
        if self.labels.as_ref().is_some_and(|it| it.contains_key(PREDEFINED)) {
            let text = format!(
                "label {PREDEFINED} is for internally created predefined networks and cannot be applied by users"
            );
            return Err(Refusal::new(Code::PermissionDenied, text));
        }
        if self.ingress && !matches!(self.driver.as_str(), "" | OVERLAY) {
            let text = "only overlay driver is currently supported for ingress network";
            return Err(Refusal::new(Code::Unimplemented, text));
        }
        if !self.driver.is_empty() && self.driver != OVERLAY && !LOCAL_DRIVERS.contains(&self.driver.as_str()) {
            return Err(Refusal::invalid(format!("error during lookup of plugin {}", self.driver)));
        }
        Ok(())
    }

    /// Returns the specification in its stored form.
    fn spec(&self) -> NetworkSpec {
        let driver = (!self.driver.is_empty() || !self.options.is_empty() || self.ingress).then(|| Driver {
            name: self.driver.clone(),
            options: self.options.clone(),
            ..Driver::default()
        });
        let ipam_options = self.ipam.as_ref().map(|it| IpamOptions {
            driver: Driver { name: it.driver.clone(), options: it.options.clone(), ..Driver::default() },
            configs: it.config.iter().map(IpamRequest::kept).collect(),
            ..IpamOptions::default()
        });
        NetworkSpec {
            name: self.name.clone(),
            labels: Some(self.labels.clone().unwrap_or_default()),
            driver_configuration: driver,
            ipv6_enabled: self.enable_ipv6 == Some(true),
            internal: self.internal,
            attachable: self.attachable,
            ingress: self.ingress,
            ipam_options,
            config_from: self.config_from.clone().filter(|it| !it.network.is_empty()),
            scope: "swarm".into(),
            ..NetworkSpec::default()
        }
    }
}

impl IpamRequest {
    fn kept(&self) -> IpamConfig {
        IpamConfig {
            subnet: self.subnet.clone(),
            range: self.range.clone(),
            gateway: self.gateway.clone(),
            ..IpamConfig::default()
        }
    }

    /// Returns an engine's errors about it, one sentence for each fault. A subnet of IPv6 counts only where IPv6 is on.
    fn errors(&self, has_v6: bool) -> Vec<String> {
        let is_empty = self.range.is_empty() && self.gateway.is_empty() && self.auxiliary_addresses.is_empty();
        if self.subnet.is_empty() && is_empty {
            return Vec::new();
        }
        let Ok(net) = self.subnet.parse::<IpNet>() else {
            return vec![format!("invalid subnet {}: invalid CIDR block notation", self.subnet)];
        };
        if net.addr().is_ipv6() && !has_v6 {
            return Vec::new();
        }
        let mut errors = Vec::new();
        if net.trunc() != net {
            errors.push(format!("invalid subnet {net}: it should be {}", net.trunc()));
        }
        if !self.range.is_empty() {
            self.range_errors(net, &mut errors);
        }
        let addresses = std::iter::once(("gateway ".to_owned() + &self.gateway, &self.gateway));
        let auxiliary = self.auxiliary_addresses.iter().map(|(name, it)| (format!("auxiliary address {name}"), it));
        for (what, address) in addresses.chain(auxiliary).filter(|(_, it)| !it.is_empty()) {
            let reason = match address.parse::<IpAddr>() {
                Err(_) => "invalid address".to_owned(),
                Ok(it) if it.is_ipv4() != net.addr().is_ipv4() => format!("parent subnet is an {} block", family(net)),
                Ok(it) if !net.contains(&it) => format!("parent subnet {net} doesn't contain this address"),
                Ok(_) => continue,
            };
            errors.push(format!("invalid {what}: {reason}"));
        }
        errors
    }

    fn range_errors(&self, net: IpNet, errors: &mut Vec<String>) {
        let mut add = |reason: String| errors.push(format!("invalid ip-range {}: {reason}", self.range));
        let Ok(range) = self.range.parse::<IpNet>() else { return add("invalid CIDR block notation".to_owned()) };
        if range.addr().is_ipv4() != net.addr().is_ipv4() {
            return add(format!("parent subnet is an {} block", family(net)));
        }
        if range.prefix_len() < net.prefix_len() {
            add(format!("CIDR block is bigger than its parent subnet {net}"));
        }
        if range.trunc() != range {
            add(format!("it should be {}", range.trunc()));
        }
        let overlaps = net.trunc().contains(&range.addr()) || range.trunc().contains(&net.addr());
        if !overlaps {
            add(format!("parent subnet {net} doesn't contain ip-range"));
        }
    }
}

fn family(net: IpNet) -> &'static str {
    if net.addr().is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Makes a network of the swarm. `id` is the new network's.
pub fn create_network(view: &View, request: &NetworkRequest, id: String) -> Changes {
    if view.named(Kind::Network, &request.name).is_some() {
        return Err(Denial::plain(409, format!("network with name {} already exists", request.name)));
    }
    request.check()?;
    request.check_as_managers()?;
    level::needs(view, Feature::Networks)?;
    if request.ingress
        && let Some(present) = view.ingress()
    {
        let text = format!("ingress network ({}) is already present", present.id);
        return Err(Refusal::new(Code::AlreadyExists, text).into());
    }
    let mut spec = request.spec();
    let driver = match request.driver.as_str() {
        "" => OVERLAY,
        other => other,
    };
    let mut record = NetworkRecord { id, name: spec.name.clone(), ..NetworkRecord::default() };
    if driver == OVERLAY {
        if view.cluster.as_ref().is_some_and(|it| it.encrypts_networks) {
            let options = &mut spec.driver_configuration.get_or_insert_default().options;
            options.insert(ENCRYPTED_OPTION.into(), String::new());
        }
        let options = spec.driver_configuration.as_ref().map(|it| &it.options);
        if options.and_then(|it| it.get(ENCRYPTED_OPTION)).is_some_and(|it| it != "false") {
            tunnels_are_there(view)?;
        }
        record.vni = vni(view, request)?;
        let configs = addresses(view, request, &spec)?;
        record.ipam_options = Some(IpamOptions {
            driver: Driver { name: "default".into(), ..Driver::default() },
            configs,
            ..IpamOptions::default()
        });
        let auxiliary = request.ipam.iter().flat_map(|it| &it.config).flat_map(|it| it.auxiliary_addresses.clone());
        record.auxiliary = auxiliary.collect();
    }
    record.driver_state = Some(driver_state(driver, &spec, record.vni));
    record.spec = spec;
    Ok(vec![record.into()])
}

/// Refuses an encrypted network where a node cannot carry it.
fn tunnels_are_there(view: &View) -> Result<(), Denial> {
    let lacks = |it: &&std::sync::Arc<NodeRecord>| {
        it.node.status.state != SwarmNodeState::Down && it.description().underlay.tunnel.is_none()
    };
    let lacking: Vec<&str> = view.nodes.values().filter(lacks).map(|it| &*it.description().hostname).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let text = format!(
        "networks cannot be encrypted on these nodes: {}. A node needs WireGuard in its kernel or the device /dev/net/tun, and a \
         release of herder that encrypts networks",
        lacking.join(", ")
    );
    Err(Refusal::new(Code::FailedPrecondition, text).into())
}

fn vni(view: &View, request: &NetworkRequest) -> Result<u32, Denial> {
    let Some(text) = request.options.get(VNI_OPTION) else { return Ok(free_vni(view)) };
    let vni = text.trim().parse::<u32>().ok().filter(|it| (1..=VNI_MAX).contains(it));
    let Some(vni) = vni else {
        return Err(Denial::plain(400, format!("invalid vxlan id value {text:?} passed: expected 1 to {VNI_MAX}")));
    };
    match view.network_of_vni(vni).and_then(|id| view.networks.get(id)) {
        Some(other) => {
            let text = format!("VXLAN network identifier {vni} is in use by network {}", other.spec.name);
            Err(Denial::plain(403, text))
        }
        None => Ok(vni),
    }
}

fn addresses(view: &View, request: &NetworkRequest, spec: &NetworkSpec) -> Result<Vec<IpamConfig>, Denial> {
    let asked = spec.ipam_options.as_ref().map_or(&[][..], |it| &it.configs);
    let with_hosts = request.options.get(OVERLAP_OPTION).is_none_or(|it| it != "allow");
    for net in asked.iter().filter_map(|it| it.subnet.parse::<IpNet>().ok()) {
        if let Some(with) = allocate::overlap(view, net, with_hosts) {
            let text = format!("Pool overlaps with other one on this address space: {net} is asked for, and {with}");
            return Err(Denial::plain(403, text));
        }
    }
    let mut asked = asked.to_vec();
    let has_v6 = asked.iter().any(|it| it.subnet.parse::<IpNet>().is_ok_and(|it| it.addr().is_ipv6()));
    if spec.ipv6_enabled && !has_v6 {
        asked.push(IpamConfig { subnet: local_v6(view), ..IpamConfig::default() });
    }
    allocate::subnets(view, &asked, spec.ingress).ok_or_else(|| {
        let text = "no subnet is left in the swarm's address pools (docker swarm init --default-addr-pool): remove networks that \
                    nobody uses (docker network prune), or name a subnet (--subnet)";
        Refusal::new(Code::FailedPrecondition, text).into()
    })
}

/// A unique local /64 for a network, under a prefix that follows from the id of the swarm (RFC 4193).
fn local_v6(view: &View) -> String {
    let id = view.cluster.as_ref().map_or("", |it| &it.cluster.id);
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let (global, subnet) = (hash & 0xff_ffff_ffff, u64::from(free_vni(view)) & 0xffff);
    let prefix = (0xfd_u128 << 120) | (u128::from(global) << 80) | (u128::from(subnet) << 64);
    format!("{}/64", std::net::Ipv6Addr::from(prefix))
}

/// Takes a network away that nothing needs any more. While containers still end there, the record stays without its name.
pub fn remove_network(view: &View, text: &str) -> Changes {
    let record = lookup::network(view, text)?;
    let id = &record.id;
    let refused = |text: String| Err(Refusal::new(Code::FailedPrecondition, text).into());
    if let Some(service) = view.services.values().find(|it| names(it, id)) {
        return refused(format!("network {id} is in use by service {}", service.service.id));
    }
    if record.spec.ingress
        && let Some(service) =
            view.services.values().find(|it| it.service.endpoint.ports.iter().any(|it| it.is_ingress()))
    {
        return refused(format!(
            "ingress network cannot be removed because service {} depends on it",
            service.service.id
        ));
    }
    // A task whose service is gone ends soon; clients remove the networks of a stack right after its services. As in swarm mode, a plain
    // container that does not run holds no network: without it, it does not start again.
    let (stopped, users): (Vec<&TaskRecord>, Vec<&TaskRecord>) =
        networks::users(view, id).partition(|it| is_stopped(it));
    let stays = |it: &&&TaskRecord| {
        let service = &it.task.service_id;
        it.task.desired_state <= TaskState::Running && (service.is_empty() || view.services.contains_key(service))
    };
    if let Some(task) = users.iter().find(stays) {
        return refused(format!("network {id} is in use by task {}", task.task.id));
    }
    let mut changes: Vec<Change> = stopped.into_iter().map(|it| attachments::without(it, id).into()).collect();
    changes.push(gone(record, users.is_empty()));
    Ok(changes)
}

fn is_stopped(record: &TaskRecord) -> bool {
    record.attached.as_ref().is_some_and(|it| !it.wanted.running && !it.wanted.container_id.is_empty())
}

/// Networks that nothing uses, with their names. The ingress network is never among them.
pub fn prune_networks(view: &View, wanted: impl Fn(&NetworkRecord) -> bool) -> (Vec<Change>, Vec<String>) {
    let unused = networks::visible(view).filter(|it| !it.spec.ingress && wanted(it) && !networks::is_used(view, it));
    unused.map(|it| (gone(it, true), it.name.clone())).unzip()
}

fn gone(record: &NetworkRecord, is_unused: bool) -> Change {
    if is_unused {
        return Change::Remove(Kind::Network, record.id.clone());
    }
    NetworkRecord { name: String::new(), ..record.clone() }.into()
}

/// Networks that were removed, and whose last containers have ended.
pub fn settle_networks(view: &View) -> Vec<Change> {
    let removing = view.networks.values().filter(|it| it.is_removing());
    let ended = removing.filter(|it| networks::users(view, &it.id).next().is_none());
    ended.map(|it| Change::Remove(Kind::Network, it.id.clone())).collect()
}
