//! `/services`.

use std::sync::Arc;

use herder_decide::swarm::control::{self, AuthFrom, Declared, ServiceUpdate};
use herder_decide::swarm::{list, lookup, spec};
use herder_model::swarm::ServiceSpec;
use http::StatusCode;
use serde_json::json;

use super::{Swarm, body, change, new_id, now, read};
use crate::{ApiError, Call, Reply, call};

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
async fn declared(call: &mut Call) -> Result<Declared, ApiError> {
    let spec: ServiceSpec = body::read(call).await?;
    let auth = call.parts.headers.get("x-registry-auth").and_then(|it| it.to_str().ok()).unwrap_or_default();
    Ok(Declared { spec, registry_auth: auth.to_owned(), client: call.version.clone() })
}

pub(crate) async fn create(swarm: &Arc<dyn Swarm>, mut call: Call) -> Result<Reply, ApiError> {
    let declared = declared(&mut call).await?;
    let id = new_id();
    change(swarm, true, |view| control::create_service(view, &declared, id.clone(), now())).await?;
    Ok(call::json(StatusCode::CREATED, &json!({ "ID": id, "Warnings": null })))
}

pub(crate) async fn update(swarm: &Arc<dyn Swarm>, mut call: Call, id: String) -> Result<Reply, ApiError> {
    let declared = declared(&mut call).await?;
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
    change(swarm, false, |view| control::update_service(view, &id, &update, now())).await?;
    Ok(call::json(StatusCode::OK, &json!({ "Warnings": null })))
}

pub(crate) async fn remove(swarm: &Arc<dyn Swarm>, id: String) -> Result<Reply, ApiError> {
    change(swarm, true, |view| control::remove_service(view, &id)).await?;
    Ok(call::no_content(StatusCode::OK))
}
