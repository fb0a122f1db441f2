//! The pool's events as messages of the bus.

use std::sync::Arc;

use herder_bus::{Bus, Headers};
use herder_pool::Pool;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Publishes what happens to containers and nodes until `stop`. Every node of a pool sees all events; `is_ours` says which
/// of them this one publishes, so that listeners hear each once: such as those of its own engine.
pub async fn publish_events(
    pool: Arc<Pool>,
    bus: Arc<Bus>,
    is_ours: impl Fn(&Value) -> bool + Send,
    stop: CancellationToken,
) {
    let mut live = pool.events();
    while let Some(event) = stop.run_until_cancelled(live.recv()).await {
        let event = match event {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "events came faster than they could be published");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let Some(address) = address(&event.json).filter(|_| is_ours(&event.json)) else { continue };
        if let Err(error) = bus.publish(address, Headers::default(), (*event.json).clone()) {
            tracing::warn!(%error, address, "an event was not published");
        }
    }
}

/// Where an event is published: those of containers, and the pool's own about nodes. Images, networks and volumes have no
/// address.
fn address(event: &Value) -> Option<&'static str> {
    match event["Type"].as_str()? {
        "container" => Some("herder.events.container"),
        "swarm" => Some("herder.events.node"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use herder_bus::Settings;
    use herder_bus::memory::Mesh;
    use herder_model::Node;
    use serde_json::json;

    use super::*;

    #[test]
    fn events_have_addresses_that_are_documented() {
        for (kind, expected) in [
            (json!({"Type": "container"}), Some("herder.events.container")),
            (json!({"Type": "swarm"}), Some("herder.events.node")),
            (json!({"Type": "image"}), None),
            (json!({}), None),
        ] {
            assert_eq!(address(&kind), expected, "{kind}");
        }
    }

    #[tokio::test]
    async fn only_events_that_are_ours_are_published() {
        let pool = Pool::new(herder_pool::Settings::default());
        let bus = Mesh::new(10).bus("n1", Settings::default());
        let mut consumer = bus.register("herder.events.node").expect("an address");
        let stop = CancellationToken::new();
        let ours = |event: &Value| event["node"]["Name"] == "n1";
        let feed = tokio::spawn(publish_events(pool.clone(), bus, ours, stop.clone()));
        // The feed listens from its first poll on.
        tokio::task::yield_now().await;
        for name in ["n2", "n1"] {
            pool.announce("engine_connect", &Node { name: name.into(), ..Node::default() }, json!({}));
        }
        let message = consumer.recv().await;
        assert_eq!((&message.body["node"]["Name"], &message.body["Action"]), (&json!("n1"), &json!("engine_connect")));
        stop.cancel();
        feed.await.expect("an end");
        assert!(consumer.try_recv().is_none());
    }
}
