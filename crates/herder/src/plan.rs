//! `herder plan`: what a deployment would change, and what becomes of its tasks, before it does.
//!
//! The files are read and compared as `herder stack deploy` does it. With `--docker`, the docker CLI at hand deploys the stack to
//! a sandbox endpoint: what it asks is answered by the real door, what it wants to change is written down and goes no further. So
//! such a plan knows every key of stack files that the CLI knows, and means by them what the CLI means.

mod change;

mod sandbox;
mod show;

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use herder_cli::{Plan as Asked, StackAt, StackFiles};
use herder_front::encode_query;
use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::door::Door;
use crate::stack::{self, Compared};
use change::{Known, Plan};
use sandbox::Sandbox;

/// Reading files takes moments; asking a registry for digests takes longer, once for each image.
const DOCKER_TIME_MAX: Duration = Duration::from_secs(120);

/// Time after which a waiting user gets the reason.
const PATIENCE: Duration = Duration::from_secs(2);

/// The label by which Docker's CLI knows what belongs to a stack.
const STACK_LABEL: &str = "com.docker.stack.namespace";

/// Exit code for changes (`--detailed-exitcode`).
const CHANGES: u8 = 2;

pub(crate) async fn run(asked: Asked) -> anyhow::Result<ExitCode> {
    let files: Vec<&PathBuf> = std::iter::once(&asked.file).chain(&asked.compose_file).collect();
    for file in &files {
        // A pipe may be read only once, and that is for Docker's CLI.
        if file.as_os_str() != "-" && !file.is_file() {
            bail!("{}: there is no such stack file", file.display());
        }
    }
    let plan = match &asked.docker {
        Some(program) => of_docker(&asked, &files, program).await?,
        None => match of_herder(&asked, &files).await {
            Ok(plan) => plan,
            Err(error) => return stack::exit_code(Err(error)),
        },
    };
    if asked.format == "json" {
        anstream::println!("{}", show::json(&plan));
    } else {
        anstream::print!("{}", show::text(&plan));
    }
    Ok(match (plan.refused.is_empty(), plan.is_empty()) {
        (false, _) => ExitCode::FAILURE,
        (true, false) if asked.detailed_exitcode => ExitCode::from(CHANGES),
        (true, _) => ExitCode::SUCCESS,
    })
}

/// The plan of `herder stack deploy`.
async fn of_herder(asked: &Asked, files: &[&PathBuf]) -> anyhow::Result<Plan> {
    let at = StackAt { door: asked.door.clone(), target: herder_stacks::OWN.to_owned() };
    let files = StackFiles { files: files.iter().map(|file| (*file).clone()).collect(), ..StackFiles::default() };
    let (door, is_herder) = stack::place(&at).await?;
    let name = asked.name.as_deref();
    let Compared { observed, plan, .. } =
        stack::compare(&door, is_herder, &files, name, &asked.resolve_image, !asked.no_prune).await?;
    let known = known(&door, &plan.stack).await?;
    Plan::of_deployment(&plan, &observed, &known)
}

/// The plan of `docker stack deploy`.
async fn of_docker(asked: &Asked, files: &[&PathBuf], program: &Path) -> anyhow::Result<Plan> {
    let name = match &asked.name {
        Some(name) => name.clone(),
        None => name_of(&asked.file)?,
    };
    let door = Arc::new(Door::of(&asked.door)?);
    // What is wrong here is told in the door's own words, not through the CLI.
    door.ask(Method::GET, "/swarm").await?;
    let sandbox = Sandbox::open(door.clone())?;
    // The sandbox goes with this function, however it ends.
    let warnings = tokio::select! {
        warnings = deploy(asked, program, files, &name, &sandbox) => warnings?,
        signal = interrupted() => bail!("interrupted by {signal}"),
    };
    let wanted = sandbox.close();
    let known = known(&door, &name).await?;
    Plan::of(&name, &wanted, &known, warnings, asked.prune)
}

/// Resolves when the program is to end.
async fn interrupted() -> &'static str {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = ctrl_c() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

/// The name of the file's folder, as Compose does it.
fn name_of(file: &Path) -> anyhow::Result<String> {
    let folder = match file.to_str() {
        Some("-") => None,
        _ => file.canonicalize().ok().and_then(|it| it.parent()?.file_name()?.to_str().map(str::to_lowercase)),
    };
    let kept = folder
        .unwrap_or_default()
        .chars()
        .filter(|it| it.is_ascii_alphanumeric() || "-_".contains(*it))
        .collect::<String>();
    match kept.trim_start_matches(['-', '_']) {
        "" => bail!("a name for the stack is needed: `herder plan {} NAME`", file.display()),
        name => Ok(name.to_owned()),
    }
}

/// Has Docker's CLI deploy the stack to the sandbox. Returns its warnings.
async fn deploy(
    asked: &Asked,
    program: &Path,
    files: &[&PathBuf],
    name: &str,
    sandbox: &Sandbox,
) -> anyhow::Result<Vec<String>> {
    let docker = |arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true);
        // Whatever says where the door is says so by the flag alone.
        let elsewhere = [
            "DOCKER_HOST",
            "DOCKER_CONTEXT",
            "DOCKER_TLS",
            "DOCKER_TLS_VERIFY",
            "DOCKER_CERT_PATH",
            "DOCKER_API_VERSION",
        ];
        for name in elsewhere {
            command.env_remove(name);
        }
        command
    };
    let missing = || {
        format!(
            "cannot run {}: a plan reads stack files with Docker's own CLI (--docker says where it is)",
            program.display()
        )
    };
    let help = docker(&["stack", "deploy", "--help"]).stdin(Stdio::null()).output().await.with_context(missing)?;
    let knows_detach = String::from_utf8_lossy(&help.stdout).contains("--detach");
    let mut command = docker(&["-H", &sandbox.host(), "stack", "deploy", "--resolve-image", &asked.resolve_image]);
    for file in files {
        command.arg("--compose-file").arg(file);
    }
    if asked.prune {
        command.arg("--prune");
    }
    if knows_detach {
        command.arg("--detach=true");
    }
    let output = timeout(DOCKER_TIME_MAX, command.arg(name).output());
    tokio::pin!(output);
    let output = match timeout(PATIENCE, &mut output).await {
        Ok(output) => output,
        Err(_) => {
            if asked.resolve_image != "never" {
                anstream::eprintln!(
                    "asking registries for the digests of the images; --resolve-image never plans without them"
                );
            }
            output.await
        }
    };
    let late = || format!("docker stack deploy does not end within {} s", DOCKER_TIME_MAX.as_secs());
    let output = output.with_context(late)?.with_context(missing)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        let names: Vec<String> = files.iter().map(|it| it.display().to_string()).collect();
        bail!("{} would not be deployed: {}", names.join(", "), said.trim());
    }
    Ok(said.lines().map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect())
}

/// Returns the present objects.
async fn known(door: &Door, name: &str) -> anyhow::Result<Known> {
    let list = async |path: String| -> anyhow::Result<Vec<Value>> {
        let answer = door.ask(Method::GET, &path).await?;
        Ok(answer.as_array().cloned().unwrap_or_default())
    };
    let label = json!({ "label": [format!("{STACK_LABEL}={name}")] });
    let services = list(format!("/services?filters={}", encode(&label))).await?;
    let mut tasks = Vec::new();
    for service in &services {
        let filters = json!({ "service": [service["ID"]], "desired-state": ["running"] });
        tasks.extend(list(format!("/tasks?filters={}", encode(&filters))).await?);
    }
    Ok(Known {
        services,
        tasks,
        nodes: list("/nodes".to_owned()).await?,
        files: [list("/secrets".to_owned()).await?, list("/configs".to_owned()).await?].concat(),
    })
}

/// Filters as part of a path.
pub(crate) fn encode(filters: &Value) -> String {
    encode_query(&filters.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_without_a_name_is_called_as_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("My Shop_1");
        std::fs::create_dir(&inner).expect("a folder");
        let file = inner.join("stack.yml");
        std::fs::write(&file, "services: {}").expect("written");
        assert_eq!(name_of(&file).expect("a name"), "myshop_1");
        assert!(name_of(Path::new("-")).expect_err("no name").to_string().contains("a name for the stack is needed"));
    }

    #[test]
    fn filters_go_into_a_path() {
        assert_eq!(encode(&json!({"a": ["b=c"]})), "%7B%22a%22%3A%5B%22b%3Dc%22%5D%7D");
    }
}
