//! All tasks of this node.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use herder_decide::swarm::container::NodeFacts;
use herder_docker::EngineError;
use herder_docker::Way;
use herder_model::swarm::{Assignments, Clock, GenericResource, IngressServed, NodeDescription, Report, TaskRecord};
use herder_parts::Parts;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::DropGuard;
use tracing::warn;

use crate::board::Board;
use crate::call::Engine;
use crate::describe;
use crate::files::Files;
use crate::health::{self, EngineHealth};
use crate::images::{Arrivals, Images};
use crate::lease::{Lease, Uptime, Watchdog};
use crate::life::{Life, Node, Order, STOPS_MAX};
use crate::net::Networks;
use crate::observe::Observer;

/// The name of the loop over all tasks, among the parts of a node.
pub const AGENT: &str = "agent";

/// Containers that are made, started and removed at the same time. With more an engine gets slower, not faster.
const WORK_MAX: usize = 8;

/// Settings of an agent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `unix:///path` or `host:port` of the engine beside this node.
    pub engine: String,
    pub way: Way,
    /// Id of the node in the swarm. Containers carry it as a label; those with another one are left alone.
    pub node_id: String,
    /// The node's own; for files in memory.
    pub folder: PathBuf,
    /// Resources of the node besides processors and memory.
    pub generic_resources: Vec<GenericResource>,
    pub images: Arc<dyn Images>,
    /// Counts what is left of a lease that tasks with the label `herder.fence` had before a restart of this program.
    pub uptime: Uptime,
    /// Holds that lease when this program does not. None: fenced tasks run on while this program is away.
    pub watchdog: Option<Watchdog>,
    /// Clock for the times in reports.
    pub clock: Clock,
}

/// Carries out a node's assignments on one engine. When it is dropped, all containers stay as they are.
#[derive(Debug)]
pub struct Agent {
    /// First, so that its parts see that they shall end before they miss what is dropped next.
    _end: DropGuard,
    node: Arc<Node>,
    node_id: String,
    generic_resources: Vec<GenericResource>,
    assigned: watch::Sender<Assigned>,
    known: watch::Sender<Known>,
    health: watch::Receiver<EngineHealth>,
}

/// The last assignments and their count.
type Assigned = (u64, Option<Arc<Assignments>>);

/// The node's tasks after a number of assignments.
#[derive(Debug, Default)]
pub(crate) struct Known {
    number: u64,
    ids: BTreeSet<String>,
}

impl Agent {
    /// Begins to follow the engine. Nothing is done to any container before the first [`Agent::assign`].
    pub fn start(settings: Settings, parts: impl Into<Parts>) -> Agent {
        let parts = parts.into();
        let engine = Arc::new(Engine::new(&settings.engine, settings.way));
        let observer = Observer::new(engine.clone(), &settings.node_id);
        let node = Arc::new(Node {
            engine,
            observer: observer.clone(),
            board: Board::new(),
            images: settings.images,
            arrivals: Arrivals::default(),
            files: Files::new(&settings.folder),
            clock: settings.clock,
            work: Arc::new(Semaphore::new(WORK_MAX)),
            stops: Semaphore::new(STOPS_MAX),
            leaving: watch::Sender::new(false),
            lease: Lease::of(&settings.folder, settings.uptime, settings.watchdog),
            networks: Networks::default(),
            served: watch::Sender::default(),
            facts: watch::Sender::new(NodeFacts { id: settings.node_id.clone(), ..NodeFacts::default() }),
        });
        let stop = parts.stop().child_token();
        let parts = parts.until(stop.clone());
        let (health, known_health) = watch::channel(EngineHealth::default());
        let agent = Agent {
            node: node.clone(),
            node_id: settings.node_id,
            generic_resources: settings.generic_resources,
            assigned: watch::Sender::default(),
            known: watch::Sender::default(),
            health: known_health,
            _end: stop.drop_guard(),
        };
        parts.looping("engine observer", move || observer.clone().run());
        let engine = node.engine.clone();
        parts.looping("engine health", move || {
            let (engine, health) = (engine.clone(), health.clone());
            async move { health::keep(&engine, &health).await }
        });
        // A watch, so that the agent's end, not the loop's, is what ends it.
        let (assigned, known) = (agent.assigned.subscribe(), agent.known.clone());
        parts.looping(AGENT, move || {
            let (node, assigned, known) = (node.clone(), assigned.clone(), known.clone());
            Herd { node, assigned, known, lives: HashMap::new(), running: JoinSet::new() }.run()
        });
        agent
    }

    /// The whole of what this node shall know, from now on. What it has and is not told of is stopped and removed.
    ///
    /// While the node leaves its swarm, assignments that were still on their way are ignored.
    pub fn assign(&self, assignments: Assignments) {
        self.set(assignments, false);
    }

    fn set(&self, mut assignments: Assignments, leaves: bool) {
        let is_late = || !leaves && *self.node.leaving.borrow();
        if is_late() {
            return;
        }
        // What stands for plain containers is not run.
        let attached = assignments.tasks.extract_if(.., |it| it.attached.is_some());
        let attached = attached.map(|it| (it.task.id.clone(), it)).collect();
        self.node.networks.attachments().take(attached);
        let assignments = Arc::new(assignments);
        // Looked at under the lock of what is assigned: whichever comes first, nothing is assigned in the end.
        self.assigned.send_if_modified(|(number, last)| {
            if is_late() {
                return false;
            }
            *number += 1;
            *last = Some(assignments);
            true
        });
    }

    /// Streams the last state of every reported task, then each change. A new session with a manager begins with a new
    /// receiver.
    pub fn reports(&self) -> mpsc::Receiver<Report> {
        self.node.board.follow()
    }

    /// Returns the engine's description of the node, without the node's certificates.
    pub async fn describe(&self) -> Result<NodeDescription, EngineError> {
        let info = self.node.engine.get("/info").json().await?;
        let description = describe::description(&info, &self.generic_resources);
        self.node.facts.send_replace(describe::facts(&self.node_id, &description));
        Ok(description)
    }

    /// Watches the health of the engine. The first verdict is there within a few seconds.
    pub fn health(&self) -> watch::Receiver<EngineHealth> {
        self.health.clone()
    }

    /// Extends the lease of tasks of services with the label `herder.fence`. They are killed at its end unless it is
    /// extended again. A node without an engine gets no longer lease: managers count it as down, and replace its tasks.
    pub fn lease(&self, until: Instant) {
        if matches!(*self.health.borrow(), EngineHealth::Lost(_)) {
            return;
        }
        self.node.lease.set(until);
    }

    /// Stops and removes all containers of this node's tasks, and their files. For a node that leaves its swarm. Containers that do
    /// not end at once are killed: the engine's own swarm mode gives them no time either.
    pub async fn leave(&self) {
        self.node.leaving.send_replace(true);
        self.set(Assignments::default(), true);
        let number = self.assigned.borrow().0;
        // Ends early only when the agent ends.
        let _ = self.known.subscribe().wait_for(|known| known.number >= number && known.ids.is_empty()).await;
        self.node.leaving.send_replace(false);
        self.node.files.clear().await;
    }

    /// The overlay networks of this node.
    pub fn networks(&self) -> &Networks {
        &self.node.networks
    }

    /// The tasks of this node that get requests from ingress nodes, as the leader says.
    pub fn served(&self, served: IngressServed) {
        self.node.served.send_if_modified(|known| std::mem::replace(known, served.clone()) != served);
    }

    /// True if the leader has said that a node sends requests to this port of a task of this node.
    pub fn is_served(&self, from: &str, task: &str, port: u16) -> bool {
        let served = self.node.served.borrow();
        served.from.contains(from) && served.tasks.get(task).is_some_and(|it| it.ports.contains(&port))
    }

    /// The address of a task's container on a network of this host, if it runs here. A plain container is its own task.
    pub async fn address(&self, task: &str, container: &str) -> Option<IpAddr> {
        let path = format!("/containers/{}/json", crate::call::escaped(container));
        let inspection = self.node.engine.get(path).json().await.ok()?;
        let of = inspection["Config"]["Labels"]["com.docker.swarm.task.id"].as_str();
        if of.unwrap_or(container) != task {
            return None;
        }
        let networks = inspection["NetworkSettings"]["Networks"].as_object()?;
        if networks.contains_key("host") {
            return Some(IpAddr::from([127, 0, 0, 1]));
        }
        networks.values().find_map(|it| it["IPAddress"].as_str()?.parse().ok())
    }
}

/// The tasks, each with its own life.
struct Herd {
    node: Arc<Node>,
    assigned: watch::Receiver<Assigned>,
    known: watch::Sender<Known>,
    lives: HashMap<String, watch::Sender<Order>>,
    running: JoinSet<()>,
}

impl Herd {
    async fn run(mut self) {
        // What is there must be known before anything is made.
        let observer = self.node.observer.clone();
        let _ = observer.reads().wait_for(|reads| *reads > 0).await;
        while let Err(error) = self.learn().await {
            warn!(%error, "the engine does not say what it is");
            observer.recovered().await;
        }
        self.node.lease.release_all_but(&observer.containers());
        let (mut strays, mut lease) = (observer.strays(), self.node.lease.subscribe());
        loop {
            self.reconcile();
            let until = *lease.borrow_and_update();
            let unheard = self.assigned.borrow().1.is_none();
            tokio::select! {
                changed = self.assigned.changed() => if changed.is_err() { return },
                // The senders live as long as the node.
                _ = strays.changed() => {}
                _ = lease.changed() => {}
                Some(ended) = self.running.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "the work on a task has ended; restarting it");
                },
                () = sleep_until(until), if unheard && until > Instant::now() => {}
            }
        }
    }

    async fn learn(&self) -> Result<(), EngineError> {
        let info = self.node.engine.get("/info").json().await?;
        let id = self.node.facts.borrow().id.clone();
        self.node.facts.send_replace(describe::facts(&id, &describe::description(&info, &[])));
        Ok(())
    }

    /// Gives each task its order.
    fn reconcile(&mut self) {
        self.lives.retain(|_, order| !order.is_closed());
        let (number, told) = self.assigned.borrow_and_update().clone();
        let there = self.node.observer.tasks();
        match told {
            Some(told) => {
                let wanted: HashMap<&str, &Arc<TaskRecord>> =
                    told.tasks.iter().map(|record| (record.task.id.as_str(), record)).collect();
                let unwanted = self.lives.keys().chain(there.iter().map(|(id, _)| id));
                let unwanted: BTreeSet<String> =
                    unwanted.filter(|id| !wanted.contains_key(id.as_str())).cloned().collect();
                for id in unwanted {
                    self.order(&id, Order::Leave);
                }
                for record in &told.tasks {
                    self.order(&record.task.id, Order::Have(record.clone(), told.clone()));
                }
            }
            None if self.node.lease.is_over() => {
                for (id, _) in there.into_iter().filter(|(_, is_fenced)| *is_fenced) {
                    self.order(&id, Order::Fence);
                }
            }
            None => {}
        }
        let ids: BTreeSet<String> = self.lives.keys().cloned().collect();
        self.known.send_if_modified(|known| {
            let is_news = known.number != number || known.ids != ids;
            *known = Known { number, ids };
            is_news
        });
    }

    fn order(&mut self, id: &str, order: Order) {
        if let Some(life) = self.lives.get(id) {
            life.send_if_modified(|old| {
                let is_news = match (&*old, &order) {
                    // Of its service only that is looked at while the task runs.
                    (before @ Order::Have(old, _), Order::Have(new, _)) => {
                        !Arc::ptr_eq(old, new) && old != new || before.is_fenced() != order.is_fenced()
                    }
                    (Order::Leave, Order::Leave) | (Order::Fence, Order::Fence) => false,
                    _ => true,
                };
                *old = order;
                is_news
            });
            return;
        }
        let order = watch::Sender::new(order);
        let life = Life::new(self.node.clone(), id, order.subscribe());
        self.lives.insert(id.to_owned(), order);
        let (observer, id) = (self.node.observer.clone(), id.to_owned());
        self.running.spawn(async move {
            life.run().await;
            observer.forget(&id);
        });
    }
}
