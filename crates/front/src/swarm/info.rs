//! Answers of `/info` and `/_ping` about the swarm.

use herder_decide::swarm::local;
use serde_json::Value;
use tokio::time::timeout;

use super::MANAGERS_TIME_MAX;
use crate::Front;

/// The part `Swarm` of `/info`; nothing where there can be no swarm.
pub(crate) async fn section(front: &Front) -> Option<Value> {
    let swarm = front.swarm()?;
    let mut said = swarm.status();
    let view = if said.control_available {
        match timeout(MANAGERS_TIME_MAX, swarm.read()).await {
            Ok(Ok(view)) => Some(view),
            Ok(Err(error)) => {
                said.error = error.to_string();
                None
            }
            Err(_) => {
                said.error = super::too_slow().to_string();
                None
            }
        }
    } else {
        None
    };
    Some(local::info(&said, view.as_ref(), &swarm.managers()))
}

/// The header `Swarm` of `/_ping`.
pub(crate) fn header(front: &Front) -> Option<&'static str> {
    front.swarm().map(|swarm| local::ping(&swarm.status()))
}
