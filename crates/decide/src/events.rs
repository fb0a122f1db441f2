//! Events of all nodes as one stream: whose they are, which of them a client wants, and from when to when.

use herder_model::Node;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::list::{Filters, ListError};
use crate::names;

const FILTERS: [&str; 15] = [
    "builder",
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Adds the node to an engine's event, as classic Swarm did: `from`, attributes and a `node` object.
pub fn decorate(mut event: Value, node: &Node) -> Value {
    if !event.is_object() {
        return event;
    }
    if let Some(from) = event["from"].as_str() {
        event["from"] = format!("{from} node:{}", node.name).into();
    }
    if let Some(actor) = event.get_mut("Actor").and_then(Value::as_object_mut) {
        let attributes = actor.entry("Attributes").or_insert_with(|| json!({}));
        if attributes.is_null() {
            *attributes = json!({});
        }
        if let Some(attributes) = attributes.as_object_mut() {
            for (key, value) in
                [("node.name", &node.name), ("node.id", &node.id), ("node.addr", &node.addr), ("node.ip", &node.ip)]
            {
                attributes.insert(key.into(), value.as_str().into());
            }
        }
    }
    event["node"] = json!({"Name": node.name, "Id": node.id, "Addr": node.addr, "Ip": node.ip});
    event
}

/// Refuses filters that events do not have.
pub fn check(filters: &Filters) -> Result<(), ListError> {
    filters.check(&FILTERS)
}

/// Whether the client wants this (decorated) event.
pub fn matches(filters: &Filters, event: &Value) -> bool {
    filters.is_empty() || {
        let kind = event["Type"].as_str().unwrap_or("container");
        let attributes = &event["Actor"]["Attributes"];
        filters.is("type", kind)
            && event_matches(filters, event)
            && filters.is("scope", event["scope"].as_str().unwrap_or("local"))
            && actor_matches(filters, "container", kind, event)
            && actor_matches(filters, "network", kind, event)
            && actor_matches(filters, "volume", kind, event)
            && actor_matches(filters, "plugin", kind, event)
            && actor_matches(filters, "daemon", kind, event)
            && actor_matches(filters, "service", kind, event)
            && actor_matches(filters, "secret", kind, event)
            && actor_matches(filters, "config", kind, event)
            && actor_matches(filters, "builder", kind, event)
            && image_matches(filters, kind, event)
            && labels_match(filters, attributes)
            && node_matches(filters, event)
    }
}

/// `health_status` matches `health_status: healthy` as well, `exec_start` every command.
fn event_matches(filters: &Filters, event: &Value) -> bool {
    let action = event["Action"].as_str().or(event["status"].as_str()).unwrap_or_default();
    let word = action.split(':').next().unwrap_or(action);
    !filters.has("event") || filters.values("event").any(|value| value == action || value == word)
}

/// Ids match by prefix, names whole; a container may be given as `node/name`.
fn actor_matches(filters: &Filters, key: &str, kind: &str, event: &Value) -> bool {
    if !filters.has(key) {
        return true;
    }
    let id = event["Actor"]["ID"].as_str().or(event["id"].as_str()).unwrap_or_default();
    let attributes = &event["Actor"]["Attributes"];
    let name = attributes["name"].as_str().unwrap_or_default();
    let node = attributes["node.name"].as_str().unwrap_or_default();
    kind == key
        && filters.values(key).any(|value| {
            let bare = value.trim_start_matches('/');
            let on_node = bare.strip_prefix(node).and_then(|rest| rest.strip_prefix('/'));
            !value.is_empty() && id.starts_with(value)
                || !name.is_empty() && (name == bare || on_node == Some(name))
                || key == "volume" && (id == bare || on_node == Some(id))
        })
}

/// An image's own events by id or name, a container's by the image it is of. The tag may be left out.
fn image_matches(filters: &Filters, kind: &str, event: &Value) -> bool {
    if !filters.has("image") {
        return true;
    }
    let id = event["Actor"]["ID"].as_str().or(event["id"].as_str()).unwrap_or_default();
    let attributes = &event["Actor"]["Attributes"];
    let name = match kind {
        "image" => attributes["name"].as_str().unwrap_or_default(),
        "container" => attributes["image"].as_str().unwrap_or_default(),
        _ => return false,
    };
    let without_tag = |text: &str| match text.rsplit_once(':') {
        Some((repo, tag)) if !tag.contains('/') => repo.to_owned(),
        _ => text.to_owned(),
    };
    filters.values("image").any(|value| {
        value == name
            || kind == "image" && value == id
            || !name.is_empty() && names::familiar(value) == names::familiar(name)
            || without_tag(name) == value
    })
}

/// The actor's attributes carry the labels.
fn labels_match(filters: &Filters, attributes: &Value) -> bool {
    filters.values("label").all(|wanted| match wanted.split_once('=') {
        Some((key, value)) => attributes[key].as_str() == Some(value),
        None => attributes.get(wanted).is_some(),
    })
}

fn node_matches(filters: &Filters, event: &Value) -> bool {
    let node = &event["node"];
    let (name, id) = (node["Name"].as_str().unwrap_or_default(), node["Id"].as_str().unwrap_or_default());
    !filters.has("node") || filters.values("node").any(|value| value == name || value == id)
}

/// A point in time as `since` and `until` give it, in nanoseconds since 1970: seconds with an optional fraction, RFC 3339
/// (zone, time and seconds may be missing), or a Go duration before `now_nano`.
pub fn time(text: &str, now_nano: i64) -> Result<i64, TimeError> {
    let text = text.trim();
    seconds(text)
        .or_else(|| Some(now_nano.saturating_sub(go_duration(text)?)))
        .or_else(|| date(text))
        .ok_or_else(|| TimeError(text.to_owned()))
}

/// A time that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid time `{0}`: expected seconds since 1970, a date such as 2026-01-02T15:04:05Z, or a duration such as 10m"
)]
pub struct TimeError(String);

const NANOS: i64 = 1_000_000_000;

/// `1767225610.25`
fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty() || !plain(digits) || !plain(fraction) {
        return None;
    }
    let fraction: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let fraction: i64 = fraction.parse().ok()?;
    let whole: i64 = whole.parse().ok()?;
    whole.checked_mul(NANOS)?.checked_add(if text.starts_with('-') { -fraction } else { fraction })
}

/// `1h30m`, `1.5s`, `-10m`: nanoseconds.
fn go_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (count, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|char: char| char.is_ascii_digit() || char == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += count.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    Some((sign * nanos) as i64)
}

/// `2026-01-02`, `2026-01-02T15:04`, `2026-01-02T15:04:05.5`, with or without zone; without, UTC is meant.
fn date(text: &str) -> Option<i64> {
    let zoned = text.parse::<Timestamp>().ok();
    let civil = || {
        let date = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    i64::try_from(zoned.or_else(civil)?.as_nanosecond()).ok()
}
