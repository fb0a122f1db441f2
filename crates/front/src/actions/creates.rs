//! `create-container` and `create-raw-container`: through the same placing as Docker's own create.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use herder_decide::actions::{Create, Source, body, shape};
use herder_model::Node;
use herder_pool::{EngineError, LinkError};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::ask::texts;
use herder_place::turn::{Turn, Turns};

use super::{node_named, shown, templates};
use crate::{ApiError, Front};
use herder_place::create::{self, Created};

/// Containers of one request that one node creates at the same time; an engine does a handful at once.
const AT_ONCE_PER_NODE: usize = 4;

/// Containers of one request that are created at the same time, however many nodes there are.
const AT_ONCE_MAX: usize = 256;

/// Answer for a container that was not created in time.
const LATE: &str = "the container was not created in time; if it comes later, it is listed";

pub(super) async fn create(front: &Arc<Front>, create: Create, here: Option<&str>) -> Result<Value, ApiError> {
    let Create { source, body: over, instances, hostname, name } = create;
    let mut body = match source {
        Source::Template { name, variables } => templates::body(front, &name, &variables).await?,
        Source::Image(image) => body::from_image(&image),
        Source::Raw => json!({}),
    };
    body::overlay(&mut body, over);
    body::modernise(&mut body);
    // What is wrong with the request is told once, not once for each container.
    create::order(&front.placer, name.as_deref(), body.clone())?;
    let only = hostname.as_deref().or(here).map(|hostname| node_named(front, hostname)).transpose()?;
    let Some(instances) = instances else {
        return Ok(one(front.clone(), body, name, Turns::single(only).next()).await);
    };
    let turns = Turns::even(&front.placer.scheduler, only);
    let body = Arc::new(body);
    let creates = (0..instances).map(|_| {
        let (front, body, name, turn) = (front.clone(), body.clone(), name.clone(), turns.next());
        async move { one(front, Value::clone(&body), name, turn).await }
    });
    let at_once = (front.healthy_engines().len() * AT_ONCE_PER_NODE).clamp(1, AT_ONCE_MAX);
    // In the order in which they come, as in the original: one that is slow holds up nobody.
    let replies: Vec<Value> = stream::iter(creates).buffer_unordered(at_once).collect().await;
    Ok(json!({ "containers": replies }))
}

/// Creates one container; what became of it, as the reply of its node. Never fails: trouble is a reply, too.
async fn one(front: Arc<Front>, body: Value, name: Option<String>, turn: Arc<Turn>) -> Value {
    let mut order = match create::order(&front.placer, name.as_deref(), body) {
        Ok(order) => order,
        Err(error) => return failed(&front, None, &error),
    };
    if let Some(only) = turn.only() {
        if !only.is_healthy() {
            return shape::late(Some(shown(only)), &unhealthy(only));
        }
        // The turn keeps to the node; this lets the refusal say why it cannot take the container.
        order.request.constraints.extend(format!("node=={}", only.name).parse().ok());
    }
    let limit = front.actions.settings().new_container_timeout;
    // In a task of its own: what comes too late is still counted, and a client that goes away leaves nothing half done.
    let task = tokio::spawn(create::place_and_create_in_turn(front.placer.clone(), order, Some(turn.clone())));
    match timeout(limit, task).await {
        Ok(Ok(Ok(created))) => made(&created),
        Ok(Ok(Err(error))) => failed(&front, turn.at().as_deref(), &error),
        Ok(Err(error)) => {
            let error = ApiError::internal(format!("the create was broken off: {error}"));
            failed(&front, turn.at().as_deref(), &error)
        }
        Err(_) => {
            turn.was_late();
            shape::late(turn.at().as_deref().map(shown), LATE)
        }
    }
}

fn unhealthy(node: &Node) -> String {
    format!(
        "the node is {}: {}",
        node.state.as_str().to_lowercase(),
        node.error.as_deref().unwrap_or("no reason known")
    )
}

fn made(created: &Created) -> Value {
    let node = created.engine.node();
    let status = created.status.as_u16();
    if !created.headers.is_empty() {
        return shape::node_reply(&node.name, status, texts(&created.headers), &created.answer);
    }
    // The other node keeps the headers of its engine to itself.
    let (length, date) = (created.answer.len().to_string(), date());
    let headers = [("content-length", length.as_str()), ("content-type", "application/json"), ("date", date.as_str())];
    shape::node_reply(&node.name, status, headers, &created.answer)
}

/// Returns the date in HTTP's form (RFC 9110, 5.6.7).
fn date() -> String {
    jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Returns the failure of an instance. If the node is lost meanwhile, it counts as late, whatever its last error was.
fn failed(front: &Front, node: Option<&Node>, error: &ApiError) -> Value {
    let error = error.plain();
    let message = match error {
        ApiError::Engine(EngineError::Answer { message, .. }) => message.clone(),
        other => other.to_string(),
    };
    let name = node.map(shown);
    let lives = |node: &Node| front.pool.engine(&node.addr).is_some_and(|engine| engine.node().is_healthy());
    let silent = matches!(error, ApiError::Engine(EngineError::Link(LinkError::Timeout { .. })));
    if silent || node.is_some_and(|node| !lives(node)) {
        return shape::late(name, &message);
    }
    shape::failed(name, error.status().as_u16(), &message)
}
