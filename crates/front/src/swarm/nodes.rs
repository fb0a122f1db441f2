//! `/nodes`.

use std::sync::Arc;

use herder_decide::swarm::{control, list, lookup};
use herder_model::swarm::NodeSpec;
use http::StatusCode;
use serde_json::Value;

use super::{Swarm, body, change, now, read};
use crate::{ApiError, Call, Reply, call};

pub(crate) async fn all(swarm: &Arc<dyn Swarm>, call: Call) -> Result<Reply, ApiError> {
    let filters = body::filters(&call.query)?;
    let nodes = list::nodes(&read(swarm).await?, &filters, &swarm.managers())?;
    Ok(call::json(StatusCode::OK, &nodes))
}

pub(crate) async fn inspect(swarm: &Arc<dyn Swarm>, id: String) -> Result<Reply, ApiError> {
    let view = read(swarm).await?;
    Ok(call::json(StatusCode::OK, &list::node(lookup::node(&view, &id)?, &swarm.managers())))
}

pub(crate) async fn update(swarm: &Arc<dyn Swarm>, mut call: Call, id: String) -> Result<Reply, ApiError> {
    let mut value = body::value(&mut call).await?;
    let version = body::version(&call.query, "node")?;
    for (key, known) in [("Role", ["worker", "manager", ""]), ("Availability", ["active", "pause", "drain"])] {
        word(&mut value, key, &known)?;
    }
    let spec: NodeSpec = body::parse(value)?;
    change(swarm, false, |view| control::update_node(view, &id, version, spec.clone(), &swarm.managers())).await?;
    Ok(call::no_content(StatusCode::OK))
}

/// Validates a required enumeration field, ignoring case, and normalizes it to lower case.
fn word(value: &mut Value, key: &str, known: &[&str]) -> Result<(), ApiError> {
    let text = value[key].as_str().unwrap_or_default().to_owned();
    let lower = text.to_lowercase();
    if lower.is_empty() || !known.contains(&lower.as_str()) {
        return Err(ApiError::bad_request(format!("invalid {key}: {text:?}")));
    }
    value[key] = lower.into();
    Ok(())
}

pub(crate) async fn remove(swarm: &Arc<dyn Swarm>, call: Call, id: String) -> Result<Reply, ApiError> {
    let force = call.query.flag("force");
    change(swarm, true, |view| control::remove_node(view, &id, force, &swarm.managers(), now())).await?;
    Ok(call::no_content(StatusCode::OK))
}
