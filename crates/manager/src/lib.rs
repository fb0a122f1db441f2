//! What managers of a swarm do: the leader keeps what runs at what is declared; the others send nodes on to it.
//!
//! One loop ([`lead`]) does everything, step by step: hear nodes, judge who lives, decide what is to be done ([`herder_decide`]),
//! write all of it as one command, tell nodes what is theirs. It holds nothing that cannot be worked out anew from the store and
//! the sessions, so that any manager can go on where another one stopped.

mod lead;
mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use herder_decide::swarm::members::Gossip;
use herder_model::swarm::{Clock, ManagerAddr};
use herder_store::Store;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use sessions::{Heard, Said};

/// Telling takes a step of the loop.
const DISSOLVE_TIME_MAX: Duration = Duration::from_secs(1);

/// What a manager must know of its surroundings.
pub struct Settings {
    /// This node.
    pub me: ManagerAddr,
    /// What gossip believes of nodes, by id.
    pub gossip: watch::Receiver<Arc<BTreeMap<String, Gossip>>>,
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
}

impl Manager {
    /// Leads whenever this manager's store does, until `stop`.
    pub fn start(store: Arc<Store>, settings: Settings, stop: CancellationToken) -> Arc<Manager> {
        let (events, heard) = mpsc::channel(sessions::EVENTS_WAITING_MAX);
        tokio::spawn(lead::run(store.clone(), settings, heard, stop));
        Arc::new(Manager { store, events })
    }

    /// Tells all nodes that the swarm has ended.
    pub async fn dissolve(&self) {
        let told = Arc::new(Notify::new());
        if self.events.send(sessions::Event::Dissolve(told.clone())).await.is_ok() {
            // If this manager does not lead, there is nobody to tell.
            let _ = timeout(DISSOLVE_TIME_MAX, told.notified()).await;
        }
    }

    /// The node `from` opens a session: what is said to it.
    pub fn session(&self, from: &str, heard: Heard) -> Said {
        sessions::open(self.store.clone(), self.events.clone(), from.to_owned(), heard)
    }
}
