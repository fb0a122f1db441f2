//! `/swarm`: the swarm itself, and this node's part in it.

use std::sync::Arc;

use base64::Engine as _;
use herder_decide::swarm::control::{self, ClusterUpdate, Fresh};
use herder_decide::swarm::{list, local};
use herder_model::swarm::{ClusterSpec, InitRequest, JoinRequest, UnlockRequest};
use http::StatusCode;
use serde_json::json;
use tokio::time::timeout;

use super::{JOIN_TIME_MAX, Swarm, body, change, new_id, read};
use crate::{ApiError, Call, Reply, call};

pub(crate) async fn inspect(swarm: &Arc<dyn Swarm>) -> Result<Reply, ApiError> {
    let view = read(swarm).await?;
    let record = view.cluster.as_ref().ok_or_else(|| ApiError::not_found("cluster not found"))?;
    Ok(call::json(StatusCode::OK, &list::cluster(record)))
}

pub(crate) async fn init(swarm: &Arc<dyn Swarm>, mut call: Call) -> Result<Reply, ApiError> {
    let request: InitRequest = body::read(&mut call).await?;
    local::may_enter(&swarm.status(), request.force_new_cluster)?;
    control::check_init(&request)?;
    let id = swarm.init(request).await?;
    Ok(call::json(StatusCode::OK, &id))
}

pub(crate) async fn join(swarm: &Arc<dyn Swarm>, mut call: Call) -> Result<Reply, ApiError> {
    let request: JoinRequest = body::read(&mut call).await?;
    local::may_enter(&swarm.status(), false)?;
    control::check_join(&request)?;
    let slow = || {
        let text = "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use \
                    the \"docker info\" command to see the current swarm status of your node.";
        Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text))
    };
    timeout(JOIN_TIME_MAX, swarm.join(request)).await.unwrap_or_else(|_| slow())?;
    Ok(call::no_content(StatusCode::OK))
}

pub(crate) async fn leave(swarm: &Arc<dyn Swarm>, call: Call) -> Result<Reply, ApiError> {
    let force = call.query.flag("force");
    local::may_leave(&swarm.status(), &swarm.managers(), force)?;
    swarm.leave(force).await?;
    Ok(call::no_content(StatusCode::OK))
}

pub(crate) async fn update(swarm: &Arc<dyn Swarm>, mut call: Call) -> Result<Reply, ApiError> {
    let spec: ClusterSpec = body::read(&mut call).await?;
    let update = ClusterUpdate {
        version: body::version(&call.query, "swarm")?,
        spec,
        rotate_worker_token: body::flag(&call.query, "rotateWorkerToken")?,
        rotate_manager_token: body::flag(&call.query, "rotateManagerToken")?,
        rotate_unlock_key: body::flag(&call.query, "rotateManagerUnlockKey")?,
    };
    let view = read(swarm).await?;
    let mut added = update.spec.ca_config.clone();
    // One that was there when it was declared may be away by now: other settings can be changed all the same.
    let known = view.cluster.as_ref().map(|it| &it.cluster.spec.ca_config.external_cas);
    added.external_cas.retain(|it| known.is_none_or(|known| !known.contains(it)));
    if !added.external_cas.is_empty() {
        swarm.reach_external_cas(added).await?;
    }
    let root = control::wants_root(&view, &update.spec).then(|| swarm.new_root(&update.spec.ca_config)).transpose()?;
    let fresh = Fresh { worker: new_id(), manager: new_id(), unlock_key: new_unlock_key(), root };
    change(swarm, false, |view| control::update_cluster(view, update.clone(), fresh.clone())).await?;
    Ok(call::no_content(StatusCode::OK))
}

fn new_unlock_key() -> String {
    let key: [u8; local::KEY_BYTES] = rand::random();
    format!("SWMKEY-1-{}", base64::engine::general_purpose::STANDARD_NO_PAD.encode(key))
}

pub(crate) async fn unlock_key(swarm: &Arc<dyn Swarm>) -> Result<Reply, ApiError> {
    let view = read(swarm).await?;
    let key = view.cluster.as_ref().map(|it| it.unlock_key.clone()).unwrap_or_default();
    Ok(call::json(StatusCode::OK, &json!({ "UnlockKey": key })))
}

pub(crate) async fn unlock(swarm: &Arc<dyn Swarm>, mut call: Call) -> Result<Reply, ApiError> {
    let UnlockRequest { unlock_key } = body::read(&mut call).await?;
    local::may_unlock(&swarm.status(), &unlock_key)?;
    if !swarm.unlock(unlock_key).await? {
        return Err(local::wrong_key().into());
    }
    Ok(call::no_content(StatusCode::OK))
}
