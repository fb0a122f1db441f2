//! The canonical project as a Compose file.

use std::fmt::Write as _;

use serde_json::Value;

use crate::project::Project;

impl Project {
    /// The canonical file as JSON that loads to the same project: every `$` is escaped.
    pub fn export(&self) -> Value {
        let mut json = self.to_json();
        escape(&mut json);
        json
    }

    /// [`Self::export`] as YAML.
    pub fn export_yaml(&self) -> String {
        to_yaml(&self.export())
    }
}

/// Writes an exported project as YAML.
pub fn to_yaml(exported: &Value) -> String {
    let mut text = String::new();
    write(exported, 0, &mut text);
    text
}

fn escape(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Value::Array(list) => list.iter_mut().for_each(escape),
        Value::Object(map) => map.values_mut().for_each(escape),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Writes a value in block style. Texts that would read as something else are written in JSON's quotes, which are YAML's.
fn write(value: &Value, indent: usize, text: &mut String) {
    let space = "  ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let _ = write!(text, "{space}{}:", scalar(key));
                write_behind(value, indent + 1, text);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                let mut element = String::new();
                write(value, indent + 1, &mut element);
                let is_block = value.as_object().is_some_and(|map| !map.is_empty())
                    || value.as_array().is_some_and(|list| !list.is_empty());
                // The first line of a block stands behind the dash, which is as wide as one level.
                let body = if is_block { element.trim_start() } else { element.trim() };
                let _ = write!(text, "{space}- {body}");
                if !body.ends_with('\n') {
                    text.push('\n');
                }
            }
        }
        _ => {
            let _ = writeln!(text, "{space}{}", flow(value));
        }
    }
}

fn write_behind(value: &Value, indent: usize, text: &mut String) {
    let is_block =
        value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|list| !list.is_empty());
    if is_block {
        text.push('\n');
        write(value, indent, text);
    } else {
        let _ = writeln!(text, " {}", flow(value));
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// A text without quotes where it can stand so.
fn scalar(text: &str) -> String {
    let is_word = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-' | '.' | '/' | '@' | '+');
    let reads_as_text = matches!(crate::yaml::resolve(text).0, crate::node::Value::Text(_));
    // YAML 1.1 readers take these for booleans.
    let is_old_bool = ["y", "n", "yes", "no", "on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word));
    let begins_well = text.starts_with(|it: char| it.is_ascii_alphanumeric() || matches!(it, '/' | '_'));
    if begins_well && text.chars().all(is_word) && reads_as_text && !is_old_bool {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}
