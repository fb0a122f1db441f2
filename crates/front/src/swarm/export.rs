//! `/herder/exports`: stores that the leader writes the services of all nodes into.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use herder_decide::swarm::control::{create_resource, remove_resource, update_resource};
use herder_model::swarm::{EXPORT_KIND, Export, Resource, SwarmNodeState, Word};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Swarm, body, change, new_id, read};
use crate::{ApiError, Call, Front, Reply, call};

/// Time for the managers to say what is to be exported. A leader that is cut off from the others stops to export after it.
const VIEW_TIME_MAX: Duration = Duration::from_secs(2);

/// Exports that a leader carries out.
#[derive(Debug)]
pub struct DueExports {
    /// Keyed by id.
    pub exports: BTreeMap<String, Export>,
    /// Names of the nodes whose state is known. Entries of others are not judged.
    pub hosts: Vec<String>,
}

fn the_swarm(front: &Front) -> Result<&Arc<dyn Swarm>, ApiError> {
    front.swarm().ok_or_else(|| ApiError::not_found("this node can be in no swarm"))
}

fn kind() -> Result<Word, ApiError> {
    Word::new(EXPORT_KIND).map_err(|error| ApiError::internal(error.to_string()))
}

/// `GET /herder/exports`: all of them.
pub(crate) async fn list(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let view = read(the_swarm(front)?).await?;
    let shown = |it: &Resource| {
        let mut value: Value = it.read().ok()?;
        value.as_object_mut()?.insert("ID".to_owned(), json!(it.id));
        Some(value)
    };
    let all: Vec<Value> = view.resources_of(kind()?).filter_map(|it| shown(it)).collect();
    Ok(call::json(StatusCode::OK, &Value::Array(all)))
}

/// `POST /herder/exports`: another one, or other settings of the one with this URI.
pub(crate) async fn add(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let wrong = |error: &dyn std::fmt::Display| ApiError::bad_request(format!("export: {error}"));
    let export: Export = serde_json::from_value(body::value(&mut call).await?).map_err(|error| wrong(&error))?;
    if !export.uri.contains("://") {
        return Err(wrong(&format!("{:?} is no URI: write etcd://HOST:PORT/PREFIX, or another store", export.uri)));
    }
    let kind = kind()?;
    let made = Resource::new(kind, &new_id(), &export.uri, &export).map_err(|error| wrong(&error))?;
    change(the_swarm(front)?, true, |view| match view.resources_of(kind).find(|it| it.name == export.uri) {
        Some(known) => {
            update_resource(view, known.meta.version.index, Resource { id: known.id.clone(), ..made.clone() })
        }
        None => create_resource(view, made.clone()),
    })
    .await?;
    Ok(call::json(StatusCode::OK, &json!({"uri": export.uri})))
}

/// `DELETE /herder/exports/{id}`: no longer exported; the leader removes its entries.
pub(crate) async fn remove(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let (kind, id) = (kind()?, call.hole("id"));
    change(the_swarm(front)?, true, |view| remove_resource(view, kind, &id)).await?;
    Ok(call::json(StatusCode::OK, &json!({"ID": id})))
}

/// Returns what this node exports: everything of the swarm if it leads. None, if it does not, or if the managers do not answer.
pub async fn due(front: &Front) -> Option<DueExports> {
    let swarm = front.swarm()?;
    let me = swarm.status().node_id;
    if !swarm.managers().iter().any(|it| it.leader && it.node_id == me) {
        return None;
    }
    let view = timeout(VIEW_TIME_MAX, read(swarm)).await.ok()?.ok()?;
    let exports = view.resources_of(kind().ok()?).filter_map(|it| Some((it.id.clone(), it.read().ok()?)));
    let nodes = front.pool.nodes();
    let healthy = nodes.iter().filter(|it| it.is_healthy()).map(|it| it.name.clone());
    let down = view.nodes.values().filter(|it| it.node.status.state == SwarmNodeState::Down);
    let hosts: BTreeSet<String> = healthy.chain(down.map(|it| it.node.description.hostname.clone())).collect();
    Some(DueExports { exports: exports.collect(), hosts: hosts.into_iter().collect() })
}
