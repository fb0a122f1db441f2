//! Benchmark of stacks. A Compose file of 1 MiB is loaded, and a stack of 100 services is planned beside 1,000.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[expect(dead_code, reason = "goals of other benchmarks")]
#[path = "../../../benches/src/report.rs"]
mod report;

use std::hint::black_box;
use std::time::Instant;

use herder_deploy::{Observed, Plan};
use herder_stacks::{Bundle, File};
use report::{Goal, Report, Row, Times};
use serde_json::{Value, json};

/// Bytes of the file, the most that a file may have.
const FILE_BYTES: usize = 1 << 20;
const SERVICES: usize = 100;
const EXISTING: usize = 1_000;
/// Rounds of each figure.
const ROUNDS: usize = 20;

/// Goals in milliseconds.
const LOAD: Goal = Goal::Below(200.0);
const PLAN: Goal = Goal::Below(100.0);

fn main() {
    let json = std::env::args().skip_while(|argument| argument != "--format").nth(1).is_some_and(|it| it == "json");
    let mut report = Report::new("stacks", json, "nothing: goals are in milliseconds");
    let mut row = |name: &str, goal: Goal, mut times: Times| {
        for (share, label, goal) in [(0.5, "p50", goal), (0.99, "p99", Goal::None)] {
            let figure = format!("{name}, {label}");
            report.row(Row { figure, unit: "ms", measured: times.ms(share), baseline: None, goal });
        }
    };
    let text = file(usize::MAX, FILE_BYTES);
    let large = bundle(&text);
    row("load a file of 1 MiB", LOAD, time(|| large.load(Some("large")).map(|it| it.desired.services.len()).ok()));

    let loaded = bundle(&file(SERVICES, FILE_BYTES)).load(Some("shop"));
    let loaded = loaded.unwrap_or_else(|error| panic!("the benchmark's own file: {error}"));
    let there = |number: usize| {
        let mut spec = loaded.desired.services[number % SERVICES].spec.clone();
        if number >= SERVICES {
            spec["Name"] = format!("shop_other-{number}").into();
        }
        json!({"ID": format!("id-{number}"), "Version": {"Index": number}, "Spec": spec})
    };
    let mut services: Vec<Value> = (0..EXISTING).map(there).collect();
    let observed = Observed { services: services.clone(), ..Observed::default() };
    let plan = |observed: &Observed| Plan::of(&loaded.desired, observed, &loaded.sources, false, &mut || [0; 16]);
    row("plan of 100 services beside 1,000, nothing to do", PLAN, time(|| plan(&observed).steps.len()));
    for service in services.iter_mut().take(SERVICES) {
        service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] = "older".into();
    }
    let observed = Observed { services, ..Observed::default() };
    row("plan of 100 services beside 1,000, all change", PLAN, time(|| plan(&observed).steps.len()));
    report.end();
}

fn time<T>(mut work: impl FnMut() -> T) -> Times {
    let round = |_| {
        let start = Instant::now();
        black_box(work());
        start.elapsed()
    };
    (0..ROUNDS).map(round).collect()
}

fn bundle(text: &str) -> Bundle {
    Bundle { files: [("compose.yaml".to_owned(), Some(File::of(text.as_bytes())))].into(), ..Bundle::default() }
}

/// A file with so many services at most, and so many bytes at most.
fn file(services: usize, bytes: usize) -> String {
    let mut text = String::from("services:\n");
    for number in 0..services {
        let service = format!(
            "  web-{number}:\n    image: registry.example.com/team/app:1.{number}.0\n    command: [\"serve\", \"--port\", \
             \"8080\", \"--verbose\"]\n    environment: {{LEVEL: info, DATABASE: \"postgres://db.internal:5432/app?sslmode=disable\", \
             GREETING: \"${{GREETING:-a text with a default of some length, as people write them}}\"}}\n    ports: [\"{port}:8080\"]\n    \
             labels: {{team: web, note: \"a label that says what this service is there for, in one sentence\"}}\n    \
             healthcheck: {{test: \"wget -q --spider http://127.0.0.1:8080/health\", interval: 5s}}\n    deploy: {{replicas: 2}}\n",
            port = 10_000 + number
        );
        if text.len() + service.len() > bytes {
            break;
        }
        text.push_str(&service);
    }
    text
}
