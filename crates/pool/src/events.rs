//! Events of an engine, and the parts of its node's picture that each makes doubtful.

use herder_decide::events::decorate;
use herder_model::Node;
use serde_json::{Value, json};

/// A part that must be read again after an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    Container(String),
    /// The container is gone for good.
    Gone(String),
    Images,
    Networks,
    Volumes,
    /// The engine's own facts (`daemon reload`).
    Engine,
}

/// Returns the parts that an event makes doubtful. Unknown kinds of events have none: the timer reads everything
/// anyway.
pub(crate) fn doubts(event: &Value) -> Vec<Doubt> {
    let action = event["Action"].as_str().or(event["status"].as_str()).unwrap_or_default();
    let actor = event["Actor"]["ID"].as_str().or(event["id"].as_str()).unwrap_or_default();
    match event["Type"].as_str().unwrap_or("container") {
        "container" => match action.split(':').next().unwrap_or_default() {
            "destroy" => vec![Doubt::Gone(actor.into())],
            "commit" => vec![Doubt::Images],
            // Each pruned container has had its own `destroy`.
            "prune" => vec![],
            "attach" | "detach" | "copy" | "archive-path" | "extract-to-dir" | "export" | "resize" | "top" | "kill"
            | "exec_create" | "exec_start" | "exec_die" | "exec_detach" => vec![],
            _ => vec![Doubt::Container(actor.into())],
        },
        "image" => vec![Doubt::Images],
        "network" => match attached(event) {
            Some(container) => vec![Doubt::Container(container.into())],
            None => vec![Doubt::Networks],
        },
        "volume" if matches!(action, "mount" | "unmount") => vec![],
        "volume" => vec![Doubt::Volumes],
        "builder" => vec![Doubt::Images],
        "daemon" => vec![Doubt::Engine],
        _ => vec![],
    }
}

/// The container that a network is joined to, or taken from.
pub(crate) fn attached(event: &Value) -> Option<&str> {
    let action = event["Action"].as_str().unwrap_or_default();
    let is_it = event["Type"] == "network" && matches!(action, "connect" | "disconnect");
    event["Actor"]["Attributes"]["container"].as_str().filter(|_| is_it)
}

/// An event of the pool's own: `engine_connect`, `engine_reconnect`, `engine_disconnect`.
pub(crate) fn own(action: &str, node: &Node, attributes: Value, time_nano: i64) -> Value {
    let event = json!({"status": action, "id": node.id, "from": "swarm", "Type": "swarm", "Action": action,
        "Actor": {"ID": node.id, "Attributes": attributes}, "time": time_nano / 1_000_000_000, "timeNano": time_nano});
    decorate(event, node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_networks_are_attached() {
        let event = |kind: &str, action: &str| json!({"Type": kind, "Action": action, "Actor": {"ID": "n", "Attributes": {"container": "c"}}});
        assert_eq!(attached(&event("network", "connect")), Some("c"));
        assert_eq!(attached(&event("network", "disconnect")), Some("c"));
        assert_eq!(attached(&event("network", "create")), None);
        assert_eq!(attached(&event("container", "connect")), None);
        assert_eq!(attached(&json!({"Type": "network", "Action": "connect"})), None);
    }

    #[test]
    fn an_event_puts_in_doubt_what_it_names() {
        for (event, expected) in [
            (json!({"Type": "container", "Action": "start", "Actor": {"ID": "c"}}), vec![Doubt::Container("c".into())]),
            (
                json!({"Type": "container", "Action": "health_status: healthy", "Actor": {"ID": "c"}}),
                vec![Doubt::Container("c".into())],
            ),
            (json!({"Type": "container", "Action": "exec_start: ls", "Actor": {"ID": "c"}}), vec![]),
            (json!({"Type": "container", "Action": "destroy", "Actor": {"ID": "c"}}), vec![Doubt::Gone("c".into())]),
            (
                json!({"Type": "network", "Action": "connect", "Actor": {"ID": "n", "Attributes": {"container": "c"}}}),
                vec![Doubt::Container("c".into())],
            ),
            (json!({"Type": "network", "Action": "create", "Actor": {"ID": "n"}}), vec![Doubt::Networks]),
            (json!({"Type": "image", "Action": "tag"}), vec![Doubt::Images]),
            (json!({"Type": "volume", "Action": "mount"}), vec![]),
            (json!({"Type": "future", "Action": "x"}), vec![]),
        ] {
            assert_eq!(doubts(&event), expected, "{event}");
        }
    }
}
