//! Records of stacks as the stack API shows them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use herder_compose::STACK_LABEL;
use herder_deploy::{Action, Plan, status};
use herder_stacks::{Found, Operation, Revision, Stack};
use serde_json::{Value, json};

pub(crate) fn operation(found: &Found<Operation>) -> Value {
    let it = &found.record;
    let steps = it.steps.iter().enumerate().map(|(n, step)| {
        json!({"n": n + 1, "action": step.action, "kind": step.kind, "subject": step.subject, "state": step.state})
    });
    json!({
        "id": found.id,
        "kind": it.verb,
        "target": it.target,
        "stack": it.stack,
        "revision": it.revision,
        "state": it.state,
        "by": it.by,
        "started": it.started,
        "finished": if it.finished.is_empty() { Value::Null } else { it.finished.clone().into() },
        "steps": steps.collect::<Vec<_>>(),
        "log": it.log,
        "log_dropped": it.log_dropped,
        "cancel": it.cancel,
        "late": it.late,
        "error": if it.error.is_empty() { Value::Null } else { it.error.clone().into() },
    })
}

pub(crate) fn stack(found: &Found<Stack>) -> Value {
    let it = &found.record;
    let text = |text: &String| if text.is_empty() { Value::Null } else { text.clone().into() };
    json!({
        "id": found.id,
        "name": it.stack,
        "target": it.target,
        "state": it.state,
        "revision": it.revision,
        "last_revision": it.last,
        "operation": text(&it.operation),
        "error": text(&it.error),
        "by": it.by,
        "created": found.created_at,
        "updated": found.updated_at,
    })
}

/// Stacks that were made otherwise, by the labels of services: Docker's own client keeps no record.
pub(crate) fn unrecorded(target: &str, known: &BTreeSet<String>, services: &[Value]) -> Vec<Value> {
    let names = services.iter().filter_map(|it| it["Spec"]["Labels"][STACK_LABEL].as_str());
    let names: BTreeSet<&str> = names.filter(|it| !known.contains(*it)).collect();
    let record = |name: &str| {
        json!({
            "id": null, "name": name, "target": target, "state": "active", "revision": 0, "last_revision": 0,
            "operation": null, "error": null, "by": "", "created": null, "updated": null,
        })
    };
    names.into_iter().map(record).collect()
}

/// A revision without what its files and variables hold: both may be secrets.
pub(crate) fn revision(found: &Found<Revision>) -> Value {
    let it = &found.record;
    json!({
        "number": it.number,
        "target": it.target,
        "stack": it.stack,
        "by": it.by,
        "created": found.created_at,
        "outcome": it.outcome,
        "repeats": it.repeats,
        "options": it.options,
        "files": it.bundle.files.iter().filter(|(_, file)| file.is_some()).map(|(path, _)| path).collect::<Vec<_>>(),
        "variables": it.bundle.environment.keys().collect::<Vec<_>>(),
        "images": it.images,
    })
}

pub(crate) fn plan(plan: &Plan) -> Value {
    let changes = plan.steps.iter().map(|step| {
        let fields = step.fields.iter().map(|it| json!({"name": it.name, "old": it.old, "new": it.new}));
        json!({"action": step.action, "kind": step.kind, "name": step.name, "fields": fields.collect::<Vec<_>>()})
    });
    let of = |action: Action| plan.steps.iter().filter(|step| step.action == action).count();
    json!({
        "stack": plan.stack,
        "changes": changes.collect::<Vec<_>>(),
        "create": of(Action::Create),
        "update": of(Action::Update),
        "remove": of(Action::Remove),
        "keep": of(Action::Keep),
        "notes": plan.notes,
        "refused": plan.refused,
    })
}

/// The services of a stack with how they are.
pub(crate) fn services(services: &[Value], tasks: &[Value]) -> Vec<Value> {
    let mut of: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for task in tasks {
        of.entry(task["ServiceID"].as_str().unwrap_or_default()).or_default().push(task.clone());
    }
    let mut shown: Vec<Value> = services
        .iter()
        .map(|service| {
            let tasks = of.remove(service["ID"].as_str().unwrap_or_default()).unwrap_or_default();
            let spec = &service["Spec"];
            let mode = &spec["Mode"];
            let word = [("Global", "global"), ("ReplicatedJob", "replicated-job"), ("GlobalJob", "global-job")];
            let word = word.iter().find(|(key, _)| mode.get(*key).is_some()).map_or("replicated", |it| it.1);
            let wanted = tasks.iter().filter(|it| matches!(it["DesiredState"].as_str(), Some("running" | "complete")));
            let nodes: BTreeSet<&str> = wanted.filter_map(|it| it["NodeID"].as_str()).collect();
            let status = status(service, &tasks, nodes.len() as u64);
            let ports = service["Endpoint"]["Ports"].as_array().cloned().unwrap_or_default();
            let ports = ports.iter().map(|port| {
                json!({"published": port["PublishedPort"], "target": port["TargetPort"], "protocol": port["Protocol"],
                    "mode": port["PublishMode"]})
            });
            json!({
                "id": service["ID"],
                "name": spec["Name"],
                "mode": word,
                "image": spec["TaskTemplate"]["ContainerSpec"]["Image"],
                "desired": status.wanted,
                "running": status.done,
                "state": status.state,
                "error": status.failure.map(|it| it.message),
                "update": service["UpdateStatus"]["State"],
                "ports": ports.collect::<Vec<_>>(),
            })
        })
        .collect();
    shown.sort_by_key(|it| it["name"].as_str().unwrap_or_default().to_owned());
    shown
}

/// Tasks with the names of their services and nodes.
pub(crate) fn tasks(tasks: &[Value], services: &[Value], nodes: &[Value]) -> Vec<Value> {
    let name_of = |id: &Value| {
        let service = services.iter().find(|it| it["ID"] == *id);
        service.map_or(Value::Null, |it| it["Spec"]["Name"].clone())
    };
    let host_of = |id: &Value| {
        let node = nodes.iter().find(|it| it["ID"] == *id);
        node.map_or(Value::Null, |it| it["Description"]["Hostname"].clone())
    };
    let mut shown: Vec<Value> = tasks
        .iter()
        .map(|task| {
            json!({
                "id": task["ID"],
                "service": name_of(&task["ServiceID"]),
                "slot": task["Slot"],
                "node": host_of(&task["NodeID"]),
                "node_id": task["NodeID"],
                "image": task["Spec"]["ContainerSpec"]["Image"],
                "state": task["Status"]["State"],
                "desired_state": task["DesiredState"],
                "message": task["Status"]["Message"],
                "error": task["Status"]["Err"],
                "container": task["Status"]["ContainerStatus"]["ContainerID"],
                "since": task["Status"]["Timestamp"],
            })
        })
        .collect();
    // The newest of a slot first, as Docker's client shows them.
    shown.sort_by(|a, b| {
        let key = |it: &Value| {
            (it["service"].as_str().unwrap_or_default().to_owned(), it["slot"].as_u64(), it["node_id"].to_string())
        };
        let since = |it: &Value| it["since"].as_str().unwrap_or_default().to_owned();
        key(a).cmp(&key(b)).then_with(|| since(b).cmp(&since(a)))
    });
    shown
}
