//! Benchmark of lists over many nodes: 1,000 nodes with 30 containers each.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time and memory")]

#[expect(dead_code, reason = "goals of other benchmarks")]
#[path = "../../../benches/src/report.rs"]
mod report;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use herder_decide::list::{ContainerQuery, Filters, containers};
use herder_decide::{names, render};
use herder_model::{Container, Node, NodeState};
use report::{Goal, Report, Row, Times};

const NODES: usize = 1_000;
const CONTAINERS_PER_NODE: usize = 30;
/// Number of rounds, so many that one outlier is not the p99.
const ROUNDS: usize = 200;
const NOW: i64 = 1_800_000_000;

/// Goal for a list of a cluster of this size, in milliseconds.
const LIST: Goal = Goal::Below(30.0);

fn main() {
    let json = std::env::args().skip_while(|argument| argument != "--format").nth(1).is_some_and(|it| it == "json");
    let mut report = Report::new("list", json, "the engines' own entries, copied one after the other");
    let mut nodes: Vec<Arc<Node>> = (0..NODES).map(node).collect();
    let mut floor = time(|| copied(&nodes));
    let mut measure = |name: &str, p99, baseline: Option<&mut Times>, mut times: Times| {
        let baseline = baseline.map(|times| [times.ms(0.5), times.ms(0.99)]);
        for (at, share, label, goal) in [(0, 0.5, "p50", Goal::None), (1, 0.99, "p99", p99)] {
            let (figure, measured) = (format!("{name}, {label}"), times.ms(share));
            report.row(Row { figure, unit: "ms", measured, baseline: baseline.map(|both| both[at]), goal });
        }
    };
    let all = ContainerQuery { all: true, ..ContainerQuery::default() };
    let query = |filters: &str| ContainerQuery { filters: Filters::parse(filters).unwrap_or_default(), ..all.clone() };
    for (name, query) in [
        ("list all of 30,000", all.clone()),
        ("list running", ContainerQuery::default()),
        ("list newest 10", ContainerQuery { limit: Some(10), ..all.clone() }),
        ("list by label", query(r#"{"label":["app=app-7"]}"#)),
        ("list by name", query(r#"{"name":["^/?web-500-1$"]}"#)),
    ] {
        measure(name, LIST, Some(&mut floor), time(|| containers(&nodes, &query, NOW)));
    }
    for (name, text) in [
        ("find by name", "web-999-29"),
        ("find by node/name", "node-999/web-999-29"),
        ("find by id", &id(999, 29)),
        ("find by short id", &id(999, 29)[..12]),
    ] {
        measure(name, Goal::None, None, time(|| names::container(&nodes, text)));
    }
    // A create or start somewhere: one node's picture is another, all else is as it was.
    let mut round = 0;
    let changing = time(|| {
        round += 1;
        let mut changed = Node::clone(&nodes[round % NODES]);
        changed.put_container(container(round % NODES, round % CONTAINERS_PER_NODE));
        nodes[round % NODES] = Arc::new(changed);
        containers(&nodes, &all, NOW)
    });
    measure("list all, a node changed", LIST, Some(&mut floor), changing);
    report.end();
}

fn time<T>(mut work: impl FnMut() -> T) -> Times {
    let one = |_| {
        let began = Instant::now();
        black_box(work());
        began.elapsed()
    };
    (0..ROUNDS).map(one).collect()
}

fn copied(nodes: &[Arc<Node>]) -> String {
    let entries = || nodes.iter().flat_map(|node| node.containers.values()).map(|container| &*container.entry.text);
    let mut text = String::with_capacity(entries().map(str::len).sum());
    entries().for_each(|entry| text.push_str(entry));
    text
}

fn node(number: usize) -> Arc<Node> {
    let mut node = Node {
        addr: format!("10.{}.{}.1:2375", number / 256, number % 256),
        ip: format!("10.{}.{}.1", number / 256, number % 256),
        name: format!("node-{number}"),
        state: NodeState::Healthy,
        ..Node::default()
    };
    for index in 0..CONTAINERS_PER_NODE {
        node.put_container(container(number, index));
    }
    Arc::new(node)
}

/// 64 hex digits that look random.
fn id(node: usize, index: usize) -> String {
    let number = (node * 1_000 + index + 1) as u64;
    (1..=4).map(|part| format!("{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.rotate_left(part)))).collect()
}

fn container(node: usize, index: usize) -> Arc<Container> {
    let (id, name) = (id(node, index), format!("web-{node}-{index}"));
    let created = NOW - ((node * 7_919 + index * 104_729) % 10_000_000) as i64;
    let state = if index.is_multiple_of(3) { "exited" } else { "running" };
    let summary = format!(
        r#"{{"Id":"{id}","Names":["/{name}"],"Image":"busybox:latest","ImageID":"sha256:{id}","Command":"httpd -f -p 80","Created":{created},"Ports":[{{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":{port},"Type":"tcp"}},{{"IP":"::","PrivatePort":80,"PublicPort":{port},"Type":"tcp"}}],"Labels":{{"app":"app-{index}"}},"State":"{state}","Status":"Up 2 hours","HostConfig":{{"NetworkMode":"default"}},"NetworkSettings":{{"Networks":{{"bridge":{{"IPAMConfig":null,"Links":null,"Aliases":null,"NetworkID":"{id}","EndpointID":"{id}","Gateway":"172.17.0.1","IPAddress":"172.17.0.2","IPPrefixLen":16,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"MacAddress":"02:42:ac:11:00:02","DriverOpts":null}}}}}},"Mounts":[]}}"#,
        port = 30_000 + index
    );
    let mut container = Container {
        id,
        name,
        created,
        state: state.into(),
        started_at: created + 1,
        finished_at: if state == "exited" { created + 100 } else { 0 },
        labels: [("app".to_owned(), format!("app-{index}"))].into(),
        ..Container::default()
    };
    container.entry = render::entry(&summary, &container, Default::default());
    Arc::new(container)
}
