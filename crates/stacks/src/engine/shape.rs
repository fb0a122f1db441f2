//! Conversion between objects of a single engine and objects of the swarm API. Pure.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use herder_compose::STACK_LABEL;
use herder_decide::swarm::task::container::{self, File, NodeFacts, Overlays};
use herder_deploy::{Kind, config_digest};
use herder_model::swarm::{Assignments, Config, PortConfig, Secret, ServiceSpec, Task, TaskRecord};
use serde_json::{Value, json};
use std::sync::Arc;

/// The name of the service that a container is of.
pub(super) const SERVICE_LABEL: &str = "herder.service";
/// The service's specification, as JSON.
const SPEC_LABEL: &str = "herder.spec";
/// The number of the container within its service; 0 is never started.
const SLOT_LABEL: &str = "herder.slot";
/// Secrets and configs that were copied into the container: their names and labels.
const FILES_LABEL: &str = "herder.files";
/// Label with the parts of a network's declaration that an engine does not keep.
const NETWORK_LABEL: &str = "herder.network";
/// The end of the name of a container that another one has replaced.
pub(super) const FORMER: &str = ".former";
/// The id of the only node.
const NODE: &str = "engine";
/// Failed starts that are shown as failed tasks.
const FAILURES_MAX: u64 = 10;

fn label<'a>(container: &'a Value, key: &str) -> &'a str {
    let labels = if container["Labels"].is_object() { &container["Labels"] } else { &container["Config"]["Labels"] };
    labels[key].as_str().unwrap_or_default()
}

/// The name of a container in a list.
pub(super) fn name(container: &Value) -> &str {
    let name = container["Names"].get(0).unwrap_or(&container["Name"]);
    name.as_str().unwrap_or_default().trim_start_matches('/')
}

pub(super) fn is_former(container: &Value) -> bool {
    name(container).ends_with(FORMER)
}

pub(super) fn slot(container: &Value) -> u64 {
    label(container, SLOT_LABEL).parse().unwrap_or(0)
}

pub(super) fn spec(container: &Value) -> Value {
    serde_json::from_str(label(container, SPEC_LABEL)).unwrap_or_default()
}

/// The part of a specification that a container is made from.
pub(super) fn template(spec: &Value) -> Value {
    json!({"Task": spec["TaskTemplate"], "Ports": spec["EndpointSpec"], "Labels": spec["Labels"]})
}

/// Containers that a specification wants.
pub(super) fn wanted(spec: &Value) -> u64 {
    let mode = &spec["Mode"];
    let job = &mode["ReplicatedJob"];
    match () {
        () if mode.get("Global").is_some() || mode.get("GlobalJob").is_some() => 1,
        () if job.is_object() => job["TotalCompletions"].as_u64().or(job["MaxConcurrent"].as_u64()).unwrap_or(1),
        () => mode["Replicated"]["Replicas"].as_u64().unwrap_or(1),
    }
}

/// The services of containers, the newest first.
pub(super) fn services(containers: &[Value]) -> Vec<Value> {
    let names: BTreeSet<&str> =
        containers.iter().map(|it| label(it, SERVICE_LABEL)).filter(|it| !it.is_empty()).collect();
    let one = |service: &str| {
        let of: Vec<&Value> = containers.iter().filter(|it| label(it, SERVICE_LABEL) == service).collect();
        let mut spec = of.first().map(|it| spec(it)).unwrap_or_default();
        if let Some(mode) = spec["Mode"].get_mut("Replicated") {
            // One that was taken away by hand is missing.
            mode["Replicas"] = of.iter().filter(|it| slot(it) > 0).count().into();
        }
        let ports = spec["EndpointSpec"]["Ports"].clone();
        json!({"ID": service, "Version": {"Index": 1}, "Spec": spec, "Endpoint": {"Ports": ports}})
    };
    names.into_iter().map(one).collect()
}

/// The task that a container is, from its details. Failed starts before the present one are tasks of their own.
pub(super) fn tasks(container: &Value) -> Vec<Value> {
    if slot(container) == 0 {
        return Vec::new();
    }
    let state = &container["State"];
    let spec = spec(container);
    let is_job = spec["Mode"].get("ReplicatedJob").is_some() || spec["Mode"].get("GlobalJob").is_some();
    let code = state["ExitCode"].as_i64().unwrap_or(0);
    let health = state["Health"]["Status"].as_str().unwrap_or_default();
    let word = word(state);
    let failure = failure(state);
    let id = container["Id"].as_str().unwrap_or_default();
    let short = id.get(..25).unwrap_or(id);
    let task = |id: &str, word: &str, time: &Value| {
        json!({
            "ID": id, "ServiceID": label(container, SERVICE_LABEL), "Slot": slot(container), "NodeID": NODE,
            "Spec": spec["TaskTemplate"], "DesiredState": if is_job { "complete" } else { "running" },
            "Status": {
                "State": word, "Timestamp": time, "Err": if word == "failed" { failure.as_str() } else { "" },
                "ContainerStatus": {"ContainerID": container["Id"], "ExitCode": code},
            },
        })
    };
    let restarts = container["RestartCount"].as_u64().unwrap_or(0);
    // A container with a failed check stays as it is: that counts as often as a task that was given up.
    let failures = if health == "unhealthy" { FAILURES_MAX } else { restarts.min(FAILURES_MAX) };
    let mut all = vec![task(short, word, &state["StartedAt"])];
    if word != "running" && word != "complete" {
        all.extend((1..=failures).map(|n| task(&format!("{short}.{n}"), "failed", &state["FinishedAt"])));
    }
    all
}

/// The state of a task that a container is in.
fn word(state: &Value) -> &'static str {
    let health = state["Health"]["Status"].as_str().unwrap_or_default();
    match (state["Status"].as_str().unwrap_or_default(), health) {
        ("running", "starting") => "starting",
        ("running", "unhealthy") => "failed",
        ("running" | "paused", _) => "running",
        ("created", _) => "preparing",
        ("restarting", _) => "starting",
        ("exited", _) if state["ExitCode"].as_i64().unwrap_or(0) == 0 => "complete",
        _ => "failed",
    }
}

/// The reason of the last failure of a container.
fn failure(state: &Value) -> String {
    let health = state["Health"]["Status"].as_str().unwrap_or_default();
    match (health, state["Error"].as_str().unwrap_or_default(), state["ExitCode"].as_i64().unwrap_or(0)) {
        ("unhealthy", ..) => "task: unhealthy container".to_owned(),
        (_, "", 0) => "task: it ends at once, with exit code 0".to_owned(),
        (_, "", code) => format!("task: non-zero exit ({code})"),
        (_, error, _) => error.to_owned(),
    }
}

/// The state of a container after its start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It is being made, or the engine starts it again after a pause.
    Waiting,
    /// It runs, healthy or not yet checked.
    Running,
    /// It ended well, and is not started again.
    Complete,
    /// It ended, and is not started again; or its check failed.
    Failed,
}

/// The state after the start of a container, how often the engine started it again, and why it ended last.
pub(super) fn start(container: &Value) -> (Start, u64, String) {
    let state = &container["State"];
    let start = match (state["Status"].as_str().unwrap_or_default(), word(state)) {
        ("running" | "paused", "running" | "starting") => Start::Running,
        (_, "complete") => Start::Complete,
        (_, "failed") => Start::Failed,
        _ => Start::Waiting,
    };
    (start, container["RestartCount"].as_u64().unwrap_or(0), failure(state))
}

/// Secrets and configs that a container has: kind, name, object.
pub(super) fn files_of(container: &Value) -> Vec<(Kind, String, Value)> {
    let all: Vec<Value> = serde_json::from_str(label(container, FILES_LABEL)).unwrap_or_default();
    let file = |it: Value| {
        let kind = if it["Kind"] == "secret" { Kind::Secret } else { Kind::Config };
        let name = it["Name"].as_str().unwrap_or_default().to_owned();
        let object = json!({"ID": name, "Spec": {"Name": name, "Labels": it["Labels"]}});
        (kind, name, object)
    };
    all.into_iter().map(file).collect()
}

/// A secret or config as a list shows it. Of a config's content a digest is enough to compare.
pub(super) fn file(kind: Kind, body: &Value) -> Value {
    json!({"ID": body["Name"], "Spec": {"Name": body["Name"], "Labels": file_labels(kind, body)}})
}

fn file_labels(kind: Kind, body: &Value) -> Value {
    let mut labels = body["Labels"].clone();
    if kind == Kind::Config {
        let data = BASE64.decode(body["Data"].as_str().unwrap_or_default()).unwrap_or_default();
        let (key, digest) = config_digest(&data);
        labels[key] = digest.into();
    }
    labels
}

/// A network of an engine as one of a swarm.
pub(super) fn network(network: &mut Value) {
    let declared = network["Labels"][NETWORK_LABEL].as_str().map(str::to_owned);
    let declared: Option<Value> = declared.and_then(|text| serde_json::from_str(&text).ok());
    if let Some(labels) = network["Labels"].as_object_mut() {
        labels.remove(NETWORK_LABEL);
    }
    if network["Driver"] == "bridge" {
        network["Scope"] = "swarm".into();
    }
    if let Some(declared) = declared {
        for key in ["Driver", "Attachable", "Options"] {
            network[key] = declared[key].clone();
        }
    }
}

/// The body that makes a network on an engine. Networks of one engine are bridges.
pub(super) fn network_body(body: &Value) -> Value {
    let mut made = body.clone();
    let declared = json!({"Driver": body["Driver"], "Attachable": body["Attachable"], "Options": body["Options"]});
    made["Labels"][NETWORK_LABEL] = declared.to_string().into();
    if let Some(members) = made.as_object_mut() {
        members.remove("Attachable");
        if body["Driver"] == "overlay" || body["Driver"] == "" || body["Driver"].is_null() {
            members.insert("Driver".into(), "bridge".into());
            members.remove("Options");
        }
    }
    made
}

/// The engine as the only node.
pub(super) fn node(info: &Value) -> Value {
    json!({
        "ID": NODE, "Spec": {"Role": "manager", "Availability": "active"}, "Status": {"State": "ready", "Addr": ""},
        "Description": {
            "Hostname": info["Name"],
            "Resources": {"NanoCPUs": info["NCPU"].as_u64().unwrap_or(0) * 1_000_000_000, "MemoryBytes": info["MemTotal"]},
            "Engine": {"EngineVersion": info["ServerVersion"]},
        },
    })
}

/// Request to an engine to make a container.
pub(super) struct Made {
    pub(super) create: container::Create,
    pub(super) files: Vec<File>,
}

/// The name of a container, as Compose names them.
pub(super) fn container_name(service: &str, slot: u64) -> String {
    format!("{}-{slot}", service.replacen('_', "-", 1))
}

/// The container of a slot.
pub(super) fn made(
    spec: &Value,
    slot: u64,
    given: &BTreeMap<(Kind, String), Value>,
    info: &Value,
) -> Result<Made, String> {
    let service: ServiceSpec = serde_json::from_value(spec.clone()).map_err(|error| error.to_string())?;
    let name = container_name(&service.name, slot);
    let mut told = Assignments::default();
    let mut copied = Vec::new();
    for ((kind, name), body) in given {
        let mut body = body.clone();
        let labels = file_labels(*kind, &body);
        let is_used = uses(&service, *kind, name);
        if !is_used {
            continue;
        }
        copied.push(json!({"Kind": kind.word(), "Name": name, "Labels": labels}));
        if body["Data"].is_null() {
            body["Data"] = "".into();
        }
        let wrong = |error: serde_json::Error| format!("{} {name}: {error}", kind.word());
        if *kind == Kind::Secret {
            let spec = serde_json::from_value(body).map_err(wrong)?;
            told.secrets.push(Arc::new(Secret { id: name.clone(), spec, ..Secret::default() }));
        } else {
            let spec = serde_json::from_value(body).map_err(wrong)?;
            told.configs.push(Arc::new(Config { id: name.clone(), spec, ..Config::default() }));
        }
    }
    let ports = service.endpoint_spec.as_ref().map(|it| it.ports.clone()).unwrap_or_default();
    let host = |port: PortConfig| PortConfig { publish_mode: "host".into(), ..port };
    let task = Task {
        id: name.clone(),
        name: name.clone(),
        service_id: service.name.clone(),
        slot,
        node_id: NODE.into(),
        spec: Arc::new(service.task_template.clone()),
        ..Task::default()
    };
    let record = TaskRecord {
        task,
        service_name: service.name.clone(),
        ports: ports.into_iter().map(host).collect(),
        ..TaskRecord::default()
    };
    let text = |key: &str| info[key].as_str().unwrap_or_default().to_owned();
    let node =
        NodeFacts { id: NODE.into(), hostname: text("Name"), os: text("OSType"), architecture: text("Architecture") };
    let files = container::files(&record, &told, &node)?;
    let mut create = container::create(&record, &told, &node, &[], &Overlays::new())?;
    if let Some(labels) = create.body["Labels"].as_object_mut() {
        labels.retain(|key, _| !key.starts_with("com.docker.swarm."));
        labels.insert(SERVICE_LABEL.into(), service.name.as_str().into());
        labels.insert(SPEC_LABEL.into(), spec.to_string().into());
        labels.insert(SLOT_LABEL.into(), slot.to_string().into());
        labels.insert(FILES_LABEL.into(), Value::from(copied).to_string().into());
        labels.insert(STACK_LABEL.into(), spec["Labels"][STACK_LABEL].clone());
    }
    create.body["HostConfig"]["RestartPolicy"] = restart(&spec["TaskTemplate"]["RestartPolicy"], &spec["Mode"]);
    Ok(Made { create, files })
}

fn uses(service: &ServiceSpec, kind: Kind, name: &str) -> bool {
    let Some(container) = &service.task_template.container_spec else { return false };
    match kind {
        Kind::Secret => container.secrets.iter().any(|it| it.secret_name == name),
        _ => container.configs.iter().any(|it| it.config_name == name),
    }
}

/// The restart policy of an engine: containers live without herder.
fn restart(policy: &Value, mode: &Value) -> Value {
    let is_job = mode.get("ReplicatedJob").is_some() || mode.get("GlobalJob").is_some();
    let attempts = policy["MaxAttempts"].as_u64().unwrap_or(0);
    match policy["Condition"].as_str().unwrap_or(if is_job { "on-failure" } else { "any" }) {
        "none" => json!({"Name": "no"}),
        "on-failure" if is_job && attempts == 0 => json!({"Name": "on-failure", "MaximumRetryCount": JOB_ATTEMPTS}),
        "on-failure" => json!({"Name": "on-failure", "MaximumRetryCount": attempts}),
        _ if is_job => json!({"Name": "on-failure", "MaximumRetryCount": JOB_ATTEMPTS}),
        _ => json!({"Name": "always"}),
    }
}

/// Starts of a job that names no number of attempts.
const JOB_ATTEMPTS: u64 = 3;

/// A tar archive of files, with the folders that they are in.
pub(super) fn archive(files: &[File]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut folders: BTreeSet<String> = BTreeSet::new();
    for file in files {
        let path = file.target.trim_start_matches('/');
        let mut upto = String::new();
        let parts: Vec<&str> = path.split('/').collect();
        for part in &parts[..parts.len() - 1] {
            upto.push_str(part);
            upto.push('/');
            // Folders that every image has keep their own modes.
            if folders.insert(upto.clone()) && !COMMON_FOLDERS.contains(&upto.as_str()) {
                archive.append_data(&mut head(tar::EntryType::Directory, 0o755, (0, 0), 0), &upto, &[][..])?;
            }
        }
        let mut head = head(tar::EntryType::Regular, file.mode, (file.uid, file.gid), file.data.len() as u64);
        archive.append_data(&mut head, path, file.data.as_slice())?;
    }
    archive.into_inner()
}

/// Folders whose modes are the image's business.
const COMMON_FOLDERS: [&str; 12] =
    ["etc/", "run/", "var/", "usr/", "tmp/", "opt/", "home/", "root/", "srv/", "var/lib/", "var/run/", "usr/share/"];

fn head(kind: tar::EntryType, mode: u32, owner: (u32, u32), size: u64) -> tar::Header {
    let mut head = tar::Header::new_gnu();
    head.set_entry_type(kind);
    head.set_mode(mode);
    head.set_uid(owner.0.into());
    head.set_gid(owner.1.into());
    head.set_size(size);
    head
}
