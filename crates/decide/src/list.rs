//! What the lists show: filters as Docker reads them, entries of all nodes as if they were one engine's.

mod containers;
mod images;
mod networks;
mod volumes;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

pub use containers::{ContainerQuery, containers};
pub use images::images;
pub use networks::{network_name, networks};
pub use volumes::volumes;

/// The `filters` parameter: key → values, all of one key joined by "or", the keys by "and".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// Why a list cannot be given. The sentences are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error("invalid filter '{0}'")]
    Key(String),
    #[error("invalid filter '{key}={value}': expected {expected}")]
    Value { key: String, value: String, expected: &'static str },
    #[error("No such container: {0}")]
    NoContainer(String),
    #[error("No such image: {0}")]
    NoImage(String),
}

impl Filters {
    /// Reads `{"k":["v"]}` or, from old clients, `{"k":{"v":true}}`. Empty text is no filters.
    pub fn parse(text: &str) -> Result<Filters, String> {
        if text.trim().is_empty() {
            return Ok(Filters::default());
        }
        let wrong =
            |reason: String| format!("invalid filters `{}`: {reason}", text.chars().take(80).collect::<String>());
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let object = value.as_object().ok_or_else(|| wrong("expected a JSON object".into()))?;
        let values = |value: &Value| -> Option<Vec<String>> {
            match value {
                Value::Array(list) => list.iter().map(|it| it.as_str().map(str::to_owned)).collect(),
                Value::Object(set) => {
                    Some(set.iter().filter(|(_, on)| **on != false).map(|(it, _)| it.clone()).collect())
                }
                _ => None,
            }
        };
        let pair = |(key, value): (&String, &Value)| {
            let values = values(value).ok_or_else(|| wrong(format!("`{key}` needs a list of strings")))?;
            Ok((key.clone(), values))
        };
        object.iter().map(pair).collect::<Result<_, String>>().map(Filters)
    }

    /// All values of a key.
    pub fn values<'f>(&'f self, key: &str) -> impl Iterator<Item = &'f str> + use<'f> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// True if the key has values.
    pub fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|values| !values.is_empty())
    }

    /// Refuses keys that are not among `known`.
    pub fn check(&self, known: &[&str]) -> Result<(), ListError> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(ListError::Key(key.clone())),
            None => Ok(()),
        }
    }

    /// True if the key is not filtered, or any of its values is accepted.
    pub fn any(&self, key: &str, accepts: impl FnMut(&str) -> bool) -> bool {
        !self.has(key) || self.values(key).any(accepts)
    }

    /// As Docker's `label` filter: every value, `key` or `key=value`, must be carried.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let carried = |labels: &BTreeMap<String, String>, wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|it| it == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").all(|wanted| carried(labels, wanted))
            && !self.values("label!").any(|it| carried(labels, it))
    }

    /// As Docker's name-like filters: a value equals the text or is found in it as a regular expression.
    pub fn matches(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| {
            value == text || Regex::new(value).map_or(text.contains(value), |regex| regex.is_match(text))
        })
    }

    /// A filter that is a boolean. None if it is not given.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ListError> {
        match self.values(key).next() {
            None => Ok(None),
            Some("1" | "true" | "True" | "t") => Ok(Some(true)),
            Some("0" | "false" | "False" | "f") => Ok(Some(false)),
            Some(value) => {
                Err(ListError::Value { key: key.to_owned(), value: value.to_owned(), expected: "true or false" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_filters_are_read() {
        for (text, expected) in
            [("", ""), (r#"{"label":["a","b=c"]}"#, "a b=c"), (r#"{"label":{"a":true,"b":false}}"#, "a")]
        {
            let filters = Filters::parse(text).unwrap();
            assert_eq!(filters.values("label").collect::<Vec<_>>().join(" "), expected, "{text}");
        }
    }

    #[test]
    fn wrong_filters_are_refused_by_name() {
        for (text, expected) in [
            ("nonsense", "invalid filters `nonsense`: expected ident at line 1 column 2"),
            ("[]", "invalid filters `[]`: expected a JSON object"),
            (r#"{"a":1}"#, r#"invalid filters `{"a":1}`: `a` needs a list of strings"#),
        ] {
            assert_eq!(Filters::parse(text).unwrap_err(), expected);
        }
        let error = Filters::parse(r#"{"colour":["red"]}"#).unwrap().check(&["name"]).unwrap_err();
        assert_eq!(error.to_string(), "invalid filter 'colour'");
    }
}
