//! The objects of files beside those that Docker's own client sends for them.
//!
//! `tests/docker/NAME.json` was recorded by `record.py` from `docker stack deploy` at a real engine: the bodies of all creates.
//! Every difference stands in `tests/docker/differences.txt` with its reason. `UPDATE=1 cargo test -p herder-compose --test docker`
//! writes the differences anew, reasons of known ones stay.

mod differences;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use herder_compose::{Content, Desired, Options, Sources, Step, load, objects};
use serde_json::{Value, json};

const STACK: &str = "rec";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker")
}

/// The Compose file of a recording: beside it, or one of the examples.
fn source(name: &str) -> PathBuf {
    let beside = folder().join(format!("{name}.yaml"));
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/stacks");
    if beside.exists() { beside } else { examples.join(format!("{name}.yaml")) }
}

/// Returns the environment variables with which the recorded deployments were made.
fn environment() -> BTreeMap<String, String> {
    let names = [
        ("POSTGRES_PASSWORD", "p"),
        ("REPLICATION_PASSWORD", "r"),
        ("RESTIC_PASSWORD", "x"),
        ("CHAT_DB_PASSWORD", "c"),
        ("RUNNER_TOKEN", "t"),
        ("KEYCLOAK_DB", "k"),
        ("REGISTRY_USERS", "u"),
        ("FROM_HERE", "here"),
    ];
    names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn desired(path: &Path) -> (Desired, Sources) {
    let path = path.canonicalize().unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let options = Options {
        files: vec![text(&path)],
        directory: text(path.parent().unwrap()),
        environment: environment(),
        name: Some(STACK.into()),
        ..Options::default()
    };
    let mut sources = Sources::new();
    let project = loop {
        match load(&sources, &options) {
            Step::Need(paths) => {
                sources.extend(paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).ok())))
            }
            Step::Done(project) => break project,
            Step::Refused(diagnostics) => panic!("{}: {}", path.display(), diagnostics[0]),
        }
    };
    let (desired, _) =
        objects(&project, STACK, &options.environment).unwrap_or_else(|it| panic!("{}: {}", path.display(), it[0]));
    for object in desired.secrets.iter().chain(&desired.configs) {
        if let Content::File(path) = &object.content {
            sources.insert(path.clone(), std::fs::read(path).ok());
        }
    }
    (desired, sources)
}

/// The bodies of all creates, by kind and name.
fn bodies(desired: &Desired, sources: &Sources) -> Value {
    let mut all = json!({});
    for (name, body) in &desired.networks {
        all["networks"][name] = body.clone();
    }
    for (kind, files) in [("secrets", &desired.secrets), ("configs", &desired.configs)] {
        for file in files.iter().filter(|it| !it.external) {
            all[kind][&file.name] = file.body(file.data(sources).unwrap_or_default());
        }
    }
    for service in &desired.services {
        all["services"][&service.name] = service.spec.clone();
    }
    all
}

/// Finds the differences of two values. A value that is null, false or empty is as if it were not
/// there in Go.
fn compare(path: &str, docker: &Value, herder: &Value, found: &mut Vec<String>) {
    let is_empty =
        |value: &Value| matches!(value, Value::Null | Value::Bool(false)) || *value == json!("") || *value == json!([]);
    match (docker, herder) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().for_each(|key| compare(&format!("{path}.{key}"), &docker[key], &herder[key], found));
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().all(Value::is_object) => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.for_each(|(n, (a, b))| compare(&format!("{path}[{n}]"), a, b, found));
        }
        _ if docker == herder || (is_empty(docker) && is_empty(herder)) => {}
        _ => found.push(format!("{path}: docker {docker}, herder {herder}")),
    }
}

#[test]
fn objects_are_those_of_dockers_own_client() {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|it| it.unwrap().path())
        .filter_map(|path| {
            (path.extension()? == "json").then(|| path.file_stem().unwrap().to_str().unwrap().to_owned())
        })
        .collect();
    names.sort();
    assert!(names.len() >= 26, "{names:?}");
    let mut found = Vec::new();
    for name in &names {
        let recorded: Value =
            serde_json::from_slice(&std::fs::read(folder().join(format!("{name}.json"))).unwrap()).unwrap();
        let (desired, sources) = desired(&source(name));
        compare(name, &recorded, &bodies(&desired, &sources), &mut found);
    }
    differences::check(&folder().join("differences.txt"), &found);
}
