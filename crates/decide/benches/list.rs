//! How long lists over many nodes take: 1,000 nodes with 30 containers each.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use herder_decide::list::{ContainerQuery, Filters, containers};
use herder_decide::names;
use herder_model::{Container, Node, NodeState};

const NODES: usize = 1_000;
const CONTAINERS_PER_NODE: usize = 30;
/// So many that one outlier is not the p99.
const ROUNDS: usize = 200;
const NOW: i64 = 1_800_000_000;

fn main() {
    let nodes: Vec<Arc<Node>> = (0..NODES).map(node).collect();
    let all = ContainerQuery { all: true, ..ContainerQuery::default() };
    let bytes = containers(&nodes, &all, NOW).map_or(0, |list| list.len());
    println!("{} containers on {NODES} nodes, {bytes} bytes", NODES * CONTAINERS_PER_NODE);
    let query = |filters: &str| ContainerQuery { filters: Filters::parse(filters).unwrap_or_default(), ..all.clone() };
    for (name, query) in [
        ("list all", all.clone()),
        ("list running", ContainerQuery::default()),
        ("list newest 10", ContainerQuery { limit: Some(10), ..all.clone() }),
        ("list by label", query(r#"{"label":["app=app-7"]}"#)),
        ("list by name", query(r#"{"name":["^/?web-500-1$"]}"#)),
    ] {
        measure(name, || containers(&nodes, &query, NOW));
    }
    measure("find by name", || names::container(&nodes, "web-999-29"));
    measure("find by node/name", || names::container(&nodes, "node-999/web-999-29"));
    measure("find by id", || names::container(&nodes, &id(999, 29)));
    measure("find by short id", || names::container(&nodes, &id(999, 29)[..12]));
    // A create or start somewhere: one node's picture is another, all else is as it was.
    let mut nodes = nodes;
    let mut round = 0;
    measure("list all, a node changed", || {
        round += 1;
        let mut changed = Node::clone(&nodes[round % NODES]);
        changed.put_container(container(round % NODES, round % CONTAINERS_PER_NODE));
        nodes[round % NODES] = Arc::new(changed);
        containers(&nodes, &all, NOW)
    });
}

fn measure<T>(name: &str, mut work: impl FnMut() -> T) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let ms = |share: usize| times[ROUNDS * share / 100].as_secs_f64() * 1e3;
    println!("{name:<26} p50 {:>8.3} ms   p99 {:>8.3} ms", ms(50), ms(99));
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
    Arc::new(Container {
        id,
        name,
        created,
        state: state.into(),
        started_at: created + 1,
        finished_at: if state == "exited" { created + 100 } else { 0 },
        labels: [("app".to_owned(), format!("app-{index}"))].into(),
        summary: summary.into(),
        ..Container::default()
    })
}
