//! Runs a template's tree. What does not fit is refused in the words of Go's text/template.

use std::collections::BTreeMap;
use std::fmt;

use crate::parse::{Command, Node, Pipe, What, Word};

/// What a template computes with.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
    Bool(bool),
    Map(BTreeMap<String, String>),
    /// The name of its type, as errors tell it, and its fields.
    Struct(&'static str, Vec<(&'static str, Value)>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "string",
            Value::Number(_) => "int",
            Value::Bool(_) => "bool",
            Value::Map(_) => "map[string]string",
            Value::Struct(kind, _) => kind,
        }
    }

    fn is_true(&self) -> bool {
        match self {
            Value::Text(text) => !text.is_empty(),
            Value::Number(number) => *number != 0,
            Value::Bool(bool) => *bool,
            Value::Map(map) => !map.is_empty(),
            Value::Struct(..) => true,
        }
    }
}

impl fmt::Display for Value {
    /// As Go prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Number(number) => number.fmt(f),
            Value::Bool(bool) => bool.fmt(f),
            Value::Map(map) => {
                let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                write!(f, "map[{}]", pairs.join(" "))
            }
            Value::Struct(_, fields) => {
                let values: Vec<String> = fields.iter().map(|(_, value)| value.to_string()).collect();
                write!(f, "{{{}}}", values.join(" "))
            }
        }
    }
}

/// Looks something up that is no field: function, argument → text or why not.
pub type Lookup<'l> = &'l dyn Fn(&str, &str) -> Result<String, String>;

/// Why a template cannot be run, and where.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) at: usize,
    /// What stands there.
    pub(super) place: String,
    pub(super) text: String,
}

type Ran<T> = Result<T, Failed>;

#[derive(Clone, Copy)]
pub(super) struct Runner<'r> {
    pub(super) root: &'r Value,
    pub(super) lookup: Lookup<'r>,
    /// More than this is no file and no name.
    pub(super) bytes_max: usize,
}

impl std::fmt::Debug for Runner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}

impl Runner<'_> {
    pub(super) fn run(self, nodes: &[Node], out: &mut String) -> Ran<()> {
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Action(pipe) => out.push_str(&self.pipe(pipe)?.to_string()),
                Node::If { test, then, other } => {
                    self.run(if self.pipe(test)?.is_true() { then } else { other }, out)?;
                }
            }
            if out.len() > self.bytes_max {
                let text = format!("more than {} bytes come out of it", self.bytes_max);
                return Err(Failed { at: 0, place: "template".into(), text });
            }
        }
        Ok(())
    }

    fn pipe(self, pipe: &Pipe) -> Ran<Value> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, last)?);
        }
        // The parser makes no pipe without commands.
        Ok(last.unwrap_or(Value::Text(String::new())))
    }

    fn command(self, command: &Command, last: Option<Value>) -> Ran<Value> {
        let first = &command.first;
        if let What::Function(name) = &first.what {
            return self.call(name, command, last);
        }
        if last.is_some() || !command.rest.is_empty() {
            let text = match &first.what {
                What::Field(names) => {
                    format!(
                        "{} has arguments but cannot be invoked as function",
                        names.last().map_or("", String::as_str)
                    )
                }
                _ => format!("can't give argument to non-function {}", first.text),
            };
            return Err(fail(first, text));
        }
        self.word(first)
    }

    fn word(self, word: &Word) -> Ran<Value> {
        match &word.what {
            What::Dot => Ok(self.root.clone()),
            What::Field(names) => names.iter().try_fold(self.root.clone(), |value, name| field(word, value, name)),
            What::Text(text) => Ok(Value::Text(text.clone())),
            What::Number(number) => Ok(Value::Number(*number)),
            What::Bool(bool) => Ok(Value::Bool(*bool)),
            What::Group(pipe) => self.pipe(pipe),
            What::Function(name) => {
                // A function as an argument is called without any.
                let text = word.text.clone();
                let first = Word { at: word.at, text, what: What::Function(name.clone()) };
                self.call(name, &Command { first, rest: Vec::new() }, None)
            }
        }
    }

    fn call(self, name: &str, command: &Command, last: Option<Value>) -> Ran<Value> {
        let mut arguments = Vec::new();
        for word in &command.rest {
            let value = self.word(word)?;
            if takes_texts(name) {
                check_text(word, &value)?;
            }
            arguments.push(value);
        }
        arguments.extend(last);
        let refused = |text: String| Failed { at: command.first.at, place: command.text(), text };
        let (least, most) = argument_count(name);
        if arguments.len() < least || arguments.len() > most {
            let wanted = if least == most { least.to_string() } else { format!("at least {least}") };
            return Err(refused(format!("wrong number of args for {name}: want {wanted} got {}", arguments.len())));
        }
        let called = |text: String| refused(format!("error calling {name}: {text}"));
        match name {
            "index" => index(&arguments).map_err(called),
            "join" => {
                let texts: Vec<String> = arguments.iter().map(ToString::to_string).collect();
                Ok(Value::Text(texts[1..].join(&texts[0])))
            }
            "print" => Ok(Value::Text(arguments.iter().map(ToString::to_string).collect())),
            "printf" => Ok(Value::Text(printf(&arguments))),
            "len" => match &arguments[0] {
                Value::Text(text) => Ok(count(text.len())),
                Value::Map(map) => Ok(count(map.len())),
                other => Err(called(format!("len of type {}", other.kind()))),
            },
            "not" => Ok(Value::Bool(!arguments[0].is_true())),
            "and" | "or" => {
                let decisive = |value: &&Value| value.is_true() == (name == "or");
                let found = arguments.iter().find(decisive).or(arguments.last());
                Ok(found.cloned().unwrap_or(Value::Bool(false)))
            }
            "eq" => Ok(Value::Bool(arguments[1..].iter().any(|value| *value == arguments[0]))),
            "ne" => Ok(Value::Bool(arguments[0] != arguments[1])),
            _ => (self.lookup)(name, &arguments[0].to_string()).map(Value::Text).map_err(called),
        }
    }
}

/// How many arguments a function takes: the least and the most.
fn argument_count(name: &str) -> (usize, usize) {
    match name {
        "print" => (0, usize::MAX),
        "index" | "join" | "printf" | "and" | "or" => (1, usize::MAX),
        "eq" => (2, usize::MAX),
        "ne" => (2, 2),
        _ => (1, 1),
    }
}

/// Functions whose parameters are texts.
fn takes_texts(name: &str) -> bool {
    !matches!(name, "and" | "eq" | "index" | "len" | "ne" | "not" | "or" | "print" | "printf")
}

fn check_text(word: &Word, value: &Value) -> Ran<()> {
    match (&word.what, value) {
        (_, Value::Text(_)) => Ok(()),
        (What::Number(_) | What::Bool(_), _) => Err(fail(word, format!("expected string; found {}", word.text))),
        (_, other) => Err(fail(word, format!("wrong type for value; expected string; got {}", other.kind()))),
    }
}

fn fail(word: &Word, text: impl Into<String>) -> Failed {
    Failed { at: word.at, place: word.text.clone(), text: text.into() }
}

fn field(word: &Word, value: Value, name: &str) -> Ran<Value> {
    let kind = value.kind();
    let found = match value {
        Value::Struct(_, fields) => fields.into_iter().find(|(field, _)| *field == name).map(|(_, value)| value),
        Value::Map(mut map) => {
            let value = map.remove(name).map(Value::Text);
            return value.ok_or_else(|| fail(word, format!("map has no entry for key {name:?}")));
        }
        Value::Text(_) | Value::Number(_) | Value::Bool(_) => None,
    };
    found.ok_or_else(|| fail(word, format!("can't evaluate field {name} in type {kind}")))
}

/// A key that is not there gives nothing, other than a field that is not there.
fn index(arguments: &[Value]) -> Result<Value, String> {
    let mut value = arguments[0].clone();
    for key in &arguments[1..] {
        value = match (&value, key) {
            (Value::Map(map), Value::Text(key)) => Value::Text(map.get(key).cloned().unwrap_or_default()),
            (Value::Map(_), key) => return Err(format!("value has type {}; should be string", key.kind())),
            (Value::Text(text), Value::Number(at)) => {
                let byte = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at).copied());
                Value::Number(byte.ok_or_else(|| format!("index out of range: {at}"))?.into())
            }
            (Value::Text(_), key) => return Err(format!("cannot index slice/array with type {}", key.kind())),
            (other, _) => return Err(format!("can't index item of type {}", other.kind())),
        };
    }
    Ok(value)
}

fn count(length: usize) -> Value {
    Value::Number(i64::try_from(length).unwrap_or(i64::MAX))
}

/// `%s`, `%v`, `%d`, `%q`; without widths.
fn printf(arguments: &[Value]) -> String {
    let format = arguments[0].to_string();
    let mut values = arguments[1..].iter();
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => text.push('%'),
            None => text.push_str("%!(NOVERB)"),
            Some(verb) => match (verb, values.next()) {
                (_, None) => text.push_str(&format!("%!{verb}(MISSING)")),
                ('q', Some(value)) => text.push_str(&format!("{:?}", value.to_string())),
                ('v', Some(value)) | ('s', Some(value @ Value::Text(_))) | ('d', Some(value @ Value::Number(_))) => {
                    text.push_str(&value.to_string());
                }
                (_, Some(value)) => text.push_str(&format!("%!{verb}({}={value})", value.kind())),
            },
        }
    }
    text
}
