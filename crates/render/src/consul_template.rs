//! The functions of consul-template. Pure but for the time, the environment and the names that are handed in.

use std::cell::RefCell;
use std::collections::BTreeMap;

use herder_gotemplate::{Functions, Param, Signature, Value};
use herder_kv::Entries;
use serde_json::Value as Json;

use crate::data::{Answer, Asking, Dep};
use crate::{numbers, texts};

const PAIR: &str = "*dependency.KeyPair";
const PAIRS: &str = "[]*dependency.KeyPair";
const SCRATCH: &str = "*template.Scratch";

/// A template keeps no more than this in its scratch.
const SCRATCH_ENTRIES_MAX: usize = 10_000;

/// Facts about this process that templates may read.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub env: BTreeMap<String, String>,
    /// The time of the rendering as RFC 3339, and in seconds.
    pub now: (String, i64),
}

/// One run's functions.
#[derive(Debug)]
pub struct ConsulTemplate<'r> {
    pub asking: &'r Asking<'r>,
    pub environment: &'r Environment,
    scratch: RefCell<BTreeMap<String, Value>>,
}

impl<'r> ConsulTemplate<'r> {
    pub fn new(asking: &'r Asking<'r>, environment: &'r Environment) -> ConsulTemplate<'r> {
        ConsulTemplate { asking, environment, scratch: RefCell::default() }
    }

    fn entries(&self, dep: Dep) -> Option<&'r Entries> {
        match self.asking.ask(dep) {
            Some(Answer::Entries(entries)) => Some(entries),
            _ => None,
        }
    }

    fn json(&self, dep: Dep) -> Option<&'r Json> {
        match self.asking.ask(dep) {
            Some(Answer::Json(json)) => Some(json),
            _ => None,
        }
    }

    /// Returns the value of a key. Outer `None`: not known yet; inner `None`: the key does not exist.
    fn key(&self, key: &str) -> Option<Option<&'r String>> {
        Some(self.entries(Dep::Key(trim(key)))?.get(""))
    }

    fn pairs(&self, dir: &str, deep: bool, must_be_there: bool) -> Value {
        let dep = Dep::Tree(trim(dir));
        let entries = self.entries(dep.clone());
        if must_be_there && entries.is_some_and(|entries| entries.is_empty()) {
            self.asking.wait_for(dep);
        }
        let entries = entries.into_iter().flatten();
        let shown = entries.filter(|(key, _)| !key.is_empty() && !key.ends_with('/') && (deep || !key.contains('/')));
        Value::list_of(PAIRS, shown.map(|(key, value)| pair(dir, key, value)).collect())
    }

    fn services(&self) -> Value {
        let services = self.json(Dep::Services).and_then(Json::as_object).into_iter().flatten();
        let mut services: Vec<(&String, &Json)> = services.collect();
        services.sort_by_key(|(name, _)| *name);
        let entry = |(name, tags): (&String, &Json)| {
            let fields = vec![("Name", Value::from(name.as_str())), ("Tags", tags_of(tags))];
            Value::structure("*dependency.CatalogSnippet", fields)
        };
        Value::list_of("[]*dependency.CatalogSnippet", services.into_iter().map(entry).collect())
    }

    /// `tag.name@datacentre`, and which states count: `passing` (as without any), or `any`.
    fn service(&self, arguments: &[Value]) -> Result<Value, String> {
        let text = |at: usize| arguments.get(at).and_then(Value::as_text).unwrap_or_default();
        let (name, datacentre) = text(0).split_once('@').unwrap_or((text(0), ""));
        let (tag, name) = name.split_once('.').unwrap_or(("", name));
        let states: Vec<&str> = text(1).split(',').map(str::trim).filter(|state| !state.is_empty()).collect();
        if let Some(unknown) =
            states.iter().find(|state| !matches!(**state, "any" | "passing" | "warning" | "critical" | "maintenance"))
        {
            return Err(format!("unknown state {unknown:?}; there are any, passing, warning, critical, maintenance"));
        }
        let passing = states.is_empty() || states == ["passing"];
        let dep = Dep::Service { name: name.into(), tag: tag.into(), datacentre: datacentre.into(), passing };
        let list = self.json(dep).and_then(Json::as_array).into_iter().flatten();
        let mut found: Vec<(String, String, Value)> = Vec::new();
        for entry in list {
            let part = |pointer: &str| entry.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned();
            let status = status(&entry["Checks"]);
            if !(passing || states.contains(&"any") || states.contains(&status)) {
                continue;
            }
            let address =
                Some(part("/Service/Address")).filter(|it| !it.is_empty()).unwrap_or_else(|| part("/Node/Address"));
            let fields = vec![
                ("Node", part("/Node/Node").into()),
                ("NodeID", part("/Node/ID").into()),
                ("NodeAddress", part("/Node/Address").into()),
                ("NodeDatacenter", part("/Node/Datacenter").into()),
                ("Kind", part("/Service/Kind").into()),
                ("NodeMeta", text_map(entry.pointer("/Node/Meta"))),
                ("ServiceMeta", text_map(entry.pointer("/Service/Meta"))),
                ("Address", address.into()),
                ("ID", part("/Service/ID").into()),
                ("Name", part("/Service/Service").into()),
                ("Tags", tags_of(&entry["Service"]["Tags"])),
                ("Status", status.into()),
                ("Port", Value::Number(entry.pointer("/Service/Port").and_then(Json::as_i64).unwrap_or(0))),
            ];
            found.push((
                part("/Node/Node"),
                part("/Service/ID"),
                Value::structure("*dependency.HealthService", fields),
            ));
        }
        found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        Ok(Value::list_of("[]*dependency.HealthService", found.into_iter().map(|(.., value)| value).collect()))
    }

    fn nodes(&self) -> Value {
        let nodes = self.json(Dep::Nodes).and_then(Json::as_array).into_iter().flatten();
        Value::list_of("[]*dependency.Node", nodes.map(node_of).collect())
    }

    fn node(&self, name: &str) -> Value {
        let Some(json) = self.json(Dep::Node(name.to_owned())).filter(|json| json.is_object()) else {
            return Value::None;
        };
        let services = json["Services"].as_object().into_iter().flatten();
        let service = |(id, service): (&String, &Json)| {
            let part = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
            let fields = vec![
                ("ID", Value::from(id.as_str())),
                ("Service", part("Service").into()),
                ("Tags", tags_of(&service["Tags"])),
                ("Meta", text_map(service.get("Meta"))),
                ("Port", Value::Number(service["Port"].as_i64().unwrap_or(0))),
                ("Address", part("Address").into()),
            ];
            Value::structure("*dependency.CatalogNodeService", fields)
        };
        let services = Value::list_of("[]*dependency.CatalogNodeService", services.map(service).collect());
        Value::structure("*dependency.CatalogNode", vec![("Node", node_of(&json["Node"])), ("Services", services)])
    }
}

/// Keys have no slashes around them.
fn trim(key: &str) -> String {
    key.trim_matches('/').to_owned()
}

fn pair(dir: &str, key: &str, value: &str) -> Value {
    let dir = dir.trim_matches('/');
    let path = if dir.is_empty() { key.to_owned() } else { format!("{dir}/{key}") };
    let fields = vec![
        ("Path", path.into()),
        ("Key", key.into()),
        ("Value", value.into()),
        // Stores other than Consul have none of these.
        ("CreateIndex", Value::Number(0)),
        ("ModifyIndex", Value::Number(0)),
        ("LockIndex", Value::Number(0)),
        ("Flags", Value::Number(0)),
        ("Session", "".into()),
    ];
    Value::structure(PAIR, fields)
}

fn node_of(json: &Json) -> Value {
    let part = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let fields = vec![
        ("ID", part("ID").into()),
        ("Node", part("Node").into()),
        ("Address", part("Address").into()),
        ("Datacenter", part("Datacenter").into()),
        ("TaggedAddresses", text_map(json.get("TaggedAddresses"))),
        ("Meta", text_map(json.get("Meta"))),
    ];
    Value::structure("*dependency.Node", fields)
}

fn text_map(json: Option<&Json>) -> Value {
    let entries = json.and_then(Json::as_object).into_iter().flatten();
    Value::text_map(entries.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())))
}

/// Tags in order, as consul-template gives them.
fn tags_of(json: &Json) -> Value {
    let mut tags: Vec<&str> = json.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    tags.sort_unstable();
    tags.dedup();
    let tags = tags.into_iter().map(Value::from).collect();
    Value::list_of("dependency.ServiceTags", tags)
}

/// The worst state of some checks.
fn status(checks: &Json) -> &'static str {
    let mut worst = "passing";
    for check in checks.as_array().into_iter().flatten() {
        let id = check["CheckID"].as_str().unwrap_or_default();
        if id == "_node_maintenance" || id.starts_with("_service_maintenance:") {
            return "maintenance";
        }
        match check["Status"].as_str() {
            Some("critical") => worst = "critical",
            Some("warning") if worst == "passing" => worst = "warning",
            _ => {}
        }
    }
    worst
}

/// Pairs by the first part of their keys, and below that by the rest.
fn by_key(pairs: &[Value]) -> Value {
    let mut tops: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for pair in pairs {
        let Value::Struct(there) = pair else { continue };
        let key = there.fields.iter().find(|(name, _)| *name == "Key").and_then(|(_, key)| key.as_text());
        let (top, rest) = key.unwrap_or_default().split_once('/').unwrap_or((key.unwrap_or_default(), ""));
        let fields = there
            .fields
            .iter()
            .map(|(name, value)| (*name, if *name == "Key" { Value::from(rest) } else { value.clone() }));
        let pair = Value::structure(PAIR, fields.collect());
        tops.entry(top.to_owned()).or_default().insert(rest.to_owned(), pair);
    }
    let inner = |(top, pairs)| (top, Value::map_of("map[string]*dependency.KeyPair", pairs));
    Value::map_of("map[string]map[string]*dependency.KeyPair", tops.into_iter().map(inner).collect())
}

/// Services by their tags.
fn by_tag(services: &[Value]) -> Value {
    let mut tags: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for service in services {
        let Value::Struct(there) = service else { continue };
        let own = there.fields.iter().find(|(name, _)| *name == "Tags").and_then(|(_, tags)| tags.as_list());
        for tag in own.unwrap_or_default().iter().filter_map(Value::as_text) {
            tags.entry(tag.to_owned()).or_default().push(service.clone());
        }
    }
    Value::map(tags.into_iter().map(|(tag, services)| (tag, Value::list(services))).collect())
}

const NONE: &[Param] = &[];
const ANY: &[Param] = &[Param::Any];
const ANY2: &[Param] = &[Param::Any, Param::Any];
const TEXT: &[Param] = &[Param::Text];
const TEXT2: &[Param] = &[Param::Text, Param::Text];
const TEXT3: &[Param] = &[Param::Text, Param::Text, Param::Text];

/// A function's fixed parameters, and those that may follow.
fn parameters(name: &str) -> Option<(&'static [Param], Option<Param>)> {
    Some(match name {
        "key" | "keyExists" | "ls" | "tree" | "safeLs" | "safeTree" | "env" | "file" | "toLower" | "toUpper"
        | "toTitle" | "trimSpace" | "parseJSON" | "parseInt" | "parseUint" | "parseBool" | "parseFloat"
        | "sha256Hex" | "base64Encode" | "base64Decode" | "base64URLEncode" | "base64URLDecode" | "node" => {
            (TEXT, None)
        }
        "keyOrDefault" | "split" | "regexMatch" | "envOrDefault" => (TEXT2, None),
        "replaceAll" | "regexReplaceAll" => (TEXT3, None),
        "service" => (TEXT, Some(Param::Text)),
        "services" | "nodes" | "scratch" => (NONE, None),
        "timestamp" => (NONE, Some(Param::Text)),
        "byKey" | "byTag" => (&[Param::List], None),
        "join" => (&[Param::Text, Param::List], None),
        "toJSON" | "toJSONPretty" => (ANY, None),
        "add" | "subtract" | "multiply" | "divide" | "modulo" | "contains" | "in" => (ANY2, None),
        "loop" => (&[Param::Number], Some(Param::Number)),
        _ => return None,
    })
}

impl Functions for ConsulTemplate<'_> {
    fn signature(&self, name: &str) -> Option<Signature> {
        parameters(name).map(|(fixed, rest)| Signature { fixed, rest })
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let text = |at: usize| arguments.get(at).and_then(Value::as_text).unwrap_or_default();
        let list = |at: usize| arguments.get(at).and_then(Value::as_list).unwrap_or_default();
        let value = |at: usize| arguments.get(at).cloned().unwrap_or(Value::None);
        match name {
            "key" => match self.key(text(0)) {
                Some(Some(value)) => Ok(value.as_str().into()),
                answered => {
                    if answered.is_some() {
                        self.asking.wait_for(Dep::Key(trim(text(0))));
                    }
                    Ok("".into())
                }
            },
            "keyOrDefault" => Ok(match self.key(text(0)) {
                Some(Some(value)) if !value.is_empty() => value.as_str().into(),
                _ => text(1).into(),
            }),
            "keyExists" => Ok(Value::Bool(self.key(text(0)).flatten().is_some())),
            "ls" => Ok(self.pairs(text(0), false, false)),
            "tree" => Ok(self.pairs(text(0), true, false)),
            "safeLs" => Ok(self.pairs(text(0), false, true)),
            "safeTree" => Ok(self.pairs(text(0), true, true)),
            "services" => Ok(self.services()),
            "service" => self.service(arguments),
            "nodes" => Ok(self.nodes()),
            "node" => Ok(self.node(text(0))),
            "byKey" => Ok(by_key(list(0))),
            "byTag" => Ok(by_tag(list(0))),
            "env" => Ok(self.environment.env.get(text(0)).map_or("", String::as_str).into()),
            "envOrDefault" => {
                let value = self.environment.env.get(text(0)).filter(|value| !value.is_empty());
                Ok(value.map_or(text(1), String::as_str).into())
            }
            "file" => match self.asking.ask(Dep::File(text(0).to_owned())) {
                Some(Answer::Text(Some(text))) => Ok(text.as_str().into()),
                Some(_) => Err(format!("the file {} is not there", text(0))),
                None => Ok("".into()),
            },
            "timestamp" => match text(0) {
                "" => Ok(self.environment.now.0.as_str().into()),
                "unix" => Ok(self.environment.now.1.to_string().into()),
                _ => Err("timestamp takes no layout here; write timestamp or timestamp \"unix\"".to_owned()),
            },
            "split" => Ok(if text(1).trim().is_empty() {
                Value::texts(Vec::<String>::new())
            } else {
                texts::split(text(1).trim(), text(0))
            }),
            "join" => {
                let items: Vec<String> = list(1).iter().map(herder_gotemplate::text_of).collect();
                Ok(items.join(text(0)).into())
            }
            "toLower" => Ok(text(0).to_lowercase().into()),
            "toUpper" => Ok(text(0).to_uppercase().into()),
            "toTitle" => Ok(texts::title(text(0)).into()),
            "trimSpace" => Ok(text(0).trim().into()),
            "replaceAll" => Ok(text(2).replace(text(0), text(1)).into()),
            "regexMatch" => Ok(Value::Bool(texts::pattern(text(0))?.is_match(text(1)))),
            "regexReplaceAll" => Ok(texts::pattern(text(0))?.replace_all(text(2), text(1)).into_owned().into()),
            "parseJSON" => texts::parse_json(text(0)),
            "toJSON" => texts::to_json(&value(0), false).map(Value::Text),
            "toJSONPretty" => texts::to_json(&value(0), true).map(Value::Text),
            "parseInt" => texts::parse_int(text(0)).map(Value::Number),
            "parseUint" => match texts::parse_int(text(0))? {
                number @ 0.. => Ok(Value::Number(number)),
                number => Err(format!("{number} is less than 0")),
            },
            "parseFloat" => texts::parse_float(text(0)).map(Value::Float),
            "parseBool" => texts::parse_bool(text(0)).map(Value::Bool),
            "sha256Hex" => Ok(texts::sha256_hex(text(0)).into()),
            "base64Encode" => Ok(texts::base64_encode(text(0), false).into()),
            "base64URLEncode" => Ok(texts::base64_encode(text(0), true).into()),
            "base64Decode" => texts::base64_decode(text(0), false).map(Value::Text),
            "base64URLDecode" => texts::base64_decode(text(0), true).map(Value::Text),
            // The piped value is the last argument and the first operand: `5 | subtract 2` is 3.
            "add" | "subtract" | "multiply" | "divide" | "modulo" => numbers::arithmetic(name, &value(1), &value(0)),
            "contains" => texts::contains(&value(1), &value(0)).map(Value::Bool),
            "in" => texts::contains(&value(0), &value(1)).map(Value::Bool),
            "loop" => match (arguments.first(), arguments.get(1), arguments.len()) {
                (Some(Value::Number(count)), None, _) => numbers::range(0, *count),
                (Some(Value::Number(from)), Some(Value::Number(to)), 2) => numbers::range(*from, *to),
                _ => Err("loop takes one or two numbers".to_owned()),
            },
            _ => Ok(Value::Object(SCRATCH, 0)),
        }
    }

    fn method(&self, of: &Value, name: &str) -> Option<Signature> {
        let (fixed, rest): (&'static [Param], _) = match (of, name) {
            (Value::Object(SCRATCH, _), "Key" | "Get" | "MapValues") => (TEXT, None),
            (Value::Object(SCRATCH, _), "Set" | "SetX") => (&[Param::Text, Param::Any], None),
            (Value::Object(SCRATCH, _), "MapSet" | "MapSetX") => (&[Param::Text, Param::Text, Param::Any], None),
            (Value::List(list), "Contains") if list.kind == "dependency.ServiceTags" => (TEXT, None),
            _ => return None,
        };
        Some(Signature { fixed, rest })
    }

    fn call_method(&self, of: &Value, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let text = |at: usize| arguments.get(at).and_then(Value::as_text).unwrap_or_default();
        let value = |at: usize| arguments.get(at).cloned().unwrap_or(Value::None);
        if let Value::List(_) = of {
            return texts::contains(of, &value(0)).map(Value::Bool);
        }
        let mut scratch = self.scratch.borrow_mut();
        if scratch.len() >= SCRATCH_ENTRIES_MAX {
            return Err(format!("a scratch keeps at most {SCRATCH_ENTRIES_MAX} entries"));
        }
        match name {
            "Key" => Ok(Value::Bool(scratch.contains_key(text(0)))),
            "Get" => Ok(scratch.get(text(0)).cloned().unwrap_or(Value::None)),
            "Set" => {
                scratch.insert(text(0).to_owned(), value(1));
                Ok("".into())
            }
            "SetX" => {
                scratch.entry(text(0).to_owned()).or_insert_with(|| value(1));
                Ok("".into())
            }
            "MapValues" => match scratch.get(text(0)) {
                // In the order of their keys.
                Some(Value::Map(map)) => Ok(Value::list(map.entries.values().cloned().collect())),
                Some(_) => Err(format!("{:?} is no map", text(0))),
                None => Ok(Value::None),
            },
            _ => {
                let mut entries = match scratch.get(text(0)) {
                    Some(Value::Map(map)) => map.entries.clone(),
                    Some(_) => return Err(format!("{:?} is no map", text(0))),
                    None => BTreeMap::new(),
                };
                if entries.len() >= SCRATCH_ENTRIES_MAX {
                    return Err(format!("a map in a scratch keeps at most {SCRATCH_ENTRIES_MAX} entries"));
                }
                if name == "MapSet" || !entries.contains_key(text(1)) {
                    entries.insert(text(1).to_owned(), value(2));
                }
                scratch.insert(text(0).to_owned(), Value::map(entries));
                Ok("".into())
            }
        }
    }
}
