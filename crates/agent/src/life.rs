//! One task: step after step, as `decide::swarm::step` says, until it is not this node's any more.

mod hooks;
mod networks;

use std::sync::Arc;
use std::time::Duration;

use herder_decide::swarm::container::hooks::{Hooks, step_name};
use herder_decide::swarm::container::{self, Create, NodeFacts, stop_seconds};
use herder_decide::swarm::step::{self, Seen, Step};
use herder_docker::{EngineError, classify};
use herder_model::swarm::{
    Assignments, Clock, ContainerStatus, IngressServed, PortStatus, TaskRecord, TaskState, TaskStatus,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use crate::board::Board;
use crate::call::{CALL_TIME_MAX, Engine, escaped, refusal};
use crate::files::Files;
use crate::images::{Arrivals, Images, may_be_newer};
use crate::lease::Lease;
use crate::net::Networks;
use crate::observe::{Observer, Shown};

/// Maximum time for the event of a call; then the container is inspected.
const EVENT_TIME_MAX: Duration = Duration::from_secs(1);

/// A container that cannot be removed is tried again so much later.
const AGAIN_TIME: Duration = Duration::from_secs(5);

/// Stops that wait for their containers at the same time. They cost the engine little, and each may take its grace period.
pub(crate) const STOPS_MAX: usize = 64;

/// Time for which a stop counts as work of the engine. A container that obeys has ended by then; one that does not must
/// not delay others.
const STOP_TURN_MAX: Duration = Duration::from_millis(150);

/// Time for containers to end when their node leaves its swarm. Docker's engine gives them no time at all.
const LEAVE_GRACE: Duration = Duration::from_millis(700);

/// Time that a draining task waits for its ingress nodes beyond its service's own. It is at most half of that one:
/// nodes may hear of it late.
const DRAIN_SLACK: Duration = Duration::from_secs(5);

/// Message of a task that had to end because no manager answered.
const FENCED: &str =
    "stopped: this node has not heard from a manager for too long, and the service has the label herder.fence";

/// State that all tasks of the node share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) engine: Arc<Engine>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) board: Arc<Board>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) arrivals: Arrivals,
    pub(crate) files: Files,
    pub(crate) clock: Clock,
    /// Turns of those who make, start and remove.
    pub(crate) work: Arc<Semaphore>,
    pub(crate) stops: Semaphore,
    /// True when the node leaves its swarm: stops of its containers are not awaited.
    pub(crate) leaving: watch::Sender<bool>,
    /// Lease of the node's fenced tasks.
    pub(crate) lease: Lease,
    /// Overlay networks.
    pub(crate) networks: Networks,
    /// The tasks that get requests from ingress nodes.
    pub(crate) served: watch::Sender<IngressServed>,
    pub(crate) facts: watch::Sender<NodeFacts>,
}

/// Goal of the managers for a task.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Have(Arc<TaskRecord>, Arc<Assignments>),
    /// The task is not this node's any more: everything of it is removed.
    Leave,
    /// Managers have not said anything yet; it may not run without them.
    Fence,
}

impl Order {
    fn record(&self) -> Option<&TaskRecord> {
        match self {
            Order::Have(record, _) => Some(record),
            Order::Leave | Order::Fence => None,
        }
    }

    pub(crate) fn is_fenced(&self) -> bool {
        match self {
            Order::Have(record, told) => container::is_fenced(record, told),
            Order::Leave => false,
            Order::Fence => true,
        }
    }
}

/// Reason why a step had no result.
enum Stuck {
    /// The task cannot go on, with the reported reason.
    Refused(String),
    /// The engine did not answer: it is tried again when it does.
    Engine(EngineError),
    /// Something else is wanted meanwhile.
    Changed,
}

impl From<EngineError> for Stuck {
    fn from(error: EngineError) -> Stuck {
        match refusal(&error) {
            Some((_, message)) => Stuck::Refused(message.to_owned()),
            None => Stuck::Engine(error),
        }
    }
}

/// A task on this node.
#[derive(Debug)]
pub(crate) struct Life {
    node: Arc<Node>,
    id: String,
    order: watch::Receiver<Order>,
    shown: watch::Receiver<Shown>,
    lease: watch::Receiver<Instant>,
    told: TaskStatus,
    /// Its container is being stopped because its check gave it up.
    unhealthy: bool,
    /// True if the container is being stopped because no manager answered.
    fenced: bool,
    /// Its container has run, or may have.
    has_run: bool,
    /// The container that the watchdog knows of; empty if there is none.
    held: String,
    /// Held back from making the container until it runs, so that tasks are finished one after the other.
    turn: Option<OwnedSemaphorePermit>,
    stop_seconds: Option<i64>,
    hooks: Hooks,
    /// Names of the containers of its `PreStart` steps.
    steps: Vec<String>,
    post_started: bool,
    pre_stopped: bool,
    /// The failure of a hook, for which its container is being stopped; empty if there is none.
    failure: String,
}

impl Life {
    pub(crate) fn new(node: Arc<Node>, id: &str, order: watch::Receiver<Order>) -> Life {
        let told = order.borrow().record().map(|record| record.task.status.clone()).unwrap_or_default();
        Life {
            id: id.to_owned(),
            order,
            shown: node.observer.watch(id),
            lease: node.lease.subscribe(),
            unhealthy: false,
            fenced: false,
            // Of one that was told to start before this life began, nothing is known.
            has_run: told.state >= TaskState::Starting,
            held: String::new(),
            turn: None,
            stop_seconds: None,
            hooks: Hooks::default(),
            steps: Vec::new(),
            post_started: told.state >= TaskState::Running,
            pre_stopped: false,
            failure: String::new(),
            told,
            node,
        }
    }

    /// Returns when nothing of the task is left.
    pub(crate) async fn run(mut self) {
        let order = self.order.borrow().clone();
        self.note(&order);
        if self.told.state == TaskState::Starting && order.record().is_none_or(is_over) {
            // This node's herder was started anew while a step ran.
            self.remove_steps().await;
        }
        loop {
            let (order, shown) = (self.order.borrow_and_update().clone(), self.shown.borrow_and_update().clone());
            self.note(&order);
            let step = self.next(&order, &shown);
            debug!(task = self.id, ?step, "next");
            let outcome = match &order {
                Order::Leave if shown.id.is_empty() => break,
                _ => self.step(step, &order, &shown).await,
            };
            match outcome {
                Ok(()) | Err(Stuck::Changed) => {}
                Err(Stuck::Refused(why)) => self.fail(why, &shown),
                Err(Stuck::Engine(error)) => {
                    warn!(task = self.id, %error, "the engine does not answer; the task waits for it");
                    self.turn = None;
                    self.node.observer.recovered().await;
                }
            }
        }
        self.remove_steps().await;
        self.node.files.remove(&self.id);
        self.node.board.forget(&self.id);
    }

    /// Notes the state in the order. It may be further than the reported one, such as a task that was given up.
    fn note(&mut self, order: &Order) {
        let Some(record) = order.record() else { return };
        if record.task.status.state > self.told.state {
            self.told = record.task.status.clone();
        }
        let Some(spec) = &record.task.spec.container_spec else { return };
        self.stop_seconds = Some(stop_seconds(spec));
        self.hooks = Hooks::of(spec);
        let name = container::task_name(record);
        self.steps = (1..=self.hooks.pre_start.len()).map(|number| step_name(&name, number)).collect();
    }

    fn next(&mut self, order: &Order, shown: &Shown) -> Step {
        let running = matches!(shown.seen, Seen::Running(_));
        let is_fenced = order.is_fenced() || shown.is_fenced;
        self.has_run |= matches!(shown.seen, Seen::Running(_) | Seen::Ended { .. });
        // Before it is started: whatever becomes of this program from here on, the watchdog knows of it.
        match shown.seen {
            Seen::Created | Seen::Running(_) if is_fenced && !shown.id.is_empty() => {
                self.node.lease.hold(&shown.id, shown.pid);
                self.held.clone_from(&shown.id);
            }
            Seen::Ended { .. } | Seen::Nothing if !self.held.is_empty() => {
                self.node.lease.release(&std::mem::take(&mut self.held));
            }
            Seen::Created | Seen::Running(_) | Seen::Ended { .. } | Seen::Nothing => {}
        }
        let fenced = self.fenced || is_fenced && *self.lease.borrow_and_update() <= Instant::now();
        match order {
            Order::Leave if running => Step::Stop,
            Order::Leave => Step::Remove,
            _ if fenced && running => Step::Stop,
            Order::Have(record, _) if fenced && self.told.state < TaskState::Complete => {
                // Without a lease nothing begins; what began has ended.
                let is_told = self.told.state >= TaskState::Starting;
                let began = self.fenced || matches!(shown.seen, Seen::Ended { .. });
                if is_told || record.task.desired_state >= TaskState::Shutdown {
                    Step::Fail(FENCED.into())
                } else if began {
                    // Before this node's herder was started anew.
                    Step::Tell(TaskState::Starting)
                } else {
                    Step::Rest
                }
            }
            Order::Fence => Step::Rest,
            Order::Have(record, _) => {
                let name = container::task_name(record);
                let task = step::Task {
                    desired: record.task.desired_state,
                    told: self.told.state,
                    name: &name,
                    is_checked: container::is_checked(record),
                    is_unhealthy: self.unhealthy,
                    has_run: self.has_run,
                    has_hooks: !self.post_started && !self.hooks.post_start.is_empty(),
                    failure: &self.failure,
                };
                step::next(task, &shown.seen)
            }
        }
    }

    async fn step(&mut self, step: Step, order: &Order, shown: &Shown) -> Result<(), Stuck> {
        match (step, order) {
            (Step::Rest, _) => self.rest(order.is_fenced() || shown.is_fenced).await,
            (Step::Tell(state), _) => self.tell(state, shown),
            (Step::Fail(why), _) => self.fail(why, shown),
            (Step::Stop, _) => return self.stop(order, shown).await,
            (Step::Remove, _) => return self.remove(shown).await,
            (Step::PostStart, _) => return self.post_start(shown).await,
            (Step::Prepare, Order::Have(record, told)) => return self.prepare(record, told, shown).await,
            (Step::Start, Order::Have(record, told)) => return self.start(record, told, shown).await,
            // Only a task that the node has is made.
            (Step::Prepare | Step::Start, Order::Leave | Order::Fence) => {}
        }
        Ok(())
    }

    async fn rest(&mut self, is_fenced: bool) {
        self.turn = None;
        let lease = *self.lease.borrow();
        let over = async {
            match is_fenced && lease > Instant::now() {
                true => sleep_until(lease).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            // The senders live as long as the node.
            _ = self.order.changed() => {}
            _ = self.shown.changed() => {}
            _ = self.lease.changed(), if is_fenced => {}
            () = over => {}
        }
    }

    fn tell(&mut self, state: TaskState, shown: &Shown) {
        let message = step::message(state).into();
        let status = TaskStatus { state, message, err: String::new(), ..self.told.clone() };
        self.put(status, shown);
    }

    fn fail(&mut self, why: String, shown: &Shown) {
        self.turn = None;
        self.put(step::failed(&self.told, why), shown);
    }

    fn put(&mut self, status: TaskStatus, shown: &Shown) {
        let mut status = TaskStatus { timestamp: self.node.clock.now().to_string(), ..status };
        if status.state >= TaskState::Starting && !shown.id.is_empty() {
            let exit_code = match shown.seen {
                Seen::Ended { exit_code, .. } => exit_code,
                Seen::Nothing | Seen::Created | Seen::Running(_) => 0,
            };
            let container_id = shown.id.clone();
            let container = ContainerStatus { container_id, pid: shown.pid, exit_code, ..ContainerStatus::default() };
            status.container_status = Some(container);
            status.port_status = PortStatus { ports: shown.ports.clone(), ..PortStatus::default() };
        }
        if status.state >= TaskState::Complete && !matches!(shown.seen, Seen::Running(_)) {
            // What has ended needs no secrets, however long it is kept as history.
            self.node.files.remove(&self.id);
        }
        if status.state >= TaskState::Complete && self.told.state < TaskState::Complete {
            self.node.networks.endpoint_ended(&self.id);
        }
        self.told = status.clone();
        self.node.board.tell(&self.id, status);
    }

    /// Resolves when the order no longer agrees with `record`, so that going on is useless.
    async fn called_off(mut order: watch::Receiver<Order>) {
        let off = |order: &Order| order.record().is_none_or(is_over);
        // The sender lives as long as the node.
        let _ = order.wait_for(off).await;
    }

    async fn take_turn(&mut self) {
        if self.turn.is_none() {
            // Never closed.
            self.turn = self.node.work.clone().acquire_owned().await.ok();
        }
    }

    async fn prepare(&mut self, record: &TaskRecord, told: &Assignments, shown: &Shown) -> Result<(), Stuck> {
        let off = Life::called_off(self.order.clone());
        tokio::select! {
            biased;
            () = off => Err(Stuck::Changed),
            made = self.make_on_networks(record, told) => made,
        }?;
        self.until_changed(shown).await
    }

    async fn make(&mut self, record: &TaskRecord, told: &Assignments) -> Result<(), Stuck> {
        let node = self.node.clone();
        let facts = node.facts.borrow().clone();
        let create = self.plan(record, told, &facts).await?;
        let auth = told.services.get(&record.task.service_id).map_or("", |facts| &facts.registry_auth);
        if may_be_newer(&create.image, auth) {
            node.arrivals.renew(&node, &create.image, auth).await;
        }
        self.take_turn().await;
        for volume in &create.volumes {
            node.engine.post("/volumes/create").body(volume).done().await?;
        }
        let path = format!("/containers/create?name={}", escaped(&create.name));
        let made = node.engine.post(&path).body(&create.body).done().await;
        let made = match &made {
            Err(error) if refusal(error).is_some_and(|(status, text)| classify::misses_image(status, text)) => {
                self.turn = None;
                node.arrivals.bring(&node, &create.image, auth).await;
                self.take_turn().await;
                node.engine.post(&path).body(&create.body).done().await
            }
            _ => made,
        };
        match made {
            // It was made before, and nobody heard of it.
            Err(error) if refusal(&error).is_some_and(|(status, _)| status == 409) => {
                node.observer.look(&self.id, &create.name).await?;
                if self.shown.borrow().id.is_empty() { Err(error.into()) } else { Ok(()) }
            }
            made => Ok(made?),
        }
    }

    /// Writes the task's files and says what to create.
    async fn plan(&self, record: &TaskRecord, told: &Assignments, facts: &NodeFacts) -> Result<Create, Stuck> {
        let files = container::files(record, told, facts).map_err(Stuck::Refused)?;
        let binds = self.node.files.put(&self.id, &files).await.map_err(|error| Stuck::Refused(error.to_string()))?;
        let overlays = self.overlays(record).await.map_err(|error| Stuck::Refused(error.to_string()))?;
        container::create(record, told, facts, &binds, &overlays).map_err(Stuck::Refused)
    }

    async fn start(&mut self, record: &TaskRecord, told: &Assignments, shown: &Shown) -> Result<(), Stuck> {
        let node = self.node.clone();
        let facts = node.facts.borrow().clone();
        // Once more: the host may have been turned off since the container was made, and the files with it.
        let create = self.plan(record, told, &facts).await?;
        let auth = told.services.get(&record.task.service_id).map_or("", |facts| &facts.registry_auth);
        self.pre_start(&create, auth, shown).await?;
        let off = Life::called_off(self.order.clone());
        tokio::select! {
            biased;
            () = off => return Err(Stuck::Changed),
            () = self.take_turn() => {}
        }
        let container = escaped(&shown.id);
        networks::connect(&node.engine, &shown.id, &create.networks).await?;
        let started = node.engine.post(format!("/containers/{container}/start")).done().await;
        self.turn = None;
        let Err(error) = started else { return self.until_changed(shown).await };
        let Some((_, why)) = refusal(&error) else { return Err(error.into()) };
        let why = format!("starting container failed: {why}");
        // For its exit code.
        node.observer.look(&self.id, &shown.id).await?;
        let shown = self.shown.borrow_and_update().clone();
        if shown.id.is_empty() {
            // Somebody took it away before it ran.
            return Err(Stuck::Changed);
        }
        self.fail(why, &shown);
        Ok(())
    }

    async fn stop(&mut self, order: &Order, shown: &Shown) -> Result<(), Stuck> {
        let wanted = order.record().is_some_and(|record| record.task.desired_state < TaskState::Shutdown);
        self.unhealthy |= wanted && shown.seen == Seen::Running(step::Health::Unhealthy);
        let node = self.node.clone();
        let over = lease_over(self.lease.clone(), order.is_fenced() || shown.is_fenced);
        let stopped = tokio::select! {
            biased;
            () = over => {
                self.fenced = true;
                // Another node may start the next one any moment: there is no time for grace, nor for turns.
                node.engine.post(format!("/containers/{}/kill", escaped(&shown.id))).done().await
            }
            () = leaves(node.leaving.subscribe()) => {
                let stopped = timeout(LEAVE_GRACE, self.stop_in_time(shown)).await;
                match stopped {
                    Ok(stopped) => stopped,
                    Err(_) => node.engine.post(format!("/containers/{}/kill", escaped(&shown.id))).done().await,
                }
            }
            stopped = async {
                self.drain(order).await;
                self.pre_stop(shown).await;
                self.stop_in_time(shown).await
            } => stopped,
        };
        match stopped {
            // It is gone, or will not stop: what the engine shows counts.
            Err(error) if refusal(&error).is_some() => {
                warn!(task = self.id, %error, "cannot stop a container");
                node.observer.look(&self.id, &shown.id).await?;
            }
            stopped => stopped?,
        }
        self.until_changed(shown).await
    }

    /// Waits until ingress nodes have no requests to the task any more, for as long as its service allows.
    async fn until_served(&self) {
        let mut served = self.node.served.subscribe();
        let Some(drain) = served.borrow().tasks.get(&self.id).map(|it| Duration::from_millis(it.drain_ms)) else {
            return;
        };
        // Ingress nodes end streams within the time that the service allows, counted from when they heard of it.
        let limit = drain + DRAIN_SLACK.min(drain / 2);
        let has_left = served.wait_for(|it| !it.tasks.contains_key(&self.id));
        let _ = timeout(limit, has_left).await;
    }

    /// Waits until no node sends the task new connections.
    async fn drain(&self, order: &Order) {
        if matches!(order, Order::Have(..)) {
            self.until_served().await;
        }
        if let Order::Have(record, told) = order
            && record.networks.iter().any(|it| it.v4.is_some())
        {
            let (max, delay) = container::drain(record, told);
            // The limit is the answer as well: nobody may hold up the end of a task.
            let _ = timeout(max, self.node.networks.drained(&self.id)).await;
            sleep(delay).await;
        }
    }

    async fn stop_in_time(&mut self, shown: &Shown) -> Result<(), EngineError> {
        let node = self.node.clone();
        // Never closed.
        let _turn = node.stops.acquire().await;
        self.take_turn().await;
        // Without a number, the one that the container was made with counts.
        let seconds = self.stop_seconds.map(|seconds| format!("?t={seconds}")).unwrap_or_default();
        let grace = Duration::from_secs(self.stop_seconds.unwrap_or_default().unsigned_abs());
        let path = format!("/containers/{}/stop{seconds}", escaped(&shown.id));
        let stopping = node.engine.post(path).limit(CALL_TIME_MAX + grace).done();
        tokio::pin!(stopping);
        if let Ok(stopped) = timeout(STOP_TURN_MAX, &mut stopping).await {
            return stopped;
        }
        // It takes its time, and the engine has nothing to do meanwhile.
        self.turn = None;
        stopping.await
    }

    async fn remove(&mut self, shown: &Shown) -> Result<(), Stuck> {
        let node = self.node.clone();
        self.take_turn().await;
        let path = format!("/containers/{}?v=1&force=1", escaped(&shown.id));
        let removed = node.engine.delete(path).done().await;
        self.turn = None;
        match removed {
            // It is gone, or somebody else removes it.
            Err(error) if refusal(&error).is_some_and(|(status, _)| matches!(status, 404 | 409)) => {}
            Err(error) if refusal(&error).is_some() => {
                warn!(task = self.id, %error, "cannot remove a container; it is tried again");
                // Whatever holds it may be gone by then.
                let _ = timeout(AGAIN_TIME, self.shown.changed()).await;
                return Ok(());
            }
            removed => removed?,
        }
        self.until_changed(shown).await
    }

    /// An event tells what a call has done; the engine is asked if none comes.
    async fn until_changed(&mut self, before: &Shown) -> Result<(), Stuck> {
        let changed = self.shown.wait_for(|shown| shown != before);
        if timeout(EVENT_TIME_MAX, changed).await.is_ok() {
            return Ok(());
        }
        if before.id.is_empty() {
            self.node.observer.recovered().await;
            return Ok(());
        }
        Ok(self.node.observer.look(&self.id, &before.id).await?)
    }
}

fn is_over(record: &TaskRecord) -> bool {
    record.task.desired_state >= TaskState::Shutdown
}

/// Returns when the node leaves its swarm.
async fn leaves(mut leaving: watch::Receiver<bool>) {
    if leaving.wait_for(|it| *it).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves at the end of the lease of a fenced task; never for others.
async fn lease_over(mut lease: watch::Receiver<Instant>, is_fenced: bool) {
    if !is_fenced {
        return std::future::pending().await;
    }
    loop {
        let until = *lease.borrow_and_update();
        if until <= Instant::now() {
            return;
        }
        tokio::select! {
            () = sleep_until(until) => {}
            // The sender lives as long as the node.
            _ = lease.changed() => {}
        }
    }
}
