//! Rescheduling of a lost node's containers, and removal of copies when the node comes back. Pure.
//!
//! Only containers with the policy `on-node-failure` move. They are known over moves by their swarm id; of two with the same
//! one on different nodes, the younger is the one that was made because the older was lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use herder_model::{Container, LABEL_RESCHEDULE, Node};
use serde_json::{Map, Value, json};

/// Seconds before a node was last seen in which a stopped container counts as stopped by the node's shutdown. An
/// orderly shutdown stops all containers first (classic Swarm issue #1651: they were left `Created`).
pub const SHUTDOWN_SECONDS_MAX: i64 = 20;

/// A container that is to be made again elsewhere.
#[derive(Clone, Debug)]
pub struct Move {
    /// The node it was on.
    pub from: String,
    pub container: Arc<Container>,
    /// Body of the create request.
    pub body: Value,
    /// Networks that are joined after the create: (name, endpoint). Old engines take one network only in a create.
    pub networks: Vec<(String, Value)>,
    /// True if it ran.
    pub start: bool,
}

/// True if the container asks to run elsewhere when its node is lost.
pub fn asks(container: &Container) -> bool {
    // The cheapest question first: every container of the pool is asked after each change.
    if container.swarm_id.is_empty() {
        return false;
    }
    let policies = container.labels.get(LABEL_RESCHEDULE);
    let policies: Vec<String> = policies.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    policies == ["on-node-failure"]
}

/// Returns the moves of this lost node's containers. A container that already runs elsewhere is left out.
pub fn plan(lost: &Node, nodes: &[Arc<Node>]) -> Vec<Move> {
    let elsewhere = |swarm_id: &str| {
        let others = nodes.iter().filter(|node| node.addr != lost.addr && node.is_healthy());
        others.flat_map(|node| node.containers.values()).any(|container| container.swarm_id == swarm_id)
    };
    let containers = lost.containers.values().filter(|container| asks(container) && !elsewhere(&container.swarm_id));
    containers.filter_map(|container| again(lost, container)).collect()
}

/// Containers that are there twice: address and id of each older copy on a healthy node, to be removed.
pub fn superseded(nodes: &[Arc<Node>]) -> Vec<(String, String)> {
    let mut copies: BTreeMap<&str, Vec<(&Node, &Container)>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.is_healthy()) {
        for container in node.containers.values().filter(|container| asks(container)) {
            copies.entry(&container.swarm_id).or_default().push((node, container));
        }
    }
    let mut superseded = Vec::new();
    for mut copies in copies.into_values() {
        copies.sort_by_key(|(node, container)| (container.created, &node.addr));
        let Some((home, _)) = copies.pop() else { continue };
        // Two on one node were made so by hand.
        let older = copies.into_iter().filter(|(node, _)| node.addr != home.addr);
        superseded.extend(older.map(|(node, container)| (node.addr.clone(), container.id.clone())));
    }
    superseded
}

fn again(lost: &Node, container: &Arc<Container>) -> Option<Move> {
    let inspect = container.inspect.as_deref()?;
    let mut body = inspect["Config"].as_object()?.clone();
    // An engine invents the host name from the container's id; the new one has its own.
    if body
        .get("Hostname")
        .and_then(Value::as_str)
        .is_some_and(|name| !name.is_empty() && container.id.starts_with(name))
    {
        body.remove("Hostname");
    }
    body.insert("Labels".into(), json!(container.labels.to_map()));
    body.insert("HostConfig".into(), inspect["HostConfig"].clone());
    let mut networks = endpoints(inspect, &container.id);
    let mode = container.network_mode.as_str();
    let first = networks.iter().position(|(name, _)| name == mode || (mode == "default" && name == "bridge"));
    if let Some(first) = first {
        let (name, endpoint) = networks.remove(first);
        body.insert("NetworkingConfig".into(), json!({ "EndpointsConfig": { name: endpoint } }));
    }
    let body = Value::Object(body);
    Some(Move { from: lost.addr.clone(), container: container.clone(), body, networks, start: ran(lost, container) })
}

fn ran(lost: &Node, container: &Container) -> bool {
    let stopped_with_it = container.state == "exited"
        && container.finished_at > 0
        && container.finished_at >= lost.updated_at - SHUTDOWN_SECONDS_MAX;
    container.is_running() || stopped_with_it
}

/// The user's part of each endpoint; the rest was made by the old engine.
fn endpoints(inspect: &Value, id: &str) -> Vec<(String, Value)> {
    let networks = inspect["NetworkSettings"]["Networks"].as_object();
    let endpoint = |(name, old): (&String, &Value)| {
        let mut new = Map::new();
        for key in ["IPAMConfig", "Links", "DriverOpts"] {
            if !old[key].is_null() {
                new.insert(key.into(), old[key].clone());
            }
        }
        let aliases = old["Aliases"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let aliases: Vec<&str> = aliases.filter(|alias| !(alias.len() == 12 && id.starts_with(alias))).collect();
        if !aliases.is_empty() {
            new.insert("Aliases".into(), json!(aliases));
        }
        (name.clone(), Value::Object(new))
    };
    networks.into_iter().flatten().map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use herder_model::NodeState;

    use super::*;

    const ID: &str = "0123456789abcdef";

    fn container(id: &str, swarm_id: &str, created: i64, policy: &str) -> Container {
        Container {
            id: id.into(),
            name: "web".into(),
            swarm_id: swarm_id.into(),
            created,
            state: "running".into(),
            network_mode: "front".into(),
            labels: [(LABEL_RESCHEDULE.to_owned(), json!([policy]).to_string())].into(),
            inspect: Some(Arc::new(json!({
                "Config": {"Hostname": "0123456789ab", "Image": "busybox", "Labels": {}, "Env": ["A=1"]},
                "HostConfig": {"Memory": 5},
                "NetworkSettings": {"Networks": {
                    "back": {"Aliases": ["0123456789ab", "db"], "IPAddress": "10.0.0.2", "IPAMConfig": null},
                    "front": {"IPAMConfig": {"IPv4Address": "10.1.0.9"}, "EndpointID": "e"},
                }},
            }))),
            ..Container::default()
        }
    }

    fn node(addr: &str, state: NodeState, containers: impl IntoIterator<Item = Container>) -> Arc<Node> {
        let mut node = Node { addr: addr.into(), state, updated_at: 1000, ..Node::default() };
        for container in containers {
            node.put_container(Arc::new(container));
        }
        Arc::new(node)
    }

    #[test]
    fn a_container_moves_with_its_networks_but_without_what_its_engine_made_up() {
        let lost = node("a:1", NodeState::Unhealthy, [container(ID, "s", 1, "on-node-failure")]);
        let moves = plan(&lost, std::slice::from_ref(&lost));
        assert_eq!(moves.len(), 1);
        assert_eq!(
            moves[0].body,
            json!({
                "Image": "busybox", "Env": ["A=1"],
                "Labels": {LABEL_RESCHEDULE: "[\"on-node-failure\"]"},
                "HostConfig": {"Memory": 5},
                "NetworkingConfig": {"EndpointsConfig": {"front": {"IPAMConfig": {"IPv4Address": "10.1.0.9"}}}},
            })
        );
        assert_eq!(moves[0].networks, [("back".to_owned(), json!({"Aliases": ["db"]}))]);
        assert!(moves[0].start);
    }

    #[test]
    fn only_those_move_that_ask_and_are_nowhere_else() {
        let check = |policy: &str, other: Option<(&str, NodeState)>, expected: usize| {
            let lost = node("a:1", NodeState::Unhealthy, [container(ID, "s", 1, policy)]);
            let other = other.map(|(swarm_id, state)| node("b:1", state, [container("b", swarm_id, 2, policy)]));
            let nodes: Vec<Arc<Node>> = std::iter::once(lost.clone()).chain(other).collect();
            assert_eq!(plan(&lost, &nodes).len(), expected, "{policy}");
        };
        check("on-node-failure", None, 1);
        check("off", None, 0);
        check("on-node-failure", Some(("s", NodeState::Healthy)), 0);
        check("on-node-failure", Some(("s", NodeState::Unhealthy)), 1);
        check("on-node-failure", Some(("other", NodeState::Healthy)), 1);
    }

    #[test]
    fn what_stopped_with_its_node_is_started_again() {
        let check = |state: &str, finished_at: i64, expected: bool| {
            let stopped = Container { state: state.into(), finished_at, ..container(ID, "s", 1, "on-node-failure") };
            let lost = node("a:1", NodeState::Unhealthy, [stopped]);
            assert_eq!(plan(&lost, &[])[0].start, expected, "{state} {finished_at}");
        };
        check("running", 0, true);
        check("paused", 0, true);
        check("exited", 1000 - SHUTDOWN_SECONDS_MAX, true);
        check("exited", 1000 - SHUTDOWN_SECONDS_MAX - 1, false);
        check("created", 0, false);
    }

    #[test]
    fn of_two_copies_the_older_goes() {
        let check = |a: (i64, NodeState), b: (i64, NodeState), expected: &str| {
            let nodes = [
                node("a:1", a.1, [container("ida", "s", a.0, "on-node-failure")]),
                node("b:1", b.1, [container("idb", "s", b.0, "on-node-failure")]),
            ];
            let gone: Vec<String> = superseded(&nodes).into_iter().map(|(addr, id)| format!("{addr} {id}")).collect();
            assert_eq!(gone.join(","), expected);
        };
        check((1, NodeState::Healthy), (2, NodeState::Healthy), "a:1 ida");
        check((3, NodeState::Healthy), (2, NodeState::Healthy), "b:1 idb");
        check((2, NodeState::Healthy), (2, NodeState::Healthy), "a:1 ida");
        check((1, NodeState::Unhealthy), (2, NodeState::Healthy), "");
    }
}
