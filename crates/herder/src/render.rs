//! `herder render`: flags and configuration files → what is rendered, and from where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use herder_cli::Render;
use herder_registrator::service::Rules;
use herder_registrator::{Deregister, ForcedTags, Settings as Registration, Sink};
use herder_render::config::{Job, confd, file, spec};
use herder_render::cycle::{Wait, duration};
use herder_render::{
    Exec, RenderStatus, RunError, Settings, Source, run as keep_rendered, signal as signal_of, statuses,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::door::Door;

/// Exit codes of consul-template.
const INTERRUPTED: u8 = 12;
const FLAGS: u8 = 13;
const CONFIG: u8 = 15;

/// The settings of flags and files together.
struct Plan {
    settings: Settings,
    source: Option<String>,
    token: Option<String>,
}

/// Renders until SIGTERM or Ctrl-C; SIGHUP reads the configuration again.
pub(crate) async fn run(asked: Render) -> anyhow::Result<ExitCode> {
    if asked.verb.is_some() {
        return status(&asked);
    }
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    if let Some(path) = &asked.pid_file {
        std::fs::write(path, format!("{}\n", std::process::id())).with_context(|| path.display().to_string())?;
    }
    loop {
        let plan = match plan(&asked) {
            Ok(plan) => plan,
            Err(wrong) => {
                error!("{:#}", wrong.error);
                return Ok(ExitCode::from(wrong.code));
            }
        };
        let stop = CancellationToken::new();
        let (source, cluster) = source(&asked, &plan)?;
        let feeding = feed(cluster, &stop);
        let env: BTreeMap<String, String> = std::env::vars().collect();
        let has_program = plan.settings.exec.is_some();
        let mut rendering = std::pin::pin!(keep_rendered(&plan.settings, source, &env, &stop));
        let code = tokio::select! {
            ended = rendering.as_mut() => {
                stop.cancel();
                return Ok(match ended {
                    Ok(code) => ExitCode::from(code.unwrap_or_default()),
                    Err(error) => {
                        error!("{error}");
                        ExitCode::from(RunError::code(&error))
                    }
                });
            }
            () = feeding => None,
            _ = hangup.recv() => {
                info!("the configuration is read again");
                None
            }
            _ = interrupt.recv() => Some(ExitCode::from(INTERRUPTED)),
            _ = terminate.recv() => Some(ExitCode::SUCCESS),
        };
        stop.cancel();
        if has_program {
            // Its program ends in good order first.
            let _ = rendering.await;
        }
        if let Some(code) = code {
            return Ok(code);
        }
    }
}

/// Shows the states of all files that are rendered on this host.
fn status(asked: &Render) -> anyhow::Result<ExitCode> {
    let folder = &asked.status_folder;
    let all = statuses(folder).with_context(|| folder.display().to_string())?;
    let failed = all.iter().any(RenderStatus::has_failures);
    if asked.format == "json" {
        anstream::println!("{}", serde_json::to_string(&all)?);
    } else {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(["PID", "FILE OR COMMAND", "STATE", "SINCE", "REASON"]);
        for of in &all {
            for (file, it) in &of.files {
                table.add_row([&of.pid.to_string(), file, &it.state, &it.since, &it.reason]);
            }
            for (command, reason) in &of.commands {
                table.add_row([&of.pid.to_string(), command, "failed", "", reason]);
            }
        }
        anstream::println!("{table}");
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A fault of the settings, found before anything runs, with the exit code.
struct Wrong {
    code: u8,
    error: anyhow::Error,
}

fn plan(asked: &Render) -> Result<Plan, Wrong> {
    let wrong = |code: u8| move |error: anyhow::Error| Wrong { code, error };
    let mut jobs: Vec<Job> = Vec::new();
    let (mut wait, mut consul, mut token) = (None, None, asked.consul_token.clone());
    let mut program = None;
    for path in files(&asked.config).map_err(wrong(CONFIG))? {
        let read = || -> anyhow::Result<_> {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            file(&path, &text).map_err(anyhow::Error::msg)
        };
        let found = read().map_err(wrong(CONFIG))?;
        for key in found.ignored {
            warn!(file = %path.display(), key, "this key has no effect here");
        }
        jobs.extend(found.jobs);
        wait = found.wait.or(wait);
        program = found.exec.or(program);
        consul = found.consul.or(consul);
        token = token.or(found.token);
    }
    for text in &asked.template {
        jobs.push(spec(text).map_err(anyhow::Error::msg).map_err(wrong(FLAGS))?);
    }
    if asked.backend.is_some() || asked.confdir.is_some() {
        let folder = asked.confdir.clone().unwrap_or_else(|| PathBuf::from("/etc/confd"));
        let resources = resources(&folder.join("conf.d")).map_err(wrong(CONFIG))?;
        for path in resources {
            let read = || -> anyhow::Result<Job> {
                let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                confd(&path, &text, &folder.join("templates"), &asked.prefix).map_err(anyhow::Error::msg)
            };
            jobs.push(read().map_err(wrong(CONFIG))?);
        }
    }
    if jobs.is_empty() {
        let error = anyhow::anyhow!("there is nothing to render: give -template, -config or --confdir");
        return Err(Wrong { code: FLAGS, error });
    }
    if let Some(text) = &asked.wait {
        wait = Some(Wait::parse(text).map_err(anyhow::Error::msg).map_err(wrong(FLAGS))?);
    }
    let given = || -> Result<Option<Exec>, String> {
        let Some(command) = &asked.exec else { return Ok(None) };
        let mut exec = Exec::new(command);
        exec.reload = asked.exec_reload_signal.as_deref().map(signal_of).transpose()?;
        exec.kill = asked.exec_kill_signal.as_deref().map_or(Ok(exec.kill), signal_of)?;
        exec.kill_timeout = asked.exec_kill_timeout.as_deref().map_or(Ok(exec.kill_timeout), duration)?;
        Ok(Some(exec))
    };
    let exec = given().map_err(anyhow::Error::msg).map_err(wrong(FLAGS))?.or(program);
    let is_kept = !(asked.once || asked.onetime || asked.dry || asked.noop);
    let settings = Settings {
        exec: exec.filter(|_| is_kept),
        status: is_kept.then(|| asked.status_folder.clone()),
        jobs,
        wait: wait.unwrap_or_default(),
        once: asked.once || asked.onetime,
        dry: asked.dry,
        noop: asked.noop,
        sync_only: asked.sync_only,
        keep_stage: asked.keep_stage_file,
        strict: asked.strict,
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let nodes = if asked.node.is_empty() { None } else { Some(asked.node.join(",")) };
    let at = |scheme: &str| format!("{scheme}://{}", nodes.clone().unwrap_or_default());
    let address = asked.consul_addr.clone().or(consul).or_else(|| variable("CONSUL_HTTP_ADDR"));
    let source = asked.source.clone().or_else(|| match asked.backend.as_deref() {
        Some("etcd") => Some(at("etcd2")),
        Some("etcdv3") => Some(at("etcd")),
        Some("zookeeper") => Some(at("zookeeper")),
        Some("env") => None,
        Some(_) if nodes.is_some() => Some(at("consul")),
        _ => {
            let address = address.unwrap_or_default();
            let host = address.strip_prefix("http://").unwrap_or(&address);
            Some(format!("consul://{host}"))
        }
    });
    Ok(Plan { settings, source, token: token.or_else(|| variable("CONSUL_HTTP_TOKEN")) })
}

/// Folders are read in the order of their files' names.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
        let mut inside: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        inside.retain(|path| path.is_file());
        inside.sort();
        found.extend(inside);
    }
    Ok(found)
}

/// All `*.toml` below a folder.
fn resources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|kind| kind == "toml") {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        bail!("there is no *.toml in {}", folder.display());
    }
    found.sort();
    Ok(found)
}

/// The cluster as a source: its endpoint, and where its services go.
struct Cluster {
    door: Door,
    sink: Sink,
    registration: Registration,
}

fn source(asked: &Render, plan: &Plan) -> anyhow::Result<(Source, Option<Cluster>)> {
    let Some(uri) = &plan.source else {
        return Ok((Source::environment(&std::env::vars().collect()), None));
    };
    if !uri.starts_with("herder:") {
        return Ok((Source::parse(uri, plan.token.as_deref())?, None));
    }
    let door = Door::of(&asked.door)?;
    let (sink, entries) = Sink::memory("services");
    let registration = Registration {
        rules: Rules::default(),
        tags: ForcedTags::parse("").map_err(anyhow::Error::msg)?,
        ttl_refresh: None,
        resync: None,
        cleanup: Vec::new(),
        deregister: Deregister::Always,
        many_hosts: true,
        retry_attempts: None,
        retry_interval: std::time::Duration::from_secs(1),
    };
    Ok((Source::memory(entries), Some(Cluster { door, sink, registration })))
}

/// Keeps the services of the cluster true, for ever.
async fn feed(cluster: Option<Cluster>, stop: &CancellationToken) {
    if let Some(Cluster { door, sink, registration }) = cluster
        && let Err(error) = herder_registrator::run(door.link(), &sink, &registration, stop).await
    {
        error!("{error}");
    }
    std::future::pending().await
}
