//! YAML text → documents of [`Node`]s, with anchors, aliases and merge keys resolved.
//!
//! Scalars are read as Compose's own parser reads them: YAML 1.2 core types, with `0440` as octal and `yes`, `no`, `on`
//! and `off` as text.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::diagnostic::{Path, Report};
use crate::node::{Join, Map, Node, Position, Value};

/// Values of one file after aliases are expanded. Bounds the memory that a hostile file takes.
pub const NODES_MAX: usize = 100_000;
/// Nesting of one file. Bounds the stack of everything that walks a tree.
pub const DEPTH_MAX: usize = 64;

/// Reads all documents of a file. Empty documents are left out. Faults are added to the report; a file with one
/// yields nothing.
pub(crate) fn parse(text: &str, file: u16, report: &mut Report) -> Vec<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder =
        Builder { file, report, anchors: HashMap::new(), stack: Vec::new(), nodes: 0, documents: Vec::new() };
    for event in Parser::new_from_str(text) {
        let done = match event {
            Ok((event, span)) => builder.event(event, span.start),
            Err(fault) => {
                let at = position(file, *fault.marker());
                builder.report.error("yaml", at, Path::ROOT, format!("not YAML: {}", fault.info()));
                Err(Stop)
            }
        };
        if done.is_err() {
            return Vec::new();
        }
    }
    builder.documents
}

/// The file is refused; the report says why.
struct Stop;

fn position(file: u16, mark: Marker) -> Position {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Position { file, line: number(mark.line()), column: number(mark.col()).saturating_add(1) }
}

struct Builder<'a> {
    file: u16,
    report: &'a mut Report,
    /// Values by anchor; `None` while the value is being read.
    anchors: HashMap<usize, Option<(Node, usize)>>,
    stack: Vec<Open>,
    nodes: usize,
    documents: Vec<Node>,
}

/// A collection whose end was not read yet.
struct Open {
    at: Position,
    anchor: usize,
    join: Join,
    /// Values read before it, to know how many it has.
    nodes_before: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map { entries: Map, merges: Vec<Node>, key: Option<(String, Position, bool)> },
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, mark: Marker) -> Result<(), Stop> {
        let at = position(self.file, mark);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(Open { kind: Kind::Map { key: key @ None, .. }, .. }) = self.stack.last_mut() {
                    let plain = style == ScalarStyle::Plain;
                    if plain && tag.is_none() && !matches!(resolve(&text).0, Value::Text(_)) && text != "<<" {
                        let message = format!("the key `{text}` is not a text");
                        self.report.refuse("key", at, Path::ROOT, message, format!("write it in quotes: \"{text}\""));
                        return Err(Stop);
                    }
                    *key = Some((text.clone().into_owned(), at, plain));
                    if anchor > 0 {
                        self.anchors.insert(anchor, Some((Node::text(text, at), 1)));
                    }
                    return Ok(());
                }
                let node = self.scalar(&text, style, tag.as_deref(), at)?;
                if anchor > 0 {
                    self.anchors.insert(anchor, Some((node.clone(), 1)));
                }
                self.count(1, at)?;
                self.add(node)
            }
            Event::SequenceStart(anchor, tag) => self.open(Kind::List(Vec::new()), anchor, tag.as_deref(), at),
            Event::MappingStart(anchor, tag) => {
                let kind = Kind::Map { entries: Map::new(), merges: Vec::new(), key: None };
                self.open(kind, anchor, tag.as_deref(), at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Stop> {
        match self.anchors.get(&anchor) {
            Some(Some((node, nodes))) => {
                let (node, nodes) = (node.clone(), *nodes);
                self.count(nodes, at)?;
                if let Some(Open { kind: Kind::Map { key: key @ None, .. }, .. }) = self.stack.last_mut()
                    && let Some(text) = node.as_str()
                {
                    *key = Some((text.to_owned(), at, false));
                    return Ok(());
                }
                self.add(node)
            }
            Some(None) => {
                self.report.error("alias-cycle", at, Path::ROOT, "this alias refers to a value that contains it");
                Err(Stop)
            }
            None => {
                self.report.error("yaml", at, Path::ROOT, "this alias refers to no anchor");
                Err(Stop)
            }
        }
    }

    fn open(&mut self, kind: Kind, anchor: usize, tag: Option<&Tag>, at: Position) -> Result<(), Stop> {
        if let Some(Open { kind: Kind::Map { key: None, .. }, .. }) = self.stack.last() {
            self.report.error("key", at, Path::ROOT, "a key must be a text");
            return Err(Stop);
        }
        if self.stack.len() >= DEPTH_MAX {
            let message = format!("values are nested more than {DEPTH_MAX} deep");
            self.report.error("limit", at, Path::ROOT, message);
            return Err(Stop);
        }
        let join = match tag {
            None => Join::Merge,
            Some(tag) if tag.is_yaml_core_schema() => Join::Merge,
            Some(tag) => self.join(tag, at)?,
        };
        if anchor > 0 {
            self.anchors.insert(anchor, None);
        }
        self.stack.push(Open { at, anchor, join, nodes_before: self.nodes, kind });
        self.count(1, at)
    }

    fn close(&mut self) -> Result<(), Stop> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let value = match open.kind {
            Kind::List(list) => Value::List(list),
            Kind::Map { mut entries, merges, .. } => {
                for merge in merges {
                    self.merge_key(&mut entries, merge)?;
                }
                Value::Map(entries)
            }
        };
        let node = Node { join: open.join, ..Node::new(value, open.at) };
        if open.anchor > 0 {
            let nodes = self.nodes - open.nodes_before;
            self.anchors.insert(open.anchor, Some((node.clone(), nodes)));
        }
        self.add(node)
    }

    /// Adds the entries of a `<<` that the mapping does not have itself. Of several, the first wins.
    fn merge_key(&mut self, entries: &mut Map, merge: Node) -> Result<(), Stop> {
        let at = merge.at;
        match merge.value {
            Value::Map(map) => {
                for (key, node) in map {
                    entries.entry(key).or_insert(node);
                }
                Ok(())
            }
            Value::List(list) if list.iter().all(|node| node.as_map().is_some()) => {
                list.into_iter().try_for_each(|node| self.merge_key(entries, node))
            }
            Value::Null => Ok(()),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::List(_) => {
                self.report.error("yaml", at, Path::ROOT, "`<<` takes a mapping or a list of mappings");
                Err(Stop)
            }
        }
    }

    fn add(&mut self, mut node: Node) -> Result<(), Stop> {
        match self.stack.last_mut() {
            None if node.is_null() => Ok(()),
            None => {
                self.documents.push(node);
                Ok(())
            }
            Some(Open { kind: Kind::List(list), .. }) => {
                list.push(node);
                Ok(())
            }
            Some(Open { kind: Kind::Map { entries, merges, key }, .. }) => {
                let Some((key, key_at, plain)) = key.take() else { return Err(Stop) };
                if key == "<<" && plain {
                    merges.push(node);
                    return Ok(());
                }
                node.key_at = Some(key_at);
                if let Some(before) = entries.get(&key) {
                    let before = before.named_at();
                    let message = format!("the key `{key}` is given twice");
                    self.report.error("duplicate-key", key_at, Path::ROOT, message);
                    self.report.related(before, "it was first given here");
                    return Err(Stop);
                }
                entries.insert(key, node);
                Ok(())
            }
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Node, Stop> {
        let (value, written) = match tag {
            None if style == ScalarStyle::Plain => resolve(text),
            None => (Value::Text(text.to_owned()), None),
            Some(tag) if tag.is_yaml_core_schema() => {
                let resolved = resolve(text);
                match (tag.suffix.as_str(), resolved) {
                    ("null", _) => (Value::Null, None),
                    ("int", (value @ Value::Int(_), written)) => (value, written),
                    ("float", (value @ (Value::Int(_) | Value::Float(_)), written)) => (value, written),
                    ("bool", (value @ Value::Bool(_), _)) => (value, None),
                    ("str" | "binary" | "timestamp", _) => (Value::Text(text.to_owned()), None),
                    (suffix, _) => {
                        self.report.error("yaml", at, Path::ROOT, format!("`{text}` is not of the type `!!{suffix}`"));
                        return Err(Stop);
                    }
                }
            }
            Some(tag) => {
                let join = self.join(tag, at)?;
                let plain = style == ScalarStyle::Plain;
                let (value, written) = if plain { resolve(text) } else { (Value::Text(text.to_owned()), None) };
                return Ok(Node { join, written, ..Node::new(value, at) });
            }
        };
        Ok(Node { written, ..Node::new(value, at) })
    }

    fn join(&mut self, tag: &Tag, at: Position) -> Result<Join, Stop> {
        match (tag.handle.as_str(), tag.suffix.as_str()) {
            ("!", "reset") => Ok(Join::Reset),
            ("!", "override") => Ok(Join::Replace),
            ("" | "!", "" | "!") => Ok(Join::Merge),
            _ => {
                let message = format!("unknown tag `{tag}`");
                self.report.refuse("tag", at, Path::ROOT, message, "Compose files have the tags !reset and !override");
                Err(Stop)
            }
        }
    }

    fn count(&mut self, nodes: usize, at: Position) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let message = format!("the file has more than {NODES_MAX} values after its aliases are expanded");
            self.report.error("limit", at, Path::ROOT, message);
            return Err(Stop);
        }
        Ok(())
    }
}

/// The value of a plain scalar, with its text where the value prints otherwise.
pub(crate) fn resolve(text: &str) -> (Value, Option<Box<str>>) {
    let value = match text {
        "" | "~" | "null" | "Null" | "NULL" => return (Value::Null, None),
        "true" | "True" | "TRUE" => return (Value::Bool(true), None),
        "false" | "False" | "FALSE" => return (Value::Bool(false), None),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Value::Float(f64::NEG_INFINITY),
        _ => number(text).unwrap_or_else(|| Value::Text(text.to_owned())),
    };
    let node = Node::new(value, Position::default());
    let written = match &node.value {
        Value::Int(_) | Value::Float(_) if node.scalar_text().as_deref() != Some(text) => Some(text.into()),
        _ => None,
    };
    (node.value, written)
}

fn number(text: &str) -> Option<Value> {
    let first = text.chars().next()?;
    if !(first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return None;
    }
    let digits = text.replace('_', "");
    if let Some(value) = integer(&digits) {
        return Some(Value::Int(value));
    }
    let body = digits.strip_prefix(['+', '-']).unwrap_or(&digits);
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (body, None),
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_float = all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && all_digits(exponent));
    is_float.then(|| digits.parse().ok().map(Value::Float)).flatten()
}

/// Integers as Go's `ParseInt(s, 0, 64)` reads them: decimal, `0x`, `0b`, `0o`, and octal with a leading zero.
fn integer(text: &str) -> Option<i64> {
    let (sign, body) = match text.strip_prefix('-') {
        Some(body) => ("-", body),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = body.to_ascii_lowercase();
    let (digits, radix) = if let Some(digits) = lower.strip_prefix("0x") {
        (digits, 16)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (digits, 2)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (digits, 8)
    } else if let Some(digits) = lower.strip_prefix('0').filter(|digits| !digits.is_empty()) {
        (digits, 8)
    } else {
        (lower.as_str(), 10)
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

#[cfg(test)]
mod tests {
    use super::{parse, resolve};
    use crate::diagnostic::Report;
    use crate::node::Value;

    #[test]
    fn plain_scalars_are_read_as_compose_reads_them() {
        let table = [
            ("0440", Value::Int(288)),
            ("08", Value::Float(8.0)),
            ("0o17", Value::Int(15)),
            ("0x1F", Value::Int(31)),
            ("1_000", Value::Int(1000)),
            ("-3", Value::Int(-3)),
            ("1.10", Value::Float(1.1)),
            ("1e3", Value::Float(1000.0)),
            (".5", Value::Float(0.5)),
            ("yes", Value::Text("yes".into())),
            ("on", Value::Text("on".into())),
            ("1.2.3", Value::Text("1.2.3".into())),
            ("80:80", Value::Text("80:80".into())),
            (".", Value::Text(".".into())),
            ("-", Value::Text("-".into())),
            ("~", Value::Null),
            ("TRUE", Value::Bool(true)),
        ];
        for (text, value) in table {
            assert_eq!(resolve(text).0, value, "{text}");
        }
    }

    #[test]
    fn merge_keys_do_not_replace_what_the_mapping_has() {
        let text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 0}\n";
        let mut report = Report::default();
        let document = parse(text, 0, &mut report).remove(0);
        let merged = document.get("c").map(|node| node.to_json().to_string());
        assert_eq!(merged.as_deref(), Some(r#"{"x":0,"y":2,"z":4}"#));
    }

    #[test]
    fn aliases_that_would_grow_without_bound_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{aliases}]\n");
        }
        let mut report = Report::default();
        assert!(parse(&text, 0, &mut report).is_empty());
        assert_eq!(report.diagnostics[0].code, "limit");
    }
}
