//! Reads and writes every swarm object of recorded engines and clients, and expects the same JSON.
#![expect(clippy::disallowed_methods, reason = "recordings are files")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use herder_model::swarm::{
    Cluster, ClusterSpec, Config, ConfigSpec, InitRequest, JoinRequest, NodeSpec, Secret, SecretSpec, Service,
    ServiceSpec, SwarmNode, Task, UnlockRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../transcripts");
    let versions = ["api-1.41", "api-1.50"].map(|version| folder.join(version));
    let found = versions.iter().flat_map(|folder| fs::read_dir(folder).expect("recordings"));
    let mut files: Vec<PathBuf> = found.map(|it| it.expect("a recording").path()).collect();
    files.sort();
    files
}

/// Reads and writes the value; returns the difference.
fn same<T: DeserializeOwned + Serialize>(json: &Value) -> Result<(), String> {
    compare::<T>(json, |was, became| was == became)
}

/// The same, where what a client left out may be there afterwards.
fn kept<T: DeserializeOwned + Serialize>(json: &Value) -> Result<(), String> {
    compare::<T>(json, holds)
}

fn compare<T: DeserializeOwned + Serialize>(json: &Value, fits: fn(&Value, &Value) -> bool) -> Result<(), String> {
    let read: T = serde_json::from_value(json.clone()).map_err(|error| format!("cannot be read: {error}\n{json}"))?;
    let written = serde_json::to_value(&read).map_err(|error| format!("cannot be written: {error}"))?;
    if fits(json, &written) { Ok(()) } else { Err(format!("was   {json}\nbecame {written}")) }
}

/// True if everything in `small` is in `large`.
fn holds(small: &Value, large: &Value) -> bool {
    match (small, large) {
        (Value::Object(small), Value::Object(large)) => {
            small.iter().all(|(key, value)| large.get(key).is_some_and(|other| holds(value, other)))
        }
        (Value::Array(small), Value::Array(large)) => {
            small.len() == large.len() && small.iter().zip(large).all(|(one, other)| holds(one, other))
        }
        _ => small == large,
    }
}

/// Checks that everything in the body of a request comes back. `None` if the request is not one of swarm mode.
fn sent(path: &[&str], body: &Value) -> Option<Result<(), String>> {
    Some(match path {
        ["services", "create"] | ["services", _, "update"] => kept::<ServiceSpec>(body),
        ["secrets", "create"] | ["secrets", _, "update"] => kept::<SecretSpec>(body),
        ["configs", "create"] | ["configs", _, "update"] => kept::<ConfigSpec>(body),
        ["nodes", _, "update"] => kept::<NodeSpec>(body),
        ["swarm", "init"] => kept::<InitRequest>(body),
        ["swarm", "join"] => kept::<JoinRequest>(body),
        ["swarm", "update"] => kept::<ClusterSpec>(body),
        ["swarm", "unlock"] => kept::<UnlockRequest>(body),
        _ => return None,
    })
}

/// The same for an answer.
fn answered(path: &[&str], body: &Value) -> Option<Result<(), String>> {
    let one = |body: &Value| match path[0] {
        // Cluster volumes, `null` from API 1.42 on.
        "tasks" if body.get("Volumes").is_some_and(Value::is_null) => {
            let mut body = body.clone();
            body.as_object_mut().and_then(|task| task.remove("Volumes"));
            same::<Task>(&body)
        }
        "services" => same::<Service>(body),
        "tasks" => same::<Task>(body),
        "nodes" => same::<SwarmNode>(body),
        "secrets" => same::<Secret>(body),
        "configs" => same::<Config>(body),
        _ => same::<Cluster>(body),
    };
    match (path, body) {
        (["services" | "tasks" | "nodes" | "secrets" | "configs"], Value::Array(all)) => {
            all.iter().map(one).find(Result::is_err).or(Some(Ok(())))
        }
        (["services" | "tasks" | "nodes" | "secrets" | "configs", _] | ["swarm"], Value::Object(_)) => Some(one(body)),
        _ => None,
    }
}

#[test]
fn what_was_recorded_comes_back_the_same() {
    let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
    for file in files() {
        let text = fs::read_to_string(&file).expect("a recording");
        let recording: Value = serde_json::from_str(&text).expect("a recording is JSON");
        for exchange in recording["exchanges"].as_array().into_iter().flatten() {
            let path = exchange["path"].as_str().unwrap_or_default().split('?').next().unwrap_or_default();
            let path: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
            let body = &exchange["request_body"];
            // The recorder did not keep the whole of a large one.
            let kept = body.is_object() && body.get("_large_body_bytes").is_none();
            let outcome = match (exchange["method"].as_str(), exchange["status"].as_u64()) {
                (Some("POST"), _) if kept => sent(&path, body),
                (Some("GET"), Some(200)) if !path.is_empty() => answered(&path, &exchange["response_body"]),
                _ => None,
            };
            let Some(outcome) = outcome else { continue };
            *counts.entry(path[0].to_owned()).or_insert(0) += 1;
            if let Err(reason) = outcome {
                wrong.push(format!("{} {path:?}\n{reason}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {counts:?}; the first:\n{}", wrong.len(), wrong[..wrong.len().min(3)].join("\n"));
    assert!(counts.values().sum::<u32>() > 500, "{counts:?}");
}
