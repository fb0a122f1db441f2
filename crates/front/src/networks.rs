//! Calls about networks. A network that somebody makes is made on every node under one id (a label joins the parts), so
//! that a container that wants it can be placed anywhere; `node/name` makes it on one node only.

use std::sync::Arc;

use herder_decide::list::Filters;
use herder_decide::{list, merge, names, prune};
use herder_model::{LABEL_NETWORK_ID, LABEL_OVERLAY, Network, Node};
use herder_place::overlays::Joining;
use herder_pool::{Engine, EngineError};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::path::for_engine;
use crate::{ApiError, Call, Front, Reply, call, containers, fanout, swarm, volumes};

pub(crate) async fn list(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let filters = Filters::parse(call.query.get("filters").unwrap_or("")).map_err(ApiError::bad_request)?;
    let version = call.version.clone();
    let mut networks = list::networks(&front.pool.nodes(), &filters, front.pool.settings().naming)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    swarm::networks::add_to(front, version.as_deref(), &filters, &mut networks).await?;
    Ok(call::json(StatusCode::OK, &networks))
}

/// Part of a network on one node.
struct Part {
    engine: Arc<Engine>,
    node: Arc<Node>,
    network: Arc<Network>,
}

/// A network's parts: one for each healthy node that has it.
fn parts(front: &Front, text: &str) -> Result<Vec<Part>, ApiError> {
    let nodes = front.pool.nodes();
    let missing = || ApiError::not_found(format!("network {text} not found"));
    let (_, first) = names::network(&nodes, text).map_err(|_| missing())?;
    let same = |network: &Network| match first.labels.get(LABEL_NETWORK_ID) {
        Some(id) => network.labels.get(LABEL_NETWORK_ID) == Some(id),
        None => network.id == first.id,
    };
    let mut found = Vec::new();
    for node in nodes.iter().filter(|node| node.is_healthy()) {
        let Some(engine) = front.pool.engine(&node.addr) else { continue };
        let here = node.networks.iter().filter(|it| same(it));
        found.extend(here.map(|it| Part { engine: engine.clone(), node: node.clone(), network: it.clone() }));
    }
    front.nearest(&mut found, |part: &Part| &part.engine);
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

pub(crate) async fn inspect(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    let (query, version) = (call.query.clone(), call.version.clone());
    if let Some(network) = swarm::networks::inspect(front, &query, version.as_deref(), name).await {
        return Ok(call::json(StatusCode::OK, &network?));
    }
    let parts = parts(front, name)?;
    let id = parts.iter().find_map(|part| part.network.labels.get(LABEL_NETWORK_ID).cloned());
    let mut answers = Vec::new();
    for Part { engine, node, network } in parts {
        let path = for_engine(None, &format!("/networks/{}", network.id), call.parts.uri.query());
        answers.push((node, engine.call(Method::GET, &path, None).await?));
    }
    let mut merged = merge::network_inspect(answers, front.pool.settings().naming)
        .ok_or_else(|| ApiError::not_found(format!("network {name} not found")))?;
    if let Some(id) = id {
        merged["Id"] = json!(id);
    }
    Ok(call::json(StatusCode::OK, &merged))
}

pub(crate) async fn create(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let mut body = call.json().await?;
    if let Some(id) = swarm::networks::create(front, &body).await? {
        return Ok(call::json(StatusCode::CREATED, &json!({"Id": id, "Warning": ""})));
    }
    let name = body["Name"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(ApiError::bad_request("invalid Name: expected the name of the network to make"));
    }
    let (wanted, bare) = match name.split_once('/') {
        Some((node, bare)) => (Some(node.to_owned()), bare.to_owned()),
        None => (None, name),
    };
    body["Name"] = json!(bare);
    let engines = volumes::chosen_engines(front, wanted.as_deref(), &body["Labels"])?;
    let has = |engine: &Arc<Engine>| engine.node().networks.iter().any(|network| network.name == bare);
    // As an engine does, unless the client insists on a second one of that name.
    if engines.iter().any(has) && body["CheckDuplicate"] != json!(false) {
        return Err(ApiError::conflict(format!("network with name {bare} already exists")));
    }
    let id = herder_place::create::swarm_id();
    if wanted.is_none() {
        if !body["Labels"].is_object() {
            body["Labels"] = json!({});
        }
        body["Labels"][LABEL_NETWORK_ID] = json!(id);
    }
    let mut made: Vec<(Arc<Engine>, Value)> = Vec::new();
    for engine in &engines {
        match engine.call(Method::POST, "/networks/create", Some(&body)).await {
            Ok(answer) => made.push((engine.clone(), answer)),
            Err(error) => {
                // Nothing half done: what was made on other nodes goes again.
                for (engine, answer) in &made {
                    let path = format!("/networks/{}", answer["Id"].as_str().unwrap_or_default());
                    if let Err(error) = engine.call(Method::DELETE, &path, None).await {
                        tracing::warn!(%error, "cannot remove a network that was created for a container");
                    }
                }
                return Err(error.into());
            }
        }
    }
    refresh(&engines).await;
    let mut answer = made.into_iter().next().map_or(Value::Null, |(_, answer)| answer);
    if wanted.is_none() {
        answer["Id"] = json!(id);
    }
    Ok(call::json(StatusCode::CREATED, &answer))
}

/// Removes the network from every node, if no container on any of them uses it.
pub(crate) async fn remove(front: &Arc<Front>, _: Call, name: &str) -> Result<Reply, ApiError> {
    if swarm::networks::remove(front, name).await? {
        return Ok(call::no_content(StatusCode::NO_CONTENT));
    }
    let parts = parts(front, name)?;
    for Part { node, network, .. } in &parts {
        let user = node.containers.values().find(|it| it.is_running() && it.networks.contains_key(&network.name));
        if let Some(user) = user {
            let message = format!(
                "error while removing network: network {} has active endpoints: {}/{}",
                network.name, node.name, user.name
            );
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
    }
    let mut refusal: Option<EngineError> = None;
    for Part { engine, network, .. } in &parts {
        if let Err(error) = engine.call(Method::DELETE, &format!("/networks/{}", network.id), None).await {
            refusal = refusal.or(Some(error));
        }
    }
    refresh(&parts.iter().map(|part| part.engine.clone()).collect::<Vec<_>>()).await;
    refusal.map_or_else(|| Ok(call::no_content(StatusCode::NO_CONTENT)), |error| Err(error.into()))
}

/// `connect` and `disconnect`: on the node of the container, with that node's part of the network.
pub(crate) async fn attach(front: &Arc<Front>, mut call: Call, name: &str, action: &str) -> Result<Reply, ApiError> {
    let mut body = call.json().await?;
    let container = body["Container"].as_str().unwrap_or_default().to_owned();
    let found = containers::find(front, &container, &format!("No such container: {container}"))?;
    let joining = if action == "connect" { Joining::Connect } else { Joining::Disconnect };
    if front.placer.join(&found.engine, joining, &found.container.id, name, body.clone()).await? {
        return Ok(call::json(StatusCode::OK, &json!({})));
    }
    if action == "connect" {
        herder_place::create::ground::network(&front.placer, &found.engine, name).await?;
    }
    let parts = parts(front, name)?;
    let Some(Part { network, .. }) = parts.iter().find(|part| part.node.addr == found.node.addr) else {
        return Err(ApiError::not_found(format!(
            "network {name} is not on node {}, where the container is",
            found.node.name
        )));
    };
    body["Container"] = json!(found.container.id);
    let answer = found.engine.call(Method::POST, &format!("/networks/{}/{action}", network.id), Some(&body)).await?;
    found.engine.refresh_container(&found.container.id).await?;
    Ok(call::json(StatusCode::OK, &answer))
}

pub(crate) async fn prune(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let filters = Filters::parse(call.query.get("filters").unwrap_or("")).map_err(ApiError::bad_request)?;
    // Bridges of overlay networks stay as long as the networks.
    let mut here = filters.clone();
    here.add("label!", LABEL_OVERLAY);
    let query = format!("filters={}", herder_docker::path::encode_query(&here.to_json()));
    let path = for_engine(None, "/networks/prune", Some(&query));
    let parts = fanout::ask_all(front, Method::POST, &path, None).await;
    let mut merged = prune::over_nodes(parts, front.pool.settings().naming).map_err(ApiError::internal)?;
    // Networks take no space; clients are told of none.
    if let Some(merged) = merged.as_object_mut() {
        merged.shift_remove("SpaceReclaimed");
        merged.entry("NetworksDeleted").or_insert(Value::Null);
    }
    let pruned = swarm::networks::prune(front, &filters).await?;
    if !pruned.is_empty() {
        let mut names = merged["NetworksDeleted"].as_array().cloned().unwrap_or_default();
        names.extend(pruned.into_iter().map(Value::from));
        merged["NetworksDeleted"] = names.into();
    }
    refresh(&front.healthy_engines()).await;
    Ok(call::json(StatusCode::OK, &merged))
}

async fn refresh(engines: &[Arc<Engine>]) {
    for result in futures_util::future::join_all(engines.iter().map(|engine| engine.refresh_networks())).await {
        if let Err(error) = result {
            tracing::debug!(%error, "cannot read networks again");
        }
    }
}
