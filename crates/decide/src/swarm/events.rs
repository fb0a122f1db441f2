//! Docker's events of scope `swarm`, from what was written.

use herder_model::swarm::{Action, Meta, NodeRecord, Object, ServiceRecord, Time, Written};
use serde_json::{Map, Value, json};

/// The event that clients see; none for tasks, resources and the swarm itself. `now` is when a removal was seen, which is written
/// nowhere.
pub fn event(written: &Written, now: Time) -> Option<Value> {
    let object = written.object()?;
    let mut attributes = Map::new();
    match object {
        Object::Cluster(_) | Object::Task(_) | Object::Resource(_) => return None,
        Object::Node(node) => {
            let name = if node.node.spec.name.is_empty() { object.name() } else { &node.node.spec.name };
            attributes.insert("name".into(), name.into());
        }
        Object::Network(network) => {
            attributes.insert("name".into(), network.spec.name.as_str().into());
        }
        Object::Service(_) | Object::Secret(_) | Object::Config(_) => {
            attributes.insert("name".into(), object.name().into());
        }
    }
    match (&written.before, &written.after) {
        (Some(Object::Service(old)), Some(Object::Service(new))) => service_changes(old, new, &mut attributes),
        (Some(Object::Node(old)), Some(Object::Node(new))) => node_changes(old, new, &mut attributes),
        _ => {}
    }
    let removing = |it: &Option<Object>| matches!(it, Some(Object::Network(it)) if it.is_removing());
    // For clients a network is gone when it is removed, though its last containers still end.
    let was_told = removing(&written.before);
    if was_told {
        return None;
    }
    let action = if removing(&written.after) { Action::Remove } else { written.action() };
    let (action, time) = match action {
        Action::Create => ("create", time(object.meta(), |meta| &meta.created_at, now)),
        Action::Update => ("update", time(object.meta(), |meta| &meta.updated_at, now)),
        Action::Remove => ("remove", now),
    };
    Some(json!({
        "Type": object.kind().to_string(),
        "Action": action,
        "Actor": {"ID": object.id(), "Attributes": attributes},
        "scope": "swarm",
        "time": time.0 / 1_000_000_000,
        "timeNano": time.0,
    }))
}

fn time(meta: &Meta, which: fn(&Meta) -> &String, now: Time) -> Time {
    let nanos = which(meta).parse::<jiff::Timestamp>().ok().and_then(|it| u64::try_from(it.as_nanosecond()).ok());
    nanos.map_or(now, Time)
}

fn changed(attributes: &mut Map<String, Value>, what: &str, old: String, new: String) {
    if old != new {
        attributes.insert(format!("{what}.new"), new.into());
        attributes.insert(format!("{what}.old"), old.into());
    }
}

fn service_changes(old: &ServiceRecord, new: &ServiceRecord, attributes: &mut Map<String, Value>) {
    let image = |it: &ServiceRecord| {
        let container = it.service.spec.task_template.container_spec.as_ref();
        container.map(|it| it.image.clone()).unwrap_or_default()
    };
    changed(attributes, "image", image(old), image(new));
    let replicas = |it: &ServiceRecord| {
        let replicated = it.service.spec.mode.replicated.as_ref();
        replicated.map(|it| it.replicas.unwrap_or(1).to_string()).unwrap_or_default()
    };
    changed(attributes, "replicas", replicas(old), replicas(new));
    let state = |it: &ServiceRecord| it.service.update_status.as_ref().map(|it| it.state.clone());
    match (state(old), state(new)) {
        (None, Some(new)) => drop(attributes.insert("updatestate.new".into(), new.into())),
        (Some(old), Some(new)) => changed(attributes, "updatestate", old, new),
        (_, None) => {}
    }
}

fn node_changes(old: &NodeRecord, new: &NodeRecord, attributes: &mut Map<String, Value>) {
    // The words of the API are those of the events.
    let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let availability = |it: &NodeRecord| word(json!(it.node.spec.availability));
    changed(attributes, "availability", availability(old), availability(new));
    changed(attributes, "role", word(json!(old.role)), word(json!(new.role)));
    let state = |it: &NodeRecord| word(json!(it.node.status.state));
    changed(attributes, "state", state(old), state(new));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use herder_model::swarm::{
        Availability, ContainerSpec, Replicated, Role, Secret, Service, SwarmNodeState, Task, TaskRecord, UpdateStatus,
    };

    use super::*;

    /// Image, replicas and state of an update.
    fn service(image: &str, replicas: u64, state: Option<&str>) -> Object {
        let mut service = Service { id: "s1".into(), ..Service::default() };
        service.meta.created_at = "2026-11-20T20:44:08.463839158Z".into();
        service.meta.updated_at = "2026-11-20T20:44:09Z".into();
        service.spec.name = "web".into();
        service.spec.task_template.container_spec =
            Some(ContainerSpec { image: image.into(), ..ContainerSpec::default() });
        service.spec.mode.replicated = Some(Replicated { replicas: Some(replicas), ..Replicated::default() });
        service.update_status = state.map(|state| UpdateStatus { state: state.into(), ..UpdateStatus::default() });
        Object::Service(Arc::new(ServiceRecord { service, ..ServiceRecord::default() }))
    }

    fn node(role: Role, availability: Availability, state: SwarmNodeState) -> Object {
        let mut record = NodeRecord { role, ..NodeRecord::default() };
        record.node.id = "n1".into();
        record.node.description.hostname = "host".into();
        record.node.spec.availability = availability;
        record.node.status.state = state;
        Object::Node(Arc::new(record))
    }

    /// Type, action, attributes and time.
    #[track_caller]
    fn check(before: Option<Object>, after: Option<Object>, expected: &str) {
        let event = event(&Written { before, after }, Time(7_000_000_000));
        let text = event.map(|it| {
            let part = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
            format!("{} {} {} {}", part("Type"), part("Action"), it["Actor"]["Attributes"], it["timeNano"])
        });
        assert_eq!(text.unwrap_or_default(), expected);
    }

    #[test]
    fn services_tell_what_changed() {
        check(None, Some(service("a", 1, None)), r#"service create {"name":"web"} 1795207448463839158"#);
        check(Some(service("a", 1, None)), None, r#"service remove {"name":"web"} 7000000000"#);
        check(
            Some(service("a", 1, None)),
            Some(service("b", 2, None)),
            r#"service update {"name":"web","image.new":"b","image.old":"a","replicas.new":"2","replicas.old":"1"} 1795207449000000000"#,
        );
        check(
            Some(service("a", 1, None)),
            Some(service("a", 1, Some("updating"))),
            r#"service update {"name":"web","updatestate.new":"updating"} 1795207449000000000"#,
        );
        check(
            Some(service("a", 1, Some("updating"))),
            Some(service("a", 1, Some("completed"))),
            r#"service update {"name":"web","updatestate.new":"completed","updatestate.old":"updating"} 1795207449000000000"#,
        );
    }

    #[test]
    fn nodes_and_the_rest_tell_what_changed() {
        check(
            Some(node(Role::Worker, Availability::Active, SwarmNodeState::Ready)),
            Some(node(Role::Manager, Availability::Drain, SwarmNodeState::Down)),
            r#"node update {"name":"host","availability.new":"drain","availability.old":"active","role.new":"manager","role.old":"worker","state.new":"down","state.old":"ready"} 7000000000"#,
        );
        let secret = Secret { id: "x".into(), ..Secret::default() };
        check(None, Some(Object::Secret(Arc::new(secret))), r#"secret create {"name":""} 7000000000"#);
        let task = Task { id: "t".into(), ..Task::default() };
        check(None, Some(Object::Task(Arc::new(TaskRecord { task, ..TaskRecord::default() }))), "");
    }
}
