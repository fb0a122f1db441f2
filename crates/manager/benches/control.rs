//! Benchmark of the control plane. It runs a leader with its store on disk, and simulated nodes that report all tasks
//! running at once. Services are declared; the time ends when all their tasks are written as running.
//!
//! `cargo xtask bench control [-- --nodes 10000 --tasks 1000000]`; without sizes it takes seconds. Nodes run in this process,
//! on the same cores: they keep only ids. The store is alone, so a write costs one flush of the disk and no network.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads its own memory")]

#[expect(dead_code, reason = "goals of other benchmarks")]
#[path = "../../../benches/src/report.rs"]
mod report;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use herder_manager::{Manager, Settings};
use herder_model::swarm::{
    Change, Clock, Cluster, ClusterRecord, ContainerSpec, Hello, LEVEL, ManagerAddr, NodeDescription, Replicated,
    Report as Said, Reservations, Service, ServiceMode, ServiceRecord, SwarmNodeState, TaskRecord, TaskSpec, TaskState,
    TaskStatus, Time, ToLeader, ToNode,
};
use herder_store::{Settings as StoreSettings, Store, Transport, TransportError};
use report::{Goal, Report, Row};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Tasks of one service.
const REPLICAS: usize = 1000;
/// Pause between two counts of what is written. It is at least this long, and a multiple of the time that a
/// count takes.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_TIMES: u32 = 20;
/// A run that takes longer tells nothing more.
const TIME_MAX: Duration = Duration::from_secs(1800);

/// A transport for the only manager.
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
    match after("--reopen") {
        Some(folder) => runtime.block_on(reopen(&folder, tasks)),
        None => runtime.block_on(run(nodes, tasks, json)),
    }
}

async fn run(nodes: usize, tasks: usize, json: bool) {
    let mut report = Report::new("control", json, "none");
    let mut row = |figure: &str, unit, measured| {
        let figure = format!("{nodes} nodes, {tasks} tasks: {figure}");
        report.row(Row { figure, unit, measured, baseline: None, goal: Goal::None });
    };
    let folder = tempfile::tempdir().expect("a folder");
    let settings = StoreSettings::new(folder.path().join("store"), "m1");
    let store = Store::open(settings, Arc::new(Nobody)).await.expect("a store");
    store.begin("m1:2377").await.expect("a swarm");
    let cluster = Cluster { id: "c1".into(), ..Cluster::default() };
    let cluster = ClusterRecord { cluster, ..ClusterRecord::default() };
    store.commit(vec![cluster.into()], now()).await.expect("written");
    let stop = CancellationToken::new();
    let me = ManagerAddr { id: "m1".into(), addr: "m1:2377".into() };
    let gossip = watch::channel(Arc::default()).1;
    let plain = watch::channel(Arc::default()).1;
    let around = Settings { me, gossip, plain, clock: Clock::new(now), new_id, level: LEVEL };
    let manager = Manager::start(store.clone(), around, stop.clone());

    let began = Instant::now();
    let told = Arc::new(AtomicUsize::new(0));
    for number in 0..nodes {
        let (manager, told, stop) = (manager.clone(), told.clone(), stop.clone());
        tokio::spawn(async move {
            // One that loses its session opens another one, and says everything again.
            while !stop.is_cancelled() {
                node(manager.clone(), number, told.clone()).await;
                tokio::time::sleep(LOOK).await;
            }
        });
    }
    until(|| store.view().nodes.len() == nodes).await;
    row("all nodes have a session after", "ms", ms(began));
    let idle = memory_mb();

    let (began, busy) = (Instant::now(), processor_time());
    let services = tasks.div_ceil(REPLICAS);
    for number in 0..services {
        let replicas = REPLICAS.min(tasks - number * REPLICAS);
        store.commit(vec![service(number, replicas)], now()).await.expect("written");
    }
    let (mut done, mut look) = (0, LOOK);
    while done < tasks && began.elapsed() < TIME_MAX {
        tokio::time::sleep(look).await;
        let counting = Instant::now();
        if told.load(Ordering::Relaxed) >= tasks {
            let view = store.view();
            let runs = |it: &&Arc<TaskRecord>| {
                it.task.status.state == TaskState::Running && it.task.desired_state == TaskState::Running
            };
            done = view.tasks.values().filter(runs).count();
        }
        look = LOOK.max(counting.elapsed() * LOOK_TIMES);
    }
    row("all tasks run after", "ms", ms(began));
    let busy = processor_time().saturating_sub(busy);
    row("processor time for a task, with the nodes'", "us", busy.as_secs_f64() * 1e6 / done as f64);
    row("placed and running", "tasks/s", done as f64 / began.elapsed().as_secs_f64());
    row("commands written", "", store.view().index as f64);
    row("nodes taken for lost meanwhile", "", lost(&store) as f64);
    row("memory, with the nodes", "MB", memory_mb());
    row("memory before the tasks", "MB", idle);

    let began = Instant::now();
    let backup = store.backup(None).await.expect("a backup");
    row("a snapshot as a backup", "ms", ms(began));
    row("its size", "MB", backup.len() as f64 / 1e6);
    drop(backup);
    row("memory at most", "MB", status_mb("VmHWM:"));
    row("nodes taken for lost until then", "", lost(&store) as f64);
    stop.cancel();
    store.shutdown().await;
    // With those instead of the ones that were lost.
    let count = store.view().tasks.len().to_string();
    drop((manager, store));
    // Another process: what this one has used says nothing of what a start takes.
    let folder = folder.path().join("store");
    let program = std::env::current_exe().expect("this program");
    let arguments = [OsStr::new("--reopen"), folder.as_os_str(), OsStr::new("--tasks"), OsStr::new(&count)];
    let reopened = std::process::Command::new(program).args(arguments).output().expect("it runs").stdout;
    let figures: Vec<f64> = String::from_utf8_lossy(&reopened).split(' ').flat_map(str::parse).collect();
    for (figure, name, unit) in [
        (0, "leads again after a restart", "ms"),
        (1, "processor time of it", "ms"),
        (2, "memory of the store alone, after it", "MB"),
        (3, "memory at most, meanwhile", "MB"),
    ] {
        row(name, unit, figures.get(figure).copied().unwrap_or(f64::NAN));
    }
    report.end();
}

/// Nodes share the machine with their leader here, and may not have their turn in time.
fn lost(store: &Store) -> usize {
    store.view().nodes.values().filter(|it| it.node.status.state == SwarmNodeState::Down).count()
}

/// Opens a store until it leads with all it had, and prints how long that took, and what it took.
async fn reopen(folder: &str, tasks: usize) {
    let began = Instant::now();
    let store = Store::open(StoreSettings::new(folder, "m1"), Arc::new(Nobody)).await.expect("a store");
    until(|| store.view().tasks.len() == tasks && store.leadership().borrow().me).await;
    let busy = processor_time().as_secs_f64() * 1e3;
    println!("{} {busy} {} {} ", ms(began), memory_mb(), status_mb("VmHWM:"));
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
    let run = async |tasks: Vec<Arc<TaskRecord>>, known: &mut HashSet<String>| {
        let ids = tasks.iter().map(|it| it.task.id.clone());
        let new: Vec<Said> = ids.filter(|id| known.insert(id.clone())).map(running).collect();
        told.fetch_add(new.len(), Ordering::Relaxed);
        new.is_empty() || tell(&ToLeader::Reports(new)).await
    };
    let mut heartbeat = Duration::from_millis(400);
    let mut goes_on = tell(&ToLeader::Hello(Box::new(hello))).await;
    while goes_on {
        tokio::select! {
            message = listen.recv() => {
                let Some(message) = message else { return };
                match serde_json::from_slice::<ToNode>(&message).expect("JSON") {
                    ToNode::Welcome(welcome) => heartbeat = Duration::from_millis(welcome.heartbeat_ms),
                    ToNode::Assignments(whole) => goes_on = run(whole.tasks, &mut known).await,
                    ToNode::Changes(changes) => goes_on = run(changes.tasks, &mut known).await,
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
    let replicated = Replicated { replicas: Some(replicas as u64), ..Replicated::default() };
    service.spec.mode = ServiceMode { replicated: Some(replicated), ..ServiceMode::default() };
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

/// Processor time of all threads so far.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

fn memory_mb() -> f64 {
    status_mb("VmRSS:")
}

fn status_mb(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() * 1024.0 / 1e6
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
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
