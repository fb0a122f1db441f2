//! Values of a Compose file with the place where each was written.

use indexmap::IndexMap;

/// Line and column of a value in one of the files of a project. Both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Index into the list of files that were read, in the order of their first use.
    pub file: u16,
    pub line: u32,
    pub column: u32,
}

/// Way in which a value joins the value of the same path that it is merged onto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Join {
    /// Merges by the rule of its path: maps merge, lists append, scalars replace.
    #[default]
    Merge,
    /// `!reset`: the path is removed.
    Reset,
    /// `!override`: the value replaces the other one.
    Replace,
}

/// A mapping in the order of the file.
pub type Map = IndexMap<String, Node>;

/// A YAML value without its position.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// A value, where it was written, and how it merges.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub value: Value,
    pub at: Position,
    /// The position of its key, for a value of a mapping.
    pub key_at: Option<Position>,
    pub join: Join,
    /// A plain number as it was written, for values that print otherwise (`1.10`).
    pub written: Option<Box<str>>,
}

impl Node {
    pub fn new(value: Value, at: Position) -> Node {
        Node { value, at, key_at: None, join: Join::Merge, written: None }
    }

    /// A text at the position of another value, from which it was derived.
    pub fn text(text: impl Into<String>, at: Position) -> Node {
        Node::new(Value::Text(text.into()), at)
    }

    pub fn list(list: Vec<Node>, at: Position) -> Node {
        Node::new(Value::List(list), at)
    }

    pub fn map(entries: impl IntoIterator<Item = (&'static str, Node)>, at: Position) -> Node {
        Node::new(Value::Map(entries.into_iter().map(|(key, node)| (key.to_owned(), node)).collect()), at)
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.as_map_mut()?.get_mut(key)
    }

    pub fn as_map(&self) -> Option<&Map> {
        if let Value::Map(map) = &self.value { Some(map) } else { None }
    }

    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Value::Map(map) = &mut self.value { Some(map) } else { None }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        if let Value::List(list) = &self.value { Some(list) } else { None }
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = self.value { Some(value) } else { None }
    }

    pub fn as_int(&self) -> Option<i64> {
        if let Value::Int(value) = self.value { Some(value) } else { None }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The entries of a mapping; none for any other value.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.as_map().into_iter().flatten().map(|(key, node)| (key.as_str(), node))
    }

    /// The elements of a list; none for any other value.
    pub fn elements(&self) -> impl Iterator<Item = &Node> {
        self.as_list().unwrap_or_default().iter()
    }

    /// The position to show for complaints about the key of this value.
    pub fn named_at(&self) -> Position {
        self.key_at.unwrap_or(self.at)
    }

    /// The kind of the value, in the words of messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// A scalar as text, printed as Go's `fmt` prints it (which is how Compose turns numbers into text). `None` for
    /// lists, mappings and null.
    pub fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(float_text(*value)),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The value as JSON, with the keys of mappings in alphabetical order, so that equal projects give equal text.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(list) => list.iter().map(Node::to_json).collect(),
            Value::Map(map) => {
                let mut keys: Vec<&String> = map.keys().collect();
                keys.sort_unstable();
                keys.into_iter().map(|key| (key.clone(), map[key].to_json())).collect()
            }
        }
    }
}

/// Prints as Go's `%v`: the shortest decimal that reads back the same, with an exponent from 1e21 on.
fn float_text(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        // Go writes a sign and two digits at least: 1e+21.
        return match text.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, number) = exponent.strip_prefix('-').map_or(("+", exponent), |number| ("-", number));
                format!("{digits}e{sign}{number:0>2}")
            }
            None => text,
        };
    }
    value.to_string()
}
