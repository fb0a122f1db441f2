//! `/services`.

use std::sync::Arc;

use herder_decide::swarm::control::{self, AuthFrom, Declared, ServiceUpdate, TakenPort};
use herder_decide::swarm::{list, lookup, spec};
use herder_model::swarm::{ServiceSpec, View};
use herder_place::peers::PortTaken;
use http::StatusCode;
use serde_json::json;

use super::{Swarm, body, change, new_id, now, read};
use crate::{ApiError, Call, Front, Reply, call};

pub(crate) async fn all(swarm: &Arc<dyn Swarm>, call: Call) -> Result<Reply, ApiError> {
    let filters = body::filters(&call.query)?;
    let with_status = body::flag(&call.query, "status")?;
    let services = list::services(&read(swarm).await?, &filters, with_status)?;
    Ok(call::json(StatusCode::OK, &services))
}

pub(crate) async fn inspect(swarm: &Arc<dyn Swarm>, call: Call, id: String) -> Result<Reply, ApiError> {
    let defaults = body::flag(&call.query, "insertDefaults")?;
    let view = read(swarm).await?;
    let service = lookup::service(&view, &id)?.service.clone();
    Ok(call::json(StatusCode::OK, &if defaults { spec::with_defaults(service) } else { spec::shown(service) }))
}

/// Returns the declaration of the client.
async fn declared(front: &Front, call: &mut Call) -> Result<Declared, ApiError> {
    let spec: ServiceSpec = body::read(call).await?;
    let auth = call.parts.headers.get("x-registry-auth").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let nodes = front.pool.nodes();
    let networks = nodes.iter().flat_map(|node| &node.networks);
    let local_networks = networks.flat_map(|it| [it.name.clone(), it.id.clone()]).collect();
    Ok(Declared { spec, registry_auth: auth.to_owned(), client: call.version.clone(), local_networks })
}

/// Refuses a service that would take a port from a program of a node's host.
async fn admit(front: &Front, view: &View, spec: &ServiceSpec) -> Result<(), ApiError> {
    let ports = control::new_ports(view, spec);
    let Some(peers) = front.placer.peers().filter(|_| !ports.is_empty()) else { return Ok(()) };
    let nodes = view.nodes.keys().map(ToString::to_string).collect();
    let taken = peers.listeners(&nodes, &ports).await?;
    let of = |PortTaken { node, port, program }| TakenPort { node, port, program };
    Ok(control::admit_ports(view, &taken.into_iter().map(of).collect::<Vec<_>>())?)
}

pub(crate) async fn create(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let swarm = front.needs_swarm()?;
    let declared = declared(front, &mut call).await?;
    let id = new_id();
    let view = read(swarm).await?;
    // What is wrong with it by itself is said first, and needs no other node.
    control::create_service(&view, &declared, id.clone(), now())?;
    admit(front, &view, &declared.spec).await?;
    change(swarm, true, |view| control::create_service(view, &declared, id.clone(), now())).await?;
    Ok(call::json(StatusCode::CREATED, &json!({ "ID": id, "Warnings": null })))
}

pub(crate) async fn update(front: &Arc<Front>, mut call: Call, id: String) -> Result<Reply, ApiError> {
    let swarm = front.needs_swarm()?;
    let declared = declared(front, &mut call).await?;
    let auth_from = match call.query.get("registryAuthFrom").unwrap_or_default() {
        "" | "spec" => AuthFrom::Spec,
        "previous-spec" => AuthFrom::PreviousSpec,
        other => return Err(ApiError::bad_request(format!("invalid registryAuthFrom '{other}'"))),
    };
    let version = body::version(&call.query, "service")?;
    let rollback = match call.query.get("rollback").unwrap_or_default() {
        "" | "none" => false,
        "previous" => true,
        other => return Err(ApiError::bad_request(format!("unrecognized rollback option {other}"))),
    };
    let update = ServiceUpdate { version, declared, auth_from, rollback };
    if !rollback {
        let view = read(swarm).await?;
        control::update_service(&view, &id, &update, now())?;
        admit(front, &view, &update.declared.spec).await?;
    }
    change(swarm, false, |view| control::update_service(view, &id, &update, now())).await?;
    Ok(call::json(StatusCode::OK, &json!({ "Warnings": null })))
}

pub(crate) async fn remove(swarm: &Arc<dyn Swarm>, id: String) -> Result<Reply, ApiError> {
    change(swarm, true, |view| control::remove_service(view, &id)).await?;
    Ok(call::no_content(StatusCode::OK))
}
