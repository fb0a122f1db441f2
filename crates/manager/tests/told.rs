//! Tests that the changes sent to nodes add up to their assignments, whatever happens to services and nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use herder_manager::{Manager, Settings};
use herder_model::swarm::{
    Assignments, Availability, Change, Clock, Cluster, ClusterRecord, ContainerSpec, Hello, Kind, LEVEL, ManagerAddr,
    NodeDescription, NodeRecord, Replicated, Report, Secret, SecretRef, Service, ServiceMode, ServiceRecord,
    SwarmNodeState, TaskState, TaskStatus, Time, ToLeader, ToNode, View,
};
use herder_store::{Store, Transport, TransportError};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Limit of every wait in these tests.
const LIMIT: Duration = Duration::from_secs(30);

struct Nobody;

impl Transport for Nobody {
    fn call<'a>(&'a self, _: &'a str, _: &'a str, _: Bytes) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(async { Err(TransportError("there is nobody".to_owned())) })
    }
}

/// A node with the assignments that it received, and in which messages.
#[derive(Clone, Default)]
struct Node {
    known: Arc<Mutex<Assignments>>,
    /// Messages with all of it, and with what changed.
    said: Arc<Mutex<(usize, usize)>>,
    gaps: Arc<Mutex<usize>>,
    /// Error of the node's engine; empty while it answers.
    engine_error: watch::Sender<String>,
    /// Grows with each message to any node.
    news: watch::Sender<u64>,
}

impl Node {
    /// Carries out its assignments at once. With a gap to make, it forgets its sequence once.
    async fn run(self, manager: Arc<Manager>, id: &'static str) {
        let mut engine = self.engine_error.subscribe();
        loop {
            let error = engine.borrow_and_update().clone();
            tokio::select! {
                () = self.session(&manager, id, &error) => {}
                _ = engine.changed() => {}
            }
        }
    }

    async fn session(&self, manager: &Manager, id: &str, engine_error: &str) {
        let (say, said) = mpsc::channel::<Bytes>(1024);
        let heard = stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) });
        let mut listen = manager.session(id, Box::pin(heard));
        let tell = async |message: &ToLeader| say.send(serde_json::to_vec(message).expect("JSON").into()).await;
        let description = NodeDescription { hostname: id.to_owned(), ..NodeDescription::default() };
        let engine_error = engine_error.to_owned();
        let hello = Hello { addr: "127.0.0.1:1".into(), description, engine_error, ..Hello::default() };
        tell(&ToLeader::Hello(Box::new(hello))).await.expect("it listens");
        loop {
            let message = tokio::select! {
                message = listen.recv() => message.expect("the session goes on"),
                () = tokio::time::sleep(Duration::from_millis(300)) => {
                    tell(&ToLeader::Alive).await.expect("it listens");
                    continue;
                }
            };
            match serde_json::from_slice::<ToNode>(&message).expect("JSON") {
                ToNode::Assignments(whole) => {
                    *self.known.lock() = *whole;
                    self.said.lock().0 += 1;
                }
                ToNode::Changes(changes) => {
                    if std::mem::take(&mut *self.gaps.lock()) > 0 {
                        self.known.lock().sequence += 7;
                    }
                    self.said.lock().1 += 1;
                    if !self.known.lock().apply(*changes) {
                        tell(&ToLeader::Whole).await.expect("it listens");
                        continue;
                    }
                }
                _ => continue,
            }
            self.news.send_modify(|news| *news += 1);
            let reports = self.known.lock().tasks.iter().map(|it| report(&it.task.id, it.task.desired_state)).collect();
            tell(&ToLeader::Reports(reports)).await.expect("it listens");
        }
    }
}

fn report(id: &str, desired: TaskState) -> Report {
    let state = if desired > TaskState::Complete { TaskState::Shutdown } else { TaskState::Running };
    Report { task_id: id.to_owned(), status: TaskStatus { state, ..TaskStatus::default() } }
}

struct Swarm {
    store: Arc<Store>,
    nodes: BTreeMap<&'static str, Node>,
    news: watch::Sender<u64>,
    _folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl Swarm {
    async fn begin() -> Swarm {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = herder_store::Settings::new(folder.path().join("store"), "m");
        let store = Store::open(settings, Arc::new(Nobody)).await.expect("opens");
        store.begin("m:1").await.expect("begins");
        let cluster = Cluster { id: "c".into(), ..Cluster::default() };
        let secret = Secret { id: "s".into(), ..Secret::default() };
        let changes = vec![ClusterRecord { cluster, ..ClusterRecord::default() }.into(), secret.into()];
        store.commit(changes, Time(1)).await.expect("written");
        let stop = CancellationToken::new();
        let me = ManagerAddr { id: "m".into(), addr: "m:1".into() };
        let gossip = watch::channel(Arc::default()).1;
        let plain = watch::channel(Arc::default()).1;
        let settings = Settings { me, gossip, plain, clock: Clock::system(), new_id, level: LEVEL };
        let manager = Manager::start(store.clone(), settings, stop.clone());
        let mut nodes = BTreeMap::new();
        let news = watch::Sender::default();
        for id in ["a", "b", "c"] {
            let node = Node { news: news.clone(), ..Node::default() };
            tokio::spawn(node.clone().run(manager.clone(), id));
            nodes.insert(id, node);
        }
        Swarm { store, nodes, news, _folder: folder, _stop: stop.drop_guard() }
    }

    /// Writes once more what somebody else has written meanwhile.
    async fn write(&self, change: impl Fn(&View) -> Change) {
        while self.store.commit(vec![change(&self.store.view())], Time(1)).await.is_err() {}
    }

    async fn declare(&self, replicas: u64, image: &str, with_secret: bool) {
        self.write(|view| {
            let mut record = view.services.get("web").map(|it| ServiceRecord::clone(it)).unwrap_or_else(|| {
                let service = Service { id: "web".into(), ..Service::default() };
                ServiceRecord { service, ..ServiceRecord::default() }
            });
            let spec = &mut record.service.spec;
            spec.name = "web".into();
            let replicated = Some(Replicated { replicas: Some(replicas), ..Replicated::default() });
            spec.mode = ServiceMode { replicated, ..ServiceMode::default() };
            let secret = SecretRef { secret_id: "s".into(), ..SecretRef::default() };
            let secrets = if with_secret { vec![secret] } else { Vec::new() };
            let container = ContainerSpec { image: image.into(), secrets, ..ContainerSpec::default() };
            spec.task_template.container_spec = Some(container);
            record.service.update_status = None;
            Change::PutSpec(record.into())
        })
        .await;
    }

    async fn drain(&self, node: &str, availability: Availability) {
        self.write(|view| {
            let mut record = NodeRecord::clone(&view.nodes[node]);
            record.node.spec.availability = availability;
            record.into()
        })
        .await;
    }

    /// Waits until this many tasks run, only old ones are left besides, and every node has its assignments.
    async fn settled(&self, running: usize) {
        self.settled_when(running, |_| true).await;
    }

    /// The same, when this holds as well.
    async fn settled_when(&self, running: usize, holds: impl Fn(&View) -> bool) {
        let ((_, mut writes), mut news) = (self.store.watch(), self.news.subscribe());
        let settled = async {
            loop {
                let view = self.store.view();
                let count = |holds: &dyn Fn(TaskState, TaskState) -> bool| {
                    let tasks = view.tasks.values().map(|it| (it.task.status.state, it.task.desired_state));
                    tasks.filter(|(is, desired)| holds(*is, *desired)).count()
                };
                let run = count(&|is, desired| is == TaskState::Running && desired == TaskState::Running);
                let open = count(&|is, desired| {
                    is < TaskState::Running || is <= TaskState::Running && desired > TaskState::Complete
                });
                let knows =
                    |(id, node): (&&str, &Node)| as_known(&node.known.lock()) == as_known(&Assignments::of(&view, id));
                if run == running && open == 0 && holds(&view) && self.nodes.iter().all(knows) {
                    return;
                }
                tokio::select! {
                    _ = writes.next() => {}
                    _ = news.changed() => {}
                }
            }
        };
        if tokio::time::timeout(LIMIT, settled).await.is_err() {
            let known: Vec<_> = self.nodes.iter().map(|(id, it)| (id, it.known.lock().tasks.len())).collect();
            panic!("{running} tasks were to run: {:?}; nodes know of {known:?}", self.store.view().tasks);
        }
    }
}

/// Returns the assignments without the present states of tasks, which nodes do not receive.
fn as_known(assignments: &Assignments) -> Assignments {
    let mut known = Assignments { sequence: 0, ..assignments.clone() };
    for record in &mut known.tasks {
        let record = Arc::make_mut(record);
        (record.task.status, record.task.meta) = Default::default();
        (record.applied_at, record.running_since) = Default::default();
    }
    known
}

fn new_id() -> String {
    format!("{:025}", rand::random::<u64>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_are_told_adds_up_to_what_is_theirs() {
    let swarm = Swarm::begin().await;
    swarm.declare(20, "one", false).await;
    swarm.settled(20).await;
    swarm.declare(5, "one", false).await;
    swarm.settled(5).await;
    swarm.declare(8, "one", true).await;
    swarm.settled(8).await;
    assert!(swarm.nodes.values().any(|it| !it.known.lock().secrets.is_empty()));
    swarm.drain("a", Availability::Drain).await;
    let is_empty = |view: &View| view.tasks_of_node("a").all(|it| it.task.desired_state > TaskState::Complete);
    swarm.settled_when(8, is_empty).await;
    assert!(swarm.nodes["a"].known.lock().secrets.is_empty(), "who runs nothing has no secret");
    swarm.drain("a", Availability::Active).await;
    swarm.nodes.values().for_each(|it| *it.gaps.lock() = 1);
    swarm.declare(16, "one", true).await;
    swarm.settled(16).await;
    let (whole, changes): (Vec<usize>, Vec<usize>) = swarm.nodes.values().map(|it| *it.said.lock()).unzip();
    assert!(whole.iter().all(|it| *it <= 2), "once at first, once after the gap: {whole:?}");
    assert!(changes.iter().all(|it| *it > 2), "{changes:?}");
    swarm.write(|_| Change::Remove(Kind::Service, "web".into())).await;
    swarm.settled(0).await;
    assert!(swarm.nodes.values().all(|it| it.known.lock().tasks.is_empty()));
}

/// A node with a lost engine sends heartbeats, and counts as down nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_a_node_without_an_engine_run_elsewhere_until_it_is_back() {
    let swarm = Swarm::begin().await;
    swarm.declare(6, "one", false).await;
    swarm.settled(6).await;
    swarm.nodes["a"].engine_error.send_replace("it hangs".into());
    let is_down = |view: &View| {
        let node = &view.nodes["a"];
        let elsewhere = view.tasks_of_node("a").all(|it| it.task.desired_state > TaskState::Complete);
        node.node.status.state == SwarmNodeState::Down && node.node.status.message == "engine: it hangs" && elsewhere
    };
    swarm.settled_when(6, is_down).await;
    // What is fenced begins elsewhere when the lease of that node has run out for sure, though it is heard.
    swarm.settled_when(6, |view| is_down(view) && view.nodes["a"].fenced_off).await;
    swarm.nodes["a"].engine_error.send_replace(String::new());
    let is_ready =
        |view: &View| view.nodes["a"].node.status.state == SwarmNodeState::Ready && !view.nodes["a"].fenced_off;
    swarm.settled_when(6, is_ready).await;
}
