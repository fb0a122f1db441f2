//! The golden cases beside what Compose 2.26 makes of them.
//!
//! `tests/compose/recorded.json` was recorded by `record.py` there. Every difference stands in `tests/compose/differences.txt` with
//! its reason; `UPDATE=1 cargo test -p herder-compose --test compose` writes it anew.

mod differences;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Names of cases with the answers that are written down for them; [`None`] where the files are refused.
fn cases() -> Vec<(String, Option<Map<String, Value>>)> {
    let mut all = Vec::new();
    let folder = std::fs::read_dir(tests().join("cases")).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let is_table = path.file_name().unwrap().to_string_lossy().starts_with("service");
        let blocks: Vec<&str> =
            if is_table { text.split("\n\n").collect() } else { text.split("=== ").skip(1).collect() };
        for (given, answer) in blocks.iter().filter_map(|block| block.trim().split_once("\n=>")) {
            let name = if is_table { given } else { given.lines().next().unwrap() };
            let is_refused = answer.lines().any(|line| line.starts_with("error: ") || line.contains(": error: "));
            let values = answer.lines().filter_map(|line| line.split_once(": "));
            let values = values.filter_map(|(key, value)| Some((key.to_owned(), serde_json::from_str(value).ok()?)));
            all.push((name.to_owned(), (!is_refused).then(|| values.collect())));
        }
    }
    all
}

/// A value without what only one of both writes out: empty members, octal modes as text.
fn normal(key: &str, value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| (key.clone(), normal(key, value)));
            Value::Object(members.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(all) => all.iter().map(|value| normal("", value)).collect(),
        Value::String(text) if key == "mode" => {
            i64::from_str_radix(text, 8).map_or_else(|_| value.clone(), Value::from)
        }
        other => other.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    *value == Value::Null || *value == json!({}) || *value == json!([])
}

#[test]
fn answers_are_those_of_compose() {
    let recorded = std::fs::read(tests().join("compose/recorded.json")).unwrap();
    let recorded: Map<String, Value> = serde_json::from_slice(&recorded).unwrap();
    let cases = cases();
    assert!(cases.len() >= 400, "{}", cases.len());
    let mut found = Vec::new();
    for (name, herder) in &cases {
        let compose = recorded.get(name).unwrap_or_else(|| panic!("`{name}` was not recorded; see record.py"));
        let line = name.replace('\n', " / ");
        match (herder, compose.get("refused")) {
            (None, Some(_)) => {}
            (None, None) => found.push(format!("{line} | herder refuses")),
            (Some(_), Some(why)) => {
                let why = why[0].as_str().unwrap_or_default().replace("validating ", "");
                found.push(format!("{line} | compose refuses: {why}"));
            }
            (Some(herder), None) => {
                for (key, compose) in compose.as_object().unwrap() {
                    let (herder, compose) =
                        (normal(key, herder.get(key).unwrap_or(&Value::Null)), normal(key, compose));
                    if herder != compose && !(is_empty(&herder) && is_empty(&compose)) {
                        found.push(format!("{line} | {key}: compose {compose}, herder {herder}"));
                    }
                }
            }
        }
    }
    differences::check(&tests().join("compose/differences.txt"), &found);
}
