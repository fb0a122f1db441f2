//! `herder stack target`: targets that a door keeps by name.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use herder_cli::{StackTarget, TargetAdd, TargetLs, TargetOne, TargetVerb};
use herder_deploy::escape;
use http::Method;
use serde_json::{Value, json};

use super::server;
use super::show::{table, word};
use crate::door::Door;

pub(super) async fn run(asked: StackTarget) -> anyhow::Result<ExitCode> {
    match asked.verb {
        TargetVerb::Add(asked) => put(asked, Method::POST).await,
        TargetVerb::Set(asked) => put(asked, Method::PUT).await,
        TargetVerb::Ls(asked) => ls(asked).await,
        TargetVerb::Check(asked) => check(asked).await,
        TargetVerb::Rm(asked) => rm(asked).await,
    }
}

fn path(name: &str) -> String {
    format!("/v2/targets/{}", escape(name))
}

async fn put(asked: TargetAdd, method: Method) -> anyhow::Result<ExitCode> {
    let door = Door::of(&asked.door)?;
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let mut body = json!({"kind": asked.kind, "address": asked.address});
    if let (Some(ca), Some(cert), Some(key)) = (&asked.ca, &asked.cert, &asked.key) {
        body["tls"] = json!({"ca": read(ca)?, "cert": read(cert)?, "key": read(key)?});
    }
    let path = if method == Method::POST {
        body["name"] = asked.name.as_str().into();
        "/v2/targets".to_owned()
    } else {
        path(&asked.name)
    };
    let target = server::ask(&door, method, &path, Some(&body)).await?;
    anstream::println!("target {}: {} {}", asked.name, word(&target["kind"]), word(&target["address"]));
    Ok(ExitCode::SUCCESS)
}

async fn ls(asked: TargetLs) -> anyhow::Result<ExitCode> {
    let door = Door::of(&asked.door)?;
    let all = server::ask(&door, Method::GET, "/v2/targets", None).await?;
    let all = all["items"].as_array().cloned().unwrap_or_default();
    if asked.format == "json" {
        anstream::println!("{}", json!(all));
        return Ok(ExitCode::SUCCESS);
    }
    let rows = all.iter().map(|it| {
        let tls = it["tls"]["fingerprint"].as_str().map(|it| it.chars().take(16).collect());
        [word(&it["name"]), word(&it["kind"]), word(&it["address"]), tls.unwrap_or_default(), word(&it["by"])]
    });
    anstream::print!("{}", table(["NAME", "KIND", "ADDRESS", "CERTIFICATE", "BY"], rows));
    Ok(ExitCode::SUCCESS)
}

async fn check(asked: TargetOne) -> anyhow::Result<ExitCode> {
    let door = Door::of(&asked.door)?;
    let answer = server::ask(&door, Method::POST, &format!("{}/check", path(&asked.name)), None).await?;
    for step in answer["steps"].as_array().into_iter().flatten() {
        let told =
            step.as_object().into_iter().flatten().filter(|(key, _)| !["step", "ok", "error"].contains(&key.as_str()));
        let told: Vec<String> = told.map(|(key, value): (&String, &Value)| format!("{key} {}", word(value))).collect();
        let outcome = match step["error"].as_str() {
            Some(error) => format!("failed: {error}"),
            None => format!("ok {}", told.join(", ")),
        };
        anstream::println!("{}: {}", word(&step["step"]), outcome.trim_end());
    }
    Ok(if answer["ok"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn rm(asked: TargetOne) -> anyhow::Result<ExitCode> {
    let door = Door::of(&asked.door)?;
    server::ask(&door, Method::DELETE, &path(&asked.name), None).await?;
    Ok(ExitCode::SUCCESS)
}
