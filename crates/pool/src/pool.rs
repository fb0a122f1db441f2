//! The pool: all engines, one picture of them, one stream of their events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use herder_model::{ClusterEvent, Container, Node};
use tokio::sync::{broadcast, watch};

use crate::Engine;

/// Events kept for a listener that is slow; a slower one is told that it missed some. As in classic Swarm.
pub const EVENT_QUEUE: usize = 10_000;

/// How the pool treats its engines. Flags of `herder manage` set them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Share that may be promised beyond what a node has: 0.05 is 5 %. Above -1.
    pub overcommit: f64,
    /// Full re-read of an engine without doubt happens between these.
    pub refresh_min: Duration,
    pub refresh_max: Duration,
    /// Connection failures in a row that make a node unhealthy.
    pub failure_retry: u32,
    /// How often a quiet engine is asked whether it lives.
    pub ping_period: Duration,
    /// How long a ping may take.
    pub ping_timeout: Duration,
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            overcommit: 0.05,
            refresh_min: Duration::from_secs(30),
            refresh_max: Duration::from_secs(60),
            failure_retry: 3,
            ping_period: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(1),
            tls: None,
        }
    }
}

/// All engines. Cheap to share by `Arc`.
#[derive(Debug)]
pub struct Pool {
    changes: watch::Sender<u64>,
    events: broadcast::Sender<ClusterEvent>,
}

impl Pool {
    pub fn new(_settings: Settings) -> Arc<Pool> {
        Arc::new(Pool { changes: watch::Sender::new(0), events: broadcast::Sender::new(EVENT_QUEUE) })
    }

    /// Makes exactly these addresses the members: newcomers are connected, others leave (with their containers).
    /// Must be called inside a tokio runtime.
    pub fn set_members(self: &Arc<Self>, _addrs: &BTreeSet<String>) {}

    /// All nodes, pending ones too, in natural order of their names. Never waits.
    pub fn nodes(&self) -> Arc<[Arc<Node>]> {
        Arc::new([])
    }

    /// Grows with every change of `nodes()`.
    pub fn version(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Wakes whoever wants to look again after a change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The engine with this address.
    pub fn engine(&self, _addr: &str) -> Option<Arc<Engine>> {
        None
    }

    /// Events of all engines and of the pool itself (`engine_connect` …) from now on.
    pub fn events(&self) -> broadcast::Receiver<ClusterEvent> {
        self.events.subscribe()
    }

    /// Decides under the placing lock. `decide` sees the nodes with all placements that are under way put in as
    /// containers, and answers with the address of the chosen node and the container to be. The [`Ticket`] keeps that
    /// container counted (name, ports, resources, slots) until it is dropped, so that no other placement can collide.
    pub fn place<E>(
        self: &Arc<Self>,
        decide: impl FnOnce(&[Arc<Node>]) -> Result<(String, Container), E>,
    ) -> Result<Ticket, E> {
        let (addr, container) = decide(&self.nodes())?;
        Ok(Ticket { pool: self.clone(), addr, container: Arc::new(container) })
    }
}

/// A placement under way. Drop it after the real container was read back (or the create failed).
#[derive(Debug)]
pub struct Ticket {
    #[expect(dead_code, reason = "released on drop, by the pool's implementation")]
    pool: Arc<Pool>,
    pub addr: String,
    pub container: Arc<Container>,
}
