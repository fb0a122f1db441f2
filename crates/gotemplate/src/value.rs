//! A value that templates compute with, as Go's reflection sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// One value. Lists, maps and structs are shared, so that a copy is cheap.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The absence of a value: a key that is not there. Printed as `<no value>`.
    None,
    Bool(bool),
    Number(i64),
    Float(f64),
    Text(String),
    List(Arc<List>),
    Map(Arc<Map>),
    Struct(Arc<Struct>),
    /// Something of the caller's that has methods and no fields; the number says which one it is.
    Object(&'static str, u64),
}

/// A list of values.
#[derive(Debug, PartialEq)]
pub struct List {
    /// The name of its type, as errors tell it.
    pub kind: &'static str,
    pub items: Vec<Value>,
}

/// A map from texts to values.
#[derive(Debug, PartialEq)]
pub struct Map {
    /// The name of its type, as errors tell it.
    pub kind: &'static str,
    pub entries: BTreeMap<String, Value>,
}

/// A value with named fields; one that is not there is always an error.
#[derive(Debug, PartialEq)]
pub struct Struct {
    /// The name of its type, as errors tell it.
    pub kind: &'static str,
    pub fields: Vec<(&'static str, Value)>,
}

const TEXTS: &str = "[]string";
const TEXT_MAP: &str = "map[string]string";
const ANY_LIST: &str = "[]interface {}";
const ANY_MAP: &str = "map[string]interface {}";

impl Value {
    /// Returns a list of texts.
    pub fn texts<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Value {
        let items = items.into_iter().map(|text| Value::Text(text.into())).collect();
        Value::List(Arc::new(List { kind: TEXTS, items }))
    }

    /// Returns a list of any values.
    pub fn list(items: Vec<Value>) -> Value {
        Value::list_of(ANY_LIST, items)
    }

    /// Returns a list whose type has a name.
    pub fn list_of(kind: &'static str, items: Vec<Value>) -> Value {
        Value::List(Arc::new(List { kind, items }))
    }

    /// Returns a map from texts to texts.
    pub fn text_map(entries: impl IntoIterator<Item = (String, String)>) -> Value {
        let entries = entries.into_iter().map(|(key, text)| (key, Value::Text(text))).collect();
        Value::Map(Arc::new(Map { kind: TEXT_MAP, entries }))
    }

    /// Returns a map from texts to any values.
    pub fn map(entries: BTreeMap<String, Value>) -> Value {
        Value::map_of(ANY_MAP, entries)
    }

    /// Returns a map whose type has a name.
    pub fn map_of(kind: &'static str, entries: BTreeMap<String, Value>) -> Value {
        Value::Map(Arc::new(Map { kind, entries }))
    }

    /// Returns a struct.
    pub fn structure(kind: &'static str, fields: Vec<(&'static str, Value)>) -> Value {
        Value::Struct(Arc::new(Struct { kind, fields }))
    }

    /// The name of its type in Go.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "<nil>",
            Value::Bool(_) => "bool",
            Value::Number(_) => "int",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::List(list) => list.kind,
            Value::Map(map) => map.kind,
            Value::Struct(fields) => fields.kind,
            Value::Object(kind, _) => kind,
        }
    }

    /// Returns whether the value is true in a condition: it is not empty.
    pub fn is_true(&self) -> bool {
        match self {
            Value::None => false,
            Value::Bool(bool) => *bool,
            Value::Number(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Map(map) => !map.entries.is_empty(),
            Value::Struct(_) | Value::Object(..) => true,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(list) => Some(&list.items),
            _ => None,
        }
    }

    /// Returns the least number of bytes that the value prints, for limits.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Value::Text(text) => text.len(),
            Value::List(list) => list.items.iter().map(Value::weight).sum::<usize>() + list.items.len(),
            Value::Map(map) => map.entries.iter().map(|(key, value)| key.len() + value.weight()).sum(),
            _ => 0,
        }
    }
}

impl Map {
    /// The value of a key; of one that is not there what Go gives, which depends on the type.
    pub(crate) fn at(&self, key: &str) -> Value {
        let missing = || if self.kind == TEXT_MAP { Value::Text(String::new()) } else { Value::None };
        self.entries.get(key).cloned().unwrap_or_else(missing)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(bool: bool) -> Value {
        Value::Bool(bool)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// The type that numbers of JSON get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Floats, as Go's JSON decoder makes of numbers without a declared type.
    Floats,
    /// Whole ones as whole ones, as in a Go struct.
    Whole,
}

impl Value {
    /// The value that a JSON text means.
    pub fn from_json(json: &serde_json::Value, numbers: Numbers) -> Value {
        match json {
            serde_json::Value::Null => Value::None,
            serde_json::Value::Bool(bool) => Value::Bool(*bool),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(whole) if numbers == Numbers::Whole => Value::Number(whole),
                _ => Value::Float(number.as_f64().unwrap_or_default()),
            },
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => {
                Value::list(items.iter().map(|item| Value::from_json(item, numbers)).collect())
            }
            serde_json::Value::Object(entries) => {
                Value::map(entries.iter().map(|(key, item)| (key.clone(), Value::from_json(item, numbers))).collect())
            }
        }
    }

    /// The value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::None | Value::Object(..) => serde_json::Value::Null,
            Value::Bool(bool) => (*bool).into(),
            Value::Number(number) => (*number).into(),
            #[expect(clippy::cast_possible_truncation, reason = "checked by going back")]
            Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => (*number as i64).into(),
            Value::Float(number) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(list) => list.items.iter().map(Value::to_json).collect(),
            Value::Map(map) => {
                let entries = map.entries.iter().map(|(key, value)| (key.clone(), value.to_json()));
                serde_json::Value::Object(entries.collect())
            }
            Value::Struct(fields) => {
                let entries = fields.fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }
}
