//! Plain containers of this node on networks of the swarm.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use herder_agent::Agent;
use herder_agent::net::wanted_of;
use herder_decide::overlays::Place;
use herder_model::Name;
use herder_model::swarm::{Attachment, TaskRecord};
use herder_place::overlays::{Given, Overlays};
use herder_place::peers::Asked;
use herder_place::{Error as ApiError, Placer};
use herder_pool::{Engine, EngineError};
use herder_wire::identity::new_id;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::host::Host;

/// Changes of containers come in bursts: one look is enough for those within this time.
const BURST: Duration = Duration::from_millis(50);

/// Pause before a container is looked for again that is being removed, or was just made.
const AGAIN: Duration = Duration::from_millis(200);

/// Asks the managers for places, and tells them what became of the containers.
#[derive(Debug)]
pub(super) struct PlainContainers {
    agent: Arc<Agent>,
    placer: Weak<Placer>,
    host: Weak<Host>,
    /// Address of this node.
    here: String,
    /// Attachment ids of containers whose creation is in progress.
    making: Mutex<BTreeSet<String>>,
}

impl PlainContainers {
    pub(super) fn new(host: &Arc<Host>) -> PlainContainers {
        PlainContainers {
            agent: host.agent.clone(),
            placer: host.front.clone(),
            host: Arc::downgrade(host),
            here: host.here.clone(),
            making: Mutex::default(),
        }
    }

    async fn ask(&self, id: String, wanted: Attachment) -> Result<Given, ApiError> {
        let targets: Vec<String> = wanted.networks.iter().map(|it| it.target.clone()).collect();
        let unanswered = |error: &dyn std::fmt::Display| {
            let text = format!(
                "attaching to network failed, make sure your network options are correct and check manager logs: {error} ({})",
                targets.join(", ")
            );
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
        };
        let record = self.agent.networks().attachments().ask(&id, wanted).await;
        let record = record.map_err(|error| unanswered(&error))?;
        let attached = record.attached.as_deref().cloned().unwrap_or_default();
        let mut given = Given { id, refused: attached.refused.clone(), ..Given::default() };
        for (target, network) in &attached.given {
            let place = self.place(&record, network).await.map_err(|error| unanswered(&error))?;
            given.places.insert(target.clone(), place);
        }
        Ok(given)
    }

    /// Waits until the engine has the network.
    async fn place(&self, record: &TaskRecord, network: &str) -> Result<Place, ApiError> {
        let networks = self.agent.networks();
        let engine = networks.prepare(network).await.map_err(|error| ApiError::internal(error.to_string()))?;
        let had = record.networks.iter().find(|it| it.network_id == network).cloned().unwrap_or_default();
        let state = networks.state(network).unwrap_or_default();
        let dns = state.facts.subnets.iter().map(|it| it.gateway).collect();
        Ok(Place { network_id: network.to_owned(), engine_name: engine.name, v4: had.v4, v6: had.v6, dns })
    }

    /// Compares what the managers have with the containers of the engine, whenever one of the two changes.
    pub(super) async fn follow(self: Arc<Self>) {
        let Some(mut changes) = self.placer.upgrade().map(|it| it.pool.changes()) else { return };
        let mut records = self.agent.networks().attachments().records();
        loop {
            changes.borrow_and_update();
            let known = records.borrow_and_update().clone().unwrap_or_default();
            let is_clear = known.is_empty() || self.compare(&known).await;
            tokio::select! {
                () = sleep(AGAIN), if !is_clear => {}
                changed = changes.changed() => if changed.is_err() { return },
                changed = records.changed() => if changed.is_err() { return },
            }
            sleep(BURST).await;
        }
    }

    /// False, if the engine has a container that the picture of it does not show.
    async fn compare(&self, known: &BTreeMap<String, Arc<TaskRecord>>) -> bool {
        let Some(engine) = self.placer.upgrade().and_then(|it| it.pool.engine(&self.here)) else { return true };
        let node = engine.node();
        if !node.is_healthy() {
            return true;
        }
        let mut is_clear = true;
        let attachments = self.agent.networks().attachments();
        for (id, record) in known {
            let is_asked = attachments.wishes().borrow().contains_key(id);
            if is_asked || self.making.lock().contains(id) {
                continue;
            }
            let mut wanted = wanted_of(record);
            if wanted.container_id.is_empty() {
                // This program, or the engine, ended while the container was made.
                let named = node.named(&Name::new(&wanted.container_name)).next();
                let Some(made) = named else {
                    attachments.release(id);
                    continue;
                };
                wanted.container_id.clone_from(&made.id);
                attachments.want(id, wanted);
                continue;
            }
            match node.containers.get(&wanted.container_id) {
                Some(container) => {
                    let has_changed = container.is_running() != wanted.running;
                    let others = match wanted.late && has_changed && container.is_running() {
                        true => others(&engine, record).await.unwrap_or_else(|| wanted.others.clone()),
                        false => wanted.others.clone(),
                    };
                    let now = Attachment {
                        others,
                        running: container.is_running(),
                        container_name: container.name.trim_start_matches('/').to_owned(),
                        ..wanted.clone()
                    };
                    if now != wanted {
                        attachments.want(id, now);
                    }
                }
                None if is_gone(&engine, &wanted.container_id).await => attachments.release(id),
                None => is_clear = false,
            }
        }
        is_clear
    }
}

/// The addresses that a container has on networks of the engine alone.
async fn others(engine: &Engine, record: &TaskRecord) -> Option<Vec<Ipv4Addr>> {
    let id = wanted_of(record).container_id;
    let shown = engine.call(Method::GET, &format!("/containers/{id}/json"), None).await.ok()?;
    let overlays: Vec<Ipv4Addr> = record.networks.iter().filter_map(|it| it.v4).collect();
    Some(herder_decide::overlays::other_addresses(&shown, &overlays))
}

/// The engine itself is asked: the picture of it may be older than the container.
async fn is_gone(engine: &Engine, container_id: &str) -> bool {
    let asked = engine.call(Method::GET, &format!("/containers/{container_id}/json"), None).await;
    matches!(asked, Err(EngineError::Answer { status: 404, .. }))
}

impl Overlays for PlainContainers {
    fn is_active(&self) -> bool {
        self.host.upgrade().is_some_and(|it| it.kept.borrow().as_ref().is_some_and(|it| !it.cluster.is_empty()))
    }

    fn attach(&self, id: Option<String>, wanted: Attachment) -> Asked<'_, Given> {
        Box::pin(async move {
            let id = id.unwrap_or_else(new_id);
            if wanted.container_id.is_empty() {
                self.making.lock().insert(id.clone());
            }
            let given = self.ask(id.clone(), wanted).await;
            if given.is_err() {
                self.making.lock().remove(&id);
            }
            given
        })
    }

    fn made(&self, id: &str, container_id: &str) {
        let attachments = self.agent.networks().attachments();
        if let Some(record) = attachments.record(id) {
            attachments.want(id, Attachment { container_id: container_id.to_owned(), ..wanted_of(&record) });
        }
        self.making.lock().remove(id);
    }

    fn release(&self, id: &str) {
        self.agent.networks().attachments().release(id);
        self.making.lock().remove(id);
    }

    fn of(&self, container_id: &str) -> Option<(String, Attachment)> {
        self.agent.networks().attachments().of(container_id)
    }
}
