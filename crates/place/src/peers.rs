//! Other nodes of a pool without masters: doors that place at the same time, and nodes that admit containers.
//!
//! A door claims the name at the node that looks after it, chooses a node by its own picture, and asks that node. The node
//! admits by what is really there; when it refuses, the door asks the next best.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use herder_decide::actions::shared::Offered;
use herder_decide::claims::{Claims, Settled};
use herder_decide::placing::{self, Refusal, Said};
use herder_decide::{names, prefer, request};
use herder_model::Container;
use herder_pool::Engine;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use herder_docker::error_message;

use crate::create::{self, Created, Order};
use crate::overlays::Joining;
use crate::reread::reread;
use crate::{Error, Placer};

/// Work of a peer under way.
pub type Asked<'p, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'p>>;

/// The calls from a door to other nodes.
pub trait Peers: Send + Sync + std::fmt::Debug + 'static {
    /// Address of the node that this door belongs to.
    fn here(&self) -> &str;
    /// Asks the node at `addr` to create a container. An error means that nobody knows whether it did.
    fn create<'p>(&'p self, addr: &'p str, wanted: Wanted) -> Asked<'p, Outcome>;
    /// Asks the node at `addr` to connect or disconnect one of its containers. The network is one of the swarm. Returns
    /// false if the swarm has no such network, or the container is not on it.
    fn join<'p>(
        &'p self,
        addr: &'p str,
        joining: Joining,
        container_id: &'p str,
        network: &'p str,
        body: Value,
    ) -> Asked<'p, bool>;
    /// Asks the nodes that look after the name for it. A refusal is a conflict.
    fn claim<'p>(&'p self, name: &'p str, replaces: &'p str) -> Asked<'p, Claim>;
    /// The templates of every other node: those of this name, or all. Who does not answer has none to give.
    fn templates<'p>(&'p self, name: Option<&'p str>) -> Asked<'p, Vec<Offers>>;
    /// Makes a new join code for the pool.
    fn rotate_join_code(&self) -> Asked<'_, String>;
    /// Asks nodes, by id, which of these ports (`8080/tcp`) programs of their hosts listen on. Those that do not answer soon are
    /// passed over.
    fn listeners<'p>(&'p self, nodes: &'p BTreeSet<String>, ports: &'p BTreeSet<String>) -> Asked<'p, Vec<PortTaken>>;
    /// Reports the outcome of a claim to its owners. Does not wait.
    fn settle(&self, claim: Claim, settled: Settled);
}

/// The templates of actions that this node offers to others.
pub trait Templates: Send + Sync + std::fmt::Debug + 'static {
    /// Those of this name, or all.
    fn own<'t>(&'t self, name: Option<&'t str>) -> Pin<Box<dyn Future<Output = Vec<Offered>> + Send + 't>>;
}

/// A port that a program of a node's host listens on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortTaken {
    /// Id of the node.
    pub node: String,
    /// Such as `8080/tcp`.
    pub port: String,
    /// Name and process of the program.
    pub program: String,
}

/// Templates that another node offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offers {
    /// Its address.
    pub addr: String,
    /// The templates; `None` if the node does not answer.
    pub templates: Option<Vec<Offered>>,
}

/// A container that another node shall create.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Docker API version of the client, or empty.
    pub version: String,
    pub name: String,
    pub swarm_id: String,
    /// Further query parameters, encoded.
    pub query: String,
    /// The create body.
    pub body: Value,
    /// Full id of the container that this one replaces, or empty.
    pub replaces: String,
    /// True if ports of containers that were never started are ignored by admission.
    pub insists: bool,
}

/// Answer of another node.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Docker's own status and body.
    pub status: StatusCode,
    pub body: Bytes,
    /// Another node may be asked.
    pub refused: bool,
    /// The engine did not answer: it may have created the container.
    pub in_doubt: bool,
    /// Number of the first picture of that node that shows the container; 0 if that is not known.
    pub picture: u64,
}

/// A claim on a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Ids of the nodes that were asked for it, and the number by which each knows the claim. One that did not answer may have
    /// given it.
    pub owners: BTreeMap<String, u64>,
}

/// Gives a claim back unless something else became of it.
#[derive(Debug)]
pub struct Held {
    peers: Arc<dyn Peers>,
    claim: Option<Claim>,
}

impl Held {
    /// The name belongs to a container that the door's picture of `engine` shows by now, if it still exists.
    pub fn shown(self, engine: &Engine) {
        self.settle(Settled::Shown { addr: engine.addr().to_owned(), picture: engine.picture() });
    }

    /// The name may be that of a container.
    pub fn in_doubt(self) {
        self.settle(Settled::InDoubt);
    }

    fn settle(mut self, settled: Settled) {
        if let Some(claim) = self.claim.take() {
            self.peers.settle(claim, settled);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.peers.settle(claim, Settled::Free);
        }
    }
}

/// Claims given by this node.
#[derive(Debug)]
pub struct ClaimLedger {
    began: Instant,
    claims: Mutex<Claims>,
}

impl Default for ClaimLedger {
    fn default() -> ClaimLedger {
        ClaimLedger { began: Instant::now(), claims: Mutex::default() }
    }
}

impl Placer {
    /// Makes this door one of many. Only the first call counts.
    pub fn join_peers(&self, peers: Arc<dyn Peers>) {
        if self.peers.set(peers).is_err() {
            tracing::error!("a door is given its peers twice; the second time is ignored");
        }
    }

    /// The peers, if a container for the node at `addr` is to be asked of another node.
    pub fn peers_for(&self, addr: &str) -> Option<&Arc<dyn Peers>> {
        self.peers.get().filter(|peers| peers.here() != addr)
    }

    /// True if this node's pictures show a container of that name, other than `replaces`.
    pub fn knows_name(&self, name: &str, replaces: &str) -> bool {
        let replaces = Some(replaces).filter(|id| !id.is_empty());
        placing::check_name(&self.pool.nodes(), name, replaces).is_err()
    }

    /// Reads the containers with this name again before the name is refused. One may have been removed or renamed
    /// through another door while the news of it is on its way.
    pub async fn look_again_at(&self, name: &str) {
        let wanted = herder_model::Name::new(name);
        for node in self.pool.nodes().iter().filter(|node| node.is_healthy() && !name.is_empty()) {
            for container in node.named(&wanted) {
                if let Some(engine) = self.pool.engine(&node.addr) {
                    reread(&engine, &container.id).await;
                }
            }
        }
    }

    /// Claims a name in the whole pool; nothing to hold without peers.
    pub async fn hold(&self, name: &str, replaces: &str) -> Result<Option<Held>, Error> {
        let Some(peers) = self.peers.get() else { return Ok(None) };
        let claim = peers.claim(name, replaces).await?;
        Ok(Some(Held { peers: peers.clone(), claim: Some(claim) }))
    }

    /// Gives another door the claim of a name under its number, or returns the reason for refusal.
    pub fn give_claim(&self, name: &str, replaces: &str, number: u64) -> Result<(), Error> {
        let replaces = Some(replaces).filter(|id| !id.is_empty());
        placing::check_name(&self.pool.nodes(), name, replaces)?;
        let seen = |addr: &str| self.pool.engine(addr).map(|engine| engine.picture());
        if !self.ledger.claims.lock().claim(name, number, self.ledger.began.elapsed(), seen) {
            return Err(Refusal::NameClaimed(name.to_owned()).into());
        }
        Ok(())
    }

    /// Ends a claim that this node gave, with its outcome.
    pub fn end_claim(&self, claim: u64, settled: Settled) {
        self.ledger.claims.lock().settle(claim, settled, self.ledger.began.elapsed());
    }

    /// Another door wants a container on this node. Never fails: trouble is an outcome.
    pub async fn admit(self: &Arc<Self>, wanted: Wanted) -> Outcome {
        match self.try_admit(wanted).await {
            Ok(created) => Outcome {
                status: created.status,
                picture: created.engine.picture(),
                body: created.answer,
                refused: false,
                in_doubt: false,
            },
            Err(refusal) => refusal,
        }
    }

    async fn try_admit(self: &Arc<Self>, wanted: Wanted) -> Result<Created, Outcome> {
        let refused = |error: Error| outcome(&error, Said::No);
        let failed = |error: Error| outcome(&error, Said::Failed);
        let Some(peers) = self.peers.get() else {
            return Err(failed(Error::internal("this node has no peers")));
        };
        let parsed = request::parse(Some(&wanted.name), wanted.body, &wanted.swarm_id);
        let mut request = parsed.map_err(|error| failed(Error::bad_request(error.to_string())))?;
        prefer::complete(&self.pool.nodes(), &mut request);
        request.insists = wanted.insists;
        let ticket = self.pool.place(|nodes| {
            let here = nodes.iter().find(|node| node.addr == peers.here() && node.is_healthy());
            let here = here.ok_or_else(|| Error::internal("the engine of this node is not healthy"))?;
            let replaced = Some(wanted.replaces.as_str()).filter(|id| !id.is_empty());
            placing::admits(here, &request, replaced, &mut rand::rng())?;
            Ok::<_, Error>((here.addr.clone(), request.container.clone()))
        });
        // A name that is taken here is taken everywhere.
        let said = |error: &Error| if error.status() == StatusCode::CONFLICT { Said::Failed } else { Said::No };
        let ticket = ticket.map_err(|error| outcome(&error, said(&error)))?;
        let Some(engine) = self.pool.engine(&ticket.addr) else {
            return Err(refused(Error::internal("the engine of this node has left")));
        };
        let query = herder_docker::path::query_pairs(&wanted.query);
        let version = Some(wanted.version).filter(|version| !version.is_empty());
        let replaces = Some((String::new(), wanted.replaces)).filter(|(_, id)| !id.is_empty());
        let order = Order { request, version, query, replaces };
        let created = create::create_on(self, &order, &ticket, engine).await;
        created.map_err(|error| outcome(&error, create::said(&error)))
    }
}

/// Changes come in bursts; one look is enough for those within this time.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Logs names that are on several nodes, once each, until `stop`. Nothing is removed: only a person knows which of the
/// two is wanted.
pub async fn report_duplicates(placer: Arc<Placer>, stop: CancellationToken) {
    let mut changes = placer.pool.changes();
    let mut known = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let nodes = placer.pool.nodes();
        let found = names::duplicates(&nodes);
        for (name, on) in found.iter().filter(|(name, on)| known.get(*name) != Some(*on)) {
            tracing::warn!(name, ?on, "a container's name is on several nodes; rename or remove all but one");
            for node in nodes.iter().filter(|node| on.contains(&node.name)) {
                placer.pool.announce("duplicate_name", node, serde_json::json!({ "name": name }));
            }
        }
        known = found;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep(SETTLE_TIME).await;
    }
}

fn outcome(error: &Error, said: Said) -> Outcome {
    let body = serde_json::json!({ "message": error.to_string() }).to_string();
    Outcome {
        status: error.status(),
        body: body.into(),
        refused: said == Said::No,
        in_doubt: said == Said::Nothing,
        picture: 0,
    }
}

/// Asks another node for a container; what it says is no refusal.
pub async fn create_at(
    peers: &Arc<dyn Peers>,
    order: &Order,
    container: &Container,
    addr: &str,
    insists: bool,
) -> Result<Outcome, Error> {
    let encode = herder_docker::path::encode_query;
    let pairs: Vec<String> =
        order.query.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    let wanted = Wanted {
        version: order.version.clone().unwrap_or_default(),
        name: container.name.clone(),
        swarm_id: container.swarm_id.clone(),
        query: pairs.join("&"),
        body: order.request.body.clone(),
        replaces: order.replaces.as_ref().map(|(_, id)| id.clone()).unwrap_or_default(),
        insists,
    };
    let outcome = peers.create(addr, wanted).await.map_err(Error::in_doubt)?;
    if outcome.refused {
        // As an engine that does not want to: the next one is asked.
        let message = error_message(&outcome.body);
        return Err(herder_pool::EngineError::Answer { status: 503, message }.into());
    }
    if outcome.in_doubt {
        return Err(Error::new(outcome.status, error_message(&outcome.body)).in_doubt());
    }
    Ok(outcome)
}
