//! Lists, and each object in the form for clients.

use std::collections::{BTreeMap, BTreeSet};

use herder_model::swarm::{
    Cluster, ClusterRecord, Config, NodeRecord, RUNTIME_ATTACHMENT, Rest, Role, Secret, Service, ServiceRecord,
    SwarmNode, Task, TaskRecord, TaskState, Underlay, View,
};

use super::attachments::is_attachment;
use super::local::ManagerSeen;
use super::{Denial, lookup, networks, spec};
use crate::list::Filters;

type Labels = BTreeMap<String, String>;

/// The swarm without the key that signs for it.
pub fn cluster(record: &ClusterRecord) -> Cluster {
    let mut cluster = record.cluster.clone();
    show_level(&mut cluster.rest, record.level);
    cluster.spec.labels.get_or_insert_default();
    cluster.spec.ca_config.signing_ca_key.clear();
    cluster
}

/// Shows a feature level, which Docker's objects do not have, under a name of herder's own. Docker's clients pass over it, and show it
/// where they show what they got (`docker node inspect`).
fn show_level(rest: &mut Rest, level: u32) {
    if level > 0 {
        rest.insert("FeatureLevel", level.into());
    }
}

/// A node, with what raft knows of it.
pub fn node(record: &NodeRecord, managers: &[ManagerSeen]) -> SwarmNode {
    let mut node = record.node.clone();
    show_level(&mut node.rest, record.level);
    node.spec.labels.get_or_insert_default();
    // What only managers need to know.
    node.description.underlay = Underlay::default();
    node.manager_status = managers.iter().find(|it| it.node_id == node.id).map(ManagerSeen::shown);
    node
}

pub fn task(view: &View, record: &TaskRecord) -> Task {
    let mut task = record.task.clone();
    if !record.networks.is_empty() {
        task.networks_attachments = networks::attachments(view, record);
    }
    task.labels.get_or_insert_default();
    // Docker's tasks have no name of their own.
    task.name.clear();
    task
}

/// A secret without its data.
pub fn secret(secret: &Secret) -> Secret {
    let mut secret = secret.clone();
    secret.spec.data.clear();
    secret.spec.labels.get_or_insert_default();
    secret
}

pub fn config(config: &Config) -> Config {
    let mut config = config.clone();
    config.spec.labels.get_or_insert_default();
    config
}

/// `GET /services`; with `with_status`, how far each of them is.
pub fn services(view: &View, filters: &Filters, with_status: bool) -> Result<Vec<Service>, Denial> {
    filters.check(&["name", "id", "label", "mode", "runtime"])?;
    let wanted = |record: &&ServiceRecord| {
        let spec = &record.service.spec;
        prefix(filters, "name", &spec.name)
            && prefix(filters, "id", &record.service.id)
            && labels(filters, "label", spec.labels.as_ref())
            && filters.is("mode", mode(record))
            && filters.is("runtime", "container")
    };
    let found = view.services.values().map(AsRef::as_ref).filter(wanted);
    let shown = found.map(|record| {
        let mut service = spec::shown(record.service.clone());
        if with_status {
            service.service_status = Some(super::service_status(view, &record.service.id));
        }
        service
    });
    Ok(shown.collect())
}

fn mode(record: &ServiceRecord) -> &'static str {
    let mode = &record.service.spec.mode;
    if mode.global.is_some() {
        "global"
    } else if mode.replicated_job.is_some() {
        "replicated-job"
    } else if mode.global_job.is_some() {
        "global-job"
    } else {
        "replicated"
    }
}

/// `GET /nodes`.
pub fn nodes(view: &View, filters: &Filters, managers: &[ManagerSeen]) -> Result<Vec<SwarmNode>, Denial> {
    filters.check(&["name", "id", "label", "node.label", "role", "membership"])?;
    words(filters, "role", &["worker", "manager"])?;
    words(filters, "membership", &["accepted", "pending"])?;
    let wanted = |record: &&NodeRecord| {
        let node = &record.node;
        let role = if record.role == Role::Manager { "manager" } else { "worker" };
        (prefix(filters, "name", &node.description.hostname)
            || !node.spec.name.is_empty() && prefix(filters, "name", &node.spec.name))
            && prefix(filters, "id", &node.id)
            && labels(filters, "label", Some(&node.description.engine.labels))
            && labels(filters, "node.label", node.spec.labels.as_ref())
            && filters.any("role", |it| it.eq_ignore_ascii_case(role))
            // Whoever has come in was accepted.
            && filters.any("membership", |it| it.eq_ignore_ascii_case("accepted"))
    };
    let found = view.nodes.values().map(AsRef::as_ref).filter(wanted);
    Ok(found.map(|record| node(record, managers)).collect())
}

/// `GET /tasks`.
pub fn tasks(view: &View, filters: &Filters) -> Result<Vec<Task>, Denial> {
    filters.check(&["name", "id", "label", "service", "node", "desired-state", "_up-to-date", "runtime"])?;
    let states: Vec<&str> = TaskState::KNOWN.iter().map(|it| it.as_str()).collect();
    words(filters, "desired-state", &states)?;
    let ids = |key: &str, id: &dyn Fn(&str) -> Result<String, Denial>| {
        let values = filters.values(key).filter(|it| !it.is_empty());
        values.map(id).collect::<Result<BTreeSet<String>, Denial>>()
    };
    let services = ids("service", &|text| lookup::service(view, text).map(|it| it.service.id.clone()))?;
    let nodes = ids("node", &|text| lookup::node(view, text).map(|it| it.node.id.clone()))?;
    let current_only = filters.values("_up-to-date").any(|it| matches!(it, "true" | "1"));
    let wanted = |record: &&TaskRecord| {
        let task = &record.task;
        (!filters.has("name") || prefix(filters, "name", &lookup::task_name(record)))
            && prefix(filters, "id", &task.id)
            && labels(filters, "label", task_labels(view, record))
            && (services.is_empty() || services.contains(&task.service_id))
            && (nodes.is_empty() || nodes.contains(&task.node_id))
            && filters.any("desired-state", |it| it.eq_ignore_ascii_case(task.desired_state.as_str()))
            && is_of_runtime(filters, record)
            && (!current_only || is_up_to_date(view, record))
    };
    // Most clients ask for the tasks of one service.
    let all: Box<dyn Iterator<Item = &TaskRecord>> = match services.first() {
        Some(service) if services.len() == 1 => Box::new(view.tasks_of_service(service).map(AsRef::as_ref)),
        _ => Box::new(view.tasks.values().map(AsRef::as_ref)),
    };
    Ok(all.filter(wanted).map(|it| task(view, it)).collect())
}

/// True unless the task is one of a plain container on a network that was not asked for. Swarm mode does
/// the same.
fn is_of_runtime(filters: &Filters, record: &TaskRecord) -> bool {
    match (filters.has("runtime"), is_attachment(record)) {
        (true, is_attachment) => filters.is("runtime", if is_attachment { RUNTIME_ATTACHMENT } else { "container" }),
        (false, is_attachment) => !is_attachment,
    }
}

/// Tasks have the labels of their service; when that is gone, those of their container are near enough.
fn task_labels<'v>(view: &'v View, record: &'v TaskRecord) -> Option<&'v Labels> {
    match view.services.get(&record.task.service_id) {
        Some(service) => service.service.spec.labels.as_ref(),
        None => record.task.spec.container_spec.as_ref().map(|it| &it.labels),
    }
}

/// True if the task is what its service says now.
fn is_up_to_date(view: &View, record: &TaskRecord) -> bool {
    let Some(service) = view.services.get(&record.task.service_id) else { return false };
    let node = view.nodes.get(&record.task.node_id).map(AsRef::as_ref);
    !super::is_dirty(service, record, node)
}

/// `GET /secrets`.
pub fn secrets(view: &View, filters: &Filters) -> Result<Vec<Secret>, Denial> {
    filters.check(&["name", "names", "id", "label"])?;
    let all = view.secrets.values();
    let found = all.filter(|it| is_file_wanted(filters, &it.id, &it.spec.name, it.spec.labels.as_ref()));
    Ok(found.map(|it| secret(it)).collect())
}

/// `GET /configs`.
pub fn configs(view: &View, filters: &Filters) -> Result<Vec<Config>, Denial> {
    filters.check(&["name", "names", "id", "label"])?;
    let all = view.configs.values();
    let found = all.filter(|it| is_file_wanted(filters, &it.id, &it.spec.name, it.spec.labels.as_ref()));
    Ok(found.map(|it| config(it)).collect())
}

fn is_file_wanted(filters: &Filters, id: &str, name: &str, own: Option<&Labels>) -> bool {
    prefix(filters, "name", name)
        && filters.is("names", name)
        && prefix(filters, "id", id)
        && labels(filters, "label", own)
}

/// True if `text` begins with one of the filter's values.
fn prefix(filters: &Filters, key: &str, text: &str) -> bool {
    filters.any(key, |value| text.starts_with(value))
}

/// True if all of the filter's labels are there, `key` with any value.
fn labels(filters: &Filters, key: &str, own: Option<&Labels>) -> bool {
    filters.values(key).all(|wanted| {
        let (key, value) = wanted.split_once('=').unwrap_or((wanted, ""));
        own.and_then(|own| own.get(key)).is_some_and(|own| value.is_empty() || own == value)
    })
}

/// Refuses words that the filter does not have. 500, as swarm mode answers.
fn words(filters: &Filters, key: &str, known: &[&str]) -> Result<(), Denial> {
    match filters.values(key).find(|value| !value.is_empty() && !known.iter().any(|it| it.eq_ignore_ascii_case(value)))
    {
        Some(value) => Err(Denial::plain(500, format!("Invalid {key} filter: '{value}'"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use herder_model::swarm::{Object, SwarmNodeState, TaskSpec, Version};
    use serde_json::json;

    use super::*;

    fn service(id: &str, name: &str, mode: serde_json::Value, labels: &[&str]) -> Object {
        let mut record = ServiceRecord { spec_version: Version { index: 2 }, ..ServiceRecord::default() };
        record.service.id = id.into();
        record.service.spec.name = name.into();
        record.service.spec.mode = serde_json::from_value(mode).expect("a mode");
        record.service.spec.labels = Some(labels_of(labels));
        record.service.spec.task_template.force_update = 7;
        Object::Service(Arc::new(record))
    }

    fn labels_of(labels: &[&str]) -> Labels {
        let pair = |text: &&str| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        labels.iter().filter_map(pair).collect()
    }

    fn task_of(id: &str, service: &str, node: &str, states: (TaskState, TaskState), version: u64) -> Object {
        let mut record = TaskRecord { spec_version: Version { index: version }, ..TaskRecord::default() };
        record.task = Task {
            id: id.into(),
            service_id: service.into(),
            node_id: node.into(),
            slot: 1,
            desired_state: states.0,
            spec: Arc::new(TaskSpec::default()),
            ..Task::default()
        };
        record.task.status.state = states.1;
        record.service_name = "web".into();
        Object::Task(Arc::new(record))
    }

    fn node_of(id: &str, name: &str, role: Role, labels: &[&str], engine: &[&str]) -> Object {
        let mut record = NodeRecord { role, ..NodeRecord::default() };
        record.node.id = id.into();
        record.node.description.hostname = name.into();
        record.node.status.state = SwarmNodeState::Ready;
        record.node.spec.labels = Some(labels_of(labels));
        record.node.description.engine.labels = labels_of(engine);
        Object::Node(Arc::new(record))
    }

    fn view() -> View {
        use TaskState::{Complete, Failed, Running, Shutdown};
        View::of(
            9,
            [
                service("s1", "web", json!({"Replicated": {"Replicas": 3}}), &["tier=front"]),
                service("s2", "web2", json!({"Global": {}}), &["tier=back", "x=y"]),
                service("s3", "job", json!({"ReplicatedJob": {"MaxConcurrent": 2}}), &[]),
                node_of("n1", "host-a", Role::Manager, &["zone=a"], &["disk=ssd"]),
                node_of("n2", "host-b", Role::Worker, &["zone=b"], &[]),
                task_of("t1", "s1", "n1", (Running, Running), 2),
                task_of("t2", "s1", "n2", (Shutdown, Failed), 1),
                task_of("t3", "s2", "n2", (Running, Running), 2),
                task_of("t4", "s3", "n2", (Complete, Complete), 2),
            ],
        )
    }

    fn filters(text: &str) -> Filters {
        Filters::parse(text).expect("filters")
    }

    #[track_caller]
    fn check<T>(found: Result<Vec<T>, Denial>, id: impl Fn(&T) -> &str, expected: &str) {
        let text = match &found {
            Ok(found) => found.iter().map(id).collect::<Vec<_>>().join(" "),
            Err(denial) => format!("{} {denial}", denial.status()),
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn every_filter_of_services() {
        let check = |text: &str, expected: &str| check(services(&view(), &filters(text), false), |it| &it.id, expected);
        check("", "s1 s2 s3");
        check(r#"{"name":["web"]}"#, "s1 s2");
        check(r#"{"name":{"web2":true,"jo":true}}"#, "s2 s3");
        check(r#"{"id":["s3"]}"#, "s3");
        check(r#"{"label":["tier"]}"#, "s1 s2");
        check(r#"{"label":["tier=back","x"]}"#, "s2");
        check(r#"{"mode":["global","replicated-job"]}"#, "s2 s3");
        check(r#"{"runtime":["plugin"]}"#, "");
        check(r#"{"foo":["x"]}"#, "400 invalid filter 'foo'");
    }

    #[test]
    fn every_filter_of_nodes() {
        let check = |text: &str, expected: &str| check(nodes(&view(), &filters(text), &[]), |it| &it.id, expected);
        check("", "n1 n2");
        check(r#"{"name":["host-a"]}"#, "n1");
        check(r#"{"role":["Worker"]}"#, "n2");
        check(r#"{"label":["disk"]}"#, "n1");
        check(r#"{"node.label":["zone=b"]}"#, "n2");
        check(r#"{"membership":["pending"]}"#, "");
        check(r#"{"role":["boss"]}"#, "500 Invalid role filter: 'boss'");
        check(r#"{"membership":["x"]}"#, "500 Invalid membership filter: 'x'");
    }

    #[test]
    fn every_filter_of_tasks() {
        let check = |text: &str, expected: &str| check(tasks(&view(), &filters(text)), |it| &it.id, expected);
        check("", "t1 t2 t3 t4");
        check(r#"{"service":["web"]}"#, "t1 t2");
        check(r#"{"service":["web","s2"],"node":["host-b"]}"#, "t2 t3");
        check(r#"{"desired-state":["Running","shutdown"]}"#, "t1 t2 t3");
        check(r#"{"service":["web"],"_up-to-date":["true"]}"#, "t1");
        check(r#"{"name":["web.1.t2"]}"#, "t2");
        check(r#"{"label":["tier=back"]}"#, "t3");
        check(r#"{"runtime":["container"],"id":["t4"]}"#, "t4");
        check(r#"{"service":["nosuch"]}"#, "404 service nosuch not found");
        check(r#"{"desired-state":["weird"]}"#, "500 Invalid desired-state filter: 'weird'");
    }

    #[test]
    fn services_say_how_far_they_are() {
        let all = services(&view(), &Filters::default(), true).expect("services");
        let text = |it: &Service| {
            let status = it.service_status.as_ref().expect("a status");
            format!("{} {}/{} {}", it.id, status.running_tasks, status.desired_tasks, status.completed_tasks)
        };
        assert_eq!(all.iter().map(text).collect::<Vec<_>>().join(", "), "s1 1/3 0, s2 1/1 0, s3 0/2 1");
    }

    #[test]
    fn states_have_the_words_of_the_api() {
        use TaskState::{Accepted, New, Orphaned, Remove, Running};
        for state in [New, Accepted, Running, Remove, Orphaned] {
            assert_eq!(json!(state), state.as_str());
        }
    }

    #[test]
    fn secrets_never_leave_with_their_data() {
        let mut with_data = Secret { id: "x".into(), ..Secret::default() };
        with_data.spec.name = "tok".into();
        with_data.spec.data = "czNjcjN0".into();
        let view = View::of(1, [Object::Secret(Arc::new(with_data))]);
        let check = |text: &str, expected: usize| {
            let found = secrets(&view, &filters(text)).expect("secrets");
            assert_eq!(found.len(), expected, "{text}");
            assert!(found.iter().all(|it| it.spec.data.is_empty()));
        };
        check(r#"{"name":["to"]}"#, 1);
        check(r#"{"names":["to"]}"#, 0);
        check(r#"{"names":["tok"]}"#, 1);
    }
}
