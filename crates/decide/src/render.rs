//! A container's list entry as the cluster shows it: the engine's own, with the node in it. Unknown fields stay.

use herder_model::{Container, Entry, Hole, Node};
use serde_json::{Map, Value, json};

use crate::naming::Naming;
use crate::words;

/// Noncharacters that mark each placeholder while an entry is serialized.
const HOLES: [(char, Hole); 3] =
    [('\u{10FFFD}', Hole::NodeName), ('\u{10FFFE}', Hole::NodeIp), ('\u{10FFFF}', Hole::Status)];

/// The whole entry. `now` in seconds since 1970.
pub fn container(node: &Node, container: &Container, now: i64) -> String {
    let mut text = String::new();
    container_into(&mut text, node, container, now);
    text
}

/// Same as [`container()`], appended to `text`.
pub fn container_into(text: &mut String, node: &Node, container: &Container, now: i64) {
    if container.entry.text.is_empty() {
        return fill(text, &entry("", container, Naming::default()), node, now);
    }
    fill(text, &container.entry, node, now);
}

fn fill(text: &mut String, entry: &Entry, node: &Node, now: i64) {
    let mut from = 0;
    for (at, hole) in &entry.holes {
        let at = *at as usize;
        text.push_str(&entry.text[from..at]);
        from = at;
        match hole {
            Hole::NodeName => escape_into(text, &node.name),
            Hole::NodeIp if node.ip.is_empty() => text.push_str("0.0.0.0"),
            Hole::NodeIp => escape_into(text, &node.ip),
            Hole::Status => words::tell_into(text, node, entry.status, now),
        }
    }
    text.push_str(&entry.text[from..]);
}

/// Appends `words` with JSON string escapes, without the quotes.
fn escape_into(text: &mut String, words: &str) {
    if words.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        let quoted = json!(words).to_string();
        text.push_str(&quoted[1..quoted.len() - 1]);
    } else {
        text.push_str(words);
    }
}

/// The entry, from the engine's own. A summary that is no JSON object gives a bare entry.
pub fn entry(summary: &str, container: &Container, naming: Naming) -> Entry {
    let mut entry: Map<String, Value> = serde_json::from_str(summary).unwrap_or_default();
    if !entry.contains_key("Id") {
        entry.insert("Id".into(), json!(container.id));
        entry.insert("Names".into(), json!([format!("/{}", container.name)]));
    }
    let [node_name, node_ip, status] = HOLES.map(|(stand_in, _)| stand_in);
    // The inventory knows better than the text: times are of our clock, the state may have moved on.
    entry.insert("Created".into(), json!(container.created));
    entry.insert("State".into(), json!(container.state));
    entry.insert("Status".into(), json!(status));
    if let Some(Value::Array(names)) = entry.get_mut("Names") {
        let on_node = |name: &Value| json!(format!("/{node_name}{}", name.as_str().unwrap_or_default()));
        let on_node: Vec<Value> = names.iter().map(on_node).collect();
        match naming {
            Naming::Docker => names.extend(on_node),
            Naming::Classic => *names = on_node,
        }
    }
    if let Some(ports) = entry.get_mut("Ports").and_then(Value::as_array_mut) {
        *ports = with_node_ip(std::mem::take(ports), node_ip);
    }
    let (mut text, mut holes) = (String::with_capacity(summary.len()), Vec::new());
    for (index, (key, value)) in entry.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        text.push_str(&json!(key).to_string());
        text.push(':');
        let value = value.to_string();
        if matches!(key.as_str(), "Names" | "Ports" | "Status") {
            punch(&mut text, &mut holes, &value);
        } else {
            text.push_str(&value);
        }
    }
    text.push('}');
    Entry { text: text.into(), holes: holes.into(), status: words::status_of(container) }
}

/// Adds `value` with holes where the characters are that stand for them.
fn punch(text: &mut String, holes: &mut Vec<(u32, Hole)>, value: &str) {
    for char in value.chars() {
        match HOLES.iter().find(|(stand_in, _)| *stand_in == char) {
            // An entry of 4 GiB is refused long before.
            Some((_, hole)) => holes.push((u32::try_from(text.len()).unwrap_or(u32::MAX), *hole)),
            None => text.push(char),
        }
    }
}

/// Ports on every address are on the node's; both families become one entry.
fn with_node_ip(ports: Vec<Value>, node_ip: char) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::with_capacity(ports.len());
    for mut port in ports {
        if matches!(port["IP"].as_str(), Some("0.0.0.0" | "::")) {
            port["IP"] = json!(node_ip);
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

    #[track_caller]
    fn check(node: &str, ip: &str, summary: &str, expected: &str) {
        check_as(Naming::Docker, node, ip, summary, expected);
    }

    #[track_caller]
    fn check_as(naming: Naming, node: &str, ip: &str, summary: &str, expected: &str) {
        let node = Node { name: node.into(), ip: ip.into(), ..Node::default() };
        let mut it = Container { id: "c".into(), name: "web".into(), ..Container::default() };
        it.entry = entry(summary, &it, naming);
        assert_eq!(container(&node, &it, 0), expected);
    }

    #[test]
    fn names_and_ports_carry_the_node_and_unknown_fields_stay() {
        let summary = r#"{"Id":"c","Names":["/web","/other/alias"],"Ports":[{"IP":"0.0.0.0","PublicPort":80},{"IP":"::","PublicPort":80},{"PrivatePort":1}],"Created":0,"State":"","Status":"Up","New":{"x":1}}"#;
        let expected = r#"{"Id":"c","Names":["/web","/other/alias","/n1/web","/n1/other/alias"],"Ports":[{"IP":"10.0.0.1","PublicPort":80},{"PrivatePort":1}],"Created":0,"State":"","Status":"Host Down","New":{"x":1}}"#;
        check("n1", "10.0.0.1", summary, expected);
        let quoted = expected.replace("n1", r#"n\"1"#);
        check("n\"1", "10.0.0.1", summary, &quoted);
        check("n1", "", summary, &expected.replace("10.0.0.1", "0.0.0.0"));
        let classic = expected.replace(r#""/web","/other/alias","#, "");
        check_as(Naming::Classic, "n1", "10.0.0.1", summary, &classic);
    }

    #[test]
    fn without_an_entry_of_the_engine_there_is_a_bare_one() {
        let bare = r#"{"Id":"c","Names":["/web","/n1/web"],"Created":0,"State":"","Status":"Host Down"}"#;
        check("n1", "10.0.0.1", "", bare);
        check("n1", "10.0.0.1", "[]", bare);
        let node = Node { name: "n1".into(), ..Node::default() };
        let never_read = Container { id: "c".into(), name: "web".into(), ..Container::default() };
        assert_eq!(container(&node, &never_read, 0), bare);
    }
}
