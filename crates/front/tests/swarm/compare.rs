//! Two answers beside each other: forms must be the same, what was declared and what was said also in content.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

/// Our ids, tokens and keys by those of the recording.
#[derive(Default)]
pub(crate) struct Known(BTreeMap<String, String>);

impl Known {
    pub(crate) fn learn(&mut self, recorded: &str, ours: &str) {
        if is_made(recorded) && is_made(ours) {
            self.0.insert(recorded.to_owned(), ours.to_owned());
        }
    }

    pub(crate) fn ours_in(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (recorded, ours)| text.replace(recorded, ours))
    }

    pub(crate) fn ours(&self, value: &Value) -> Value {
        serde_json::from_str(&self.ours_in(&value.to_string())).expect("JSON")
    }
}

/// True for ids, tokens and keys, which the answering side makes.
fn is_made(text: &str) -> bool {
    let plain = |it: u8| it.is_ascii_digit() || it.is_ascii_lowercase();
    text.len() == 25 && text.bytes().all(plain) || text.starts_with("SWMTKN-") || text.starts_with("SWMKEY-")
}

/// JSON, or else a text; frames of a log as the recorder wrote them.
pub(crate) fn body(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    if let Ok(json) = serde_json::from_slice(bytes) {
        return json;
    }
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while let [stream, 0, 0, 0, a, b, c, d, more @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some(text) = more.get(..length) else { break };
        frames.push(json!([if *stream == 2 { "stderr" } else { "stdout" }, String::from_utf8_lossy(text)]));
        rest = &more[length..];
    }
    if frames.is_empty() { json!(String::from_utf8_lossy(bytes)) } else { json!({ "_stream_frames": frames }) }
}

/// Compares, learns what stands for what, and says what differs.
pub(crate) fn compare(was: &Value, is: &Value, known: &mut Known, found: &mut Vec<String>) {
    if was.get("_stream_frames").is_some() {
        return frames(was, is, found);
    }
    // Of `/info` and `/version` only what is about the swarm was kept, or means something here.
    if was.get("_trimmed").is_some() || was.get("LiveRestoreEnabled").is_some() {
        return values(&was["Swarm"], &is["Swarm"], ".Swarm", false, known, found);
    }
    values(was, is, "", false, known, found);
}

/// Members whose content must be equal: declarations, and texts.
const EXACT: [&str; 10] = [
    "Spec",
    "PreviousSpec",
    "message",
    "LocalNodeState",
    "ControlAvailable",
    "Role",
    "Availability",
    "Warnings",
    "State",
    "Error",
];

fn values(was: &Value, is: &Value, path: &str, exact: bool, known: &mut Known, found: &mut Vec<String>) {
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            for (key, value) in was {
                let path = format!("{path}.{key}");
                match is.get(key) {
                    Some(other) => values(value, other, &path, exact || EXACT.contains(&key.as_str()), known, found),
                    None => found.push(format!("{path}: {} is missing", short(value))),
                }
            }
            // Herder's own: which releases a swarm has.
            let more = is.iter().filter(|(key, _)| !was.contains_key(*key) && *key != "FeatureLevel");
            found.extend(more.map(|(key, value)| format!("{path}.{key}: {} is too much", short(value))));
        }
        (Value::Array(was), Value::Array(is)) => items(was, is, path, exact, known, found),
        (Value::String(was), Value::String(is)) => {
            known.learn(was, is);
            if exact && plain(&known.ours_in(was)) != plain(is) {
                found.push(format!("{path}: {was:?} became {is:?}"));
            }
        }
        (Value::Number(_), Value::Number(_)) if !exact || path.ends_with(".Index") => {}
        (Value::Bool(_), Value::Bool(_)) if !exact => {}
        _ if was == is => {}
        _ => found.push(format!("{path}: {} became {}", short(was), short(is))),
    }
}

/// Items with names belong together; others by their place.
fn items(was: &[Value], is: &[Value], path: &str, exact: bool, known: &mut Known, found: &mut Vec<String>) {
    let path = format!("{path}[]");
    let name = |item: &Value| {
        let places = ["/Description/Hostname", "/Spec/Name", "/Name"];
        let named = places.into_iter().find_map(|place| item.pointer(place)).and_then(Value::as_str).map(str::to_owned);
        if item.get("DesiredState").is_some() { item["ID"].as_str().map(str::to_owned) } else { named }
    };
    let mut rest: Vec<&Value> = is.iter().collect();
    for (at, item) in was.iter().enumerate() {
        let place = match name(item) {
            Some(wanted) => rest.iter().position(|it| name(it).as_ref() == Some(&wanted)),
            None => (at < is.len()).then_some(0),
        };
        match place {
            Some(place) => values(item, rest.remove(place), &path, exact, known, found),
            None => found.push(format!("{path}: {} is missing", name(item).unwrap_or_else(|| short(item)))),
        }
    }
    found.extend(rest.into_iter().map(|it| format!("{path}: {} is too much", name(it).unwrap_or_else(|| short(it)))));
}

/// Lines of all tasks are mixed as they come; each must have come, and no other.
fn frames(was: &Value, is: &Value, found: &mut Vec<String>) {
    let lines = |value: &Value| {
        let frames = value["_stream_frames"].as_array().cloned().unwrap_or_default();
        let mut lines: Vec<String> =
            frames.iter().map(|it| format!("{} {}", it[0], plain(it[1].as_str().unwrap_or("")))).collect();
        lines.sort();
        lines.dedup();
        lines
    };
    let (was, is) = (lines(was), lines(is));
    if was != is {
        found.push(format!("frames: {was:?} became {is:?}"));
    }
}

/// Ids, digests and times.
static MADE: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"\b[0-9a-z]{25}\b|\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b|\d{4}-\d\d-\d\dT[0-9:.]+Z";
    Regex::new(pattern).expect("a pattern")
});

/// Removes values that the answering side makes.
fn plain(text: &str) -> String {
    MADE.replace_all(text, "…").into_owned()
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}
