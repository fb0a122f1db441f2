//! The golden cases have every key of the schema, in each of its forms.

use std::collections::BTreeSet;
use std::path::Path;

use crate::diagnostic::Report;
use crate::merge::has_own_rule;
use crate::node::{Join, Node, Value};
use crate::schema::FILE;
use crate::shape::{Object, Type};
use crate::yaml;

/// Each key with the forms that its values have: `services.*.build text`.
type Seen = BTreeSet<String>;

/// The forms that a value of this type has, and the types below it.
fn below(shape: &Type) -> (&'static [&'static str], Vec<(&'static str, &'static Type)>) {
    match shape {
        Type::Dict { .. } | Type::Contexts | Type::Hosts => (&["map", "list"], vec![]),
        Type::Texts | Type::Command => (&["scalar", "list"], vec![]),
        Type::External => (&["scalar", "map"], vec![]),
        Type::KeyedList(_, value) => (&["list", "map"], vec![(".*", *value)]),
        Type::Map(value) => (&["map"], vec![(".*", *value)]),
        Type::List(element) => (&["list"], vec![("[]", *element)]),
        Type::Elements(_, element) => (&["list"], vec![("[]", *element)]),
        Type::Short(_, long) | Type::Optional(long) => (&[], vec![("", *long)]),
        Type::Object(_) => (&["map"], vec![]),
        _ => (&[], vec![]),
    }
}

fn form(node: &Node) -> &'static str {
    match node.value {
        Value::Null => "null",
        Value::Map(_) => "map",
        Value::List(_) => "list",
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => "scalar",
    }
}

/// Notes what a value has.
fn see(node: &Node, shape: &Type, path: &str, seen: &mut Seen) {
    if node.join == Join::Reset {
        return;
    }
    seen.insert(path.to_owned());
    seen.insert(format!("{path} {}", form(node)));
    if let Type::Object(object) = shape {
        for (key, shape) in object.keys {
            if let Some(value) = node.get(key) {
                see(value, shape, &join(path, key), seen);
            }
        }
    }
    for (step, shape) in below(shape).1 {
        match step {
            ".*" => node.entries().for_each(|(_, value)| see(value, shape, &format!("{path}.*"), seen)),
            "[]" => node.elements().for_each(|value| see(value, shape, &format!("{path}[]"), seen)),
            _ => see(node, shape, path, seen),
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Everything that cases should have: keys, and forms where there is more than one.
fn wanted(object: &Object, path: &str, all: &mut Seen) {
    for (key, shape) in object.keys {
        wanted_of(shape, &join(path, key), all);
    }
}

fn wanted_of(shape: &Type, path: &str, all: &mut Seen) {
    all.insert(path.to_owned());
    let (forms, below) = below(shape);
    if forms.len() > 1 {
        all.extend(forms.iter().map(|form| format!("{path} {form}")));
    }
    match shape {
        Type::Short(..) => drop(all.insert(format!("{path} scalar"))),
        Type::Elements(..) => all.extend(["scalar", "map"].map(|form| format!("{path}[] {form}"))),
        Type::Object(object) => wanted(object, path, all),
        _ => {}
    }
    below.into_iter().for_each(|(step, shape)| wanted_of(shape, &format!("{path}{step}"), all));
}

/// The Compose files of all cases, case by case.
fn cases() -> Vec<Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a text");
        if path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("service")) {
            for body in text.split("\n\n").filter_map(|block| block.trim().split("\n=>").next()) {
                let body: String = body.lines().map(|line| format!("    {line}\n")).collect();
                cases.push(vec![format!("services:\n  a:\n{body}")]);
            }
            continue;
        }
        for story in text.split("=== ").skip(1).filter_map(|story| story.split("\n=>").next()) {
            let parts = story.split("\n--- ").skip(1).filter_map(|part| part.split_once('\n'));
            let yaml = parts.filter(|(name, _)| name.ends_with(".yaml") || name.ends_with(".yml"));
            cases.push(yaml.map(|(_, text)| format!("{text}\n")).collect());
        }
    }
    cases
}

/// Notes what the files of a case have, file by file.
fn seen_by_file(case: &[String]) -> Vec<Seen> {
    let seen_in = |file: &String| {
        let mut seen = Seen::new();
        let mut report = Report::of_files(&["compose.yaml".to_owned()]);
        for document in yaml::parse(file, 0, &mut report) {
            see(&document, &Type::Object(&FILE), "", &mut seen);
        }
        seen
    };
    case.iter().map(seen_in).collect()
}

#[test]
fn every_key_occurs_in_each_of_its_forms() {
    let seen: Seen = cases().iter().flat_map(|case| seen_by_file(case)).flatten().collect();
    let mut all = Seen::new();
    wanted(&FILE, "", &mut all);
    let missing: Vec<&String> = all.difference(&seen).collect();
    assert!(all.len() > 300, "{}", all.len());
    assert!(missing.is_empty(), "no case has {missing:#?}");
}

/// Adds the paths with a merge rule of their own, and those whose values are merged in two forms. Elements of lists are not
/// merged.
fn merged_specially(shape: &Type, path: &str, all: &mut Seen) {
    if path.ends_with("[]") {
        return;
    }
    let names: Vec<&str> = path.split('.').collect();
    if has_own_rule(&names) {
        all.insert(path.to_owned());
    }
    if let Type::Dict { .. } | Type::KeyedList(..) = shape {
        all.insert(format!("{path} list, map"));
    }
    if let Type::Object(object) = shape {
        object.keys.iter().for_each(|(key, shape)| merged_specially(shape, &join(path, key), all));
    }
    below(shape).1.into_iter().for_each(|(step, shape)| merged_specially(shape, &format!("{path}{step}"), all));
}

#[test]
fn every_merge_rule_has_a_case_in_which_two_files_meet() {
    let mut all = Seen::new();
    merged_specially(&Type::Object(&FILE), "", &mut all);
    let mut met = Seen::new();
    for case in cases() {
        let files = seen_by_file(&case);
        for (at, later) in files.iter().enumerate() {
            for earlier in &files[..at] {
                met.extend(earlier.intersection(later).cloned());
                for path in later.iter().filter(|path| !path.contains(' ')) {
                    let forms = |one: &str, other: &str| {
                        earlier.contains(&format!("{path} {one}")) && later.contains(&format!("{path} {other}"))
                    };
                    if forms("list", "map") || forms("map", "list") {
                        met.insert(format!("{path} list, map"));
                    }
                }
            }
        }
    }
    let missing: Vec<&String> = all.difference(&met).collect();
    assert!(all.len() > 40, "{}: {all:#?}", all.len());
    assert!(missing.is_empty(), "no case merges {missing:#?}");
}
