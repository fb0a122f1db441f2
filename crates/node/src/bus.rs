//! The event bus of a pool: its links, and what herder itself tells on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::NodeSettings;
use anyhow::Context as _;
use herder_bus::bridge::{Bridge, Limits, Rules};
use herder_bus::{Bus, Headers, Links, Settings};
use herder_model::{Liveness, NodeState};
use herder_pool::Pool;
use herder_wire::calls::Peer;
use herder_wire::gossip::View;
use herder_wire::link::{Link, Road};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::members::Directory;

/// Rest before a link that ended is opened anew.
const LINK_REST: Duration = Duration::from_millis(300);

/// Returns the rules for clients, from the file or by default.
pub fn rules(settings: &NodeSettings) -> anyhow::Result<Rules> {
    let Some(path) = &settings.bus_rules else { return Ok(Rules::documented(&settings.cluster)) };
    let file = || format!("--bus-rules {}", path.display());
    let text = std::fs::read_to_string(path).with_context(file)?;
    Rules::parse(&text).with_context(file)
}

/// This node's part of the bus.
#[derive(Debug)]
pub struct PoolBus {
    pub bus: Arc<Bus>,
    links: Arc<Links>,
}

impl PoolBus {
    pub fn new(id: &str) -> PoolBus {
        let (bus, links) = Links::bus(id, Settings::default());
        PoolBus { bus, links }
    }

    pub fn bridge(&self, rules: Rules) -> Arc<Bridge> {
        Bridge::new(self.bus.clone(), rules, Limits::default())
    }

    /// Serves the link that a peer has opened until it ends.
    pub async fn carry(self: Arc<Self>, incoming: herder_wire::link::Incoming) {
        if let Err(error) = self.links.carry(&self.bus, &incoming.node, incoming.stream).await {
            tracing::debug!(peer = incoming.node, %error, "a link of the bus ended");
        }
    }

    /// Keeps a link to every live peer, until `stop`. Of two nodes the one with the smaller id opens it.
    pub async fn keep_links(
        self: Arc<Self>,
        link: Arc<Link>,
        directory: Arc<Directory>,
        mut views: watch::Receiver<View>,
        stop: CancellationToken,
    ) {
        let mut open: BTreeMap<String, (String, JoinHandle<()>)> = BTreeMap::new();
        loop {
            let view = views.borrow_and_update().clone();
            let lives = |seen: &herder_wire::gossip::Seen| seen.health.is_there();
            let wanted: BTreeMap<&String, String> = view
                .iter()
                .filter(|(id, seen)| **id > directory.id && lives(seen))
                .map(|(id, seen)| (id, seen.member.addr.to_string()))
                .collect();
            open.retain(|id, (addr, task)| {
                let stays = wanted.get(id) == Some(addr);
                if !stays {
                    task.abort();
                }
                stays
            });
            for (id, addr) in wanted {
                open.entry(id.clone()).or_insert_with(|| {
                    let peer = Peer { id: id.clone(), addr: addr.clone() };
                    (addr, tokio::spawn(self.clone().keep_link(link.clone(), peer)))
                });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = views.changed() => if changed.is_err() { break },
            }
        }
        open.into_values().for_each(|(_, task)| task.abort());
    }

    async fn keep_link(self: Arc<Self>, link: Arc<Link>, peer: Peer) {
        loop {
            match link.dial(&peer.addr, &peer.id, Road::Bus).await {
                Ok(stream) => {
                    if let Err(error) = self.links.carry(&self.bus, &peer.id, stream).await {
                        tracing::debug!(peer = peer.addr, %error, "a link of the bus ended");
                    }
                }
                Err(error) => tracing::debug!(peer = peer.addr, %error, "cannot open a link of the bus"),
            }
            sleep(LINK_REST).await;
        }
    }

    fn publish(&self, address: &str, body: Value) {
        if let Err(error) = self.bus.publish(address, Headers::default(), body) {
            tracing::warn!(address, %error, "cannot publish an event");
        }
    }

    /// Publishes events of this node's engine, and those about other nodes that this node reports, until `stop`.
    pub async fn tell_events(self: Arc<Self>, pool: Arc<Pool>, directory: Arc<Directory>, stop: CancellationToken) {
        let mut events = pool.events();
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.recv() => event,
            };
            let event = match event {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "too many events; some are not published on the bus");
                    continue;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            };
            let addr = event.json["node"]["Addr"].as_str().unwrap_or_default();
            match event.json["Type"].as_str().unwrap_or("container") {
                "container" if addr == directory.here => {
                    self.publish("herder.events.container", Value::clone(&event.json));
                }
                "swarm" if directory.reports_on(addr) => self.tell_state(&pool, addr, &event.json),
                _ => {}
            }
        }
    }

    fn tell_state(&self, pool: &Pool, addr: &str, event: &Value) {
        let Some(node) = pool.engine(addr).map(|engine| engine.node()) else { return };
        let state = match node.state {
            NodeState::Healthy => "healthy",
            NodeState::Unhealthy => "unhealthy",
            NodeState::Pending => "pending",
        };
        let reason = node.error.clone().unwrap_or_default();
        let body =
            json!({ "node": node.name, "address": addr, "state": state, "reason": reason, "time": event["time"] });
        self.publish("herder.events.node", body);
    }

    /// Publishes joins, leaves and losses of nodes until `stop`.
    pub async fn tell_membership(
        self: Arc<Self>,
        pool: Arc<Pool>,
        directory: Arc<Directory>,
        mut views: watch::Receiver<View>,
        stop: CancellationToken,
    ) {
        let mut known: BTreeMap<String, &'static str> = BTreeMap::new();
        loop {
            let view = views.borrow_and_update().clone();
            let gone: BTreeSet<String> = known.keys().filter(|id| !view.contains_key(*id)).cloned().collect();
            known.retain(|id, _| !gone.contains(id));
            for (id, seen) in view.iter() {
                let change = match seen.health {
                    Liveness::Alive | Liveness::Suspect => "joined",
                    Liveness::Dead => "lost",
                    Liveness::Left => "left",
                };
                let addr = seen.member.addr.to_string();
                if known.insert(id.clone(), change) != Some(change) && directory.reports_on_seen(&addr, &view) {
                    let name = pool.engine(&addr).map(|engine| engine.node().name.clone()).unwrap_or_default();
                    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                    let body =
                        json!({ "node": name, "id": id, "address": addr, "change": change, "time": time.as_secs() });
                    self.publish("herder.events.membership", body);
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = views.changed() => if changed.is_err() { return },
            }
        }
    }
}
