//! A container's list entry as the cluster shows it: the engine's own, with the node in it. Unknown fields stay.

use herder_model::{Container, Node, Rendered};
use serde_json::{Map, Value, json};

use crate::words;

/// The whole entry. `now` in seconds since 1970.
pub fn container(node: &Node, container: &Container, now: i64) -> String {
    let Rendered { head, tail } = entry(node, container);
    format!("{head}\"{}\"{tail}", words::status(node, container, now))
}

/// The entry without its `Status`, in two halves. A summary that is no JSON object (none was read yet) gives a bare entry.
pub fn entry(node: &Node, container: &Container) -> Rendered {
    let mut entry: Map<String, Value> = serde_json::from_str(&container.summary).unwrap_or_default();
    if !entry.contains_key("Id") {
        entry.insert("Id".into(), json!(container.id));
        entry.insert("Names".into(), json!([format!("/{}", container.name)]));
    }
    // The inventory knows better than the text: times are of our clock, the state may have moved on.
    entry.insert("Created".into(), json!(container.created));
    entry.insert("State".into(), json!(container.state));
    entry.entry("Status").or_insert(Value::Null);
    for name in entry.get_mut("Names").and_then(Value::as_array_mut).into_iter().flatten() {
        *name = json!(format!("/{}{}", node.name, name.as_str().unwrap_or_default()));
    }
    if let Some(ports) = entry.get_mut("Ports").and_then(Value::as_array_mut) {
        *ports = with_node_ip(std::mem::take(ports), node);
    }
    let (mut head, mut tail) = (String::from("{"), String::new());
    let mut half = &mut head;
    for (index, (key, value)) in entry.iter().enumerate() {
        if index > 0 {
            half.push(',');
        }
        half.push_str(&json!(key).to_string());
        half.push(':');
        if key == "Status" {
            half = &mut tail;
        } else {
            half.push_str(&value.to_string());
        }
    }
    tail.push('}');
    Rendered { head: head.into(), tail: tail.into() }
}

/// Ports on every address are on the node's; both families become one entry.
fn with_node_ip(ports: Vec<Value>, node: &Node) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::with_capacity(ports.len());
    for mut port in ports {
        if matches!(port["IP"].as_str(), Some("0.0.0.0" | "::")) && !node.ip.is_empty() {
            port["IP"] = json!(node.ip);
        }
        if !kept.contains(&port) {
            kept.push(port);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ports_carry_the_node_and_unknown_fields_stay() {
        let node = Node { name: "n1".into(), ip: "10.0.0.1".into(), ..Node::default() };
        let summary = r#"{"Id":"c","Names":["/web","/other/alias"],"Ports":[{"IP":"0.0.0.0","PublicPort":80},{"IP":"::","PublicPort":80},{"PrivatePort":1}],"Created":0,"State":"","Status":"Up","New":{"x":1}}"#;
        let container = Container { summary: summary.into(), ..Container::default() };
        let Rendered { head, tail } = entry(&node, &container);
        assert_eq!(
            format!("{head}\"*\"{tail}"),
            r#"{"Id":"c","Names":["/n1/web","/n1/other/alias"],"Ports":[{"IP":"10.0.0.1","PublicPort":80},{"PrivatePort":1}],"Created":0,"State":"","Status":"*","New":{"x":1}}"#
        );
    }
}
