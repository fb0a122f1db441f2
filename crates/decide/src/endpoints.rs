//! The table of endpoints: which tasks stand behind each service, where they are reached, and whether they serve.
//!
//! Registration, rendered configuration and ingress only carry this table outwards. It changes in the same write that starts or
//! stops a task, so nothing polls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use herder_model::swarm::{NetworkRecord, ServiceRecord, SwarmNodeState, TaskRecord, TaskState, View};
use herder_model::{Container, Health as ContainerHealth, Node};

use crate::swarm::allocate::attached;
use crate::swarm::task::container::{is_checked, task_name};

/// Labels that begin so make a plain container a part of the table.
const ROUTING_LABELS: [&str; 4] = ["traefik.", "herder.http.", "herder.tcp.", "herder.udp."];
const CADDY_LABEL: &str = "caddy";
/// Labels of Compose: containers of one service of one project stand behind the same routes.
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// `True` for a container of `docker compose run`.
const COMPOSE_ONE_OFF: &str = "com.docker.compose.oneoff";

/// One service or plain container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEndpoints {
    pub id: String,
    pub name: String,
    /// True for a plain container, false for a service of the swarm.
    pub is_container: bool,
    /// Labels of the service, not of its containers. Empty for a service that is removed and whose tasks have not ended
    /// yet.
    pub labels: BTreeMap<String, String>,
    /// Overlay networks with the service's virtual IP there, by network id.
    pub networks: BTreeMap<String, NetworkPlace>,
    pub ports: Vec<Port>,
    pub tasks: Vec<TaskEndpoint>,
}

/// A service's place on an overlay network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkPlace {
    pub name: String,
    /// True for the network of the routing mesh: every node has an address there.
    pub is_ingress: bool,
    /// Virtual IP; `None` in the mode `dnsrr`.
    pub virtual_ip: Option<Ipv4Addr>,
}

/// A port of a service or of one task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// Port in the container.
    pub target: u16,
    /// Port on nodes; 0 for none.
    pub published: u16,
    pub mode: PortMode,
}

/// The place where a port is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortMode {
    /// Published on every node by the routing mesh, which leads to any task.
    Ingress,
    /// Published on the node of each task, and leads to that task.
    Host,
    /// Nowhere.
    Exposed,
}

/// One task or plain container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEndpoint {
    pub id: String,
    /// `web.1.<task id>`, or the container's name.
    pub name: String,
    /// Id of its node.
    pub node: String,
    pub hostname: String,
    /// Address of the node, once it has reported one.
    pub node_address: Option<IpAddr>,
    /// Empty until it is created.
    pub container: String,
    /// Network id → its address there. Only overlay networks: addresses on a node's own networks are known to that node alone.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// Ports of its node that lead to it alone.
    pub ports: Vec<Port>,
    pub health: Health,
    /// Its share of the requests; tasks share by ratio.
    pub weight: u32,
    pub state: State,
}

/// The health of a container by its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// The task has no health check.
    Unchecked,
    Starting,
    Healthy,
    Unhealthy,
}

/// The state of an endpoint: it takes requests, ends, or is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Serving,
    /// Takes no new requests, and ends those it has: it is about to be stopped.
    Draining,
    /// The task has not started yet, or its node is down.
    Down,
}

impl State {
    /// The word in tables and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Serving => "serving",
            State::Draining => "draining",
            State::Down => "down",
        }
    }
}

impl TaskEndpoint {
    /// The port of its node that leads to this task's port, if there is one.
    pub fn published(&self, protocol: &str, target: u16) -> Option<u16> {
        let leads = |it: &&Port| it.protocol == protocol && it.target == target && it.published != 0;
        self.ports.iter().find(leads).map(|it| it.published)
    }
}

/// The ids of all services that are declared or have tasks.
pub(crate) fn ids(view: &View) -> BTreeSet<String> {
    let declared = view.services.keys().map(ToString::to_string);
    let running = view.services_of_tasks().filter(|it| !it.is_empty()).map(ToOwned::to_owned);
    declared.chain(running).collect()
}

/// The plain containers on nodes of the swarm, with the ids of their nodes.
pub(crate) fn placed(view: &View, plain: &[ServiceEndpoints]) -> impl Iterator<Item = ServiceEndpoints> {
    let nodes = view.nodes.values().filter(|_| !plain.is_empty());
    let nodes: BTreeMap<&str, &str> = nodes.map(|it| (it.addr.as_str(), it.node.id.as_str())).collect();
    plain.iter().filter_map(move |container| {
        let mut container = container.clone();
        container.tasks.retain_mut(|it| {
            let id = nodes.get(it.node.as_str());
            it.node = id.map(|it| (*it).to_owned()).unwrap_or_default();
            id.is_some()
        });
        Some(container).filter(|it| !it.tasks.is_empty())
    })
}

/// Builds the rows of the running plain containers with routing labels. The pool knows their nodes by address: that of the
/// node link stands for the id of the node until [`placed`] has found it.
pub fn plain<'n>(pool: impl IntoIterator<Item = &'n Node>) -> Vec<ServiceEndpoints> {
    let of_node = |node: &'n Node| {
        let containers = node.containers.values().filter(|it| it.is_running() && is_routed(it));
        containers.map(|it| container(node, it)).collect::<Vec<_>>()
    };
    pool.into_iter().flat_map(of_node).collect()
}

/// Builds the rows of one service. None, if neither it nor a task of it is there.
pub fn service(view: &View, id: &str) -> Option<ServiceEndpoints> {
    let record = view.services.get(id);
    let tasks: Vec<&TaskRecord> = view.tasks_of_service(id).map(AsRef::as_ref).filter(|it| is_there(it)).collect();
    let name = match (record, tasks.first()) {
        (Some(record), _) => record.service.spec.name.clone(),
        (None, Some(task)) => task.service_name.clone(),
        (None, None) => return None,
    };
    let labels = record.and_then(|it| it.service.spec.labels.clone()).unwrap_or_default();
    Some(ServiceEndpoints {
        id: id.to_owned(),
        name,
        is_container: false,
        networks: record.map(|it| networks(view, it)).unwrap_or_default(),
        ports: record.map(|it| ports(it)).unwrap_or_default(),
        tasks: tasks.into_iter().map(|it| task(view, it)).collect(),
        labels,
    })
}

/// Its node has it, and it has not ended.
fn is_there(task: &TaskRecord) -> bool {
    !task.task.node_id.is_empty() && (TaskState::Assigned..=TaskState::Running).contains(&task.task.status.state)
}

fn networks(view: &View, record: &ServiceRecord) -> BTreeMap<String, NetworkPlace> {
    let place = |network: &NetworkRecord, virtual_ip| NetworkPlace {
        name: network.spec.name.clone(),
        is_ingress: network.spec.ingress,
        virtual_ip,
    };
    let mut places = BTreeMap::new();
    for network in attached(view, record).into_iter().filter_map(|it| it.network) {
        places.insert(network.id.clone(), place(network, None));
    }
    for vip in &record.service.endpoint.virtual_ips {
        if let Some(network) = view.networks.get(&*vip.network_id) {
            places.insert(network.id.clone(), place(network, vip.address()));
        }
    }
    places
}

fn ports(record: &ServiceRecord) -> Vec<Port> {
    let declared = record.service.spec.endpoint_spec.as_ref().map(|it| it.ports.as_slice()).unwrap_or_default();
    let given = &record.service.endpoint.ports;
    // Ports that the swarm chose itself are only in the endpoint.
    let ports = if given.is_empty() { declared } else { given };
    ports.iter().map(port).collect()
}

fn port(config: &herder_model::swarm::PortConfig) -> Port {
    Port {
        name: config.name.clone(),
        protocol: config.protocol_name().to_owned(),
        target: config.target_port,
        published: config.published_port,
        mode: if config.is_ingress() { PortMode::Ingress } else { PortMode::Host },
    }
}

fn task(view: &View, record: &TaskRecord) -> TaskEndpoint {
    let task = &record.task;
    let node = view.nodes.get(&*task.node_id);
    let node_is_down = node.is_none_or(|it| it.node.status.state == SwarmNodeState::Down);
    let runs = task.status.state == TaskState::Running && !node_is_down;
    let state = match runs {
        true if task.desired_state <= TaskState::Complete => State::Serving,
        true => State::Draining,
        false => State::Down,
    };
    let health = match (is_checked(record), task.status.state == TaskState::Running) {
        (false, true) => Health::Unchecked,
        (true, true) => Health::Healthy,
        (_, false) => Health::Starting,
    };
    let mut published: Vec<Port> = task.status.port_status.ports.iter().map(port).collect();
    published.sort();
    // One for each family of addresses.
    published.dedup();
    let container = task.status.container_status.as_ref().map(|it| it.container_id.clone());
    TaskEndpoint {
        id: task.id.clone(),
        name: task_name(record),
        node: task.node_id.clone(),
        hostname: node.map(|it| it.node.description.hostname.clone()).unwrap_or_default(),
        node_address: node.and_then(|it| it.node.status.addr.parse().ok()),
        container: container.unwrap_or_default(),
        addresses: record.networks.iter().filter_map(|it| Some((it.network_id.clone(), it.v4?))).collect(),
        ports: published,
        health,
        weight: 1,
        state,
    }
}

/// Returns whether a plain container has routing labels and is no task of a swarm.
fn is_routed(container: &Container) -> bool {
    let mut labels = container.labels.iter().map(|(key, _)| key);
    let is_task = container.labels.iter().any(|(key, _)| key.starts_with("com.docker.swarm.task"));
    let runs_once = container.labels.get(COMPOSE_ONE_OFF).is_some_and(|it| it.eq_ignore_ascii_case("true"));
    !is_task && !runs_once && labels.any(is_routing)
}

/// Returns whether a label declares routes or their options.
pub(crate) fn is_routing(label: &str) -> bool {
    let label = label.to_ascii_lowercase();
    ROUTING_LABELS.iter().any(|it| label.starts_with(it)) || label == CADDY_LABEL || label.starts_with("caddy.")
}

fn container(node: &Node, container: &Container) -> ServiceEndpoints {
    let published = container.published.iter().filter(|it| it.public != 0).map(|it| Port {
        name: String::new(),
        protocol: it.protocol.clone(),
        target: it.private,
        published: it.public,
        mode: PortMode::Host,
    });
    let published: BTreeSet<Port> = published.collect();
    let exposed = container.exposed_ports.iter().filter_map(|it| {
        let (target, protocol) = it.split_once('/').unwrap_or((it, "tcp"));
        let port = (target.parse().ok()?, protocol.to_owned());
        let is_published = published.iter().any(|it| (it.target, &it.protocol) == (port.0, &port.1));
        let (target, protocol) = port;
        (!is_published).then(|| Port { name: String::new(), protocol, target, published: 0, mode: PortMode::Exposed })
    });
    let health = match container.health {
        None => Health::Unchecked,
        Some(ContainerHealth::Starting) => Health::Starting,
        Some(ContainerHealth::Healthy) => Health::Healthy,
        Some(ContainerHealth::Unhealthy) => Health::Unhealthy,
    };
    let serves = node.is_healthy() && matches!(health, Health::Unchecked | Health::Healthy);
    let task = TaskEndpoint {
        id: container.id.clone(),
        name: container.name.clone(),
        node: node.addr.clone(),
        hostname: node.name.clone(),
        node_address: node.ip.parse().ok(),
        container: container.id.clone(),
        addresses: BTreeMap::new(),
        ports: published.iter().cloned().collect(),
        health,
        weight: 1,
        state: if serves { State::Serving } else { State::Down },
    };
    let of_compose = (container.labels.get(COMPOSE_SERVICE), container.labels.get(COMPOSE_PROJECT));
    let name = match of_compose {
        (Some(service), Some(project)) => format!("{service}-{project}"),
        _ => container.name.clone(),
    };
    ServiceEndpoints {
        id: container.id.clone(),
        name,
        is_container: true,
        labels: container.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        networks: BTreeMap::new(),
        ports: published.iter().cloned().chain(exposed).collect(),
        tasks: vec![task],
    }
}

#[cfg(test)]
mod tests;
