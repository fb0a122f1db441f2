//! `GET /containers/{name}/json`: live from the engine, with its node put in.
//!
//! The answer is rewritten as text: parsing and printing it again would cost more than all the rest, and unknown fields and
//! numbers stay as the engine wrote them.

use std::sync::Arc;

use herder_model::Node;
use http::header;
use serde_json::json;

use super::find;
use crate::call::gather_answer;
use crate::{ApiError, Call, Front, Reply, forward};

/// An inspect is some kilobytes; one with the health log of a talkative check has hundreds.
const ANSWER_BYTES_MAX: usize = 16 << 20;

pub(crate) async fn inspect(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    let found = find(front, name, &format!("No such container {name}"))?;
    let path = format!("/containers/{}/json", found.container.id);
    let reply = forward::to_engine(front, call, &found.engine, path).await?;
    if !reply.status().is_success() {
        return Ok(reply);
    }
    let (mut parts, body) = reply.into_parts();
    let bytes = gather_answer(body, ANSWER_BYTES_MAX).await?;
    parts.headers.remove(header::CONTENT_LENGTH);
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => herder_pool::full(rewrite(text, &found.node)),
        Err(_) => herder_pool::full(bytes),
    };
    Ok(Reply::from_parts(parts, text))
}

/// Puts `Node` in and the node's address where a port is published on every address, as classic Swarm shows it.
fn rewrite(text: &str, node: &Node) -> String {
    let mut out = String::with_capacity(text.len() + 1024);
    let rest = match text.trim_start().strip_prefix('{') {
        Some(rest) => {
            out.push_str(&format!("{{\"Node\":{},", node_json(node)));
            rest
        }
        None => text,
    };
    let ports = published(rest).unwrap_or(0..0);
    out.push_str(&rest[..ports.start]);
    out.push_str(&with_ip(&rest[ports.clone()], &node.ip));
    out.push_str(&with_overlays(&rest[ports.end..], node));
    out
}

/// Clients know the swarm's networks, not the bridges that carry them. Networks come after the ports.
fn with_overlays(text: &str, node: &Node) -> String {
    let id = |id: &String| format!("\"NetworkID\":{}", json!(id));
    node.overlays.iter().fold(text.to_owned(), |text, (bridge, overlay)| text.replace(&id(bridge), &id(overlay)))
}

/// Returns the range of `NetworkSettings.Ports` in the text. A quote inside a JSON string is escaped, so the keys are
/// found only as keys; the object has no strings with braces.
fn published(text: &str) -> Option<std::ops::Range<usize>> {
    let settings = text.find("\"NetworkSettings\":{")?;
    let start = settings + text[settings..].find("\"Ports\":{")? + "\"Ports\":".len();
    let mut depth = 0usize;
    for (at, byte) in text[start..].bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(start..start + at + 1);
        }
    }
    None
}

fn with_ip(ports: &str, ip: &str) -> String {
    let mine = format!("\"HostIp\":{}", json!(ip));
    ["0.0.0.0", "::", ""]
        .iter()
        .fold(ports.to_owned(), |text, any| text.replace(&format!("\"HostIp\":\"{any}\""), &mine))
}

fn node_json(node: &Node) -> serde_json::Value {
    json!({
        "ID": node.id,
        "IP": node.ip,
        "Addr": node.addr,
        "Name": node.name,
        "Cpus": node.total.nano_cpus / 1_000_000_000,
        "Memory": node.total.memory_bytes,
        "Labels": node.labels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node { ip: "10.0.0.1".into(), addr: "10.0.0.1:2375".into(), name: "n1".into(), ..Node::default() }
    }

    #[track_caller]
    fn check(ports: &str, expected: &str) {
        let tail = r#""Config":{"Env":["A=\"HostIp\":\"0.0.0.0\""]},"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":""}]}},"#;
        let text = |ports: &str| format!("{tail}\"NetworkSettings\":{{\"Bridge\":\"\",\"Ports\":{ports},\"X\":1}}}}");
        let got = rewrite(&format!("{{{}", text(ports)), &node());
        let expected = format!("{{\"Node\":{},{}", node_json(&node()), text(expected));
        assert_eq!(got, expected);
        serde_json::from_str::<serde_json::Value>(&got).expect("still JSON");
    }

    #[test]
    fn an_overlay_network_is_shown_by_the_id_that_the_swarm_knows() {
        let overlays = [("b1".to_owned(), "ov1".to_owned())].into();
        let node = Node { overlays, ..node() };
        let text = r#"{"NetworkSettings":{"Ports":{},"Networks":{"ov":{"NetworkID":"b1"},"my":{"NetworkID":"b2"}}}}"#;
        let got = rewrite(text, &node);
        assert!(got.ends_with(r#""Networks":{"ov":{"NetworkID":"ov1"},"my":{"NetworkID":"b2"}}}}"#), "{got}");
    }

    #[test]
    fn every_address_becomes_the_nodes_own_in_published_ports_only() {
        check("{}", "{}");
        check("null", "null");
        check(
            r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"1"},{"HostIp":"::","HostPort":"1"}],"81/tcp":null}"#,
            r#"{"80/tcp":[{"HostIp":"10.0.0.1","HostPort":"1"},{"HostIp":"10.0.0.1","HostPort":"1"}],"81/tcp":null}"#,
        );
        check(
            r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"1"}]}"#,
            r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"1"}]}"#,
        );
    }
}
