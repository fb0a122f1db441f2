//! Benchmark of the scheduler's choice among 1,000, 10,000 and 100,000 nodes with 5 containers each.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time and memory")]

#[expect(dead_code, reason = "goals of other benchmarks")]
#[path = "../../../benches/src/report.rs"]
mod report;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use herder_decide::request::{self, CreateRequest};
use herder_decide::schedule::{Scheduler, Strategy};
use herder_model::{Container, Image, Node, NodeState, Resources};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use report::{Goal, Report, Row, Times};
use serde_json::json;

const CONTAINERS_PER_NODE: usize = 5;
/// Nodes, timed decisions, and the goal for 99 of 100 in milliseconds. The goal is a promise for the size that herder
/// is made for, plain figures beyond it.
const SIZES: [(usize, usize, Goal); 3] =
    [(1_000, 1_000, Goal::Below(1.0)), (10_000, 300, Goal::None), (100_000, 100, Goal::None)];

fn main() {
    let json = std::env::args().skip_while(|argument| argument != "--format").nth(1).is_some_and(|it| it == "json");
    let mut report = Report::new("schedule", json, "one look at the health and the room of each node");
    let plain = request(&[]);
    let conditions = request(&["constraint:zone==z[1-5]", "affinity:image==busybox", "affinity:app!=app-999"]);
    for (count, rounds, limit) in SIZES {
        let nodes: Vec<Arc<Node>> = (0..count).map(node).collect();
        let mut look = time(rounds, || nodes.iter().filter(|node| has_room(node)).count());
        for strategy in [Strategy::Spread, Strategy::Binpack, Strategy::Random] {
            for (what, request) in [("", &plain), (", constraint + affinities", &conditions)] {
                let scheduler = Scheduler { strategy, ..Scheduler::default() };
                let mut rng = StdRng::seed_from_u64(1);
                let mut times = time(rounds, || scheduler.best(request, &nodes, &mut rng, |_| true));
                for (share, name, goal) in [(0.5, "p50", Goal::None), (0.99, "p99", limit)] {
                    report.row(Row {
                        figure: format!("{strategy} of {count}{what}, {name}"),
                        unit: "ms",
                        measured: times.ms(share),
                        baseline: Some(look.ms(share)),
                        goal,
                    });
                }
            }
        }
    }
    report.end();
}

fn time<T>(rounds: usize, mut work: impl FnMut() -> T) -> Times {
    let one = |_| {
        let began = Instant::now();
        black_box(work());
        began.elapsed()
    };
    (0..rounds).map(one).collect()
}

fn has_room(node: &Node) -> bool {
    node.health_indicator > 0 && node.used.memory_bytes < node.total.memory_bytes
}

fn request(env: &[&str]) -> CreateRequest {
    let body = json!({"Image": "busybox", "Env": env, "HostConfig": {"Memory": 64 << 20, "PortBindings":
        {"80/tcp": [{"HostPort": "8080"}]}}});
    request::parse(Some("new"), body, "id").unwrap_or_default()
}

fn node(number: usize) -> Arc<Node> {
    let mut node = Node {
        addr: format!("10.{}.{}.{}:2375", number >> 16, number >> 8 & 255, number & 255),
        name: format!("node-{number}"),
        state: NodeState::Healthy,
        health_indicator: 100,
        labels: [("zone".to_owned(), format!("z{}", number % 10))].into(),
        ncpu: 64,
        total: Resources { nano_cpus: 64_000_000_000, memory_bytes: 256 << 30 },
        ..Node::default()
    };
    node.images.push(Arc::new(Image {
        id: "sha256:0".into(),
        repo_tags: vec!["busybox:latest".into()],
        ..Image::default()
    }));
    for index in 0..CONTAINERS_PER_NODE {
        node.put_container(Arc::new(Container {
            id: format!("{number:032x}{index:032x}"),
            name: format!("web-{number}-{index}"),
            labels: [("app".to_owned(), format!("app-{index}"))].into(),
            reserved: Resources { nano_cpus: 0, memory_bytes: ((number * 7 + index) % 100) as i64 * (64 << 20) },
            ..Container::default()
        }));
    }
    Arc::new(node)
}
