//! Containers with the policy `on-node-failure` follow when their node is lost, and never double when it comes back.
//!
//! A loop that takes no input but "look again": what is to be done is seen from the picture each time, so that nothing is
//! lost by a failure. Runs on the primary only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use herder_decide::request;
use herder_decide::reschedule::{self, Move};
use herder_docker::path::encode_query;
use herder_model::{Node, NodeState};
use herder_pool::{Engine, EngineError};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::create::{Created, Order, place_and_create};
use crate::overlays::Joining;
use crate::{Error, Placer, create};

/// The first pause after a container that fits nowhere; doubles up to the next.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Changes come in bursts; one look is enough for those within this time.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// Containers that are made at the same time. More would only wait for the engines.
const MOVES_MAX: usize = 8;

/// Creating and starting one container takes at most this long (an image may have to be brought over).
const MOVE_TIME_MAX: Duration = Duration::from_secs(300);

/// Watches over the nodes until `stop`.
pub async fn run(placer: Arc<Placer>, stop: CancellationToken) {
    let mut changes = placer.pool.changes();
    let mut rescheduler = Rescheduler::default();
    loop {
        changes.mark_unchanged();
        let work = rescheduler.look(&placer);
        let Some(next) = stop.run_until_cancelled(work).await else { return };
        let wake = async {
            match next {
                Some(next) => tokio::select! {
                    changed = changes.changed() => changed.is_ok(),
                    () = sleep_until(next) => true,
                },
                None => changes.changed().await.is_ok(),
            }
        };
        if stop.run_until_cancelled(wake).await != Some(true) {
            return;
        }
        if stop.run_until_cancelled(tokio::time::sleep(SETTLE_TIME)).await.is_none() {
            return;
        }
    }
}

/// State that the rescheduler keeps between two looks.
#[derive(Debug, Default)]
struct Rescheduler {
    /// The nodes of the last look: a node that left discovery is not in the picture any more.
    last: BTreeMap<String, Arc<Node>>,
    /// Nodes that left while they had containers to be moved.
    left: BTreeMap<String, Arc<Node>>,
    /// Swarm id → what did not fit, and when it is tried again.
    waiting: BTreeMap<String, (Instant, Duration)>,
}

impl Rescheduler {
    /// Moves the containers that are due; returns the time of the next attempt.
    async fn look(&mut self, placer: &Arc<Placer>) -> Option<Instant> {
        let nodes = placer.pool.nodes();
        self.note_departures(&nodes);
        join_all(nodes.iter().filter_map(|node| tidy_up(placer, node))).await;
        for (addr, id) in reschedule::superseded(&nodes) {
            if let Some(engine) = placer.pool.engine(&addr) {
                tracing::info!(addr, id, "a container exists twice; removing the older");
                engine.supersede_container(&id);
                remove(&engine, &id).await;
            }
        }
        let lost = nodes.iter().filter(|node| node.state == NodeState::Unhealthy).chain(self.left.values());
        let moves: Vec<Move> = lost.flat_map(|node| reschedule::plan(node, &nodes)).collect();
        let known: BTreeSet<&str> = moves.iter().map(|it| it.container.swarm_id.as_str()).collect();
        self.waiting.retain(|swarm_id, _| known.contains(swarm_id.as_str()));
        let now = Instant::now();
        let due: Vec<Move> = moves.into_iter().filter(|it| self.is_due(it, now)).take(MOVES_MAX).collect();
        let busy = due.len() == MOVES_MAX;
        let results = join_all(due.iter().map(|it| carry_out(placer, it))).await;
        for (moved, result) in due.iter().zip(results) {
            self.note(moved, result);
        }
        if busy { Some(now) } else { self.waiting.values().map(|(due, _)| *due).min() }
    }

    fn note_departures(&mut self, nodes: &[Arc<Node>]) {
        let present: BTreeMap<String, Arc<Node>> = nodes.iter().map(|node| (node.addr.clone(), node.clone())).collect();
        for (addr, node) in std::mem::take(&mut self.last) {
            if !present.contains_key(&addr) && node.containers.values().any(|it| reschedule::asks(it)) {
                self.left.insert(addr, node);
            }
        }
        self.left.retain(|addr, _| !present.contains_key(addr));
        self.last = present;
    }

    fn is_due(&self, it: &Move, now: Instant) -> bool {
        self.waiting.get(&it.container.swarm_id).is_none_or(|(due, _)| *due <= now)
    }

    fn note(&mut self, moved: &Move, result: Result<(), Error>) {
        let swarm_id = &moved.container.swarm_id;
        let Err(error) = result else {
            self.waiting.remove(swarm_id);
            if let Some(node) = self.left.get_mut(&moved.from) {
                Arc::make_mut(node).remove_container(&moved.container.id);
            }
            return;
        };
        let pause = self.waiting.get(swarm_id).map_or(RETRY_MIN, |(_, pause)| (*pause * 2).min(RETRY_MAX));
        tracing::warn!(container = moved.container.name, from = moved.from, %error, ?pause, "cannot reschedule; trying again");
        self.waiting.insert(swarm_id.clone(), (Instant::now() + pause, pause));
    }
}

/// Removes what was superseded while the node was away.
fn tidy_up(placer: &Placer, node: &Node) -> Option<impl Future<Output = ()> + use<>> {
    let engine = placer.pool.engine(&node.addr).filter(|_| node.is_healthy())?;
    let superseded = engine.superseded();
    (!superseded.is_empty()).then_some(async move {
        for id in superseded {
            remove(&engine, &id).await;
        }
    })
}

/// Removes a superseded container with its anonymous volumes, as classic Swarm did. What fails is tried at the next look.
async fn remove(engine: &Engine, id: &str) {
    match engine.call(Method::DELETE, &format!("/containers/{id}?force=1&v=1"), None).await {
        Ok(_) | Err(EngineError::Answer { status: 404, .. }) => engine.forget_superseded(id),
        Err(error) => {
            tracing::warn!(addr = engine.addr(), id, %error, "cannot remove a container that runs elsewhere now")
        }
    }
}

/// Makes the container elsewhere, joins its networks and starts it. On failure nothing is left behind.
async fn carry_out(placer: &Arc<Placer>, moved: &Move) -> Result<(), Error> {
    let old = &moved.container;
    let request = request::parse(Some(&old.name), moved.body.clone(), &old.swarm_id);
    let request = request.map_err(|error| Error::bad_request(error.to_string()))?;
    let order =
        Order { request, version: None, query: Vec::new(), replaces: Some((moved.from.clone(), old.id.clone())) };
    let late = || Error::new(StatusCode::GATEWAY_TIMEOUT, "the container could not be made in time");
    let created = timeout(MOVE_TIME_MAX, place_and_create(placer.clone(), order)).await.map_err(|_| late())??;
    let started = timeout(MOVE_TIME_MAX, complete(placer, moved, &created)).await.unwrap_or_else(|_| Err(late()));
    let returned = placer.pool.engine(&moved.from).is_some_and(|engine| engine.node().is_healthy());
    if started.is_err() || returned {
        let path = format!("/containers/{}?force=1&v=1", created.id);
        if let Err(error) = created.engine.call(Method::DELETE, &path, None).await {
            tracing::warn!(%error, id = created.id, "cannot remove a container that was not needed after all");
        }
        created.engine.forget_container(&created.id);
        return started;
    }
    if let Some(engine) = placer.pool.engine(&moved.from) {
        engine.supersede_container(&old.id);
    }
    let to = created.engine.node().name.clone();
    tracing::info!("Rescheduled container {} from {} to {to} as {}", old.id, moved.from, created.id);
    Ok(())
}

async fn complete(placer: &Arc<Placer>, moved: &Move, created: &Created) -> Result<(), Error> {
    let Created { engine, id, .. } = created;
    for (network, endpoint) in &moved.networks {
        // In a network of the swarm the lost container still has the old address.
        let mut anywhere = endpoint.clone();
        if let Some(members) = anywhere.as_object_mut() {
            members.shift_remove("IPAMConfig");
        }
        if placer.join(engine, Joining::Connect, id, network, json!({ "EndpointConfig": anywhere })).await? {
            continue;
        }
        create::ground::network(placer, engine, network).await?;
        let body = json!({ "Container": id, "EndpointConfig": endpoint });
        engine.call(Method::POST, &format!("/networks/{}/connect", encode_query(network)), Some(&body)).await?;
    }
    if moved.start {
        engine.call(Method::POST, &format!("/containers/{id}/start"), None).await?;
    }
    engine.refresh_container(id).await?;
    Ok(())
}
