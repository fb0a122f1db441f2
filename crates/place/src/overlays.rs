//! Networks of the swarm for plain containers. Managers give the places before the engine gets the call.

use std::collections::BTreeMap;
use std::sync::Arc;

use herder_decide::overlays::{self, Place};
use herder_docker::path::encode_query;
use herder_model::swarm::{AttachRefusal, Attachment};
use herder_pool::{Engine, EngineError};
use http::{Method, StatusCode};
use serde_json::Value;

use crate::create::Order;
use crate::peers::Asked;
use crate::{Error, Placer};

/// The source of places on overlay networks: this node's part in its swarm.
pub trait Overlays: Send + Sync + std::fmt::Debug + 'static {
    /// Returns whether this node is in a swarm. Does not wait.
    fn is_active(&self) -> bool;
    /// Asks for places, under a new id or that of an existing attachment, and waits until they can be used.
    fn attach(&self, id: Option<String>, wanted: Attachment) -> Asked<'_, Given>;
    /// The container exists, or may exist: then without an id. Does not wait.
    fn made(&self, id: &str, container_id: &str);
    /// The container does not exist (any more). Does not wait.
    fn release(&self, id: &str);
    /// The attachment of a container of this node: its id, and what is wanted for it.
    fn of(&self, container_id: &str) -> Option<(String, Attachment)>;
}

/// The places that the managers gave a container.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub id: String,
    /// Keyed by target, as the client named the network.
    pub places: BTreeMap<String, Place>,
    pub refused: BTreeMap<String, AttachRefusal>,
}

/// The places of a container that is being made. Dropped, they are given back.
#[derive(Debug)]
pub(crate) struct Attaching {
    overlays: Arc<dyn Overlays>,
    id: String,
    is_made: bool,
}

impl Attaching {
    pub(crate) fn made(mut self, container_id: &str) {
        self.is_made = true;
        self.overlays.made(&self.id, container_id);
    }

    /// Notes that the creation of the container is in doubt; the engine's list decides later.
    pub(crate) fn in_doubt(mut self) {
        self.is_made = true;
        self.overlays.made(&self.id, "");
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        if !self.is_made {
            self.overlays.release(&self.id);
        }
    }
}

/// The change that a client wants: to connect a container to a network, or to disconnect it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    Connect,
    Disconnect,
}

impl Placer {
    /// Gives the placer a way to networks of the swarm. Only the first call counts.
    pub fn join_overlays(&self, overlays: Arc<dyn Overlays>) {
        if self.overlays.set(overlays).is_err() {
            tracing::error!("a door is given its swarm's networks twice; the second time is ignored");
        }
    }

    fn overlays(&self) -> Option<&Arc<dyn Overlays>> {
        self.overlays.get().filter(|it| it.is_active())
    }

    /// Connects a container to a network of the swarm, or disconnects it, on the node that has it. False: the swarm has no such network,
    /// or the container is not on it.
    pub async fn join(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        joining: Joining,
        container_id: &str,
        network: &str,
        body: Value,
    ) -> Result<bool, Error> {
        if self.overlays().is_none() || !overlays::may_be_swarms(&self.pool.nodes(), network) {
            return Ok(false);
        }
        if let Some(peers) = self.peers_for(engine.addr()) {
            return peers.join(engine.addr(), joining, container_id, network, body).await;
        }
        self.join_here(joining, container_id, network, body).await
    }

    /// The same, on this node.
    pub async fn join_here(
        self: &Arc<Self>,
        joining: Joining,
        container_id: &str,
        network: &str,
        body: Value,
    ) -> Result<bool, Error> {
        let Some(overlays) = self.overlays() else { return Ok(false) };
        let here = self.peers.get().map(|it| it.here().to_owned()).unwrap_or_default();
        let engine = self.pool.engine(&here).ok_or_else(|| Error::internal("the engine of this node has left"))?;
        let joined = match joining {
            Joining::Connect => connect(overlays, &engine, container_id, network, body).await,
            Joining::Disconnect => disconnect(overlays, &engine, container_id, network, body).await,
        }?;
        if joined {
            engine.refresh_container(container_id).await?;
        }
        Ok(joined)
    }
}

/// Gets the places of a new container, and adapts its body for the engine.
pub(crate) async fn prepare(
    placer: &Placer,
    order: &Order,
    name: &str,
    body: &mut Value,
) -> Result<Option<Attaching>, Error> {
    let Some(overlays) = placer.overlays() else { return Ok(None) };
    let moves = order.replaces.is_some();
    let Some(wanted) = overlays::wanted(&placer.pool.nodes(), body, name, moves) else { return Ok(None) };
    let Given { id, places, refused } = overlays.attach(None, wanted).await?;
    let attaching = Attaching { overlays: overlays.clone(), id, is_made: false };
    if let Some(refusal) = refused.values().find(|it| it.status != StatusCode::NOT_FOUND.as_u16()) {
        return Err(refused_as(refusal));
    }
    // Of a network that nobody knows the engine says so.
    overlays::fit(body, &places);
    Ok((!places.is_empty()).then_some(attaching))
}

fn refused_as(refusal: &AttachRefusal) -> Error {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::FORBIDDEN);
    Error::new(status, refusal.reason.clone())
}

async fn connect(
    overlays: &Arc<dyn Overlays>,
    engine: &Engine,
    container_id: &str,
    network: &str,
    mut body: Value,
) -> Result<bool, Error> {
    let known = overlays.of(container_id);
    let (id, before) = match &known {
        Some((id, wanted)) => (Some(id.clone()), wanted.clone()),
        None => (None, described(engine, container_id).await?),
    };
    if before.networks.iter().any(|it| it.target == network) {
        return Err(Error::conflict(format!("{container_id} is already attached to network {network}")));
    }
    let mut wanted = before.clone();
    wanted.networks.push(overlays::asked(network, &body["EndpointConfig"], false));
    let Given { id, places, refused } = overlays.attach(id, wanted).await?;
    let outcome = match (places.get(network), refused.get(network)) {
        (Some(place), _) => {
            body["Container"] = container_id.into();
            body["EndpointConfig"] = overlays::endpoint(body["EndpointConfig"].take(), place);
            let path = format!("/networks/{}/connect", encode_query(&place.engine_name));
            engine.call(Method::POST, &path, Some(&body)).await.map(|_| true).map_err(Error::from)
        }
        (None, Some(refusal)) if refusal.status != StatusCode::NOT_FOUND.as_u16() => Err(refused_as(refusal)),
        (None, _) => Ok(false),
    };
    if !matches!(outcome, Ok(true)) {
        give_back(overlays, &id, before).await;
    }
    outcome
}

/// Restores the attachment to its state before the call.
async fn give_back(overlays: &Arc<dyn Overlays>, id: &str, before: Attachment) {
    if before.networks.is_empty() {
        overlays.release(id);
    } else if let Err(error) = overlays.attach(Some(id.to_owned()), before).await {
        tracing::warn!(%error, id, "cannot give back the place of a container in a network");
    }
}

async fn disconnect(
    overlays: &Arc<dyn Overlays>,
    engine: &Engine,
    container_id: &str,
    network: &str,
    mut body: Value,
) -> Result<bool, Error> {
    let Some((id, mut wanted)) = overlays.of(container_id) else { return Ok(false) };
    let Given { places, .. } = overlays.attach(Some(id.clone()), wanted.clone()).await?;
    let meant = places.iter().find(|(target, it)| {
        *target == network
            || it.network_id == network
            || it.engine_name == network
            || it.network_id.starts_with(network)
    });
    let Some((target, place)) = meant else { return Ok(false) };
    body["Container"] = container_id.into();
    let path = format!("/networks/{}/disconnect", encode_query(&place.engine_name));
    if let Err(error) = engine.call(Method::POST, &path, Some(&body)).await
        && !is_disconnected(&error)
    {
        return Err(error.into());
    }
    wanted.networks.retain(|it| it.target != *target);
    give_back(overlays, &id, wanted).await;
    Ok(true)
}

/// An engine says so of a container that is not on the network.
fn is_disconnected(error: &EngineError) -> bool {
    matches!(error, EngineError::Answer { message, .. } if message.contains("is not connected to"))
}

/// A container that was on no network of the swarm until now.
async fn described(engine: &Engine, container_id: &str) -> Result<Attachment, Error> {
    let shown = engine.call(Method::GET, &format!("/containers/{container_id}/json"), None).await?;
    Ok(overlays::late(container_id, &shown))
}
