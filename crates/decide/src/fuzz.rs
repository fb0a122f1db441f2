//! Any bytes as an expression, a create request or filters, for fuzzing and property tests. Panics where something is wrong.

use std::sync::{Arc, OnceLock};

use herder_model::swarm::IngressSettings;
use herder_model::{Container, Image, Network, Node, NodeState, Resources, Volume};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::endpoints::ServiceEndpoints;
use crate::ingress::{Rule, Scope, table_of};
use crate::list::{self, ContainerQuery, Filters};
use crate::place::expr::Expression;
use crate::place::request::{self, CreateRequest};
use crate::place::schedule::{Scheduler, Strategy};
use crate::{events, ground, names, render};

/// Reads the bytes as an expression, and holds it against some nodes.
pub fn fuzz_expression(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(expression) = text.parse::<Expression>() else { return };
    let again: Expression = expression.to_string().parse().expect("what an expression shows is an expression");
    assert_eq!(again, expression);
    let candidates = ["", "a", "zone-1", &expression.value];
    let holds = |expression: &Expression| expression.matcher().holds(candidates.into_iter());
    let turned = Expression { equals: !expression.equals, ..expression.clone() };
    assert_ne!(holds(&expression), holds(&turned), "either it holds or its opposite: {text}");
}

/// Reads the bytes as a rule of an ingress route, and as the labels of a service.
pub fn fuzz_rule(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for (scope, old) in [(Scope::Http, false), (Scope::Http, true), (Scope::Tcp, false)] {
        match Rule::parse(&text, scope, old) {
            Ok(rule) => assert!(rule.hosts().iter().all(|it| it.is_ascii() && !it.is_empty()), "{text}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let labels = text.lines().filter_map(|it| it.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let service = ServiceEndpoints { name: "web".to_owned(), labels, ..ServiceEndpoints::default() };
    let (state, _) = table_of(&IngressSettings::default(), &[service], &|_| None, &|_| String::new());
    assert!(state.routes.values().all(|it| state.services.contains_key(&it.service)), "{text}");
}

/// Reads the bytes as the body of a create (and as arguments of a build), and places it.
pub fn fuzz_create(bytes: &[u8]) {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return };
    if let Ok((request, rest)) = request::parse_build(&body, 5) {
        assert!(rest.as_object().is_some_and(|rest| rest.len() <= body.as_object().map_or(0, serde_json::Map::len)));
        place(&request);
    }
    let Ok(request) = request::parse(Some("/new"), body, "feed") else { return };
    place(&request);
    let again = request::parse(Some("new"), request.body.clone(), "other").expect("what was read is read again");
    let wishes = |it: &CreateRequest| {
        let container = it.container.clone();
        let conditions = (it.affinities.clone(), it.whitelists.clone(), it.reschedule, it.dependencies.clone());
        (conditions, container.reserved, container.host_ports, container.swarm_id)
    };
    assert_eq!(wishes(&again), wishes(&request), "a container that is made again asks for what it asked for");
}

fn place(request: &CreateRequest) {
    let nodes = nodes();
    for strategy in [Strategy::Spread, Strategy::Binpack, Strategy::Random] {
        let scheduler = Scheduler { strategy, ..Scheduler::default() };
        match scheduler.rank(request, nodes, &mut StdRng::seed_from_u64(1)) {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(ranked) => {
                let node = ranked.first().expect("never empty");
                assert_eq!(node.state, NodeState::Healthy);
                let wants = &request.container.reserved;
                let room = |wants: i64, used: i64, total: i64| wants <= 0 || wants <= total - used;
                assert!(room(wants.memory_bytes, node.used.memory_bytes, node.total.memory_bytes), "{wants:?}");
                assert!(room(wants.nano_cpus, node.used.nano_cpus, node.total.nano_cpus), "{wants:?}");
            }
        }
    }
    for node in nodes {
        let mut body = request::for_engine(request, node.ncpu);
        let _ = ground::prepare(nodes, node, &mut body);
    }
}

/// Reads the bytes as filters, and lists everything with them; and as a name, and looks for it.
pub fn fuzz_filters(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let nodes = nodes();
    let _ = (names::container(nodes, &text).is_ok(), names::network(nodes, &text).is_ok());
    let _ = (names::image(nodes, &text), names::volume(nodes, &text), names::familiar(&text));
    let _ = (list::glob(&text), events::time(&text, 1), crate::versions::accept(&text));
    let Ok(filters) = Filters::parse(&text) else { return };
    assert_eq!(Filters::parse(&filters.to_json()).as_ref(), Ok(&filters), "filters go on to engines as they came");
    for all in [false, true] {
        let query = ContainerQuery { all, filters: filters.clone(), ..ContainerQuery::default() };
        if let Ok(listed) = list::containers(nodes, &query, 100) {
            let listed: Vec<Value> = serde_json::from_slice(&listed).expect("a JSON array");
            assert!(listed.len() <= nodes.iter().map(|node| node.containers.len()).sum());
        }
        let _ = list::images(nodes, all, &filters, 100);
    }
    let _ = (
        list::networks(nodes, &filters, crate::naming::Naming::Docker),
        list::volumes(nodes, &filters, crate::naming::Naming::Docker),
    );
    let event = json!({"Type": "container", "Action": "start", "Actor": {"ID": "a", "Attributes": {"name": "db"}}});
    let _ = (events::check(&filters), events::matches(&filters, &events::decorate(event, &nodes[0])));
}

/// Three nodes: one with something of each kind on it, an empty one, one that does not answer.
fn nodes() -> &'static [Arc<Node>] {
    static NODES: OnceLock<Vec<Arc<Node>>> = OnceLock::new();
    NODES.get_or_init(|| {
        let states = [NodeState::Healthy, NodeState::Healthy, NodeState::Unhealthy];
        let node = |(number, state): (usize, NodeState)| Node {
            id: format!("ID{number}|n{number}:1"),
            name: format!("n{number}"),
            addr: format!("n{number}:1"),
            state,
            health_indicator: if state == NodeState::Healthy { 100 } else { 0 },
            ncpu: 2,
            total: Resources { nano_cpus: 2_000_000_000, memory_bytes: 1000 },
            labels: [("zone".to_owned(), format!("z{number}"))].into(),
            ..Node::default()
        };
        let mut nodes: Vec<Node> = states.into_iter().enumerate().map(node).collect();
        fill(&mut nodes[0]);
        nodes.into_iter().map(Arc::new).collect()
    })
}

fn fill(node: &mut Node) {
    let labels = [("tier".to_owned(), "db".to_owned())];
    for (name, state) in [("db", "running"), ("web", "exited")] {
        let mut container = Container {
            id: format!("{name}0123456789abcdef"),
            name: name.into(),
            swarm_id: format!("feed{name}"),
            image: "redis:7".into(),
            state: state.into(),
            labels: labels.clone().into(),
            reserved: Resources { nano_cpus: 500_000_000, memory_bytes: 300 },
            ..Container::default()
        };
        let summary = json!({"Id": container.id, "Names": [format!("/{name}")], "Image": "redis:7"});
        container.entry = render::entry(&summary.to_string(), &container, Default::default());
        node.put_container(Arc::new(container));
    }
    node.images.push(Arc::new(Image {
        id: "sha256:0123456789abcdef".into(),
        repo_tags: vec!["redis:7".into()],
        labels: labels.clone().into(),
        ..Image::default()
    }));
    node.networks.push(Arc::new(Network { id: "net1".into(), name: "back".into(), ..Network::default() }));
    node.volumes.push(Arc::new(Volume { name: "data".into(), driver: "local".into(), ..Volume::default() }));
}
