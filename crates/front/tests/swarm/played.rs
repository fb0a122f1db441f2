//! Plays the recorded effects of a running swarm: states of tasks, progress of updates.

use std::sync::Arc;

use herder_model::swarm::{
    Change, Kind, NodeDescription, NodeRecord, ServiceRecord, Task, TaskRecord, UpdateStatus, Version,
};
use serde_json::Value;

use crate::compare::Known;
use crate::fake::World;

/// Creates the objects of the recorded answer before its question.
pub(crate) fn play(world: &World, method: &str, path: &str, recorded: &Value, command: &str, known: &Known) {
    let bare = path.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = bare.trim_start_matches('/').split('/').skip(1).collect();
    let body = recorded.get("response_body").unwrap_or(&Value::Null);
    match (method, segments.as_slice()) {
        ("GET", ["tasks"]) => tasks(world, path, body, known),
        ("GET", ["tasks", _]) if recorded["status"] == 200 => put_task(world, body, known, false),
        ("GET", ["tasks", id, "logs"]) => of_which_service(world, id, command),
        ("GET", ["services", name, "logs"]) => has_a_task(world, name),
        ("GET", ["nodes", _]) if recorded["status"] == 200 => described(world, body, known),
        ("GET", ["nodes"]) if recorded["status"] == 200 => {
            body.as_array().into_iter().flatten().for_each(|it| described(world, it, known));
        }
        ("GET", ["services", _]) if recorded["status"] == 200 => updated(world, body, known),
        ("GET", ["services"]) if recorded["status"] == 200 => {
            body.as_array().into_iter().flatten().for_each(|it| updated(world, it, known));
        }
        _ => {}
    }
}

fn tasks(world: &World, path: &str, body: &Value, known: &Known) {
    let current = path.contains("_up-to-date");
    let listed: Vec<&Value> = body.as_array().into_iter().flatten().collect();
    listed.iter().for_each(|it| put_task(world, it, known, current));
    // Whatever else would be shown had gone by then.
    let view = world.view();
    let query = known.ours_in(path.split_once('?').map_or("", |(_, query)| query));
    let filters = query.split('&').find_map(|it| it.strip_prefix("filters=")).unwrap_or_default();
    let Ok(filters) = herder_decide::list::Filters::parse(&decoded(filters)) else { return };
    let Ok(shown) = herder_decide::swarm::list::tasks(&view, &filters) else { return };
    let gone = shown.into_iter().filter(|it| !listed.iter().any(|listed| listed["ID"] == it.id.as_str()));
    world.write(gone.map(|it| Change::Remove(Kind::Task, it.id)).collect());
}

fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let byte = part.get(..2).and_then(|it| u8::from_str_radix(it, 16).ok()).map_or('%', char::from);
        format!("{text}{byte}{}", part.get(2..).unwrap_or_default())
    })
}

/// A task as it was recorded, of our service.
fn put_task(world: &World, body: &Value, known: &Known, is_current: bool) {
    let mut task: Task = serde_json::from_value(known.ours(body)).expect("a task");
    let view = world.view();
    let Some(service) = view.services.get(&task.service_id) else { return };
    let same = *task.spec == service.service.spec.task_template;
    task.meta.version.index = view.tasks.get(&task.id).map_or(0, |it| it.task.meta.version.index);
    let spec_version = if is_current || same { service.spec_version } else { Version::default() };
    let record =
        TaskRecord { task, spec_version, service_name: service.service.spec.name.clone(), ..TaskRecord::default() };
    world.write(vec![record.into()]);
}

/// Adds a task whose logs are requested, and that no client saw before.
fn of_which_service(world: &World, id: &str, command: &str) {
    let view = world.view();
    if view.tasks.contains_key(id) {
        return;
    }
    let words = || command.split(|it: char| !it.is_alphanumeric());
    let Some(service) = view.services.values().find(|it| words().any(|word| word == it.service.spec.name)) else {
        return;
    };
    put_any_task(world, id, service);
}

/// A service whose logs are asked for has said something.
fn has_a_task(world: &World, text: &str) {
    let view = world.view();
    let Ok(service) = herder_decide::swarm::lookup::service(&view, text) else { return };
    let id = &service.service.id;
    if view.tasks_of_service(id).next().is_none() {
        put_any_task(world, &id.chars().rev().collect::<String>(), service);
    }
}

fn put_any_task(world: &World, id: &str, service: &ServiceRecord) {
    let mut task = Task { id: id.to_owned(), service_id: service.service.id.clone(), ..Task::default() };
    task.spec = Arc::new(service.service.spec.task_template.clone());
    world.write(vec![TaskRecord { task, ..TaskRecord::default() }.into()]);
}

/// Applies a node's description and liveness.
fn described(world: &World, body: &Value, known: &Known) {
    let view = world.view();
    let Some(record) = view.nodes.get(&known.ours_in(body["ID"].as_str().unwrap_or_default())) else { return };
    let mut record = NodeRecord::clone(record);
    let mut description: NodeDescription = serde_json::from_value(body["Description"].clone()).expect("a description");
    // Real swarm mode tells nothing of it.
    description.underlay = record.node.description.underlay.clone();
    let status = serde_json::from_value(body["Status"].clone()).expect("a status");
    if record.node.description != description || record.node.status != status {
        (record.node.description, record.node.status) = (description, status);
        world.write(vec![record.into()]);
    }
}

/// Applies the progress of an update; and after a failure, its result.
fn updated(world: &World, body: &Value, known: &Known) {
    let id = known.ours_in(body["ID"].as_str().unwrap_or_default());
    let view = world.view();
    let Some(record) = view.services.get(&id) else { return };
    let mut record = ServiceRecord::clone(record);
    let status: Option<UpdateStatus> = serde_json::from_value(body["UpdateStatus"].clone()).expect("a status");
    let rolled_back =
        status.as_ref().is_some_and(|it| it.state.starts_with("rollback") && body.get("PreviousSpec").is_none());
    if let Some(previous) = record.service.previous_spec.take_if(|_| rolled_back) {
        record.service.spec = previous;
    }
    if record.service.update_status != status {
        record.service.update_status = status;
        world.write(vec![record.into()]);
    }
}
