//! Services and tasks of a stack as tables show them, made of the Docker API's answers. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::status::status;

/// The services of a stack with how they are.
pub fn services(services: &[Value], tasks: &[Value]) -> Vec<Value> {
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
pub fn tasks(tasks: &[Value], services: &[Value], nodes: &[Value]) -> Vec<Value> {
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
