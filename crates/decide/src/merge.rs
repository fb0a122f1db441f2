//! Answers of several nodes made into one.

mod network;
mod progress;

use std::sync::Arc;

use herder_model::Node;
use serde_json::Value;

pub use network::network_inspect;
pub use progress::{Progress, pull_line};

/// Answer of one node: JSON, or the reason of its failure.
pub type Part = (Arc<Node>, Result<Value, String>);

/// The answers of those that gave one, and a line `node: reason` for each of the others.
pub fn sort_out(parts: Vec<Part>) -> (Vec<(Arc<Node>, Value)>, Vec<String>) {
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    for (node, answer) in parts {
        match answer {
            Ok(answer) => answers.push((node, answer)),
            Err(reason) => failures.push(failure(&node, &reason)),
        }
    }
    (answers, failures)
}

/// Returns `node: reason`; a node without a known name goes by its address.
pub fn failure(node: &Node, reason: &str) -> String {
    let name = if node.name.is_empty() { &node.addr } else { &node.name };
    format!("{name}: {}", reason.trim_end())
}

/// Deletions of one image on several nodes: what happened, once each. If any failed, a line for each that did.
pub fn image_delete(parts: Vec<Part>) -> Result<Value, String> {
    let (answers, failures) = sort_out(parts);
    if !failures.is_empty() {
        return Err(failures.join("\n"));
    }
    let mut merged: Vec<Value> = Vec::new();
    for line in answers.into_iter().flat_map(|(_, answer)| into_list(answer)) {
        if !merged.contains(&line) {
            merged.push(line);
        }
    }
    Ok(Value::Array(merged))
}

fn into_list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str) -> Arc<Node> {
        Arc::new(Node { name: name.into(), addr: "10.0.0.1:2375".into(), ..Node::default() })
    }

    #[test]
    fn what_was_deleted_on_several_nodes_is_told_once() {
        let answer = json!([{"Untagged": "busybox:latest"}, {"Deleted": "sha256:1"}]);
        let parts =
            vec![(node("n1"), Ok(answer.clone())), (node("n2"), Ok(answer.clone())), (node("n3"), Ok(json!(null)))];
        assert_eq!(image_delete(parts), Ok(answer));
    }

    #[test]
    fn failures_name_their_nodes() {
        let parts = vec![
            (node("n1"), Ok(json!([]))),
            (node("n2"), Err("in use\n".to_owned())),
            (node(""), Err("gone".to_owned())),
        ];
        assert_eq!(image_delete(parts), Err("n2: in use\n10.0.0.1:2375: gone".to_owned()));
    }
}
