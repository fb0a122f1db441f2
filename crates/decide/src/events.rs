//! Events of all nodes as one stream: attribution to nodes, filters, and time range.

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

/// True if the client wants this (decorated) event.
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

/// Parses a `since` or `until` into nanoseconds since 1970. Accepted are seconds with an optional fraction, RFC 3339
/// (zone, time and seconds may be missing), and a Go duration before `now_nano`.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node {
            name: "n1".into(),
            id: "AB|10.0.0.1:2375".into(),
            addr: "10.0.0.1:2375".into(),
            ip: "10.0.0.1".into(),
            ..Node::default()
        }
    }

    fn event() -> Value {
        let event = json!({"status": "start", "id": "abcdef", "from": "busybox:1", "Type": "container", "Action": "start",
            "Actor": {"ID": "abcdef", "Attributes": {"image": "busybox:1", "name": "web", "tier": "front"}},
            "scope": "local", "time": 5, "timeNano": 5_000_000_000_i64});
        decorate(event, &node())
    }

    #[test]
    fn an_event_says_where_it_comes_from() {
        let event = event();
        assert_eq!(event["from"], "busybox:1 node:n1");
        assert_eq!(
            event["Actor"]["Attributes"],
            json!({"image": "busybox:1", "name": "web", "tier": "front", "node.name": "n1", "node.id": "AB|10.0.0.1:2375",
                "node.addr": "10.0.0.1:2375", "node.ip": "10.0.0.1"})
        );
        let last = event.as_object().and_then(|fields| fields.iter().next_back());
        let expected = json!({"Name": "n1", "Id": "AB|10.0.0.1:2375", "Addr": "10.0.0.1:2375", "Ip": "10.0.0.1"});
        assert_eq!(last, Some((&"node".to_owned(), &expected)));
    }

    #[test]
    fn odd_events_are_decorated_without_harm() {
        for (event, attributes) in
            [(json!({"Actor": {"ID": "x", "Attributes": null}}), 4), (json!({"Actor": {"ID": "x"}}), 4), (json!({}), 0)]
        {
            let decorated = decorate(event, &node());
            assert_eq!(decorated["Actor"]["Attributes"].as_object().map_or(0, |it| it.len()), attributes);
        }
        assert_eq!(decorate(json!([]), &node()), json!([]));
    }

    #[track_caller]
    fn check(event: &Value, filters: &str, expected: bool) {
        let filters = Filters::parse(filters).unwrap();
        assert_eq!(check_keys(&filters), Ok(()));
        assert_eq!(matches(&filters, event), expected, "{filters:?}");
    }

    fn check_keys(filters: &Filters) -> Result<(), ListError> {
        super::check(filters)
    }

    #[test]
    fn every_filter_of_events() {
        for (filters, expected) in [
            ("", true),
            (r#"{"type":["container"]}"#, true),
            (r#"{"type":["image","network"]}"#, false),
            (r#"{"event":["start","stop"]}"#, true),
            (r#"{"event":["die"]}"#, false),
            (r#"{"container":["web"]}"#, true),
            (r#"{"container":["/web"]}"#, true),
            (r#"{"container":["n1/web"]}"#, true),
            (r#"{"container":["n2/web"]}"#, false),
            (r#"{"container":["abc"]}"#, true),
            (r#"{"container":["we"]}"#, false),
            (r#"{"image":["busybox:1"]}"#, true),
            (r#"{"image":["busybox"]}"#, true),
            (r#"{"image":["docker.io/library/busybox:1"]}"#, true),
            (r#"{"image":["busybox:2"]}"#, false),
            (r#"{"label":["tier=front"]}"#, true),
            (r#"{"label":["tier","tier=back"]}"#, false),
            (r#"{"scope":["local"]}"#, true),
            (r#"{"scope":["swarm"]}"#, false),
            (r#"{"node":["n1"]}"#, true),
            (r#"{"node":["n2"]}"#, false),
            (r#"{"network":["web"]}"#, false),
            (r#"{"volume":["web"]}"#, false),
            (r#"{"daemon":["x"]}"#, false),
            (r#"{"container":["web"],"event":["die"]}"#, false),
        ] {
            check(&event(), filters, expected);
        }
        let health = json!({"Type": "container", "Action": "health_status: healthy", "Actor": {"ID": "x"}});
        check(&health, r#"{"event":["health_status"]}"#, true);
        check(&health, r#"{"event":["health_status: healthy"]}"#, true);
        check(&health, r#"{"event":["health_status: unhealthy"]}"#, false);
        let volume =
            json!({"Type": "volume", "Action": "create", "Actor": {"ID": "data", "Attributes": {"driver": "local"}}});
        check(&volume, r#"{"volume":["data"]}"#, true);
        check(&volume, r#"{"image":["data"]}"#, false);
        let network =
            json!({"Type": "network", "Action": "connect", "Actor": {"ID": "77", "Attributes": {"name": "app"}}});
        check(&network, r#"{"network":["app"]}"#, true);
    }

    #[test]
    fn unknown_filters_are_refused() {
        let filters = Filters::parse(r#"{"colour":["red"]}"#).unwrap();
        assert_eq!(super::check(&filters).unwrap_err().to_string(), "invalid filter 'colour'");
    }

    #[test]
    fn times_are_read_as_clients_write_them() {
        let now = 1_000_000 * NANOS;
        for (text, expected) in [
            ("1767225610", Ok(1_767_225_610 * NANOS)),
            ("1767225610.25", Ok(1_767_225_610 * NANOS + 250_000_000)),
            ("1767225610.000000001", Ok(1_767_225_610 * NANOS + 1)),
            ("0", Ok(0)),
            ("10m", Ok(now - 600 * NANOS)),
            ("1h30m", Ok(now - 5400 * NANOS)),
            ("1.5s", Ok(now - 1_500_000_000)),
            ("-10s", Ok(now + 10 * NANOS)),
            ("2026-01-01T00:00:10Z", Ok(1_767_225_610 * NANOS)),
            ("2026-01-01T01:00:10.5+01:00", Ok(1_767_225_610 * NANOS + 500_000_000)),
            ("2026-01-01T00:00:10", Ok(1_767_225_610 * NANOS)),
            ("2026-01-01", Ok(1_767_225_600 * NANOS)),
            ("", Err(TimeError("".into()))),
            ("soon", Err(TimeError("soon".into()))),
            ("10", Ok(10 * NANOS)),
            ("10x", Err(TimeError("10x".into()))),
            ("99999999999999999999", Err(TimeError("99999999999999999999".into()))),
        ] {
            assert_eq!(time(text, now), expected, "{text}");
        }
    }
}
