//! Overlay networks of this node.
//!
//! The session hands over what the leader says of each network ([`Networks::update`]); a worker brings engine, kernel and DNS
//! server to it and publishes the versions it has reached ([`Networks::applied`]).

mod attach;
mod doctor;
mod engine_network;
mod kept;
mod names;
mod ports;
mod tunnels;
mod underlay;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herder_docker::Way;
use herder_model::swarm::{NetBody, NetNews, NetState, NetUpdate, NetworkRecord};
use herder_parts::Parts;
use imbl::ordmap::DiffItem;
use tokio::sync::watch;
use tokio::time::timeout;

pub use attach::{AttachmentRequests, Attachments, NotAnswered, Records, wanted_of};
pub use doctor::{Check, check};
pub use engine_network::LABEL_NETWORK;
pub use ports::listeners;
pub use underlay::{DataPathError, data_path, underlay};

use self::names::NameServer;
use self::tunnels::Tunnels;
use self::worker::Worker;
use crate::call::Engine;

/// Maximum time that a task waits at its end until no node sends it new connections. Longer than a round to the leader
/// and back takes, and short for a user who waits for `docker service rm`.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// Maximum time that a container waits for its network, as Docker waits for an attachment.
pub const PREPARE_TIME_MAX: Duration = Duration::from_secs(20);

/// Versions of networks, by network id.
pub type Versions = BTreeMap<String, u64>;

/// The last state of one network that the leader sent.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub version: u64,
    /// Version that every live subscriber has applied.
    pub settled: u64,
    /// Keyed by endpoint that was seen serving: the version since which it does not serve.
    left: BTreeMap<String, u64>,
    pub state: Arc<NetState>,
}

/// Networks that this node subscribes to, by id.
pub type States = BTreeMap<String, Known>;

/// The engine's side of a network that is ready for containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineNetwork {
    pub id: String,
    pub name: String,
}

/// Reason why a network cannot be used on this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    #[error("network {0} is not ready on this node: the managers have not sent its state within {seconds} s", seconds = PREPARE_TIME_MAX.as_secs())]
    Unknown(String),
    #[error("network {name} is not ready on this node: {reason}")]
    Failed { name: String, reason: String },
}

/// An update does not continue the state that this node has; the whole state is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap;

/// Outcome of the last attempt to set up a network.
pub type Outcome = Result<EngineNetwork, String>;

/// Dependencies of a node's networks besides its engine.
#[derive(Clone, Debug)]
pub struct NetSettings {
    /// Program and arguments that start the DNS server; the path of its socket follows.
    pub dns_command: Vec<OsString>,
    /// The same for the process that carries packets of encrypted networks.
    pub tunnel_command: Vec<OsString>,
    /// States of networks and of the DNS server, and the key of tunnels, are kept here.
    pub folder: PathBuf,
}

/// Inputs of a worker.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub states: watch::Receiver<States>,
    /// Endpoints of this node whose containers have ended, before the leader knows.
    pub ended: watch::Receiver<BTreeSet<String>>,
    /// True once a leader has sent everything since this program started.
    pub heard: watch::Receiver<bool>,
}

/// Handle on the networks of this node. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    states: watch::Sender<States>,
    suspects: watch::Sender<BTreeSet<String>>,
    ended: watch::Sender<BTreeSet<String>>,
    applied: watch::Sender<Versions>,
    ready: watch::Sender<BTreeMap<String, Outcome>>,
    attachments: Attachments,
    /// A leader has told everything since this program started.
    heard: watch::Sender<bool>,
    /// Networks of the swarm; `None` until a leader has sent all of them.
    records: watch::Sender<Option<BTreeMap<String, Arc<NetworkRecord>>>>,
}

impl Networks {
    /// Begins to set up networks on the engine beside this node, until the parts shall end. Networks stay as they are then:
    /// containers go on.
    pub fn start(&self, settings: NetSettings, engine: &str, way: Way, node_id: &str, parts: &Parts) {
        let (networks, engine, node_id) = (self.clone(), Arc::new(Engine::new(engine, way)), node_id.to_owned());
        parts.looping("overlay networks", move || {
            let names = NameServer::new(settings.dns_command.clone(), &settings.folder);
            let tunnels = Tunnels::new(settings.tunnel_command.clone(), &settings.folder);
            Worker::new(networks.clone(), engine.clone(), &node_id, &settings.folder, names, tunnels).run()
        });
    }

    /// Removes an ended container's names and its place behind virtual IPs and ports at once, before the leader knows.
    pub fn endpoint_ended(&self, endpoint: &str) {
        self.shared.ended.send_if_modified(|ended| ended.insert(endpoint.to_owned()));
    }

    /// Takes over what the leader says of a network.
    ///
    /// # Errors
    ///
    /// [`Gap`] if the update does not follow the version that this node has. The session then asks for the whole state.
    pub fn update(&self, update: &NetUpdate) -> Result<(), Gap> {
        self.update_all(std::slice::from_ref(update))
    }

    /// Takes over updates together: kernel and DNS server are brought to all of them at once.
    fn update_all(&self, updates: &[NetUpdate]) -> Result<(), Gap> {
        let mut outcome = Ok(());
        self.shared.states.send_if_modified(|states| {
            let merged = updates.iter().take_while(|it| {
                outcome = merge(states, it);
                outcome.is_ok()
            });
            merged.count() > 0
        });
        // What the leader knows to have ended needs not be remembered.
        let states = self.shared.states.borrow();
        let serves = |id: &String| states.values().any(|it| it.state.endpoints.get(id).is_some_and(|it| it.serving));
        self.shared.ended.send_if_modified(|ended| {
            let count = ended.len();
            ended.retain(serves);
            ended.len() != count
        });
        drop(states);
        outcome
    }

    /// Plain containers of this node on networks of the swarm.
    pub fn attachments(&self) -> &Attachments {
        &self.shared.attachments
    }

    /// Removes a network that this node no longer subscribes to. Its traces on engine and kernel go once no container
    /// uses it.
    pub fn remove(&self, network: &str) {
        self.shared.states.send_if_modified(|states| states.remove(network).is_some());
    }

    /// Returns the networks of the node with their versions, as a new session reports them.
    pub fn versions(&self) -> Versions {
        self.shared.states.borrow().iter().map(|(id, known)| (id.clone(), known.version)).collect()
    }

    /// Takes over what the leader says of all networks of this node at once.
    ///
    /// # Errors
    ///
    /// [`Gap`] if an update does not follow the version that this node has. Those before it are taken over.
    pub fn take(&self, news: &NetNews) -> Result<(), Gap> {
        let told: BTreeSet<&String> = news.updates.iter().map(|it| &it.network_id).collect();
        let untold: Vec<String> = self.versions().into_keys().filter(|id| news.whole && !told.contains(id)).collect();
        untold.iter().chain(&news.gone).for_each(|id| self.remove(id));
        self.shared.records.send_modify(|records| {
            if news.whole {
                *records = Some(BTreeMap::new());
            }
            if let Some(records) = records {
                records.retain(|id, _| !news.removed.contains(id));
                records.extend(news.known.iter().map(|it| (it.id.clone(), it.clone())));
            }
        });
        self.update_all(&news.updates)?;
        self.shared.heard.send_if_modified(|heard| news.whole && !std::mem::replace(heard, true));
        Ok(())
    }

    /// Returns all networks of the swarm as the leader sent them last. `None` before the first message of a leader.
    pub fn records(&self) -> Option<Vec<Arc<NetworkRecord>>> {
        self.shared.records.borrow().as_ref().map(|it| it.values().cloned().collect())
    }

    /// The last state of a network, if the node knows it.
    pub fn state(&self, network: &str) -> Option<Arc<NetState>> {
        self.shared.states.borrow().get(network).map(|known| known.state.clone())
    }

    /// Returns the last states of all networks of this node, by id.
    pub fn states(&self) -> BTreeMap<String, Arc<NetState>> {
        self.shared.states.borrow().iter().map(|(id, known)| (id.clone(), known.state.clone())).collect()
    }

    /// Follows what a worker needs, for one that takes the place of [`Networks::start`] in simulations.
    pub fn inputs(&self) -> Inputs {
        Inputs {
            states: self.shared.states.subscribe(),
            ended: self.shared.ended.subscribe(),
            heard: self.shared.heard.subscribe(),
        }
    }

    /// Publishes that kernel and DNS server have these states. Containers can be attached to their networks then.
    pub fn publish(&self, states: &States) {
        let there = |(id, known): (&String, &Known)| {
            (id.clone(), Ok(EngineNetwork { id: id.clone(), name: known.state.facts.name.clone() }))
        };
        self.shared.ready.send_replace(states.iter().map(there).collect());
        self.shared.applied.send_replace(states.iter().map(|(id, known)| (id.clone(), known.version)).collect());
    }

    /// Versions that kernel and DNS server of this node have reached.
    pub fn applied(&self) -> watch::Receiver<Versions> {
        self.shared.applied.subscribe()
    }

    /// Nodes that gossip takes for lost. Their endpoints get no new connections from this node, unless nothing else is left.
    pub fn suspect(&self, nodes: BTreeSet<String>) {
        self.shared.suspects.send_if_modified(|old| std::mem::replace(old, nodes) != *old);
    }

    /// Waits until containers can be attached to a network.
    ///
    /// # Errors
    ///
    /// The reason of the last attempt, or that the leader has sent nothing, after [`PREPARE_TIME_MAX`].
    pub async fn prepare(&self, network: &str) -> Result<EngineNetwork, NotReady> {
        let mut ready = self.shared.ready.subscribe();
        let is_ready = |all: &BTreeMap<String, Outcome>| matches!(all.get(network), Some(Ok(_)));
        if let Ok(Ok(all)) = timeout(PREPARE_TIME_MAX, ready.wait_for(is_ready)).await
            && let Some(Ok(there)) = all.get(network)
        {
            return Ok(there.clone());
        }
        let name = self.shared.states.borrow().get(network).map(|known| known.state.facts.name.clone());
        match (name, self.shared.ready.borrow().get(network)) {
            (Some(name), Some(Err(reason))) => Err(NotReady::Failed { name, reason: reason.clone() }),
            (name, _) => Err(NotReady::Unknown(name.unwrap_or_else(|| network.to_owned()))),
        }
    }

    /// Waits until every live node has stopped balancing to an endpoint, at most [`DRAIN_TIME_MAX`]. Returns at once for an
    /// endpoint that never served.
    pub async fn drained(&self, endpoint: &str) {
        let mut states = self.shared.states.subscribe();
        let is_settled = |states: &States| states.values().all(|known| known.has_drained(endpoint));
        // The limit is the answer as well: a node that does not acknowledge must not hold up the end of a task.
        let _ = timeout(DRAIN_TIME_MAX, states.wait_for(is_settled)).await;
    }
}

impl Known {
    fn has_drained(&self, endpoint: &str) -> bool {
        let serves = self.state.endpoints.get(endpoint).is_some_and(|it| it.serving);
        !serves && self.left.get(endpoint).is_none_or(|since| self.settled >= *since)
    }

    /// Notes which endpoints have stopped serving with this version.
    fn note_left(&mut self, before: &NetState) {
        let serving = |state: &NetState, id: &str| state.endpoints.get(id).is_some_and(|it| it.serving);
        let left = before.endpoints.diff(&self.state.endpoints).filter_map(|item| match item {
            DiffItem::Remove(id, old) => old.serving.then_some(id),
            DiffItem::Update { old: (id, old), new: (_, new) } => (old.serving && !new.serving).then_some(id),
            DiffItem::Add(..) => None,
        });
        let version = self.version;
        self.left.extend(left.map(|id| (id.clone(), version)));
        let settled = self.settled;
        let state = self.state.clone();
        self.left.retain(|id, since| *since > settled && !serving(&state, id));
    }
}

fn merge(states: &mut States, update: &NetUpdate) -> Result<(), Gap> {
    let old = states.get(&update.network_id);
    let state = match &update.body {
        NetBody::Whole(state) => Arc::new((**state).clone()),
        NetBody::Changes(changes) => match old {
            Some(old) if old.version == update.applies_to && changes.is_empty() => old.state.clone(),
            Some(old) if old.version == update.applies_to => {
                let mut state = (*old.state).clone();
                state.apply(changes);
                Arc::new(state)
            }
            _ => return Err(Gap),
        },
    };
    let (before, left) = old.map(|old| (old.state.clone(), old.left.clone())).unwrap_or_default();
    let mut known = Known { version: update.results_in, settled: update.settled, left, state };
    known.note_left(&before);
    states.insert(update.network_id.clone(), known);
    Ok(())
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::NetChanges;
    use serde_json::json;

    use super::*;

    fn whole(version: u64, serving: bool) -> NetUpdate {
        let state = json!({"endpoints": {"t1": {"node": "n1", "v4": "10.0.1.3", "serving": serving}}});
        let state = serde_json::from_value(state).unwrap();
        NetUpdate {
            network_id: "ov".into(),
            results_in: version,
            body: NetBody::Whole(Box::new(state)),
            ..NetUpdate::default()
        }
    }

    fn changes(applies_to: u64, results_in: u64, settled: u64, changes: NetChanges) -> NetUpdate {
        NetUpdate {
            network_id: "ov".into(),
            applies_to,
            results_in,
            settled,
            body: NetBody::Changes(Box::new(changes)),
            ..NetUpdate::default()
        }
    }

    fn leave() -> NetChanges {
        let state = |update: NetUpdate| match update.body {
            NetBody::Whole(state) => *state,
            NetBody::Changes(_) => NetState::default(),
        };
        NetChanges::between(&state(whole(1, true)), &state(whole(2, false)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_drained_when_its_leaving_has_settled() {
        let networks = Networks::default();
        networks.update(&whole(1, true)).unwrap();
        networks.update(&changes(1, 2, 1, leave())).unwrap();
        let waiting = {
            let networks = networks.clone();
            tokio::spawn(async move { networks.drained("t1").await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        networks.update(&changes(2, 2, 2, NetChanges::default())).unwrap();
        let before = tokio::time::Instant::now();
        waiting.await.unwrap();
        assert!(before.elapsed() < DRAIN_TIME_MAX);
        // Nobody acknowledges.
        networks.update(&whole(3, true)).unwrap();
        let before = tokio::time::Instant::now();
        networks.drained("t1").await;
        assert_eq!(before.elapsed().as_secs(), DRAIN_TIME_MAX.as_secs());
        networks.drained("stranger").await;
        assert_eq!(before.elapsed().as_secs(), DRAIN_TIME_MAX.as_secs());
    }

    #[test]
    fn changes_that_do_not_follow_are_refused() {
        let networks = Networks::default();
        assert_eq!(networks.update(&changes(1, 2, 0, NetChanges::default())), Err(Gap));
        networks.update(&whole(1, true)).unwrap();
        assert_eq!(networks.update(&changes(2, 3, 0, NetChanges::default())), Err(Gap));
        assert_eq!(networks.versions(), Versions::from([("ov".to_owned(), 1)]));
    }
}
