//! `herder doctor`: checks of this host, each with what was found and what to do.

use std::process::ExitCode;

use herder_agent::net::{Check, check};
use herder_cli::Doctor;

/// Prints every check. The exit code is 1 if one of them failed.
pub(crate) async fn run(asked: Doctor) -> anyhow::Result<ExitCode> {
    let checks = check(&asked.state).await;
    if asked.format == "json" {
        anstream::println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        checks.iter().for_each(|check| anstream::println!("{}", line(check)));
    }
    let is_well = checks.iter().all(|check| check.ok);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(check: &Check) -> String {
    let sign = if check.ok { "ok  " } else { "FAIL" };
    let remedy = if check.ok { String::new() } else { format!("\n       {}", check.remedy) };
    format!("{sign} {}: {}{remedy}", check.name, check.detail)
}
