//! Hub of the engines' changes: one counter, one stream of events, the ids that are taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use herder_model::{ClusterEvent, Node};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, broadcast, watch};

use crate::events;
use crate::pool::EVENT_QUEUE;

/// Engines that are read whole at the same time. Together with the inspections of each it bounds connections and memory
/// when a pool of a thousand engines starts.
const FULL_READS_MAX: usize = 32;

#[derive(Debug)]
pub(crate) struct Board {
    changes: watch::Sender<u64>,
    /// Grows with every new picture of a node, those included that only say when it was taken.
    pictures: AtomicU64,
    events: broadcast::Sender<ClusterEvent>,
    /// Engine id → address of the engine that showed it first.
    ids: Mutex<HashMap<String, String>>,
    /// Full reads that may go on at the same time.
    pub(crate) full_reads: Semaphore,
}

impl Board {
    pub(crate) fn new() -> Board {
        Board {
            changes: watch::Sender::new(0),
            pictures: AtomicU64::new(0),
            events: broadcast::Sender::new(EVENT_QUEUE),
            ids: Mutex::default(),
            full_reads: Semaphore::new(FULL_READS_MAX),
        }
    }

    /// A node is not what it was.
    pub(crate) fn changed(&self) {
        self.repainted();
        self.changes.send_modify(|version| *version += 1);
    }

    /// A node's picture is new, but shows nothing new.
    pub(crate) fn repainted(&self) {
        self.pictures.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn pictures(&self) -> u64 {
        self.pictures.load(Ordering::Acquire)
    }

    pub(crate) fn version(&self) -> u64 {
        *self.changes.borrow()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<ClusterEvent> {
        self.events.subscribe()
    }

    /// Publishes an engine's event, the node's fields added.
    pub(crate) fn publish(&self, event: Value, node: &Node) {
        let time_nano = event["timeNano"].as_i64().unwrap_or_else(now_nano);
        self.send(herder_decide::events::decorate(event, node), node, time_nano);
    }

    /// Publishes an event of the pool's own.
    pub(crate) fn announce(&self, action: &str, node: &Node) {
        self.announce_with(action, node, Value::Object(Map::new()));
    }

    /// The same with attributes of the event's actor.
    pub(crate) fn announce_with(&self, action: &str, node: &Node, attributes: Value) {
        let time_nano = now_nano();
        self.send(events::own(action, node, attributes, time_nano), node, time_nano);
    }

    pub(crate) fn send(&self, json: Value, node: &Node, time_nano: i64) {
        // Nobody listening is no error.
        let _ = self.events.send(ClusterEvent { time_nano, node: node.name.clone(), json: Arc::new(json) });
    }

    /// Registers an engine id for an address. Fails with the address that already owns the id.
    pub(crate) fn claim(&self, id: &str, addr: &str) -> Result<(), String> {
        let mut ids = self.ids.lock();
        match ids.get(id) {
            Some(other) if other != addr => Err(other.clone()),
            _ => {
                ids.insert(id.to_owned(), addr.to_owned());
                Ok(())
            }
        }
    }

    /// Gives back what the address had claimed.
    pub(crate) fn release(&self, addr: &str) {
        self.ids.lock().retain(|_, owner| owner != addr);
    }
}

/// Nanoseconds since 1970 by this machine's clock.
pub(crate) fn now_nano() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
