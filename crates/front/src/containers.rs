//! Calls that belong to one container, and those over the containers of all nodes.
//!
//! What changes a container is read back before the answer ends, so that the next call sees it.

mod inspect;
mod list;
mod prune;

use std::sync::Arc;

use herder_decide::names::{self, NotFound};
use herder_decide::placing;
use herder_model::{Container, Node};
use herder_pool::{Engine, Ticket};
use http::{Method, StatusCode};

pub(crate) use herder_place::reread::{refresh_volumes, reread};

use crate::path::encode_query;
use crate::{ApiError, Call, Front, Reply, forward};

pub(crate) use inspect::inspect;
pub(crate) use list::{Lists, list};
pub(crate) use prune::containers as prune;

/// A container and where it is.
#[derive(Debug)]
pub(crate) struct Found {
    pub engine: Arc<Engine>,
    pub node: Arc<Node>,
    pub container: Arc<Container>,
}

/// Finds a container by any of its names, on a node that answers. `missing` is said when there is none.
pub(crate) fn find(front: &Front, name: &str, missing: &str) -> Result<Found, ApiError> {
    let found = find_anywhere(front, name, missing)?;
    if !found.node.is_healthy() {
        let node = &found.node.name;
        return Err(ApiError::internal(format!("Container {name} running on unhealthy node {node}")));
    }
    Ok(found)
}

fn find_anywhere(front: &Front, name: &str, missing: &str) -> Result<Found, ApiError> {
    let nodes = front.pool.nodes();
    let (node, container) = names::container(&nodes, name).map_err(|error| match error {
        NotFound::Unknown => ApiError::not_found(missing),
        NotFound::Ambiguous(candidates) => {
            ApiError::bad_request(format!("{name} is more than one container: {}", candidates.join(", ")))
        }
    })?;
    let engine = front.pool.engine(&node.addr).ok_or_else(|| ApiError::not_found(missing))?;
    Ok(Found { engine, node, container })
}

fn missing(name: &str) -> String {
    format!("No such container: {name}")
}

/// Effect of an action below a container on herder's own picture of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Lists stay the same.
    None,
    /// Lists show it: read the container again before the answer.
    Changes,
    /// Same as `Changes`, but the answer begins at once and ends later.
    ChangesLater,
}

fn effect(method: &Method, action: &str) -> Effect {
    match action {
        "wait" => Effect::ChangesLater,
        "start" | "stop" | "restart" | "kill" | "pause" | "unpause" | "update" if method == Method::POST => {
            Effect::Changes
        }
        _ => Effect::None,
    }
}

/// `/containers/{name}/{action}`, whatever the action: known or not, the engine knows better. `rest` is the path after
/// `/containers/`; names may contain one slash (`node/name`), actions too (`attach/ws`).
pub(crate) async fn act(front: &Arc<Front>, call: Call, rest: &str) -> Result<Reply, ApiError> {
    let (found, action) = find_with_action(front, rest)?;
    let path = format!("/containers/{}/{action}", found.container.id);
    let effect = effect(&call.parts.method, action);
    let reply = forward::to_engine(front, call, &found.engine, path).await?;
    if reply.status().is_client_error() {
        return Ok(reply);
    }
    let Found { engine, container, .. } = found;
    match effect {
        Effect::None => Ok(reply),
        Effect::Changes => {
            reread(&engine, &container.id).await;
            Ok(reply)
        }
        Effect::ChangesLater => {
            // A container that removes itself takes its anonymous volumes along.
            let again = async move {
                reread(&engine, &container.id).await;
                if !container.mounts.is_empty() && !engine.node().containers.contains_key(&container.id) {
                    refresh_volumes(&engine).await;
                }
            };
            Ok(reply.map(|body| forward::hold_until(body, again)))
        }
    }
}

/// Tries the longest name first: `node/web/attach/ws` is action `ws` of `node/web/attach`, `attach/ws` of `node/web`, ….
fn find_with_action<'r>(front: &Front, rest: &'r str) -> Result<(Found, &'r str), ApiError> {
    let mut first = None;
    for (name, action) in splits(rest) {
        let sentence = match action {
            "start" | "json" | "exec" => format!("No such container {name}"),
            _ => missing(name),
        };
        match find(front, name, &sentence) {
            Ok(found) => return Ok((found, action)),
            Err(error) if error.status() != StatusCode::NOT_FOUND => return Err(error),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| ApiError::not_found("page not found")))
}

/// All ways to cut `rest` into a name and an action, longest name first; `attach/ws` is never cut.
fn splits(rest: &str) -> impl Iterator<Item = (&str, &str)> {
    let whole = rest.ends_with("/attach/ws");
    let cuts = rest.rmatch_indices('/').skip(usize::from(whole));
    cuts.map(|(at, _)| (&rest[..at], &rest[at + 1..])).filter(|(name, action)| !name.is_empty() && !action.is_empty())
}

/// `POST /containers/{name}/rename?name=`: the new name must be free on every node, and stays reserved until the
/// container shows it.
pub(crate) async fn rename(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    let found = find(front, name, &missing(name))?;
    let new = call.query.get("name").unwrap_or("").trim_start_matches('/').to_owned();
    front.placer.look_again_at(&new).await;
    let held = front.placer.hold(&new, "").await?;
    let _ticket = reserve_name(front, &found, &new)?;
    let path = format!("/containers/{}/rename", found.container.id);
    let reply = forward::to_engine(front, call, &found.engine, path).await?;
    if reply.status().is_success() {
        reread(&found.engine, &found.container.id).await;
        if let Some(held) = held {
            held.shown(&found.engine);
        }
    }
    Ok(reply)
}

fn reserve_name(front: &Front, found: &Found, new: &str) -> Result<Ticket, ApiError> {
    front.pool.place(|nodes| {
        check_name(nodes, new, None)?;
        let reservation = Container { name: new.to_owned(), ..Container::default() };
        Ok((found.node.addr.clone(), reservation))
    })
}

/// A name may exist once in the cluster; the container with the id `replaced` does not count.
pub(crate) fn check_name(nodes: &[Arc<Node>], name: &str, replaced: Option<&str>) -> Result<(), ApiError> {
    Ok(placing::check_name(nodes, name, replaced)?)
}

/// `DELETE /containers/{name}`: forgotten before the answer ends.
pub(crate) async fn remove(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    if call.query.flag("link") {
        return remove_link(front, call, name).await;
    }
    let found = find_anywhere(front, name, &format!("Container {name} not found"))?;
    if !found.node.is_healthy() {
        let addr = found.engine.addr();
        let url = if addr.contains("://") { addr.to_owned() } else { format!("tcp://{addr}") };
        let sentence = format!("Cannot connect to the Docker daemon at {url}. Is the docker daemon running?");
        return Err(ApiError::internal(sentence));
    }
    let path = format!("/containers/{}", found.container.id);
    let with_volumes = call.query.flag("v") && !found.container.mounts.is_empty();
    let reply = forward::to_engine(front, call, &found.engine, path).await?;
    if reply.status().is_success() || reply.status() == StatusCode::NOT_FOUND {
        reread(&found.engine, &found.container.id).await;
        if with_volumes {
            refresh_volumes(&found.engine).await;
        }
    }
    Ok(reply)
}

/// `DELETE /containers/{parent}/{alias}?link=1`: the link, not the container.
async fn remove_link(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    let link = name.trim_start_matches('/');
    let Some((parent, alias)) = link.rsplit_once('/') else {
        return Err(ApiError::bad_request(format!("Conflict, cannot remove the default name of the container {link}")));
    };
    let found = find(front, parent, &missing(parent))?;
    let path = format!("/containers/{}/{alias}", found.container.name);
    let reply = forward::to_engine(front, call, &found.engine, path).await?;
    reread(&found.engine, &found.container.id).await;
    Ok(reply)
}

/// `POST /commit?container=`: the image appears on the container's node.
pub(crate) async fn commit(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let name = call.query.get("container").unwrap_or("").to_owned();
    let found = find(front, &name, &missing(&name))?;
    let pairs = call.query.0.iter().map(|(key, value)| {
        let value = if key == "container" { &found.container.id } else { value };
        format!("{}={}", encode_query(key), encode_query(value))
    });
    let path = format!("/commit?{}", pairs.collect::<Vec<_>>().join("&"));
    let reply = forward::to_engine(front, call, &found.engine, path).await?;
    if reply.status().is_success()
        && let Err(error) = found.engine.refresh_images().await
    {
        tracing::debug!(%error, "cannot read the images again");
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_a_container_is_cut_at_every_slash() {
        let check = |rest: &str, expected: &str| {
            let cuts: Vec<String> = splits(rest).map(|(name, action)| format!("{name}|{action}")).collect();
            assert_eq!(cuts.join(" "), expected, "{rest}");
        };
        check("web/json", "web|json");
        check("node-1/web/json", "node-1/web|json node-1|web/json");
        check("web/attach/ws", "web|attach/ws");
        check("node/web/attach/ws", "node/web|attach/ws node|web/attach/ws");
        check("web", "");
        check("web/", "");
    }

    #[test]
    fn only_what_lists_show_is_read_again() {
        let text = |method: Method, action| format!("{:?}", effect(&method, action));
        assert_eq!(text(Method::POST, "start"), "Changes");
        assert_eq!(text(Method::POST, "wait"), "ChangesLater");
        assert_eq!(text(Method::GET, "logs"), "None");
        assert_eq!(text(Method::POST, "resize"), "None");
    }

    #[test]
    fn a_name_is_taken_by_any_node_and_an_empty_one_never() {
        let mut node = Node::default();
        node.put_container(Arc::new(Container { id: "1".into(), name: "c1".into(), ..Container::default() }));
        let nodes = [Arc::new(node)];
        let error = check_name(&nodes, "c1", None).expect_err("taken");
        assert_eq!(error.status(), StatusCode::CONFLICT);
        assert_eq!(
            error.to_string(),
            "Conflict: The name c1 is already assigned. You have to delete (or rename) that container to be able to \
             assign c1 to a container again."
        );
        check_name(&nodes, "c2", None).expect("free");
        check_name(&nodes, "", None).expect("no name");
        check_name(&nodes, "c1", Some("1")).expect("its own");
    }
}
