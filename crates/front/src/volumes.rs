//! Calls about volumes. A volume is made on every node, so that any node can take a container that wants it.

use std::sync::Arc;

use herder_decide::list::Filters;
use herder_decide::{list, names, prefer, prune};
use herder_pool::{Engine, EngineError};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::path::for_engine;
use crate::{ApiError, Call, Front, Reply, call, fanout, forward};

pub(crate) async fn list(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let filters = Filters::parse(call.query.get("filters").unwrap_or("")).map_err(ApiError::bad_request)?;
    let volumes = list::volumes(&front.pool.nodes(), &filters, front.pool.settings().naming)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(call::json(StatusCode::OK, &volumes))
}

/// Healthy engines with the volume, the one beside this door first, and its bare name.
fn owners(front: &Front, name: &str) -> Result<Vec<(Arc<Engine>, String)>, ApiError> {
    let found = names::volume(&front.pool.nodes(), name).into_iter().filter(|(node, _)| node.is_healthy());
    let mut owners: Vec<_> =
        found.filter_map(|(node, volume)| Some((front.pool.engine(&node.addr)?, volume.name.clone()))).collect();
    front.nearest(&mut owners, |(engine, _)| engine);
    if owners.is_empty() { Err(ApiError::not_found(format!("get {name}: no such volume"))) } else { Ok(owners) }
}

/// Inspect, and whatever engines may learn, on one node that has the volume.
pub(crate) async fn act(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    let (engine, bare) = owners(front, name)?.swap_remove(0);
    forward::to_engine(front, call, &engine, format!("/volumes/{bare}")).await
}

/// Makes the volume on every healthy node, or on the one that `node/name` names. If a node fails, it is removed from
/// those that had none before.
pub(crate) async fn create(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let mut body = call.json().await?;
    if body.is_null() {
        body = json!({});
    }
    let name = body["Name"].as_str().unwrap_or_default().to_owned();
    let (wanted, bare) = match name.split_once('/') {
        Some((node, bare)) => (Some(node.to_owned()), bare.to_owned()),
        None => (None, name),
    };
    // One name for all: engines would make up one each.
    let bare = if bare.is_empty() { herder_place::create::swarm_id() } else { bare };
    body["Name"] = json!(bare);
    let engines = chosen_engines(front, wanted.as_deref(), &body["Labels"])?;
    let new: Vec<Arc<Engine>> =
        engines.iter().filter(|engine| engine.node().volumes.iter().all(|it| it.name != bare)).cloned().collect();
    let asked = engines.iter().map(|engine| engine.call(Method::POST, "/volumes/create", Some(&body)));
    let mut answer = Value::Null;
    let mut failure = None;
    for (engine, part) in engines.iter().zip(futures_util::future::join_all(asked).await) {
        match part {
            Ok(part) => answer = part,
            Err(error) => failure = failure.or(Some(told(engine, engines.len(), error))),
        }
    }
    if let Some(failure) = failure {
        fanout::ask(new, Method::DELETE, &for_engine(None, &format!("/volumes/{bare}"), None), None).await;
        refresh(&engines).await;
        return Err(failure);
    }
    refresh(&engines).await;
    Ok(call::json(StatusCode::CREATED, &answer))
}

/// Returns the healthy engines for a new volume or network. They are those of all nodes, or of the one in its name,
/// limited by the whitelist in its labels.
pub(crate) fn chosen_engines(
    front: &Front,
    wanted: Option<&str>,
    labels: &Value,
) -> Result<Vec<Arc<Engine>>, ApiError> {
    let whitelists = prefer::whitelists(labels).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let chosen = |engine: &Arc<Engine>| {
        let name = &engine.node().name;
        wanted.is_none_or(|node| name == node) && prefer::allow(&whitelists, name)
    };
    let engines: Vec<Arc<Engine>> = front.healthy_engines().into_iter().filter(chosen).collect();
    if engines.is_empty() {
        let node = wanted.map(|node| format!("\n[node=={node}]"));
        let lists = whitelists.iter().map(|it| format!("\n[{it}]"));
        let conditions: String = node.into_iter().chain(lists).collect();
        let sentence = format!("Unable to find a node that satisfies the following conditions {conditions}");
        return Err(ApiError::internal(sentence));
    }
    Ok(engines)
}

/// An engine's refusal with its own status, and with the node's name where there are several.
fn told(engine: &Engine, count: usize, error: EngineError) -> ApiError {
    match error {
        EngineError::Answer { status, message } if count > 1 => {
            EngineError::Answer { status, message: format!("{}: {message}", engine.node().name) }.into()
        }
        error => error.into(),
    }
}

/// Removes the volume from every node that has it. The first refusal is the answer.
pub(crate) async fn remove(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    let mut refusal: Option<EngineError> = None;
    let owners = owners(front, name)?;
    for (engine, bare) in &owners {
        let path = for_engine(None, &format!("/volumes/{bare}"), call.parts.uri.query());
        if let Err(error) = engine.call(Method::DELETE, &path, None).await {
            refusal = refusal.or(Some(error));
        }
    }
    refresh(&owners.into_iter().map(|(engine, _)| engine).collect::<Vec<_>>()).await;
    refusal.map_or_else(|| Ok(call::no_content(StatusCode::NO_CONTENT)), |error| Err(error.into()))
}

pub(crate) async fn prune(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let path = for_engine(None, "/volumes/prune", call.parts.uri.query());
    let parts = fanout::ask_all(front, Method::POST, &path, None).await;
    refresh(&front.healthy_engines()).await;
    Ok(call::json(StatusCode::OK, &prune::over_nodes(parts, front.pool.settings().naming).map_err(ApiError::internal)?))
}

async fn refresh(engines: &[Arc<Engine>]) {
    for result in futures_util::future::join_all(engines.iter().map(|engine| engine.refresh_volumes())).await {
        if let Err(error) = result {
            tracing::debug!(%error, "cannot read volumes again");
        }
    }
}
