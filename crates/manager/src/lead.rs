//! The leader's loop.

mod follow;
mod ingress;
mod judge;
mod learn;
mod managers;
mod nets;
mod tell;
mod work_queue;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use herder_decide::swarm::allocate::Addresses;
use herder_decide::swarm::control::{remove_superseded, settle_networks, settle_root};
use herder_decide::swarm::members::{self, HeartbeatScale};
use herder_decide::swarm::nets::Nets;
use herder_decide::swarm::{
    Fleet, Proposal, Touched, TouchedNodes, enforce_node, matters, nodes::level, on_task_report, reconcile,
};
use herder_model::swarm::{Change, ManagerAddr, NodeDescription, NodeRecord, Role, Time, ToLeader, ToNode, View};
use herder_store::{Leadership, Store, StoreError, Watch};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Settings;
use crate::sessions::Event;
use follow::{follow, learn_freed};
use ingress::IngressLead;
use tell::Session;
use work_queue::WorkQueue;

/// Interval at which the leader looks for silent nodes. A lost node is marked within twice of it after the signs are
/// there.
const LOOK: Duration = Duration::from_millis(200);
/// Interval at which the leader looks for superseded secrets and configs that nothing needs.
const SUPERSEDED_LOOK: Duration = Duration::from_secs(60);
/// Events that are taken up in one step. More would make the first of them wait for the last.
const EVENTS_MAX: usize = 2048;
/// A step is made so often while others write the same objects; each time they got on.
const ATTEMPTS_MAX: u32 = 5;
/// Reports of tasks that are taken up in one step.
const REPORTS_MAX: usize = 8192;
/// Changes in one command. A task is some kilobytes; where they are more than the store takes, it is cut in two.
const CHANGES_MAX: usize = 1024;
/// Number of changes after which a step leaves the other services to the next one. Nodes receive the first ones
/// meanwhile.
const STEP_CHANGES: usize = 8192;
/// Number of tasks of its services after which a step leaves the other services to the next one.
const STEP_TASKS: usize = 100_000;
/// Number of tasks that may be created and placed in one step. A service of usual size takes one write.
const AT_ONCE_MAX: usize = 512;
/// Tasks that get a node in one step: each run looks through all nodes once.
const PLACED_MAX: usize = 4096;
/// Pause after a command that was not written.
const REST: Duration = Duration::from_millis(100);

/// Leads whenever the store does, until `stop`.
pub(crate) async fn run(
    store: Arc<Store>,
    settings: &Settings,
    events: &mut mpsc::Receiver<Event>,
    challenges: &watch::Sender<BTreeSet<String>>,
    stop: CancellationToken,
) {
    let mut leadership = store.leadership();
    let (own_events, mut own) = mpsc::channel(crate::sessions::EVENTS_WAITING_MAX);
    let (view, mut watch) = store.watch();
    let mut addresses = Addresses::default();
    addresses.recall(&view, settings.clock.now());
    drop(view);
    loop {
        let led = async {
            let Some(term) = follow(&mut leadership, &mut watch, &mut addresses, settings).await else { return false };
            // What it wrote before, and has not heard of since, comes into effect first.
            if let Err(error) = store.commit_in(term, Vec::new(), settings.clock.now()).await {
                tracing::debug!(%error, "this node does not lead the managers yet");
                tokio::time::sleep(REST).await;
                return true;
            }
            tracing::info!("this node leads the managers");
            let mut lead = Lead::new(&store, settings, own_events.clone(), challenges, &mut addresses, term);
            while let Some(seen) = watch.try_next() {
                learn_freed(lead.addresses, &seen, settings);
            }
            lead.until_lost(&mut leadership, events, &mut own).await;
            watch = lead.watch;
            tracing::info!("this node does not lead the managers any more");
            true
        };
        match stop.run_until_cancelled(led).await {
            Some(true) => {}
            Some(false) | None => return,
        }
    }
}

struct Lead<'m> {
    store: &'m Arc<Store>,
    settings: &'m Settings,
    own_events: mpsc::Sender<Event>,
    /// The term in which this manager leads, and writes.
    term: u64,
    watch: Watch,
    /// The view that the watch delivered last; all decisions are based on it.
    view: View,
    sessions: HashMap<String, Session>,
    /// Last heartbeats of nodes without a session, and the scale that they were given.
    heard_at: HashMap<String, (Instant, HeartbeatScale)>,
    began: Instant,
    /// True until the first write of this leader.
    is_new: bool,
    /// Services to be looked at.
    work_queue: WorkQueue,
    /// Nodes to which something may have to be sent.
    touched: TouchedNodes,
    /// The managers; `None` after a possible change.
    managers: Option<Vec<ManagerAddr>>,
    /// Heartbeat scale for the present number of nodes.
    scale: HeartbeatScale,
    /// Resources of all nodes and the tasks on them, as the watch delivered them.
    fleet: Fleet,
    /// True if something was written that may help tasks without a node, since they were last tried.
    place: bool,
    /// Nodes that changed so that tasks on them may not fit there any more.
    changed: BTreeSet<String>,
    /// The addresses that were assigned last, and those that rest.
    addresses: &'m mut Addresses,
    /// Network state for the nodes.
    nets: Nets,
    /// The news of ingress nodes, and of the nodes of tasks that get requests from them.
    ingress: IngressLead,
    /// Tokens of authorities that all nodes which listen answer for.
    challenges: &'m watch::Sender<BTreeSet<String>>,
    /// Nodes that have come to a network, or left one.
    net_nodes: BTreeSet<String>,
    /// Networks that must be sent to all nodes.
    net_records: BTreeSet<String>,
    /// True if nodes get the whole state of their networks.
    net_whole: bool,
    /// True if nodes may need addresses, or the swarm its first network.
    networks: bool,
    /// Those that were looked at in the step that is made.
    enforced: Vec<String>,
    /// Nodes whose place among the managers is being changed.
    changing: BTreeSet<String>,
    /// Nodes whose stores are open, and that are not known to be among the managers yet.
    ready: BTreeSet<String>,
    /// Last time at which it looked for superseded secrets and configs.
    superseded_at: Option<Instant>,
    /// Nodes that sent a message in this step, once for each message. They are answered after the write.
    answers: Vec<String>,
}

impl<'m> Lead<'m> {
    fn new(
        store: &'m Arc<Store>,
        settings: &'m Settings,
        own_events: mpsc::Sender<Event>,
        challenges: &'m watch::Sender<BTreeSet<String>>,
        addresses: &'m mut Addresses,
        term: u64,
    ) -> Lead<'m> {
        let (view, watch) = store.watch();
        let mut lead = Lead {
            store,
            settings,
            own_events,
            term,
            watch,
            sessions: HashMap::new(),
            heard_at: HashMap::new(),
            began: Instant::now(),
            is_new: true,
            work_queue: WorkQueue::default(),
            touched: TouchedNodes::new(),
            managers: None,
            scale: HeartbeatScale::of(view.nodes.len()),
            fleet: Fleet::of(&view),
            place: true,
            changed: BTreeSet::new(),
            addresses,
            nets: Nets::of(&view),
            ingress: IngressLead::default(),
            challenges,
            net_nodes: BTreeSet::new(),
            net_records: BTreeSet::new(),
            net_whole: true,
            networks: true,
            enforced: Vec::new(),
            changing: BTreeSet::new(),
            ready: BTreeSet::new(),
            superseded_at: None,
            answers: Vec::new(),
            view,
        };
        lead.everything();
        lead
    }

    /// Looks at everything anew.
    fn everything(&mut self) {
        let view = self.view.clone();
        self.work_queue.add_all(view.services.keys().map(ToString::to_string));
        self.work_queue.add_all(view.services_of_tasks().map(ToOwned::to_owned));
        self.tell_everything(&view);
        self.changed.extend(view.nodes.keys().map(ToString::to_string));
        self.place = true;
        self.networks = true;
    }

    /// All nodes may have missed something.
    fn tell_everything(&mut self, view: &View) {
        self.touched.extend(view.nodes.keys().map(|id| (id.to_string(), Touched::whole())));
        // Who is none of the swarm's any more hears it.
        self.touched.extend(self.sessions.keys().map(|id| (id.clone(), Touched::whole())));
        self.managers = None;
        self.scale = HeartbeatScale::of(view.nodes.len());
    }

    /// Schedules a new `Welcome` for all nodes, since its content may have changed.
    fn welcome_everybody(&mut self, view: &View) {
        for id in view.nodes.keys() {
            self.touched.entry(id.to_string()).or_default();
        }
    }

    async fn until_lost(
        &mut self,
        leadership: &mut watch::Receiver<Leadership>,
        events: &mut mpsc::Receiver<Event>,
        own: &mut mpsc::Receiver<Event>,
    ) {
        let mut look = interval(LOOK);
        let mut gossip = self.settings.gossip.clone();
        let mut plain = self.settings.plain.clone();
        loop {
            let mut happened = Vec::new();
            let mut looks = false;
            let next_time = self.next_time();
            let is_busy = self.is_busy();
            tokio::select! {
                // Also when it leads again by now: nodes may have been with another one meanwhile.
                _ = leadership.changed() => return,
                seen = self.watch.next() => self.learn(&seen.view, &seen.written, seen.resync),
                event = events.recv() => happened.extend(event),
                event = own.recv() => happened.extend(event),
                _ = look.tick() => looks = true,
                // Gossip that has ended tells nothing more.
                Ok(()) = gossip.changed() => looks = true,
                Ok(()) = plain.changed() => self.ingress.see_plain(),
                () = sleep_until(next_time) => {}
                () = std::future::ready(()), if is_busy => {}
            }
            if leadership.has_changed().unwrap_or(true) {
                return;
            }
            let mut reports = 0;
            while happened.len() < EVENTS_MAX
                && reports < REPORTS_MAX
                && let Ok(event) = events.try_recv()
            {
                if let Event::Heard { said: ToLeader::Reports(more), .. } = &event {
                    reports += more.len();
                }
                happened.push(event);
            }
            if let Err(error) = self.steps(&happened, looks).await {
                tracing::warn!(%error, "failed to commit a step of the leader; closing sessions and re-evaluating all services");
                // Nodes come again and say everything anew: nothing that they said is lost.
                for node in self.sessions.keys().cloned().collect::<Vec<_>>() {
                    self.close(&node);
                }
                tokio::time::sleep(REST).await;
                self.catch_up();
                self.everything();
            }
        }
    }

    /// Something is left to do, though nothing happens.
    fn is_busy(&self) -> bool {
        self.work_queue.is_waited_for()
            || self.networks
            || self.place && self.fleet.is_waited_for()
            || !self.touched.is_empty()
    }

    /// Takes in all that was written. Else what this node has just written would be decided again, in vain.
    fn catch_up(&mut self) {
        while let Some(seen) = self.watch.try_next() {
            self.learn(&seen.view, &seen.written, seen.resync);
        }
    }

    /// Returns the earliest time at which a service is due.
    fn next_time(&self) -> Instant {
        self.work_queue.next_time().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    /// A step, again while somebody else writes the same objects meanwhile.
    async fn steps(&mut self, happened: &[Event], looks: bool) -> Result<(), StoreError> {
        for _ in 1..ATTEMPTS_MAX {
            match self.step(happened, looks).await {
                Err(StoreError::Conflict(conflict)) => {
                    tracing::debug!(%conflict, "a step of the leader was overtaken; repeating it");
                    self.work_queue.again();
                    self.networks = true;
                    self.changed.extend(self.enforced.drain(..));
                    self.place = true;
                }
                outcome => return outcome,
            }
        }
        self.step(happened, looks).await
    }

    /// Runs one step: read messages, judge nodes, decide, write, send.
    async fn step(&mut self, happened: &[Event], looks: bool) -> Result<(), StoreError> {
        let now = self.settings.clock.now();
        self.catch_up();
        let view = self.view.clone();
        let mut proposal = Proposal::new(&view, now);
        self.addresses.begin_step();
        self.answers.clear();
        if self.is_new {
            self.add(&mut proposal, members::renewed(&view, now));
        }
        for event in happened {
            self.take(event, &mut proposal, now);
        }
        if looks {
            self.judge(&mut proposal, now);
            self.add(&mut proposal, settle_root(&view).into_iter().collect());
            let raised = level::raise(proposal.view(), self.settings.level);
            self.add(&mut proposal, raised.into_iter().collect());
            self.add(&mut proposal, settle_networks(&view));
            self.remove_superseded(&mut proposal, now);
            self.change_managers(proposal.view());
        }
        self.decide(&mut proposal, now);
        let changes = proposal.into_changes();
        if !changes.is_empty() {
            self.write(changes, now).await?;
        }
        self.is_new = false;
        self.work_queue.done();
        self.enforced.clear();
        for session in self.answers.drain(..).filter_map(|node| self.sessions.get(&node)) {
            session.say.say(&ToNode::Heard);
        }
        self.catch_up();
        let view = self.view.clone();
        self.tell(&view);
        self.tell_networks(&view);
        self.tell_ingress(&view);
        Ok(())
    }

    fn remove_superseded(&mut self, proposal: &mut Proposal, now: Time) {
        if self.superseded_at.is_none_or(|it| it.elapsed() >= SUPERSEDED_LOOK) {
            self.superseded_at = Some(Instant::now());
            let removals = remove_superseded(proposal.view(), now);
            self.add(proposal, removals);
        }
    }

    /// Writes all changes in order. A command of a size that raft can send is written whole or not at all.
    async fn write(&self, changes: Vec<Change>, now: Time) -> Result<(), StoreError> {
        for changes in changes.chunks(CHANGES_MAX) {
            let mut parts = vec![changes];
            while let Some(part) = parts.pop() {
                match self.store.commit_in(self.term, part.to_vec(), now).await {
                    Err(StoreError::TooLarge { .. }) if part.len() > 1 => {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                    outcome => drop(outcome?),
                }
            }
        }
        Ok(())
    }

    /// Adds changes. If they conflict with earlier ones, they are dropped and their objects are reconciled again.
    fn add(&mut self, proposal: &mut Proposal, changes: Vec<Change>) -> bool {
        let added = proposal.add(changes);
        if let Err(conflict) = &added {
            tracing::debug!(%conflict, "a decision conflicts with a newer declaration; deciding again");
        }
        added.is_ok()
    }

    fn take(&mut self, event: &Event, proposal: &mut Proposal, now: Time) {
        match event {
            Event::Opened { node, session, hello, say, last_heartbeat } => {
                match members::comes(proposal.view(), node, hello, now) {
                    Ok(change) => {
                        self.add(proposal, change.into_iter().collect());
                        let manages = proposal.view().nodes.get(node).is_some_and(|it| it.role == Role::Manager);
                        if manages && hello.level < proposal.view().level() {
                            tracing::warn!(
                                node,
                                level = hello.level,
                                swarm = proposal.view().level(),
                                "a manager's release is older than what the swarm has written: what it does not know is kept, and \
                                 nothing new of that kind is taken in; upgrade it"
                            );
                        }
                        self.heard_at.insert(node.clone(), (Instant::now(), self.scale));
                        let has_engine = hello.engine_error.is_empty();
                        if !has_engine {
                            tracing::warn!(
                                node,
                                hello.engine_error,
                                "marked a node as down: its engine does not answer"
                            );
                            self.learn_lost(proposal.view(), node);
                        }
                        let opened = Session::new(*session, say.clone(), last_heartbeat.clone(), has_engine);
                        self.sessions.insert(node.clone(), opened);
                        self.forget_networks(node);
                        self.net_whole = true;
                        if hello.ready {
                            self.ready.insert(node.clone());
                            self.make_manager(proposal.view(), node);
                        }
                        self.touched.entry(node.clone()).or_default();
                    }
                    Err(reason) => {
                        tracing::warn!(node, reason, "refused a node");
                        say.say(&ToNode::Refused(reason));
                    }
                }
            }
            Event::Closed { node, session } => {
                if self.sessions.get(node).is_some_and(|it| it.number == *session) {
                    self.close(node);
                }
            }
            Event::Heard { node, session, said } => {
                // What was said in a session before the one that is open now is said again in this one.
                if self.sessions.get(node).is_some_and(|it| it.number == *session) {
                    self.hear(node, said, proposal, now);
                }
            }
            Event::Dissolve(done) => {
                for (_, session) in self.sessions.drain() {
                    session.say.say(&ToNode::Dissolved);
                }
                done.notify_one();
            }
            Event::Managers { node, is_manager, outcome } => {
                self.changing.remove(node);
                match outcome {
                    Ok(()) => {
                        self.ready.remove(node);
                        self.managers_changed(node, *is_manager, proposal, now);
                    }
                    Err(error) => tracing::warn!(node, error, "cannot change the managers; trying again"),
                }
            }
        }
    }

    fn hear(&mut self, node: &str, said: &ToLeader, proposal: &mut Proposal, now: Time) {
        match said {
            ToLeader::Hello(_) | ToLeader::Alive => {}
            ToLeader::NetApplied(versions) => {
                for (network, version) in versions {
                    self.nets.applied(node, network, *version);
                }
            }
            ToLeader::IngressApplied(applied) => self.hear_ingress(node, Some(applied)),
            ToLeader::IngressWhole => self.hear_ingress(node, None),
            ToLeader::NetWhole => {
                if let Some(session) = self.sessions.get_mut(node) {
                    session.nets = None;
                    self.net_whole = true;
                }
            }
            ToLeader::Attach(wanted) => self.attach(node, wanted, proposal, now),
            ToLeader::Whole => self.touched.entry(node.to_owned()).or_default().whole = true,
            ToLeader::Reports(reports) => {
                for report in reports {
                    let change = on_task_report(proposal.view(), &report.task_id, report.status.clone(), node, now);
                    let Some(change) = change else { continue };
                    let before = proposal.view().tasks.get(&report.task_id).cloned();
                    self.add(proposal, vec![change]);
                    let after = proposal.view().tasks.get(&report.task_id);
                    if let Some(after) = after
                        && matters(proposal.view(), before.as_deref(), Some(after))
                    {
                        self.work_queue.add(&after.task.service_id);
                    }
                }
            }
            ToLeader::Describe(description) => {
                if let Some(known) = proposal.view().nodes.get(node)
                    && known.node.description != **description
                {
                    let mut record = NodeRecord::clone(known);
                    record.node.description = NodeDescription::clone(description);
                    self.add(proposal, vec![record.into()]);
                }
            }
            ToLeader::Ready => {
                self.ready.insert(node.to_owned());
                self.make_manager(proposal.view(), node);
            }
            ToLeader::Leave => {
                let change = members::goes(proposal.view(), node, "the node left the swarm", true, now);
                self.add(proposal, change.into_iter().collect());
                self.close(node);
            }
        }
        self.answers.push(node.to_owned());
    }

    /// The session of a node is over; since when it is silent is kept.
    fn close(&mut self, node: &str) {
        let Some(session) = self.sessions.remove(node) else { return };
        self.forget_networks(node);
        let at = session.last_heartbeat.heard().map_or(self.began, |(at, _)| at);
        let known = self.heard_at.entry(node.to_owned()).or_insert((at, session.scale));
        *known = (known.0.max(at), known.1.max(session.scale));
    }

    /// Everything that is to be done now, as far as it fits into one step.
    fn decide(&mut self, proposal: &mut Proposal, now: Time) {
        self.work_queue.wake(Instant::now());
        self.keep_networks(proposal);
        let mut ids = self.settings.new_id;
        for node in std::mem::take(&mut self.changed) {
            let changes = enforce_node(proposal.view(), &node, now);
            self.add(proposal, changes);
            self.enforced.push(node);
        }
        let mut tasks = 0;
        while proposal.len() < STEP_CHANGES
            && tasks < STEP_TASKS
            && let Some(service) = self.work_queue.next()
        {
            tasks += proposal.view().task_count_of_service(&service) + 1;
            self.complete(proposal, &service);
            let mut plan = reconcile(proposal.view(), &service, now, &mut ids);
            self.work_queue.set_time(&service, plan.again.map(|time| Instant::now() + time.since(now)));
            if let Some(record) = proposal.view().services.get(&*service) {
                plan.changes = self.addresses.give(proposal.view(), record, plan.changes);
            }
            // Nothing else is decided about a service and its tasks in this step, but where they are placed: few of them at once.
            if proposal.len() + plan.changes.len() <= AT_ONCE_MAX {
                self.add(proposal, plan.changes);
            } else {
                proposal.conclude(plan.changes);
            }
        }
        self.place_tasks(proposal, now);
    }

    /// Places waiting tasks, and those created in this step if they are few. Once the watch delivers a placement, it
    /// counts on its node for good.
    fn place_tasks(&mut self, proposal: &mut Proposal, now: Time) {
        let written = proposal.written();
        let made = Fleet::is_waited_for_in(written);
        let waits = std::mem::take(&mut self.place) && self.fleet.is_waited_for();
        if made {
            let placed = self.fleet.schedule_after(written, now, PLACED_MAX);
            let fits = self.add(proposal, placed.changes);
            self.place = placed.more || !fits;
        } else if waits {
            let placed = self.fleet.schedule_up_to(now, PLACED_MAX);
            // A task that was decided about in this step is placed in the next one, if it still waits.
            let (late, changes): (Vec<_>, Vec<_>) = placed.changes.into_iter().partition(|change| proposal.has(change));
            proposal.conclude(changes);
            self.place = placed.more || !late.is_empty();
        }
    }
}
