//! Nodes of a simulated swarm. A node has an engine, an agent, on some of them a manager, and a clock that
//! may be wrong.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use herder_agent::session::{Ended, Listener, NodeInputs, hold};
use herder_agent::{Agent, NoImages, Settings as AgentSettings, Uptime, Way};
use herder_manager::{Manager, Settings as ManagerSettings};
use herder_model::Liveness;
use herder_model::swarm::{Assignments, Clock, Hello, LEVEL, ManagerAddr, NetNews, NodeDescription, Time, Welcome};
use herder_parts::{Fault, Parts};
use herder_store::Store;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::disk::End;
use crate::engine::Engine;
use crate::kernel::Kernel;
use crate::leaving::Leaving;
use crate::net::{Net, Port};
use crate::runs::Runs;
use crate::stores::{Managers, addr, rng};
use crate::trace::Trace;

/// Same as in the program: the pause between two attempts to find a leader.
const REST: Duration = Duration::from_millis(150);
const SENT_ON_REST: Duration = Duration::from_millis(20);
const DESCRIBE_REST: Duration = Duration::from_secs(20);
const DESCRIBE_AGAIN: Duration = Duration::from_secs(1);
/// Gossip believes that somebody is dead after so long without a sign, and looks so often.
const GOSSIP_PATIENCE: Duration = Duration::from_millis(900);
const GOSSIP_LOOK: Duration = Duration::from_millis(100);
/// Interval at which the watchdog checks the lease; the real one sleeps until its end.
const WATCHDOG_LOOK: Duration = Duration::from_millis(100);
/// Begin of the stories, in seconds since 1970.
const EPOCH: u64 = 1_800_000_000;

struct Host {
    engine: Engine,
    /// Error of its clock, in milliseconds.
    skew: Arc<AtomicI64>,
    starts: u64,
    up: Option<CancellationToken>,
    /// Parts of the running program.
    parts: Parts,
    gossip: watch::Sender<Arc<BTreeMap<String, Liveness>>>,
    /// Stopped in good order.
    left: bool,
    /// The feature level of the program that its next start runs.
    release: u32,
}

pub(crate) struct Nodes {
    pub(crate) managers: Arc<Managers>,
    pub(crate) runs: Runs,
    net: Net,
    kernels: BTreeMap<String, Kernel>,
    leaving: Arc<Leaving>,
    folder: PathBuf,
    trace: Trace,
    began: Instant,
    hosts: Mutex<BTreeMap<String, Host>>,
}

impl Nodes {
    /// Creates these managers and workers.
    pub(crate) fn new(seed: u64, managers: usize, workers: u64, folder: PathBuf, trace: Trace) -> Arc<Nodes> {
        let runs = Runs::new(trace.clone());
        let managers = Arc::new(Managers::new(seed, managers, folder.clone(), trace.clone()));
        let count = u64::try_from(managers.names().len()).unwrap_or_default() + workers;
        let host = |number: u64| Host {
            engine: Engine::new(&format!("n{number}"), rng(seed, 200 + number), runs.clone()),
            skew: Arc::default(),
            starts: 0,
            up: None,
            parts: Parts::default(),
            gossip: watch::Sender::default(),
            left: false,
            release: LEVEL,
        };
        let hosts = (1..=count).map(|number| (format!("n{number}"), host(number))).collect();
        let kernel = |number: u64| {
            let node = format!("n{number}");
            let kernel = Kernel::new(&node, rng(seed, 300 + number), trace.clone());
            (node, kernel)
        };
        let kernels: BTreeMap<String, Kernel> = (1..=count).map(kernel).collect();
        let leaving = Arc::new(Leaving::new(trace.clone(), kernels.clone()));
        let (net, began, hosts) = (managers.net.clone(), Instant::now(), Mutex::new(hosts));
        let nodes = Arc::new(Nodes { managers, runs, net, kernels, leaving, folder, trace, began, hosts });
        tokio::spawn(nodes.clone().gossip());
        for node in nodes.names() {
            tokio::spawn(nodes.clone().hold_lease(node));
        }
        nodes
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.hosts.lock().keys().cloned().collect()
    }

    pub(crate) fn is_up(&self, node: &str) -> bool {
        self.hosts.lock().get(node).is_some_and(|it| it.up.is_some())
    }

    /// The feature level of the node's program.
    pub(crate) fn release(&self, node: &str) -> u32 {
        self.hosts.lock().get(node).map_or(LEVEL, |it| it.release)
    }

    /// Sets the release that the node runs from its next start on.
    pub(crate) fn set_release(&self, node: &str, level: u32) {
        if let Some(host) = self.hosts.lock().get_mut(node) {
            host.release = level;
        }
    }

    fn manages(&self, node: &str) -> bool {
        self.managers.names().iter().any(|it| it == node)
    }

    pub(crate) fn engine(&self, node: &str) -> Option<Engine> {
        self.hosts.lock().get(node).map(|it| it.engine.clone())
    }

    pub(crate) fn kernel(&self, node: &str) -> Option<Kernel> {
        self.kernels.get(node).cloned()
    }

    /// Sets the error of this node's clock in milliseconds.
    pub(crate) fn skew(&self, node: &str, millis: i64) {
        if let Some(host) = self.hosts.lock().get(node) {
            host.skew.store(millis, Ordering::Relaxed);
        }
    }

    pub(crate) fn clock(&self, node: &str) -> Clock {
        let skew = self.hosts.lock().get(node).map(|it| it.skew.clone()).unwrap_or_default();
        let began = self.began;
        Clock::new(move || {
            let right = Duration::from_secs(EPOCH) + began.elapsed();
            let wrong = skew.load(Ordering::Relaxed);
            let by = Duration::from_millis(wrong.unsigned_abs());
            let shown = if wrong < 0 { right.saturating_sub(by) } else { right + by };
            Time(u64::try_from(shown.as_nanos()).unwrap_or(u64::MAX))
        })
    }

    /// Opens what belongs to the node that has a store already.
    pub(crate) fn begin_manager(&self, node: &str, store: Arc<Store>, parts: &Parts) {
        let Some(gossip) = self.hosts.lock().get(node).map(|it| it.gossip.subscribe()) else { return };
        let me = ManagerAddr { id: node.to_owned(), addr: addr(node) };
        let plain = watch::channel(Arc::default()).1;
        let settings =
            ManagerSettings { me, gossip, plain, clock: self.clock(node), new_id, level: self.release(node) };
        let manager = Manager::start(store, settings, parts);
        self.net.plug_manager(node, self.managers.start_of(node), manager);
    }

    /// Starts all of a node; its store, too, if it manages and has none that is open.
    pub(crate) async fn start(&self, node: &str) {
        let stop = CancellationToken::new();
        let parts = Parts::new(stop.clone());
        let engine = {
            let mut hosts = self.hosts.lock();
            let Some(host) = hosts.get_mut(node).filter(|it| it.up.is_none()) else { return };
            (host.up, host.left, host.parts) = (Some(stop.clone()), false, parts.clone());
            host.starts += 1;
            host.engine.clone()
        };
        engine.turn_on_if_off();
        let port = if self.manages(node) {
            if self.managers.store(node).is_none() {
                self.managers.reopen(node).await;
            }
            let Some(store) = self.managers.store(node) else { return };
            self.begin_manager(node, store, &parts);
            Port::of(&self.net, node, self.managers.start_of(node))
        } else {
            let start = self.hosts.lock().get(node).map_or(0, |it| it.starts);
            self.net.port(node, start)
        };
        let (began, folder) = (self.began, self.folder.join(format!("agent-{node}")));
        if let Err(error) = std::fs::create_dir_all(&folder) {
            self.trace.fail(format_args!("{node} has no folder: {error}"));
        }
        let settings = AgentSettings {
            engine: node.to_owned(),
            way: Way::Through(Arc::new(engine)),
            node_id: node.to_owned(),
            folder,
            generic_resources: Vec::new(),
            images: Arc::new(NoImages),
            uptime: Uptime::new("once", move || began.elapsed()),
            watchdog: None,
            clock: self.clock(node),
        };
        let agent = Arc::new(Agent::start(settings, &parts));
        if let Some(kernel) = self.kernel(node) {
            let working = kernel.run(agent.networks().clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(working));
        }
        let description = watch::Sender::default();
        let describing = describe(node.to_owned(), agent.clone(), description.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(describing));
        let (node, level, managers) = (node.to_owned(), self.release(node), self.managers.names());
        self.net.set_release(&node, level);
        let handler = SessionHandler { node, agent, leaving: self.leaving.clone() };
        tokio::spawn(stop.run_until_cancelled_owned(work(handler, level, managers, port, description)));
    }

    /// A part of the node's program panics, if the program runs and has that part.
    pub(crate) fn panic(&self, node: &str, part: &str) {
        let parts = self.hosts.lock().get(node).filter(|it| it.up.is_some()).map(|it| it.parts.clone());
        if parts.is_some_and(|parts| parts.fault(part, Fault::Panic)) {
            self.trace.tell(format_args!("{node}: its {part} panics"));
        }
    }

    /// The node's program ends, or with `Dark` and `Torn` its host.
    pub(crate) async fn end(&self, node: &str, how: End) {
        let up = self.hosts.lock().get_mut(node).and_then(|it| it.up.take());
        let Some(stop) = up else { return };
        self.trace.tell(format_args!("{node} goes, {how:?}"));
        self.net.unplug(node);
        stop.cancel();
        if how != End::Killed
            && let Some(engine) = self.engine(node)
        {
            engine.turn_off();
            self.kernels.get(node).into_iter().for_each(Kernel::turn_off);
        }
        self.leaving.ends(node);
        self.manager_ends(node);
        self.managers.end(node, how).await;
    }

    fn manager_ends(&self, node: &str) {
        if self.managers.names().iter().any(|it| it == node) {
            self.runs.manager_ends();
        }
    }

    /// The node's program is stopped in good order.
    pub(crate) async fn stop(&self, node: &str) {
        let up = self.hosts.lock().get_mut(node).and_then(|it| {
            it.left = it.up.is_some();
            it.up.take()
        });
        let Some(stop) = up else { return };
        self.leaving.ends(node);
        self.manager_ends(node);
        self.managers.stop(node).await;
        self.net.unplug(node);
        stop.cancel();
        self.trace.tell(format_args!("{node} has stopped"));
    }

    /// Cuts all traffic between these and other nodes.
    pub(crate) fn cut(&self, some: &[String]) {
        for other in self.names().iter().filter(|it| !some.contains(it)) {
            for node in some {
                self.net.cut(node, other);
                self.net.cut(other, node);
            }
        }
    }

    pub(crate) async fn heal(&self) {
        self.net.heal();
        for node in self.names() {
            self.managers.pace(&node, crate::disk::QUICK);
            if let Some(engine) = self.engine(&node) {
                engine.pace(crate::engine::QUICK);
                engine.turn_on_if_off();
            }
            self.start(&node).await;
        }
    }

    /// Runs the watchdog of a node. It ends fenced tasks at the end of the lease, independently of the program and the
    /// engine.
    async fn hold_lease(self: Arc<Nodes>, node: String) {
        let lease = self.folder.join(format!("agent-{node}")).join("lease");
        loop {
            sleep(WATCHDOG_LOOK).await;
            let text = std::fs::read_to_string(&lease).unwrap_or_default();
            let until = text.split(' ').next().and_then(|millis| millis.parse().ok()).map(Duration::from_millis);
            if let Some(engine) =
                self.engine(&node).filter(|_| until.is_some_and(|until| until <= self.began.elapsed()))
            {
                engine.end_fenced();
            }
        }
    }

    /// Updates the nodes' beliefs about each other.
    async fn gossip(self: Arc<Nodes>) {
        let names = self.names();
        let mut seen: BTreeMap<(String, String), Instant> = BTreeMap::new();
        loop {
            for me in self.managers.names() {
                let believed = names.iter().map(|node| {
                    let pair = (me.clone(), node.clone());
                    let is_there = *node == me || self.net.in_reach(&me, node);
                    let left = self.hosts.lock().get(node).is_some_and(|it| it.left);
                    let last = seen.entry(pair).or_insert_with(Instant::now);
                    if is_there {
                        *last = Instant::now();
                    }
                    let believed = match last.elapsed() > GOSSIP_PATIENCE {
                        _ if left => Liveness::Left,
                        true => Liveness::Dead,
                        false => Liveness::Alive,
                    };
                    (node.clone(), believed)
                });
                let believed: BTreeMap<String, Liveness> = believed.collect();
                if let Some(host) = self.hosts.lock().get(&me) {
                    host.gossip.send_if_modified(|known| {
                        let is_news = **known != believed;
                        *known = Arc::new(believed);
                        is_news
                    });
                }
            }
            sleep(GOSSIP_LOOK).await;
        }
    }
}

/// 25 characters, as Docker's.
pub(crate) fn new_id() -> String {
    format!("{:025x}", rand::random::<u64>())
}

/// The address of a node that others send packets of networks to.
pub(crate) fn data_path(node: &str) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 0, node.trim_start_matches('n').parse().unwrap_or_default())
}

async fn describe(node: String, agent: Arc<Agent>, to: watch::Sender<NodeDescription>) {
    loop {
        let rest = match agent.describe().await {
            Ok(mut description) => {
                description.underlay.data_path_addr = data_path(&node).to_string();
                to.send_if_modified(|it| std::mem::replace(it, description.clone()) != description);
                DESCRIBE_REST
            }
            Err(_) => DESCRIBE_AGAIN,
        };
        sleep(rest).await;
    }
}

#[derive(Clone)]
struct SessionHandler {
    node: String,
    agent: Arc<Agent>,
    leaving: Arc<Leaving>,
}

impl Listener for SessionHandler {
    fn welcome(&self, _: Welcome) {}

    fn assign(&self, assignments: Assignments) {
        self.agent.assign(assignments);
    }

    fn networks(&self, news: NetNews) -> bool {
        let networks = self.agent.networks();
        let before = networks.states();
        let taken = networks.take(&news).is_ok();
        self.leaving.hears(&self.node, &news, &before, &networks.states());
        taken
    }

    fn heard(&self, said_at: Instant, lease: Duration) {
        self.leaving.heard(&self.node, said_at);
        self.agent.lease(said_at + lease);
    }
}

/// Holds sessions with the current leader, one after the other.
async fn work(
    handler: SessionHandler,
    level: u32,
    managers: Vec<String>,
    port: Port,
    description: watch::Sender<NodeDescription>,
) {
    let (node, agent) = (handler.node.clone(), handler.agent.clone());
    let mut attempt = 0;
    let mut leader: Option<ManagerAddr> = None;
    let mut sent_on = false;
    // Simulated nodes do not listen.
    let ingress = watch::Sender::default();
    let (ready, leaving) = (watch::Sender::new(managers.contains(&node)), watch::Sender::new(false));
    loop {
        let any = &managers[attempt % managers.len()];
        let manager = leader.take().unwrap_or_else(|| ManagerAddr { id: any.clone(), addr: addr(any) });
        let mind = NodeInputs {
            reports: agent.reports(),
            description: description.subscribe(),
            engine: agent.health(),
            ready: ready.subscribe(),
            leaving: leaving.subscribe(),
            applied: agent.networks().applied(),
            wishes: agent.networks().attachments().wishes(),
            ingress: ingress.subscribe(),
        };
        let hello = Hello { addr: addr(&node), level, ..Hello::default() };
        attempt += 1;
        handler.leaving.begins(&node, &manager.id);
        let ended = hold(&port, &manager, hello, mind, &handler).await;
        handler.leaving.ends(&node);
        let ended = if let Ended::Again = ended { Ended::Elsewhere(Some(manager)) } else { ended };
        let again = std::mem::replace(&mut sent_on, matches!(ended, Ended::Elsewhere(Some(_))));
        leader = if let Ended::Elsewhere(other) = ended { other } else { None };
        match leader {
            Some(_) if again => sleep(SENT_ON_REST).await,
            Some(_) => {}
            None => sleep(REST).await,
        }
    }
}
