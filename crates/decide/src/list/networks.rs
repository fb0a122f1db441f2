//! `GET /networks` over all nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use herder_model::{LABEL_NETWORK_ID, Network, Node};
use serde_json::{Value, json};

use super::{Filters, ListError};
use crate::naming::Naming;

const KNOWN: &[&str] = &["dangling", "driver", "id", "label", "label!", "name", "node", "scope", "type"];

/// Networks that an engine has by itself, each node its own.
pub fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none" | "nat")
}

/// The filter `dangling` of networks: at most one value.
pub fn is_dangling(filters: &Filters) -> Result<Option<bool>, ListError> {
    let values: Vec<&str> = filters.values("dangling").collect();
    match values[..] {
        [] => Ok(None),
        ["true" | "1"] => Ok(Some(true)),
        ["false" | "0"] => Ok(Some(false)),
        [_] => Err(ListError::Flag("dangling")),
        _ => Err(ListError::Several("dangling")),
    }
}

/// The networks as one JSON array. Those made for all nodes, and global ones, are bare and stand once. Those of one node are
/// `node/name`, unless no other node has a network of that name and the form is Docker's.
pub fn networks(nodes: &[Arc<Node>], filters: &Filters, naming: Naming) -> Result<Value, ListError> {
    filters.check(KNOWN)?;
    filters.check_values("scope", &["global", "local", "swarm"], "local, global or swarm")?;
    let dangling = is_dangling(filters)?;
    if let Some(other) = filters.values("type").find(|it| !matches!(*it, "builtin" | "custom")) {
        return Err(ListError::Type(other.to_owned()));
    }
    let (names, ids) = (filters.patterns("name"), filters.patterns("id"));
    let used = if dangling.is_some() { used_ids(nodes) } else { BTreeSet::new() };
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut entries = Vec::new();
    for node in nodes.iter().filter(|node| filters.any("node", |wanted| wanted == node.name || wanted == node.id)) {
        for network in &node.networks {
            let id = shown_id(network);
            let shared = naming == Naming::Docker && nodes.len() > 1 && others_have(nodes, node, &network.name);
            let name = network_name(node, network, if shared { Naming::Classic } else { naming });
            let kind = if is_predefined(&network.name) { "builtin" } else { "custom" };
            let is_unused = kind == "custom" && !used.contains(id);
            let fits = ids.match_any(&[id, &network.id])
                && names.match_name(&node.name, &network.name)
                && filters.is("driver", &network.driver)
                && filters.is("scope", &network.scope)
                && filters.is("type", kind)
                && filters.labels(|key| network.labels.get(key).map(String::as_str))
                && dangling.is_none_or(|wanted| wanted == is_unused);
            if fits && seen.insert(id) {
                let mut entry = Value::clone(&network.summary);
                entry["Id"] = json!(id);
                entry["Name"] = json!(name);
                hide_joint(&mut entry);
                entries.push(entry);
            }
        }
    }
    Ok(Value::Array(entries))
}

/// The id that clients see: that of all nodes' parts together, where there is one.
pub(crate) fn shown_id(network: &Network) -> &str {
    network.labels.get(LABEL_NETWORK_ID).unwrap_or(&network.id)
}

/// Removes the label that joins the parts from a network for clients, and returns its value. Compose compares the
/// labels of existing networks with those of its file.
pub(crate) fn hide_joint(network: &mut Value) -> Option<Value> {
    network.get_mut("Labels").and_then(Value::as_object_mut)?.remove(LABEL_NETWORK_ID)
}

/// The (shown) ids of networks that a container is in, on any node.
fn used_ids(nodes: &[Arc<Node>]) -> BTreeSet<&str> {
    let mut used = BTreeSet::new();
    for node in nodes {
        let ids: BTreeSet<&str> = node.containers.values().flat_map(|it| it.networks.values()).collect();
        let networks = node.networks.iter().filter(|it| ids.contains(it.id.as_str()));
        used.extend(networks.map(|it| shown_id(it)));
    }
    used
}

/// True if another node has a network of that name.
fn others_have(nodes: &[Arc<Node>], node: &Node, name: &str) -> bool {
    let mut others = nodes.iter().filter(|other| other.addr != node.addr || other.name != node.name);
    others.any(|other| other.networks.iter().any(|network| network.name == name))
}

/// The name that lists show for a network of a node.
pub fn network_name(node: &Node, network: &Network, naming: Naming) -> String {
    let everywhere = network.labels.contains_key(LABEL_NETWORK_ID) || network.scope != "local";
    if everywhere { network.name.clone() } else { naming.on_node(node, &network.name).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, networks: &[(&str, &str, &str)]) -> Arc<Node> {
        let network = |(id, name, joined): &(&str, &str, &str)| {
            let labels = if joined.is_empty() {
                [].into()
            } else {
                [(LABEL_NETWORK_ID.to_owned(), (*joined).to_owned())].into()
            };
            Arc::new(Network {
                id: (*id).into(),
                name: (*name).into(),
                scope: "local".into(),
                driver: "bridge".into(),
                labels,
                summary: Arc::new(json!({"Id": id, "Name": name, "Labels": {"a": "b", LABEL_NETWORK_ID: joined}})),
            })
        };
        Arc::new(Node { name: name.into(), networks: networks.iter().map(network).collect(), ..Node::default() })
    }

    #[test]
    fn networks_made_for_all_nodes_stand_once() {
        let nodes = [
            node("n1", &[("1", "bridge", ""), ("2", "app", "77")]),
            node("n2", &[("3", "bridge", ""), ("4", "app", "77"), ("5", "own", "")]),
        ];
        for (filters, expected) in [
            ("", "1=n1/bridge 77=app 3=n2/bridge 5=own"),
            (r#"{"name":["app"]}"#, "77=app"),
            (r#"{"type":["custom"]}"#, "77=app 5=own"),
            (r#"{"id":["4"]}"#, "77=app"),
            (r#"{"node":["n2"],"type":["builtin"]}"#, "3=n2/bridge"),
            (r#"{"type":["foo"]}"#, "invalid filter: 'type'='foo'; expected builtin or custom"),
        ] {
            let text = match networks(&nodes, &Filters::parse(filters).unwrap(), Naming::Docker) {
                Ok(list) => list
                    .as_array()
                    .unwrap()
                    .iter()
                    .inspect(|it| assert_eq!(it["Labels"], json!({"a": "b"}), "{it}"))
                    .map(|it| format!("{}={}", it["Id"].as_str().unwrap(), it["Name"].as_str().unwrap()))
                    .collect::<Vec<_>>()
                    .join(" "),
                Err(error) => error.to_string(),
            };
            assert_eq!(text, expected, "{filters}");
        }
        let classic = networks(&nodes, &Filters::default(), Naming::Classic).unwrap();
        assert_eq!(classic[3]["Name"], "n2/own");
        let alone = networks(&nodes[..1], &Filters::default(), Naming::Docker).unwrap();
        assert_eq!(alone[0]["Name"], "bridge");
    }
}
