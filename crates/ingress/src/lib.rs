//! The ingress of one node: listens on entrypoints, and brings requests and connections to tasks.
//!
//! [`Ingress::take`] takes what the leader says; connections that exist go on. What is routed where is decided in
//! `decide::ingress`; how a task is reached is the caller's ([`Reach`]).

mod balance;
mod beside;
mod body;
mod breaker;
mod connect;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod guard;
mod health;
mod hold;
mod http1;
mod leave;
mod listen;
mod log;
mod metrics;
mod middleware;
mod page;
mod password;
mod proxy;
mod request;
mod sticky;
mod table;
mod tcp;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use herder_model::swarm::{IngressApplied, IngressNews, IngressState};
use herder_parts::Parts;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use connect::{Conn, Reach, Stream};
pub use hold::{HoldSettings, hold};

use crate::balance::Services;
use crate::connect::Clients;
use crate::listen::Listeners;
use crate::table::{Maker, Table};

/// Time for requests, websockets and calls to end before herder does.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(30);
/// Time for the requests of clients that came meanwhile.
const LAST_TIME_MAX: Duration = Duration::from_secs(3);

/// The ingress of this node. Dropped, it listens no more, and connections that exist end.
#[derive(Debug)]
pub struct Ingress {
    shared: Arc<Shared>,
    known: Mutex<Known>,
    listeners: Mutex<Listeners>,
}

/// The last state received, with its version.
#[derive(Debug, Default)]
struct Known {
    version: u64,
    state: IngressState,
    maker: Maker,
}

/// The state that requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) clients: Clients,
    pub(crate) reach: Arc<dyn Reach>,
    pub(crate) applied: watch::Sender<IngressApplied>,
    pub(crate) services: Services,
    pub(crate) log: log::AccessLog,
    pub(crate) metrics: metrics::Metrics,
    pub(crate) parts: Parts,
    pub(crate) stop: CancellationToken,
    /// Cancelled when herder is about to end: answers are the last ones of their connections, and streams end.
    pub(crate) leaving: CancellationToken,
    /// Connections of HTTP and websockets.
    pub(crate) connections: Mutex<TaskTracker>,
}

/// An update does not continue the state that this node has; the whole state is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap;

impl Ingress {
    /// An ingress that listens on nothing yet. `reach` opens connections to tasks; its loops are among `parts`.
    pub fn new(reach: Arc<dyn Reach>, parts: impl Into<Parts>) -> Ingress {
        let applied = watch::Sender::new(IngressApplied::default());
        let parts: Parts = parts.into();
        let stop = parts.stop().child_token();
        let parts = parts.until(stop.clone());
        let shared = Arc::new(Shared {
            table: ArcSwap::from_pointee(Table::default()),
            clients: Clients::new(),
            reach,
            applied: applied.clone(),
            services: Services::new(applied),
            log: log::AccessLog::start(&parts),
            metrics: metrics::Metrics::default(),
            parts: parts.clone(),
            leaving: stop.child_token(),
            connections: Mutex::default(),
            stop,
        });
        let of = Arc::downgrade(&shared);
        parts.looping("ingress checks", move || health::check(of.clone()));
        Ingress { shared, known: Mutex::default(), listeners: Mutex::default() }
    }

    /// Takes over what the leader says.
    ///
    /// # Errors
    ///
    /// [`Gap`] if the changes do not follow the version that this node has. The session then asks for the whole state.
    pub fn take(&self, news: &IngressNews) -> Result<(), Gap> {
        let mut known = self.known.lock();
        if news.whole {
            known.state = IngressState::default();
        } else if known.version != news.applies_to {
            return Err(Gap);
        }
        known.version = news.results_in;
        known.state.apply(&news.changes);
        let Known { version, state, maker } = &mut *known;
        let nothing = IngressState::default();
        let state = if news.listens { &*state } else { &nothing };
        self.apply(*version, state, maker, news.whole);
        Ok(())
    }

    /// Routes by this state from now on.
    fn apply(&self, version: u64, state: &IngressState, maker: &mut Maker, whole: bool) {
        let table = maker.take(state, &self.shared.services);
        self.shared.table.store(Arc::new(table));
        self.shared.clients.tidy();
        let failed = match self.shared.leaving.is_cancelled() {
            // Its sockets are for the next herder.
            true => BTreeMap::new(),
            false => self.listeners.lock().listen(&self.shared, &state.settings),
        };
        let busy = self.shared.services.busy();
        self.shared.applied.send_if_modified(|applied| {
            let now = IngressApplied { version, busy, failed };
            // Whoever tells all of it has not heard how far this node was before.
            std::mem::replace(applied, now.clone()) != now || whole
        });
    }

    /// The sockets that are listened on outlive this process, held by another one.
    pub fn held_by(self, settings: HoldSettings) -> Ingress {
        self.listeners.lock().hold(settings);
        self
    }

    /// Tells nodes that may be lost: their tasks get requests only if there are no others.
    pub fn suspect(&self, nodes: BTreeSet<String>) {
        self.shared.services.suspect(nodes);
    }

    /// Lets clients go elsewhere, or come back to the next herder, and returns when they have. New ones are served until then, each
    /// with one answer.
    pub async fn leave(&self) {
        let before = std::mem::take(&mut *self.shared.connections.lock());
        before.close();
        self.shared.leaving.cancel();
        if timeout(LEAVE_TIME_MAX, before.wait()).await.is_err() {
            tracing::warn!(limit = ?LEAVE_TIME_MAX, connections = before.len(), "some requests did not end in time");
        }
        self.listeners.lock().close();
        let last = self.shared.connections.lock().clone();
        last.close();
        if timeout(LAST_TIME_MAX, last.wait()).await.is_err() {
            tracing::warn!(limit = ?LAST_TIME_MAX, connections = last.len(), "some requests did not end in time");
        }
    }

    /// Watches the version that this node has applied.
    pub fn applied(&self) -> watch::Receiver<IngressApplied> {
        self.shared.applied.subscribe()
    }

    /// Addresses that are listened on, by entrypoint.
    pub fn addresses(&self) -> BTreeMap<String, std::net::SocketAddr> {
        self.listeners.lock().addresses()
    }

    /// Figures in the text form of Prometheus.
    pub fn metrics(&self) -> String {
        self.shared.metrics.text(&self.shared)
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// Names of tasks.
pub(crate) type Tasks = BTreeSet<String>;
