//! Verbs that look at a stack.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use herder_cli::{StackDiff, StackExport, StackLogs, StackOne};
use herder_docker::empty;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::show::{table, word};
use super::{diff, server};
use crate::door::Door;

/// The time in which logs begin to come.
const LOGS_WAIT_MAX: Duration = Duration::from_secs(30);

pub(super) async fn ps(asked: StackOne) -> anyhow::Result<ExitCode> {
    let door = Door::of(&asked.door)?;
    let tasks = server::ask(&door, Method::GET, &server::path(&asked.name, "/tasks"), None).await?;
    let tasks = tasks["items"].as_array().cloned().unwrap_or_default();
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
    let door = Door::of(&asked.door)?;
    let services = server::ask(&door, Method::GET, &server::path(&asked.name, "/services"), None).await?;
    let services = services["items"].as_array().cloned().unwrap_or_default();
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
    let door = Door::of(&asked.door)?;
    let all = server::ask(&door, Method::GET, &server::path(&asked.name, "/revisions"), None).await?;
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
    let door = Door::of(&asked.door)?;
    let number = match asked.revision {
        Some(number) => number,
        None => present(&door, &asked.name).await?,
    };
    let revision = revision(&door, &asked.name, number).await?;
    if asked.format == "json" {
        anstream::println!("{:#}", revision["canonical"]);
    } else {
        anstream::print!("{}", revision["yaml"].as_str().unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

/// The number of the revision that is in place.
async fn present(door: &Door, stack: &str) -> anyhow::Result<u64> {
    let found = server::ask(door, Method::GET, &server::path(stack, ""), None).await?;
    match found["revision"].as_u64() {
        Some(0) | None => bail!("herder keeps no revision of stack {stack}: it was not deployed by herder"),
        Some(number) => Ok(number),
    }
}

async fn revision(door: &Door, stack: &str, number: u64) -> anyhow::Result<Value> {
    server::ask(door, Method::GET, &server::path(stack, &format!("/revisions/{number}")), None).await
}

pub(super) async fn diff(asked: StackDiff) -> anyhow::Result<ExitCode> {
    let door = Door::of(&asked.door)?;
    let text = match asked.revisions.as_slice() {
        [] => {
            let body = json!({"options": {"resolve": "never"}});
            let path = server::path(&asked.name, "/plan?against=revision");
            let plan = server::ask(&door, Method::POST, &path, Some(&body)).await?;
            drift(&plan)
        }
        numbers => {
            let old = revision(&door, &asked.name, numbers[0]).await?;
            let later = match numbers.get(1) {
                Some(number) => *number,
                None => present(&door, &asked.name).await?,
            };
            let new = revision(&door, &asked.name, later).await?;
            let text = |it: &Value| it["yaml"].as_str().unwrap_or_default().to_owned();
            diff::lines(&text(&old), &text(&new))
        }
    };
    anstream::print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Describes the changes that a deployment of the present revision would make.
fn drift(plan: &Value) -> String {
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
    let door = Door::of(&asked.door)?;
    let services = server::ask(&door, Method::GET, &server::path(&asked.name, "/services"), None).await?;
    let all: BTreeMap<String, String> =
        services["items"].as_array().into_iter().flatten().map(|it| (word(&it["name"]), word(&it["id"]))).collect();
    let prefix = format!("{}_", asked.name);
    let mut wanted = Vec::new();
    for service in &asked.services {
        let full = format!("{prefix}{service}");
        let found = all.get_key_value(&full).or_else(|| all.get_key_value(service));
        wanted.push(found.with_context(|| format!("stack {} has no service {service}", asked.name))?);
    }
    if asked.services.is_empty() {
        wanted = all.iter().collect();
    }
    let width = wanted.iter().map(|(name, _)| name.len() - prefix.len().min(name.len())).max().unwrap_or(0);
    let streams = wanted.iter().map(|(name, id)| {
        let short = name.strip_prefix(&prefix).unwrap_or(name);
        service_logs(&door, id, format!("{short:<width$} | "), &asked)
    });
    try_join_all(streams).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the logs of one service, each line behind its name.
async fn service_logs(door: &Door, id: &str, prefix: String, asked: &StackLogs) -> anyhow::Result<()> {
    let tail = herder_front::encode_query(&asked.tail);
    let path = format!("/services/{id}/logs?stdout=1&stderr=1&follow={}&tail={tail}", u8::from(asked.follow));
    let request = Request::builder().method(Method::GET).uri(path).body(empty())?;
    let response = door.send_within(request, LOGS_WAIT_MAX).await?;
    if !response.status().is_success() {
        return Err(door.refusal(response).await);
    }
    let is_framed = response.headers().get(http::header::CONTENT_TYPE).is_none_or(|it| !is_raw(it));
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    let mut line = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| anyhow::anyhow!("the logs broke off: {error}"))?.into_data() else {
            continue;
        };
        bytes.extend_from_slice(&data);
        if is_framed {
            unframe(&mut bytes, &mut line);
        } else {
            line.append(&mut bytes);
        }
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let rest = line.split_off(end + 1);
            anstream::print!("{prefix}{}", String::from_utf8_lossy(&line));
            line = rest;
        }
    }
    if !line.is_empty() {
        anstream::println!("{prefix}{}", String::from_utf8_lossy(&line));
    }
    Ok(())
}

fn is_raw(kind: &http::HeaderValue) -> bool {
    kind.to_str().is_ok_and(|it| it.contains("raw-stream"))
}

/// Takes whole frames off `bytes`: a header of 8 bytes with the length, then as many bytes.
fn unframe(bytes: &mut Vec<u8>, out: &mut Vec<u8>) {
    while bytes.len() >= 8 {
        let length = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        if bytes.len() < 8 + length {
            return;
        }
        out.extend_from_slice(&bytes[8..8 + length]);
        bytes.drain(..8 + length);
    }
}
