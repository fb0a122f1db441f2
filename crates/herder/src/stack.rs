//! `herder stack`: Compose files on a cluster, through any endpoint that speaks the Docker API of a swarm.

mod build;
mod diff;
mod files;
mod look;
mod server;
mod show;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use herder_cli::{
    StackArgs, StackConfig, StackDeploy, StackLs, StackPlan, StackRename, StackRm, StackRollback, StackVerb, StackWatch,
};
use herder_compose::Desired;
use herder_deploy::able::Able;
use herder_deploy::{
    Answer, Api, Fault, Journal, Observed, Pieces, Plan, Settings, apply, escape, images, observe, remove,
};
use herder_docker::{empty, full};
use http::{Method, Request, header};
use http_body_util::BodyDataStream;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::door::Door;
use files::{Files, Refused};
pub(crate) use server::place;

/// The files are wrong, or the command line is.
const WRONG_FILES: u8 = 2;
/// The time was over.
const LATE: u8 = 3;
/// The cluster refused it.
const REFUSED: u8 = 4;
/// Exit code for changes (`--detailed-exitcode`).
const CHANGES: u8 = 2;

pub(crate) async fn run(asked: StackArgs) -> anyhow::Result<ExitCode> {
    let outcome = match asked.verb {
        StackVerb::Deploy(asked) => deploy(asked).await,
        StackVerb::Plan(asked) => plan(asked).await,
        StackVerb::Config(asked) => config(&asked),
        StackVerb::Ls(asked) => ls(asked).await,
        StackVerb::Rm(asked) => rm(asked).await,
        StackVerb::Ps(asked) => look::ps(asked).await,
        StackVerb::Services(asked) => look::services(asked).await,
        StackVerb::Logs(asked) => look::logs(asked).await,
        StackVerb::Rename(asked) => rename(asked).await,
        StackVerb::Rollback(asked) => rollback(asked).await,
        StackVerb::History(asked) => look::history(asked).await,
        StackVerb::Diff(asked) => look::diff(asked).await,
        StackVerb::Watch(asked) => watch(asked).await,
        StackVerb::Export(asked) => look::export(asked).await,
        StackVerb::Target(asked) => target::run(asked).await,
    };
    exit_code(outcome)
}

/// The exit code of an outcome; what went wrong is told.
pub(crate) fn exit_code(outcome: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match outcome {
        Err(error) if error.is::<Refused>() => {
            eprint!("{error}");
            Ok(ExitCode::from(WRONG_FILES))
        }
        Err(error) if error.is::<server::Problem>() => {
            let code = match error.downcast_ref::<server::Problem>().map(|it| it.status) {
                Some(422) => WRONG_FILES,
                _ => REFUSED,
            };
            eprintln!("herder: {error:#}");
            Ok(ExitCode::from(code))
        }
        Err(error) if error.is::<server::Ended>() => {
            let late = error.downcast_ref::<server::Ended>().is_some_and(|it| it.late);
            eprintln!("herder: {error:#}");
            Ok(if late { ExitCode::from(LATE) } else { ExitCode::FAILURE })
        }
        Err(error) => match error.downcast_ref::<Fault>() {
            Some(fault) => {
                let code = match fault {
                    Fault::Late { .. } => ExitCode::from(LATE),
                    Fault::Refused { .. } | Fault::Missing(_) => ExitCode::from(REFUSED),
                    Fault::Failed { .. } | Fault::Unreachable(_) | Fault::Unusable { .. } => ExitCode::FAILURE,
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

    async fn pieces(&self, path: &str) -> Result<Pieces, Fault> {
        let unreachable = |error: anyhow::Error| Fault::Unreachable(format!("{error:#}"));
        let request = Request::builder().uri(path).body(empty()).map_err(|error| unreachable(error.into()))?;
        let response = self.send_within(request, CALL_WAIT_MAX).await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(unreachable(self.refusal(response).await));
        }
        Ok(Box::pin(BodyDataStream::new(response.into_body()).map_err(|error| error.to_string())))
    }
}

/// A stack as its files declare it, beside what the cluster has.
pub(crate) struct Compared {
    pub(crate) desired: Desired,
    pub(crate) observed: Observed,
    pub(crate) plan: Plan,
}

pub(crate) async fn compare(
    door: &Door,
    is_herder: bool,
    files: &herder_cli::StackFiles,
    name: Option<&str>,
    resolve: &str,
    prune: bool,
) -> anyhow::Result<Compared> {
    let mut files = Files::load(files, name)?;
    let built = if is_herder { build::named(&mut files, name)? } else { BTreeMap::new() };
    let (mut desired, notes) = files.objects(name)?;
    notes.iter().for_each(|note| eprint!("{}", files.render(note)));
    files.read_contents(&desired)?;
    // An endpoint without a swarm says so in its own words.
    door.ask(Method::GET, "/swarm").await?;
    if is_herder {
        desired.pin(&server::pins(door, &desired.stack).await?);
    }
    let observed = observe(door, &desired.stack).await?;
    let images = images::look_up(door, &desired, &observed, resolve).await;
    // Of what is built here a registry need not know.
    let is_built = |warning: &String| built.values().any(|tag| warning.contains(tag.as_str()));
    images::unknown(&images).filter(|it| !is_built(it)).for_each(|warning| eprintln!("warning: {warning}"));
    images::set_digests(&mut desired, &images);
    let mut salt = || {
        let mut salt = [0; 16];
        rand::rng().fill_bytes(&mut salt);
        salt
    };
    let mut plan = Plan::of(&desired, &observed, &files.sources, prune, &mut salt);
    if !built.is_empty() {
        let services: Vec<&str> = built.keys().map(String::as_str).collect();
        plan.notes.push(format!("built when the stack is deployed: the images of {}", services.join(", ")));
    }
    if !is_herder {
        let version = door.ask(Method::GET, "/version").await?;
        let version = version["ApiVersion"].as_str().and_then(|it| it.split_once('.'));
        let api = version.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        plan.refused.extend(Able::Swarm { api: api.unwrap_or((1, 24)) }.refusals(&desired));
    }
    Ok(Compared { desired, observed, plan })
}

async fn deploy(asked: StackDeploy) -> anyhow::Result<ExitCode> {
    let (door, is_herder) = server::place(&asked.at).await?;
    if is_herder {
        return deploy_at_herder(&door, asked).await;
    }
    let name = asked.name.as_deref();
    let prune = !asked.no_prune;
    let Compared { desired, observed, plan } =
        compare(&door, false, &asked.files, name, &asked.images.resolve_image, prune).await?;
    plan.notes.iter().for_each(|note| eprintln!("note: {note}"));
    let settings = Settings { wait: !asked.detach, timeout: asked.timeout, keep: asked.keep };
    let mut told = show::NewsLines::default();
    let journal = Journal::of(&plan, &observed);
    let applied = apply(&door, &desired, &observed, &plan, &journal, &settings, &mut |news| told.tell(&news)).await?;
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

/// Deploys through the stack API: the leader carries it out.
async fn deploy_at_herder(door: &Door, asked: StackDeploy) -> anyhow::Result<ExitCode> {
    let mut files = Files::load(&asked.files, asked.name.as_deref())?;
    if asked.at.target == herder_stacks::OWN {
        build::all(door, &mut files, asked.name.as_deref(), asked.builder.as_deref()).await?;
    }
    let (desired, notes) = files.objects(asked.name.as_deref())?;
    notes.iter().for_each(|note| eprint!("{}", files.render(note)));
    files.read_contents(&desired)?;
    let stack = desired.stack;
    let mut body = server::bundle(&files);
    body["options"] = json!({
        "prune": !asked.no_prune, "timeout": asked.timeout.as_secs().max(1), "keep": asked.keep,
        "resolve": asked.images.resolve_image, "supersede": asked.supersede,
    });
    // Whoever sits there shall know of the operation under way.
    let answer = server::ask(door, Method::PUT, &server::path(&asked.at, &stack, "?queue=false"), Some(&body)).await?;
    server::tell_notes(&answer);
    let Some(id) = answer["id"].as_str() else {
        return said(&asked.format, &stack, 0, &format!("nothing to do ({} services)", answer["services"]));
    };
    if asked.detach {
        return said(&asked.format, &stack, 0, &format!("sent; `herder stack watch {stack}` follows operation {id}"));
    }
    let operation = server::follow(door, id).await?;
    let text = match server::changes(&operation) {
        0 => format!("nothing to do ({} services)", desired.services.len()),
        changes => format!("deployed, {changes} changes"),
    };
    said(&asked.format, &stack, server::changes(&operation), &text)
}

/// Prints the outcome of an operation.
fn said(format: &str, stack: &str, changes: usize, text: &str) -> anyhow::Result<ExitCode> {
    if format == "json" {
        anstream::println!("{}", json!({"Stack": stack, "Changes": changes}));
    } else {
        anstream::println!("stack {stack}: {text}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn rollback(asked: StackRollback) -> anyhow::Result<ExitCode> {
    let (door, _) = server::place(&asked.at).await?;
    let body = json!({
        "revision": asked.revision.unwrap_or(0),
        "options": {"timeout": asked.timeout.as_secs().max(1)},
    });
    let path = server::path(&asked.at, &asked.name, "/rollback?queue=false");
    let answer = server::ask(&door, Method::POST, &path, Some(&body)).await?;
    let id = answer["id"].as_str().unwrap_or_default();
    if asked.detach {
        return said(
            "text",
            &asked.name,
            0,
            &format!("sent; `herder stack watch {}` follows operation {id}", asked.name),
        );
    }
    let operation = server::follow(&door, id).await?;
    let (changes, revision) = (server::changes(&operation), &operation["revision"]);
    said("text", &asked.name, changes, &format!("rolled back as revision {revision}, {changes} changes"))
}

async fn rename(asked: StackRename) -> anyhow::Result<ExitCode> {
    let (door, is_herder) = server::place(&asked.at).await?;
    let (old, new) = (&asked.name, &asked.new);
    if !is_herder {
        let reason =
            format!("{} cannot rename services: deploy the files as {new}, then remove stack {old}", door.host);
        return Err(Fault::Missing(vec![reason]).into());
    }
    let path = server::path(&asked.at, old, "/rename");
    let answer = server::ask(&door, Method::POST, &path, Some(&json!({"name": new}))).await?;
    for (section, names) in answer["pins"].as_object().into_iter().flatten() {
        let names: Vec<String> = names.as_object().into_iter().flatten().map(|(_, name)| show::word(name)).collect();
        eprintln!("note: {section} keep their names: {}", names.join(", "));
    }
    let dropped: Vec<String> = answer["dropped"].as_array().into_iter().flatten().map(show::word).collect();
    if !dropped.is_empty() {
        eprintln!("note: too large to be renamed, and no longer kept: revisions {}", dropped.join(", "));
    }
    anstream::println!("stack {old}: renamed to {new}");
    Ok(ExitCode::SUCCESS)
}

async fn watch(asked: StackWatch) -> anyhow::Result<ExitCode> {
    let (door, _) = server::place(&asked.at).await?;
    let stack = server::ask(&door, Method::GET, &server::path(&asked.at, &asked.name, ""), None).await?;
    let Some(id) = stack["operation"].as_str() else {
        let (state, revision) = (stack["state"].as_str().unwrap_or_default(), &stack["revision"]);
        let error = stack["error"].as_str().map(|it| format!(": {it}")).unwrap_or_default();
        anstream::println!("stack {}: {state}, revision {revision}{error}", asked.name);
        return Ok(if state == "active" { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    };
    let operation = server::follow(&door, id).await?;
    let changes = server::changes(&operation);
    said("text", &asked.name, changes, &format!("done, {changes} changes"))
}

async fn plan(asked: StackPlan) -> anyhow::Result<ExitCode> {
    let (door, is_herder) = server::place(&asked.at).await?;
    let name = asked.name.as_deref();
    if asked.at.target != herder_stacks::OWN {
        return plan_at_target(&door, &asked).await;
    }
    let compared = compare(&door, is_herder, &asked.files, name, &asked.images.resolve_image, !asked.no_prune).await?;
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

/// The plan for a target that the door keeps, as the door makes it.
async fn plan_at_target(door: &Door, asked: &StackPlan) -> anyhow::Result<ExitCode> {
    let mut files = Files::load(&asked.files, asked.name.as_deref())?;
    let (desired, _) = files.objects(asked.name.as_deref())?;
    files.read_contents(&desired)?;
    let mut body = server::bundle(&files);
    body["options"] = json!({"prune": !asked.no_prune, "resolve": asked.images.resolve_image});
    let path = server::path(&asked.at, &desired.stack, "/plan");
    let plan = server::ask(door, Method::POST, &path, Some(&body)).await?;
    if asked.format == "json" {
        anstream::println!("{plan}");
    } else {
        anstream::print!("{}", look::drift(&plan));
        let count = |key: &str| plan[key].as_u64().unwrap_or(0);
        let (create, update, remove) = (count("create"), count("update"), count("remove"));
        anstream::println!("stack {}: {create} to create, {update} to update, {remove} to remove", desired.stack);
        let refused = plan["refused"].as_array().into_iter().flatten();
        refused.for_each(|reason| anstream::println!("refused: {}", show::word(reason)));
    }
    let is_refused = plan["refused"].as_array().is_some_and(|it| !it.is_empty());
    let has_changes = ["create", "update", "remove"].iter().any(|key| plan[*key] != 0);
    Ok(match (is_refused, has_changes) {
        (true, _) => ExitCode::from(REFUSED),
        (false, true) if asked.detailed_exitcode => ExitCode::from(CHANGES),
        (false, _) => ExitCode::SUCCESS,
    })
}

fn config(asked: &StackConfig) -> anyhow::Result<ExitCode> {
    let mut files = Files::load(&asked.files, asked.objects.as_deref())?;
    files.project.diagnostics.iter().for_each(|it| eprint!("{}", files.render(it)));
    if asked.quiet {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(stack) = &asked.objects {
        anstream::print!("{}", objects(&mut files, stack)?);
        return Ok(ExitCode::SUCCESS);
    }
    let project = &files.project;
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
    } else if as_json {
        format!("{:#}\n", project.export())
    } else {
        project.export_yaml()
    };
    anstream::print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// The bodies that a deployment sends, as JSON. The content of secrets is left out.
fn objects(files: &mut Files, stack: &str) -> anyhow::Result<String> {
    let (desired, notes) = files.objects(Some(stack))?;
    notes.iter().for_each(|note| eprint!("{}", files.render(note)));
    files.read_contents(&desired)?;
    let services: Vec<&Value> = desired.services.iter().map(|service| &service.spec).collect();
    let bodies = |all: &[herder_compose::FileObject], is_shown: bool| {
        let body = |file: &herder_compose::FileObject| {
            if file.external {
                return json!({"Name": file.name, "External": true});
            }
            let mut body = file.body(file.data(&files.sources).unwrap_or_default());
            if let Some(members) = body.as_object_mut().filter(|_| !is_shown) {
                members.remove("Data");
            }
            body
        };
        all.iter().map(body).collect::<Vec<_>>()
    };
    let objects = json!({
        "Services": services,
        "Networks": desired.networks.values().collect::<Vec<_>>(),
        "Secrets": bodies(&desired.secrets, false),
        "Configs": bodies(&desired.configs, true),
    });
    Ok(format!("{objects:#}\n"))
}

async fn ls(asked: StackLs) -> anyhow::Result<ExitCode> {
    let (door, is_herder) = server::place(&asked.at).await?;
    if is_herder {
        let path = format!("/v2/targets/{}/stacks", escape(&asked.at.target));
        let stacks = server::ask(&door, Method::GET, &path, None).await?;
        anstream::print!("{}", show::kept_stacks(&stacks["items"], asked.format == "json"));
        return Ok(ExitCode::SUCCESS);
    }
    let services = door.ask(Method::GET, "/services").await?;
    anstream::print!("{}", show::stacks(services.as_array().map_or(&[], Vec::as_slice), asked.format == "json"));
    Ok(ExitCode::SUCCESS)
}

async fn rm(asked: StackRm) -> anyhow::Result<ExitCode> {
    let (door, is_herder) = server::place(&asked.at).await?;
    let mut code = ExitCode::SUCCESS;
    for name in &asked.names {
        if is_herder {
            let path =
                format!("?queue=false&timeout={}&volumes={}", asked.timeout.as_secs().max(1), u8::from(asked.volumes));
            let path = server::path(&asked.at, name, &path);
            match server::ask(&door, Method::DELETE, &path, None).await {
                Ok(operation) => drop(server::follow(&door, operation["id"].as_str().unwrap_or_default()).await?),
                Err(error)
                    if error.downcast_ref::<server::Problem>().is_some_and(|it| it.code == "stack_not_found") =>
                {
                    eprintln!("herder: there is no stack {name}");
                    code = ExitCode::FAILURE;
                }
                Err(error) => return Err(error),
            }
            continue;
        }
        let mut told = show::NewsLines::default();
        let none = BTreeSet::new();
        let volumes = asked.volumes.then_some(&none);
        let count = remove(&door, name, asked.timeout, volumes, &mut |news| told.tell(&news)).await?;
        if count == 0 {
            eprintln!("herder: there is no stack {name}");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
