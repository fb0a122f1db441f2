//! `GET /networks/{id}` of a network that several nodes are in.

use std::sync::Arc;

use herder_model::Node;
use serde_json::{Map, Value, json};

use crate::list::hide_joint;
use crate::naming::Naming;

/// The network as the first node describes it, with the endpoints of all. None if no node answered.
/// Endpoints have the names of their containers, in the classic form with their nodes (`node/name`). Parts of one network show the id that they have together.
pub fn network_inspect(parts: Vec<(Arc<Node>, Value)>, naming: Naming) -> Option<Value> {
    let mut endpoints = Map::new();
    let mut merged: Option<Value> = None;
    for (node, mut part) in parts {
        if let Some(Value::Object(theirs)) = part.get_mut("Containers").map(Value::take) {
            for (id, mut endpoint) in theirs {
                // `ep-…` stands for an endpoint of another node, which that node describes better.
                let elsewhere = id.starts_with("ep-");
                if let Some(name) = endpoint["Name"].as_str().filter(|_| !elsewhere) {
                    endpoint["Name"] = json!(naming.on_node(&node, name));
                }
                if !elsewhere && !endpoints.contains_key(&id) {
                    endpoints.insert(id, endpoint);
                }
            }
        }
        merged.get_or_insert(part);
    }
    let mut merged = merged.filter(Value::is_object)?;
    merged["Containers"] = Value::Object(endpoints);
    if let Some(id) = hide_joint(&mut merged) {
        merged["Id"] = id;
    }
    Some(merged)
}

#[cfg(test)]
mod tests {
    use herder_model::LABEL_NETWORK_ID;

    use super::*;

    #[test]
    fn parts_of_one_network_show_their_common_id() {
        let part = json!({"Id": "1", "Labels": {LABEL_NETWORK_ID: "77"}});
        let merged = network_inspect(vec![(Arc::new(Node::default()), part)], Naming::Docker).unwrap();
        assert_eq!(merged, json!({"Id": "77", "Labels": {}, "Containers": {}}));
    }

    #[test]
    fn endpoints_of_all_nodes_are_united() {
        let part = |name: &str, containers: Value| {
            let node = Node { name: name.into(), ..Node::default() };
            (Arc::new(node), json!({"Name": "app", "Id": "1", "Of": name, "Containers": containers, "New": 1}))
        };
        let parts = vec![
            part("n1", json!({"c1": {"Name": "web"}, "ep-77": {"Name": "gwep"}})),
            part("n2", json!({"c2": {"Name": "db"}, "c1": {"Name": "web"}})),
            part("n3", Value::Null),
        ];
        let expected = |web: &str, db: &str| {
            json!({"Name": "app", "Id": "1", "Of": "n1", "New": 1,
                "Containers": {"c1": {"Name": web}, "c2": {"Name": db}}})
        };
        assert_eq!(network_inspect(parts.clone(), Naming::Docker), Some(expected("web", "db")));
        assert_eq!(network_inspect(parts, Naming::Classic), Some(expected("n1/web", "n2/db")));
        assert_eq!(network_inspect(vec![], Naming::Docker), None);
    }
}
