//! `GET /networks` over all nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use herder_model::{LABEL_NETWORK_ID, Network, Node};
use serde_json::{Value, json};

use super::{Filters, ListError};

const KNOWN: &[&str] = &["dangling", "driver", "id", "label", "label!", "name", "node", "scope", "type"];
/// Every engine has these; nobody made them.
const BUILT_IN: &[&str] = &["bridge", "host", "none"];

/// The networks as one JSON array. Those of one node are `node/name`; those made for all nodes, and global ones, are bare
/// and stand once.
pub fn networks(nodes: &[Arc<Node>], filters: &Filters) -> Result<Value, ListError> {
    filters.check(KNOWN)?;
    let dangling = filters.flag("dangling")?;
    if let Some(kind) = filters.values("type").find(|kind| !matches!(*kind, "custom" | "builtin")) {
        return Err(ListError::Value { key: "type".into(), value: kind.into(), expected: "custom or builtin" });
    }
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut entries = Vec::new();
    for node in nodes.iter().filter(|node| filters.any("node", |wanted| wanted == node.name || wanted == node.id)) {
        for network in &node.networks {
            let id = network.labels.get(LABEL_NETWORK_ID).unwrap_or(&network.id);
            let name = network_name(node, network);
            let used = node.containers.values().any(|container| container.networks.contains_key(&network.name));
            let built_in = BUILT_IN.contains(&network.name.as_str());
            let fits = filters.any("id", |wanted| id.contains(wanted) || network.id.contains(wanted))
                && filters.any("name", |wanted| name.contains(wanted))
                && filters.any("driver", |wanted| network.driver == wanted)
                && filters.any("scope", |wanted| network.scope == wanted)
                && filters.any("type", |wanted| built_in == (wanted == "builtin"))
                && filters.labels(&network.labels)
                && dangling.is_none_or(|wanted| wanted != used && !built_in || !wanted && built_in);
            if fits && seen.insert(id) {
                let mut entry = Value::clone(&network.summary);
                entry["Id"] = json!(id);
                entry["Name"] = json!(name);
                entries.push(entry);
            }
        }
    }
    Ok(Value::Array(entries))
}

/// The name that the cluster shows for a network of a node.
pub fn network_name(node: &Node, network: &Network) -> String {
    let everywhere = network.labels.contains_key(LABEL_NETWORK_ID) || network.scope != "local";
    if everywhere { network.name.clone() } else { format!("{}/{}", node.name, network.name) }
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
                summary: Arc::new(json!({"Id": id, "Name": name})),
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
            ("", "1=n1/bridge 77=app 3=n2/bridge 5=n2/own"),
            (r#"{"name":["app"]}"#, "77=app"),
            (r#"{"type":["custom"]}"#, "77=app 5=n2/own"),
            (r#"{"id":["4"]}"#, "77=app"),
            (r#"{"node":["n2"],"type":["builtin"]}"#, "3=n2/bridge"),
            (r#"{"type":["foo"]}"#, "invalid filter 'type=foo': expected custom or builtin"),
        ] {
            let text = match networks(&nodes, &Filters::parse(filters).unwrap()) {
                Ok(list) => list
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|it| format!("{}={}", it["Id"].as_str().unwrap(), it["Name"].as_str().unwrap()))
                    .collect::<Vec<_>>()
                    .join(" "),
                Err(error) => error.to_string(),
            };
            assert_eq!(text, expected, "{filters}");
        }
    }
}
