//! Calls about images. An image on several nodes is one image; pulls and loads go to all nodes.

use std::sync::Arc;

use herder_decide::list::Filters;
use herder_decide::{list, merge, names, prune, versions};
use herder_pool::{Body, Engine};
use http::{Method, StatusCode};
use serde_json::Value;

use crate::fanout::{self, Work};
use crate::path::for_engine;
use crate::{ApiError, Call, Front, Reply, call, forward};

pub(crate) async fn list(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let mut filters = Filters::parse(call.query.get("filters").unwrap_or("")).map_err(ApiError::bad_request)?;
    // Before API 1.28 this was a parameter of its own.
    if let Some(reference) = call.query.get("filter").filter(|text| !text.is_empty()) {
        let text = serde_json::json!({ "reference": [reference] }).to_string();
        filters = Filters::parse(&text).map_err(ApiError::bad_request)?;
    }
    let mut images =
        list::images(&front.pool.nodes(), call.query.flag("all"), &filters, jiff::Timestamp::now().as_second())
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
    for image in images.as_array_mut().into_iter().flatten() {
        versions::image_entry(image, call.version.as_deref());
    }
    Ok(call::json(StatusCode::OK, &images))
}

/// The engines of healthy nodes that have the image, the one beside this door first.
fn owners(front: &Front, name: &str) -> Result<Vec<Arc<Engine>>, ApiError> {
    let found = names::image(&front.pool.nodes(), name).into_iter().filter(|(node, _)| node.is_healthy());
    let mut owners: Vec<_> = found.filter_map(|(node, _)| front.pool.engine(&node.addr)).collect();
    front.nearest(&mut owners, |it| it);
    if owners.is_empty() { Err(ApiError::not_found(format!("No such image: {name}"))) } else { Ok(owners) }
}

/// `/images/{name}/{action}` on one node that has it. Unknown actions pass, too.
pub(crate) async fn act(front: &Arc<Front>, call: Call, name: &str, action: &str) -> Result<Reply, ApiError> {
    let engine = owners(front, name)?.swap_remove(0);
    forward::to_engine(front, call, &engine, format!("/images/{name}/{action}")).await
}

/// `POST /images/{name}/push`: the tag stands in the query.
pub(crate) async fn push(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    let tag = call.query.get("tag");
    let nodes = names::pushable(&front.pool.nodes(), name, tag);
    let healthy = nodes.iter().filter(|it| it.is_healthy());
    let mut engines: Vec<_> = healthy.filter_map(|node| front.pool.engine(&node.addr)).collect();
    front.nearest(&mut engines, |it| it);
    let Some(engine) = engines.into_iter().next() else {
        let tag = tag.filter(|tag| !tag.is_empty()).map(|tag| format!(":{tag}")).unwrap_or_default();
        return Err(ApiError::not_found(format!("No such image: {name}{tag}")));
    };
    forward::to_engine(front, call, &engine, format!("/images/{name}/push")).await
}

pub(crate) async fn inspect(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    let engine = owners(front, name)?.swap_remove(0);
    let mut image = engine.call(Method::GET, &for_engine(None, &format!("/images/{name}/json"), None), None).await?;
    versions::image_inspect(&mut image, call.version.as_deref());
    Ok(call::json(StatusCode::OK, &image))
}

/// `GET /images/get?names=`: one node that has them all.
pub(crate) async fn get_many(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let wanted: Vec<String> = call.query.all("names").flat_map(|names| names.split(',')).map(str::to_owned).collect();
    let has_all = |engine: &Arc<Engine>| wanted.iter().all(|name| !names::image(&[engine.node()], name).is_empty());
    let Some(engine) = front.healthy_engines().into_iter().find(has_all) else {
        let message = format!("Unable to find a healthy engine containing all images: [{}]", wanted.join(" "));
        return Err(ApiError::not_found(message));
    };
    forward::to_engine(front, call, &engine, "/images/get".into()).await
}

/// Pulls (`fromImage`) and imports (`fromSrc`) on all nodes.
pub(crate) async fn create(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let import = call.query.get("fromSrc").map(str::to_owned);
    let what = match (&import, call.query.get("fromImage"), call.query.get("tag")) {
        (Some(_), _, _) => "Importing...".to_owned(),
        (None, Some(image), tag) => {
            let tag = tag
                .filter(|tag| !tag.is_empty())
                .map(|tag| if tag.contains(':') { format!("@{tag}") } else { format!(":{tag}") });
            format!("Pulling {image}{}...", tag.unwrap_or_default())
        }
        (None, None, _) => return Err(ApiError::bad_request("one of the parameters fromImage and fromSrc is needed")),
    };
    if import.is_some() {
        return import_once(front, call).await;
    }
    let work = work(call, "/images/create", what, None, false);
    fanout::stream(front, work).await
}

/// Work on all nodes for a call.
fn work(call: Call, path: &str, what: String, body: Option<Body>, hold: bool) -> Work {
    let headers = fanout::passed_on(&call.parts.headers);
    let query = call.parts.uri.query().map(str::to_owned);
    Work { method: Method::POST, version: call.version, query, path: path.to_owned(), what, headers, body, hold }
}

/// Imports on one node and copies the image to the others. Each import would be an image with an id of its own.
async fn import_once(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let engine = fanout::any(front)?;
    let path = call.path.clone();
    let known: Vec<String> = engine.node().images.iter().map(|image| image.id.clone()).collect();
    let reference = call.query.get("repo").filter(|repo| !repo.is_empty()).map(|repo| {
        let tag = call.query.get("tag").filter(|tag| !tag.is_empty()).unwrap_or("latest");
        if repo.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            repo.to_owned()
        } else {
            format!("{repo}:{tag}")
        }
    });
    let reply = forward::to_engine(front, call, &engine, path).await?;
    if !reply.status().is_success() {
        return Ok(reply);
    }
    let front = front.clone();
    let spread = async move {
        if let Err(error) = engine.refresh_images().await {
            tracing::warn!(%error, "cannot read images after an import");
            return;
        }
        let new = engine.node().images.iter().find(|image| !known.contains(&image.id)).map(|image| image.id.clone());
        let Some(name) = reference.or(new) else { return };
        let others = front.healthy_engines().into_iter().filter(|other| other.addr() != engine.addr());
        let copies = others.map(|other| {
            let (engine, name) = (engine.clone(), name.clone());
            async move {
                let copied = herder_place::transfer::copy(&name, &engine, &other).await;
                if let Err(error) = copied {
                    tracing::warn!(%error, node = other.node().name, image = name, "cannot copy an import to a node");
                } else if let Err(error) = other.refresh_images().await {
                    tracing::debug!(%error, "cannot read images again");
                }
            }
        });
        futures_util::future::join_all(copies).await;
    };
    Ok(reply.map(|body| forward::after(body, spread)))
}

pub(crate) async fn load(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let body = Some(std::mem::replace(&mut call.body, herder_pool::empty()));
    // Without progress an engine says nothing until the image is there.
    let hold = call.query.flag("quiet");
    let work = work(call, "/images/load", "Loading Image...".to_owned(), body, hold);
    fanout::stream(front, work).await
}

/// Tags on every node that has the image.
pub(crate) async fn tag(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    let engines = owners(front, name)?;
    let path = for_engine(None, &format!("/images/{name}/tag"), call.parts.uri.query());
    everywhere(engines, Method::POST, &path).await?;
    Ok(call::no_content(StatusCode::CREATED))
}

/// Removes the image from every node that has it.
pub(crate) async fn remove(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    let engines = owners(front, name)?;
    let path = for_engine(None, &format!("/images/{name}"), call.parts.uri.query());
    let parts = everywhere(engines, Method::DELETE, &path).await?;
    Ok(call::json(StatusCode::OK, &merge::image_delete(parts).map_err(ApiError::internal)?))
}

/// Asks these engines and reads their images anew. If all refuse, the first refusal is the answer, status and all.
async fn everywhere(engines: Vec<Arc<Engine>>, method: Method, path: &str) -> Result<Vec<merge::Part>, ApiError> {
    let mut parts = Vec::new();
    let mut refusal = None;
    for engine in engines {
        let node = engine.node();
        match engine.call(method.clone(), path, None).await {
            Ok(answer) => parts.push((node, Ok(answer))),
            Err(error) => {
                parts.push((node, Err(error.to_string())));
                refusal = refusal.or(Some(error));
            }
        }
        engine.refresh_images().await?;
    }
    match refusal {
        Some(error) if parts.iter().all(|(_, answer): &merge::Part| answer.is_err()) => Err(error.into()),
        _ => Ok(parts),
    }
}

pub(crate) async fn prune(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let path = for_engine(None, "/images/prune", call.parts.uri.query());
    let parts = fanout::ask_all(front, Method::POST, &path, None).await;
    for engine in front.healthy_engines() {
        engine.refresh_images().await?;
    }
    let merged: Value = prune::over_nodes(parts, front.pool.settings().naming).map_err(ApiError::internal)?;
    Ok(call::json(StatusCode::OK, &merged))
}
