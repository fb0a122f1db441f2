//! The managers of a swarm. The leader makes the running state match the declared one; the others redirect nodes to it.
//!
//! One loop ([`lead`]) does everything, step by step: hear nodes, judge who lives, decide what is to be done ([`herder_decide`]),
//! write all of it as one command, tell nodes what is theirs. It holds nothing that cannot be worked out anew from the store and
//! the sessions, so that any manager can go on where another one stopped.

mod lead;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use herder_decide::endpoints::ServiceEndpoints;
use herder_model::Liveness;
use herder_model::swarm::{Clock, ManagerAddr};
use herder_parts::Parts;
use herder_store::Store;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

pub use sessions::{Heard, Said};

/// The name of the loop that leads, among the parts of a node.
pub const LEADER: &str = "leader";

/// Telling takes a step of the loop.
const DISSOLVE_TIME_MAX: Duration = Duration::from_secs(1);

/// Dependencies of a manager.
pub struct Settings {
    /// This node.
    pub me: ManagerAddr,
    /// Liveness of nodes by gossip, by id.
    pub gossip: watch::Receiver<Arc<BTreeMap<String, Liveness>>>,
    /// The plain containers of the pool that have routing labels.
    pub plain: watch::Receiver<Arc<Vec<ServiceEndpoints>>>,
    pub clock: Clock,
    /// Makes ids of 25 characters.
    pub new_id: fn() -> String,
    /// The feature level of this release: [`herder_model::swarm::LEVEL`], save in tests.
    pub level: u32,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("me", &self.me).finish_non_exhaustive()
    }
}

/// This node's part in managing the swarm.
#[derive(Debug)]
pub struct Manager {
    store: Arc<Store>,
    events: mpsc::Sender<sessions::Event>,
    challenges: watch::Receiver<BTreeSet<String>>,
}

impl Manager {
    /// Leads whenever this manager's store does, until the parts shall end.
    pub fn start(store: Arc<Store>, settings: Settings, parts: impl Into<Parts>) -> Arc<Manager> {
        let (events, heard) = mpsc::channel(sessions::EVENTS_WAITING_MAX);
        let (told, challenges) = watch::channel(BTreeSet::new());
        let (settings, heard) = (Arc::new(settings), Arc::new(tokio::sync::Mutex::new(heard)));
        let (parts, of) = (parts.into(), store.clone());
        let mut has_failed = false;
        let stop = parts.stop().clone();
        parts.restarted(LEADER, move || {
            let (store, settings, heard, stop) = (of.clone(), settings.clone(), heard.clone(), stop.clone());
            let told = told.clone();
            let has_failed = std::mem::replace(&mut has_failed, true);
            async move {
                if has_failed {
                    // Raft alone would keep the lead, and nobody would do what a leader does.
                    store.give_up_lead().await;
                }
                lead::run(store, &settings, &mut *heard.lock().await, &told, stop).await;
            }
        });
        Arc::new(Manager { store, events, challenges })
    }

    /// The tokens of authorities that every ingress node answers for, while this manager leads.
    pub fn challenges(&self) -> watch::Receiver<BTreeSet<String>> {
        self.challenges.clone()
    }

    /// Informs all nodes that the swarm has ended.
    pub async fn dissolve(&self) {
        let told = Arc::new(Notify::new());
        if self.events.send(sessions::Event::Dissolve(told.clone())).await.is_ok() {
            // If this manager does not lead, there is nobody to tell.
            let _ = timeout(DISSOLVE_TIME_MAX, told.notified()).await;
        }
    }

    /// Opens the session of node `from`, and returns the stream of messages to it.
    pub fn session(&self, from: &str, heard: Heard) -> Said {
        sessions::open(self.store.clone(), self.events.clone(), from.to_owned(), heard)
    }
}
