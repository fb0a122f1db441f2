//! Functions over texts, lists and JSON that both kinds of templates have. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use herder_gotemplate::{Numbers, Value};

/// A pattern larger than this, compiled, is refused.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Compiles an expression; the syntax of Go and of this crate is nearly the same.
pub(crate) fn pattern(text: &str) -> Result<regex::Regex, String> {
    let built = regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| error.to_string())
}

/// Upper-cases the first letter of each word, as Go's `strings.Title` does.
pub(crate) fn title(text: &str) -> String {
    let mut before = ' ';
    text.chars()
        .flat_map(|c| {
            let starts = !before.is_alphanumeric() && before != '_' && before != '\'';
            before = c;
            if starts { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

/// Like Go's Split.
pub(crate) fn split(text: &str, separator: &str) -> Value {
    if separator.is_empty() {
        return Value::texts(text.chars().map(String::from));
    }
    Value::texts(text.split(separator))
}

/// Returns whether a list, a map or a text contains a value.
pub(crate) fn contains(all: &Value, one: &Value) -> Result<bool, String> {
    match (all, one) {
        (Value::List(list), one) => Ok(list.items.contains(one)),
        (Value::Map(map), Value::Text(key)) => {
            Ok(map.entries.values().any(|value| value == one) || map.entries.contains_key(key))
        }
        (Value::Map(map), one) => Ok(map.entries.values().any(|value| value == one)),
        (Value::Text(all), Value::Text(one)) => Ok(all.contains(one.as_str())),
        (Value::None, _) => Ok(false),
        (other, _) => Err(format!("a value of type {} contains nothing", other.kind())),
    }
}

/// The value of a JSON text; numbers are floats, as in Go.
pub(crate) fn parse_json(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::map(std::collections::BTreeMap::new()));
    }
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    Ok(Value::from_json(&json, Numbers::Floats))
}

/// JSON with the keys of maps in order, as Go writes it.
pub(crate) fn to_json(value: &Value, pretty: bool) -> Result<String, String> {
    let json = value.to_json();
    let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) };
    let text = text.map_err(|error| error.to_string())?;
    Ok(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

pub(crate) fn base64_encode(text: &str, url: bool) -> String {
    if url { URL_SAFE.encode(text) } else { STANDARD.encode(text) }
}

pub(crate) fn base64_decode(text: &str, url: bool) -> Result<String, String> {
    let bytes = if url { URL_SAFE.decode(text) } else { STANDARD.decode(text) };
    let bytes = bytes.map_err(|error| format!("no base64: {error}"))?;
    String::from_utf8(bytes).map_err(|_| "what is in the base64 is no text".to_owned())
}

pub(crate) fn sha256_hex(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" | "" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| format!("{text:?} is no whole number")) }
}

pub(crate) fn parse_float(text: &str) -> Result<f64, String> {
    if text.is_empty() { Ok(0.0) } else { text.parse().map_err(|_| format!("{text:?} is no number")) }
}
