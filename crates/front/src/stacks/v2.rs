//! `/v2`: stacks, operations and revisions as resources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herder_compose::Pins;
use herder_deploy::images::{self, Images};
use herder_deploy::{Api, Plan, listing, observe};
use herder_model::swarm::View;
use herder_stacks::{
    Asking, Begun, DeployOptions, Ids, Loaded, Operation, StackState, Wish, begin, cancel, find, kinds, pins,
    revisions, stack as stack_of, stacks,
};
use http::{Method, StatusCode};
use rand::Rng as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::asked::{AskedOptions, Asker, WAIT_MAX, load, read, read_any};
use super::listed::{if_match, paged, tagged};
use super::operations::{LOOK_PERIOD, reply_of};
use super::problem::Problem;
use super::reach::Reach;
use super::shown;
pub(crate) use super::targets::api_of;
use crate::swarm::{self, Swarm};
use crate::{ApiError, Call, Front, Reply, call};

/// An answer or a refusal.
pub(crate) type Answered = Result<Reply, Problem>;

/// Makes a reply of a refusal.
pub(crate) async fn answered(answer: impl Future<Output = Answered>) -> Result<Reply, ApiError> {
    Ok(answer.await.unwrap_or_else(Problem::into_reply))
}

pub(crate) fn swarm_of(front: &Front) -> Result<&Arc<dyn Swarm>, Problem> {
    let no_swarm = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_swarm", "this door can be in no swarm");
    front.swarm().ok_or_else(no_swarm)
}

/// The author of a request, for the records.
pub(crate) fn author(call: &Call) -> String {
    call.caller.name().unwrap_or_else(|| call.caller.peer.to_string())
}

/// Answers with JSON.
pub(crate) fn ok(value: &Value) -> Answered {
    Ok(call::json(StatusCode::OK, value))
}

/// A source beside what the target has.
pub(crate) struct Compared {
    pub(crate) plan: Plan,
    pub(crate) desired: herder_compose::Desired,
    pub(crate) observed: herder_deploy::Observed,
    images: Images,
    notes: Vec<Value>,
}

pub(crate) async fn compare(
    api: &Reach,
    loaded: Loaded,
    pins: &Pins,
    options: &DeployOptions,
) -> Result<Compared, Problem> {
    let Loaded { mut desired, sources, notes, .. } = loaded;
    desired.pin(pins);
    let observed = observe(api, &desired.stack).await?;
    let images = images::look_up(api, &desired, &observed, &options.resolve).await;
    images::set_digests(&mut desired, &images);
    let mut all: Vec<Value> = notes.iter().map(|it| json!(it)).collect();
    all.extend(
        images::unknown(&images).map(|text| json!({"severity": "warning", "code": "no-registry", "message": text})),
    );
    let prune = options.prune;
    // The digests of secrets are slow on purpose.
    let plan = tokio::task::spawn_blocking(move || {
        let mut salt = || {
            let mut salt = [0; 16];
            rand::rng().fill_bytes(&mut salt);
            salt
        };
        let plan = Plan::of(&desired, &observed, &sources, prune, &mut salt);
        (plan, desired, observed)
    });
    let broken = |error: tokio::task::JoinError| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", format!("the plan could not be made: {error}"))
    };
    let (mut plan, desired, observed) = plan.await.map_err(broken)?;
    plan.refused.extend(api.able().refusals(&desired));
    all.extend(plan.notes.iter().map(|text| json!({"severity": "note", "code": "left", "message": text})));
    Ok(Compared { plan, desired, observed, images, notes: all })
}

/// `GET /v2/targets/{target}/stacks`.
pub(crate) async fn list(front: &Arc<Front>, call: Call) -> Answered {
    let target = call.hole("target");
    let api = api_of(front, &target, &request_id(&call)).await?;
    let view = swarm::read(swarm_of(front)?).await?;
    let services = docker_list(&api, "/services").await?;
    let known = stacks(&view, &target);
    let count =
        |name: &str| services.iter().filter(|it| it["Spec"]["Labels"][herder_compose::STACK_LABEL] == name).count();
    let names: BTreeSet<String> = known.iter().map(|it| it.record.stack.clone()).collect();
    let mut all: Vec<Value> = known.iter().map(shown::stack).collect();
    all.extend(shown::unrecorded(&target, &names, &services));
    for stack in &mut all {
        stack["services"] = count(stack["name"].as_str().unwrap_or_default()).into();
    }
    all.sort_by_key(|it| it["name"].as_str().unwrap_or_default().to_owned());
    paged(&call, all, "name")
}

/// `POST /v2/targets/{target}/stacks`, `PUT …/stacks/{stack}`.
pub(crate) async fn deploy(front: &Arc<Front>, mut call: Call) -> Answered {
    let asked = read_any(&mut call).await?;
    let asker = Asker::of(&call);
    let target = call.hole("target");
    let in_path = call.hole("stack");
    let name = if in_path.is_empty() { asked.name.clone() } else { Some(in_path) };
    let (bundle, options) = (asked.bundle()?, asked.options.read()?);
    let loaded = load(&bundle, name.as_deref()).await?;
    let stack = loaded.desired.stack.clone();
    let api = api_of(front, &target, &request_id(&call)).await?;
    let swarm = swarm_of(front)?;
    let view = swarm::read(swarm).await?;
    if_match(&call.parts.headers, "stack", stack_of(&view, &target, &stack).map(|it| it.version))?;
    if let Some(begun) = begun_before(&asker, &view) {
        return reply_of(front, &asker, &begun, Vec::new(), StatusCode::OK).await;
    }
    if asked.options.supersede {
        end_present(swarm, &target, &stack).await?;
    }
    let count = loaded.desired.services.len();
    let Compared { plan, images, notes, .. } = compare(&api, loaded, &pins(&view, &target, &stack), &options).await?;
    if !plan.refused.is_empty() {
        return Err(herder_deploy::Fault::Missing(plan.refused).into());
    }
    let view = swarm::read(swarm).await?;
    if plan.is_empty()
        && let Some(present) = stack_of(&view, &target, &stack)
        && present.record.operation.is_empty()
        && present.record.state == StackState::Active
    {
        let revision =
            revisions(&view, &target, &stack).into_iter().find(|it| it.record.number == present.record.revision);
        if revision.is_some_and(|it| it.record.bundle == bundle && it.record.options == options) {
            let nothing = json!({
                "id": null, "kind": "deploy", "target": target, "stack": stack, "state": "succeeded", "steps": [],
                "revision": present.record.revision, "services": count, "notes": notes, "log": [],
            });
            return ok(&nothing);
        }
    }
    let wish = Wish::Deploy { bundle, images, options };
    let is_new = stack_of(&view, &target, &stack).is_none();
    let begun = write(front, &asker, &target, &stack, wish).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    reply_of(front, &asker, &begun.operation, notes, status).await
}

/// Decides on the newest state and writes the beginning of an operation.
pub(crate) async fn write(
    front: &Arc<Front>,
    asker: &Asker,
    target: &str,
    stack: &str,
    wish: Wish,
) -> Result<Begun, Problem> {
    let swarm = swarm_of(front)?;
    let operation = asker.key.clone().unwrap_or_else(swarm::new_id);
    let ids = Ids { stack: swarm::new_id(), revision: swarm::new_id(), operation };
    let now = jiff::Timestamp::now().to_string();
    let mut attempts = 1;
    loop {
        let view = swarm::read(swarm).await?;
        let asking = Asking { by: &asker.by, now: &now, waits: asker.may_queue };
        let mut begun = begin(&view, target, stack, wish.clone(), asking, ids.clone())?;
        match swarm.commit(std::mem::take(&mut begun.changes)).await {
            Ok(_) => {
                front.operations_begun.notify_one();
                return Ok(begun);
            }
            Err(swarm::NotWritten::Conflict(_)) if attempts < ATTEMPTS_MAX => attempts += 1,
            Err(swarm::NotWritten::Conflict(conflict)) => return Err(ApiError::conflict(conflict.to_string()).into()),
            Err(swarm::NotWritten::Failed(error)) => return Err(error.into()),
        }
    }
}

/// Attempts at a write that others make at the same time.
pub(crate) const ATTEMPTS_MAX: u32 = 16;

fn begun_before(asker: &Asker, view: &View) -> Option<String> {
    find::<Operation>(view, kinds()?.operation, asker.key.as_ref()?).map(|it| it.id)
}

/// Ends the operation on a stack, and waits for that.
async fn end_present(swarm: &Arc<dyn Swarm>, target: &str, stack: &str) -> Result<(), Problem> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let view = swarm::read(swarm).await?;
        let Some(present) = stack_of(&view, target, stack) else { return Ok(()) };
        let Some(kinds) = kinds() else { return Ok(()) };
        let operation = find::<Operation>(&view, kinds.operation, &present.record.operation);
        let Some(operation) = operation.filter(|it| !it.record.state.is_over()) else { return Ok(()) };
        if !operation.record.cancel {
            // Another write of the record comes first: it is asked for again.
            match swarm.commit(cancel(&view, &operation.id)?).await {
                Ok(_) | Err(swarm::NotWritten::Conflict(_)) => {}
                Err(swarm::NotWritten::Failed(error)) => return Err(error.into()),
            }
        }
        if Instant::now() > deadline {
            let detail = format!("operation {} does not end", operation.id);
            return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "operation_in_progress", detail));
        }
        sleep(LOOK_PERIOD).await;
    }
}

/// `POST /v2/targets/{target}/stacks/{stack}/plan`.
pub(crate) async fn plan(front: &Arc<Front>, mut call: Call) -> Answered {
    let asked = read_any(&mut call).await?;
    let (target, stack) = (call.hole("target"), call.hole("stack"));
    let (bundle, options) = (asked.bundle()?, asked.options.read()?);
    let api = api_of(front, &target, &request_id(&call)).await?;
    let view = swarm::read(swarm_of(front)?).await?;
    let bundle = match call.query.get("against") {
        Some("revision") if bundle.files.is_empty() => {
            let present = stack_of(&view, &target, &stack).ok_or_else(|| no_stack(&stack))?.record.revision;
            let revision = revisions(&view, &target, &stack).into_iter().find(|it| it.record.number == present);
            revision.ok_or_else(|| no_stack(&stack))?.record.bundle
        }
        _ => bundle,
    };
    let loaded = load(&bundle, Some(&stack)).await?;
    let pins = pins(&view, &target, &stack);
    let Compared { plan, notes, .. } = compare(&api, loaded, &pins, &options).await?;
    let mut value = shown::plan(&plan);
    value["diagnostics"] = notes.into();
    ok(&value)
}

pub(crate) fn no_stack(stack: &str) -> Problem {
    herder_stacks::Refused::NoStack(stack.to_owned()).into()
}

pub(crate) fn request_id(call: &Call) -> String {
    let id = call.parts.headers.get("x-request-id").and_then(|it| it.to_str().ok());
    id.unwrap_or_default().to_owned()
}

/// A list of the Docker API of a target.
pub(crate) async fn docker_list(api: &impl Api, path: &str) -> Result<Vec<Value>, Problem> {
    let body = docker(api, Method::GET, path, None).await?;
    Ok(body.as_array().cloned().unwrap_or_default())
}

/// An answer of the Docker API of a target.
pub(crate) async fn docker(api: &impl Api, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Problem> {
    let answer = api.call(method, path, body).await?;
    if (200..300).contains(&answer.status) {
        return Ok(answer.body);
    }
    let message = answer.body["message"].as_str().unwrap_or_default().to_owned();
    // The subject without filters, which say nothing to people.
    let what = path.split('?').next().unwrap_or_default().trim_start_matches('/').to_owned();
    Err(herder_deploy::Fault::Refused { what, status: answer.status, message }.into())
}

pub(crate) fn of_stack(stack: &str) -> String {
    let filters = json!({"label": [format!("{}={stack}", herder_compose::STACK_LABEL)]});
    format!("filters={}", crate::encode_query(&filters.to_string()))
}

/// `GET /v2/targets/{target}/stacks/{stack}`.
pub(crate) async fn inspect(front: &Arc<Front>, call: Call) -> Answered {
    let (target, stack) = (call.hole("target"), call.hole("stack"));
    let api = api_of(front, &target, &request_id(&call)).await?;
    let view = swarm::read(swarm_of(front)?).await?;
    let services = docker_list(&api, &format!("/services?{}", of_stack(&stack))).await?;
    let tasks = docker_list(&api, &format!("/tasks?{}", of_stack(&stack))).await?;
    let found = stack_of(&view, &target, &stack);
    let mut value = match &found {
        Some(found) => shown::stack(found),
        None => shown::unrecorded(&target, &BTreeSet::new(), &services).pop().ok_or_else(|| no_stack(&stack))?,
    };
    value["services"] = listing::services(&services, &tasks).into();
    Ok(tagged(call::json(StatusCode::OK, &value), found.map(|it| it.version)))
}

/// `GET …/stacks/{stack}/services`.
pub(crate) async fn services(front: &Arc<Front>, call: Call) -> Answered {
    let (target, stack) = (call.hole("target"), call.hole("stack"));
    let api = api_of(front, &target, &request_id(&call)).await?;
    let services = docker_list(&api, &format!("/services?{}", of_stack(&stack))).await?;
    let tasks = docker_list(&api, &format!("/tasks?{}", of_stack(&stack))).await?;
    if services.is_empty() && stack_of(&swarm::read(swarm_of(front)?).await?, &target, &stack).is_none() {
        return Err(no_stack(&stack));
    }
    paged(&call, listing::services(&services, &tasks), "name")
}

/// `GET …/stacks/{stack}/tasks`.
pub(crate) async fn tasks(front: &Arc<Front>, call: Call) -> Answered {
    let (target, stack) = (call.hole("target"), call.hole("stack"));
    let api = api_of(front, &target, &request_id(&call)).await?;
    let services = docker_list(&api, &format!("/services?{}", of_stack(&stack))).await?;
    let tasks = docker_list(&api, &format!("/tasks?{}", of_stack(&stack))).await?;
    if services.is_empty() && tasks.is_empty() {
        return Err(no_stack(&stack));
    }
    let nodes = docker_list(&api, "/nodes").await?;
    paged(&call, listing::tasks(&tasks, &services, &nodes), "id")
}

/// `DELETE /v2/targets/{target}/stacks/{stack}`.
pub(crate) async fn remove(front: &Arc<Front>, call: Call) -> Answered {
    let (target, stack) = (call.hole("target"), call.hole("stack"));
    let asker = Asker::of(&call);
    let api = api_of(front, &target, &request_id(&call)).await?;
    let swarm = swarm_of(front)?;
    let view = swarm::read(swarm).await?;
    let found = stack_of(&view, &target, &stack);
    if_match(&call.parts.headers, "stack", found.as_ref().map(|it| it.version))?;
    if found.is_none() {
        let observed = observe(&api, &stack).await?;
        let nothing = herder_compose::Desired { stack: stack.clone(), ..Default::default() };
        let plan = Plan::of(&nothing, &observed, &BTreeMap::new(), true, &mut || [0; 16]);
        if plan.is_empty() {
            return Err(no_stack(&stack));
        }
    }
    let timeout = match call.query.get("timeout") {
        None => 60,
        Some(text) => text.parse().map_err(|_| Problem::bad_request(format!("timeout: `{text}` is no number")))?,
    };
    let begun = write(
        front,
        &asker,
        &target,
        &stack,
        Wish::Remove { timeout_seconds: timeout, volumes: call.query.flag("volumes") },
    )
    .await?;
    reply_of(front, &asker, &begun.operation, Vec::new(), StatusCode::OK).await
}

/// `GET …/stacks/{stack}/revisions`.
pub(crate) async fn list_revisions(front: &Arc<Front>, call: Call) -> Answered {
    let (target, stack) = (call.hole("target"), call.hole("stack"));
    let view = swarm::read(swarm_of(front)?).await?;
    let present = stack_of(&view, &target, &stack).ok_or_else(|| no_stack(&stack))?.record.revision;
    let all = revisions(&view, &target, &stack);
    let all = all.iter().map(|it| {
        let mut value = shown::revision(it);
        value["present"] = (it.record.number == present).into();
        value
    });
    paged(&call, all.collect(), "number")
}

/// `GET …/stacks/{stack}/revisions/{number}`: with the canonical file. Contents of secrets are not in it.
pub(crate) async fn revision(front: &Arc<Front>, call: Call) -> Answered {
    let (target, stack, number) = (call.hole("target"), call.hole("stack"), call.hole("number"));
    let view = swarm::read(swarm_of(front)?).await?;
    let all = revisions(&view, &target, &stack);
    let found = all.iter().find(|it| it.record.number.to_string() == number);
    let found = found.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "revision_not_found", format!("stack {stack} has no revision {number}"))
    })?;
    let loaded = load(&found.record.bundle, Some(&stack)).await?;
    let mut value = shown::revision(found);
    value["canonical"] = loaded.canonical;
    value["yaml"] = loaded.canonical_yaml.into();
    ok(&value)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AskedRollback {
    /// 0: the one before the present.
    revision: u64,
    options: AskedOptions,
}

/// `POST …/stacks/{stack}/rollback`.
pub(crate) async fn rollback(front: &Arc<Front>, mut call: Call) -> Answered {
    let asked: AskedRollback = read(&mut call).await?;
    let (target, stack) = (call.hole("target"), call.hole("stack"));
    let asker = Asker::of(&call);
    api_of(front, &target, "").await?;
    let wish = Wish::Rollback { revision: asked.revision, options: asked.options.read()? };
    let begun = write(front, &asker, &target, &stack, wish).await?;
    reply_of(front, &asker, &begun.operation, Vec::new(), StatusCode::OK).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedScale {
    replicas: u64,
}

/// `POST …/services/{service}/scale`.
pub(crate) async fn scale(front: &Arc<Front>, mut call: Call) -> Answered {
    let AskedScale { replicas } = read(&mut call).await?;
    change_service(front, call, |name, spec| match spec["Mode"].get_mut("Replicated") {
        Some(mode) => {
            mode["Replicas"] = replicas.into();
            Ok(())
        }
        None => {
            Err(Problem::bad_request(format!("service {name} is not replicated; it has no number of tasks to set")))
        }
    })
    .await
}

/// `POST …/services/{service}/restart`.
pub(crate) async fn restart(front: &Arc<Front>, call: Call) -> Answered {
    change_service(front, call, |_, spec| {
        let forced = spec["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or(0);
        spec["TaskTemplate"]["ForceUpdate"] = (forced + 1).into();
        Ok(())
    })
    .await
}

async fn change_service(
    front: &Arc<Front>,
    call: Call,
    change: impl Fn(&str, &mut Value) -> Result<(), Problem>,
) -> Answered {
    let (target, stack, service) = (call.hole("target"), call.hole("stack"), call.hole("service"));
    let api = api_of(front, &target, &request_id(&call)).await?;
    let prefix = format!("{stack}_");
    let name = if service.starts_with(&prefix) { service } else { format!("{prefix}{service}") };
    let there = docker(&api, Method::GET, &format!("/services/{name}"), None).await?;
    if there["Spec"]["Labels"][herder_compose::STACK_LABEL] != stack.as_str() {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "service_not_found",
            format!("stack {stack} has no service {name}"),
        ));
    }
    let mut spec = there["Spec"].clone();
    change(&name, &mut spec)?;
    let (id, version) = (there["ID"].as_str().unwrap_or_default(), there["Version"]["Index"].as_u64().unwrap_or(0));
    let path = format!("/services/{id}/update?version={version}");
    if let Err(problem) = docker(&api, Method::POST, &path, Some(&spec)).await {
        // One engine has nobody else who goes back.
        if matches!(api, Reach::Engine(..)) {
            docker(&api, Method::POST, &path, Some(&there["Spec"])).await?;
            api.settle(&stack).await?;
        }
        return Err(problem);
    }
    api.settle(&stack).await?;
    ok(&json!({"service": name}))
}
