//! Differences between the fields of specifications, in words. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// A field that would change. Empty: it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub old: String,
    pub new: String,
}

/// Beginnings of paths, and what people call them. The first one that fits counts.
const NAMES: [(&str, &str); 5] = [
    ("TaskTemplate.ContainerSpec.Labels.", "ContainerLabels."),
    ("TaskTemplate.ContainerSpec.", ""),
    ("TaskTemplate.", ""),
    ("EndpointSpec.", ""),
    ("Mode.Replicated.", ""),
];

/// Members that name an item of a list. The first one that it has counts.
const KEYS: [&str; 6] = ["SecretName", "ConfigName", "Target", "TargetPort", "Name", "Source"];

/// Members that hold nanoseconds.
const TIMES: [&str; 9] = [
    "Delay",
    "Monitor",
    "Interval",
    "Timeout",
    "StartPeriod",
    "StartInterval",
    "StopGracePeriod",
    "Window",
    "MaxDuration",
];

/// Docker's CLI notes the image as it was written; it changes when the image does.
const IMAGE_NOTE: &str = "Labels.com.docker.stack.image";

/// Returns the differences between two specifications.
pub fn compare(old: &Value, new: &Value) -> Vec<Field> {
    let (old, new) = (leaves(old), leaves(new));
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let text = |of: &BTreeMap<String, String>, name: &str| of.get(name).cloned().unwrap_or_default();
    let fields =
        names.into_iter().map(|name| Field { name: name.clone(), old: text(&old, name), new: text(&new, name) });
    let mut fields: Vec<Field> = fields.filter(|it| it.old != it.new).collect();
    if fields.iter().any(|it| it.name == "Image") {
        fields.retain(|it| it.name != IMAGE_NOTE);
    }
    fields
}

/// Path → text. What is empty is as if it were not there.
fn leaves(value: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    gather(value, "", &mut found);
    let named = found.into_iter().map(|(path, text)| {
        let short = NAMES.iter().find_map(|(from, to)| Some(format!("{to}{}", path.strip_prefix(from)?)));
        (short.unwrap_or(path), text)
    });
    named.collect()
}

fn gather(value: &Value, path: &str, found: &mut BTreeMap<String, String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let last = path.rsplit('.').next().unwrap_or_default();
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| gather(value, &below(key), found)),
        Value::Array(items) if last == "Env" => {
            for item in items.iter().filter_map(Value::as_str) {
                let (key, value) = item.split_once('=').unwrap_or((item, ""));
                found.insert(below(key), quoted(value));
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let named: Option<BTreeMap<String, String>> = items.iter().map(|it| Some((key(it)?, item(it)))).collect();
            match named.filter(|it| it.len() == items.len()) {
                Some(named) => named.into_iter().for_each(|(key, text)| drop(found.insert(below(&key), text))),
                None => drop(found.insert(path.to_owned(), value.to_string())),
            }
        }
        Value::Array(_) | Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        Value::Number(number) if number.as_f64() == Some(0.0) && last != "Replicas" => {}
        Value::Number(number) => drop(found.insert(path.to_owned(), amount(last, number))),
        Value::Bool(false) => {}
        Value::String(text) => drop(found.insert(path.to_owned(), quoted(text))),
        Value::Bool(true) => drop(found.insert(path.to_owned(), "true".to_owned())),
    }
}

fn key(item: &Value) -> Option<String> {
    let value = KEYS.iter().find_map(|key| item.get(*key))?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// An item of a list without its key and without ids, which differ where nothing does.
fn item(item: &Value) -> String {
    let mut item = item.clone();
    let name = KEYS.iter().find(|key| item.get(**key).is_some());
    if let (Some(name), Some(members)) = (name, item.as_object_mut()) {
        members.retain(|key, value| key != name && key != "SecretID" && key != "ConfigID" && !value.is_null());
        if members.is_empty() {
            return "yes".to_owned();
        }
    }
    item.to_string()
}

/// Texts stand for themselves, unless one could not see where they end.
fn quoted(text: &str) -> String {
    if text.is_empty() || text.contains(char::is_whitespace) { format!("{text:?}") } else { text.to_owned() }
}

fn amount(name: &str, number: &serde_json::Number) -> String {
    let whole = number.as_i64().unwrap_or_default();
    match name {
        _ if TIMES.contains(&name) && whole > 0 => {
            let nanos = u64::try_from(whole).unwrap_or_default();
            format!("{:?}", std::time::Duration::from_nanos(nanos))
        }
        "NanoCPUs" => format!("{} CPUs", whole as f64 / 1e9),
        "MemoryBytes" if whole % (1 << 20) == 0 => format!("{} MiB", whole >> 20),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(old: Value, new: Value, expected: &[&str]) {
        let fields = compare(&old, &new);
        let text: Vec<String> = fields.iter().map(|it| format!("{}: {} → {}", it.name, it.old, it.new)).collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn fields_have_the_names_that_people_use() {
        let spec = |image: &str, level: &str, replicas: u64| {
            json!({
                "Labels": {"com.docker.stack.image": image},
                "TaskTemplate": {
                    "ContainerSpec": {"Image": image, "Env": [format!("LEVEL={level}")], "Labels": {"a": "b"}},
                    "Resources": {"Limits": {"MemoryBytes": 64 << 20}},
                },
                "Mode": {"Replicated": {"Replicas": replicas}},
            })
        };
        check(spec("a", "x", 1), spec("a", "x", 1), &[]);
        check(spec("a", "x", 1), spec("b", "y z", 0), &["Env.LEVEL: x → \"y z\"", "Image: a → b", "Replicas: 1 → 0"]);
    }

    #[test]
    fn what_is_empty_is_as_if_it_were_not_there() {
        check(json!({"A": null, "B": [], "C": 0, "D": false, "E": ""}), json!({}), &[]);
        check(json!({}), json!({"A": {"B": {"C": true}}}), &["A.B.C:  → true"]);
    }

    #[test]
    fn amounts_have_units() {
        let limits = |cpus: i64, memory: i64| json!({"Limits": {"NanoCPUs": cpus, "MemoryBytes": memory}});
        check(
            limits(500_000_000, 64 << 20),
            limits(1_000_000_000, 1000),
            &["Limits.MemoryBytes: 64 MiB → 1000", "Limits.NanoCPUs: 0.5 CPUs → 1 CPUs"],
        );
        check(json!({"Delay": 1_500_000_000}), json!({"Delay": 2_000_000}), &["Delay: 1.5s → 2ms"]);
    }

    #[test]
    fn items_of_lists_are_told_apart_by_name() {
        let secret = |id: &str, mode: u32| json!({"SecretID": id, "SecretName": "pass", "File": {"Mode": mode}});
        check(json!({"Secrets": [secret("1", 7)]}), json!({"Secrets": [secret("2", 7)]}), &[]);
        check(
            json!({"Secrets": [secret("1", 7)]}),
            json!({"Secrets": [secret("2", 8)]}),
            &[r#"Secrets.pass: {"File":{"Mode":7}} → {"File":{"Mode":8}}"#],
        );
        check(json!({"Args": ["a", "b"]}), json!({"Args": ["a"]}), &[r#"Args: ["a","b"] → ["a"]"#]);
        check(
            json!({"Ports": [{"TargetPort": 80, "PublishedPort": 1}]}),
            json!({"Ports": [{"TargetPort": 80, "PublishedPort": 2}, {"TargetPort": 81}]}),
            &[r#"Ports.80: {"PublishedPort":1} → {"PublishedPort":2}"#, "Ports.81:  → yes"],
        );
    }
}
