//! `herder stack`: Compose files on a cluster, through any endpoint that speaks the Docker API of a swarm.

mod files;
mod images;
mod show;

use std::process::ExitCode;

use anyhow::Context as _;
use herder_cli::{StackArgs, StackConfig, StackDeploy, StackLs, StackPlan, StackRm, StackVerb};
use herder_compose::Desired;
use herder_deploy::{Answer, Api, Fault, Observed, Plan, Settings, apply, observe, remove};
use herder_docker::{empty, full};
use http::{Method, Request, header};
use rand::Rng as _;
use serde_json::{Value, json};

use crate::door::Door;
use files::{Files, Refused};

/// The files are wrong, or the command line is.
const WRONG_FILES: u8 = 2;
/// The time was over.
const LATE: u8 = 3;
/// The cluster refused it.
const REFUSED: u8 = 4;
/// There are changes (`--detailed-exitcode`).
const CHANGES: u8 = 2;

pub(crate) async fn run(asked: StackArgs) -> anyhow::Result<ExitCode> {
    let outcome = match asked.verb {
        StackVerb::Deploy(asked) => deploy(asked).await,
        StackVerb::Plan(asked) => plan(asked).await,
        StackVerb::Config(asked) => config(&asked),
        StackVerb::Ls(asked) => ls(asked).await,
        StackVerb::Rm(asked) => rm(asked).await,
    };
    match outcome {
        Err(error) if error.is::<Refused>() => {
            eprint!("{error}");
            Ok(ExitCode::from(WRONG_FILES))
        }
        Err(error) => match error.downcast_ref::<Fault>() {
            Some(fault) => {
                let code = match fault {
                    Fault::Late { .. } => ExitCode::from(LATE),
                    Fault::Refused { .. } | Fault::Missing(_) => ExitCode::from(REFUSED),
                    Fault::Failed { .. } | Fault::Unreachable(_) => ExitCode::FAILURE,
                };
                eprintln!("herder: {error:#}");
                Ok(code)
            }
            None => Err(error),
        },
        outcome => outcome,
    }
}

/// A longer wait than usual: creating a service with large configs goes through the managers' log.
const CALL_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(60);

impl Api for Door {
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Fault> {
        let unreachable = |error: anyhow::Error| Fault::Unreachable(format!("{error:#}"));
        let request = Request::builder().method(method).uri(path);
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(full(body.to_string())),
            None => request.body(empty()),
        };
        let request = request.map_err(|error| unreachable(error.into()))?;
        let response = self.send_within(request, CALL_WAIT_MAX).await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let bytes = self.bytes(response).await.map_err(unreachable)?;
        if bytes.is_empty() {
            return Ok(Answer { status, body: Value::Null });
        }
        let body = serde_json::from_slice(&bytes).with_context(|| format!("{} answers no JSON", self.host));
        Ok(Answer { status, body: body.map_err(unreachable)? })
    }
}

/// A stack as its files declare it, beside what the cluster has.
struct Compared {
    desired: Desired,
    observed: Observed,
    plan: Plan,
}

async fn compare(
    door: &Door,
    files: &herder_cli::StackFiles,
    name: Option<&str>,
    resolve: &str,
    prune: bool,
) -> anyhow::Result<Compared> {
    let mut files = Files::load(files)?;
    let (mut desired, notes) = files.objects(name)?;
    notes.iter().for_each(|note| eprint!("{}", files.render(note)));
    files.read_contents(&desired)?;
    // An endpoint without a swarm says so in its own words.
    door.ask(Method::GET, "/swarm").await?;
    let observed = observe(door, &desired.stack).await?;
    images::resolve(door, &mut desired, &observed, resolve).await;
    let mut salt = || {
        let mut salt = [0; 16];
        rand::rng().fill_bytes(&mut salt);
        salt
    };
    let plan = Plan::of(&desired, &observed, &files.sources, prune, &mut salt);
    Ok(Compared { desired, observed, plan })
}

async fn deploy(asked: StackDeploy) -> anyhow::Result<ExitCode> {
    let door = Door::of(&asked.door)?;
    let name = asked.name.as_deref();
    let prune = !asked.no_prune;
    let Compared { desired, observed, plan } =
        compare(&door, &asked.files, name, &asked.images.resolve_image, prune).await?;
    plan.notes.iter().for_each(|note| eprintln!("note: {note}"));
    let settings = Settings { wait: !asked.detach, timeout: asked.timeout, keep: asked.keep };
    let mut told = show::Told::new();
    let applied = apply(&door, &desired, &observed, &plan, &settings, &mut |news| told.tell(&news)).await?;
    if asked.format == "json" {
        anstream::println!("{}", json!({"Stack": desired.stack, "Changes": applied.changes}));
    } else if applied.changes == 0 {
        anstream::println!("stack {}: nothing to do ({} services)", desired.stack, desired.services.len());
    } else {
        let word = if asked.detach { "sent" } else { "deployed" };
        anstream::println!("stack {}: {word}, {} changes", desired.stack, applied.changes);
    }
    Ok(ExitCode::SUCCESS)
}

async fn plan(asked: StackPlan) -> anyhow::Result<ExitCode> {
    let door = Door::of(&asked.door)?;
    let name = asked.name.as_deref();
    let compared = compare(&door, &asked.files, name, &asked.images.resolve_image, !asked.no_prune).await?;
    let plan = &compared.plan;
    if asked.format == "json" {
        anstream::println!("{}", show::json(plan));
    } else {
        anstream::print!("{}", show::text(plan));
    }
    Ok(match (plan.refused.is_empty(), plan.is_empty()) {
        (false, _) => ExitCode::from(REFUSED),
        (true, false) if asked.detailed_exitcode => ExitCode::from(CHANGES),
        (true, _) => ExitCode::SUCCESS,
    })
}

fn config(asked: &StackConfig) -> anyhow::Result<ExitCode> {
    let files = Files::load(&asked.files)?;
    let project = &files.project;
    files.project.diagnostics.iter().for_each(|it| eprint!("{}", files.render(it)));
    if asked.quiet {
        return Ok(ExitCode::SUCCESS);
    }
    let as_json = asked.format == "json";
    let lines = |lines: Vec<String>| if as_json { json!(lines).to_string() + "\n" } else { lines.join("\n") + "\n" };
    let text = if asked.images {
        let mut images: Vec<String> =
            project.services().filter_map(|(_, it)| it.get("image")?.as_str().map(str::to_owned)).collect();
        images.sort_unstable();
        images.dedup();
        lines(images)
    } else if asked.services {
        lines(project.services().map(|(name, _)| name.to_owned()).collect())
    } else if asked.variables {
        show::variables(&project.variables, as_json)
    } else if let Some(stack) = &asked.objects {
        let (desired, notes) = files.objects(Some(stack))?;
        notes.iter().for_each(|note| eprint!("{}", files.render(note)));
        let services: Vec<&Value> = desired.services.iter().map(|service| &service.spec).collect();
        let named = |files: &[herder_compose::FileObject]| {
            files.iter().map(|file| json!({"Name": file.name, "External": file.external})).collect::<Vec<_>>()
        };
        let objects = json!({
            "Services": services,
            "Networks": desired.networks.values().collect::<Vec<_>>(),
            "Secrets": named(&desired.secrets),
            "Configs": named(&desired.configs),
        });
        format!("{objects:#}\n")
    } else if as_json {
        format!("{:#}\n", project.export())
    } else {
        project.export_yaml()
    };
    anstream::print!("{text}");
    Ok(ExitCode::SUCCESS)
}

async fn ls(asked: StackLs) -> anyhow::Result<ExitCode> {
    let door = Door::of(&asked.door)?;
    let services = door.ask(Method::GET, "/services").await?;
    anstream::print!("{}", show::stacks(services.as_array().map_or(&[], Vec::as_slice), asked.format == "json"));
    Ok(ExitCode::SUCCESS)
}

async fn rm(asked: StackRm) -> anyhow::Result<ExitCode> {
    let door = Door::of(&asked.door)?;
    let mut code = ExitCode::SUCCESS;
    for name in &asked.names {
        let mut told = show::Told::new();
        let count = remove(&door, name, asked.timeout, &mut |news| told.tell(&news)).await?;
        if count == 0 {
            eprintln!("herder: there is no stack {name}");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
