//! Stacks that a door of herder keeps: operations that its leader carries out, also when this program ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::bail;
use herder_cli::StackAt;
use herder_compose::{Pins, Sources};
use herder_deploy::escape;
use herder_docker::{empty, full};
use http::{Method, Request, header};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::files::Files;
use crate::door::Door;

/// The pause between two looks at an operation.
const LOOK_PERIOD: Duration = Duration::from_millis(200);
/// The time for the answer to one request: images may be looked up meanwhile.
const CALL_WAIT_MAX: Duration = Duration::from_secs(60);
/// Looks at an operation that may fail in a row, while managers elect another leader.
const FAILURES_MAX: u32 = 100;

/// A door of herder keeps no record of this stack, or refuses; with the answer as a problem document.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Problem {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) detail: String,
}

/// An operation that did not end well.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Ended {
    pub(super) late: bool,
    error: String,
}

/// True if the endpoint is a door of herder that keeps stacks.
async fn is_herder(door: &Door) -> bool {
    ask(door, Method::GET, "/v2/targets/own", None).await.is_ok_and(|it| it["kind"] == "own")
}

/// Sends a request to the stack API and gives its answer.
pub(super) async fn ask(door: &Door, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let request = Request::builder().method(method).uri(path);
    let request = match body {
        Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(full(body.to_string()))?,
        None => request.body(empty())?,
    };
    let response = door.send_within(request, CALL_WAIT_MAX).await?;
    let status = response.status();
    let answer = door.read(response).await?;
    if status.is_success() {
        return Ok(answer);
    }
    let text = |key: &str| answer[key].as_str().map(str::to_owned);
    let detail = text("detail").or_else(|| text("message")).unwrap_or_else(|| status.to_string());
    Err(Problem { status: status.as_u16(), code: text("code").unwrap_or_default(), detail }.into())
}

/// Names that objects of a stack of this cluster keep from before it was renamed.
pub(super) async fn pins(door: &Door, stack: &str) -> anyhow::Result<Pins> {
    match ask(door, Method::GET, &format!("/v2/targets/own/stacks/{}", escape(stack)), None).await {
        Ok(found) => Ok(serde_json::from_value(found["pins"].clone()).unwrap_or_default()),
        Err(error) if error.downcast_ref::<Problem>().is_some_and(|it| it.status == 404) => Ok(Pins::new()),
        Err(error) => Err(error),
    }
}

/// The path of a stack.
pub(super) fn path(at: &StackAt, stack: &str, rest: &str) -> String {
    format!("/v2/targets/{}/stacks/{}{rest}", escape(&at.target), escape(stack))
}

/// The endpoint, and whether it is a door of herder; only such a door keeps targets.
pub(crate) async fn place(at: &StackAt) -> anyhow::Result<(Door, bool)> {
    let door = Door::of(&at.door)?;
    let is_herder = is_herder(&door).await;
    if !is_herder && at.target != herder_stacks::OWN {
        bail!("{} keeps no targets: only a manager of a swarm of herder does", door.host);
    }
    Ok((door, is_herder))
}

/// Files as the stack API takes them, with the variables that they may read.
pub(super) fn bundle(files: &Files) -> Value {
    let contents = files.sources.iter().map(|(path, content)| {
        let content = content.as_deref().map(herder_stacks::File::of);
        (path.clone(), json!(content))
    });
    json!({
        "files": contents.collect::<serde_json::Map<_, _>>(),
        "main": files.main(),
        "directory": files.directory(),
        "env_files": files.env_files(),
        "profiles": files.profiles(),
        "environment": used(files.environment(), &files.sources),
    })
}

/// Variables whose names stand in one of the files: no other one leaves this host.
fn used(environment: &BTreeMap<String, String>, sources: &Sources) -> BTreeMap<String, String> {
    let mut words = BTreeSet::new();
    for content in sources.values().flatten() {
        let text = String::from_utf8_lossy(content);
        let parts = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
        words.extend(parts.filter(|it| !it.is_empty()).map(str::to_owned));
    }
    let is_used = |name: &str| words.contains(name) || name.starts_with("COMPOSE_");
    environment.iter().filter(|(name, _)| is_used(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Waits for the end of an operation and prints its news on stderr.
pub(super) async fn follow(door: &Door, id: &str) -> anyhow::Result<Value> {
    let mut seen = 0;
    let mut failures = 0;
    loop {
        let operation = match ask(door, Method::GET, &format!("/v2/operations/{id}"), None).await {
            Ok(operation) => operation,
            Err(error) => {
                // The managers may be without a leader for a moment; the operation goes on.
                failures += 1;
                let is_gone = error.downcast_ref::<Problem>().is_some_and(|it| it.status == 404);
                if is_gone || failures > FAILURES_MAX {
                    return Err(error);
                }
                sleep(LOOK_PERIOD).await;
                continue;
            }
        };
        failures = 0;
        let dropped = operation["log_dropped"].as_u64().unwrap_or(0);
        for (n, line) in operation["log"].as_array().into_iter().flatten().enumerate() {
            let number = dropped + n as u64 + 1;
            if number > seen {
                eprintln!("{}", line.as_str().unwrap_or_default());
                seen = number;
            }
        }
        match operation["state"].as_str() {
            Some("queued" | "running") => sleep(LOOK_PERIOD).await,
            Some("succeeded") => return Ok(operation),
            Some(state) => {
                let error = operation["error"].as_str().map_or_else(|| format!("it is {state}"), str::to_owned);
                let late = operation["late"].as_bool().unwrap_or(false);
                return Err(Ended { late, error }.into());
            }
            None => bail!("{} gives an operation without a state", door.host),
        }
    }
}

/// The number of steps that were carried out.
pub(super) fn changes(operation: &Value) -> usize {
    operation["steps"].as_array().into_iter().flatten().filter(|it| it["state"] == "done").count()
}

/// Prints what the server noted about a deployment, without what this program has said by itself.
pub(super) fn tell_notes(answer: &Value) {
    for note in answer["notes"].as_array().into_iter().flatten() {
        let message = note["message"].as_str().unwrap_or_default();
        match note["code"].as_str() {
            Some("no-registry") => eprintln!("warning: {message}"),
            Some("left") => eprintln!("note: {message}"),
            _ => {}
        }
    }
}
