//! Hooks of services: the member `Herder` of their specs, and the jobs that run once before them.

use std::collections::BTreeMap;

use herder_compose::{Condition, Desired, Diagnostic, Options, Sources, Step, load, objects};
use serde_json::{Value, json};

/// The objects of a file, and the notes.
fn desired(file: &str) -> (Desired, Vec<Diagnostic>) {
    let options = Options { files: vec!["compose.yaml".into()], directory: "/p".into(), ..Options::default() };
    let mut sources = Sources::from([("/p/compose.yaml".to_owned(), Some(file.as_bytes().to_vec()))]);
    loop {
        match load(&sources, &options) {
            Step::Need(paths) => sources.extend(paths.into_iter().map(|path| (path, None))),
            Step::Done(project) => {
                return objects(&project, "shop", &BTreeMap::new()).unwrap_or_else(|all| panic!("{}", all[0]));
            }
            Step::Refused(diagnostics) => panic!("{}", diagnostics[0]),
        }
    }
}

/// The service `web` with these keys, and a database.
fn web(keys: &str) -> (Desired, Vec<Diagnostic>) {
    desired(&format!(
        "services:\n  web:\n    image: app\n    environment: {{A: 1, B: 2}}\n    ports: [\"80:80\"]\n{keys}\n  db: {{image: db}}\n\
         volumes: {{data: {{}}}}\n"
    ))
}

fn container(desired: &Desired, number: usize) -> &Value {
    &desired.services[number].spec["TaskTemplate"]["ContainerSpec"]
}

#[test]
fn hooks_beside_each_container_travel_in_its_spec() {
    let keys = "    pre_start: [{command: prepare --now, image: tool, per_replica: true, environment: {C: 3}}]\n    \
                post_start: [{command: [warm, up], user: root, working_dir: /w}]\n    pre_stop: [{command: drain, privileged: true}]";
    let (desired, _) = web(keys);
    assert_eq!(desired.services.len(), 2);
    let hooks = json!({
        "PreStart": [{"Image": "tool:latest", "Command": ["prepare", "--now"], "Env": ["C=3"]}],
        "PostStart": [{"Command": ["warm", "up"], "User": "root", "WorkingDir": "/w"}],
        "PreStop": [{"Command": ["drain"], "Privileged": true}],
    });
    assert_eq!(container(&desired, 1)["Herder"], json!({"Hooks": hooks}));
}

#[test]
fn a_step_that_runs_once_is_a_job_that_its_service_waits_for() {
    let keys = "    command: serve\n    depends_on: [db]\n    deploy: {replicas: 3, labels: {l: x}, placement: {constraints: [node.role==worker]}}\n    \
                pre_start: [{command: migrate up, environment: {B: 3}}, {command: seed, image: tool, privileged: true}]";
    let (desired, notes) = web(keys);
    let names: Vec<&str> = desired.services.iter().map(|it| &*it.name).collect();
    let [db, first, second, web] = names[..] else { panic!("{names:?}") };
    assert_eq!((db, web), ("shop_db", "shop_web"));
    assert!(first.starts_with("shop_web-pre-start-1-") && second.starts_with("shop_web-pre-start-2-"), "{names:?}");
    let waits = |number: usize| -> Vec<(&str, Condition)> {
        desired.services[number].depends_on.iter().map(|it| (&*it.service, it.condition)).collect()
    };
    let (started, completed) = (Condition::Started, Condition::Completed);
    assert_eq!(waits(1), [(db, started)]);
    assert_eq!(waits(2), [(db, started), (first, completed)]);
    assert_eq!(waits(3), [(db, started), (first, completed), (second, completed)]);
    let spec = &desired.services[1].spec;
    assert_eq!(spec["Mode"], json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}));
    assert_eq!(spec["EndpointSpec"], json!({}));
    assert_eq!(spec["TaskTemplate"]["RestartPolicy"], json!({"Condition": "none"}));
    assert_eq!(spec["TaskTemplate"]["Placement"]["Constraints"], json!(["node.role==worker"]));
    assert!(spec["Labels"].get("l").is_none());
    let one = container(&desired, 1);
    assert_eq!((&one["Image"], &one["Command"]), (&json!("app:latest"), &json!(["migrate", "up"])));
    assert_eq!((&one["Env"], &one["Args"]), (&json!(["A=1", "B=3"]), &Value::Null));
    let two = container(&desired, 2);
    assert_eq!((&two["Image"], &two["Herder"]), (&json!("tool:latest"), &json!({"HostConfig": {"Privileged": true}})));
    assert!(notes.iter().all(|it| it.code != "hook"), "{notes:?}");
}

#[test]
fn another_definition_is_another_job() {
    let name = |keys: &str| web(keys).0.services.remove(1).name;
    let one = name("    pre_start: [{command: a}]");
    assert_eq!(one, name("    pre_start: [{command: a}]\n    command: other\n    scale: 4"));
    assert_ne!(one, name("    pre_start: [{command: b}]"));
    assert_ne!(one, name("    pre_start: [{command: a}]\n    user: x"));
    let long = format!("services: {{{}: {{image: i, pre_start: [{{command: a}}]}}}}\n", "w".repeat(58));
    assert!(desired(&long).0.services.iter().all(|it| it.name.len() <= 63));
}

#[test]
fn a_job_with_a_volume_of_its_node_is_noted() {
    let (_, notes) = web("    volumes: [\"data:/data\"]\n    pre_start: [{command: chown x /data}]");
    let note = notes.iter().find(|it| it.code == "hook").expect("a note");
    assert_eq!((note.path.as_str(), note.line), ("services.web.pre_start[0]", 7));
}
