//! The functions of confd over the keys of a template. Pure but for files and the environment that are handed in.

use std::collections::{BTreeMap, BTreeSet};

use herder_gotemplate::{Functions, Param, Signature, Value};

use crate::consul_template::Environment;
use crate::{numbers, texts};

const PAIR: &str = "memkv.KVPair";

/// A template's keys with a slash in front, and the functions over them.
#[derive(Debug)]
pub struct Confd<'r> {
    /// Prefix taken off.
    pub keys: &'r BTreeMap<String, String>,
    pub environment: &'r Environment,
    /// Returns whether a file exists.
    pub is_file: fn(&str) -> bool,
}

/// Returns whether a path matches a shell pattern, in which a star does not cross a slash.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<char>, Vec<char>) = (pattern.chars().collect(), path.chars().collect());
    matches_from(&pattern, &path)
}

fn matches_from(pattern: &[char], path: &[char]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return path.is_empty() };
    match first {
        '*' => {
            let most = path.iter().position(|c| *c == '/').unwrap_or(path.len());
            // Stars after each other are one.
            let rest = &rest[rest.iter().take_while(|c| **c == '*').count()..];
            (0..=most).any(|taken| matches_from(rest, &path[taken..]))
        }
        '?' => path.first().is_some_and(|c| *c != '/') && matches_from(rest, &path[1..]),
        '[' => {
            let Some(end) = rest.iter().skip(1).position(|c| *c == ']').map(|end| end + 1) else { return false };
            let Some(c) = path.first().filter(|c| **c != '/') else { return false };
            let (negated, set) = match rest[..end].split_first() {
                Some(('^', set)) => (true, set),
                _ => (false, &rest[..end]),
            };
            let mut is_in = false;
            let mut at = 0;
            while at < set.len() {
                if set.get(at + 1) == Some(&'-') && at + 2 < set.len() {
                    is_in |= (set[at]..=set[at + 2]).contains(c);
                    at += 3;
                } else {
                    is_in |= set[at] == *c;
                    at += 1;
                }
            }
            is_in != negated && matches_from(&rest[end + 1..], &path[1..])
        }
        '\\' => match rest.split_first() {
            Some((literal, rest)) => path.first() == Some(literal) && matches_from(rest, &path[1..]),
            None => false,
        },
        literal => path.first() == Some(literal) && matches_from(rest, &path[1..]),
    }
}

fn pair(key: &str, value: &str) -> Value {
    Value::structure(PAIR, vec![("Key", key.into()), ("Value", value.into())])
}

impl Confd<'_> {
    fn fitting(&self, pattern: &str) -> Vec<(&String, &String)> {
        self.keys.iter().filter(|(key, _)| matches(pattern, key)).collect()
    }

    /// Names right below a folder; only those with something below them, if `dirs`.
    fn names(&self, dir: &str, dirs: bool) -> Value {
        let prefix = format!("{}/", dir.trim_end_matches('/'));
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for key in self.keys.keys() {
            let Some(below) = key.strip_prefix(&prefix) else { continue };
            match below.split_once('/') {
                Some((name, _)) => {
                    names.insert(name);
                }
                None if !dirs => {
                    names.insert(below);
                }
                None => {}
            }
        }
        // A key itself counts as its own child.
        if !dirs && self.keys.contains_key(dir) {
            names.insert(dir.rsplit('/').next().unwrap_or(dir));
        }
        Value::texts(names)
    }
}

const NONE: &[Param] = &[];
const TEXT: &[Param] = &[Param::Text];
const TEXT2: &[Param] = &[Param::Text, Param::Text];

fn parameters(name: &str) -> Option<(&'static [Param], Option<Param>)> {
    Some(match name {
        "exists" | "get" | "gets" | "getvs" | "ls" | "lsdir" | "json" | "jsonArray" | "base" | "dir" | "toUpper"
        | "toLower" | "fileExists" | "base64Encode" | "base64Decode" | "parseBool" | "atoi" | "lookupIP"
        | "lookupIPV4" | "lookupIPV6" | "lookupSRV" => (TEXT, None),
        "getv" | "getenv" => (TEXT, Some(Param::Text)),
        "split" | "contains" | "trimSuffix" => (TEXT2, None),
        "join" => (&[Param::List, Param::Text], None),
        "replace" => (&[Param::Text, Param::Text, Param::Text, Param::Number], None),
        "map" => (NONE, Some(Param::Any)),
        "seq" => (&[Param::Number, Param::Number], None),
        "reverse" | "sortByLength" | "sortKVByLength" => (&[Param::List], None),
        "add" | "sub" | "div" | "mod" | "mul" => (&[Param::Number, Param::Number], None),
        "datetime" => (NONE, None),
        _ => return None,
    })
}

impl Functions for Confd<'_> {
    fn signature(&self, name: &str) -> Option<Signature> {
        parameters(name).map(|(fixed, rest)| Signature { fixed, rest })
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let text = |at: usize| arguments.get(at).and_then(Value::as_text).unwrap_or_default();
        let list = |at: usize| arguments.get(at).and_then(Value::as_list).unwrap_or_default();
        let value = |at: usize| arguments.get(at).cloned().unwrap_or(Value::None);
        let number = |at: usize| match arguments.get(at) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        };
        let missing = || format!("key does not exist: {}", text(0));
        match name {
            "exists" => Ok(Value::Bool(self.keys.contains_key(text(0)))),
            "get" => self.keys.get(text(0)).map(|value| pair(text(0), value)).ok_or_else(missing),
            "gets" => Ok(Value::list_of(
                "memkv.KVPairs",
                self.fitting(text(0)).into_iter().map(|(key, value)| pair(key, value)).collect(),
            )),
            "getv" => match (self.keys.get(text(0)), arguments.get(1)) {
                (Some(value), _) => Ok(value.as_str().into()),
                (None, Some(default)) => Ok(default.clone()),
                (None, None) => Err(missing()),
            },
            "getvs" => {
                let mut values: Vec<&str> =
                    self.fitting(text(0)).into_iter().map(|(_, value)| value.as_str()).collect();
                values.sort_unstable();
                Ok(Value::texts(values))
            }
            "ls" => Ok(self.names(text(0), false)),
            "lsdir" => Ok(self.names(text(0), true)),
            "json" => match texts::parse_json(text(0))? {
                map @ Value::Map(_) => Ok(map),
                _ => Err("it is no JSON object".to_owned()),
            },
            "jsonArray" => match texts::parse_json(text(0))? {
                list @ Value::List(_) => Ok(list),
                _ => Err("it is no JSON list".to_owned()),
            },
            "base" => Ok(text(0).trim_end_matches('/').rsplit('/').next().unwrap_or_default().into()),
            "dir" => Ok(match text(0).rsplit_once('/') {
                Some(("", _)) => "/",
                Some((dir, _)) => dir,
                None => ".",
            }
            .into()),
            "toUpper" => Ok(text(0).to_uppercase().into()),
            "toLower" => Ok(text(0).to_lowercase().into()),
            "split" => Ok(texts::split(text(0), text(1))),
            "join" => {
                let items: Vec<String> = list(0).iter().map(herder_gotemplate::text_of).collect();
                Ok(items.join(text(1)).into())
            }
            "contains" => Ok(Value::Bool(text(0).contains(text(1)))),
            "trimSuffix" => Ok(text(0).strip_suffix(text(1)).unwrap_or(text(0)).into()),
            "replace" => Ok(match usize::try_from(number(3)) {
                Ok(count) => text(0).replacen(text(1), text(2), count),
                Err(_) => text(0).replace(text(1), text(2)),
            }
            .into()),
            "map" => {
                if arguments.len() % 2 == 1 {
                    return Err("map takes pairs of a key and a value".to_owned());
                }
                let mut entries = BTreeMap::new();
                for pair in arguments.chunks(2) {
                    let key = pair[0].as_text().ok_or("a key of map is a text")?;
                    entries.insert(key.to_owned(), pair[1].clone());
                }
                Ok(Value::map(entries))
            }
            "seq" => numbers::range(number(0), number(1).saturating_add(1)),
            "reverse" => Ok(Value::list(list(0).iter().rev().cloned().collect())),
            "sortByLength" | "sortKVByLength" => {
                let length = |value: &Value| match value {
                    Value::Struct(pair) => pair.fields.first().and_then(|(_, key)| key.as_text()).map_or(0, str::len),
                    value => value.as_text().map_or(0, str::len),
                };
                let mut items = list(0).to_vec();
                items.sort_by_key(length);
                Ok(Value::list(items))
            }
            "add" => numbers::arithmetic("add", &value(0), &value(1)),
            "sub" => numbers::arithmetic("subtract", &value(0), &value(1)),
            "mul" => numbers::arithmetic("multiply", &value(0), &value(1)),
            "div" => numbers::arithmetic("divide", &value(0), &value(1)),
            "mod" => numbers::arithmetic("modulo", &value(0), &value(1)),
            "atoi" => texts::parse_int(text(0)).map(Value::Number),
            "parseBool" => texts::parse_bool(text(0)).map(Value::Bool),
            "getenv" => {
                let found = self.environment.env.get(text(0)).filter(|value| !value.is_empty());
                Ok(found.map_or(text(1), String::as_str).into())
            }
            "datetime" => Ok(self.environment.now.0.as_str().into()),
            "fileExists" => Ok(Value::Bool((self.is_file)(text(0)))),
            "base64Encode" => Ok(texts::base64_encode(text(0), false).into()),
            "base64Decode" => texts::base64_decode(text(0), false).map(Value::Text),
            _ => {
                Err(format!("{name} is not built in: a template asks no name server; write the address into the store"))
            }
        }
    }
}
