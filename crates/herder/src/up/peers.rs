//! What the doors of a pool ask of each other, in both directions.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use herder_decide::actions::shared::Offered;
use herder_front::peers::{Asked, Claim, Offers, Outcome, Peers, Wanted};
use herder_front::{ApiError, Front};
use herder_pool::Engine;
use herder_wire::calls::{
    Answers, Calls, ClaimReply, ClaimRequest, CreateReply, CreateRequest, FollowReply, FollowRequest, Request,
    RereadReply, RereadRequest, Response, SettleReply, SettleRequest, Status, Template, TemplatesReply,
    TemplatesRequest, Told, async_trait,
};
use http::StatusCode;
use serde_json::Value;

use super::members::Directory;
use super::source;

/// Nodes that are asked for a name before giving up: who does not answer is presumed dead.
const KEEPERS_MAX: usize = 3;

/// Asks others.
pub(super) struct PoolPeers {
    directory: Arc<Directory>,
    calls: Arc<Calls>,
    front: Weak<Front>,
}

impl std::fmt::Debug for PoolPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolPeers").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl PoolPeers {
    pub(super) fn new(directory: Arc<Directory>, calls: Arc<Calls>, front: &Arc<Front>) -> PoolPeers {
        PoolPeers { directory, calls, front: Arc::downgrade(front) }
    }

    async fn claim_at_keeper(&self, name: &str, replaces: &str) -> Result<Claim, ApiError> {
        let mut silent = BTreeSet::new();
        while silent.len() < KEEPERS_MAX {
            let Some(keeper) = self.directory.keeper(name, &silent) else { break };
            if keeper.id == self.directory.id {
                let front = self.front.upgrade().ok_or_else(stopping)?;
                return Ok(Claim { number: front.give_claim(name, replaces)?, keeper: keeper.id });
            }
            let request = ClaimRequest { name: name.to_owned(), replaces: replaces.to_owned() };
            match self.calls.claim(&keeper, request).await {
                Ok(ClaimReply { claim: 0, reason }) => return Err(ApiError::conflict(reason)),
                Ok(ClaimReply { claim, .. }) => return Ok(Claim { number: claim, keeper: keeper.id }),
                Err(error) => {
                    tracing::warn!(name, keeper = keeper.addr, %error, "the node that looks after a name does not answer");
                    silent.insert(keeper.id);
                }
            }
        }
        let message = format!("no node that could look after the name {name} answers; try again");
        Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
    }
}

fn stopping() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "this node is shutting down")
}

impl Peers for PoolPeers {
    fn here(&self) -> &str {
        &self.directory.here
    }

    fn create<'p>(&'p self, addr: &'p str, wanted: Wanted) -> Asked<'p, Outcome> {
        Box::pin(async move {
            let gone = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("the node at {addr} has just left"));
            let peer = self.directory.at(addr).ok_or_else(gone)?;
            let request = CreateRequest {
                version: wanted.version,
                name: wanted.name,
                swarm_id: wanted.swarm_id,
                query: wanted.query,
                body: wanted.body.to_string().into_bytes(),
                replaces: wanted.replaces,
            };
            let reply = self.calls.create(&peer, request).await;
            let CreateReply { status, body, refused } = reply
                .map_err(|error| ApiError::internal(format!("node {addr} cannot be asked: {}", error.message())))?;
            let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
            Ok(Outcome { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body: body.into(), refused })
        })
    }

    fn claim<'p>(&'p self, name: &'p str, replaces: &'p str) -> Asked<'p, Claim> {
        Box::pin(self.claim_at_keeper(name, replaces))
    }

    fn templates<'p>(&'p self, name: Option<&'p str>) -> Asked<'p, Vec<Offers>> {
        let offered = |Template { name, text, modified }| Offered { name, text, modified };
        Box::pin(async move {
            let asked = self.directory.others().into_iter().map(|peer| async move {
                let answer = self.calls.templates(&peer, name).await;
                if let Err(error) = &answer {
                    tracing::info!(peer = peer.addr, %error, "a node does not say which templates it has");
                }
                Offers { addr: peer.addr, templates: answer.ok().map(|it| it.into_iter().map(offered).collect()) }
            });
            Ok(join_all(asked).await)
        })
    }

    fn rotate_join_code(&self) -> Asked<'_, String> {
        let link = self.calls.link().clone();
        Box::pin(async move {
            // It is written to disk before it is in force.
            let rotated = tokio::task::spawn_blocking(move || link.rotate(SystemTime::now())).await;
            let failed = |error: &dyn std::fmt::Display| {
                ApiError::internal(format!("the join code cannot be changed, the old one stays: {error}"))
            };
            let code = rotated.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
            tracing::info!("the join code was changed here; the old one lets nobody in any more");
            Ok(code.to_string())
        })
    }

    fn settle(&self, claim: Claim, used: bool) {
        if claim.keeper == self.directory.id {
            if let Some(front) = self.front.upgrade() {
                front.end_claim(claim.number, used);
            }
            return;
        }
        let (calls, peer) = (self.calls.clone(), self.directory.by_id(&claim.keeper));
        tokio::spawn(async move {
            let Some(peer) = peer else { return };
            if let Err(error) = calls.settle(&peer, SettleRequest { claim: claim.number, used }).await {
                // The claim ends by itself.
                tracing::debug!(%error, "cannot settle a claim");
            }
        });
    }
}

/// Answers others.
#[derive(Debug)]
pub(super) struct Clerk {
    front: Weak<Front>,
    /// Address of this node.
    here: String,
}

impl Clerk {
    pub(super) fn new(front: &Arc<Front>, here: &str) -> Clerk {
        Clerk { front: Arc::downgrade(front), here: here.to_owned() }
    }

    fn front(&self) -> Result<Arc<Front>, Status> {
        self.front.upgrade().ok_or_else(|| Status::unavailable("this node is shutting down"))
    }

    fn engine(&self) -> Result<Arc<Engine>, Status> {
        let engine = self.front()?.pool.engine(&self.here);
        engine.ok_or_else(|| Status::unavailable("this node has not looked at its engine yet"))
    }
}

#[async_trait]
impl Answers for Clerk {
    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateReply>, Status> {
        let wanted = request.into_inner();
        let body: Value = serde_json::from_slice(&wanted.body)
            .map_err(|error| Status::invalid_argument(format!("the body is no JSON: {error}")))?;
        let CreateRequest { version, name, swarm_id, query, replaces, .. } = wanted;
        let front = self.front()?;
        let wanted = Wanted { version, name, swarm_id, query, body, replaces };
        // In a task of its own: a door that goes away does not leave a container that nobody has counted.
        let outcome = tokio::spawn(async move { front.admit(wanted).await }).await;
        let Outcome { status, body, refused } =
            outcome.map_err(|error| Status::internal(format!("the create was broken off: {error}")))?;
        Ok(Response::new(CreateReply { status: status.as_u16().into(), body: body.into(), refused }))
    }

    async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<ClaimReply>, Status> {
        let ClaimRequest { name, replaces } = request.into_inner();
        let reply = match self.front()?.give_claim(&name, &replaces) {
            Ok(claim) => ClaimReply { claim, reason: String::new() },
            Err(error) => ClaimReply { claim: 0, reason: error.to_string() },
        };
        Ok(Response::new(reply))
    }

    async fn templates(&self, request: Request<TemplatesRequest>) -> Result<Response<TemplatesReply>, Status> {
        let name = Some(request.into_inner().name).filter(|name| !name.is_empty());
        let offered = self.front()?.own_templates(name.as_deref()).await;
        let template = |Offered { name, text, modified }| Template { name, text, modified };
        Ok(Response::new(TemplatesReply { templates: offered.into_iter().map(template).collect() }))
    }

    type FollowStream = Told;

    async fn follow(&self, _: Request<FollowRequest>) -> Result<Response<Told>, Status> {
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

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<SettleReply>, Status> {
        let SettleRequest { claim, used } = request.into_inner();
        self.front()?.end_claim(claim, used);
        Ok(Response::new(SettleReply {}))
    }
}
