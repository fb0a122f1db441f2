//! `register` and `unregister`.

use herder_decide::actions::members::{self, Changes};
use http::StatusCode;
use serde_json::{Value, json};

use super::node_named;
use crate::{ApiError, Front};

fn done() -> Value {
    json!({ "status": "ok" })
}

/// True if somebody makes of the changes what the pool is.
fn can_change(front: &Front) -> bool {
    front.actions.members.receiver_count() > 0
}

/// Registers a host. A node that was left out comes back, an unknown host becomes a member, and a member stays one.
pub(super) fn register(front: &Front, hostname: &str) -> Result<Value, ApiError> {
    let known = node_named(front, hostname);
    if !can_change(front) {
        let own = |_| {
            ApiError::not_found(format!(
                "hostname: no node {hostname} is in the pool; nodes join by themselves: run `herder up --join` on that host"
            ))
        };
        return known.map(|_| done()).map_err(own);
    }
    let addr = members::address(hostname, front.actions.settings().engine_port);
    let wrong = || ApiError::bad_request(format!("hostname must be HOST or HOST:PORT, not {hostname}"));
    let mut outcome = Ok(());
    front.actions.members.send_if_modified(|changes: &mut Changes| {
        if changes.take_back(hostname) {
            return true;
        }
        match (&known, addr) {
            (Ok(_), _) => false,
            (Err(_), Some(addr)) => {
                tracing::info!(addr, "an engine was registered");
                changes.add(addr);
                true
            }
            (Err(_), None) => {
                outcome = Err(wrong());
                false
            }
        }
    });
    outcome.map(|()| done())
}

/// The node is left out; its containers run on.
pub(super) fn unregister(front: &Front, hostname: &str) -> Result<Value, ApiError> {
    let node = node_named(front, hostname)?;
    if !can_change(front) {
        return Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "nodes are members while herder runs on them: end `herder up` on the host, its containers stay",
        ));
    }
    tracing::info!(addr = node.addr, name = node.name, "a node was unregistered");
    front.actions.members.send_modify(|changes| changes.leave_out(&node.addr, &node.name));
    Ok(done())
}
