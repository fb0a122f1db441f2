//! Templates in a folder. Each is read when it is used, so that an edited file counts at once.

use std::path::Path;

use herder_decide::actions::template::{self, TemplateError};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{ActionSettings, TEMPLATE_BYTES_MAX};
use crate::{ApiError, Front};

fn folder(settings: &ActionSettings) -> Result<&Path, ApiError> {
    let none = || ApiError::new(StatusCode::NOT_FOUND, "this node has no templates; --templates names their folder");
    settings.templates.as_deref().ok_or_else(none)
}

/// The text of a template of this node.
pub(super) async fn own(settings: &ActionSettings, name: &str) -> Result<String, ApiError> {
    template::check_name(name).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let read = read(&folder(settings)?.join(format!("{name}.json"))).await;
    read.map_err(|error| ApiError::not_found(format!("there is no template {name}: {error}")))
}

/// The create body of a template: of this node, or of any other that has it.
pub(super) async fn body(front: &Front, name: &str, variables: &Map<String, Value>) -> Result<Value, ApiError> {
    let text = match (own(front.actions.settings(), name).await, front.peers.get()) {
        (Err(error), Some(peers)) if error.status() == StatusCode::NOT_FOUND => {
            peers.template(name).await?.ok_or(error)?
        }
        (own, _) => own?,
    };
    template::fill(name, &text, variables).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// Every template with what is wrong with it, if anything is. Variables without default are no fault here.
pub(super) async fn list(settings: &ActionSettings) -> Result<Vec<Value>, ApiError> {
    let folder = folder(settings)?;
    let failed = |error| ApiError::internal(format!("cannot read {}: {error}", folder.display()));
    let mut entries = tokio::fs::read_dir(folder).await.map_err(failed)?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        let name = entry.file_name().into_string().unwrap_or_default();
        names.extend(name.strip_suffix(".json").map(str::to_owned));
    }
    names.sort();
    let mut list = Vec::new();
    for name in names {
        let fault = match read(&folder.join(format!("{name}.json"))).await {
            Err(error) => Some(error.to_string()),
            Ok(text) => match template::fill(&name, &text, &Map::new()) {
                Ok(_) | Err(TemplateError::Variable { .. }) => None,
                Err(error) => Some(error.to_string()),
            },
        };
        list.push(json!({ "name": name, "error": fault }));
    }
    Ok(list)
}

async fn read(path: &Path) -> std::io::Result<String> {
    if tokio::fs::metadata(path).await?.len() > TEMPLATE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is larger than {TEMPLATE_BYTES_MAX} bytes")));
    }
    tokio::fs::read_to_string(path).await
}
