//! Verbs that look at a stack.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use futures_util::StreamExt as _;
use herder_cli::{StackAt, StackDiff, StackExport, StackLogs, StackOne};
use herder_compose::STACK_LABEL;
use herder_deploy::{Api as _, Fault, escape, listing, logs};
use http::Method;
use serde_json::{Value, json};

use super::show::{table, word};
use super::{diff, server};
use crate::door::Door;

pub(super) async fn ps(asked: StackOne) -> anyhow::Result<ExitCode> {
    let (door, is_herder) = server::place(&asked.at).await?;
    let tasks = if is_herder {
        let tasks = server::ask(&door, Method::GET, &server::path(&asked.at, &asked.name, "/tasks"), None).await?;
        tasks["items"].as_array().cloned().unwrap_or_default()
    } else {
        let (services, tasks) = listed(&door, &asked.name).await?;
        let nodes = door.ask(Method::GET, "/nodes").await?;
        listing::tasks(&tasks, &services, nodes.as_array().map_or(&[], Vec::as_slice))
    };
    if asked.format == "json" {
        anstream::println!("{}", json!(tasks));
        return Ok(ExitCode::SUCCESS);
    }
    let rows = tasks.iter().map(|task| {
        let slot = task["slot"].as_u64().map_or_else(|| word(&task["node"]), |slot| slot.to_string());
        let error = if task["error"].is_null() { String::new() } else { word(&task["error"]) };
        [
            word(&task["id"]).chars().take(12).collect(),
            format!("{}.{slot}", word(&task["service"])),
            word(&task["node"]),
            word(&task["desired_state"]),
            word(&task["state"]),
            error,
        ]
    });
    anstream::print!("{}", table(["ID", "NAME", "NODE", "DESIRED", "STATE", "ERROR"], rows));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn services(asked: StackOne) -> anyhow::Result<ExitCode> {
    let (door, is_herder) = server::place(&asked.at).await?;
    let services = if is_herder {
        let services =
            server::ask(&door, Method::GET, &server::path(&asked.at, &asked.name, "/services"), None).await?;
        services["items"].as_array().cloned().unwrap_or_default()
    } else {
        let (services, tasks) = listed(&door, &asked.name).await?;
        listing::services(&services, &tasks)
    };
    if asked.format == "json" {
        anstream::println!("{}", json!(services));
        return Ok(ExitCode::SUCCESS);
    }
    let rows = services.iter().map(|it| {
        let image = word(&it["image"]);
        [
            word(&it["name"]),
            word(&it["mode"]),
            format!("{}/{}", it["running"], it["desired"]),
            word(&it["state"]),
            image.split('@').next().unwrap_or_default().to_owned(),
        ]
    });
    anstream::print!("{}", table(["NAME", "MODE", "TASKS", "STATE", "IMAGE"], rows));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn history(asked: StackOne) -> anyhow::Result<ExitCode> {
    let (door, _) = server::place(&asked.at).await?;
    let all = server::ask(&door, Method::GET, &server::path(&asked.at, &asked.name, "/revisions"), None).await?;
    let all = all["items"].as_array().cloned().unwrap_or_default();
    if asked.format == "json" {
        anstream::println!("{}", json!(all));
        return Ok(ExitCode::SUCCESS);
    }
    let rows = all.iter().map(|it| {
        let outcome = match (it["present"].as_bool(), it["outcome"].as_str()) {
            (Some(true), _) => "present".to_owned(),
            (_, Some("")) => "under way".to_owned(),
            (_, outcome) => outcome.unwrap_or_default().replace('_', " "),
        };
        let source = match it["repeats"].as_u64() {
            Some(0) | None => String::new(),
            Some(repeats) => format!("as revision {repeats}"),
        };
        [word(&it["number"]), word(&it["created"]).chars().take(19).collect(), word(&it["by"]), outcome, source]
    });
    anstream::print!("{}", table(["REVISION", "CREATED", "BY", "OUTCOME", "SOURCE"], rows));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn export(asked: StackExport) -> anyhow::Result<ExitCode> {
    let (door, _) = server::place(&asked.at).await?;
    let number = match asked.revision {
        Some(number) => number,
        None => present(&door, &asked.at, &asked.name).await?,
    };
    let revision = revision(&door, &asked.at, &asked.name, number).await?;
    if asked.format == "json" {
        anstream::println!("{:#}", revision["canonical"]);
    } else {
        anstream::print!("{}", revision["yaml"].as_str().unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

/// The number of the revision that is in place.
async fn present(door: &Door, at: &StackAt, stack: &str) -> anyhow::Result<u64> {
    let found = server::ask(door, Method::GET, &server::path(at, stack, ""), None).await?;
    match found["revision"].as_u64() {
        Some(0) | None => bail!("herder keeps no revision of stack {stack}: it was not deployed by herder"),
        Some(number) => Ok(number),
    }
}

async fn revision(door: &Door, at: &StackAt, stack: &str, number: u64) -> anyhow::Result<Value> {
    server::ask(door, Method::GET, &server::path(at, stack, &format!("/revisions/{number}")), None).await
}

pub(super) async fn diff(asked: StackDiff) -> anyhow::Result<ExitCode> {
    let (door, _) = server::place(&asked.at).await?;
    let text = match asked.revisions.as_slice() {
        [] => {
            let body = json!({"options": {"resolve": "never"}});
            let path = server::path(&asked.at, &asked.name, "/plan?against=revision");
            let plan = server::ask(&door, Method::POST, &path, Some(&body)).await?;
            drift(&plan)
        }
        numbers => {
            let old = revision(&door, &asked.at, &asked.name, numbers[0]).await?;
            let later = match numbers.get(1) {
                Some(number) => *number,
                None => present(&door, &asked.at, &asked.name).await?,
            };
            let new = revision(&door, &asked.at, &asked.name, later).await?;
            let text = |it: &Value| it["yaml"].as_str().unwrap_or_default().to_owned();
            diff::lines(&text(&old), &text(&new))
        }
    };
    anstream::print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Describes the changes that a deployment of the present revision would make.
pub(super) fn drift(plan: &Value) -> String {
    let mut text = String::new();
    for change in plan["changes"].as_array().into_iter().flatten().filter(|it| it["action"] != "keep") {
        let sign = match change["action"].as_str() {
            Some("create") => '+',
            Some("remove") => '-',
            _ => '~',
        };
        text.push_str(&format!("{sign} {:<7} {}\n", word(&change["kind"]), word(&change["name"])));
        for field in change["fields"].as_array().into_iter().flatten() {
            text.push_str(&format!("    {}  {} → {}", word(&field["name"]), word(&field["old"]), word(&field["new"])));
            text = format!("{}\n", text.trim_end());
        }
    }
    text
}

pub(super) async fn logs(asked: StackLogs) -> anyhow::Result<ExitCode> {
    let (door, _) = server::place(&asked.at).await?;
    let wanted = logs::Asked {
        services: asked.services,
        follow: asked.follow,
        tail: asked.tail,
        since: asked.since.map(|it| seconds_before(it).to_string()).unwrap_or_default(),
    };
    if asked.at.target != herder_stacks::OWN {
        return logs_of_target(&door, &asked.at, &asked.name, &wanted, asked.timestamps).await;
    }
    let mut lines = logs::open(&door, &asked.name, &wanted).await?;
    let width = lines.width;
    while let Some(line) = lines.next().await {
        let line = line.map_err(|error| anyhow::anyhow!("the logs broke off: {error}"))?;
        let text = line.shown(width, asked.timestamps);
        if line.stream == "stderr" {
            anstream::eprint!("{text}");
        } else {
            anstream::print!("{text}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The logs of a stack of a target, as the door reads them there.
async fn logs_of_target(
    door: &Door,
    at: &StackAt,
    stack: &str,
    wanted: &logs::Asked,
    timestamps: bool,
) -> anyhow::Result<ExitCode> {
    let services: String = wanted.services.iter().map(|it| format!("&service={}", escape(it))).collect();
    let (follow, times) = (u8::from(wanted.follow), u8::from(timestamps));
    let (tail, since) = (escape(&wanted.tail), &wanted.since);
    let query = format!("/logs?follow={follow}&timestamps={times}&tail={tail}&since={since}{services}");
    let mut pieces = door.pieces(&server::path(at, stack, &query)).await?;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| anyhow::anyhow!("the logs broke off: {error}"))?;
        anstream::print!("{}", String::from_utf8_lossy(&piece));
    }
    Ok(ExitCode::SUCCESS)
}

/// The time of the clock before `span`, in seconds since 1970.
fn seconds_before(span: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(span).as_secs()
}

/// The services of a stack and their tasks, as the Docker API of any swarm tells them.
async fn listed(door: &Door, stack: &str) -> anyhow::Result<(Vec<Value>, Vec<Value>)> {
    let label = escape(&json!({"label": [format!("{STACK_LABEL}={stack}")]}).to_string());
    let list = |value: Value| value.as_array().cloned().unwrap_or_default();
    let services = list(door.ask(Method::GET, &format!("/services?filters={label}")).await?);
    if services.is_empty() {
        return Err(Fault::Missing(vec![format!("there is no stack {stack}")]).into());
    }
    let tasks = list(door.ask(Method::GET, &format!("/tasks?filters={label}")).await?);
    Ok((services, tasks))
}
