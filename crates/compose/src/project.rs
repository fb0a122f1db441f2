//! The canonical project: everything that a file leaves out is said, and nothing is said in two ways.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::check;
use crate::diagnostic::Diagnostic;
use crate::load::{Environment, Loader};
use crate::node::{Map, Node, Position, Value};

/// A loaded project.
#[derive(Clone, Debug)]
pub struct Project {
    pub name: String,
    /// The canonical file: `name`, `services`, `networks`, `volumes`, `secrets`, `configs` and extensions.
    pub model: Node,
    /// Services that no active profile includes.
    pub disabled: BTreeSet<String>,
    /// Warnings and notes.
    pub diagnostics: Vec<Diagnostic>,
    /// The variables that were read, by name.
    pub variables: Vec<Variable>,
    /// The files that were read, in the order of [`Position::file`].
    pub files: Vec<String>,
}

/// A variable that a file reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Variable {
    pub name: String,
    /// The text behind `:-` or `-` of its first use that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// True if a use with `:?` or `?` refuses the project without it.
    pub required: bool,
    pub is_set: bool,
    /// `file:line:column` of each use.
    pub used_at: Vec<String>,
}

impl Project {
    /// The canonical file as JSON, with sorted keys: equal projects give equal text.
    pub fn to_json(&self) -> serde_json::Value {
        self.model.to_json()
    }

    /// The services by name.
    pub fn services(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.model.get("services").into_iter().flat_map(Node::entries)
    }

    /// The entries of another section: `networks`, `volumes`, `secrets`, `configs`.
    pub fn section<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, &'a Node)> {
        self.model.get(name).into_iter().flat_map(Node::entries)
    }
}

/// Makes a merged model canonical. `None` if a file is missing or the model is refused.
pub(crate) fn finish(
    loader: &mut Loader<'_>,
    mut model: Node,
    name: String,
    profiles: &[String],
    environment: &Environment,
) -> Option<Project> {
    let at = model.at;
    let map = model.as_map_mut()?;
    map.insert("name".into(), Node::text(name.clone(), at));
    let disabled = drop_inactive(map, profiles);
    let mut complete = true;
    if let Some(services) = map.get_mut("services").and_then(Node::as_map_mut) {
        for node in services.values_mut() {
            complete &= read_files(loader, node, environment).is_some();
            if let Some(arguments) = node.get_mut("build").and_then(|build| build.get_mut("args")) {
                from_environment(arguments, environment);
            }
            complete_service(node);
        }
    }
    name_objects(map, &name);
    check::check(&model, &disabled, environment, &mut loader.report);
    complete.then_some(Project {
        name,
        model,
        disabled,
        diagnostics: Vec::new(),
        variables: Vec::new(),
        files: Vec::new(),
    })
}

/// Removes services whose profiles are all inactive.
fn drop_inactive(map: &mut Map, profiles: &[String]) -> BTreeSet<String> {
    let mut disabled = BTreeSet::new();
    let is_active = |name: &str| profiles.iter().any(|profile| profile == "*" || profile == name);
    if let Some(services) = map.get_mut("services").and_then(Node::as_map_mut) {
        services.retain(|name, node| {
            let mut wanted =
                node.get("profiles").into_iter().flat_map(Node::elements).filter_map(Node::as_str).peekable();
            let active = wanted.peek().is_none() || wanted.any(is_active);
            if !active {
                disabled.insert(name.clone());
            }
            active
        });
    }
    disabled
}

/// Reads `env_file` and `label_file` into `environment` and `labels`, and variables without a value.
fn read_files(loader: &mut Loader<'_>, node: &mut Node, environment: &Environment) -> Option<()> {
    let map = node.as_map_mut()?;
    let mut complete = true;
    let mut from_files = Map::new();
    if let Some(files) = map.shift_remove("env_file") {
        for file in files.elements() {
            let Some(name) = file.get("path").and_then(Node::as_str) else { continue };
            let required = file.get("required").and_then(Node::as_bool).unwrap_or(true).then_some(file.at);
            let raw = file.get("format").and_then(Node::as_str) == Some("raw");
            let earlier = from_files.clone();
            let lookup = |name: &str| {
                let before = earlier.get(name).and_then(Node::as_str).map(str::to_owned);
                environment.get(name).cloned().or(before)
            };
            match loader.variables_of(name, required, raw, &lookup) {
                Some(variables) => {
                    for (key, value) in variables {
                        // A key without a value that the environment does not have either is no variable.
                        if let Some(value) = value {
                            from_files.insert(key, Node::text(value, file.at));
                        }
                    }
                }
                None => complete = false,
            }
        }
    }
    let own = map.shift_remove("environment");
    let has_own = own.is_some();
    if let Some(own) = own {
        for (key, mut value) in own.as_map().cloned().unwrap_or_default() {
            if value.is_null()
                && let Some(text) = environment.get(&key)
            {
                value.value = Value::Text(text.clone());
            }
            from_files.insert(key, value);
        }
    }
    if has_own || !from_files.is_empty() {
        let at = node.at;
        node.as_map_mut()?.insert("environment".into(), Node::new(Value::Map(from_files), at));
    }
    let map = node.as_map_mut()?;
    if let Some(files) = map.shift_remove("label_file") {
        let mut labels = Map::new();
        for file in files.elements() {
            let Some(name) = file.as_str() else { continue };
            match loader.variables_of(name, Some(file.at), false, &|_| None) {
                Some(lines) => labels.extend(
                    lines.into_iter().map(|(key, value)| (key, Node::text(value.unwrap_or_default(), file.at))),
                ),
                None => complete = false,
            }
        }
        labels.extend(map.get("labels").and_then(Node::as_map).cloned().unwrap_or_default());
        map.insert("labels".into(), Node::new(Value::Map(labels), files.at));
    }
    complete.then_some(())
}

/// Gives build arguments without a value that of the environment, and removes those that it does not have.
fn from_environment(arguments: &mut Node, environment: &Environment) {
    let Some(map) = arguments.as_map_mut() else { return };
    for (name, node) in map.iter_mut().filter(|(_, node)| node.is_null()) {
        if let Some(text) = environment.get(name) {
            node.value = Value::Text(text.clone());
        }
    }
    map.retain(|_, node| !node.is_null());
}

/// Says what a service leaves out.
fn complete_service(node: &mut Node) {
    let at = node.at;
    let Some(map) = node.as_map_mut() else { return };
    // Both are null where they are not given: the image's own.
    for key in ["command", "entrypoint"] {
        map.entry(key.into()).or_insert_with(|| Node::new(Value::Null, at));
    }
    if let Some(build) = map.get_mut("build")
        && let Some(build) = build.as_map_mut()
        && !build.contains_key("dockerfile_inline")
    {
        build.entry("dockerfile".into()).or_insert_with(|| Node::text("Dockerfile", at));
    }
    if !map.contains_key("network_mode") && map.get("networks").is_none_or(|node| node.entries().next().is_none()) {
        let default = Map::from_iter([("default".to_owned(), Node::new(Value::Null, at))]);
        map.insert("networks".into(), Node::new(Value::Map(default), at));
    }
    if let Some(dependencies) = map.get_mut("depends_on").and_then(Node::as_map_mut) {
        for node in dependencies.values_mut() {
            let at = node.at;
            if node.is_null() {
                node.value = Value::Map(Map::new());
            }
            let Some(entry) = node.as_map_mut() else { continue };
            entry.entry("condition".into()).or_insert_with(|| Node::text("service_started", at));
            entry.entry("required".into()).or_insert_with(|| Node::new(Value::Bool(true), at));
        }
    }
    for Implied { key, name, at } in implied(map) {
        let dependencies =
            map.entry("depends_on".into()).or_insert_with(|| Node::new(Value::Map(Map::new()), at)).as_map_mut();
        let mut entries =
            vec![("condition", Node::text("service_started", at)), ("required", Node::new(Value::Bool(true), at))];
        // Volumes outlive the container that they are taken from.
        if key != "volumes_from" {
            entries.push(("restart", Node::new(Value::Bool(true), at)));
        }
        if let Some(dependencies) = dependencies {
            dependencies.entry(name).or_insert_with(|| Node::map(entries, at));
        }
    }
}

/// A dependency that another key than `depends_on` means.
pub(crate) struct Implied {
    /// The key of the service that names the other one.
    pub(crate) key: &'static str,
    pub(crate) name: String,
    pub(crate) at: Position,
}

/// Services that a service depends on without saying so in `depends_on`.
pub(crate) fn implied(map: &Map) -> Vec<Implied> {
    let modes = ["network_mode", "ipc", "pid"].into_iter().filter_map(|key| {
        let node = map.get(key)?;
        Some(Implied { key, name: node.as_str()?.strip_prefix("service:")?.to_owned(), at: node.at })
    });
    let lists = ["links", "volumes_from"].into_iter().flat_map(|key| {
        let names =
            map.get(key).into_iter().flat_map(Node::elements).filter_map(|node| Some((node.as_str()?, node.at)));
        let services = names.filter(|(text, _)| !text.starts_with("container:"));
        services.map(move |(text, at)| Implied { key, name: text.split(':').next().unwrap_or_default().to_owned(), at })
    });
    modes.chain(lists).collect()
}

/// Gives every object its name in the cluster, and makes the default network where a service uses it.
fn name_objects(map: &mut Map, project: &str) {
    let used: BTreeMap<String, Position> = map
        .get("services")
        .into_iter()
        .flat_map(Node::entries)
        .filter_map(|(_, service)| service.get("networks"))
        .flat_map(|networks| networks.entries().map(|(name, node)| (name.to_owned(), node.at)))
        .collect();
    if let Some(at) = used.get("default").copied() {
        let networks = map.entry("networks".into()).or_insert_with(|| Node::new(Value::Map(Map::new()), at));
        if let Some(networks) = networks.as_map_mut() {
            networks.entry("default".into()).or_insert_with(|| Node::new(Value::Null, at));
        }
    }
    if let Some(networks) = map.get_mut("networks").and_then(Node::as_map_mut) {
        // A default network that nobody is on is not made.
        networks.retain(|name, node| name != "default" || used.contains_key(name) || !node.is_null());
    }
    for section in ["networks", "volumes", "secrets", "configs"] {
        let Some(entries) = map.get_mut(section).and_then(Node::as_map_mut) else { continue };
        for (key, node) in entries.iter_mut() {
            if node.is_null() {
                node.value = Value::Map(Map::new());
            }
            name_object(node, key, project);
        }
    }
}

fn name_object(node: &mut Node, key: &str, project: &str) {
    let at = node.at;
    let Some(map) = node.as_map_mut() else { return };
    // The old form: `external: {name: x}`.
    let old = map.get("external").and_then(|external| external.get("name")).cloned();
    if map.get("external").is_some_and(|external| external.as_map().is_some()) {
        map.insert("external".into(), Node::new(Value::Bool(true), at));
    }
    if let Some(name) = old {
        map.entry("name".into()).or_insert(name);
    }
    let is_external = map.get("external").and_then(Node::as_bool) == Some(true);
    if !is_external {
        map.shift_remove("external");
    }
    let name = if is_external { key.to_owned() } else { format!("{project}_{key}") };
    map.entry("name".into()).or_insert_with(|| Node::text(name, at));
}
