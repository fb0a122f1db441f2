//! The node in its swarm: entering, leaving, being a worker, being a manager.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herder_agent::Agent;
use herder_agent::session::{self, Ended, Listener, NodeInputs};
use herder_ingress::{HoldSettings, Ingress};
use herder_model::Liveness;
use herder_model::swarm::{
    Assignments, Clock, Hello, IngressNews, IngressServed, LEVEL, ManagerAddr, NetNews, NodeDescription, Role, Time,
    Underlay, Welcome, Written,
};
use herder_parts::Parts;
use herder_place::Error as ApiError;
use herder_store::{Key, Settings as StoreSettings, Store, StoreError};
use herder_wire::gossip;
use herder_wire::identity::Identity;
use herder_wire::link::Link;
use herder_wire::swarm::SwarmCalls;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::attachments::PlainContainers;
use super::kept::{PersistedState, remove_folder, store_folder};
use super::managing::{Managing, NodeLines, NodeTransport};
use super::root::{self, Wanted};
use crate::ingress::TaskReach;
use crate::members::Directory;

/// The fact by which managers tell the swarm's id to the nodes of their pool.
pub const FACT: &str = "swarm";
/// Pause between two attempts to find a leader.
const REST: Duration = Duration::from_millis(150);
/// Minimum interval of redirects from one manager to another.
const SENT_ON_REST: Duration = Duration::from_millis(20);
/// Time to avoid a manager after it dropped or refused a session. It covers a leader election.
const AVOIDED: Duration = Duration::from_millis(700);
/// Interval of the engine's description of the node, as in swarm mode; also the pause after a failure.
const DESCRIBE_REST: Duration = Duration::from_secs(20);
const DESCRIBE_AGAIN: Duration = Duration::from_secs(1);
/// Maximum number of commands that wait for a slow listener.
const WRITTEN_WAITING_MAX: usize = 1024;
/// Maximum time that a leaving node waits for its containers to end, and for the leader to know.
pub(super) const LEAVE_TIME_MAX: Duration = Duration::from_secs(15);

/// Dependencies of the swarm part on the rest of the node.
#[derive(Debug)]
pub struct HostDeps {
    pub state: PathBuf,
    pub link: Arc<Link>,
    pub directory: Arc<Directory>,
    pub views: watch::Receiver<gossip::View>,
    pub agent: Arc<Agent>,
    pub front: std::sync::Weak<herder_place::Placer>,
    /// Makes this node another one.
    pub another: mpsc::Sender<Identity>,
    /// Status of the node in a swarm, over all its lives.
    pub standing: watch::Sender<JoinStatus>,
    /// Facts that this node tells besides its own.
    pub facts: watch::Sender<Option<String>>,
    /// Addresses of nodes that gossip shall find.
    pub seeds: watch::Sender<Vec<SocketAddr>>,
    /// Program and arguments of the process that holds the ingress's sockets while herder restarts.
    pub hold_command: Vec<std::ffi::OsString>,
}

/// Status of joining or leaving a swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinStatus {
    pub node: String,
    /// The swarm that has let the node in.
    pub cluster: String,
    pub refused: String,
}

/// Known managers, and the role of this node.
#[derive(Debug, Default)]
pub(super) struct Known {
    leader: Option<ManagerAddr>,
    pub(super) error: String,
    pub(super) locked: bool,
    /// Reason why this manager's store is not open. Empty while it is, or while it only waits for its key.
    pub(super) broken: String,
}

pub struct Host {
    pub(super) id: String,
    pub(super) here: String,
    pub(super) state: PathBuf,
    pub(super) link: Arc<Link>,
    pub(super) calls: Arc<SwarmCalls>,
    pub(super) directory: Arc<Directory>,
    pub(super) views: watch::Receiver<gossip::View>,
    pub(super) agent: Arc<Agent>,
    pub(super) ingress: Ingress,
    pub(super) front: std::sync::Weak<herder_place::Placer>,
    pub(super) kept: watch::Sender<Option<PersistedState>>,
    pub(super) known: Mutex<Known>,
    pub(super) description: watch::Sender<NodeDescription>,
    /// This manager's store cannot be trusted.
    pub(super) damaged: watch::Sender<bool>,
    /// The leader's wishes for this node's certificate.
    pub(super) root: watch::Sender<Wanted>,
    pub(super) managing: watch::Sender<Option<Managing>>,
    pub(super) ready: watch::Sender<bool>,
    pub(super) leaving: watch::Sender<bool>,
    pub(super) gossip: watch::Sender<Arc<BTreeMap<String, Liveness>>>,
    pub(super) written: broadcast::Sender<Arc<[Written]>>,
    pub(super) another: mpsc::Sender<Identity>,
    pub(super) standing: watch::Sender<JoinStatus>,
    pub(super) facts: watch::Sender<Option<String>>,
    pub(super) seeds: watch::Sender<Vec<SocketAddr>>,
    /// Held while the store is opened or closed.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// Held while the node leaves: a client that hung up may ask again.
    pub(super) exiting: tokio::sync::Mutex<()>,
    /// Held while a backup takes the place of what is here.
    pub(super) restoring: tokio::sync::Mutex<()>,
    /// The parts among which its loops are started.
    pub(super) parts: Parts,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("id", &self.id).field("known", &self.known).finish_non_exhaustive()
    }
}

impl Host {
    /// Resumes the node's stored role, and runs until the parts end.
    pub async fn start(around: HostDeps, parts: Parts) -> anyhow::Result<Arc<Host>> {
        let kept = PersistedState::load(&around.state)?;
        let reach = TaskReach::new(&around.directory.id, around.agent.clone(), around.link.clone());
        let hold = HoldSettings { command: around.hold_command.clone(), folder: around.state.clone() };
        let ingress = Ingress::new(Arc::new(reach), &parts).held_by(hold);
        let host = Arc::new(Host {
            id: around.directory.id.clone(),
            here: around.directory.here.clone(),
            state: around.state,
            calls: Arc::new(SwarmCalls::new(around.link.clone())),
            link: around.link,
            directory: around.directory,
            views: around.views,
            ingress,
            agent: around.agent,
            front: around.front,
            kept: watch::channel(kept).0,
            known: Mutex::default(),
            description: watch::channel(NodeDescription::default()).0,
            damaged: watch::channel(false).0,
            root: watch::channel(Wanted::default()).0,
            managing: watch::channel(None).0,
            ready: watch::channel(false).0,
            leaving: watch::channel(false).0,
            gossip: watch::channel(Arc::default()).0,
            written: broadcast::channel(WRITTEN_WAITING_MAX).0,
            another: around.another,
            standing: around.standing,
            facts: around.facts,
            seeds: around.seeds,
            opening: tokio::sync::Mutex::default(),
            exiting: tokio::sync::Mutex::default(),
            restoring: tokio::sync::Mutex::default(),
            parts,
        });
        host.standing.send_replace(JoinStatus { node: host.id.clone(), ..JoinStatus::default() });
        host.open_kept_store().await;
        host.link.follow_roster(host.kept.borrow().as_ref().map(PersistedState::roster));
        let parts = &host.parts;
        let me = host.clone();
        parts.looping("swarm gossip", move || me.clone().follow_gossip());
        if let Some(placer) = host.front.upgrade() {
            let containers = Arc::new(PlainContainers::new(&host));
            placer.join_overlays(containers.clone());
            parts.looping("plain containers on overlay networks", move || containers.clone().follow());
        }
        let me = host.clone();
        parts.looping("node description", move || me.clone().describe());
        let (me, root) = (Arc::downgrade(&host), host.root.clone());
        parts.looping("certificate", move || root::keep(me.clone(), root.subscribe()));
        let me = Arc::downgrade(&host);
        parts.looping("keys of the pool", move || root::keep_pool(me.clone()));
        let me = host.clone();
        parts.looping("store recovery", move || me.clone().mend());
        let me = host.clone();
        parts.looping("swarm session", move || me.clone().work());
        Ok(host)
    }

    pub(super) async fn open_kept_store(self: &Arc<Host>) {
        if !self.kept.borrow().as_ref().is_some_and(|it| it.manages) {
            return;
        }
        if let Err(error) = self.open_store(None).await {
            self.cannot_open(&error);
        }
    }

    pub(super) async fn open_store(&self, key: Option<Key>) -> Result<Managing, StoreError> {
        let _opening = self.opening.lock().await;
        let open = self.managing.borrow().clone();
        if let Some(open) = open {
            return Ok(open);
        }
        let mut settings = StoreSettings { key, ..StoreSettings::new(store_folder(&self.state), &*self.id) };
        if let Some(kept) = &*self.kept.borrow() {
            kept.open_with(&mut settings);
        }
        let store = Store::open(settings, Arc::new(NodeTransport(self.calls.clone()))).await?;
        let me = ManagerAddr { id: self.id.clone(), addr: self.here.clone() };
        let (link, written) = (self.link.clone(), self.written.clone());
        let pool = self.front.upgrade().map(|it| it.pool.clone());
        let managing = Managing::begin(store, me, self.gossip.subscribe(), pool, link, written, &self.parts);
        self.managing.send_replace(Some(managing.clone()));
        self.ready.send_replace(true);
        let mut known = self.known.lock();
        (known.locked, known.error, known.broken) = (false, String::new(), String::new());
        Ok(managing)
    }

    /// Ends this node's part as a manager in good order: if it leads, another one does before.
    pub(super) async fn close_store(&self) {
        let _opening = self.opening.lock().await;
        self.ready.send_replace(false);
        if let Some(managing) = self.managing.send_replace(None) {
            managing.end().await;
        }
        // After whatever follows the store has ended, which would make this node a certifier again.
        self.link.certify_with(None);
    }

    pub(super) fn store(&self) -> Option<Arc<Store>> {
        self.managing.borrow().as_ref().map(|it| it.store.clone())
    }

    /// Changes what is kept, also on the disk.
    pub(super) fn keep(&self, kept: Option<PersistedState>) {
        let saved = match &kept {
            Some(kept) => kept.save(&self.state),
            None => PersistedState::remove(&self.state),
        };
        if let Err(error) = saved {
            tracing::error!(%error, "cannot save the state of this node in its swarm");
        }
        let manages = kept.as_ref().filter(|it| it.manages && !it.cluster.is_empty());
        self.facts.send_replace(manages.map(|it| it.cluster.clone()));
        self.kept.send_if_modified(|known| std::mem::replace(known, kept.clone()) != kept);
        // A manager sees in its store who is who.
        if self.managing.borrow().is_none() || kept.is_none() {
            self.link.follow_roster(kept.as_ref().map(PersistedState::roster));
        }
    }

    /// Follows gossip: liveness of nodes, and a swarm that begins around this node.
    async fn follow_gossip(self: Arc<Host>) {
        let mut views = self.views.clone();
        loop {
            let view = views.borrow_and_update().clone();
            let gossip: BTreeMap<String, Liveness> = view.iter().map(|(id, seen)| (id.clone(), seen.health)).collect();
            self.gossip.send_if_modified(|known| {
                let changed = **known != gossip;
                *known = Arc::new(gossip);
                changed
            });
            self.ingress.suspect(suspects(&view, &self.id));
            self.agent.networks().suspect(suspects(&view, &self.id));
            self.enrol(&view);
            if views.changed().await.is_err() {
                return;
            }
        }
    }

    /// The pool's managers make it a swarm: its nodes are the swarm's workers, without being asked.
    fn enrol(&self, view: &gossip::View) {
        // With its store open, it is the one that begins the swarm: taken for a worker now, it would give that store up.
        if self.kept.borrow().is_some() || *self.leaving.borrow() || self.managing.borrow().is_some() {
            return;
        }
        let managers = managers_told(view);
        if let Some((_, cluster)) = managers.first() {
            tracing::info!(cluster, "this node's pool is a swarm now");
            let managers = managers.iter().map(|(manager, _)| manager.clone()).collect();
            self.keep(Some(PersistedState { managers, ..PersistedState::default() }));
        }
    }

    /// Holds sessions with the current leader, one after the other.
    async fn work(self: Arc<Host>) {
        let mut attempt = 0;
        // Who did not answer lately: others may not have noticed yet, and send the node there.
        let mut avoided: Option<(String, Instant)> = None;
        let mut sent_on = false;
        loop {
            let Some(kept) = self.in_swarm().await else { return };
            avoided = avoided.filter(|(_, until)| *until > Instant::now());
            let Some(manager) = self.candidate(&kept, attempt, avoided.as_ref().map_or("", |it| &it.0)) else {
                self.lost("no manager of the swarm is known or in reach");
                sleep(REST).await;
                continue;
            };
            let hello = Hello {
                addr: self.here.clone(),
                token: kept.token.clone(),
                availability: kept.availability,
                level: LEVEL,
                ..Hello::default()
            };
            let mind = NodeInputs {
                reports: self.agent.reports(),
                description: self.description.subscribe(),
                engine: self.agent.health(),
                ready: self.ready.subscribe(),
                leaving: self.leaving.subscribe(),
                applied: self.agent.networks().applied(),
                wishes: self.agent.networks().attachments().wishes(),
                ingress: self.ingress.applied(),
            };
            let ended =
                session::hold(&NodeLines(self.calls.clone()), &manager, hello, mind, &SessionHandler(self.clone()))
                    .await;
            tracing::debug!(?manager, ?ended, "a session ended");
            attempt += 1;
            sent_on &= matches!(ended, Ended::Elsewhere(_));
            match ended {
                Ended::Elsewhere(leader) => {
                    let leader = leader.filter(|it| avoided.as_ref().is_none_or(|(id, _)| *id != it.id));
                    let known = leader.is_some();
                    self.known.lock().leader = leader;
                    if known {
                        // One that is just elected names itself, but does not lead yet; two may name each other.
                        if std::mem::replace(&mut sent_on, true) {
                            sleep(SENT_ON_REST).await;
                        }
                        continue;
                    }
                }
                Ended::Again => {
                    self.known.lock().leader = Some(manager);
                    continue;
                }
                Ended::Refused(reason) => self.refused(&reason),
                Ended::Dissolved => self.dissolved().await,
                Ended::Broken(reason) => {
                    self.lost(&format!("the session with {} ended: {reason}", manager.addr));
                    avoided = Some((manager.id, Instant::now() + AVOIDED));
                }
            }
            sleep(REST).await;
        }
    }

    /// Keeps what the engine says of the node.
    async fn describe(self: Arc<Host>) {
        let (mut identities, mut kept) = (self.link.identities(), self.kept.subscribe());
        let data_path_of = |kept: &Option<PersistedState>| kept.as_ref().map_or("", |it| &it.data_path).to_owned();
        loop {
            identities.mark_unchanged();
            let data_path = data_path_of(&kept.borrow_and_update());
            let rest = match self.agent.describe().await {
                Ok(mut description) => {
                    description.tls_info = root::tls_info(&self.link.identity());
                    description.underlay = self.underlay(&data_path).await;
                    self.description.send_if_modified(|it| std::mem::replace(it, description.clone()) != description);
                    DESCRIBE_REST
                }
                Err(error) => {
                    tracing::debug!(%error, "the engine does not describe the node");
                    DESCRIBE_AGAIN
                }
            };
            // Who signed its certificate is part of it, and is waited for.
            let changed = async {
                tokio::select! {
                    _ = identities.changed() => {}
                    _ = kept.wait_for(|it| data_path_of(it) != data_path) => {}
                }
            };
            let _ = timeout(rest, changed).await;
        }
    }

    /// Describes the physical network of this node, with the data path that was asked for when it entered the swarm.
    pub(super) async fn underlay(&self, data_path: &str) -> Underlay {
        let said = match data_path {
            "" => None,
            text => match herder_agent::net::data_path(text).await {
                Ok(address) => Some(address),
                Err(error) => {
                    tracing::warn!(%error, "the data path of this node is not to be had; its address is used");
                    None
                }
            },
        };
        let here = self.here.parse::<SocketAddr>().ok().map(|it| it.ip());
        let Some(address) = said.or(here) else { return Underlay::default() };
        let data_path_addr = said.map(|it| it.to_string()).unwrap_or_default();
        Underlay { data_path_addr, ..herder_agent::net::underlay(address, &self.state).await }
    }

    /// Waits until this node is in a swarm, and returns its persisted state.
    async fn in_swarm(&self) -> Option<PersistedState> {
        let mut kept = self.kept.subscribe();
        kept.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Chooses the manager to ask next, another than `avoided` if there is one.
    fn candidate(&self, kept: &PersistedState, attempt: usize, avoided: &str) -> Option<ManagerAddr> {
        if let Some(leader) = self.known.lock().leader.take() {
            return Some(leader);
        }
        let told = managers_told(&self.views.borrow()).into_iter().map(|(manager, _)| manager);
        let mut managers: Vec<ManagerAddr> = kept.managers.clone();
        managers.extend(told.filter(|it| !kept.managers.contains(it)));
        for manager in managers.iter_mut().filter(|it| it.id.is_empty()) {
            // Of a node that was joined, only the address is known until gossip tells the rest.
            manager.id = self.directory.at(&manager.addr).map(|it| it.id).unwrap_or_default();
        }
        managers.retain(|it| !it.id.is_empty());
        let (others, avoided): (Vec<_>, Vec<_>) = managers.into_iter().partition(|it| it.id != avoided);
        let managers = if others.is_empty() { avoided } else { others };
        let count = managers.len().max(1);
        managers.into_iter().nth(attempt % count)
    }

    fn lost(&self, error: &str) {
        let mut known = self.known.lock();
        if known.error != error {
            tracing::info!(error, "this node has no leader");
            known.error = error.to_owned();
        }
    }

    fn refused(&self, reason: &str) {
        self.standing.send_modify(|it| it.refused = reason.to_owned());
        self.lost(reason);
    }

    /// The last manager has left: what ran for the swarm ends, the pool stays.
    async fn dissolved(&self) {
        // The manager itself does the same, where it is asked to leave.
        if !*self.leaving.borrow() {
            tracing::info!("the swarm has ended");
            let _ = timeout(LEAVE_TIME_MAX, self.agent.leave()).await;
            self.keep(None);
        }
    }

    /// Applies the role from the leader's welcome. The join is complete only after this returns.
    async fn become_as_welcomed(self: Arc<Host>, welcome: Welcome) {
        match welcome.role {
            Role::Worker => self.become_worker().await,
            // What a later release has in mind: the node stays what it is.
            Role::Other(_) => {}
            Role::Manager => {
                self.until_certified(&welcome).await;
                self.become_manager().await;
                self.begin_empty().await;
                let Some(store) = self.store() else { return };
                // Who is one of the managers hears of their leader.
                if store.leadership().wait_for(|it| it.leader.is_some()).await.is_err() {
                    return;
                }
            }
        }
        self.standing.send_modify(|it| (it.cluster, it.refused) = (welcome.cluster, String::new()));
    }

    async fn become_manager(&self) {
        let kept = self.kept.borrow().clone();
        let Some(mut kept) = kept.filter(|it| !it.manages) else { return };
        tracing::info!("this node is made a manager");
        self.close_store().await;
        if let Err(error) = remove_folder(&store_folder(&self.state)) {
            tracing::error!(%error, "cannot remove the previous store of this manager");
            return;
        }
        kept.manages = true;
        self.keep(Some(kept));
        if let Err(error) = self.open_store(None).await {
            self.cannot_open(&error);
        }
    }

    async fn become_worker(&self) {
        let kept = self.kept.borrow().clone();
        let Some(mut kept) = kept.filter(|it| it.manages) else { return };
        tracing::info!("this node is no manager any more");
        self.close_store().await;
        kept.manages = false;
        if let Err(error) = remove_folder(&store_folder(&self.state)) {
            tracing::warn!(%error, "cannot remove the previous store of this manager");
        }
        self.keep(Some(kept));
    }
}

/// Nodes that get no new connections by virtual IPs and published ports while others have tasks of the service. A node
/// that was stopped in good order is not among them: its containers go on.
fn suspects(view: &gossip::View, own: &str) -> BTreeSet<String> {
    let lost = view.iter().filter(|(id, seen)| *id != own && matches!(seen.health, Liveness::Suspect | Liveness::Dead));
    lost.map(|(id, _)| id.clone()).collect()
}

/// Managers that tell of themselves, and the swarm that they manage.
pub(super) fn managers_told(view: &gossip::View) -> Vec<(ManagerAddr, String)> {
    let alive = view.iter().filter(|(_, seen)| seen.health.is_there());
    alive
        .filter_map(|(id, seen)| {
            let cluster = seen.facts.get(FACT)?.clone();
            Some((ManagerAddr { id: id.clone(), addr: seen.member.addr.to_string() }, cluster))
        })
        .collect()
}

/// Receives the leader's messages for this node.
struct SessionHandler(Arc<Host>);

impl Listener for SessionHandler {
    fn welcome(&self, welcome: Welcome) {
        let kept = self.0.kept.borrow().clone();
        if let Some(kept) = kept {
            // The swarm knows what this node came with.
            let kept = PersistedState {
                cluster: welcome.cluster.clone(),
                token: String::new(),
                managers: welcome.managers.clone(),
                removed: welcome.removed.clone(),
                demoted: welcome.demoted.clone(),
                snapshot_interval: welcome.snapshot_interval,
                keep_entries: welcome.keep_entries,
                ..kept
            };
            self.0.keep(Some(kept));
        }
        let wanted = Wanted::of(&welcome);
        self.0.root.send_if_modified(|known| std::mem::replace(known, wanted.clone()) != wanted);
        tokio::spawn(self.0.clone().become_as_welcomed(welcome));
        self.0.known.lock().error.clear();
    }

    fn assign(&self, assignments: Assignments) {
        self.0.agent.assign(assignments);
    }

    fn networks(&self, news: NetNews) -> bool {
        self.0.agent.networks().take(&news).is_ok()
    }

    fn ingress(&self, news: IngressNews) -> bool {
        self.0.ingress.take(&news).is_ok()
    }

    fn served(&self, served: IngressServed) {
        self.0.agent.served(served);
    }

    fn heard(&self, said_at: Instant, lease: Duration) {
        self.0.agent.lease(said_at + lease);
    }
}

impl Host {
    pub(super) fn needed_store(&self) -> Result<Arc<Store>, ApiError> {
        self.store().ok_or_else(|| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "this node is no manager of a swarm"))
    }
}

/// Maps a store error to the words of swarm mode, where it has some.
pub(super) fn refused(error: StoreError) -> ApiError {
    let text = error.to_string();
    match error {
        StoreError::NoLeader => ApiError::internal(
            "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. \
             Make sure more than half of the managers are online.",
        ),
        StoreError::QuorumLoss | StoreError::Level { .. } => {
            ApiError::bad_request(format!("rpc error: code = FailedPrecondition desc = {text}"))
        }
        StoreError::TooLarge { .. } => {
            ApiError::bad_request(format!("rpc error: code = InvalidArgument desc = {text}"))
        }
        StoreError::UnknownManager { .. } => ApiError::not_found(format!("rpc error: code = NotFound desc = {text}")),
        _ => ApiError::internal(format!("rpc error: code = Unknown desc = {text}")),
    }
}

pub(super) fn now() -> Time {
    Clock::system().now()
}
