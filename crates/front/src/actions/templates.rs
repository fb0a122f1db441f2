//! Templates in a folder. Each is read when it is used, so that an edited file counts at once.

use std::path::Path;

use herder_decide::actions::template::{self, Template, TemplateError};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::ActionSettings;
use crate::{ApiError, Front};

/// A template is some kilobytes.
const TEMPLATE_BYTES_MAX: u64 = 1 << 20;

/// More files than this in the folder are no templates that somebody has written.
const TEMPLATES_MAX: usize = 1000;

fn refused(error: TemplateError) -> ApiError {
    ApiError::bad_request(error.to_string())
}

fn folder(settings: &ActionSettings) -> Result<&Path, ApiError> {
    let none = || ApiError::new(StatusCode::NOT_FOUND, "this node has no templates; --templates names their folder");
    settings.templates.as_deref().ok_or_else(none)
}

/// The text of a template of this node.
pub(super) async fn own(settings: &ActionSettings, name: &str) -> Result<String, ApiError> {
    template::check_name(name).map_err(refused)?;
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
    let template = template::parse(name, &text).map_err(refused)?;
    if !template.unknown.is_empty() {
        tracing::info!(name, fields = template.unknown.join(", "), "a template has fields that Docker does not know");
    }
    template.fill(variables).map_err(refused)
}

/// Every template of this node: its variables with their defaults, fields that Docker does not know, what is wrong with it.
pub(super) async fn list(front: &Front, with_text: bool) -> Result<Value, ApiError> {
    let folder = folder(front.actions.settings())?;
    let mut list = Vec::new();
    for name in names(folder).await? {
        let text = read(&folder.join(format!("{name}.json"))).await;
        let parsed = match &text {
            Err(error) => Err(format!("template {name}.json: {error}")),
            Ok(text) => template::check_name(&name)
                .and_then(|()| template::parse(&name, text))
                .map_err(|error| error.to_string()),
        };
        let mut entry = described(&name, parsed);
        if with_text {
            entry["text"] = text.ok().into();
        }
        list.push(entry);
    }
    Ok(json!({ "templates": list }))
}

fn described(name: &str, parsed: Result<Template, String>) -> Value {
    match parsed {
        Ok(template) => {
            json!({ "name": name, "variables": template.variables, "unknownFields": template.unknown, "error": null })
        }
        Err(error) => json!({ "name": name, "error": error }),
    }
}

async fn names(folder: &Path) -> Result<Vec<String>, ApiError> {
    let failed = |error| ApiError::internal(format!("cannot read {}: {error}", folder.display()));
    let mut entries = tokio::fs::read_dir(folder).await.map_err(failed)?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        let name = entry.file_name().into_string().unwrap_or_default();
        names.extend(name.strip_suffix(".json").map(str::to_owned));
        if names.len() > TEMPLATES_MAX {
            return Err(ApiError::internal(format!("{} has more than {TEMPLATES_MAX} templates", folder.display())));
        }
    }
    names.sort();
    Ok(names)
}

async fn read(path: &Path) -> std::io::Result<String> {
    let about = tokio::fs::metadata(path).await?;
    if !about.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    if about.len() > TEMPLATE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is larger than {TEMPLATE_BYTES_MAX} bytes")));
    }
    tokio::fs::read_to_string(path).await
}
