//! The functions that every template of Go knows.

use crate::functions::{Param, Signature};
use crate::print::{printf, sprint, sprintln};
use crate::value::Value;

const ANY: &[Param] = &[Param::Any];

/// The parameters of a built-in function. `and` and `or` evaluate their arguments one by one and are not called.
pub(crate) fn signature(name: &str) -> Option<Signature> {
    let rest = |fixed| Some(Signature { fixed, rest: Some(Param::Any) });
    match name {
        "and" | "or" | "index" | "slice" | "eq" => rest(ANY),
        "html" | "js" | "print" | "println" | "urlquery" => rest(&[]),
        "printf" => rest(&[Param::Text]),
        "len" | "not" => Some(Signature { fixed: ANY, rest: None }),
        "ge" | "gt" | "le" | "lt" | "ne" => Some(Signature { fixed: &[Param::Any, Param::Any], rest: None }),
        _ => None,
    }
}

/// Carries out a function of the language.
pub(crate) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |escape: fn(&str) -> String| Ok(Value::Text(escape(&sprint_plain(arguments))));
    match name {
        "html" => text(html),
        "js" => text(js),
        "urlquery" => text(urlquery),
        "print" => Ok(Value::Text(sprint(arguments))),
        "println" => Ok(Value::Text(sprintln(arguments))),
        "printf" => printf(arguments[0].as_text().unwrap_or_default(), &arguments[1..]).map(Value::Text),
        "index" => index(arguments),
        "slice" => slice(arguments),
        "len" => match &arguments[0] {
            Value::Text(text) => Ok(text.len().into()),
            Value::List(list) => Ok(list.items.len().into()),
            Value::Map(map) => Ok(map.entries.len().into()),
            Value::None => Err("len of nil pointer".to_owned()),
            other => Err(format!("len of type {}", other.kind())),
        },
        "not" => Ok(Value::Bool(!arguments[0].is_true())),
        "eq" => equal(&arguments[0], &arguments[1..]).map(Value::Bool),
        "ne" => equal(&arguments[0], &arguments[1..]).map(|equal| Value::Bool(!equal)),
        "lt" => less(&arguments[0], &arguments[1]).map(Value::Bool),
        "ge" => less(&arguments[0], &arguments[1]).map(|less| Value::Bool(!less)),
        "le" => less_or_equal(arguments).map(Value::Bool),
        _ => less_or_equal(arguments).map(|it| Value::Bool(!it)),
    }
}

/// Escapers print a missing value as templates do.
fn sprint_plain(values: &[Value]) -> String {
    match values {
        [Value::None] => "<no value>".to_owned(),
        values => sprint(values),
    }
}

fn less_or_equal(arguments: &[Value]) -> Result<bool, String> {
    Ok(less(&arguments[0], &arguments[1])? || equal(&arguments[0], &arguments[1..])?)
}

const DIFFERENT: &str = "incompatible types for comparison";
const NO_ORDER: &str = "invalid type for comparison";

/// Returns whether the first is equal to one of the others.
fn equal(first: &Value, others: &[Value]) -> Result<bool, String> {
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    let basic = |value: &Value| match value {
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::Float(_) => 3,
        Value::Text(_) => 4,
        _ => 0,
    };
    for other in others {
        let same = match (first, other) {
            (Value::None, other) | (other, Value::None) => *other == Value::None,
            _ if basic(first) != basic(other) => return Err(DIFFERENT.to_owned()),
            (Value::List(_) | Value::Map(_), _) | (_, Value::List(_) | Value::Map(_)) => {
                let told = crate::print::verb_v(other);
                return Err(format!("non-comparable type {told}: {}", other.kind()));
            }
            (first, other) => first == other,
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}

fn less(first: &Value, second: &Value) -> Result<bool, String> {
    match (first, second) {
        (Value::Number(first), Value::Number(second)) => Ok(first < second),
        (Value::Float(first), Value::Float(second)) => Ok(first < second),
        (Value::Text(first), Value::Text(second)) => Ok(first < second),
        (Value::Bool(_), Value::Bool(_)) => Err(NO_ORDER.to_owned()),
        (first, second) => {
            let basic =
                |value: &Value| matches!(value, Value::Bool(_) | Value::Number(_) | Value::Float(_) | Value::Text(_));
            Err(if basic(first) && basic(second) { DIFFERENT } else { NO_ORDER }.to_owned())
        }
    }
}

/// A place in something with `length` items.
fn place(at: &Value, length: usize) -> Result<usize, String> {
    match at {
        Value::Number(at) => {
            let place = usize::try_from(*at).ok().filter(|place| *place <= length);
            place.ok_or_else(|| format!("index out of range: {at}"))
        }
        Value::None => Err("cannot index slice/array with nil".to_owned()),
        other => Err(format!("cannot index slice/array with type {}", other.kind())),
    }
}

/// A key that is not there gives nothing, other than a field that is not there.
fn index(arguments: &[Value]) -> Result<Value, String> {
    let mut value = arguments[0].clone();
    if value == Value::None {
        return Err("index of untyped nil".to_owned());
    }
    for at in &arguments[1..] {
        value = match (&value, at) {
            (Value::Map(map), Value::Text(key)) => map.at(key),
            (Value::Map(_), Value::None) => return Err("value is nil; should be of type string".to_owned()),
            (Value::Map(_), key) => return Err(format!("value has type {}; should be string", key.kind())),
            (Value::Text(text), at) => {
                let byte = text.as_bytes().get(place(at, text.len())?).copied();
                Value::Number(byte.ok_or("reflect: string index out of range")?.into())
            }
            (Value::List(list), at) => {
                let item = list.items.get(place(at, list.items.len())?);
                item.cloned().ok_or("reflect: slice index out of range")?
            }
            (Value::None, _) => return Err("index of nil pointer".to_owned()),
            (other, _) => return Err(format!("can't index item of type {}", other.kind())),
        };
    }
    Ok(value)
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let (item, places) = (&arguments[0], &arguments[1..]);
    if places.len() > 3 {
        return Err(format!("too many slice indexes: {}", places.len()));
    }
    let length = match item {
        Value::Text(_) if places.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        Value::Text(text) => text.len(),
        Value::List(list) => list.items.len(),
        Value::None => return Err("slice of untyped nil".to_owned()),
        other => return Err(format!("can't slice item of type {}", other.kind())),
    };
    let mut bounds = [0, length, length];
    for (bound, at) in bounds.iter_mut().zip(places) {
        *bound = place(at, length)?;
    }
    let [from, to, most] = bounds;
    if from > to || to > most {
        let (first, second) = if from > to { (from, to) } else { (to, most) };
        return Err(format!("invalid slice index: {first} > {second}"));
    }
    match item {
        Value::List(list) => Ok(Value::list_of(list.kind, list.items[from..to].to_vec())),
        Value::Text(text) => {
            let cut = text.get(from..to).ok_or("the slice cuts a character in two")?;
            Ok(cut.into())
        }
        _ => Ok(Value::None),
    }
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' | '\0'..' ' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn urlquery(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
