//! Networks of the swarm at the door: beside those of engines, in the same lists and under the same paths.

use std::sync::Arc;
use std::time::Duration;

use herder_decide::list::{Filters, is_dangling, is_predefined};
use herder_decide::swarm::control::{self, NetworkRequest};
use herder_decide::swarm::local::LocalState;
use herder_decide::swarm::spec::without_nulls;
use herder_decide::swarm::{Denial, lookup, networks};
use herder_model::swarm::{Change, Kind, NetworkRecord, Object, View};
use herder_place::reread::reread;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Swarm, body, change, new_id, read};
use crate::{ApiError, Front, Query};

const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node \
                          to swarm and try again.";

/// Maximum wait until a node has reported the end of a container, which takes one message.
const LET_GO_TIME_MAX: Duration = Duration::from_secs(3);
const LET_GO_PAUSE: Duration = Duration::from_millis(25);

/// The swarm that this node is in, if it is in one.
fn swarm_of(front: &Front) -> Option<&Arc<dyn Swarm>> {
    front.swarm().filter(|swarm| swarm.status().state != LocalState::Inactive)
}

/// Returns the declared objects, where this node can read them. Lists of workers show the objects of their engines.
pub(crate) async fn view(front: &Front) -> Option<View> {
    let swarm = swarm_of(front)?;
    match read(swarm).await {
        Ok(view) => Some(view),
        Err(error) => {
            tracing::debug!(%error, "cannot read the networks of the swarm");
            None
        }
    }
}

/// Returns the networks of the swarm: with all declared objects, or, on a worker, as it received them.
async fn told(front: &Front) -> Option<View> {
    if let Some(view) = view(front).await {
        return Some(view);
    }
    let records = swarm_of(front)?.networks()?;
    Some(View::of(1, records.into_iter().map(Object::Network)))
}

/// The network of the swarm that `text` names by its whole id or name.
pub(crate) fn exact<'v>(view: &'v View, text: &str) -> Option<&'v Arc<NetworkRecord>> {
    lookup::network(view, text).ok().filter(|it| it.id == text || it.name == text)
}

/// Adds the swarm's networks to those of the engines.
pub(crate) async fn add_to(
    front: &Front,
    client: Option<&str>,
    filters: &Filters,
    shown: &mut Value,
) -> Result<(), ApiError> {
    let Some(view) = told(front).await else { return Ok(()) };
    let dangling = is_dangling(filters).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let wanted = networks::visible(&view).filter(|it| networks::is_wanted(&view, it, filters, dangling));
    if let Some(list) = shown.as_array_mut() {
        let entries: Vec<Value> = wanted.map(|it| networks::entry(it, client)).collect();
        list.splice(0..0, entries);
    }
    Ok(())
}

/// The answer to a client that looks for a network, as it does for each network of a service. Nothing for one of the engines.
pub(crate) async fn inspect(
    front: &Front,
    query: &Query,
    client: Option<&str>,
    name: &str,
) -> Option<Result<Value, ApiError>> {
    let verbose = match query.get("verbose").map_or(Ok(false), verbose) {
        Ok(verbose) => verbose,
        Err(error) => return Some(Err(error)),
    };
    let scope = query.get("scope").unwrap_or_default();
    swarm_of(front).filter(|_| scope != "local")?;
    if scope == "swarm" && is_predefined(name) {
        return Some(Ok(predefined(name)));
    }
    let Some(view) = told(front).await else {
        return (scope == "swarm").then(|| Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NO_MANAGER)));
    };
    let found = match scope {
        "swarm" => lookup::network(&view, name),
        // An engine's network of that name or id comes before the beginning of an id.
        _ if exact(&view, name).is_some() || !is_engines(front, name) => lookup::network(&view, name),
        _ => return None,
    };
    match found {
        Ok(record) => {
            let mut shown = networks::inspect(&view, record, verbose, client);
            without_ended(front, &view, record, &mut shown);
            Some(Ok(shown))
        }
        Err(denial) if scope == "swarm" => Some(Err(denial.into())),
        Err(_) => None,
    }
}

/// Reads a parameter as an engine reads it for networks.
fn verbose(text: &str) -> Result<bool, ApiError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        other => {
            let reason = format!("strconv.ParseBool: parsing {other:?}: invalid syntax");
            Err(ApiError::bad_request(format!("invalid value for verbose: {other}: {reason}")))
        }
    }
}

/// Removes plain containers that the pictures of nodes do not show as running. Compose removes a network only if none
/// is shown, and pictures are newer than the managers' records.
fn without_ended(front: &Front, view: &View, network: &NetworkRecord, shown: &mut Value) {
    let nodes = front.pool.nodes();
    let runs = |id: &str| nodes.iter().any(|it| it.containers.get(id).is_some_and(|it| it.is_running()));
    if let Some(containers) = shown["Containers"].as_object_mut() {
        for id in networks::plain_containers(view, &network.id).filter(|id| !runs(id)) {
            containers.shift_remove(id);
        }
    }
}

/// True if an engine of the pool has a network that `text` means.
fn is_engines(front: &Front, text: &str) -> bool {
    herder_decide::names::network(&front.pool.nodes(), text).is_ok()
}

/// A network that every engine has. Its name is its id: it is another one on each node.
fn predefined(name: &str) -> Value {
    let driver = if name == "none" { "null" } else { name };
    json!({
        "Name": name, "Id": name, "Created": "0001-01-01T00:00:00Z", "Scope": "swarm", "Driver": driver,
        "EnableIPv4": true, "EnableIPv6": false, "IPAM": {"Driver": "default", "Options": null, "Config": null},
        "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
        "Containers": null, "Options": null, "Labels": null,
    })
}

/// Makes a network of the swarm; its id. Nothing, if the request is for the engines.
pub(crate) async fn create(front: &Front, request: &Value) -> Result<Option<String>, ApiError> {
    let mut request = request.clone();
    without_nulls(&mut request);
    let mut request: NetworkRequest = body::parse(request)?;
    if !request.is_swarms() {
        if !is_predefined(&request.name)
            && let Some(view) = view(front).await
            && view.named(Kind::Network, &request.name).is_some()
        {
            return Err(ApiError::conflict(format!("network with name {} already exists", request.name)));
        }
        return Ok(None);
    }
    request.check_predefined()?;
    let Some(swarm) = swarm_of(front) else {
        return Err(ApiError::new(StatusCode::FORBIDDEN, NO_MANAGER));
    };
    let nodes = front.pool.nodes();
    if !is_predefined(&request.name) && nodes.iter().any(|node| node.networks.iter().any(|it| it.name == request.name))
    {
        return Err(ApiError::conflict(format!("network with name {} already exists", request.name)));
    }
    let has_config = |name: &str| nodes.iter().any(|node| node.networks.iter().any(|it| it.name == name));
    request.lacks_config = request.config_from.as_ref().is_some_and(|it| !has_config(&it.network));
    let id = new_id();
    change(swarm, true, |view| control::create_network(view, &request, id.clone())).await?;
    Ok(Some(id))
}

/// Removes a network of the swarm. False, if `name` means none.
pub(crate) async fn remove(front: &Front, name: &str) -> Result<bool, ApiError> {
    let (Some(swarm), Some(view)) = (swarm_of(front), told(front).await) else { return Ok(false) };
    if exact(&view, name).is_none() && (is_engines(front, name) || lookup::network(&view, name).is_err()) {
        return Ok(false);
    }
    let id = lookup::network(&view, name)?.id.clone();
    until_let_go(front, swarm, view, &id).await?;
    change(swarm, true, |view| control::remove_network(view, &id)).await?;
    Ok(true)
}

/// State of the containers of a network on their engines.
enum Left {
    Nothing,
    Stopped,
    /// The id of one.
    Running(String),
}

/// Asks engines for containers. Pictures of them may be older than the start or the end of a container.
async fn left(front: &Front, containers: &[&str]) -> Left {
    let shown = |id: &str| front.pool.nodes().iter().find(|it| it.containers.contains_key(id)).cloned();
    let mut left = Left::Nothing;
    for id in containers {
        let Some(node) = shown(id) else { continue };
        if let Some(engine) = front.pool.engine(&node.addr) {
            reread(&engine, id).await;
        }
        match shown(id).and_then(|it| it.containers.get(*id).map(|it| it.is_running())) {
            Some(true) => return Left::Running((*id).to_owned()),
            Some(false) => left = Left::Stopped,
            None => {}
        }
    }
    left
}

/// Waits until nodes have reported which containers on the network are gone or stopped: clients remove networks right after
/// that.
async fn until_let_go(front: &Front, swarm: &Arc<dyn Swarm>, view: View, network: &str) -> Result<(), ApiError> {
    let until = Instant::now() + LET_GO_TIME_MAX;
    let mut view = view;
    loop {
        let containers: Vec<&str> = networks::plain_containers(&view, network).collect();
        match left(front, &containers).await {
            Left::Running(container) => return Err(networks::in_use(&view, network, &container).into()),
            Left::Stopped if !networks::has_running(&view, network) => return Ok(()),
            _ if containers.is_empty() || Instant::now() >= until => return Ok(()),
            _ => {}
        }
        sleep(LET_GO_PAUSE).await;
        view = read(swarm).await?;
    }
}

/// Removes the swarm's networks that nothing uses; their names.
pub(crate) async fn prune(front: &Front, filters: &Filters) -> Result<Vec<String>, ApiError> {
    let (Some(swarm), Some(_)) = (swarm_of(front), view(front).await) else { return Ok(Vec::new()) };
    let until = filters.values("until").next().map(str::to_owned);
    let mut pruned = Vec::new();
    let removed = parking_lot::Mutex::new(Vec::new());
    change(swarm, true, |view| {
        let (changes, names) = prunable(view, filters, until.as_deref());
        *removed.lock() = names;
        Ok::<Vec<Change>, Denial>(changes)
    })
    .await?;
    pruned.append(&mut removed.into_inner());
    Ok(pruned)
}

fn prunable(view: &View, filters: &Filters, until: Option<&str>) -> (Vec<Change>, Vec<String>) {
    let now = jiff::Timestamp::now();
    let before = until.map(|text| herder_decide::swarm::networks::moment(text, now));
    control::prune_networks(view, |it| {
        let labels = it.spec.labels.as_ref();
        let made = it.meta.created_at.parse::<jiff::Timestamp>().ok();
        filters.labels(|key| labels.and_then(|it| it.get(key)).map(String::as_str))
            && before.is_none_or(|before| made.zip(before).is_some_and(|(made, before)| made < before))
    })
}
