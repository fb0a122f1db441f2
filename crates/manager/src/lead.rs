//! The leader's loop.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use herder_decide::swarm::control::settle_root;
use herder_decide::swarm::members::{self, Signs};
use herder_decide::swarm::{Fleet, Proposal, enforce_node, on_task_report, reconcile};
use herder_model::swarm::{
    Assignments, Change, ClusterSpec, ManagerAddr, NodeDescription, NodeRecord, Object, Role, SwarmNodeState,
    TaskState, Time, ToLeader, ToNode, View, Welcome, Written,
};
use herder_store::{Leadership, Store, StoreError, Watch};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Settings;
use crate::sessions::{Event, Mouth};

/// How often the leader looks who is silent. Nodes that are lost are known to be within twice of it after the signs are there.
const LOOK: Duration = Duration::from_millis(200);
/// How often nodes are to be heard.
const HEARTBEAT: Duration = Duration::from_millis(400);
/// For so long after the leader was heard, a node may believe that nobody else does its work.
const LEASE: Duration = Duration::from_secs(2);
/// Events that are taken up in one step. More would make the first of them wait for the last.
const EVENTS_MAX: usize = 2048;
/// A step is made so often while others write the same objects; each time they got on.
const ATTEMPTS_MAX: u32 = 5;
/// Changes in one command, as in swarm mode. A task is some kilobytes.
const CHANGES_MAX: usize = 200;
/// Tasks that get a node in one step: one command must not become too long, and each looks through all nodes once.
const PLACED_MAX: usize = 1000;
/// Why a node is down, in swarm mode's words.
const SILENT: &str = "heartbeat failure";
/// After a command that was not written, the next attempt waits so long.
const REST: Duration = Duration::from_millis(100);

/// Leads whenever the store does, until `stop`.
pub(crate) async fn run(
    store: Arc<Store>,
    settings: Settings,
    mut events: mpsc::Receiver<Event>,
    stop: CancellationToken,
) {
    let mut leadership = store.leadership();
    let (own_events, mut own) = mpsc::channel(crate::sessions::EVENTS_WAITING_MAX);
    loop {
        let led = async {
            if leadership.wait_for(|it| it.me).await.is_err() {
                return false;
            }
            tracing::info!("this node leads the managers");
            let mut lead = Lead::new(&store, &settings, own_events.clone());
            lead.until_lost(&mut leadership, &mut events, &mut own).await;
            tracing::info!("this node does not lead the managers any more");
            true
        };
        match stop.run_until_cancelled(led).await {
            Some(true) => {}
            Some(false) | None => return,
        }
    }
}

/// What is known of one node besides what is written.
struct Session {
    number: u64,
    say: Mouth,
    /// What it was told last, in short.
    told: Option<Told>,
    welcomed: Welcome,
}

/// Tasks with what is wanted of them, and what else goes with them. Specifications of tasks never change.
type Told = (Vec<(String, TaskState)>, Vec<String>);

struct Lead<'m> {
    store: &'m Arc<Store>,
    settings: &'m Settings,
    own_events: mpsc::Sender<Event>,
    watch: Watch,
    sessions: HashMap<String, Session>,
    /// When nodes were heard last; since this node leads, for those that were not.
    heard_at: HashMap<String, Instant>,
    began: Instant,
    /// Services to be looked at.
    dirty: BTreeSet<String>,
    /// When services are to be looked at again.
    again: BTreeMap<String, Time>,
    /// Nodes that may have to be told something.
    touched: BTreeSet<String>,
    /// What all nodes have and what is on them, as far as the watch has told.
    fleet: Fleet,
    /// The last command that the watch has told of.
    seen: u64,
    /// Whether something was written since tasks without a node were last tried.
    place: bool,
    /// Nodes that changed so that tasks on them may not fit there any more.
    changed: BTreeSet<String>,
    /// Nodes whose place among the managers is being changed.
    changing: BTreeSet<String>,
    /// Nodes whose stores are open, and that are not known to be among the managers yet.
    ready: BTreeSet<String>,
    /// Who said something in this step, once for each time. They are answered when it is written.
    answers: Vec<String>,
}

impl<'m> Lead<'m> {
    fn new(store: &'m Arc<Store>, settings: &'m Settings, own_events: mpsc::Sender<Event>) -> Lead<'m> {
        let (view, watch) = store.watch();
        let mut lead = Lead {
            store,
            settings,
            own_events,
            watch,
            sessions: HashMap::new(),
            heard_at: HashMap::new(),
            began: Instant::now(),
            dirty: BTreeSet::new(),
            again: BTreeMap::new(),
            touched: BTreeSet::new(),
            fleet: Fleet::of(&view),
            seen: view.index,
            place: true,
            changed: BTreeSet::new(),
            changing: BTreeSet::new(),
            ready: BTreeSet::new(),
            answers: Vec::new(),
        };
        lead.everything(&view);
        lead
    }

    /// Looks at everything anew.
    fn everything(&mut self, view: &View) {
        self.dirty.extend(view.services.keys().cloned());
        self.dirty.extend(view.tasks.values().map(|it| it.task.service_id.clone()));
        self.touched.extend(view.nodes.keys().cloned());
        self.changed.extend(view.nodes.keys().cloned());
        self.place = true;
    }

    async fn until_lost(
        &mut self,
        leadership: &mut watch::Receiver<Leadership>,
        events: &mut mpsc::Receiver<Event>,
        own: &mut mpsc::Receiver<Event>,
    ) {
        let mut look = interval(LOOK);
        let mut gossip = self.settings.gossip.clone();
        loop {
            let mut happened = Vec::new();
            let mut looks = false;
            let next_time = self.next_time();
            tokio::select! {
                // Also when it leads again by now: nodes may have been with another one meanwhile.
                _ = leadership.changed() => return,
                seen = self.watch.next() => self.learn(&seen.view, &seen.written, seen.resync),
                event = events.recv() => happened.extend(event),
                event = own.recv() => happened.extend(event),
                _ = look.tick() => looks = true,
                changed = gossip.changed() => looks = changed.is_ok(),
                () = sleep_until(next_time) => {}
            }
            while happened.len() < EVENTS_MAX
                && let Ok(event) = events.try_recv()
            {
                happened.push(event);
            }
            // What one command makes doubtful is mostly what the next one does.
            while let Some(seen) = self.watch.try_next() {
                self.learn(&seen.view, &seen.written, seen.resync);
            }
            if let Err(error) = self.steps(&happened, looks).await {
                tracing::warn!(%error, "a step of the leader was not written; everything is looked at again");
                // Nodes come again and say everything anew: nothing that they said is lost.
                self.sessions.clear();
                tokio::time::sleep(REST).await;
                self.everything(&self.store.view());
            }
        }
    }

    /// When a service is to be looked at again.
    fn next_time(&self) -> Instant {
        let now = self.settings.clock.now();
        let next = self.again.values().min().map(|time| time.since(now));
        Instant::now() + next.unwrap_or(Duration::from_secs(3600))
    }

    /// What was written, by whoever.
    fn learn(&mut self, view: &View, written: &[Written], resync: bool) {
        if resync {
            self.fleet = Fleet::of(view);
            self.everything(view);
        }
        self.fleet.see(written);
        self.seen = view.index;
        self.place = true;
        for written in written {
            for object in [&written.before, &written.after].into_iter().flatten() {
                match object {
                    Object::Service(it) => drop(self.dirty.insert(it.service.id.clone())),
                    Object::Task(it) => {
                        self.dirty.insert(it.task.service_id.clone());
                        self.touched.insert(it.task.node_id.clone());
                    }
                    Object::Node(it) => self.touched.extend([it.node.id.clone()]),
                    Object::Cluster(_) => self.touched.extend(view.nodes.keys().cloned()),
                    Object::Secret(_) | Object::Config(_) => {}
                }
            }
            if let Some(Object::Node(node)) = written.object() {
                self.learn_node(view, &node.node.id, written);
            }
        }
    }

    /// A node that came, went or became another one: services that may be on it are looked at.
    fn learn_node(&mut self, view: &View, id: &str, written: &Written) {
        let (Some(Object::Node(before)), Some(Object::Node(after))) = (&written.before, &written.after) else {
            self.dirty.extend(view.services.keys().cloned());
            return;
        };
        let as_it_counts =
            |it: &NodeRecord| (it.node.spec.clone(), it.node.status.state, it.role, it.node.description.clone());
        if as_it_counts(before) == as_it_counts(after) {
            return;
        }
        self.changed.insert(id.to_owned());
        self.dirty.extend(view.tasks_of_node(id).map(|it| it.task.service_id.clone()));
        let wide = |mode: &herder_model::swarm::ServiceMode| mode.global.is_some() || mode.global_job.is_some();
        let global = view.services.values().filter(|it| wide(&it.service.spec.mode));
        self.dirty.extend(global.map(|it| it.service.id.clone()));
    }

    /// A step, again while somebody else writes the same objects meanwhile.
    async fn steps(&mut self, happened: &[Event], looks: bool) -> Result<(), StoreError> {
        for _ in 1..ATTEMPTS_MAX {
            match self.step(happened, looks).await {
                Err(StoreError::Conflict(conflict)) => {
                    tracing::debug!(%conflict, "a step of the leader was overtaken; it is made again");
                    self.everything(&self.store.view());
                }
                outcome => return outcome,
            }
        }
        self.step(happened, looks).await
    }

    /// One step: hear, judge, decide, write, tell.
    async fn step(&mut self, happened: &[Event], looks: bool) -> Result<(), StoreError> {
        let now = self.settings.clock.now();
        let view = self.store.view();
        let mut proposal = Proposal::new(&view, now);
        self.answers.clear();
        for event in happened {
            self.take(event, &mut proposal, now);
        }
        if looks {
            self.judge(&mut proposal, now);
            self.add(&mut proposal, settle_root(&view).into_iter().collect());
            self.change_managers(proposal.view());
        }
        self.decide(&mut proposal, view.index, now);
        let changes = proposal.into_changes();
        let view = self.write(view, changes, now).await?;
        for session in self.answers.drain(..).filter_map(|node| self.sessions.get(&node)) {
            session.say.say(&ToNode::Heard);
        }
        self.tell(&view);
        Ok(())
    }

    /// Writes all changes in their order; a command of a size that raft can send is written whole or not at all.
    async fn write(&self, mut view: View, changes: Vec<Change>, now: Time) -> Result<View, StoreError> {
        for command in changes.chunks(CHANGES_MAX) {
            view = self.store.commit(command.to_vec(), now).await?;
        }
        Ok(view)
    }

    /// Changes that do not fit are those of somebody who was too late; what they were about is looked at again.
    fn add(&mut self, proposal: &mut Proposal, changes: Vec<Change>) {
        if let Err(conflict) = proposal.add(changes) {
            tracing::debug!(%conflict, "a decision does not fit what is declared now; it is made again");
        }
    }

    fn take(&mut self, event: &Event, proposal: &mut Proposal, now: Time) {
        match event {
            Event::Opened { node, session, hello, say } => match members::comes(proposal.view(), node, hello, now) {
                Ok(change) => {
                    self.add(proposal, change.into_iter().collect());
                    self.heard_at.insert(node.clone(), Instant::now());
                    let session =
                        Session { number: *session, say: say.clone(), told: None, welcomed: Welcome::default() };
                    self.sessions.insert(node.clone(), session);
                    if hello.ready {
                        self.ready.insert(node.clone());
                        self.make_manager(proposal.view(), node);
                    }
                    self.touched.insert(node.clone());
                }
                Err(reason) => {
                    tracing::warn!(node, reason, "a node is refused");
                    say.say(&ToNode::Refused(reason));
                }
            },
            Event::Closed { node, session } => {
                if self.sessions.get(node).is_some_and(|it| it.number == *session) {
                    self.sessions.remove(node);
                }
            }
            Event::Heard { node, session, said } => {
                // What was said in a session before the one that is open now is said again in this one.
                if self.sessions.get(node).is_some_and(|it| it.number == *session) {
                    self.heard_at.insert(node.clone(), Instant::now());
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
                        self.managers_changed(node, *is_manager, proposal);
                    }
                    Err(error) => tracing::warn!(node, error, "the managers cannot be changed; trying again"),
                }
            }
        }
    }

    fn hear(&mut self, node: &str, said: &ToLeader, proposal: &mut Proposal, now: Time) {
        match said {
            ToLeader::Hello(_) => {}
            ToLeader::Alive => {}
            ToLeader::Reports(reports) => {
                for report in reports {
                    let change = on_task_report(proposal.view(), &report.task_id, report.status.clone(), node, now);
                    if let Some(change) = change {
                        if let Some(task) = proposal.view().tasks.get(&report.task_id) {
                            self.dirty.insert(task.task.service_id.clone());
                        }
                        self.add(proposal, vec![change]);
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
                self.sessions.remove(node);
            }
        }
        self.answers.push(node.to_owned());
    }

    /// Who is silent is down.
    fn judge(&mut self, proposal: &mut Proposal, now: Time) {
        // That a node is down may have been written late, when it had come again: it comes once more, and says that it is there.
        let is_down =
            |id: &String| proposal.view().nodes.get(id).is_some_and(|it| it.node.status.state == SwarmNodeState::Down);
        self.sessions.retain(|id, _| !is_down(id));
        let gossip = self.settings.gossip.borrow().clone();
        let nodes: Vec<Arc<NodeRecord>> = proposal.view().nodes.values().cloned().collect();
        for record in nodes.iter().filter(|it| !it.fenced_off) {
            let (id, was_down) = (&record.node.id, record.node.status.state == SwarmNodeState::Down);
            let heard_at = self.heard_at.get(id).copied().unwrap_or(self.began).max(self.began);
            let signs = Signs { silent: heard_at.elapsed(), gossip: gossip.get(id).copied().unwrap_or_default() };
            let fenced_off = members::is_fenced_off(signs);
            if was_down && fenced_off || !was_down && members::is_down(signs) {
                tracing::warn!(node = id, hostname = record.node.description.hostname, ?signs, "a node is down");
                let message = if was_down { &*record.node.status.message } else { SILENT };
                self.add(proposal, members::goes(proposal.view(), id, message, fenced_off, now).into_iter().collect());
                self.sessions.remove(id);
                self.learn_lost(proposal.view(), id);
            }
        }
    }

    /// The tasks of a node that is down are replaced in the same step.
    fn learn_lost(&mut self, view: &View, id: &str) {
        self.dirty.extend(view.tasks_of_node(id).map(|it| it.task.service_id.clone()));
    }

    /// Everything that is to be done now, after the command with this number.
    fn decide(&mut self, proposal: &mut Proposal, index: u64, now: Time) {
        let due: Vec<String> = self.again.iter().filter(|(_, time)| **time <= now).map(|(id, _)| id.clone()).collect();
        self.dirty.extend(due);
        let mut ids = self.settings.new_id;
        for node in std::mem::take(&mut self.changed) {
            let changes = enforce_node(proposal.view(), &node, now);
            self.add(proposal, changes);
        }
        for service in std::mem::take(&mut self.dirty) {
            let plan = reconcile(proposal.view(), &service, now, &mut ids);
            match plan.again {
                Some(time) => drop(self.again.insert(service, time)),
                None => drop(self.again.remove(&service)),
            }
            self.add(proposal, plan.changes);
        }
        self.place_tasks(proposal, index, now);
    }

    /// Gives nodes to tasks that wait for them; to those that are made in this step, too, if the fleet is as new as what they
    /// were made of. What is placed now counts on its node for good once the watch has told of it.
    fn place_tasks(&mut self, proposal: &mut Proposal, index: u64, now: Time) {
        let written = proposal.written();
        let made = self.seen == index && written.len() <= PLACED_MAX && Fleet::is_waited_for_in(written);
        let waits = std::mem::take(&mut self.place) && self.fleet.is_waited_for();
        if !waits && !made {
            return;
        }
        let before = if made { written } else { &[] };
        let placed = self.fleet.schedule_after(before, now, PLACED_MAX);
        self.place = placed.more;
        self.add(proposal, placed.changes);
    }

    /// Tells nodes what is theirs, where it changed.
    fn tell(&mut self, view: &View) {
        let managers = managers(view);
        let cluster = view.cluster.as_ref().map(|it| &it.cluster);
        for id in std::mem::take(&mut self.touched) {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let Some(record) = view.nodes.get(&id) else {
                session.say.say(&ToNode::Refused("this node was removed from the swarm".into()));
                self.sessions.remove(&id);
                continue;
            };
            let welcome = Welcome {
                cluster: cluster.map(|it| it.id.clone()).unwrap_or_default(),
                role: record.node.spec.role.max(record.role),
                managers: managers.clone(),
                heartbeat_ms: millis(HEARTBEAT),
                lease_ms: millis(LEASE),
                new_root: view.cluster.as_ref().and_then(|it| it.root_rotation.as_ref()).map(|it| it.root.clone()),
                trust_root: cluster.map(|it| it.tls_info.trust_root.clone()).unwrap_or_default(),
                cert_expiry_s: cluster.map(|it| cert_expiry_s(&it.spec)).unwrap_or_default(),
                snapshot_interval: cluster.map(|it| it.spec.raft.snapshot_interval).unwrap_or_default(),
                keep_entries: cluster.map(|it| it.spec.raft.log_entries_for_slow_followers).unwrap_or_default(),
            };
            let mut heard = true;
            if session.welcomed != welcome {
                heard &= session.say.say(&ToNode::Welcome(welcome.clone()));
                session.welcomed = welcome;
            }
            let assignments = Assignments::of(view, &id);
            let told = in_short(&assignments);
            if session.told.as_ref() != Some(&told) {
                heard &= session.say.say(&ToNode::Assignments(Box::new(assignments)));
                session.told = Some(told);
            }
            if !heard {
                tracing::warn!(node = id, "a session is closed: the node does not listen");
                self.sessions.remove(&id);
            }
        }
    }

    /// Begins what brings the managers closer to what they should be: one at a time, so that the number stays safe.
    fn change_managers(&mut self, view: &View) {
        if !self.changing.is_empty() {
            return;
        }
        self.ready.retain(|it| self.sessions.contains_key(it));
        for id in self.ready.clone() {
            self.make_manager(view, &id);
        }
        let (mut stay, mut go) = (0, None);
        for record in view.nodes.values().filter(|it| it.role == Role::Manager) {
            match record.node.spec.role {
                Role::Manager => stay += 1,
                Role::Worker => go = Some(record),
            }
        }
        // Of two that were demoted at the same moment, the last one stays what it is until somebody is promoted.
        let Some(record) = go.filter(|_| stay > 0) else { return };
        let id = record.node.id.clone();
        let (store, is_me) = (self.store.clone(), id == self.settings.me.id);
        self.begin(id.clone(), false, async move {
            // The next leader takes this one off.
            if is_me { store.transfer().await } else { store.remove_manager(&id).await }
        });
    }

    /// A node says that its store is open.
    fn make_manager(&mut self, view: &View, id: &str) {
        let Some(record) = view.nodes.get(id) else { return };
        if record.node.spec.role != Role::Manager {
            return;
        }
        // One that is a manager already may have lost its disk: then it is taken back with an empty one.
        let (store, manager, addr) = (self.store.clone(), id.to_owned(), record.addr.clone());
        self.begin(id.to_owned(), true, async move { store.add_manager(&manager, &addr).await });
    }

    fn begin(
        &mut self,
        node: String,
        is_manager: bool,
        change: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    ) {
        if !self.changing.insert(node.clone()) {
            return;
        }
        let events = self.own_events.clone();
        tokio::spawn(async move {
            let outcome = change.await.map_err(|error| error.to_string());
            let _ = events.send(Event::Managers { node, is_manager, outcome }).await;
        });
    }

    fn managers_changed(&mut self, id: &str, is_manager: bool, proposal: &mut Proposal) {
        // Who handed over the lead is still a manager, until the next leader takes it off.
        if !is_manager && id == self.settings.me.id {
            return;
        }
        let Some(known) = proposal.view().nodes.get(id) else { return };
        let mut record = NodeRecord::clone(known);
        record.role = if is_manager { Role::Manager } else { Role::Worker };
        if **known != record {
            self.add(proposal, vec![record.into()]);
        }
        self.touched.insert(id.to_owned());
    }
}

fn cert_expiry_s(spec: &ClusterSpec) -> u64 {
    u64::try_from(spec.ca_config.node_cert_expiry / 1_000_000_000).unwrap_or_default()
}

fn managers(view: &View) -> Vec<ManagerAddr> {
    let managers = view.nodes.values().filter(|it| it.role == Role::Manager);
    managers.map(|it| ManagerAddr { id: it.node.id.clone(), addr: it.addr.clone() }).collect()
}

fn in_short(assignments: &Assignments) -> Told {
    let tasks = assignments.tasks.iter().map(|it| (it.task.id.clone(), it.task.desired_state)).collect();
    let secrets = assignments.secrets.iter().map(|it| it.id.clone());
    (tasks, secrets.chain(assignments.configs.iter().map(|it| it.id.clone())).collect())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
