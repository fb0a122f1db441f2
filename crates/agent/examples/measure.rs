//! Measures tasks beside the bare calls that make the same containers: `measure unix:///run/docker.sock [rounds
//! [tasks]]`.
//!
//! For 1, 10 and 50: from the assignment until all are told to run, and until all are told to have stopped and are removed;
//! against create + start of as many containers by eight clients at the same time. Both in turn, so that neither has the quieter
//! minutes.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use herder_agent::{Agent, NoImages, Settings, Way};
use herder_docker::{EngineLink, empty, full};
use herder_model::swarm::{Assignments, TaskRecord, TaskSpec, TaskState};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 8;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let engine = arguments.next().expect("the engine's address");
    let rounds: usize = arguments.next().map_or(3, |rounds| rounds.parse().expect("a number"));
    let counts = arguments.next().map_or(vec![1, 10, 50], |count| vec![count.parse().expect("a number")]);
    println!("tasks | agent: running | plain: running | ratio | agent: stopped and removed | plain: stop + rm");
    for count in counts {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            theirs.push(plain(&engine, count).await);
            ours.push(agent(&engine, count, round).await);
        }
        let (ours, theirs) = (median(&mut ours), median(&mut theirs));
        let ratio = ours.0.as_secs_f64() / theirs.0.as_secs_f64();
        println!("{count} | {:.3?} | {:.3?} | {ratio:.2} | {:.3?} | {:.3?}", ours.0, theirs.0, ours.1, theirs.1);
    }
}

fn median(times: &mut [(Duration, Duration)]) -> (Duration, Duration) {
    let middle = times.len() / 2;
    times.sort_by_key(|(up, _)| *up);
    let up = times[middle].0;
    times.sort_by_key(|(_, down)| *down);
    (up, times[middle].1)
}

fn container() -> Value {
    json!({"Image": "busybox:latest", "Args": ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]})
}

async fn agent(engine: &str, count: usize, round: usize) -> (Duration, Duration) {
    let settings = Settings {
        engine: engine.to_owned(),
        way: Way::Plain,
        node_id: format!("measure-{count}-{round}"),
        folder: std::env::temp_dir(),
        generic_resources: Vec::new(),
        images: Arc::new(NoImages),
        uptime: herder_agent::Uptime::system(),
        watchdog: None,
        clock: herder_model::swarm::Clock::system(),
    };
    let agent = Agent::start(settings, CancellationToken::new());
    let mut reports = agent.reports();
    agent.describe().await.expect("an engine");
    let mut told = Assignments::default();
    let spec: TaskSpec = serde_json::from_value(json!({"ContainerSpec": container()})).expect("a spec");
    let spec = Arc::new(spec);
    for number in 0..count {
        let mut record = TaskRecord { service_name: "measure".into(), ..TaskRecord::default() };
        record.task.id = format!("t{count}-{round}-{number}");
        record.task.spec = spec.clone();
        record.task.desired_state = TaskState::Running;
        record.task.status.state = TaskState::Assigned;
        told.tasks.push(Arc::new(record));
    }
    let began = Instant::now();
    agent.assign(told);
    let mut running = BTreeSet::new();
    while running.len() < count {
        let report = reports.recv().await.expect("the agent lives");
        assert!(report.status.err.is_empty(), "{report:?}");
        if report.status.state == TaskState::Running {
            running.insert(report.task_id);
        }
    }
    let up = began.elapsed();
    let began = Instant::now();
    agent.leave().await;
    (up, began.elapsed())
}

async fn plain(engine: &str, count: usize) -> (Duration, Duration) {
    let link = EngineLink::new(engine, Way::Plain);
    let call = async |method: Method, path: String, body: Option<Value>| {
        let request = Request::builder().method(method).uri(&path).header("Content-Type", "application/json");
        let body = body.map_or_else(empty, |body| full(body.to_string()));
        let response = link.send(request.body(body).expect("a request")).await.expect("an engine");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.into_body().collect().await.expect("an answer").to_bytes()
    };
    let body = json!({"Image": "busybox:latest", "Cmd": container()["Args"]});
    let began = Instant::now();
    let made = stream::iter(0..count).map(async |_| {
        let made = call(Method::POST, "/containers/create".into(), Some(body.clone())).await;
        let made: Value = serde_json::from_slice(&made).expect("json");
        let id = made["Id"].as_str().expect("an id").to_owned();
        call(Method::POST, format!("/containers/{id}/start"), None).await;
        id
    });
    let ids: Vec<String> = made.buffer_unordered(CLIENTS).collect().await;
    let up = began.elapsed();
    let began = Instant::now();
    let removed = stream::iter(ids).map(async |id| {
        call(Method::POST, format!("/containers/{id}/stop"), None).await;
        call(Method::DELETE, format!("/containers/{id}?v=1&force=1"), None).await;
    });
    removed.buffer_unordered(CLIENTS).collect::<Vec<()>>().await;
    (up, began.elapsed())
}
