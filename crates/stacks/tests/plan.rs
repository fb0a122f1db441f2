//! Compares the plan of every stack in `examples/stacks` with the writes of its deployment.
//!
//! Each stack is played new, unchanged, edited, and with a service less.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use herder_compose::{Content, Desired, IMAGE_LABEL, Sources};
use herder_decide::swarm::control::Declared;
use herder_decide::swarm::spec;
use herder_deploy::{Action, Answer, Api, Fault, Journal, Pieces, Plan, Settings, apply, observe};
use herder_model::swarm::ServiceSpec;
use herder_stacks::{Bundle, File};
use http::Method;
use serde_json::{Value, json};

/// Variables that the examples take secrets from.
const SECRETS: [&str; 8] = [
    "POSTGRES_PASSWORD",
    "REPLICATION_PASSWORD",
    "CHAT_DB_PASSWORD",
    "REGISTRY_USERS",
    "KEYCLOAK_DB",
    "RESTIC_PASSWORD",
    "RUNNER_TOKEN",
    "DB_PASSWORD",
];

/// A swarm in memory whose tasks run as soon as they are declared.
#[derive(Default)]
struct Swarm(Mutex<State>);

#[derive(Default)]
struct State {
    last_id: u64,
    /// Objects by collection.
    objects: BTreeMap<String, Vec<Value>>,
    /// Each write: action, kind and name, and the body.
    writes: Vec<(String, Value)>,
}

fn name(object: &Value) -> String {
    object["Spec"]["Name"].as_str().or(object["Name"].as_str()).unwrap_or_default().to_owned()
}

fn id(object: &Value) -> &str {
    object["ID"].as_str().or(object["Id"].as_str()).unwrap_or_default()
}

impl State {
    fn find(&mut self, collection: &str, key: &str) -> Option<&mut Value> {
        let all = self.objects.entry(collection.to_owned()).or_default();
        all.iter_mut().find(|it| id(it) == key || name(it) == key)
    }

    fn answer(&mut self, method: &Method, path: &str, body: Option<&Value>) -> Option<Value> {
        let path = path.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).collect();
        match (method.as_str(), &parts[..]) {
            ("GET", ["tasks"]) => Some(self.tasks()),
            ("GET", [collection]) => {
                let mut all = self.objects.get(*collection).cloned().unwrap_or_default();
                if *collection == "secrets" {
                    all.iter_mut().for_each(|it| drop(it["Spec"].as_object_mut().and_then(|it| it.remove("Data"))));
                }
                Some(all.into())
            }
            ("GET", [collection, key]) => self.find(collection, key).cloned(),
            ("POST", [collection, "create"]) => {
                let body = body?.clone();
                self.last_id += 1;
                let id = format!("id-{}-", self.last_id);
                let object = match *collection {
                    "networks" => network(&id, &body),
                    "services" => json!({"ID": id, "Spec": kept(&body)}),
                    _ => json!({"ID": id, "Spec": body}),
                };
                self.writes.push((format!("create {collection} {}", name(&object)), body));
                self.objects.entry((*collection).to_owned()).or_default().push(object);
                Some(json!({"ID": id}))
            }
            ("POST", ["services", key, "update"]) => {
                let there = self.find("services", key)?;
                there["Spec"] = kept(body?);
                let name = name(there);
                self.writes.push((format!("update services {name}"), body?.clone()));
                Some(json!({}))
            }
            ("DELETE", [collection, key]) => {
                let name = name(self.find(collection, key)?);
                self.objects.entry((*collection).to_owned()).or_default().retain(|it| id(it) != *key);
                self.writes.push((format!("remove {collection} {name}"), Value::Null));
                Some(Value::Null)
            }
            _ => None,
        }
    }

    fn tasks(&self) -> Value {
        let services = self.objects.get("services").into_iter().flatten();
        let tasks = services.flat_map(|service| {
            let (spec, mode) = (&service["Spec"], &service["Spec"]["Mode"]);
            let count = mode["Replicated"]["Replicas"].as_u64().or(mode["ReplicatedJob"]["TotalCompletions"].as_u64());
            let is_job = mode.get("ReplicatedJob").is_some() || mode.get("GlobalJob").is_some();
            let (state, desired) = if is_job { ("complete", "complete") } else { ("running", "running") };
            let task = json!({"ID": "t", "ServiceID": id(service), "NodeID": "n", "Spec": spec["TaskTemplate"],
                "DesiredState": desired, "Status": {"State": state}});
            vec![task; count.unwrap_or(1) as usize]
        });
        tasks.collect()
    }
}

/// A specification as a swarm keeps it: what may be left out is written out.
fn kept(body: &Value) -> Value {
    let mut body = body.clone();
    spec::without_nulls(&mut body);
    let spec: ServiceSpec = serde_json::from_value(body).expect("a service");
    let spec = Declared { spec, ..Declared::default() }.alone().unwrap_or_else(|denial| panic!("{denial}"));
    serde_json::to_value(spec).expect("JSON")
}

fn network(id: &str, body: &Value) -> Value {
    let mut network = json!({"Id": id, "Scope": "swarm", "Driver": "overlay", "Internal": false, "Attachable": false,
        "EnableIPv6": false, "Options": {}});
    for (key, value) in body.as_object().into_iter().flatten() {
        network[key] = value.clone();
    }
    network
}

impl Api for Swarm {
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Fault> {
        let answer = self.0.lock().expect("no poison").answer(&method, path, body);
        let missing = || Answer { status: 404, body: json!({"message": format!("{method} {path}: not found")}) };
        Ok(answer.map_or_else(missing, |body| Answer { status: 200, body }))
    }

    async fn pieces(&self, path: &str) -> Result<Pieces, Fault> {
        Err(Fault::Unreachable(format!("{path}: there are no logs here")))
    }
}

/// Deploys, and checks that the writes are those of the plan.
async fn deploy(swarm: &Swarm, desired: &Desired, sources: &Sources, prune: bool, what: &str) -> Vec<String> {
    let salt = &mut || [7; 16];
    let observed = observe(swarm, &desired.stack).await.expect("objects");
    let plan = Plan::of(desired, &observed, sources, prune, salt);
    assert!(plan.refused.is_empty(), "{what}: {:?}", plan.refused);
    let settings = Settings { wait: true, timeout: Duration::from_secs(60), keep: true };
    let journal = Journal::of(&plan, &observed);
    let applied = apply(swarm, desired, &observed, &plan, &journal, &settings, &mut |_| {}).await;
    let changes = applied.unwrap_or_else(|fault| panic!("{what}: {fault}")).changes;
    let mut planned: Vec<(String, Value)> = plan
        .steps
        .iter()
        .filter(|step| step.action != Action::Keep)
        .map(|step| {
            let verb = match step.action {
                Action::Create => "create",
                Action::Update => "update",
                Action::Remove | Action::Keep => "remove",
            };
            (format!("{verb} {}s {}", step.kind.word(), step.name), without_ids(&step.body))
        })
        .collect();
    let mut writes = std::mem::take(&mut swarm.0.lock().expect("no poison").writes);
    assert_eq!(changes, writes.len(), "{what}");
    planned.sort_by(|one, other| one.0.cmp(&other.0));
    writes.sort_by(|one, other| one.0.cmp(&other.0));
    let lines: Vec<String> = writes.iter().map(|(line, _)| line.clone()).collect();
    let writes: Vec<(String, Value)> = writes.iter().map(|(line, body)| (line.clone(), without_ids(body))).collect();
    assert_eq!(planned, writes, "{what}");
    lines
}

/// A body without the ids that are filled in when it is sent.
fn without_ids(body: &Value) -> Value {
    let mut body = body.clone();
    for (list, key) in [("Secrets", "SecretID"), ("Configs", "ConfigID")] {
        let files = body.pointer_mut(&format!("/TaskTemplate/ContainerSpec/{list}")).and_then(Value::as_array_mut);
        files.into_iter().flatten().for_each(|file| file[key] = "".into());
    }
    body
}

#[tokio::test]
async fn a_deployment_writes_what_its_plan_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/stacks");
    let (mut count, mut rolled) = (0, 0);
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read(&path).expect("a file");
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        let bundle = Bundle {
            files: BTreeMap::from([("compose.yaml".to_owned(), Some(File::of(&text)))]),
            environment: SECRETS.iter().map(|name| ((*name).to_owned(), format!("{name}-value"))).collect(),
            ..Bundle::default()
        };
        let loaded = bundle.load(Some("shop")).unwrap_or_else(|error| panic!("{file}: {error}"));
        let (mut desired, sources) = (loaded.desired, loaded.sources);
        let swarm = Swarm::default();
        for external in &desired.external_networks {
            let network = network(external, &json!({"Name": external}));
            swarm.0.lock().expect("no poison").objects.entry("networks".into()).or_default().push(network);
        }
        deploy(&swarm, &desired, &sources, true, &format!("{file}, new")).await;
        let unchanged = deploy(&swarm, &desired, &sources, true, &format!("{file}, unchanged")).await;
        assert_eq!(unchanged, Vec::<String>::new(), "{file}");
        let first = desired.services.first_mut().expect("a service");
        first.spec["TaskTemplate"]["ContainerSpec"]["Image"] = "edited:1".into();
        first.spec["Labels"][IMAGE_LABEL] = "edited:1".into();
        let name = first.name.clone();
        let edited = deploy(&swarm, &desired, &sources, true, &format!("{file}, edited")).await;
        assert_eq!(edited, [format!("update services {name}")], "{file}");
        if let Some(config) = desired.configs.iter_mut().find(|it| !it.external) {
            config.content = Content::Text("other content".into());
            let edited = deploy(&swarm, &desired, &sources, true, &format!("{file}, another config")).await;
            rolled += edited.iter().filter(|line| line.starts_with("update services")).count();
        }
        // The last one: no other service waits for it.
        let gone = desired.services.pop().expect("a service").name;
        let kept = deploy(&swarm, &desired, &sources, false, &format!("{file}, not pruned")).await;
        assert_eq!(kept, Vec::<String>::new(), "{file}");
        let pruned = deploy(&swarm, &desired, &sources, true, &format!("{file}, pruned")).await;
        assert_eq!(pruned, [format!("remove services {gone}")], "{file}");
        count += 1;
    }
    assert!(count >= 25 && rolled > 0, "{count} examples, {rolled} services rolled by a config");
}
