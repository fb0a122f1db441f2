//! Calls between the doors of a pool, in both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use herder_decide::actions::shared::Offered;
use herder_decide::claims::Settled;
use herder_decide::placing::Claiming;
use herder_place::overlays::Joining;
use herder_place::peers::{Asked, Claim, Offers, Outcome, Peers, PortTaken, Templates, Wanted};
use herder_place::{Error as ApiError, Placer};
use herder_pool::Engine;
use herder_wire::calls::{
    Answers, Calls, ClaimReply, ClaimRequest, Code, CreateReply, CreateRequest, FollowReply, FollowRequest, JoinReply,
    JoinRequest, NewsStream, Peer, PortsReply, PortsRequest, Request, RereadReply, RereadRequest, Response,
    SettleReply, SettleRequest, Status, TakenPort, Template, TemplatesReply, TemplatesRequest, async_trait,
};
use herder_wire::link::Access;
use http::StatusCode;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::members::{Directory, Next};
use crate::source;

/// Maximum time of a claim. Dead owners of a name are noticed after about 3 s; others take over then.
const OWNERS_TIME_MAX: Duration = Duration::from_secs(10);

/// Maximum wait if an owner says that a name is taken, and this door knows no container of that name. News of the
/// container's end, or of the last claim, is on its way. It takes milliseconds; a busy machine may need more.
const NEWS_TIME_MAX: Duration = Duration::from_secs(5);

/// Pause between two questions meanwhile, without other news.
const NEWS_REST: Duration = Duration::from_millis(50);

/// Pause before owners that did not answer are asked again, without news of other nodes.
const SILENT_REST: Duration = Duration::from_millis(500);

/// Attempts to settle a claim with a silent node, and the pause between. Otherwise it holds the claim for long.
const SETTLE_ATTEMPTS: u32 = 3;
const SETTLE_REST: Duration = Duration::from_secs(1);

/// Client side of calls to other nodes.
pub struct PoolPeers {
    directory: Arc<Directory>,
    calls: Arc<Calls>,
    placer: Weak<Placer>,
}

impl std::fmt::Debug for PoolPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolPeers").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl PoolPeers {
    pub fn new(directory: Arc<Directory>, calls: Arc<Calls>, placer: &Arc<Placer>) -> PoolPeers {
        PoolPeers { directory, calls, placer: Arc::downgrade(placer) }
    }

    /// Claims at one node after the other until enough of them have given the name.
    async fn claim_at_owners(&self, name: &str, replaces: &str, claim: &mut Claim) -> Result<(), ApiError> {
        let (end, news_end) = (Instant::now() + OWNERS_TIME_MAX, Instant::now() + NEWS_TIME_MAX);
        let mut changes = self.directory.changes();
        let mut claiming = Claiming::default();
        let number = number();
        self.directory.met_others().await;
        while Instant::now() < end {
            changes.borrow_and_update();
            let owner = match self.directory.next_owner(name, &claiming) {
                Next::Ask(owner) => owner,
                Next::Have => return Ok(()),
                Next::Stuck => {
                    // A dead owner is soon known to be dead; a living one may have been busy for a moment.
                    let _ = timeout_at(end.min(Instant::now() + SILENT_REST), changes.changed()).await;
                    claiming.again();
                    continue;
                }
            };
            claim.owners.insert(owner.id.clone(), number);
            let placer = self.placer.upgrade().ok_or_else(stopping)?;
            let answer = self.claim_at(&owner, name, replaces, number).await;
            if answer.is_err() && Instant::now() < news_end && !placer.knows_name(name, replaces) {
                let _ = timeout(NEWS_REST, placer.pool.changes().changed()).await;
                continue;
            }
            match answer? {
                Some(known_as) => {
                    claiming.given(&owner.id);
                    claim.owners.insert(owner.id, known_as);
                }
                None => claiming.silent(&owner.id),
            }
        }
        let message = format!("too few of the nodes that look after the name {name} answer; try again");
        Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
    }

    /// The number by which that node knows the claim: ours, unless it is of an older version. Nothing, if it does not answer.
    async fn claim_at(&self, owner: &Peer, name: &str, replaces: &str, number: u64) -> Result<Option<u64>, ApiError> {
        if owner.id == self.directory.id {
            let placer = self.placer.upgrade().ok_or_else(stopping)?;
            return placer.give_claim(name, replaces, number).map(|()| Some(number));
        }
        let request = ClaimRequest { name: name.to_owned(), replaces: replaces.to_owned(), number };
        match self.calls.claim(owner, request).await {
            Ok(ClaimReply { claim: 0, reason }) => Err(ApiError::conflict(reason)),
            Ok(ClaimReply { claim, .. }) => Ok(Some(claim)),
            Err(error) => {
                tracing::warn!(name, owner = owner.addr, %error, "an owner of a name does not answer");
                Ok(None)
            }
        }
    }

    fn settle_at(&self, owner: &str, number: u64, settled: Settled) {
        if owner == self.directory.id {
            if let Some(placer) = self.placer.upgrade() {
                placer.end_claim(number, settled);
            }
            return;
        }
        let (calls, peer) = (self.calls.clone(), self.directory.by_id(owner));
        let used = settled != Settled::Free;
        let (addr, picture) = match settled {
            Settled::Shown { addr, picture } => (addr, picture),
            Settled::Free | Settled::InDoubt => (String::new(), 0),
        };
        let request = SettleRequest { claim: number, used, addr, picture };
        tokio::spawn(async move {
            let Some(peer) = peer else { return };
            for _ in 0..SETTLE_ATTEMPTS {
                match calls.settle(&peer, request.clone()).await {
                    Ok(()) => return,
                    // In the end, the claim ends by itself.
                    Err(error) => tracing::debug!(%error, "cannot settle a claim"),
                }
                sleep(SETTLE_REST).await;
            }
        });
    }
}

/// Returns a random claim number, never 0. The caller chooses it so that it can release a claim whose reply was lost.
fn number() -> u64 {
    rand::random::<u64>().max(1)
}

fn stopping() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "this node is shutting down")
}

/// The node was not reached: another one may be asked.
fn gone(addr: &str) -> Outcome {
    let body = serde_json::json!({ "message": format!("the node at {addr} has just left") }).to_string();
    Outcome { status: StatusCode::SERVICE_UNAVAILABLE, body: body.into(), refused: true, in_doubt: false, picture: 0 }
}

impl Peers for PoolPeers {
    fn here(&self) -> &str {
        &self.directory.here
    }

    fn create<'p>(&'p self, addr: &'p str, wanted: Wanted) -> Asked<'p, Outcome> {
        Box::pin(async move {
            let Some(peer) = self.directory.at(addr) else { return Ok(gone(addr)) };
            let request = CreateRequest {
                version: wanted.version,
                name: wanted.name,
                swarm_id: wanted.swarm_id,
                query: wanted.query,
                body: wanted.body.to_string().into_bytes(),
                replaces: wanted.replaces,
                insists: wanted.insists,
            };
            let reply = self.calls.create(&peer, request).await;
            if let Err(denied) = &reply
                && denied.code() == Code::PermissionDenied
            {
                let body = serde_json::json!({ "message": denied.message() }).to_string();
                let status = StatusCode::FORBIDDEN;
                return Ok(Outcome { status, body: body.into(), refused: true, in_doubt: false, picture: 0 });
            }
            let CreateReply { status, body, refused, in_doubt, picture } = reply
                .map_err(|error| ApiError::internal(format!("node {addr} cannot be asked: {}", error.message())))?;
            let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
            Ok(Outcome {
                status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                body: body.into(),
                refused,
                in_doubt,
                picture,
            })
        })
    }

    fn join<'p>(
        &'p self,
        addr: &'p str,
        joining: Joining,
        container_id: &'p str,
        network: &'p str,
        body: Value,
    ) -> Asked<'p, bool> {
        Box::pin(async move {
            let gone = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("the node at {addr} has just left"));
            let peer = self.directory.at(addr).ok_or_else(gone)?;
            let request = JoinRequest {
                container: container_id.to_owned(),
                network: network.to_owned(),
                disconnects: joining == Joining::Disconnect,
                body: body.to_string().into_bytes(),
            };
            let JoinReply { status, reason } = self
                .calls
                .join(&peer, request)
                .await
                .map_err(|error| ApiError::internal(format!("node {addr} cannot be asked: {}", error.message())))?;
            let status = u16::try_from(status).unwrap_or_default();
            match StatusCode::from_u16(status) {
                Ok(StatusCode::OK) => Ok(true),
                Ok(status) => Err(ApiError::new(status, reason)),
                Err(_) => Ok(false),
            }
        })
    }

    fn claim<'p>(&'p self, name: &'p str, replaces: &'p str) -> Asked<'p, Claim> {
        Box::pin(async move {
            let mut claim = Claim { owners: BTreeMap::new() };
            let outcome = self.claim_at_owners(name, replaces, &mut claim).await;
            if let Err(error) = outcome {
                self.settle(claim, Settled::Free);
                return Err(error);
            }
            Ok(claim)
        })
    }

    fn templates<'p>(&'p self, name: Option<&'p str>) -> Asked<'p, Vec<Offers>> {
        let offered = |Template { name, text, modified }| Offered { name, text, modified };
        Box::pin(async move {
            let asked = self.directory.others().into_iter().map(|peer| async move {
                let answer = self.calls.templates(&peer, name).await;
                if let Err(error) = &answer {
                    tracing::info!(peer = peer.addr, %error, "cannot list the templates of a node");
                }
                Offers { addr: peer.addr, templates: answer.ok().map(|it| it.into_iter().map(offered).collect()) }
            });
            Ok(join_all(asked).await)
        })
    }

    fn rotate_join_code(&self) -> Asked<'_, String> {
        let link = self.calls.link().clone();
        Box::pin(async move {
            if link.roster().is_some() {
                let text = "this pool is a swarm, which nodes enter with its tokens: `docker swarm join-token --rotate worker` and \
                            `… manager` change them";
                return Err(ApiError::conflict(text));
            }
            // It is written to disk before it is in force.
            let rotated = tokio::task::spawn_blocking(move || link.rotate(SystemTime::now())).await;
            let failed = |error: &dyn std::fmt::Display| {
                ApiError::internal(format!("the join code cannot be changed, the old one stays: {error}"))
            };
            let code = rotated.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
            tracing::info!("the join code was changed here; the old one is no longer valid");
            Ok(code.to_string())
        })
    }

    fn listeners<'p>(&'p self, nodes: &'p BTreeSet<String>, ports: &'p BTreeSet<String>) -> Asked<'p, Vec<PortTaken>> {
        Box::pin(async move {
            let here = async {
                if !nodes.contains(&self.directory.id) {
                    return Vec::new();
                }
                let taken = herder_agent::net::listeners(ports.clone()).await;
                let taken = taken.into_iter().map(|(port, program)| PortTaken {
                    node: self.directory.id.clone(),
                    port,
                    program,
                });
                taken.collect()
            };
            let others = self.directory.others().into_iter().filter(|peer| nodes.contains(&peer.id));
            let others = others.map(|peer| async move {
                match self.calls.ports(&peer, ports.iter().cloned().collect()).await {
                    Ok(taken) => {
                        let of = |TakenPort { port, program }| PortTaken { node: peer.id.clone(), port, program };
                        taken.into_iter().map(of).collect()
                    }
                    Err(error) => {
                        tracing::info!(peer = peer.addr, %error, "a node does not tell which ports are taken on its host");
                        Vec::new()
                    }
                }
            });
            let (here, others): (Vec<PortTaken>, Vec<Vec<PortTaken>>) = tokio::join!(here, join_all(others));
            Ok(here.into_iter().chain(others.into_iter().flatten()).collect())
        })
    }

    fn settle(&self, claim: Claim, settled: Settled) {
        for (owner, number) in &claim.owners {
            self.settle_at(owner, *number, settled.clone());
        }
    }
}

/// Returns the refusal of a call to a worker.
pub fn denied(what: &str) -> String {
    format!("workers of a swarm do not {what}: use the door of a manager, or of the node itself")
}

/// Server side of calls from other nodes.
#[derive(Clone, Debug)]
pub struct PeerService {
    placer: Weak<Placer>,
    templates: Weak<dyn Templates>,
    /// Address of this node.
    here: String,
    /// Rights of the peer.
    access: Access,
}

impl PeerService {
    pub fn new(placer: &Arc<Placer>, templates: Weak<dyn Templates>, here: &str) -> PeerService {
        PeerService { placer: Arc::downgrade(placer), templates, here: here.to_owned(), access: Access::Full }
    }

    /// The same for a peer with this access.
    pub fn with(&self, access: Access) -> Arc<PeerService> {
        Arc::new(PeerService { access, ..self.clone() })
    }

    /// Refuses workers.
    fn check(&self, what: &str) -> Result<(), Status> {
        match self.access {
            Access::Full => Ok(()),
            Access::Worker => Err(Status::permission_denied(denied(what))),
        }
    }

    fn placer(&self) -> Result<Arc<Placer>, Status> {
        self.placer.upgrade().ok_or_else(|| Status::unavailable("this node is shutting down"))
    }

    fn engine(&self) -> Result<Arc<Engine>, Status> {
        let engine = self.placer()?.pool.engine(&self.here);
        engine.ok_or_else(|| Status::unavailable("this node has not looked at its engine yet"))
    }
}

#[async_trait]
impl Answers for PeerService {
    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateReply>, Status> {
        self.check("make containers on other nodes")?;
        let wanted = request.into_inner();
        let body: Value = serde_json::from_slice(&wanted.body)
            .map_err(|error| Status::invalid_argument(format!("the body is no JSON: {error}")))?;
        let CreateRequest { version, name, swarm_id, query, replaces, insists, .. } = wanted;
        let placer = self.placer()?;
        let wanted = Wanted { version, name, swarm_id, query, body, replaces, insists };
        // In a task of its own: a door that goes away does not leave a container that nobody has counted.
        let outcome = tokio::spawn(async move { placer.admit(wanted).await }).await;
        let Outcome { status, body, refused, in_doubt, picture } =
            outcome.map_err(|error| Status::internal(format!("the create was broken off: {error}")))?;
        Ok(Response::new(CreateReply { status: status.as_u16().into(), body: body.into(), refused, in_doubt, picture }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        self.check("connect containers of other nodes to networks")?;
        let JoinRequest { container, network, disconnects, body } = request.into_inner();
        let body: Value = serde_json::from_slice(&body)
            .map_err(|error| Status::invalid_argument(format!("the body is no JSON: {error}")))?;
        let joining = if disconnects { Joining::Disconnect } else { Joining::Connect };
        let placer = self.placer()?;
        // In a task of its own: what a door that goes away has begun is finished.
        let joined = tokio::spawn(async move { placer.join_here(joining, &container, &network, body).await }).await;
        let reply = match joined.map_err(|error| Status::internal(format!("the call was broken off: {error}")))? {
            Ok(true) => JoinReply { status: StatusCode::OK.as_u16().into(), ..JoinReply::default() },
            Ok(false) => JoinReply::default(),
            Err(error) => JoinReply { status: error.status().as_u16().into(), reason: error.to_string() },
        };
        Ok(Response::new(reply))
    }

    async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<ClaimReply>, Status> {
        let ClaimRequest { name, replaces, number: asked } = request.into_inner();
        let number = if asked == 0 { number() } else { asked };
        let reply = match self.placer()?.give_claim(&name, &replaces, number) {
            Ok(()) => ClaimReply { claim: number, reason: String::new() },
            Err(error) => ClaimReply { claim: 0, reason: error.to_string() },
        };
        Ok(Response::new(reply))
    }

    async fn templates(&self, request: Request<TemplatesRequest>) -> Result<Response<TemplatesReply>, Status> {
        self.check("read templates of other nodes")?;
        let name = Some(request.into_inner().name).filter(|name| !name.is_empty());
        let templates = self.templates.upgrade();
        let templates = templates.ok_or_else(|| Status::unavailable("this node is shutting down"))?;
        let offered = templates.own(name.as_deref()).await;
        let template = |Offered { name, text, modified }| Template { name, text, modified };
        Ok(Response::new(TemplatesReply { templates: offered.into_iter().map(template).collect() }))
    }

    type FollowStream = NewsStream;

    async fn follow(&self, _: Request<FollowRequest>) -> Result<Response<NewsStream>, Status> {
        let told = self.engine()?.news().map(|news| {
            let news = serde_json::to_vec(&news).map_err(|error| Status::internal(error.to_string()))?;
            Ok(FollowReply { news })
        });
        Ok(Response::new(told.boxed()))
    }

    async fn reread(&self, request: Request<RereadRequest>) -> Result<Response<RereadReply>, Status> {
        let number = self.engine()?.reread(source::wanted(request.into_inner())).await;
        let number = number.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(RereadReply { number }))
    }

    async fn ports(&self, request: Request<PortsRequest>) -> Result<Response<PortsReply>, Status> {
        self.check("read the ports of other nodes")?;
        let ports = request.into_inner().ports.into_iter().collect();
        let taken = herder_agent::net::listeners(ports).await.into_iter();
        let taken = taken.map(|(port, program)| TakenPort { port, program }).collect();
        Ok(Response::new(PortsReply { taken }))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<SettleReply>, Status> {
        let SettleRequest { claim, used, addr, picture } = request.into_inner();
        let settled = match (used, addr.is_empty()) {
            (false, _) => Settled::Free,
            // So does a door of an older version.
            (true, true) => Settled::InDoubt,
            (true, false) => Settled::Shown { addr, picture },
        };
        self.placer()?.end_claim(claim, settled);
        Ok(Response::new(SettleReply {}))
    }
}
