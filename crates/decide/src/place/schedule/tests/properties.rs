//! Properties of every placement, checked independently of the filters: here conditions are sets of words and ports are
//! numbers.

use std::collections::BTreeSet;

use herder_model::{Container, HostPort, Image, NodeState};
use proptest::prelude::{Just, ProptestConfig, Strategy as Gen, any, prop, prop_assert, prop_assert_eq, proptest};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::super::*;
use crate::place::request;

/// A value as it is written, and the words among `w0 w1 w2` that it stands for.
const VALUES: [(&str, &[&str]); 6] = [
    ("w0", &["w0"]),
    ("w1", &["w1"]),
    ("w*", &["w0", "w1", "w2"]),
    ("/[01]$/", &["w0", "w1"]),
    ("w[12]", &["w1", "w2"]),
    ("other", &[]),
];

/// Subject of a condition.
#[derive(Clone, Copy, Debug)]
enum Subject {
    /// The label `zone` of the node.
    Zone,
    /// The label `tier` of the containers there.
    Tier,
    /// The images there.
    Image,
}

#[derive(Clone, Debug)]
struct Condition {
    subject: Subject,
    equals: bool,
    soft: bool,
    /// Index in [`VALUES`].
    value: usize,
}

impl Condition {
    fn text(&self) -> String {
        let key = match self.subject {
            Subject::Zone => "constraint:zone",
            Subject::Tier => "affinity:tier",
            Subject::Image => "affinity:image",
        };
        let (operator, soft) = (if self.equals { "==" } else { "!=" }, if self.soft { "~" } else { "" });
        format!("{key}{operator}{soft}{}", VALUES[self.value].0)
    }

    fn holds(&self, node: &Node) -> bool {
        let words: Vec<&str> = match self.subject {
            Subject::Zone => node.labels.get("zone").map(String::as_str).into_iter().collect(),
            Subject::Tier => node.containers.values().filter_map(|it| it.labels.get("tier")).collect(),
            Subject::Image => node.images.iter().map(|it| it.repo_tags[0].split(':').next().unwrap()).collect(),
        };
        words.iter().any(|word| VALUES[self.value].1.contains(word)) == self.equals
    }
}

/// A port: number, whether UDP, whether on one address only.
type Port = (u16, bool, bool);

#[derive(Clone, Debug)]
struct Wish {
    conditions: Vec<Condition>,
    ports: Vec<Port>,
    /// Port on the host's network that the container exposes.
    host_network: Option<u16>,
    memory_bytes: i64,
    nano_cpus: i64,
    /// Names of nodes.
    whitelist: Option<Vec<usize>>,
    /// A container that must be on the same node.
    dependency: Option<(usize, usize)>,
}

impl Wish {
    fn body(&self) -> Value {
        let mut env: Vec<String> = self.conditions.iter().map(Condition::text).collect();
        let named = |list: &Vec<usize>| list.iter().map(|number| format!("n{number}")).collect::<Vec<_>>().join("|");
        env.extend(self.whitelist.as_ref().map(|list| format!("whitelist:node=={}", named(list))));
        let mut bindings = json!({});
        for (port, udp, one_address) in &self.ports {
            let inside = format!("{port}/{}", if *udp { "udp" } else { "tcp" });
            let ip = if *one_address { "10.0.0.1" } else { "" };
            bindings[inside] = json!([{"HostIp": ip, "HostPort": port.to_string()}]);
        }
        let mut body = json!({"Env": env, "HostConfig": {
            "PortBindings": bindings, "Memory": self.memory_bytes, "NanoCpus": self.nano_cpus,
        }});
        if let Some(port) = self.host_network {
            body["HostConfig"]["NetworkMode"] = "host".into();
            body["ExposedPorts"] = json!({ format!("{port}/tcp"): {} });
        }
        if let Some((node, number)) = self.dependency {
            body["HostConfig"]["VolumesFrom"] = json!([format!("c{node}x{number}:ro")]);
        }
        body
    }

    fn must(&self, node: &Node) -> bool {
        let used = |amount: fn(&Container) -> i64| node.containers.values().map(|it| amount(it)).sum::<i64>();
        let room = |wants: i64, used: i64, total: i64| wants == 0 || used + wants <= total;
        let clash = |(port, udp, one): &Port, taken: &HostPort| {
            taken.first == *port
                && (taken.protocol == "udp") == *udp
                && (!one || taken.ip.is_empty() || taken.ip == "10.0.0.1")
        };
        let running = || node.containers.values().filter(|it| it.is_running());
        let taken = running().flat_map(|it| &it.host_ports);
        let taken: Vec<&HostPort> = taken.collect();
        let exposed = running().filter(|it| it.network_mode == "host");
        let exposed: BTreeSet<&String> = exposed.flat_map(|it| &it.exposed_ports).collect();
        node.state == NodeState::Healthy
            && self.conditions.iter().filter(|it| !it.soft).all(|it| it.holds(node))
            && self.ports.iter().all(|port| taken.iter().all(|taken| !clash(port, taken)))
            && self.host_network.is_none_or(|port| !exposed.contains(&format!("{port}/tcp")))
            && room(self.memory_bytes, used(|it| it.reserved.memory_bytes), node.total.memory_bytes)
            && room(self.nano_cpus, used(|it| it.reserved.nano_cpus), node.total.nano_cpus)
            && node.labels.get("containerslots").is_none_or(|it| node.containers.len() < it.parse().unwrap())
            && self.whitelist.as_ref().is_none_or(|list| list.iter().any(|it| format!("n{it}") == node.name))
            && self
                .dependency
                .is_none_or(|(at, number)| node.containers.values().any(|it| it.name == format!("c{at}x{number}")))
    }

    fn should(&self, node: &Node) -> bool {
        self.must(node) && self.conditions.iter().all(|it| it.holds(node))
    }
}

fn port() -> impl Gen<Value = Port> {
    (80..83_u16, any::<bool>(), any::<bool>())
}

fn container() -> impl Gen<Value = Container> {
    let reserved = (0..500_i64, 0..8_i64);
    let state = prop::sample::select(vec!["running", "running", "paused", "exited"]);
    (prop::option::of(port()), prop::option::of(0..3_u8), reserved, prop::option::of(80..83_u16), state).prop_map(
        |(port, tier, (memory_bytes, quarters), exposed, state)| Container {
            state: state.into(),
            labels: tier.map(|tier| ("tier".to_owned(), format!("w{tier}"))).into_iter().collect(),
            host_ports: port
                .map(|(port, udp, one)| HostPort {
                    protocol: if udp { "udp" } else { "tcp" }.into(),
                    ip: if one { "10.0.0.1" } else { "" }.into(),
                    first: port,
                    last: port,
                })
                .into_iter()
                .collect(),
            reserved: Resources { nano_cpus: quarters * 250_000_000, memory_bytes },
            network_mode: if exposed.is_some() { "host" } else { "bridge" }.into(),
            exposed_ports: exposed.map(|port| format!("{port}/tcp")).into_iter().collect(),
            ..Container::default()
        },
    )
}

fn node() -> impl Gen<Value = Node> {
    let labels = (prop::option::of(0..3_u8), prop::option::of(1..4_u8));
    let on_it = (prop::collection::vec(container(), 0..4), prop::collection::vec(0..3_u8, 0..2));
    (labels, on_it, prop::bool::weighted(0.9), 90..=100_i64).prop_map(
        |((zone, slots), (containers, images), up, health)| {
            let mut node = Node {
                state: if up { NodeState::Healthy } else { NodeState::Unhealthy },
                health_indicator: if up { health } else { 0 },
                total: Resources { nano_cpus: 2_000_000_000, memory_bytes: 1000 },
                ..Node::default()
            };
            node.labels.extend(zone.map(|zone| ("zone".to_owned(), format!("w{zone}"))));
            node.labels.extend(slots.map(|slots| ("containerslots".to_owned(), slots.to_string())));
            let image = |number| Arc::new(Image { repo_tags: vec![format!("w{number}:latest")], ..Image::default() });
            node.images = images.into_iter().map(image).collect();
            for (number, container) in containers.into_iter().enumerate() {
                node.put_container(Arc::new(Container { id: number.to_string(), ..container }));
            }
            node
        },
    )
}

fn nodes() -> impl Gen<Value = Vec<Arc<Node>>> {
    let named = |(at, mut node): (usize, Node)| {
        node.name = format!("n{at}");
        node.addr = format!("n{at}:1");
        let containers: Vec<Arc<Container>> = node.containers.values().cloned().collect();
        for container in containers {
            node.remove_container(&container.id);
            let (id, name) = (format!("i{at}x{}", container.id), format!("c{at}x{}", container.id));
            node.put_container(Arc::new(Container { id, name, ..Container::clone(&container) }));
        }
        Arc::new(node)
    };
    prop::collection::vec(node(), 0..6).prop_map(move |nodes| nodes.into_iter().enumerate().map(named).collect())
}

fn wish() -> impl Gen<Value = Wish> {
    let subject = prop::sample::select(vec![Subject::Zone, Subject::Tier, Subject::Image]);
    let condition = (subject, any::<bool>(), any::<bool>(), 0..VALUES.len())
        .prop_map(|(subject, equals, soft, value)| Condition { subject, equals, soft, value });
    let conditions = prop::collection::vec(condition, 0..3);
    let sometimes = |chance: f64| prop::bool::weighted(chance);
    (
        conditions,
        prop::collection::vec(port(), 0..2),
        (sometimes(0.2), 80..83_u16),
        (0..300_i64, 0..4_i64),
        (sometimes(0.2), prop::collection::vec(0..6_usize, 1..4)),
        (sometimes(0.1), (0..6_usize, 0..3_usize)),
    )
        .prop_map(|(conditions, ports, host, (memory_bytes, quarters), whitelist, dependency)| Wish {
            conditions,
            ports: if host.0 { vec![] } else { ports },
            host_network: host.0.then_some(host.1),
            memory_bytes,
            nano_cpus: quarters * 250_000_000,
            whitelist: whitelist.0.then_some(whitelist.1),
            dependency: dependency.0.then_some(dependency.1),
        })
}

fn rank(strategy: Strategy, wish: &Wish, nodes: &[Arc<Node>]) -> Result<Vec<String>, Unplaceable> {
    let request = request::parse(Some("new"), wish.body(), "feed").unwrap();
    let scheduler = Scheduler { strategy, ..Scheduler::default() };
    let ranked = scheduler.rank(&request, nodes, &mut StdRng::seed_from_u64(7))?;
    Ok(ranked.iter().map(|node| node.name.clone()).collect())
}

fn names(nodes: &[Arc<Node>], fits: impl Fn(&Node) -> bool) -> BTreeSet<String> {
    nodes.iter().filter(|node| fits(node)).map(|node| node.name.clone()).collect()
}

const STRATEGIES: [Strategy; 3] = [Strategy::Spread, Strategy::Binpack, Strategy::Random];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Those that should, if there are any; else those that must; an error if none can.
    #[test]
    fn every_placement_satisfies_its_hard_conditions_and_no_node_is_missed(nodes in nodes(), wish in wish()) {
        let (should, must) = (names(&nodes, |node| wish.should(node)), names(&nodes, |node| wish.must(node)));
        let expected = if should.is_empty() { must } else { should };
        for strategy in STRATEGIES {
            match rank(strategy, &wish, &nodes) {
                Ok(ranked) => {
                    prop_assert_eq!(ranked.len(), expected.len(), "each once");
                    prop_assert_eq!(BTreeSet::from_iter(ranked), expected.clone());
                }
                Err(error) => {
                    prop_assert!(expected.is_empty(), "{error}");
                    let named: BTreeSet<String> = error.reasons.iter().map(|(name, _)| name.clone()).collect();
                    prop_assert_eq!(named, names(&nodes, |_| true), "each node has its reason");
                    prop_assert!(error.reasons.iter().all(|(_, reason)| reason.contains(": ")), "{error}");
                }
            }
        }
    }

    #[test]
    fn permuting_the_nodes_changes_nothing(
        (nodes, shuffled) in nodes().prop_flat_map(|nodes| (Just(nodes.clone()), Just(nodes).prop_shuffle())),
        wish in wish(),
    ) {
        for strategy in STRATEGIES {
            let summary = |result: Result<_, Unplaceable>| result.map_err(|error| error.summary);
            prop_assert_eq!(summary(rank(strategy, &wish, &nodes)), summary(rank(strategy, &wish, &shuffled)));
        }
    }

    /// The first of all ranked nodes is also found by looking at as few as needed, tried ones left out.
    #[test]
    fn the_best_is_the_first_of_all(nodes in nodes(), wish in wish(), tried in 0..3_usize) {
        let request = request::parse(Some("new"), wish.body(), "feed").unwrap();
        for strategy in STRATEGIES {
            let scheduler = Scheduler { strategy, ..Scheduler::default() };
            let rng = || StdRng::seed_from_u64(7);
            let all = scheduler.rank(&request, &nodes, &mut rng());
            let tried: Vec<Arc<Node>> = all.iter().flatten().take(tried).cloned().collect();
            let best = scheduler.best(&request, &nodes, &mut rng(), |node| tried.iter().all(|it| it.addr != node.addr));
            let name = |node: Option<&Arc<Node>>| node.map(|node| node.name.clone());
            prop_assert_eq!(
                best.map(|best| name(best.as_ref())),
                all.map(|all| name(all.get(tried.len())))
            );
        }
    }

    /// A node that cannot take the container does not change which of the others is best.
    #[test]
    fn a_node_that_cannot_take_it_changes_nothing(nodes in nodes(), wish in wish()) {
        let chosen: Vec<Arc<Node>> = nodes.iter().filter(|node| wish.should(node)).cloned().collect();
        // Whose node a dependency is on is known only while that node is there.
        if chosen.is_empty() || wish.dependency.is_some() {
            return Ok(());
        }
        for strategy in STRATEGIES {
            prop_assert_eq!(rank(strategy, &wish, &nodes), rank(strategy, &wish, &chosen));
        }
    }
}
