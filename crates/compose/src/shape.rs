//! Checks values against their types, and brings short forms into the long one.

use crate::diagnostic::{Path, Report};
use crate::node::{Join, Map, Node, Value};
use crate::{forms, units};

/// The type of a value of a Compose file.
#[derive(Clone, Copy)]
pub(crate) enum Type {
    /// Anything; scalars stay as they are.
    Any,
    Text,
    /// A text, number or boolean; becomes a text.
    Scalar,
    Bool,
    Int,
    Number,
    /// An amount of bytes; becomes a decimal number as text.
    Bytes,
    /// A duration; becomes Go's text.
    Duration,
    /// A file mode; becomes a number.
    Mode,
    /// A count of devices: a number or `all`, which becomes -1.
    Count,
    Choice(&'static [&'static str]),
    /// A path on the host of the files; becomes absolute.
    Path,
    /// A build context: a path, which becomes absolute, or a URL.
    Context,
    /// Build contexts by name, as a [`Type::Dict`].
    Contexts,
    /// A command: a text is split into words as a shell does.
    Command,
    /// A text, or a list of texts; becomes a list.
    Texts,
    /// `host=address`, as a list or mapping; becomes a list.
    Hosts,
    /// `external`: a boolean, or the old mapping with a name.
    External,
    /// A mapping, or a list of `key=value`; becomes a mapping of texts. `nullable` keeps keys without a value.
    Dict {
        nullable: bool,
    },
    List(&'static Type),
    /// A list whose elements have a short form that stands for one or more of the long form.
    Elements(Expand, &'static Type),
    Map(&'static Type),
    /// A mapping whose list form names its keys.
    KeyedList(fn(&Node) -> Node, &'static Type),
    Object(&'static Object),
    /// A value with a short form.
    Short(Convert, &'static Type),
    /// A value or null.
    Optional(&'static Type),
}

/// Turns a short form into the long one. Long forms come back as they are. An error is a message without its subject.
pub(crate) type Convert = fn(Node) -> Result<Node, String>;
/// Turns an element into one or more of the long form.
pub(crate) type Expand = fn(Node) -> Result<Vec<Node>, String>;

/// A mapping with known keys.
pub(crate) struct Object {
    /// Name for messages, such as `a service`.
    pub(crate) name: &'static str,
    pub(crate) keys: &'static [(&'static str, Type)],
}

/// State of the shaping of values.
pub(crate) struct Shaper<'a> {
    pub(crate) report: &'a mut Report,
    /// The folder that relative paths refer to.
    pub(crate) folder: &'a str,
    /// The home folder, for paths that begin with `~`.
    pub(crate) home: Option<&'a str>,
}

impl Shaper<'_> {
    /// Brings `node` into the form of its type. What does not fit is added to the report and stays as it is.
    pub(crate) fn shape(&mut self, node: &mut Node, shape: &Type, path: Path<'_>) {
        if node.join == Join::Reset {
            return;
        }
        match *shape {
            Type::Any => {}
            Type::Optional(_) if node.is_null() => {}
            Type::Optional(inner) => self.shape(node, inner, path),
            // A key without a value is as good as none, for all types that are not said to take null.
            Type::Command if node.is_null() => {}
            _ if node.is_null() => {}
            Type::Text => self.text(node, path),
            Type::Scalar => self.scalar(node, path),
            Type::Bool => self.bool(node, path),
            Type::Int => self.int(node, path),
            Type::Number => self.number(node, path),
            Type::Bytes => self.bytes(node, path),
            Type::Duration => self.duration(node, path),
            Type::Mode => self.mode(node, path),
            Type::Count => self.count(node, path),
            Type::Choice(words) => self.choice(node, words, path),
            Type::Path => self.path(node, path),
            Type::Context => self.context(node, path),
            Type::Contexts => {
                self.dict(node, false, path);
                for (name, value) in node.as_map_mut().into_iter().flatten() {
                    self.context(value, path.key(name));
                }
            }
            Type::Command => self.convert(node, forms::command, &Type::List(&Type::Text), path),
            Type::Texts => self.convert(node, forms::texts, &Type::List(&Type::Text), path),
            Type::Hosts => self.convert(node, forms::hosts, &Type::List(&Type::Text), path),
            Type::External => self.external(node, path),
            Type::Dict { nullable } => self.dict(node, nullable, path),
            Type::List(element) => self.list(node, element, path),
            Type::Elements(expand, element) => self.elements(node, expand, element, path),
            Type::Map(value) => self.map(node, value, path),
            Type::KeyedList(default, value) => {
                self.keyed(node, default, path);
                self.map(node, value, path);
            }
            Type::Object(object) => self.object(node, object, path),
            Type::Short(convert, long) => self.convert(node, convert, long, path),
        }
    }

    fn wrong(&mut self, node: &Node, path: Path<'_>, wanted: &str) {
        self.report.error("type", node.at, path, format!("must be {wanted}, not {}", node.kind()));
    }

    fn text(&mut self, node: &mut Node, path: Path<'_>) {
        if node.as_str().is_none() {
            self.wrong(node, path, "a text");
            if let Some(diagnostic) = self.report.diagnostics.last_mut()
                && node.scalar_text().is_some()
            {
                diagnostic.help = Some("write it in quotes".into());
            }
        }
    }

    fn scalar(&mut self, node: &mut Node, path: Path<'_>) {
        let Some(text) = node.scalar_text() else { return self.wrong(node, path, "a text or a number") };
        if let Some(written) = node.written.take() {
            let message = format!("`{written}` reads as the number {text}");
            self.report.warn("number", node.at, path, message);
            if let Some(diagnostic) = self.report.diagnostics.last_mut() {
                diagnostic.help = Some(format!("write \"{written}\" for a text"));
            }
        }
        node.value = Value::Text(text);
    }

    fn bool(&mut self, node: &mut Node, path: Path<'_>) {
        let value = match node.as_str().map(str::to_ascii_lowercase).as_deref() {
            None if node.as_bool().is_some() => return,
            Some("true" | "1") => true,
            Some("false" | "0") => false,
            Some(word @ ("y" | "yes" | "on" | "n" | "no" | "off")) => {
                let value = matches!(word, "y" | "yes" | "on");
                self.report.note("bool", node.at, path, format!("`{word}` is read as {value}; write {value}"));
                value
            }
            _ => return self.wrong(node, path, "true or false"),
        };
        node.value = Value::Bool(value);
    }

    fn int(&mut self, node: &mut Node, path: Path<'_>) {
        let value = match &node.value {
            Value::Int(value) => Some(*value),
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(*value as i64),
            Value::Text(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
        };
        match value {
            Some(value) => node.value = Value::Int(value),
            None => self.wrong_value(node, path, "a whole number"),
        }
    }

    fn number(&mut self, node: &mut Node, path: Path<'_>) {
        let value = match &node.value {
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            Value::Text(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        };
        match value {
            Some(value) if value.is_finite() => {
                let whole = value.fract() == 0.0 && value.abs() < 9e15;
                node.value = if whole { Value::Int(value as i64) } else { Value::Float(value) };
            }
            _ => self.wrong_value(node, path, "a number"),
        }
    }

    /// Same as [`Self::wrong`], with the value where it is a text.
    fn wrong_value(&mut self, node: &Node, path: Path<'_>, wanted: &str) {
        match node.scalar_text() {
            Some(text) => {
                self.report.error("value", node.at, path, format!("`{text}` is not {wanted}"));
            }
            None => self.wrong(node, path, wanted),
        }
    }

    fn bytes(&mut self, node: &mut Node, path: Path<'_>) {
        let value = match &node.value {
            Value::Int(value) => (*value >= -1).then_some(*value),
            // -1 is without a limit, for memswap_limit.
            Value::Text(text) if text == "-1" => Some(-1),
            Value::Text(text) => units::bytes(text),
            Value::Float(value) => (*value >= 0.0).then_some(*value as i64),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        };
        match value {
            Some(value) => node.value = Value::Text(value.to_string()),
            None => self.wrong_value(node, path, "an amount of bytes, such as 512m or 1.5gb"),
        }
    }

    fn duration(&mut self, node: &mut Node, path: Path<'_>) {
        let value = node.scalar_text().and_then(|text| units::duration(&text));
        match value {
            Some(value) => node.value = Value::Text(units::duration_text(value)),
            None => self.wrong_value(node, path, "a duration, such as 30s or 1m30s"),
        }
    }

    fn mode(&mut self, node: &mut Node, path: Path<'_>) {
        let value = match &node.value {
            Value::Int(value) => Some(*value),
            Value::Text(text) => i64::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
            Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
        };
        match value.filter(|mode| (0..=0o7777).contains(mode)) {
            Some(value) => node.value = Value::Int(value),
            None => self.wrong_value(node, path, "a file mode, such as 0440"),
        }
    }

    fn count(&mut self, node: &mut Node, path: Path<'_>) {
        if node.as_str() == Some("all") {
            node.value = Value::Int(-1);
        } else {
            self.int(node, path);
        }
    }

    fn choice(&mut self, node: &mut Node, words: &[&str], path: Path<'_>) {
        let Some(word) = node.as_str() else { return self.wrong(node, path, "a text") };
        if !words.contains(&word) {
            let message = format!("`{word}` is not one of {}", words.join(", "));
            self.report.error("value", node.at, path, message);
        }
    }

    fn path(&mut self, node: &mut Node, path: Path<'_>) {
        match node.as_str() {
            Some(text) => node.value = Value::Text(resolve_path(self.folder, text, self.home)),
            None => self.wrong(node, path, "a path"),
        }
    }

    fn context(&mut self, node: &mut Node, path: Path<'_>) {
        let is_url = |text: &str| {
            let beginnings = ["git@", "github.com/", "service:"];
            text.contains("://") || beginnings.iter().any(|it| text.starts_with(it))
        };
        if !node.as_str().is_some_and(is_url) {
            self.path(node, path);
        }
    }

    fn external(&mut self, node: &mut Node, path: Path<'_>) {
        if node.as_map().is_none() {
            return self.bool(node, path);
        }
        static NAMED: Object = Object { name: "external", keys: &[("name", Type::Text)] };
        self.object(node, &NAMED, path);
    }

    fn dict(&mut self, node: &mut Node, nullable: bool, path: Path<'_>) {
        if let Value::List(list) = &mut node.value {
            let mut map = Map::new();
            for (index, mut element) in std::mem::take(list).into_iter().enumerate() {
                if element.is_null() {
                    continue;
                }
                let here = path.index(index);
                self.scalar(&mut element, here);
                let Some(text) = element.as_str() else { continue };
                let (key, value) = match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Value::Text(value.to_owned())),
                    None if nullable => (text.to_owned(), Value::Null),
                    None => (text.to_owned(), Value::Text(String::new())),
                };
                if key.is_empty() {
                    self.report.error("value", element.at, here, "a name is missing before `=`");
                    continue;
                }
                element.value = value;
                // The last entry of a name wins, at the place of the first.
                map.insert(key, element);
            }
            node.value = Value::Map(map);
            return;
        }
        let Value::Map(map) = &mut node.value else {
            return self.wrong(node, path, "a mapping or a list of key=value");
        };
        for (key, value) in map {
            if value.join == Join::Reset {
                continue;
            }
            if value.is_null() {
                if !nullable {
                    value.value = Value::Text(String::new());
                }
                continue;
            }
            self.scalar(value, path.key(key));
        }
    }

    fn list(&mut self, node: &mut Node, element: &Type, path: Path<'_>) {
        let Value::List(list) = &mut node.value else { return self.wrong(node, path, "a list") };
        for (index, node) in list.iter_mut().enumerate() {
            self.shape(node, element, path.index(index));
        }
    }

    fn elements(&mut self, node: &mut Node, expand: Expand, element: &Type, path: Path<'_>) {
        let Value::List(list) = &mut node.value else { return self.wrong(node, path, "a list") };
        let mut long = Vec::with_capacity(list.len());
        for (index, short) in std::mem::take(list).into_iter().enumerate() {
            let at = short.at;
            let here = path.index(index);
            match expand(short) {
                Ok(expanded) => long.extend(expanded.into_iter().map(|mut node| {
                    self.shape(&mut node, element, here);
                    self.finish(&mut node);
                    node
                })),
                Err(message) => self.report.error("value", at, here, message),
            }
        }
        *list = long;
    }

    /// Makes the sources of binds absolute: only here the folder is known.
    fn finish(&self, node: &mut Node) {
        let is_bind = node.get("type").and_then(Node::as_str) == Some("bind");
        if let Some(source) = node.get_mut("source").filter(|_| is_bind)
            && let Some(text) = source.as_str()
        {
            let absolute = resolve_path(self.folder, text, self.home);
            if absolute != text && !text.starts_with('/') {
                source.written = Some(text.into());
            }
            source.value = Value::Text(absolute);
        }
    }

    fn keyed(&mut self, node: &mut Node, default: fn(&Node) -> Node, path: Path<'_>) {
        let Value::List(list) = &mut node.value else {
            if node.as_map().is_none() {
                self.wrong(node, path, "a list or a mapping");
                node.value = Value::Map(Map::new());
            }
            return;
        };
        let mut map = Map::new();
        for (index, element) in std::mem::take(list).into_iter().enumerate() {
            let Some(key) = element.as_str() else {
                self.wrong(&element, path.index(index), "a text");
                continue;
            };
            let value = Node { key_at: Some(element.at), ..default(&element) };
            map.entry(key.to_owned()).or_insert(value);
        }
        node.value = Value::Map(map);
    }

    fn map(&mut self, node: &mut Node, value: &Type, path: Path<'_>) {
        let Value::Map(map) = &mut node.value else { return self.wrong(node, path, "a mapping") };
        for (key, node) in map.iter_mut().filter(|(key, _)| !key.starts_with("x-")) {
            self.shape(node, value, path.key(key));
        }
    }

    fn object(&mut self, node: &mut Node, object: &Object, path: Path<'_>) {
        let Value::Map(map) = &mut node.value else { return self.wrong(node, path, "a mapping") };
        for (key, node) in map.iter_mut().filter(|(key, _)| !key.starts_with("x-")) {
            let Some((_, shape)) = object.keys.iter().find(|(name, _)| name == key) else {
                let at = node.named_at();
                self.unknown(object, key, at, path.key(key));
                continue;
            };
            self.shape(node, shape, path.key(key));
        }
    }

    fn unknown(&mut self, object: &Object, key: &str, at: crate::node::Position, path: Path<'_>) {
        let nearest = object.keys.iter().map(|(name, _)| (strsim::damerau_levenshtein(name, key), *name)).min();
        let message = format!("unknown key of {}", object.name);
        match nearest {
            Some((distance, name)) if distance <= DISTANCE_MAX && distance < key.len() => {
                self.report.refuse("unknown-key", at, path, message, format!("did you mean `{name}`?"));
            }
            _ => self.report.error("unknown-key", at, path, message),
        }
    }

    fn convert(&mut self, node: &mut Node, convert: Convert, long: &Type, path: Path<'_>) {
        let (at, key_at, join) = (node.at, node.key_at, node.join);
        match convert(std::mem::replace(node, Node::new(Value::Null, at))) {
            Ok(converted) => {
                *node = Node { key_at, join, ..converted };
                self.shape(node, long, path);
            }
            Err(message) => self.report.error("value", at, path, message),
        }
    }
}

/// Edits between an unknown key and the known one that is proposed, at most.
const DISTANCE_MAX: usize = 3;

/// A path relative to a folder, as absolute as the folder is, without `.` and `..`.
pub(crate) fn resolve_path(folder: &str, path: &str, home: Option<&str>) -> String {
    if forms::is_drive(path) {
        return path.to_owned();
    }
    let joined = match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        _ if path.starts_with('/') => path.to_owned(),
        _ => format!("{folder}/{path}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if joined.starts_with('/') => {}
            _ => parts.push(part),
        }
    }
    let text = parts.join("/");
    match (joined.starts_with('/'), text.is_empty()) {
        (true, _) => format!("/{text}"),
        (false, true) => ".".into(),
        (false, false) => text,
    }
}
