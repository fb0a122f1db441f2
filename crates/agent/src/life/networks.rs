//! Networks of a task's container: the engine's side of them, and what to do where it goes meanwhile.

use std::time::Duration;

use herder_decide::swarm::container::{Overlay, Overlays};
use herder_docker::{EngineError, classify};
use herder_model::swarm::{Assignments, TaskRecord};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Life, Stuck};
use crate::call::{Engine, escaped, refusal};
use crate::net::NotReady;

/// Attempts at a container whose network was just removed, and the pause between two of them: the engine tells nobody.
const NETWORK_ATTEMPTS_MAX: u32 = 10;
const NETWORK_PAUSE: Duration = Duration::from_millis(200);

impl Life {
    /// Makes the container. The engine's side of a network goes with the last task of it on this node; where another task comes at that
    /// moment, it is made anew.
    pub(super) async fn make_on_networks(&mut self, record: &TaskRecord, told: &Assignments) -> Result<(), Stuck> {
        let mut attempts = 1;
        loop {
            match self.make(record, told).await {
                Err(Stuck::Refused(why)) if classify::misses_network(&why) && attempts < NETWORK_ATTEMPTS_MAX => {
                    attempts += 1;
                    self.turn = None;
                    sleep(NETWORK_PAUSE).await;
                }
                made => return made,
            }
        }
    }

    /// The engine's side of the task's overlay networks, once they are ready for containers.
    pub(super) async fn overlays(&self, record: &TaskRecord) -> Result<Overlays, NotReady> {
        let mut overlays = Overlays::new();
        for place in record.networks.iter().filter(|it| it.v4.is_some()) {
            let engine = self.node.networks.prepare(&place.network_id).await?;
            let state = self.node.networks.state(&place.network_id).unwrap_or_default();
            let dns = state.facts.subnets.iter().map(|it| it.gateway).filter(|_| !state.facts.ingress).collect();
            overlays.insert(place.network_id.clone(), Overlay { engine_id: engine.id, dns });
        }
        Ok(overlays)
    }
}

/// Connects a container to its networks besides the first.
pub(super) async fn connect(engine: &Engine, container: &str, networks: &[(String, Value)]) -> Result<(), EngineError> {
    for (network, endpoint) in networks {
        let body = json!({"Container": container, "EndpointConfig": endpoint});
        let connected = engine.post(format!("/networks/{}/connect", escaped(network))).body(&body).done().await;
        match connected {
            // It is connected already.
            Err(error)
                if refusal(&error).is_some_and(|(status, text)| classify::is_connected_already(status, text)) => {}
            connected => connected?,
        }
    }
    Ok(())
}
