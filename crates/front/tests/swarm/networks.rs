//! Every refusal, filter and status of networks, as a table.

use serde_json::Value;

use crate::calls::door;

#[tokio::test]
async fn networks_are_answered_as_in_swarm_mode() {
    let door = door().await;
    let lines = include_str!("networks.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines: Vec<&str> = lines.collect();
    let mut wrong = Vec::new();
    for pair in lines.chunks(2) {
        let [asked, expected] = pair else { panic!("{pair:?} has no answer") };
        let mut parts = asked.splitn(3, ' ');
        let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let body: Value = parts.next().map_or(Value::Null, |text| serde_json::from_str(text).expect("JSON"));
        let version = door.world.version_of("services", "web").unwrap_or_default();
        let path = encoded(&path.replace("version=…", &format!("version={version}")));
        let (status, text) = door.ask(&format!("{method} {path}"), &body).await;
        let said = format!("{status} {}", text.trim());
        if !fits(expected.trim(), said.trim()) {
            wrong.push(format!("{asked}\n wanted: {}\n   seen: {said}", expected.trim()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Encodes what a URI may not have, as clients do.
fn encoded(path: &str) -> String {
    let encode = |byte: u8| match byte {
        b'{' | b'}' | b'"' | b'[' | b']' | b'|' => format!("%{byte:02X}"),
        byte => char::from(byte).to_string(),
    };
    path.bytes().map(encode).collect()
}

/// True if the text is as wanted, where `…` stands for any text.
fn fits(wanted: &str, text: &str) -> bool {
    let mut parts = wanted.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}
