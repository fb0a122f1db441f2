//! Demand of a task for a node, and the filters that check a node against it.
//!
//! Tasks with equal demands fit on the same nodes, so nodes are looked through once for all of them. Pure.

use std::collections::BTreeSet;
use std::fmt;

use herder_model::swarm::{Availability, Engine, Feature, is_extended};
use herder_model::swarm::{
    GenericResource, NodeRecord, Placement, Platform, PortConfig, Reservations, SCTP, SwarmNodeState, TaskRecord,
    TaskSpec,
};

use super::Constraint;
use super::constraint::Label;
use crate::swarm::allocate::is_everywhere;

/// Reason why a node does not take a task, in the order of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// The node is not ready, or not active.
    Ready,
    /// Processors, memory, generic resources.
    Resources,
    /// Drivers of volumes and logs.
    Plugins,
    /// Programs and kernel parts that overlay networks need.
    Networks,
    /// An end of encrypted tunnels, for encrypted networks.
    Tunnels,
    /// A release of herder that knows all settings of the task.
    Release,
    Constraints,
    /// Architecture and operating system of the image.
    Platforms,
    HostPorts,
    MaxReplicas,
}

impl Filter {
    pub const ALL: [Filter; 10] = [
        Filter::Ready,
        Filter::Resources,
        Filter::Plugins,
        Filter::Networks,
        Filter::Tunnels,
        Filter::Release,
        Filter::Constraints,
        Filter::Platforms,
        Filter::HostPorts,
        Filter::MaxReplicas,
    ];

    /// Returns the sentence of swarm mode for this number of refused nodes.
    pub fn sentence(self, nodes: usize) -> Sentence {
        Sentence { filter: self, nodes }
    }
}

/// The scheduler's words for a task whose host ports are taken everywhere. An update reads them in the task's status.
pub(in crate::swarm) const PORT_TAKEN: &str = "host-mode port already in use";

/// See [`Filter::sentence`].
#[derive(Clone, Copy, Debug)]
pub struct Sentence {
    filter: Filter,
    nodes: usize,
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = match self.filter {
            Filter::Ready => return write!(f, "{} not available for new tasks", Nodes(self.nodes)),
            Filter::MaxReplicas => return f.write_str("max replicas per node limit exceed"),
            Filter::Resources => "insufficient resources",
            Filter::Plugins => "missing plugin",
            Filter::Networks => "missing network capability",
            Filter::Tunnels => "no tunnel for encrypted networks",
            Filter::Release => "too old a release of herder",
            Filter::Constraints => "scheduling constraints not satisfied",
            Filter::Platforms => "unsupported platform",
            Filter::HostPorts => PORT_TAKEN,
        };
        write!(f, "{on} on {}", Nodes(self.nodes))
    }
}

struct Nodes(usize);

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} node{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// Demand of a task in its written form: cheap to make and to compare.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Demand<'t> {
    reserved: Option<&'t Reservations>,
    placement: Option<&'t Placement>,
    /// Type of plugin and name.
    drivers: Vec<(&'static str, &'t str)>,
    /// True if the task is on a network that not every engine has by itself.
    on_networks: bool,
    /// True if one of the task's networks is encrypted.
    is_encrypted: bool,
    /// The feature level that the node's release must have.
    level: u32,
}

impl<'t> Demand<'t> {
    /// The demand of a specification, without what follows from its networks.
    fn of_spec(spec: &'t TaskSpec) -> Demand<'t> {
        let reserved = spec.resources.as_ref().and_then(|it| it.reservations.as_ref());
        Demand {
            reserved: reserved.filter(|it| **it != Reservations::default()),
            placement: spec.placement.as_ref().filter(|it| **it != Placement::default()),
            drivers: drivers(spec),
            on_networks: spec.networks.iter().any(|it| !is_everywhere(&it.target)),
            is_encrypted: false,
            level: if is_extended(spec) { Feature::Extension.level() } else { 0 },
        }
    }

    /// `encrypted`: ids of the encrypted networks. A task that publishes ports is on the ingress network, which its
    /// specification does not name.
    pub(super) fn of(record: &'t TaskRecord, encrypted: &BTreeSet<String>) -> Demand<'t> {
        let spec = &*record.task.spec;
        let named = spec.networks.iter().map(|it| &it.target);
        let places = record.networks.iter().filter(|it| it.v4.is_some()).map(|it| &it.network_id);
        let is_encrypted = named.chain(places).any(|it| encrypted.contains(it));
        Demand { is_encrypted, ..Demand::of_spec(spec) }
    }
}

/// Drivers that not every engine has.
fn drivers(spec: &TaskSpec) -> Vec<(&'static str, &str)> {
    let mounts = spec.container_spec.iter().flat_map(|it| &it.mounts);
    let options = mounts.filter(|mount| mount.kind == "volume").filter_map(|mount| mount.volume_options.as_ref());
    let volumes = options.filter_map(|it| it["DriverConfig"]["Name"].as_str()).map(|name| ("Volume", name));
    let log = spec.log_driver.iter().map(|driver| ("Log", driver.name.as_str()));
    let everywhere = |(kind, name): &(&str, &str)| match *kind {
        "Volume" => matches!(*name, "" | "local"),
        _ => matches!(*name, "" | "none"),
    };
    volumes.chain(log).filter(|driver| !everywhere(driver)).collect()
}

/// A demand that was read through, ready to be held against nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    pub reserved: Reservations,
    drivers: Vec<(&'static str, String)>,
    on_networks: bool,
    is_encrypted: bool,
    level: u32,
    pub constraints: Vec<Constraint>,
    /// True if a constraint is malformed, so no node meets it.
    hopeless: bool,
    pub platforms: Vec<Platform>,
    /// Outermost first.
    pub spread: Vec<Label>,
    /// 0: no limit.
    pub max_replicas: u64,
}

impl Conditions {
    pub(super) fn of(demand: &Demand<'_>) -> Conditions {
        let mut conditions = Conditions {
            reserved: demand.reserved.cloned().unwrap_or_default(),
            drivers: demand.drivers.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect(),
            on_networks: demand.on_networks,
            is_encrypted: demand.is_encrypted,
            level: demand.level,
            ..Conditions::default()
        };
        let Some(placement) = demand.placement else { return conditions };
        for text in &placement.constraints {
            match Constraint::parse(text) {
                Ok(constraint) => conditions.constraints.push(constraint),
                Err(_) => conditions.hopeless = true,
            }
        }
        conditions.platforms = placement.platforms.iter().map(normal).collect();
        let spreads = placement.preferences.iter().filter_map(|it| it.spread.as_ref());
        conditions.spread = spreads.filter_map(|it| Label::parse(&it.spread_descriptor)).collect();
        conditions.max_replicas = placement.max_replicas;
        conditions
    }

    /// Returns the first filter that refuses the node. Host ports and the number of replicas are left out: they differ
    /// among tasks with these conditions. `has_room` is asked in its turn. Conditions that ask nothing else do not look
    /// at the node.
    pub(super) fn refused(
        &self,
        node: &NodeRecord,
        available: bool,
        has_room: impl FnOnce() -> bool,
    ) -> Option<Filter> {
        if !available {
            Some(Filter::Ready)
        } else if !has_room() {
            Some(Filter::Resources)
        } else if self.missing_plugin(node).is_some() {
            Some(Filter::Plugins)
        } else if self.missing_for_networks(node).next().is_some() {
            Some(Filter::Networks)
        } else if self.lacks_tunnel(node) {
            Some(Filter::Tunnels)
        } else if self.is_too_old(node) {
            Some(Filter::Release)
        } else if !self.meets_constraints(node) {
            Some(Filter::Constraints)
        } else if !self.runs_on(node) {
            Some(Filter::Platforms)
        } else {
            None
        }
    }

    pub(super) fn meets_constraints(&self, node: &NodeRecord) -> bool {
        !self.hopeless && self.constraints.iter().all(|constraint| constraint.accepts(node))
    }

    /// An image without platforms is said to run everywhere.
    pub(super) fn runs_on(&self, node: &NodeRecord) -> bool {
        if self.platforms.is_empty() {
            return true;
        }
        let is = normal(&node.description().platform);
        let same = |asked: &str, is: &str| asked.is_empty() || asked == is;
        self.platforms.iter().any(|it| same(&it.os, &is.os) && same(&it.architecture, &is.architecture))
    }

    /// The driver that the node's engine does not have.
    pub(super) fn missing_plugin(&self, node: &NodeRecord) -> Option<&str> {
        let engine = &node.description().engine;
        self.drivers.iter().find(|(kind, name)| !has_plugin(engine, kind, name)).map(|(_, name)| name.as_str())
    }

    /// Programs that overlay networks need and the node does not have. Nodes of older releases tell of none.
    pub(super) fn missing_for_networks<'n>(&self, node: &'n NodeRecord) -> impl Iterator<Item = &'n str> + use<'n> {
        let lacks = if self.on_networks { &*node.description().underlay.lacks } else { &[] };
        lacks.iter().map(String::as_str).filter(|it| *it != SCTP)
    }

    /// True if a network of the task is encrypted and the node has told of no tunnel.
    pub(super) fn lacks_tunnel(&self, node: &NodeRecord) -> bool {
        self.is_encrypted && node.description().underlay.tunnel.is_none()
    }

    /// True if the node's release would run the task as if a part of its specification were not there.
    pub(super) fn is_too_old(&self, node: &NodeRecord) -> bool {
        node.level < self.level
    }

    pub(super) fn generics(&self) -> &[GenericResource] {
        &self.reserved.generic_resources
    }
}

/// Engines that tell nothing of their plugins of a kind are taken to have all of them.
fn has_plugin(engine: &Engine, kind: &str, name: &str) -> bool {
    let with_tag = |plugin: &str| plugin == name || plugin.strip_suffix(":latest") == Some(name);
    let mut of_kind = engine.plugins.iter().filter(|plugin| plugin.kind == kind).peekable();
    of_kind.peek().is_none() || of_kind.any(|plugin| with_tag(&plugin.name))
}

/// Engines and images have different names for the same.
pub(super) fn normal(platform: &Platform) -> Platform {
    let architecture = platform.architecture.to_ascii_lowercase();
    let architecture = match architecture.as_str() {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        _ => architecture,
    };
    Platform { architecture, os: platform.os.to_ascii_lowercase(), ..Platform::default() }
}

/// True if the node takes new tasks.
pub(super) fn is_available(node: &NodeRecord) -> bool {
    node.node.status.state == SwarmNodeState::Ready && node.node.spec.availability == Availability::Active
}

/// True if a node is one for these tasks: constraints and platform. Whether it is there and has room is another
/// question.
pub fn eligible(node: &NodeRecord, spec: &TaskSpec) -> bool {
    let conditions = Conditions::of(&Demand::of_spec(spec));
    conditions.meets_constraints(node) && conditions.runs_on(node)
}

/// A port of a node that a task has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct HostPort {
    pub port: u16,
    pub protocol: &'static str,
}

impl HostPort {
    fn of(port: &PortConfig) -> Option<HostPort> {
        let protocol = match port.protocol.as_str() {
            "" | "tcp" => "tcp",
            "udp" => "udp",
            "sctp" => "sctp",
            _ => return None,
        };
        let fixed = port.publish_mode == "host" && port.published_port != 0;
        fixed.then_some(HostPort { port: port.published_port, protocol })
    }
}

/// Those that are not chosen by the engine.
pub(super) fn host_ports(record: &TaskRecord) -> Vec<HostPort> {
    record.ports.iter().filter_map(HostPort::of).collect()
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{Plugin, SwarmNode};
    use serde_json::{Value, json};

    use super::*;

    /// A ready node with these members of its JSON.
    fn node(changes: Value) -> NodeRecord {
        let ready = changes.get("Status").is_none();
        let mut node: SwarmNode = serde_json::from_value(changes).expect("a node");
        if ready {
            node.status.state = SwarmNodeState::Ready;
        }
        NodeRecord { node, ..NodeRecord::default() }
    }

    #[track_caller]
    fn check(spec: Value, nodes: Value, expected: &str) {
        let spec: TaskSpec = serde_json::from_value(spec).expect("a task");
        let conditions = Conditions::of(&Demand::of_spec(&spec));
        let of =
            |json: &Value| match conditions.refused(&node(json.clone()), is_available(&node(json.clone())), || true) {
                Some(filter) => format!("{filter:?}"),
                None => "fits".to_owned(),
            };
        let found: Vec<String> = nodes.as_array().expect("nodes").iter().map(of).collect();
        assert_eq!(found.join(" "), expected, "{nodes}");
    }

    #[test]
    fn only_nodes_that_are_ready_and_active_take_tasks() {
        let states = ["ready", "down", "unknown", "disconnected"].map(|state| json!({"Status": {"State": state}}));
        check(json!({}), json!(states), "fits Ready Ready Ready");
        let wanted = ["active", "pause", "drain"].map(|it| json!({"Spec": {"Availability": it}}));
        check(json!({}), json!(wanted), "fits Ready Ready");
    }

    #[test]
    fn settings_beyond_the_swarm_api_need_a_node_that_knows_them() {
        let extended = json!({"ContainerSpec": {"Image": "i", "Herder": {"Hooks": {"PreStop": [{"Command": ["x"]}]}}}});
        for (spec, level, expected) in [
            (extended.clone(), Feature::Extension.level() - 1, Some(Filter::Release)),
            (extended, Feature::Extension.level(), None),
            (json!({"ContainerSpec": {"Image": "i"}}), 0, None),
        ] {
            let spec: TaskSpec = serde_json::from_value(spec).expect("a task");
            let node = NodeRecord { level, ..node(json!({})) };
            assert_eq!(Conditions::of(&Demand::of_spec(&spec)).refused(&node, true, || true), expected);
        }
    }

    #[test]
    fn platforms_have_two_names_each() {
        let spec = |platforms: Value| json!({"Placement": {"Platforms": platforms}});
        let node = |arch: &str, os: &str| json!({"Description": {"Platform": {"Architecture": arch, "OS": os}}});
        let nodes = json!([node("x86_64", "linux"), node("aarch64", "linux"), node("amd64", "windows")]);
        check(spec(json!([])), nodes.clone(), "fits fits fits");
        let amd64 = json!({"Architecture": "amd64", "OS": "linux"});
        check(spec(json!([amd64.clone()])), nodes.clone(), "fits Platforms Platforms");
        check(spec(json!([amd64, {"Architecture": "arm64"}])), nodes.clone(), "fits fits Platforms");
        check(spec(json!([{"OS": "Linux"}])), nodes.clone(), "fits fits Platforms");
        check(spec(json!([{"Architecture": "arm", "Variant": "v7"}])), nodes, "Platforms Platforms Platforms");
    }

    #[test]
    fn drivers_that_not_every_engine_has_are_asked_for() {
        let plugin = |kind: &str, name: &str| json!({"Type": kind, "Name": name});
        let node = |plugins: Value| json!({"Description": {"Engine": {"Plugins": plugins}}});
        let nodes = json!([
            node(json!([plugin("Volume", "local"), plugin("Log", "json-file")])),
            node(json!([plugin("Volume", "nfs"), plugin("Log", "syslog")])),
            node(json!([plugin("Volume", "nfs:latest")])),
            node(json!([])),
        ]);
        let volume = |driver: &str| {
            let options = json!({"DriverConfig": {"Name": driver}});
            json!({"ContainerSpec": {"Mounts": [{"Type": "volume", "VolumeOptions": options}]}})
        };
        check(volume("nfs"), nodes.clone(), "Plugins fits fits fits");
        check(volume("local"), nodes.clone(), "fits fits fits fits");
        check(json!({"LogDriver": {"Name": "syslog"}}), nodes.clone(), "Plugins fits fits fits");
        check(json!({"LogDriver": {"Name": "none"}}), nodes, "fits fits fits fits");
        assert!(has_plugin(&Engine::default(), "Log", "x"));
        let plugins = vec![Plugin { kind: "Log".into(), name: "y".into(), ..Plugin::default() }];
        assert!(!has_plugin(&Engine { plugins, ..Engine::default() }, "Log", "x"));
    }

    #[test]
    fn overlay_networks_need_programs_of_the_host() {
        let node = |lacks: Value| json!({"Description": {"Underlay": {"lacks": lacks}}});
        let nodes = json!([node(json!(["nft"])), node(json!(["sctp"])), {}]);
        let on = |network: &str| json!({"Networks": [{"Target": network}]});
        check(on("4kx"), nodes.clone(), "Networks fits fits");
        check(on("host"), nodes.clone(), "fits fits fits");
        check(json!({}), nodes, "fits fits fits");
    }

    #[test]
    fn encrypted_networks_need_a_node_with_a_tunnel() {
        let with_tunnel = node(json!({"Description": {"Underlay": {"tunnel": {"key": "k"}}}}));
        let spec: TaskSpec = serde_json::from_value(json!({"Networks": [{"Target": "named"}]})).expect("a task");
        let mut record = TaskRecord::default();
        record.task.spec = std::sync::Arc::new(spec);
        let place = json!({"network_id": "ingress", "v4": "10.0.0.5"});
        record.networks.push(serde_json::from_value(place).expect("a place"));
        for (encrypted, expected) in
            [("named", Some(Filter::Tunnels)), ("ingress", Some(Filter::Tunnels)), ("other", None)]
        {
            let conditions = Conditions::of(&Demand::of(&record, &[encrypted.to_owned()].into()));
            assert_eq!(conditions.refused(&node(json!({})), true, || true), expected, "{encrypted}");
            assert_eq!(conditions.refused(&with_tunnel, true, || true), None, "{encrypted}");
        }
    }

    #[test]
    fn filters_are_asked_in_their_order() {
        let spec = json!({"Placement": {"Constraints": ["node.id==x"], "Platforms": [{"OS": "plan9"}]}});
        check(spec.clone(), json!([{"ID": "x"}, {"ID": "y"}]), "Platforms Constraints");
        check(spec, json!([{"ID": "y", "Spec": {"Availability": "drain"}}]), "Ready");
        check(json!({"Placement": {"Constraints": ["nonsense"]}}), json!([{}]), "Constraints");
    }

    #[test]
    fn sentences_are_those_of_swarm_mode() {
        let text = |nodes: usize| Filter::ALL.map(|filter| filter.sentence(nodes).to_string()).join("; ");
        assert_eq!(
            text(1),
            "1 node not available for new tasks; insufficient resources on 1 node; missing plugin on 1 node; missing \
             network capability on 1 node; no tunnel for encrypted networks on 1 node; too old a release of herder on 1 node; scheduling constraints not satisfied on 1 node; unsupported platform on 1 node; host-mode port already in use on 1 \
             node; max replicas per node limit exceed"
        );
        assert_eq!(
            text(2),
            "2 nodes not available for new tasks; insufficient resources on 2 nodes; missing plugin on 2 nodes; \
             missing network capability on 2 nodes; no tunnel for encrypted networks on 2 nodes; too old a release of herder on 2 nodes; scheduling constraints not satisfied on 2 nodes; unsupported platform on 2 nodes; host-mode port already \
             in use on 2 nodes; max replicas per node limit exceed"
        );
    }

    #[test]
    fn only_ports_of_hosts_with_a_number_are_kept_for_one_task() {
        let ports = json!([
            {"PublishedPort": 80, "PublishMode": "host"},
            {"PublishedPort": 53, "PublishMode": "host", "Protocol": "udp"},
            {"PublishedPort": 81, "PublishMode": "ingress"},
            {"TargetPort": 82, "PublishMode": "host"},
        ]);
        let record = TaskRecord { ports: serde_json::from_value(ports).expect("ports"), ..TaskRecord::default() };
        let found: Vec<String> = host_ports(&record).iter().map(|it| format!("{}/{}", it.port, it.protocol)).collect();
        assert_eq!(found, ["80/tcp", "53/udp"]);
    }
}
