//! Tables as texts: one line for each row.

use std::sync::Arc;

use herder_model::swarm::{
    ContainerStatus, EndpointSpec, Object, PortConfig, PortStatus, Service, ServiceRecord, TaskRecord, View,
};
use herder_model::{Container, Health as ContainerHealth, Node, NodeState, PublishedPort};

use super::*;
use crate::swarm::testing;

/// `testing::object`, where a service may have `port=80:8080/tcp:host` and a node the address `addr=10.0.0.1`.
fn object(line: &str) -> Object {
    let own = |word: &&str| !word.starts_with("port=") && !word.starts_with("addr=");
    let words: Vec<&str> = line.split_whitespace().filter(own).collect();
    let mut object = testing::object(&words.join(" "));
    let word = |key: &str| {
        let words = line.split_whitespace().filter_map(|it| it.split_once('='));
        words.filter(|(it, _)| *it == key).map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    match &mut object {
        Object::Node(node) => {
            if let Some(addr) = word("addr").pop() {
                Arc::make_mut(node).node.status.addr = addr;
            }
        }
        Object::Service(record) => {
            let ports = word("port").iter().map(|it| port_config(it)).collect();
            let spec = EndpointSpec { ports, ..EndpointSpec::default() };
            Arc::make_mut(record).service.spec.endpoint_spec = Some(spec);
        }
        Object::Task(record) => {
            let record: &mut TaskRecord = Arc::make_mut(record);
            record.service_name = record.task.service_id.clone();
            record.task.status.port_status =
                PortStatus { ports: word("port").iter().map(|it| port_config(it)).collect(), ..PortStatus::default() };
            let container_id = format!("c-{}", record.task.id);
            record.task.status.container_status = Some(ContainerStatus { container_id, ..ContainerStatus::default() });
        }
        _ => {}
    }
    object
}

fn port_config(text: &str) -> PortConfig {
    let mut parts = text.split([':', '/']);
    let mut next = || parts.next().unwrap_or_default();
    PortConfig {
        target_port: next().parse().expect("a port"),
        published_port: next().parse().expect("a port"),
        protocol: next().to_owned(),
        publish_mode: next().to_owned(),
        ..PortConfig::default()
    }
}

fn view(text: &str) -> View {
    View::of(7, text.lines().map(object))
}

/// All services that are declared or have tasks, and these plain containers, in the order of their names.
fn endpoints(view: &View, plain: &[ServiceEndpoints]) -> Vec<ServiceEndpoints> {
    let mut services: Vec<ServiceEndpoints> = ids(view).iter().filter_map(|id| service(view, id)).collect();
    services.extend(placed(view, plain));
    services.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    services
}

/// A line for each task behind each port.
fn text(services: &[ServiceEndpoints]) -> String {
    let line = |service: &ServiceEndpoints, port: &Port, task: &TaskEndpoint| {
        let address = task.node_address.map(|it| it.to_string()).unwrap_or_default();
        let host = task.published(&port.protocol, port.target);
        let host = host.map(|port| format!(" {address}:{port}")).unwrap_or_default();
        let (name, target, protocol, state) = (&service.name, port.target, &port.protocol, task.state.as_str());
        format!("{name} {target}/{protocol} {}@{}{host} {state} {:?}", task.id, task.node, task.health)
    };
    let mut lines = Vec::new();
    for service in services {
        for port in &service.ports {
            lines.extend(service.tasks.iter().map(|task| line(service, port, task)));
        }
    }
    lines.join("\n")
}

#[test]
fn every_task_behind_every_port_is_a_row() {
    let view = view(
        "node a addr=10.0.0.1\nnode b addr=10.0.0.2 down\nservice web port=80:8080/tcp:host port=53:53/udp:ingress\n\
         task web.1 on=a running port=80:8080/tcp:host\ntask web.2 on=b running port=80:8080/tcp:host\n\
         task web.3 on=a running want=shutdown\ntask web.4 on=a starting\ntask web.5 on=a complete\ntask web.6 pending",
    );
    assert_eq!(
        text(&endpoints(&view, &[])),
        "web 80/tcp web.1@a 10.0.0.1:8080 serving Unchecked\nweb 80/tcp web.2@b 10.0.0.2:8080 down Unchecked\n\
         web 80/tcp web.3@a draining Unchecked\nweb 80/tcp web.4@a down Starting\nweb 53/udp web.1@a serving Unchecked\n\
         web 53/udp web.2@b down Unchecked\nweb 53/udp web.3@a draining Unchecked\nweb 53/udp web.4@a down Starting"
    );
}

#[test]
fn tasks_of_a_removed_service_are_there_until_they_end() {
    let table = endpoints(&view("node a\ntask web.1 on=a running want=remove"), &[]);
    let states: Vec<_> = table.iter().map(|it| (it.name.as_str(), it.tasks[0].state)).collect();
    assert_eq!(states, [("web", State::Draining)]);
    assert_eq!(endpoints(&view("node a\ntask web.1 on=a failed"), &[]), []);
}

#[test]
fn plain_containers_are_there_if_they_have_routing_labels() {
    let container = |id: &str, labels: &str, health: Option<ContainerHealth>| {
        let port = PublishedPort { private: 80, public: 32768, protocol: "tcp".into(), ip: "0.0.0.0".into() };
        Arc::new(Container {
            id: id.to_owned(),
            name: format!("c{id}"),
            state: "running".into(),
            labels: labels
                .split(' ')
                .map(|it| it.split_once('=').unwrap_or((it, "x")))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            published: vec![PublishedPort { ip: "::".into(), ..port.clone() }, port],
            exposed_ports: vec!["80/tcp".into(), "9/udp".into()],
            health,
            ..Container::default()
        })
    };
    let mut node =
        Node { addr: "10.0.0.9:7946".into(), ip: "10.0.0.9".into(), state: NodeState::Healthy, ..Node::default() };
    node.put_container(container("1", "traefik.enable", None));
    node.put_container(container("2", "Herder.http.host", Some(ContainerHealth::Starting)));
    node.put_container(container("3", "other", None));
    let of_compose = "herder.http.host com.docker.compose.project=shop com.docker.compose.service=web";
    node.put_container(container("4", of_compose, None));
    node.put_container(container("5", &format!("{of_compose} com.docker.compose.oneoff=True"), None));
    let mut of_swarm = testing::object("node n1");
    if let Object::Node(record) = &mut of_swarm {
        Arc::make_mut(record).addr = "10.0.0.9:7946".to_owned();
    }
    assert_eq!(endpoints(&View::default(), &plain([&node])), [], "its node is not in the swarm");
    let table = endpoints(&View::of(1, [of_swarm]), &plain([&node]));
    assert_eq!(
        text(&table),
        "c1 80/tcp 1@n1 10.0.0.9:32768 serving Unchecked\nc1 9/udp 1@n1 serving Unchecked\n\
         c2 80/tcp 2@n1 10.0.0.9:32768 down Starting\nc2 9/udp 2@n1 down Starting\n\
         web-shop 80/tcp 4@n1 10.0.0.9:32768 serving Unchecked\nweb-shop 9/udp 4@n1 serving Unchecked"
    );
}

#[test]
fn a_service_without_tasks_and_ports_is_there_by_name() {
    let service = Service { id: "s".into(), ..Service::default() };
    let record = Object::Service(Arc::new(ServiceRecord { service, ..ServiceRecord::default() }));
    let table = endpoints(&View::of(1, [record]), &[]);
    assert_eq!((table.len(), text(&table)), (1, String::new()));
}
