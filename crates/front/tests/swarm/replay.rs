//! Replays recorded requests to real swarm mode: the door answers with the same status codes, forms of JSON and words.
//! Intended differences are in `differences.txt`, with reasons; a useless entry there fails the test, too.
//!
//! Two doors stand for the two nodes of the recordings. What is declared goes through the door and comes back from it; what
//! only a running swarm does (states of tasks, progress of an update) is played as it was recorded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use herder_decide::schedule::Scheduler;
use herder_front::{Front, FrontSettings};
use herder_pool::{Pool, Settings, full};
use http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::compare::{self, Known};
use crate::fake::{Node, World};
use crate::played;
use crate::rules::Rules;

/// One door for each node.
struct Doors {
    world: Arc<World>,
    doors: Vec<Arc<Front>>,
}

impl Doors {
    fn open(hosts: [&str; 2]) -> Doors {
        let world = World::new();
        let doors = hosts.into_iter().enumerate().map(|(at, host)| {
            let front = Front::new(Pool::new(Settings::default()), Scheduler::default(), FrontSettings::default());
            front.set_swarm(Arc::new(Node::new(world.clone(), at, host)));
            front
        });
        Doors { doors: doors.collect(), world }
    }

    /// Status, headers and body.
    async fn ask(&self, at: usize, method: &str, path: &str, kind: Option<&str>, body: Vec<u8>) -> (u16, Value, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let reply = self.doors[at].handle(request.body(full(body)).expect("a request")).await;
        let (parts, body) = reply.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        let headers =
            parts.headers.iter().map(|(key, value)| (key.to_string(), json!(value.to_str().unwrap_or_default())));
        (parts.status.as_u16(), Value::Object(headers.collect()), compare::body(&bytes))
    }
}

/// A recorded exchange, and what became of it here.
struct Exchange<'r> {
    recorded: &'r Value,
    name: String,
}

impl Exchange<'_> {
    fn text(&self, key: &str) -> &str {
        self.recorded[key].as_str().unwrap_or_default()
    }

    fn path(&self) -> &str {
        self.text("path")
    }
}

#[derive(Default)]
struct Outcome {
    same: usize,
    meant: usize,
    skipped: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

#[expect(clippy::disallowed_methods, reason = "a test may block")]
async fn replay(version: &str, hosts: [&str; 2], rules: &mut Rules) -> Outcome {
    let doors = Doors::open(hosts);
    let (mut known, mut outcome) = (Known::default(), Outcome::default());
    for file in files(version) {
        let recording: Value = serde_json::from_slice(&fs::read(&file).expect("a recording")).expect("JSON");
        let name = format!("{version}/{}", file.file_stem().expect("a name").to_string_lossy());
        if rules.is("locked", &name) {
            doors.world.lock();
        }
        let at = usize::from(rules.is("second", &name));
        for recorded in recording["exchanges"].as_array().into_iter().flatten() {
            let exchange = Exchange { recorded, name: name.clone() };
            let line = format!(
                "{} {} {}",
                name,
                exchange.text("method"),
                exchange.path().split('?').next().unwrap_or_default()
            );
            if let Some(reason) = rules.skips(&line) {
                *outcome.skipped.entry(reason).or_default() += 1;
                continue;
            }
            let command = recording["command"].as_str().unwrap_or_default();
            let found = differences(&doors, at, &exchange, command, &mut known, rules).await;
            let (meant, wrong): (Vec<String>, Vec<String>) =
                found.into_iter().map(|it| format!("{line} {it}")).partition(|it| rules.means(it));
            match (meant.is_empty(), wrong.is_empty()) {
                (true, true) => outcome.same += 1,
                (false, true) => outcome.meant += 1,
                (_, false) => outcome.wrong.push(wrong.join("\n")),
            }
        }
    }
    outcome
}

fn files(version: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../transcripts").join(version);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("recordings").map(|it| it.expect("a file").path()).collect();
    files.sort();
    files
}

/// Asks what was asked, and says what is not as it was.
async fn differences(
    doors: &Doors,
    at: usize,
    exchange: &Exchange<'_>,
    command: &str,
    known: &mut Known,
    rules: &mut Rules,
) -> Vec<String> {
    let recorded = exchange.recorded;
    played::play(&doors.world, exchange.text("method"), exchange.path(), recorded, command, known);
    let (kind, body) = request_body(recorded, known, &exchange.name, rules);
    let path = path(&doors.world, exchange, known);
    let (status, headers, body) = doors.ask(at, exchange.text("method"), &path, kind.as_deref(), body).await;
    let mut found = Vec::new();
    if recorded["status"] != status {
        found.push(format!("status: {} became {status} {}", recorded["status"], body["message"]));
        return found;
    }
    for name in ["Content-Type", "Swarm"] {
        let (was, is) = (&recorded["response_headers"][name], &headers[name.to_lowercase()]);
        // Docker's older engines left out what newer ones say.
        if was != is && !was.is_null() {
            found.push(format!("header {name}: {was} became {is}"));
        }
    }
    if let Some(was) = recorded.get("response_body").filter(|_| exchange.text("method") != "HEAD") {
        compare::compare(was, &body, known, &mut found);
    }
    found
}

fn request_body(recorded: &Value, known: &Known, name: &str, rules: &mut Rules) -> (Option<String>, Vec<u8>) {
    let body = &recorded["request_body"];
    let kind = recorded["request_headers"]["Content-Type"].as_str().map(str::to_owned);
    let kind = kind.or_else(|| (!body.is_null()).then(|| "application/json".to_owned()));
    let bytes = match body {
        Value::Null => Vec::new(),
        // Sent by hand, and no JSON.
        Value::String(text) => text.clone().into_bytes(),
        // The recorder did not keep the whole of it: a secret of zeros that is one byte too large.
        body if body.get("_large_body_bytes").is_some() => {
            let data = "AAAA".repeat(170_667);
            json!({"Name": "big", "Labels": {}, "Data": data}).to_string().into_bytes()
        }
        body => {
            let mut body = known.ours(body);
            rules.rewrite(name, &mut body);
            body.to_string().into_bytes()
        }
    };
    (kind, bytes)
}

/// The path with our ids and our versions.
fn path(world: &World, exchange: &Exchange<'_>, known: &Known) -> String {
    let path = known.ours_in(exchange.path());
    let late = exchange.recorded["response_body"]["message"].as_str().is_some_and(|it| it.contains("out of sequence"));
    let Some((bare, query)) = path.split_once('?').filter(|_| !late) else { return path };
    let segments: Vec<&str> = bare.trim_start_matches('/').split('/').collect();
    let version = world.version_of(segments.get(1).unwrap_or(&""), segments.get(2).unwrap_or(&""));
    let pairs = query.split('&').map(|pair| match (pair.strip_prefix("version="), version) {
        (Some(_), Some(version)) => format!("version={version}"),
        _ => pair.to_owned(),
    });
    format!("{bare}?{}", pairs.collect::<Vec<_>>().join("&"))
}

#[tokio::test]
async fn the_door_answers_as_real_swarm_mode_did() {
    let mut rules = Rules::read(include_str!("differences.txt"));
    let mut text = String::new();
    let mut outcomes = Vec::new();
    for (version, hosts) in [("api-1.41", ["n1", "n2"]), ("api-1.50", ["m1", "m2"])] {
        let outcome = replay(version, hosts, &mut rules).await;
        let skipped: usize = outcome.skipped.values().sum();
        text.push_str(&format!(
            "{version}: {} the same, {} different as meant, {} wrong, {skipped} not asked: {:?}\n",
            outcome.same,
            outcome.meant,
            outcome.wrong.len(),
            outcome.skipped
        ));
        outcomes.push(outcome);
    }
    let total = |count: fn(&Outcome) -> usize| outcomes.iter().map(count).sum::<usize>();
    let wrong: Vec<&String> = outcomes.iter().flat_map(|it| &it.wrong).collect();
    let shown = wrong.iter().take(400).map(|it| it.as_str()).collect::<Vec<_>>().join("\n\n");
    assert!(wrong.is_empty(), "{text}\n{shown}");
    assert_eq!(rules.unused(), Vec::<String>::new(), "differences that are none any more");
    let (same, meant) = (total(|it| it.same), total(|it| it.meant));
    assert!(same > 1000 && meant < 120, "too little was compared:\n{text}");
}
