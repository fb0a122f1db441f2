//! Networks as a swarm's clients ask for them. There are none that reach over hosts yet; those of every engine are named.

use herder_decide::list::is_predefined;
use herder_decide::swarm::control::NETWORKS_INSTEAD;
use herder_decide::swarm::local::LocalState;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{ApiError, Call, Front};

/// Whether this node is in a swarm.
fn is_in_swarm(front: &Front) -> bool {
    front.swarm().is_some_and(|swarm| swarm.status().state != LocalState::Inactive)
}

/// The answer to a client that looks for a network of the swarm (`scope=swarm`), as it does for each network of a service.
/// Nothing for any other.
pub(crate) fn inspect(front: &Front, call: &Call, name: &str) -> Option<Result<Value, ApiError>> {
    if call.query.get("scope") != Some("swarm") || !is_in_swarm(front) {
        return None;
    }
    if !is_predefined(name) {
        return Some(Err(ApiError::not_found(format!("network {name} not found"))));
    }
    // Its name is its id: it is another one on each node.
    let driver = if name == "none" { "null" } else { name };
    Some(Ok(json!({
        "Name": name, "Id": name, "Created": "0001-01-01T00:00:00Z", "Scope": "swarm", "Driver": driver,
        "EnableIPv4": true, "EnableIPv6": false, "IPAM": {"Driver": "default", "Options": null, "Config": null},
        "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
        "Containers": null, "Options": null, "Labels": null,
    })))
}

/// Refuses to make a network over hosts, in place of engines that would say that they are in no swarm.
pub(crate) fn may_create(front: &Front, body: &Value) -> Result<(), ApiError> {
    let over_hosts = body["Driver"] == "overlay" || body["Scope"] == "swarm" || body["Ingress"] == true;
    if !over_hosts || !is_in_swarm(front) {
        return Ok(());
    }
    let name = body["Name"].as_str().unwrap_or_default();
    let text = format!("network {name} cannot be made: there are no overlay networks; {NETWORKS_INSTEAD}");
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, text))
}
