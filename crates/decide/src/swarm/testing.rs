//! Swarms as texts, for tests.

use std::sync::Arc;

use herder_model::swarm::{
    Availability, Change, DiscreteResource, Driver, GenericResource, NamedResource, NetworkAttachmentConfig,
    NetworkRecord, NetworkSpec, NodeRecord, Object, Placement, Platform, PortConfig, Preference, Reservations,
    ResourceRequirements, Role, Service, ServiceRecord, Spread, SwarmNode, SwarmNodeState, Task, TaskRecord, TaskSpec,
    TaskState, Time, TunnelEnd, Version, View,
};

/// One object a line:
///
/// - `node a zone=east cpus=4 mem=1024 res=GPU=x,SSD:4 down|unknown|pause|drain manager os=linux arch=x86_64 lacks=nft tunnel`; other
///   words with `=` are labels.
/// - `service web …` and `task web.1 …` with the words of [`spec`]; a task further has a state (`pending` if none is named),
///   `on=NODE`, `want=STATE`, `v=VERSION`, `at=SECONDS`, `holds=GPU=x`, `ports=80,53/udp`, `err=TEXT_WITH_UNDERSCORES`.
///   `.1` is a task without a service.
/// - `network 4kx encrypted`.
pub(crate) fn view(text: &str) -> View {
    View::of(1, text.lines().map(object))
}

pub(crate) fn object(line: &str) -> Object {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [kind, id, words @ ..] = &*words else { panic!("{line:?} is no object") };
    match *kind {
        "node" => Object::Node(Arc::new(node(id, words))),
        "service" => {
            let mut service = Service { id: (*id).to_owned(), ..Service::default() };
            service.spec.name = (*id).to_owned();
            service.spec.task_template = spec(words);
            Object::Service(Arc::new(ServiceRecord { service, ..ServiceRecord::default() }))
        }
        "task" => Object::Task(Arc::new(task(id, words))),
        "network" => {
            let options = words.iter().map(|word| ((*word).to_owned(), String::new()));
            let driver = Driver { options: options.collect(), ..Driver::default() };
            let spec = NetworkSpec { driver_configuration: Some(driver), ..NetworkSpec::default() };
            Object::Network(Arc::new(NetworkRecord { id: (*id).to_owned(), spec, ..NetworkRecord::default() }))
        }
        _ => panic!("{line:?} is no object"),
    }
}

fn pairs<'t>(words: &[&'t str]) -> impl Iterator<Item = (&'t str, &'t str)> {
    words.iter().map(|word| word.split_once('=').unwrap_or((word, ""))).collect::<Vec<_>>().into_iter()
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn node(id: &str, words: &[&str]) -> NodeRecord {
    let mut node = SwarmNode { id: id.to_owned(), ..SwarmNode::default() };
    let mut role = Role::Worker;
    node.status.state = SwarmNodeState::Ready;
    node.description.hostname = format!("host-{id}");
    let resources = &mut node.description.resources;
    let labels = node.spec.labels.get_or_insert_default();
    for (key, value) in pairs(words) {
        match key {
            "cpus" => resources.nano_cpus = number::<i64>(value) * 1_000_000_000,
            "mem" => resources.memory_bytes = number::<i64>(value) << 20,
            "res" => resources.generic_resources = generic(value),
            "down" => node.status.state = SwarmNodeState::Down,
            "unknown" => node.status.state = SwarmNodeState::Unknown,
            "pause" => node.spec.availability = Availability::Pause,
            "drain" => node.spec.availability = Availability::Drain,
            "manager" => role = Role::Manager,
            "os" => value.clone_into(&mut node.description.platform.os),
            "arch" => value.clone_into(&mut node.description.platform.architecture),
            "tunnel" => node.description.underlay.tunnel = Some(TunnelEnd::default()),
            "lacks" => node.description.underlay.lacks = vec![value.to_owned()],
            _ => drop(labels.insert(key.to_owned(), value.to_owned())),
        }
    }
    NodeRecord { node, role, ..NodeRecord::default() }
}

/// `cpus=1 mem=64 res=GPU:1 if=node.role==manager spread=node.labels.zone max=2 arch=amd64 net=NETWORK`
fn spec(words: &[&str]) -> TaskSpec {
    let mut reserved = Reservations::default();
    let mut placement = Placement::default();
    let mut networks = Vec::new();
    for (key, value) in pairs(words) {
        match key {
            "cpus" => reserved.nano_cpus = number::<i64>(value) * 1_000_000_000,
            "mem" => reserved.memory_bytes = number::<i64>(value) << 20,
            "res" => reserved.generic_resources = generic(value),
            "if" => placement.constraints.push(value.to_owned()),
            "spread" => {
                let spread = Some(Spread { spread_descriptor: value.to_owned(), ..Spread::default() });
                placement.preferences.push(Preference { spread, ..Preference::default() });
            }
            "net" => networks.push(NetworkAttachmentConfig { target: value.to_owned(), ..Default::default() }),
            "max" => placement.max_replicas = number(value),
            "arch" => placement.platforms.push(Platform {
                architecture: value.to_owned(),
                os: "linux".into(),
                ..Platform::default()
            }),
            _ => {}
        }
    }
    let resources = ResourceRequirements { reservations: Some(reserved), ..ResourceRequirements::default() };
    TaskSpec { resources: Some(resources), placement: Some(placement), networks, ..TaskSpec::default() }
}

fn task(id: &str, words: &[&str]) -> TaskRecord {
    let (service, slot) = id.split_once('.').unwrap_or((id, "0"));
    let mut task = Task {
        id: id.to_owned(),
        service_id: service.to_owned(),
        slot: slot.parse().unwrap_or_default(),
        spec: Arc::new(spec(words)),
        desired_state: TaskState::Running,
        ..Task::default()
    };
    task.status.state = TaskState::Pending;
    let mut record = TaskRecord { spec_version: Version { index: 1 }, ..TaskRecord::default() };
    for (key, value) in pairs(words) {
        match key {
            "on" => value.clone_into(&mut task.node_id),
            "want" => task.desired_state = state(value),
            "v" => record.spec_version.index = number(value),
            "succeeded" => record.succeeded = true,
            "at" => record.applied_at = Time(number::<u64>(value) * 1_000_000_000),
            "holds" => task.generic_resources = generic(value),
            "ports" => record.ports = value.split(',').map(port).collect(),
            "err" => task.status.err = value.replace('_', " "),
            "cpus" | "mem" | "res" | "if" | "spread" | "max" | "arch" | "net" => {}
            _ => task.status.state = state(key),
        }
    }
    TaskRecord { task, ..record }
}

fn state(text: &str) -> TaskState {
    let known = TaskState::KNOWN.iter().copied().find(|it| it.as_str() == text);
    known.unwrap_or_else(|| panic!("{text:?} is no state"))
}

fn port(text: &str) -> PortConfig {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    PortConfig {
        published_port: number(port),
        protocol: protocol.to_owned(),
        publish_mode: "host".into(),
        ..PortConfig::default()
    }
}

/// Parses resources: `GPU=x` is a named thing, `SSD:4` a number of them; with commas between.
pub(crate) fn generic(text: &str) -> Vec<GenericResource> {
    let named = |kind: &str, value: &str| GenericResource {
        named_resource_spec: Some(NamedResource {
            kind: kind.to_owned(),
            value: value.to_owned(),
            ..NamedResource::default()
        }),
        discrete_resource_spec: None,
        ..GenericResource::default()
    };
    let some = |kind: &str, value: &str| GenericResource {
        named_resource_spec: None,
        discrete_resource_spec: Some(DiscreteResource {
            kind: kind.to_owned(),
            value: number(value),
            ..DiscreteResource::default()
        }),
        ..GenericResource::default()
    };
    let one = |part: &str| match (part.split_once('='), part.split_once(':')) {
        (Some((kind, value)), _) => named(kind, value),
        (_, Some((kind, value))) => some(kind, value),
        _ => panic!("{part:?} is no generic resource"),
    };
    text.split(',').filter(|part| !part.is_empty()).map(one).collect()
}

/// Tasks that were written: `web.1→a`, or `web.1 pending: why`.
pub(crate) fn changes(changes: &[Change]) -> String {
    let one = |change: &Change| {
        let Change::Put(Object::Task(record)) = change else { panic!("{change:?} is no task") };
        let (task, status) = (&record.task, &record.task.status);
        let state = serde_json::to_value(status.state).expect("a state");
        if status.err.is_empty() && status.state == TaskState::Assigned {
            format!("{}→{}", task.id, task.node_id)
        } else {
            format!("{} {}: {}", task.id, state.as_str().unwrap_or_default(), status.err)
        }
    };
    changes.iter().map(one).collect::<Vec<_>>().join("; ")
}
