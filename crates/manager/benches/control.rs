//! The whole control plane with simulated nodes: a leader with its store on the disk, and sessions of nodes that say of every
//! task at once that it runs. Services are declared; the time ends when all their tasks are written as running.
//!
//! `cargo bench -p herder-manager --bench control [-- --nodes 1000 --tasks 100000 --format json]`. Nodes run in this process,
//! on the same cores: they keep only ids. The store is alone, so a write costs one flush of the disk and no network.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[expect(dead_code, reason = "goals of other benchmarks")]
#[path = "../../../benches/src/report.rs"]
mod report;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use herder_manager::{Manager, Settings};
use herder_model::swarm::{
    Change, Clock, Cluster, ClusterRecord, ContainerSpec, Hello, ManagerAddr, NodeDescription, Replicated,
    Report as Said, Reservations, Service, ServiceMode, ServiceRecord, TaskSpec, TaskState, TaskStatus, Time, ToLeader,
    ToNode,
};
use herder_store::{Settings as StoreSettings, Store, Transport, TransportError};
use report::{Goal, Report, Row};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Tasks of one service.
const REPLICAS: usize = 1000;
/// How often what is written is counted.
const LOOK: Duration = Duration::from_millis(200);
/// A run that takes longer tells nothing more.
const TIME_MAX: Duration = Duration::from_secs(1800);

/// There is no other manager.
struct Nobody;

impl Transport for Nobody {
    fn call<'a>(&'a self, _: &'a str, _: &'a str, _: Bytes) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(async { Err(TransportError("there is nobody".to_owned())) })
    }
}

fn main() {
    let after = |name: &str| std::env::args().skip_while(|it| it != name).nth(1);
    let count = |name: &str, usual: usize| after(name).and_then(|it| it.parse().ok()).unwrap_or(usual);
    let json = after("--format").is_some_and(|it| it == "json");
    let (nodes, tasks) = (count("--nodes", 1000), count("--tasks", 20_000));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(nodes, tasks, json));
}

async fn run(nodes: usize, tasks: usize, json: bool) {
    let mut report = Report::new("control", json, "none");
    let mut row = |figure: &str, unit, measured| {
        let figure = format!("{nodes} nodes, {tasks} tasks: {figure}");
        report.row(Row { figure, unit, measured, baseline: None, goal: Goal::None });
    };
    let folder = tempfile::tempdir().expect("a folder");
    let settings = StoreSettings::new(folder.path().join("store"), "m1");
    let store = Store::open(settings.clone(), Arc::new(Nobody)).await.expect("a store");
    store.begin("m1:2377").await.expect("a swarm");
    let cluster = Cluster { id: "c1".into(), ..Cluster::default() };
    let cluster = ClusterRecord { cluster, ..ClusterRecord::default() };
    store.commit(vec![cluster.into()], now()).await.expect("written");
    let stop = CancellationToken::new();
    let me = ManagerAddr { id: "m1".into(), addr: "m1:2377".into() };
    let around = Settings { me, gossip: watch::channel(Arc::default()).1, clock: Clock::system(), new_id };
    let manager = Manager::start(store.clone(), around, stop.clone());

    let began = Instant::now();
    let told = Arc::new(AtomicUsize::new(0));
    for number in 0..nodes {
        tokio::spawn(node(manager.clone(), number, told.clone()));
    }
    until(|| store.view().nodes.len() == nodes).await;
    row("all nodes have a session after", "ms", ms(began));
    let idle = memory_mb();

    let began = Instant::now();
    let services = tasks.div_ceil(REPLICAS);
    for number in 0..services {
        let replicas = REPLICAS.min(tasks - number * REPLICAS);
        store.commit(vec![service(number, replicas)], now()).await.expect("written");
    }
    let mut done = 0;
    while done < tasks && began.elapsed() < TIME_MAX {
        tokio::time::sleep(LOOK).await;
        if told.load(Ordering::Relaxed) >= tasks {
            let view = store.view();
            done = view.tasks.values().filter(|it| it.task.status.state == TaskState::Running).count();
        }
    }
    row("all tasks run after", "ms", ms(began));
    row("placed and running", "tasks/s", done as f64 / began.elapsed().as_secs_f64());
    row("commands written", "", store.view().index as f64);
    row("memory, with the nodes", "MB", memory_mb());
    row("memory before the tasks", "MB", idle);

    let began = Instant::now();
    let backup = store.backup(None).await.expect("a backup");
    row("a snapshot as a backup", "ms", ms(began));
    row("its size", "MB", backup.len() as f64 / 1e6);
    drop(backup);
    stop.cancel();
    store.shutdown().await;
    drop((manager, store));
    let began = Instant::now();
    let store = Store::open(settings, Arc::new(Nobody)).await.expect("a store");
    until(|| store.view().tasks.len() == tasks && store.leadership().borrow().me).await;
    row("leads again after a restart", "ms", ms(began));
    report.end();
}

/// A node: says that it lives, and of each new task that it runs.
async fn node(manager: Arc<Manager>, number: usize, told: Arc<AtomicUsize>) {
    let (say, said) = mpsc::channel::<Bytes>(64);
    let heard = stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) });
    let mut listen = manager.session(&format!("n{number:05}"), Box::pin(heard));
    let resources = Reservations { nano_cpus: 64_000_000_000, memory_bytes: 256 << 30, ..Reservations::default() };
    let hostname = format!("host-{number:05}");
    let description = NodeDescription { hostname, resources, ..NodeDescription::default() };
    let hello = Hello { addr: format!("10.0.0.1:{number}"), description, ..Hello::default() };
    let mut known: HashSet<String> = HashSet::new();
    let tell = async |message: &ToLeader| {
        let text = serde_json::to_vec(message).expect("JSON");
        say.send(text.into()).await.is_ok()
    };
    let mut heartbeat = Duration::from_millis(400);
    let mut goes_on = tell(&ToLeader::Hello(Box::new(hello))).await;
    while goes_on {
        tokio::select! {
            message = listen.recv() => {
                let Some(message) = message else { return };
                match serde_json::from_slice::<ToNode>(&message).expect("JSON") {
                    ToNode::Welcome(welcome) => heartbeat = Duration::from_millis(welcome.heartbeat_ms),
                    ToNode::Assignments(assignments) => {
                        let ids = assignments.tasks.iter().map(|it| it.task.id.clone());
                        let new: Vec<Said> = ids.filter(|id| known.insert(id.clone())).map(running).collect();
                        told.fetch_add(new.len(), Ordering::Relaxed);
                        if !new.is_empty() {
                            goes_on = tell(&ToLeader::Reports(new)).await;
                        }
                    }
                    _ => {}
                }
            }
            () = tokio::time::sleep(heartbeat) => goes_on = tell(&ToLeader::Alive).await,
        }
    }
}

fn running(task_id: String) -> Said {
    let (state, message) = (TaskState::Running, "started".to_owned());
    Said { task_id, status: TaskStatus { state, message, timestamp: now().to_string(), ..TaskStatus::default() } }
}

fn service(number: usize, replicas: usize) -> Change {
    let mut service = Service { id: format!("service{number:05}"), ..Service::default() };
    service.spec.name = format!("service-{number}");
    service.spec.mode =
        ServiceMode { replicated: Some(Replicated { replicas: Some(replicas as u64) }), ..ServiceMode::default() };
    let container = ContainerSpec { image: "busybox:latest".into(), ..ContainerSpec::default() };
    service.spec.task_template = TaskSpec { container_spec: Some(container), ..TaskSpec::default() };
    ServiceRecord { service, ..ServiceRecord::default() }.into()
}

async fn until(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() && began.elapsed() < TIME_MAX {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn memory_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() * 1024.0 / 1e6
}

fn now() -> Time {
    Clock::system().now()
}

fn new_id() -> String {
    const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut number: u128 = rand::random();
    let mut id = String::with_capacity(25);
    for _ in 0..25 {
        id.push(char::from(LETTERS[(number % 36) as usize]));
        number /= 36;
    }
    id
}
