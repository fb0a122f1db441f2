//! Replays a real swarm's refusals: the same words, and no refusal of what it accepted.
#![expect(clippy::disallowed_methods, reason = "recordings are files")]

use std::fs;
use std::path::Path;

use herder_decide::swarm::{self, Refusal};
use serde_json::Value;

/// Refusals that need more than the object: they are decided where the others are known.
const ELSEWHERE: [&str; 8] = [
    "attempting to demote the last manager",
    "already exists",
    "already in use by service",
    "only updates to Labels are allowed",
    "renaming services is not supported",
    "service mode change is not allowed",
    "update out of sequence",
    "does not have a previous spec",
];

/// Returns the verdict about this object; `None` if it cannot be declared.
fn judged(path: &[&str], body: &Value) -> Option<Result<(), Refusal>> {
    fn read<T: serde::de::DeserializeOwned>(body: &Value) -> T {
        serde_json::from_value(body.clone()).expect("an object")
    }
    match path {
        ["services", "create"] | ["services", _, "update"] => Some(swarm::service(&read(body))),
        ["secrets", "create"] => Some(swarm::secret(&read(body))),
        ["configs", "create"] => Some(swarm::config(&read(body))),
        ["nodes", _, "update"] => Some(swarm::node(&read(body))),
        _ => None,
    }
}

#[test]
fn what_was_refused_is_refused_and_what_was_taken_is_taken() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../transcripts");
    let (mut taken, mut refused) = (0, 0);
    for version in ["api-1.41", "api-1.50"] {
        for file in fs::read_dir(folder.join(version)).expect("recordings") {
            let file = file.expect("a recording").path();
            let recording: Value = serde_json::from_slice(&fs::read(&file).expect("a recording")).expect("JSON");
            for exchange in recording["exchanges"].as_array().into_iter().flatten() {
                let path = exchange["path"].as_str().unwrap_or_default().split('?').next().unwrap_or_default();
                let path: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
                let (body, status) = (&exchange["request_body"], exchange["status"].as_u64().unwrap_or_default());
                // The recorder did not keep the whole of a large body; and what is no service at all is the door's to refuse.
                let whole = body.get("_large_body_bytes").is_none();
                let is_one = path.first() != Some(&"services") || body.get("TaskTemplate").is_some();
                if exchange["method"] != "POST" || !body.is_object() || !whole || !is_one {
                    continue;
                }
                let Some(judged) = judged(&path, body) else { continue };
                let message = exchange["response_body"]["message"].as_str().unwrap_or_default();
                let elsewhere = ELSEWHERE.iter().any(|words| message.contains(words));
                let expected = if status < 400 || elsewhere { "" } else { message };
                let said = judged.as_ref().map_or_else(Refusal::to_string, |()| String::new());
                assert_eq!(said, expected, "{}", file.display());
                if let Err(refusal) = judged {
                    assert_eq!(u64::from(refusal.code.status()), status, "{}", file.display());
                    refused += 1;
                } else {
                    taken += 1;
                }
            }
        }
    }
    assert!(taken > 80 && refused >= 10, "{taken} taken, {refused} refused");
}
