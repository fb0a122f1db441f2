//! Templates in a folder. Each is read when it is used, so that an edited file counts at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::UNIX_EPOCH;

use herder_decide::actions::shared::{self, Offered, Shared};
use herder_decide::actions::template::{self, TemplateError};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::ActionSettings;
use crate::{ApiError, Front};
use herder_place::peers::{Offers, Peers};

/// A template is some kilobytes.
const TEMPLATE_BYTES_MAX: u64 = 1 << 20;

/// More files than this in the folder are no templates that somebody has written.
const TEMPLATES_MAX: usize = 1000;

/// Maximum bytes of templates in one answer to another node; a message between nodes takes 9 MiB.
const OFFER_BYTES_MAX: usize = 8 << 20;

fn refused(error: TemplateError) -> ApiError {
    ApiError::bad_request(error.to_string())
}

fn folder(settings: &ActionSettings) -> Result<&Path, ApiError> {
    let none = || ApiError::new(StatusCode::NOT_FOUND, "this node has no templates; --templates names their folder");
    settings.templates.as_deref().ok_or_else(none)
}

/// A template of this node.
async fn own(settings: &ActionSettings, name: &str) -> Result<Offered, ApiError> {
    template::check_name(name).map_err(refused)?;
    let read = read(folder(settings)?, name).await;
    read.map_err(|error| ApiError::not_found(format!("there is no template {name}: {error}")))
}

/// Returns the templates that this node offers to others: the one of this name, or all.
pub(super) async fn offered(settings: &ActionSettings, name: Option<&str>) -> Vec<Offered> {
    let Ok(folder) = folder(settings) else { return Vec::new() };
    if let Some(name) = name {
        return own(settings, name).await.into_iter().collect();
    }
    let (mut offered, mut bytes) = (Vec::new(), 0);
    for name in names(folder).await.unwrap_or_default() {
        let Ok(one) = read(folder, &name).await else { continue };
        bytes += one.text.len();
        if bytes > OFFER_BYTES_MAX {
            tracing::warn!(limit = OFFER_BYTES_MAX, "too many templates to send all of them to other nodes");
            break;
        }
        offered.push(one);
    }
    offered
}

/// The create body of a template: of this node; else of another, the one that was changed last.
pub(super) async fn body(front: &Front, name: &str, variables: &Map<String, Value>) -> Result<Value, ApiError> {
    let text = match (own(front.actions.settings(), name).await, front.placer.peers()) {
        (Err(missing), Some(peers)) if missing.status() == StatusCode::NOT_FOUND => {
            let offers = peers.templates(Some(name)).await?;
            let none = || ApiError::not_found(format!("there is no template {name} on any node"));
            merge(&offers).remove(name).map(|shared| shared.text).ok_or_else(none)?
        }
        (own, _) => own?.text,
    };
    let template = template::parse(name, &text).map_err(refused)?;
    if !template.unknown.is_empty() {
        tracing::info!(name, fields = template.unknown.join(", "), "a template has fields that Docker does not know");
    }
    template.fill(variables).map_err(refused)
}

fn merge(offers: &[Offers]) -> BTreeMap<String, Shared> {
    shared::merge(offers.iter().map(|it| (it.addr.as_str(), it.templates.as_deref().unwrap_or_default())))
}

/// Lists templates with their variables, defaults, unknown fields and faults: this node's, or with `all` those of all
/// nodes.
pub(super) async fn list(front: &Front, with_text: bool, all: bool) -> Result<Value, ApiError> {
    match front.placer.peers() {
        Some(peers) if all => list_all(front, peers.as_ref(), with_text).await,
        _ => list_own(front.actions.settings(), with_text).await,
    }
}

async fn list_own(settings: &ActionSettings, with_text: bool) -> Result<Value, ApiError> {
    let folder = folder(settings)?;
    let mut list = Vec::new();
    for name in names(folder).await? {
        let text = read(folder, &name).await.map(|one| one.text).map_err(|error| error.to_string());
        list.push(described(&name, text.as_deref(), with_text));
    }
    Ok(json!({ "templates": list }))
}

/// Lists the templates of all nodes, and notes different texts under one name.
async fn list_all(front: &Front, peers: &dyn Peers, with_text: bool) -> Result<Value, ApiError> {
    let mut offers = peers.templates(None).await?;
    let templates = Some(offered(front.actions.settings(), None).await);
    offers.push(Offers { addr: peers.here().to_owned(), templates });
    let name_of = |addr: &String| {
        let node = front.pool.engine(addr).map(|engine| engine.node());
        node.map(|node| node.name.clone()).filter(|name| !name.is_empty()).unwrap_or_else(|| addr.clone())
    };
    let silent: Vec<String> = offers.iter().filter(|it| it.templates.is_none()).map(|it| name_of(&it.addr)).collect();
    let list = merge(&offers).into_iter().map(|(name, shared)| {
        let mut entry = described(&name, Ok(&shared.text), with_text);
        entry["on"] = shared.on.iter().map(name_of).collect();
        entry["differsOn"] = shared.differs_on.iter().map(name_of).collect();
        entry
    });
    let mut answer = json!({ "templates": list.collect::<Vec<Value>>() });
    if !silent.is_empty() {
        answer["timeout"] = silent.into();
    }
    Ok(answer)
}

fn described(name: &str, text: Result<&str, &String>, with_text: bool) -> Value {
    let parsed = text.map_err(|error| format!("template {name}.json: {error}")).and_then(|text| {
        let parsed = template::check_name(name).and_then(|()| template::parse(name, text));
        parsed.map_err(|error| error.to_string())
    });
    let mut entry = match parsed {
        Ok(template) => {
            json!({ "name": name, "variables": template.variables, "unknownFields": template.unknown, "error": null })
        }
        Err(error) => json!({ "name": name, "error": error }),
    };
    if with_text {
        entry["text"] = text.ok().into();
    }
    entry
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

async fn read(folder: &Path, name: &str) -> std::io::Result<Offered> {
    let path = folder.join(format!("{name}.json"));
    let about = tokio::fs::metadata(&path).await?;
    if !about.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    if about.len() > TEMPLATE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is larger than {TEMPLATE_BYTES_MAX} bytes")));
    }
    let modified = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let text = tokio::fs::read_to_string(&path).await?;
    Ok(Offered { name: name.to_owned(), text, modified: modified.as_secs() })
}
