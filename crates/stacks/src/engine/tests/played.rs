//! Deployments to an engine in memory: what is there after each, above all after one that failed.

use std::fmt::Write as _;
use std::sync::Arc;

use herder_deploy::{Answer, Api, Fault, Journal, Pieces, Plan, Settings, apply, observe};
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Duration;

use crate::engine::{OneEngine, Raw, parsed};
use crate::{Bundle, File};

/// A container of the engine.
struct Container {
    id: String,
    name: String,
    body: Value,
    files: String,
    is_started: bool,
    /// Looks at it since its start.
    looks: u64,
}

impl Container {
    /// Starts that fail before one does not, by the image: `fails` never runs, `fails3` runs at its fourth start.
    fn fails(&self) -> u64 {
        let image = self.body["Image"].as_str().unwrap_or_default().trim_end_matches(":latest");
        match image.strip_prefix("fails") {
            Some("") => u64::MAX,
            Some(count) => count.parse().expect("a number"),
            None => 0,
        }
    }

    /// The state and the number of restarts. Each look sees one more start.
    fn state(&self) -> (&'static str, u64) {
        let policy = &self.body["HostConfig"]["RestartPolicy"];
        let allowed = match (policy["Name"].as_str(), policy["MaximumRetryCount"].as_u64()) {
            (Some("always"), _) | (Some("on-failure"), None | Some(0)) => u64::MAX,
            (Some("on-failure"), Some(count)) => count,
            _ => 0,
        };
        let failures = self.looks.min(self.fails());
        match () {
            () if !self.is_started => ("created", 0),
            () if failures > allowed => ("exited", allowed),
            () if failures < self.fails() => ("restarting", failures),
            () => ("running", failures),
        }
    }
}

#[derive(Default)]
struct State {
    containers: Vec<Container>,
    networks: Vec<Value>,
    writes: u64,
    last: u64,
}

/// An engine that knows the images `app` and `fails`.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

fn answer(status: u16, body: Value) -> Answer {
    Answer { status, body }
}

impl State {
    fn find(&mut self, id: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|it| it.id == id || it.name == id)
    }

    fn call(&mut self, method: &Method, path: &str, body: &Value) -> Answer {
        let (plain, filters) = parsed(path);
        let parts: Vec<&str> = plain.trim_matches('/').split('/').collect();
        self.writes += u64::from(method != Method::GET);
        match (method.as_str(), parts.as_slice()) {
            ("GET", ["info"]) => answer(200, json!({"Name": "fake", "OSType": "linux"})),
            ("GET", ["containers", "json"]) => answer(200, self.list(&filters)),
            ("GET", ["networks"]) => answer(200, self.networks.clone().into()),
            ("GET", ["networks", name]) => match self.networks.iter().find(|it| it["Name"] == *name) {
                Some(network) => answer(200, network.clone()),
                None => answer(404, json!({"message": "no such network"})),
            },
            ("POST", ["networks", "create"]) => {
                let mut network = body.clone();
                network["Id"] = body["Name"].clone();
                network["Scope"] = "local".into();
                self.networks.push(network);
                answer(201, json!({"Id": body["Name"]}))
            }
            ("DELETE", ["networks", name]) => {
                self.networks.retain(|it| it["Name"] != *name);
                answer(204, Value::Null)
            }
            ("POST", ["containers", "create"]) => {
                let image = body["Image"].as_str().unwrap_or_default();
                if image.starts_with("gone") {
                    return answer(404, json!({"message": format!("No such image: {image}")}));
                }
                self.last += 1;
                let id = format!("c{}", self.last);
                let name = path.split("name=").nth(1).unwrap_or_default().to_owned();
                let (files, body) = (String::new(), body.clone());
                self.containers.push(Container { id: id.clone(), name, body, files, is_started: false, looks: 0 });
                answer(201, json!({"Id": id}))
            }
            (_, ["containers", id, ..]) if self.find(id).is_none() => answer(404, json!({"message": "none"})),
            ("GET", ["containers", id, "json"]) => {
                let it = self.find(id).expect("it is there");
                let (status, restarts) = it.state();
                it.looks += u64::from(it.is_started);
                let code = if status == "running" { 0 } else { 1 };
                let shown = json!({
                    "Id": it.id, "Name": format!("/{}", it.name), "Config": {"Labels": it.body["Labels"]},
                    "State": {"Status": status, "ExitCode": code}, "RestartCount": restarts,
                });
                answer(200, shown)
            }
            ("POST", ["containers", id, what]) => {
                let name = path.split("name=").nth(1).map(str::to_owned);
                let it = self.find(id).expect("it is there");
                match (*what, name) {
                    ("rename", Some(name)) => it.name = name,
                    (what, _) => (it.is_started, it.looks) = (what == "start", 0),
                }
                answer(204, Value::Null)
            }
            ("DELETE", ["containers", id]) => {
                self.containers.retain(|it| it.id != *id && it.name != *id);
                answer(204, Value::Null)
            }
            _ => answer(404, json!({"message": format!("the fake has no {method} {path}")})),
        }
    }

    fn list(&self, filters: &Value) -> Value {
        let label = filters["label"][0].as_str().unwrap_or_default();
        let name = filters["name"][0].as_str().map(|it| it.trim_start_matches("^/").trim_end_matches('$'));
        let fits = |it: &&Container| match (label.split_once('='), name) {
            (_, Some(name)) => it.name == name,
            (Some((key, value)), _) => it.body["Labels"][key] == value,
            (None, _) => it.body["Labels"][label].is_string(),
        };
        let shown = self.containers.iter().filter(fits).map(|it| {
            json!({"Id": it.id, "Names": [format!("/{}", it.name)], "Labels": it.body["Labels"],
                "Created": it.id[1..].parse::<u64>().expect("a number"), "State": it.state().0})
        });
        shown.collect::<Vec<_>>().into()
    }
}

impl Api for Fake {
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Fault> {
        Ok(self.0.lock().call(&method, path, body.unwrap_or(&Value::Null)))
    }

    async fn pieces(&self, _: &str) -> Result<Pieces, Fault> {
        Err(Fault::Unreachable("the fake has no streams".into()))
    }
}

impl Raw for Fake {
    async fn raw(&self, _: Method, path: &str, _: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), Fault> {
        let (plain, _) = parsed(path);
        match plain.trim_matches('/').split('/').collect::<Vec<_>>().as_slice() {
            ["containers", id, "archive"] => {
                let text = String::from_utf8_lossy(&body);
                let content = text.split("text:").nth(1).and_then(|it| it.split('\0').next());
                content.unwrap_or_default().clone_into(&mut self.0.lock().find(id).expect("it is there").files);
                Ok((200, Vec::new()))
            }
            _ => Ok((404, br#"{"message": "pull access denied"}"#.to_vec())),
        }
    }
}

/// A Compose file of services `NAME=IMAGE*REPLICAS`. Each waits for the one before; `conf=TEXT` is a config of all,
/// `attempts=N` how often they are started again.
fn file(words: &str) -> String {
    let value = |key: &str| words.split(' ').find_map(|it| it.strip_prefix(key));
    let restart = match value("attempts=") {
        Some("0") => "restart_policy: {condition: none}".to_owned(),
        Some(count) => format!("restart_policy: {{condition: on-failure, max_attempts: {count}}}"),
        None => "restart_policy: {condition: any}".to_owned(),
    };
    let mut text = "services:\n".to_owned();
    let mut before: Option<&str> = None;
    for (name, image) in words.split(' ').filter_map(|it| it.split_once('=')) {
        if name == "conf" || name == "attempts" {
            continue;
        }
        let (image, replicas) = image.split_once('*').unwrap_or((image, "1"));
        let after = before.map_or_else(String::new, |it| format!(", depends_on: [{it}]"));
        let configs = value("conf=").map_or("", |_| ", configs: [conf]");
        writeln!(text, "  {name}: {{image: '{image}', deploy: {{replicas: {replicas}, {restart}}}{after}{configs}}}")
            .expect("a text takes it");
        before = Some(name);
    }
    if let Some(content) = value("conf=") {
        writeln!(text, "configs: {{conf: {{content: 'text:{content}'}}}}").expect("a text takes it");
    }
    text
}

async fn deploy(fake: &Fake, words: &str) -> String {
    let files = [("compose.yaml".to_owned(), Some(File::Text(file(words))))].into();
    let loaded = Bundle { files, ..Bundle::default() }.load(Some("s")).expect("it loads");
    let engine = OneEngine::new(fake.clone());
    let observed = observe(&engine, "s").await.expect("it is observed");
    let plan = Plan::of(&loaded.desired, &observed, &loaded.sources, true, &mut || [0; 16]);
    let journal = Journal::of(&plan, &observed);
    let settings = Settings { wait: true, timeout: Duration::from_secs(60), keep: false };
    let applied = apply(&engine, &loaded.desired, &observed, &plan, &journal, &settings, &mut |_| {}).await;
    match applied {
        Ok(applied) => format!("{} changes", applied.changes),
        Err(fault) => fault.to_string(),
    }
}

/// Plays one deployment after the other; what the last one said and wrote, and what is there then.
async fn check(lines: &[&str], expected: &str) {
    let fake = Fake::default();
    let (mut said, mut writes) = (String::new(), 0);
    for line in lines {
        let before = fake.0.lock().writes;
        said = deploy(&fake, line).await;
        writes = fake.0.lock().writes - before;
    }
    if writes == 0 {
        said.push_str(", no write");
    }
    let state = fake.0.lock();
    let mut all: Vec<String> = state
        .containers
        .iter()
        .map(|it| {
            let image = it.body["Image"].as_str().unwrap_or_default().trim_end_matches(":latest");
            format!("{} {image} {} {}", it.name, it.state().0, it.files).trim().to_owned()
        })
        .collect();
    all.sort();
    all.extend(state.networks.iter().map(|it| format!("network {}", it["Name"].as_str().unwrap_or_default())));
    assert_eq!(format!("{said}: {}", all.join(", ")), expected, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_start_may_fail_as_often_as_the_restart_policy_says_four_times_at_most() {
    check(&["web=app"], "2 changes: s-web-1 app running, network s_default").await;
    check(&["web=fails3"], "2 changes: s-web-1 fails3 running, network s_default").await;
    check(&["web=fails2 attempts=2"], "2 changes: s-web-1 fails2 running, network s_default").await;
    check(&["web=fails4"], "s_web: a task failed 4 times: task: non-zero exit (1): ").await;
    check(&["web=fails"], "s_web: a task failed 4 times: task: non-zero exit (1): ").await;
    check(&["web=fails2 attempts=1"], "s_web: a task failed 2 times: task: non-zero exit (1): ").await;
    check(&["web=fails attempts=0"], "s_web: a task failed: task: non-zero exit (1): ").await;
}

#[tokio::test(start_paused = true)]
async fn a_first_deployment_that_fails_removes_what_it_made() {
    check(&["db=app*2 web=fails conf=a"], "s_web: a task failed 4 times: task: non-zero exit (1): ").await;
    check(&["db=app web=gone"], "image gone:latest: pull access denied: ").await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_fails_goes_back() {
    let before = "db=app:1 web=app:1*2 conf=a";
    let there = "s-db-1 app:1 running a, s-web-1 app:1 running a, s-web-2 app:1 running a, network s_default";
    let good = |said: &str| format!("{said}: {there}");
    check(&[before], &good("4 changes")).await;
    check(&[before, before], &good("0 changes, no write")).await;
    // The service before it was changed well, the config has a new content, a replica came and one went, a service is new.
    let crash = "s_web: a task failed 4 times: task: non-zero exit (1)";
    check(&[before, "db=app:2 web=fails*2 conf=a"], &good(crash)).await;
    check(&[before, "db=app:2 web=fails*2 conf=b"], &good(crash)).await;
    check(&[before, "db=app:1*3 web=fails*2 conf=a"], &good(crash)).await;
    check(&[before, "db=app:2*0 web=fails*1 conf=b"], &good(crash)).await;
    check(&[before, "db=app:1 web=gone*2 conf=a"], &good("image gone:latest: pull access denied")).await;
    check(&[before, "db=app:1 new=app web=fails*2 conf=a"], &good(crash)).await;
    // After that a deployment goes on from there.
    check(
        &[before, "db=app:2 web=fails*2 conf=b", "db=app:2 web=app:2 conf=b"],
        "4 changes: s-db-1 app:2 running b, s-web-1 app:2 running b, network s_default",
    )
    .await;
}
