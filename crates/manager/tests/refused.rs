//! Tests forbidden messages of a node over real links, with and without a proper certificate. All are refused and
//! change nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use herder_manager::{Manager, Settings};
use herder_model::swarm::{
    Change, Clock, Cluster, ClusterRecord, Hello, JoinTokens, LEVEL, ManagerAddr, NodeRecord, Report, Role, SwarmNode,
    Task, TaskRecord, TaskState, TaskStatus, Time, ToLeader, ToNode, View,
};
use herder_store::{Store, Transport, TransportError};
use herder_wire::Subject;
use herder_wire::calls::Peer;
use herder_wire::identity::{Identity, NODE_LIFETIME, new_id};
use herder_wire::link::{Incoming, Link};
use herder_wire::swarm::{Heard, Managers, SESSION_WAITING_MAX, Said, Status, SwarmCalls, async_trait, serve};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Limit of every wait in these tests.
const LIMIT: Duration = Duration::from_secs(20);
const WORKER_TOKEN: &str = "the worker token";
const MANAGER_TOKEN: &str = "the manager token";

struct Nobody;

impl Transport for Nobody {
    fn call<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + 'a>> {
        Box::pin(async { Err(TransportError("there is nobody else".to_owned())) })
    }
}

struct Door {
    store: Arc<Store>,
    manager: Arc<Manager>,
}

#[async_trait]
impl Managers for Door {
    async fn raft(&self, from: &Subject, message: Bytes) -> Result<Bytes, Status> {
        self.store.handle(&from.node, message).await.map_err(|error| Status::unavailable(error.to_string()))
    }

    async fn session(&self, from: &Subject, heard: Heard) -> Result<Said, Status> {
        let whole = heard.take_while(|it| std::future::ready(it.is_ok())).filter_map(|it| std::future::ready(it.ok()));
        Ok(self.manager.session(&from.node, Box::pin(whole)))
    }
}

/// A swarm of one manager, which listens on loopback, and nodes that talk to it.
struct Swarm {
    store: Arc<Store>,
    manager: Identity,
    addr: String,
    /// Known as a worker.
    worker: Identity,
    removed: Identity,
    folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl Swarm {
    async fn begin() -> Swarm {
        let folder = tempfile::tempdir().expect("a folder");
        let manager = Identity::first("manager", SystemTime::now()).expect("an identity");
        let other = |name| Identity::of(name, manager.shared.clone(), SystemTime::now()).expect("an identity");
        let (worker, removed) = (other("worker"), other("removed"));
        let settings = herder_store::Settings::new(folder.path().join("store"), &*manager.id);
        let store = Store::open(settings, Arc::new(Nobody)).await.expect("opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address").to_string();
        store.begin(&addr).await.expect("begins");
        let (worker_token, manager_token) = (WORKER_TOKEN.into(), MANAGER_TOKEN.into());
        let join_tokens = JoinTokens { worker: worker_token, manager: manager_token, ..JoinTokens::default() };
        let cluster = Cluster { id: "c".into(), join_tokens: Some(join_tokens), ..Cluster::default() };
        let cluster = ClusterRecord {
            cluster,
            removed: BTreeSet::from([removed.id.clone()]),
            managers_key: "key".into(),
            ..ClusterRecord::default()
        };
        let changes: Vec<Change> = vec![
            cluster.into(),
            node(&manager.id, Role::Manager, &addr).into(),
            node(&worker.id, Role::Worker, "127.0.0.1:1").into(),
            task("of the manager", &manager.id).into(),
            task("of the worker", &worker.id).into(),
        ];
        store.commit(changes, Time(1)).await.expect("written");
        let stop = CancellationToken::new();
        let me = ManagerAddr { id: manager.id.clone(), addr: addr.clone() };
        let (_, gossip) = watch::channel(Arc::new(BTreeMap::new()));
        let plain = watch::channel(Arc::default()).1;
        let settings = Settings { me, gossip, plain, clock: Clock::new(|| Time(2)), new_id, level: LEVEL };
        let door =
            Arc::new(Door { store: store.clone(), manager: Manager::start(store.clone(), settings, stop.clone()) });
        let link = Link::new(manager.clone(), folder.path().join("manager")).expect("a link");
        let accept = move |incoming: Incoming| {
            tokio::spawn(serve(door.clone(), incoming.subject, incoming.stream));
        };
        tokio::spawn(link.serve(listener, stop.clone(), accept));
        Swarm { store, manager, addr, worker, removed, folder, _stop: stop.drop_guard() }
    }

    fn calls(&self, identity: &Identity) -> SwarmCalls {
        SwarmCalls::new(Link::new(identity.clone(), self.folder.path().join("caller")).expect("a link"))
    }

    fn peer(&self) -> Peer {
        Peer { id: self.manager.id.clone(), addr: self.addr.clone() }
    }

    /// Sends these messages in a session; returns the welcome, the number of acknowledgements and the end of the
    /// session.
    async fn session(&self, identity: &Identity, said: &[Bytes]) -> String {
        let (say, to_say) = mpsc::channel(SESSION_WAITING_MAX);
        let mut heard = match self.calls(identity).session(&self.peer(), to_say).await {
            Ok(heard) => heard,
            Err(status) => return format!("no session: {}", status.message()),
        };
        for message in said {
            say.send(message.clone()).await.expect("it listens");
        }
        let mut answers = Vec::new();
        loop {
            match timeout(LIMIT, heard.next()).await.expect("an answer in time") {
                None => answers.push("closed".to_owned()),
                Some(Err(status)) => answers.push(format!("broken: {}", status.message())),
                Some(Ok(bytes)) => match serde_json::from_slice(&bytes).expect("JSON") {
                    ToNode::Welcome(welcome) => answers.push(format!("{:?}", welcome.role)),
                    ToNode::Assignments(it) => answers.push(format!("{} tasks", it.tasks.len())),
                    ToNode::Heard => answers.push("heard".to_owned()),
                    ToNode::Refused(reason) => answers.push(reason),
                    other => answers.push(format!("{other:?}")),
                },
            }
            let ended = answers.last().is_some_and(|it| it == "closed" || it.starts_with("broken"));
            // Everything but the first words is answered.
            let all = answers.iter().filter(|it| *it == "heard").count() + 1 == said.len();
            if ended || all && answers.iter().any(|it| it.ends_with("tasks")) {
                return answers.join(", ");
            }
        }
    }

    async fn check(&self, identity: &Identity, said: &[Bytes], expected: &str) {
        let before = what_counts(&self.store.view());
        let answers = self.session(identity, said).await;
        assert!(answers.contains(expected), "{answers}");
        assert_eq!(what_counts(&self.store.view()), before, "{answers}");
    }
}

fn node(id: &str, role: Role, addr: &str) -> NodeRecord {
    let mut node = SwarmNode { id: id.to_owned(), ..SwarmNode::default() };
    node.spec.role = role;
    NodeRecord { node, role, addr: addr.to_owned(), ..NodeRecord::default() }
}

fn task(id: &str, node: &str) -> TaskRecord {
    let status = TaskStatus { state: TaskState::Running, ..TaskStatus::default() };
    let task =
        Task { id: id.into(), node_id: node.into(), desired_state: TaskState::Running, status, ..Task::default() };
    TaskRecord { task, ..TaskRecord::default() }
}

/// Returns roles, running tasks and join tokens as text.
fn what_counts(view: &View) -> String {
    let nodes: Vec<_> = view.nodes.values().map(|it| (&it.node.id, it.role, it.node.spec.role)).collect();
    let tasks: Vec<_> = view.tasks.values().map(|it| (&it.task.id, it.task.status.state)).collect();
    let cluster = view.cluster.as_ref().map(|it| (&it.cluster.id, &it.removed));
    format!("{nodes:?} {tasks:?} {cluster:?}")
}

fn says(message: &ToLeader) -> Bytes {
    serde_json::to_vec(message).expect("JSON").into()
}

fn hello(token: &str) -> Bytes {
    let hello = Hello { addr: "127.0.0.1:1".into(), token: token.into(), ready: true, ..Hello::default() };
    says(&ToLeader::Hello(Box::new(hello)))
}

fn reports(task: &str, state: TaskState) -> Bytes {
    let status = TaskStatus { state, ..TaskStatus::default() };
    says(&ToLeader::Reports(vec![Report { task_id: task.into(), status }]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_says_what_it_must_not_changes_nothing() {
    let swarm = Swarm::begin().await;
    let worker = &swarm.worker;
    let failed = |task: &str| reports(task, TaskState::Failed);
    // It says that its store is open, as a manager's.
    swarm.check(worker, &[hello(""), says(&ToLeader::Ready)], "Worker").await;
    swarm.check(worker, &[hello(""), failed("of the manager"), failed("of nobody")], "heard, heard").await;
    swarm.check(worker, &[hello(""), reports("of the worker", TaskState::Orphaned)], "heard").await;
    // A message of a later release is passed over.
    swarm.check(worker, &[hello(""), Bytes::from_static(b"{\"dance\":1}")], "heard").await;
    swarm.check(worker, &[Bytes::from_static(b"nonsense")], "closed").await;
    swarm.check(worker, &[failed("of the worker")], "closed").await;
    let wrong = "A valid join token is necessary to join this cluster";
    swarm.check(worker, &[hello("another token")], wrong).await;
    swarm.check(worker, &[hello(&MANAGER_TOKEN[1..])], wrong).await;
    let stranger = Identity::of("new", swarm.manager.shared.clone(), SystemTime::now()).expect("an identity");
    swarm.check(&stranger, &[hello("another token")], wrong).await;
    swarm.check(&swarm.removed, &[hello(MANAGER_TOKEN)], "this node was removed from the swarm").await;
    // The test sees what is changed: this is the node's to say.
    let answers = swarm.session(worker, &[hello(""), failed("of the worker")]).await;
    assert!(answers.contains("heard"), "{answers}");
    assert_eq!(swarm.store.view().tasks["of the worker"].task.status.state, TaskState::Failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_in_order_opens_nothing() {
    let swarm = Swarm::begin().await;
    let now = SystemTime::now();
    let of = |shared: &_, at| Identity::of("worker", Clone::clone(shared), at).expect("an identity");
    let (ours, foreign) = (swarm.manager.shared.clone(), Identity::first("worker", now).expect("an identity").shared);
    for identity in [of(&ours, now - NODE_LIFETIME * 2), of(&ours, now + NODE_LIFETIME), of(&foreign, now)] {
        swarm.check(&identity, &[hello(MANAGER_TOKEN)], "no session: ").await;
        let error = swarm.calls(&identity).raft(&swarm.peer(), Bytes::from_static(b"vote")).await.expect_err("refused");
        assert!(!error.message().contains("a message"), "it was heard: {error}");
    }
    swarm.check(&of(&ours, now), &[hello("another token")], "A valid join token is necessary").await;
}

/// Messages between managers, from a node that is none. They are written out, as a node that means harm would do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_speaks_as_a_manager_is_refused() {
    let swarm = Swarm::begin().await;
    // Once it refuses this, the manager leads.
    swarm.check(&swarm.worker, &[hello("another token")], "A valid join token is necessary").await;
    let (me, leader) = (&swarm.worker.id, &swarm.manager.id);
    let calls = swarm.calls(&swarm.worker);
    let check = async |from: &str, call: String, expected: &str| {
        let before = swarm.store.view().index;
        let head = format!(r#"{{"from":"{from}","to":null,"call":{call},"proof":"AAAA"}}"#);
        let length = u32::try_from(head.len()).expect("short").to_be_bytes();
        let message = [&[1], &length[..], head.as_bytes()].concat();
        let answer = match calls.raft(&swarm.peer(), message.into()).await {
            Ok(answer) => String::from_utf8_lossy(&answer).into_owned(),
            Err(status) => status.message().to_owned(),
        };
        assert!(answer.contains(expected), "{call}: {answer}");
        assert_eq!(swarm.store.view().index, before, "{call}");
        assert!(swarm.store.leadership().borrow().me, "{call}");
    };
    let mine = format!("{me}:0");
    let vote = |committed| format!(r#"{{"leader_id":{{"term":99,"node_id":"{mine}"}},"committed":{committed}}}"#);
    let ask = |kind: &str| format!(r#"{{"{kind}":{{"vote":{},"last_log_id":null}}}}"#, vote(false));
    let append =
        format!(r#"{{"Append":{{"vote":{},"prev_log_id":null,"entries":[],"leader_commit":null}}}}"#, vote(true));
    let refused = "manager of this swarm";
    check(&mine, ask("Vote"), refused).await;
    check(&mine, ask("PreVote"), refused).await;
    check(&mine, append, refused).await;
    check(&mine, format!(r#"{{"Remove":{{"node":"{leader}"}}}}"#), refused).await;
    check(&mine, format!(r#"{{"Add":{{"node":"{me}","addr":"127.0.0.1:1"}}}}"#), refused).await;
    check(&mine, r#""Managers""#.to_owned(), refused).await;
    check(&format!("{leader}:0"), r#""Managers""#.to_owned(), "speaks for").await;
    check(&mine, r#"{"Dance":{}}"#.to_owned(), "malformed").await;
    // What it may ask: who is there. That tells a new manager's store from others.
    check(&mine, r#""Hello""#.to_owned(), leader).await;
}
