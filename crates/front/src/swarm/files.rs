//! `/secrets` and `/configs`.

use std::sync::Arc;

use herder_decide::swarm::{Denial, control, list, lookup};
use herder_decide::versions::Version;
use herder_model::swarm::{ConfigSpec, SecretSpec};
use http::StatusCode;
use serde_json::json;

use super::{Swarm, body, change, new_id, read};
use crate::{ApiError, Call, Reply, call};

/// Secrets and configs are made from templates since this version.
const TEMPLATING: Version = Version { major: 1, minor: 37 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Secrets,
    Configs,
}

pub(crate) async fn all(swarm: &Arc<dyn Swarm>, call: Call, of: Of) -> Result<Reply, ApiError> {
    let filters = body::filters(&call.query)?;
    let view = read(swarm).await?;
    Ok(match of {
        Of::Secrets => call::json(StatusCode::OK, &list::secrets(&view, &filters)?),
        Of::Configs => call::json(StatusCode::OK, &list::configs(&view, &filters)?),
    })
}

pub(crate) async fn inspect(swarm: &Arc<dyn Swarm>, of: Of, id: String) -> Result<Reply, ApiError> {
    let view = read(swarm).await?;
    Ok(match of {
        Of::Secrets => call::json(StatusCode::OK, &list::secret(lookup::secret(&view, &id)?)),
        Of::Configs => call::json(StatusCode::OK, &list::config(lookup::config(&view, &id)?)),
    })
}

pub(crate) async fn create(swarm: &Arc<dyn Swarm>, mut call: Call, of: Of) -> Result<Reply, ApiError> {
    let id = new_id();
    match of {
        Of::Secrets => {
            let spec: SecretSpec = body::read(&mut call).await?;
            templates_are_known(&call, "secret", spec.templating.is_some())?;
            change(swarm, true, |view| control::create_secret(view, spec.clone(), id.clone())).await?;
        }
        Of::Configs => {
            let spec: ConfigSpec = body::read(&mut call).await?;
            templates_are_known(&call, "config", spec.templating.is_some())?;
            change(swarm, true, |view| control::create_config(view, spec.clone(), id.clone())).await?;
        }
    }
    Ok(call::json(StatusCode::CREATED, &json!({ "ID": id })))
}

fn templates_are_known(call: &Call, what: &str, wanted: bool) -> Result<(), Denial> {
    let client = call.version.as_deref().and_then(Version::parse);
    match client.filter(|client| wanted && *client < TEMPLATING) {
        Some(client) => {
            let text = format!("{what} templating is not supported on the specified API version: {client}");
            Err(Denial::plain(400, text))
        }
        None => Ok(()),
    }
}

pub(crate) async fn update(swarm: &Arc<dyn Swarm>, mut call: Call, of: Of, id: String) -> Result<Reply, ApiError> {
    let new = new_id();
    match of {
        Of::Secrets => {
            let spec: SecretSpec = body::read(&mut call).await?;
            let version = body::version(&call.query, "secret")?;
            change(swarm, false, |view| control::update_secret(view, &id, version, spec.clone(), new.clone())).await?;
        }
        Of::Configs => {
            let spec: ConfigSpec = body::read(&mut call).await?;
            let version = body::version(&call.query, "config")?;
            change(swarm, false, |view| control::update_config(view, &id, version, spec.clone(), new.clone())).await?;
        }
    }
    Ok(call::no_content(StatusCode::OK))
}

pub(crate) async fn remove(swarm: &Arc<dyn Swarm>, of: Of, id: String) -> Result<Reply, ApiError> {
    match of {
        Of::Secrets => change(swarm, true, |view| control::remove_secret(view, &id)).await?,
        Of::Configs => change(swarm, true, |view| control::remove_config(view, &id)).await?,
    }
    Ok(call::no_content(StatusCode::NO_CONTENT))
}
