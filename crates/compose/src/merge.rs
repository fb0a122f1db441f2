//! Merges one file onto another (Compose Specification, "Merge").
//!
//! Both sides are in the long form already, so that most rules are those of mappings and lists.

use std::collections::HashMap;

use crate::diagnostic::{Path, Report};
use crate::node::{Join, Map, Node, Value};

/// Rule for lists and scalars of a path.
#[derive(Clone, Copy)]
enum Rule {
    /// Maps merge, lists append, scalars replace.
    Usual,
    /// The later value replaces the earlier one whole.
    Replace,
    /// Lists append; equal elements stay once.
    Set,
    /// Lists append; of elements with the same key the later one stays.
    Unique(fn(&Node) -> Option<String>),
    /// Options merge only for the same driver.
    Logging,
}

/// The rule of a path. The names of services, networks and so on are not looked at.
fn rule(path: &[&str]) -> Rule {
    match path {
        ["services", _, rest @ ..] => match rest {
            ["command" | "entrypoint"] | ["healthcheck", "test"] => Rule::Replace,
            ["logging"] => Rule::Logging,
            [
                "dns" | "dns_opt" | "dns_search" | "label_file" | "tmpfs" | "extra_hosts" | "cap_add" | "cap_drop"
                | "expose" | "links" | "profiles" | "external_links" | "group_add",
            ]
            | ["networks", _, "aliases" | "link_local_ips"]
            | ["build", "extra_hosts"] => Rule::Set,
            ["env_file"] => Rule::Unique(|node| text_of(node, "path")),
            ["ports"] => Rule::Unique(port_key),
            ["volumes" | "devices"] => Rule::Unique(|node| text_of(node, "target")),
            ["secrets"] => Rule::Unique(|node| file_key(node, "/run/secrets/")),
            ["configs"] => Rule::Unique(|node| file_key(node, "/")),
            ["build", "secrets"] => Rule::Unique(|node| text_of(node, "target").or_else(|| text_of(node, "source"))),
            _ => Rule::Usual,
        },
        ["networks", _, "ipam", "config"] => Rule::Unique(|node| text_of(node, "subnet")),
        _ => Rule::Usual,
    }
}

/// True of a path that is not merged as maps, lists and scalars are.
#[cfg(test)]
pub(crate) fn has_own_rule(path: &[&str]) -> bool {
    !matches!(rule(path), Rule::Usual)
}

fn text_of(node: &Node, key: &str) -> Option<String> {
    node.get(key)?.scalar_text()
}

fn port_key(node: &Node) -> Option<String> {
    let part = |key| text_of(node, key).unwrap_or_default();
    Some(format!("{}:{}:{}/{}", part("host_ip"), part("published"), part("target"), part("protocol")))
}

fn file_key(node: &Node, folder: &str) -> Option<String> {
    let target = text_of(node, "target").or_else(|| text_of(node, "source"))?;
    Some(if target.starts_with('/') { target } else { format!("{folder}{target}") })
}

/// Merges `over` onto `base`. Values that do not fit each other are added to the report.
pub(crate) fn merge(base: Node, over: Node, report: &mut Report) -> Node {
    let mut merged = join(base, over, &mut Vec::new(), report);
    settle(&mut merged, &mut Vec::new());
    merged
}

/// Merges one service onto another one, as `extends` does.
pub(crate) fn merge_service(base: Node, over: Node, report: &mut Report) -> Node {
    let mut path = vec!["services".to_owned(), "*".to_owned()];
    join(base, over, &mut path, report)
}

fn join(base: Node, over: Node, path: &mut Vec<String>, report: &mut Report) -> Node {
    if over.join != Join::Merge {
        return over;
    }
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let rule = rule(&names);
    if matches!(rule, Rule::Replace) {
        return over;
    }
    if over.is_null() {
        return Node { key_at: base.key_at.or(over.key_at), ..base };
    }
    if base.is_null() || base.join == Join::Reset {
        return over;
    }
    let Node { value: below, at: below_at, .. } = base;
    let Node { value: above, at, key_at, join, written } = over;
    let value = match (below, above) {
        (Value::Map(below), Value::Map(above)) => Value::Map(join_maps(below, above, rule, path, report)),
        (Value::List(mut below), Value::List(above)) => {
            below.extend(above);
            Value::List(below)
        }
        (below, above) => {
            let is_scalar = |value: &Value| !matches!(value, Value::Map(_) | Value::List(_));
            if !(is_scalar(&below) && is_scalar(&above)) {
                report.error("merge", at, path.join("."), "cannot override a value of another kind");
                report.related(below_at, "the other value is here");
            }
            above
        }
    };
    Node { value, at, key_at, join, written }
}

fn join_maps(mut below: Map, above: Map, rule: Rule, path: &mut Vec<String>, report: &mut Report) -> Map {
    let driver = |map: &Map| map.get("driver").and_then(Node::as_str).map(str::to_owned);
    if matches!(rule, Rule::Logging)
        && let (Some(one), Some(other)) = (driver(&below), driver(&above))
        && one != other
    {
        return above;
    }
    for (key, node) in above {
        path.push(key);
        let key = path.last().cloned().unwrap_or_default();
        let value = match below.get_mut(&key) {
            Some(place) => {
                let base = std::mem::replace(place, Node::new(Value::Null, node.at));
                join(base, node, path, report)
            }
            None => node,
        };
        below.insert(key, value);
        path.pop();
    }
    below
}

/// Removes what `!reset` marks, forgets `!override`, and leaves each element of a set once.
fn settle(node: &mut Node, path: &mut Vec<String>) {
    node.join = Join::Merge;
    match &mut node.value {
        Value::Map(map) => {
            map.retain(|_, node| node.join != Join::Reset);
            for (key, node) in map.iter_mut() {
                path.push(key.clone());
                settle(node, path);
                path.pop();
            }
        }
        Value::List(list) => {
            list.retain(|node| node.join != Join::Reset);
            path.push(String::new());
            list.iter_mut().for_each(|node| settle(node, path));
            path.pop();
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            match rule(&names) {
                Rule::Set => keep_last(list, Node::scalar_text),
                Rule::Unique(key) => keep_last(list, key),
                Rule::Usual | Rule::Replace | Rule::Logging => {}
            }
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {}
    }
}

/// Keeps the last of elements with the same key, at the place of the first. Elements without a key all stay.
fn keep_last(list: &mut Vec<Node>, key: fn(&Node) -> Option<String>) {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<Node> = Vec::with_capacity(list.len());
    for node in std::mem::take(list) {
        match key(&node) {
            Some(key) => match places.get(&key) {
                Some(&place) => kept[place] = node,
                None => {
                    places.insert(key, kept.len());
                    kept.push(node);
                }
            },
            None => kept.push(node),
        }
    }
    *list = kept;
}

/// Refuses elements of one list that claim the same place: only a later file replaces an element.
pub(crate) fn check_clashes(document: &Node, report: &mut Report) {
    let root = Path::ROOT;
    let services = root.key("services");
    for (name, service) in document.get("services").into_iter().flat_map(Node::entries) {
        let service_path = services.key(name);
        for key in ["volumes", "devices", "secrets", "configs"] {
            let Rule::Unique(key_of) = rule(&["services", name, key]) else { continue };
            let mut places: HashMap<String, &Node> = HashMap::new();
            let list_path = service_path.key(key);
            for (index, node) in service.get(key).into_iter().flat_map(Node::elements).enumerate() {
                let Some(place) = key_of(node) else { continue };
                match places.insert(place.clone(), node) {
                    Some(other) if !same(other, node) => {
                        let message = format!("two entries have the target {place}");
                        report.error("conflict", node.at, list_path.index(index), message);
                        report.related(other.at, "the other one is here");
                    }
                    Some(_) | None => {}
                }
            }
        }
    }
}

/// Merges the entries of an included project into the including one. An equal entry is no conflict.
pub(crate) fn import(into: &mut Map, from: Map, kind: &str, report: &mut Report) {
    for (key, node) in from {
        match into.get(&key) {
            Some(there) if !same(there, &node) => {
                let path = Path::ROOT;
                let path = path.key(kind);
                let message = format!("the included file defines {kind} `{key}` otherwise");
                report.error("include-conflict", there.named_at(), path.key(&key), message);
                report.related(node.named_at(), "the other definition is here");
            }
            Some(_) => {}
            None => {
                into.insert(key, node);
            }
        }
    }
}

/// Equality without positions.
fn same(one: &Node, other: &Node) -> bool {
    one.to_json() == other.to_json()
}
