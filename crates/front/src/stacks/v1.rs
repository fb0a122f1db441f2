//! `/v1`: the calls of MasterMind's Service Manager. Each names its engine; nothing of the call is kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use herder_compose::Pins;
use herder_deploy::{Fault, Journal, Settings, apply, listing, remove};
use herder_stacks::{Bundle, DeployOptions, File, OWN, pins};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::Inside;
use super::asked::load;
use super::problem::Problem;
use super::python::repr;
use super::reach::Reach;
use super::remote::{Pem, Remote};
use super::v2::{Answered, Compared, compare, docker, docker_list, of_stack, request_id};
use crate::{Call, Front, Reply, call, guard, swarm};

/// Bytes of a request at most.
const BODY_BYTES_MAX: usize = 16 << 20;
/// The time for a deployment within one request.
const DEPLOY_TIME_MAX: Duration = Duration::from_secs(600);
/// The time for the end of a stack's tasks.
const REMOVE_TIME_MAX: Duration = Duration::from_secs(30);
/// The file that `compose-file` is.
const MAIN: &str = "docker-compose.yml";

/// A status and the text of the original.
type Words = (u16, &'static str);

const NO_CONNECTION: Words = (400, "Connection error, please check if the Docker engine is reachable.");
const NO_CONNECTION_FOR_NETWORKS: Words = (503, "Connection error - please check if the Docker engine is reachable.");
const NETWORK_NOT_CREATED: Words = (409, "Error creating network on Swarm.");
const VOLUME_NOT_CREATED: Words = (409, "Error creating volume on Swarm.");
const NETWORK_NOT_DELETED: Words = (500, "Unexpected error deleting network on Swarm.");
const VOLUME_NOT_DELETED: Words = (409, "Error deleting volume on Swarm.");
const DEPLOY_FAILED: &str = "Error Deploying Service";
/// The original broke down here.
const UNUSABLE: &str = "The answer of the Docker engine cannot be used.";

/// A request as the original takes it.
struct Asked {
    body: Map<String, Value>,
    /// Texts of Python in place of JSON values.
    is_compat: bool,
    request_id: String,
    /// The door's own address, as the client names it.
    host: String,
}

impl Asked {
    async fn read(mut call: Call) -> Result<Asked, Problem> {
        guard::is_no_form(&call.parts.headers)?;
        let bytes = call.bytes(BODY_BYTES_MAX).await?;
        let body = match bytes.is_empty() {
            true => Value::Object(Map::new()),
            false => {
                serde_json::from_slice(&bytes).map_err(|error| Problem::bad_request(format!("no JSON: {error}")))?
            }
        };
        let Value::Object(body) = body else { return Err(Problem::bad_request("the body is no JSON object")) };
        let header = |name: &str| call.parts.headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
        let is_compat = header("x-compat") == "mastermind" || call.query.get("compat") == Some("mastermind");
        let host = header("host").to_owned();
        Ok(Asked { body, is_compat, request_id: request_id(&call), host })
    }

    fn text(&self, key: &str) -> &str {
        self.body.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn required(&self, key: &str) -> Result<&str, Problem> {
        match self.body.get(key).and_then(Value::as_str) {
            Some(text) => Ok(text),
            None => Err(Problem::bad_request(format!("'{key}' is a required property"))),
        }
    }

    fn pem(&self) -> Pem {
        let text = |key: &str| self.text(key).to_owned();
        Pem { ca: text("ca-cert"), cert: text("cert"), key: text("cert-key") }
    }

    /// The engine that the call names. `no_connection` is the status and the text of an engine that does not answer.
    async fn target(&self, front: &Arc<Front>, no_connection: Words) -> Result<Reach, Refusal> {
        let url = self.required("engine-url")?.trim();
        let addr = match url.split_once("://") {
            None if url.is_empty() => "",
            Some(("herder", _)) => "",
            Some(("tcp" | "http" | "https", addr)) => addr.trim_end_matches('/'),
            Some((scheme, _)) => {
                let detail = format!("engine-url: {scheme}:// is refused; use tcp://HOST:PORT");
                return Err(Refusal::new(no_connection.0, no_connection.1, detail));
            }
            None => url,
        };
        if addr.is_empty() || addr.eq_ignore_ascii_case(&self.host) {
            return Ok(Reach::Own(Inside::new(front, &self.request_id)));
        }
        let pem = self.pem();
        let missing = pem.missing();
        if !missing.is_empty() {
            let detail =
                format!("{} is missing; send ca-cert, cert and cert-key, or none of them", missing.join(" and "));
            return Err(Refusal::new(400, no_connection.1, detail));
        }
        let addr = if addr.contains(':') {
            addr.to_owned()
        } else {
            format!("{addr}:{}", if pem.ca.is_empty() { 2375 } else { 2376 })
        };
        let remote = Remote::connect(front, &addr, &pem).await;
        let remote = remote.map_err(|fault| Refusal::of(fault.into(), no_connection, no_connection))?;
        Ok(Reach::Remote(Box::new(remote)))
    }
}

/// A refusal in the original's words, with the cause in ours.
struct Refusal {
    status: u16,
    message: String,
    detail: String,
    errors: Option<Box<Value>>,
}

impl Refusal {
    fn new(status: u16, message: &str, detail: impl Into<String>) -> Refusal {
        Refusal { status, message: message.to_owned(), detail: detail.into(), errors: None }
    }

    /// A problem in the original's words: `no_connection` where the engine gives no usable answer, else `failed`.
    fn of(problem: Problem, no_connection: Words, failed: Words) -> Refusal {
        let (status, message) = match problem.code {
            "bad_answer" => (500, UNUSABLE),
            "engine_version" | "not_a_manager" | "swarm_inactive" | "swarm_locked" => (400, DEPLOY_FAILED),
            code if code.starts_with("tls_") => no_connection,
            "target_unreachable" | "target_timeout" => no_connection,
            _ => failed,
        };
        Refusal::new(status, message, problem.detail)
    }

    fn reply(self) -> Reply {
        let mut answer = json!({"status": self.status, "message": self.message, "detail": self.detail});
        if let Some(errors) = self.errors {
            answer["errors"] = *errors;
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        call::json(status, &answer)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        let detail = problem.detail;
        // A problem document of its own has no message of the original.
        Refusal { status: problem.status.as_u16(), message: String::new(), detail, errors: None }
    }
}

type Outcome = Result<Reply, Refusal>;

fn answer(outcome: Outcome) -> Answered {
    match outcome {
        Ok(reply) => Ok(reply),
        Err(refusal) if refusal.message.is_empty() => {
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(Problem::new(status, "bad_request", refusal.detail))
        }
        Err(refusal) => Ok(refusal.reply()),
    }
}

fn done(status: u16, message: &str, more: Value) -> Outcome {
    let mut answer = json!({"status": status, "message": message});
    if let (Some(answer), Value::Object(more)) = (answer.as_object_mut(), more) {
        answer.extend(more);
    }
    Ok(call::json(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), &answer))
}

/// `POST /v1/stack`.
pub(crate) async fn deploy(front: &Arc<Front>, call: Call) -> Answered {
    let asked = Asked::read(call).await?;
    answer(deploy_stack(front, &asked).await)
}

async fn deploy_stack(front: &Arc<Front>, asked: &Asked) -> Outcome {
    let stack = asked.required("name")?.to_owned();
    asked.required("engine-url")?;
    let (bundle, notes) = bundle(asked)?;
    let loaded = load(&bundle, Some(&stack)).await.map_err(|problem| Refusal {
        errors: problem.more.get("errors").cloned().map(Box::new),
        ..Refusal::new(400, "Invalid yaml file.", problem.detail)
    })?;
    let api = asked.target(front, NO_CONNECTION).await?;
    external(&api, &loaded.desired, &loaded.canonical).await?;
    let names: Vec<String> = loaded.services.iter().map(|name| format!("{stack}_{name}")).collect();
    let options = DeployOptions { prune: true, resolve: "always".into(), ..DeployOptions::default() };
    let failed = |problem: Problem| Refusal::of(problem, NO_CONNECTION, (400, DEPLOY_FAILED));
    let pins = match (&api, front.swarm()) {
        (Reach::Own(_), Some(swarm)) => {
            let view = swarm::read(swarm).await.map_err(|error| failed(error.into()))?;
            pins(&view, OWN, &stack)
        }
        _ => Pins::new(),
    };
    let Compared { plan, desired, observed, .. } = compare(&api, loaded, &pins, &options).await.map_err(failed)?;
    if !plan.refused.is_empty() {
        return Err(Refusal::new(400, DEPLOY_FAILED, plan.refused.join("; ")));
    }
    // The original does not wait for tasks, and its clients poll.
    let settings = Settings { wait: false, timeout: DEPLOY_TIME_MAX, keep: false };
    let journal = Journal::of(&plan, &observed);
    let applied = apply(&api, &desired, &observed, &plan, &journal, &settings, &mut |_| {}).await;
    applied.map_err(|fault| failed(fault.into()))?;
    let mut more = json!({"services": names});
    if !notes.is_empty() {
        more["detail"] = notes.join("; ").into();
    }
    done(201, "Stack successfully deployed!", more)
}

/// Refuses networks and volumes that must exist and do not, in the original's words.
async fn external(api: &Reach, desired: &herder_compose::Desired, canonical: &Value) -> Result<(), Refusal> {
    let unreachable = |problem: Problem| Refusal::of(problem, NO_CONNECTION, NO_CONNECTION);
    if !desired.external_networks.is_empty() {
        let networks = docker_list(api, "/networks").await.map_err(unreachable)?;
        let missing =
            desired.external_networks.iter().find(|name| networks.iter().all(|it| it["Name"] != name.as_str()));
        if let Some(name) = missing {
            return Err(Refusal::new(400, &format!("External network {name} not found."), "create it first"));
        }
    }
    let volumes = canonical["volumes"].as_object().into_iter().flatten().filter(|(_, it)| it["external"] == true);
    let names: Vec<&str> = volumes.map(|(key, it)| it["name"].as_str().unwrap_or(key)).collect();
    if !names.is_empty() {
        let there = docker(api, Method::GET, "/volumes", None).await.map_err(unreachable)?;
        let there = there["Volumes"].as_array().cloned().unwrap_or_default();
        if let Some(name) = names.iter().find(|name| there.iter().all(|it| it["Name"] != **name)) {
            return Err(Refusal::new(400, &format!("External volume {name} not found."), "create it first"));
        }
    }
    Ok(())
}

/// The files of a request, with notes about what was read otherwise than it is written.
fn bundle(asked: &Asked) -> Result<(Bundle, Vec<String>), Refusal> {
    let mut notes = Vec::new();
    let mut compose = asked.text("compose-file").to_owned();
    if compose.lines().any(|line| line.trim_start().starts_with("workdir:")) {
        let lines = compose.lines().map(|line| {
            let blanks = line.len() - line.trim_start().len();
            match line.trim_start().strip_prefix("workdir:") {
                Some(rest) => format!("{}working_dir:{rest}\n", &line[..blanks]),
                None => format!("{line}\n"),
            }
        });
        compose = lines.collect();
        notes.push("workdir is read as working_dir".to_owned());
    }
    let mut files = BTreeMap::from([(MAIN.to_owned(), Some(File::Text(compose)))]);
    let given = asked.body.get("external_files").or_else(|| asked.body.get("external-files"));
    let given = given.and_then(Value::as_array).cloned().unwrap_or_default();
    for file in given.iter().filter_map(Value::as_object) {
        if let (Some(name), Some(base64)) = (text_of(file, "name"), text_of(file, "content_base64")) {
            files.insert(name.to_owned(), Some(File::Base64 { base64: base64.to_owned() }));
            continue;
        }
        for (name, content) in file {
            let Some(text) = content.as_str() else {
                let detail = format!("external_files: the content of {name} is no text");
                return Err(Refusal::new(400, "Error Deploying Service", detail));
            };
            files.insert(name.clone(), Some(File::Text(text.to_owned())));
        }
    }
    let environment = variables(asked.body.get("compose-vars").unwrap_or(&Value::Null));
    let environment = environment.map_err(|detail| Refusal::new(400, "Invalid yaml file.", detail))?;
    Ok((Bundle { files, main: vec![MAIN.to_owned()], environment, ..Bundle::default() }, notes))
}

fn text_of<'a>(file: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    file.get(key).and_then(Value::as_str)
}

/// The variables of `compose-vars`: a JSON object, or lines `NAME: VALUE` whose values are taken as they are typed.
fn variables(given: &Value) -> Result<BTreeMap<String, String>, String> {
    let of_map = |map: &Map<String, Value>| {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        map.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    };
    let text = match given {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(map) => return Ok(of_map(map)),
        Value::String(text) => text,
        _ => return Err("compose-vars is neither a text nor an object".into()),
    };
    if let Ok(Value::Object(map)) = serde_json::from_str(text) {
        return Ok(of_map(&map));
    }
    let mut variables = BTreeMap::new();
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim() == "---" {
            continue;
        }
        let is_name = |name: &str| {
            name.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_')
                && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
        };
        let Some((name, value)) = line.split_once(':').filter(|(name, _)| is_name(name)) else {
            return Err(format!("compose-vars: line {} is not `NAME: VALUE`", n + 1));
        };
        let value = value.strip_prefix(' ').unwrap_or(value).trim_end();
        let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        variables.insert(name.to_owned(), inner.unwrap_or(value).to_owned());
    }
    Ok(variables)
}

/// `POST /v1/stack/{name}`.
pub(crate) async fn inspect(front: &Arc<Front>, call: Call) -> Answered {
    let stack = call.hole("name");
    let asked = Asked::read(call).await?;
    answer(stack_status(front, &asked, &stack).await)
}

async fn stack_status(front: &Arc<Front>, asked: &Asked, stack: &str) -> Outcome {
    let api = asked.target(front, NO_CONNECTION).await?;
    let failed = |problem: Problem| Refusal::of(problem, NO_CONNECTION, NO_CONNECTION);
    let services = docker_list(&api, &format!("/services?{}", of_stack(stack))).await.map_err(failed)?;
    let tasks = docker_list(&api, &format!("/tasks?{}", of_stack(stack))).await.map_err(failed)?;
    let mut items = Vec::new();
    for service in listing::services(&services, &tasks) {
        let there = services.iter().find(|it| it["ID"] == service["id"]);
        // A task with a health check runs once it is healthy.
        let has_check = there.is_some_and(|it| {
            let test = &it["Spec"]["TaskTemplate"]["ContainerSpec"]["Healthcheck"]["Test"];
            test.as_array().is_some_and(|test| !test.is_empty() && test[0] != "NONE")
        });
        let running = tasks.iter().filter(|task| {
            task["ServiceID"] == service["id"]
                && task["Status"]["State"] == "running"
                && task["DesiredState"] == "running"
        });
        let health = running.map(|task| {
            json!({"ContainerID": task["Status"]["ContainerStatus"]["ContainerID"],
                "Health": if has_check { "healthy" } else { "" }})
        });
        let health: Vec<Value> = health.collect();
        let status = match service["mode"].as_str() {
            Some("global" | "global-job") => "Global".to_owned(),
            _ => format!("{}/{}", health.len(), service["desired"]),
        };
        let mut item = json!({"name": service["name"], "status": status, "health": health});
        if !asked.is_compat {
            for key in ["mode", "image", "desired", "running", "update", "error", "ports"] {
                item[key] = service[key].clone();
            }
        }
        items.push(item);
    }
    let items = Value::Array(items);
    done(200, "", json!({"stack_status": if asked.is_compat { repr(&items).into() } else { items }}))
}

/// `POST /v1/stack/delete/{name}`.
pub(crate) async fn delete(front: &Arc<Front>, call: Call) -> Answered {
    let stack = call.hole("name");
    let asked = Asked::read(call).await?;
    answer(delete_stack(front, &asked, &stack).await)
}

async fn delete_stack(front: &Arc<Front>, asked: &Asked, stack: &str) -> Outcome {
    let api = asked.target(front, NO_CONNECTION).await?;
    match remove(&api, stack, REMOVE_TIME_MAX, None, &mut |_| {}).await {
        // Tasks that take longer to end do so by themselves.
        Ok(_) | Err(Fault::Late { .. }) => done(200, &format!("Stack {stack} deleted."), Value::Null),
        Err(fault) => Err(Refusal::of(fault.into(), NO_CONNECTION, (400, "Error deleting stack."))),
    }
}

/// `POST /v1/swarm`.
pub(crate) async fn swarm(front: &Arc<Front>, call: Call) -> Answered {
    let asked = Asked::read(call).await?;
    answer(swarm_status(front, &asked).await)
}

async fn swarm_status(front: &Arc<Front>, asked: &Asked) -> Outcome {
    let api = asked.target(front, NO_CONNECTION).await?;
    let nodes = docker_list(&api, "/nodes").await;
    let nodes = nodes.map_err(|problem| Refusal::of(problem, NO_CONNECTION, NO_CONNECTION))?;
    let of = |role: &str| -> Vec<Value> {
        let nodes = nodes.iter().filter(|it| it["Spec"]["Role"] == role);
        let node = nodes.map(|it| {
            json!({"resources": it["Description"]["Resources"], "availability": it["Spec"]["Availability"],
                "hostname": it["Description"]["Hostname"], "address": it["Status"]["Addr"]})
        });
        node.collect()
    };
    let status = json!({"managers": of("manager"), "workers": of("worker")});
    done(200, "", json!({"swarm_status": if asked.is_compat { repr(&status).into() } else { status }}))
}

/// A kind of objects that clients list, create and delete.
#[derive(Clone, Copy)]
pub(crate) enum Simple {
    Network,
    Volume,
}

impl Simple {
    fn word(self) -> &'static str {
        match self {
            Simple::Network => "Network",
            Simple::Volume => "Volume",
        }
    }

    async fn all(self, api: &Reach) -> Result<Vec<Value>, Problem> {
        Ok(match self {
            Simple::Network => {
                let all = docker_list(api, "/networks").await?;
                all.iter().map(|it| json!({"name": it["Name"], "id": it["Id"]})).collect()
            }
            Simple::Volume => {
                let all = docker(api, Method::GET, "/volumes", None).await?;
                let all = all["Volumes"].as_array().cloned().unwrap_or_default();
                all.iter().map(|it| json!({"name": it["Name"], "id": it["Name"]})).collect()
            }
        })
    }
}

fn no_list(problem: Problem) -> Refusal {
    Refusal::of(problem, NO_CONNECTION_FOR_NETWORKS, NO_CONNECTION_FOR_NETWORKS)
}

/// `GET /v1/network`, `POST /v1/get_networks`, and the same for volumes.
pub(crate) async fn list(front: &Arc<Front>, call: Call, kind: Simple) -> Answered {
    let asked = Asked::read(call).await?;
    answer(list_all(front, &asked, kind, "").await)
}

async fn list_all(front: &Arc<Front>, asked: &Asked, kind: Simple, note: &str) -> Outcome {
    let api = asked.target(front, NO_CONNECTION_FOR_NETWORKS).await?;
    let all = kind.all(&api).await.map_err(no_list)?;
    let all = Value::Array(all);
    let all = if asked.is_compat { Value::String(all.to_string()) } else { all };
    let key = if matches!(kind, Simple::Network) { "networks" } else { "volumes" };
    let mut more = Map::from_iter([(key.to_owned(), all)]);
    if !note.is_empty() {
        more.insert("detail".to_owned(), note.into());
    }
    done(200, "", Value::Object(more))
}

/// `POST /v1/network`, `POST /v1/create_network`, and the same for volumes. Without a name, older callers mean the list.
pub(crate) async fn create(front: &Arc<Front>, call: Call, kind: Simple) -> Answered {
    let asked = Asked::read(call).await?;
    if !asked.body.contains_key("name") {
        return answer(list_all(front, &asked, kind, "without `name`, this is the list").await);
    }
    answer(create_one(front, &asked, kind).await)
}

async fn create_one(front: &Arc<Front>, asked: &Asked, kind: Simple) -> Outcome {
    let name = asked.required("name")?;
    let api = asked.target(front, NO_CONNECTION_FOR_NETWORKS).await?;
    let (path, body) = match kind {
        Simple::Network => ("/networks/create", json!({"Name": name, "Driver": "overlay", "CheckDuplicate": true})),
        Simple::Volume => ("/volumes/create", json!({"Name": name})),
    };
    match docker(&api, Method::POST, path, Some(&body)).await {
        Ok(_) => done(201, &format!("{} created.", kind.word()), Value::Null),
        Err(problem) => {
            let failed = if matches!(kind, Simple::Network) { NETWORK_NOT_CREATED } else { VOLUME_NOT_CREATED };
            Err(Refusal::of(problem, NO_CONNECTION_FOR_NETWORKS, failed))
        }
    }
}

/// `DELETE /v1/network/delete`, and the same for volumes: by the exact name.
pub(crate) async fn delete_one(front: &Arc<Front>, call: Call, kind: Simple) -> Answered {
    let asked = Asked::read(call).await?;
    answer(delete_named(front, &asked, kind).await)
}

async fn delete_named(front: &Arc<Front>, asked: &Asked, kind: Simple) -> Outcome {
    let name = asked.required("name")?;
    let api = asked.target(front, NO_CONNECTION_FOR_NETWORKS).await?;
    let word = kind.word().to_lowercase();
    let all = kind.all(&api).await.map_err(no_list)?;
    let Some(there) = all.iter().find(|it| it["name"] == name) else {
        return Err(match kind {
            Simple::Network => Refusal::new(404, "Error deleting network - network not found.", name),
            Simple::Volume => {
                Refusal::new(VOLUME_NOT_DELETED.0, VOLUME_NOT_DELETED.1, format!("there is no volume {name}"))
            }
        });
    };
    let path = format!("/{word}s/{}", there["id"].as_str().unwrap_or_default());
    match docker(&api, Method::DELETE, &path, None).await {
        Ok(_) => done(200, &format!("{} deleted.", kind.word()), Value::Null),
        Err(problem) => {
            let failed = if matches!(kind, Simple::Network) { NETWORK_NOT_DELETED } else { VOLUME_NOT_DELETED };
            Err(Refusal::of(problem, NO_CONNECTION_FOR_NETWORKS, failed))
        }
    }
}

/// The status and the text of a call that meets a problem at its engine.
#[cfg(test)]
pub(super) fn words(problem: Problem) -> String {
    let refusal = Refusal::of(problem, NO_CONNECTION, (400, DEPLOY_FAILED));
    format!("{} {}", refusal.status, refusal.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_arrive_as_they_are_typed() {
        let check = |given: Value, expected: &str| {
            let text = match variables(&given) {
                Ok(all) => all.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("|"),
                Err(error) => error,
            };
            assert_eq!(text, expected);
        };
        check(json!(null), "");
        check(json!(""), "");
        check(json!("A: yes\nB: 08\nC: 1.10\nD: a: b\n"), "A=yes|B=08|C=1.10|D=a: b");
        check(json!("A: \"x\"\n# no\n\nB:y"), "A=x|B=y");
        check(json!(r#"{"A": 1, "B": true}"#), "A=1|B=true");
        check(json!({"A": "x", "B": null}), "A=x|B=");
        check(json!("- A"), "compose-vars: line 1 is not `NAME: VALUE`");
    }
}
