//! Loads the files of a project: parses, interpolates, includes, extends, merges.
//!
//! The loader reads nothing itself. It is called with the files that are known, and answers with those that it needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::diagnostic::{Diagnostic, Path, Report};
use crate::interpolate::{Use, interpolate};
use crate::node::{Map, Node, Position, Value};
use crate::project::{self, Project, Variable};
use crate::shape::{Shaper, Type, resolve_path};
use crate::{dotenv, merge, schema, yaml};

/// Bytes of one file at most.
pub const FILE_MAX: usize = 1 << 20;
/// Files of one project at most, environment files included.
pub const FILES_MAX: usize = 64;
/// Includes in includes, and services that extend one another, at most.
const CHAIN_MAX: usize = 32;

/// The files that are known so far. `None` is a file that does not exist.
pub type Sources = BTreeMap<String, Option<Vec<u8>>>;

/// Options of loading a project.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The Compose files, in the order in which they are merged. Paths are relative to `directory` or absolute.
    pub files: Vec<String>,
    /// The project directory, which relative paths refer to.
    pub directory: String,
    /// Variables of the caller. They win over those of files.
    pub environment: BTreeMap<String, String>,
    /// Environment files in place of `.env` of the project directory. Later ones win.
    pub env_files: Option<Vec<String>>,
    /// Profiles that are active, beside those of `COMPOSE_PROFILES`. `*` is all.
    pub profiles: Vec<String>,
    /// The name of the project, in place of what files and environment say.
    pub name: Option<String>,
}

/// The outcome of one call of [`load`].
#[derive(Debug)]
pub enum Step {
    /// These files are needed. Call again with them, or with `None` for those that do not exist.
    Need(Vec<String>),
    Done(Box<Project>),
    /// The project cannot be used. All faults that were found, with at least one error.
    Refused(Vec<Diagnostic>),
}

/// Loads a project from the files that are known so far.
///
/// Call it again with more files as long as it answers [`Step::Need`]. Equal input gives equal output.
pub fn load(sources: &Sources, options: &Options) -> Step {
    let mut loader = Loader {
        sources,
        report: Report::default(),
        needs: BTreeSet::new(),
        variables: BTreeMap::new(),
        parsed: HashMap::new(),
        home: options.environment.get("HOME").cloned(),
    };
    let project = loader.project(options);
    if !loader.needs.is_empty() && !loader.report.is_refused() {
        return Step::Need(loader.needs.into_iter().collect());
    }
    match project {
        Some(mut project) if !loader.report.is_refused() => {
            project.files = loader.report.files().to_vec();
            project.diagnostics = loader.report.diagnostics;
            project.variables = loader.variables.into_values().collect();
            Step::Done(Box::new(project))
        }
        _ => Step::Refused(loader.report.diagnostics),
    }
}

/// True for a text that can be the name of a project.
pub fn is_project_name(name: &str) -> bool {
    let first = name.chars().next();
    first.is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
        && name.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, '_' | '-'))
}

/// Variables by name, as one part of a project sees them.
pub(crate) type Environment = Rc<BTreeMap<String, String>>;

/// State of one call of [`load`].
pub(crate) struct Loader<'a> {
    sources: &'a Sources,
    pub(crate) report: Report,
    needs: BTreeSet<String>,
    variables: BTreeMap<String, Variable>,
    parsed: HashMap<String, Rc<Vec<Node>>>,
    home: Option<String>,
}

/// Place at which a file is loaded: base of its paths and variables, and the files that led to it.
#[derive(Clone)]
struct Place {
    folder: String,
    environment: Environment,
    /// Included files, the innermost last.
    chain: Vec<String>,
    /// The value that names the files.
    named_at: Position,
}

impl Loader<'_> {
    fn project(&mut self, options: &Options) -> Option<Project> {
        let folder = resolve_path("", &options.directory, None);
        let files: Vec<String> = options.files.iter().map(|file| resolve_path(&folder, file, None)).collect();
        if files.is_empty() {
            self.report.error("no-file", Position::default(), Path::ROOT, "no Compose file is named");
            return None;
        }
        let mut environment = self.environment(options, &folder)?;
        let documents: Option<Vec<_>> = files.iter().map(|file| self.documents(file, None)).collect();
        let name = self.name(options, &folder, documents.as_deref()?, &environment)?;
        environment.insert("COMPOSE_PROJECT_NAME".into(), name.clone());
        let environment = Rc::new(environment);
        let place =
            Place { folder, environment: environment.clone(), chain: Vec::new(), named_at: Position::default() };
        let model = self.layers(&files, &place)?;
        if !self.needs.is_empty() || self.report.is_refused() {
            return None;
        }
        let mut profiles = options.profiles.clone();
        let more = environment.get("COMPOSE_PROFILES").map(String::as_str).unwrap_or_default();
        profiles.extend(more.split(',').map(str::trim).filter(|profile| !profile.is_empty()).map(str::to_owned));
        project::finish(self, model, name, &profiles, &environment)
    }

    /// Variables of the caller over those of environment files.
    fn environment(&mut self, options: &Options, folder: &str) -> Option<BTreeMap<String, String>> {
        let mut environment = BTreeMap::new();
        let disabled = options.environment.get("COMPOSE_DISABLE_ENV_FILE").is_some_and(|it| it == "1" || it == "true");
        let (files, required) = match &options.env_files {
            Some(files) => (files.clone(), true),
            None if disabled => (Vec::new(), false),
            None => (vec![".env".to_owned()], false),
        };
        for file in files {
            let path = resolve_path(folder, &file, None);
            let known = [&options.environment, &environment].map(Clone::clone);
            let lookup = |name: &str| known.iter().find_map(|layer| layer.get(name)).cloned();
            for (key, value) in self.variables_of(&path, required.then_some(Position::default()), false, &lookup)? {
                environment.extend(value.map(|value| (key, value)));
            }
        }
        environment.extend(options.environment.iter().map(|(key, value)| (key.clone(), value.clone())));
        Some(environment)
    }

    /// The variables of a file; none where the file is missing and not `required`, which names who asks for it.
    pub(crate) fn variables_of(
        &mut self,
        path: &str,
        required: Option<Position>,
        raw: bool,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Vec<dotenv::Variable>> {
        let Some(text) = self.text(path, required)? else { return Some(Vec::new()) };
        let parsed = if raw { dotenv::parse_raw(&text, lookup) } else { dotenv::parse(&text, lookup) };
        match parsed {
            Ok(variables) => Some(variables),
            Err(fault) => {
                let at = Position { file: self.report.file(path), line: fault.line, column: 1 };
                self.report.error("env-file", at, Path::ROOT, fault.message);
                None
            }
        }
    }

    /// The text of a file. `None` if it is not known yet or cannot be used; `Some(None)` if it does not exist and
    /// need not.
    pub(crate) fn text(&mut self, path: &str, required: Option<Position>) -> Option<Option<String>> {
        let Some(content) = self.sources.get(path) else {
            if self.sources.len() + self.needs.len() >= FILES_MAX {
                let at = required.unwrap_or_default();
                self.report.error("limit", at, Path::ROOT, format!("the project has more than {FILES_MAX} files"));
            }
            self.needs.insert(path.to_owned());
            return None;
        };
        match (content, required) {
            (None, None) => Some(None),
            (None, Some(at)) => {
                self.report.error("no-file", at, Path::ROOT, format!("the file {path} does not exist"));
                None
            }
            (Some(bytes), _) => {
                let at = Position { file: self.report.file(path), line: 1, column: 1 };
                if bytes.len() > FILE_MAX {
                    let message = format!("the file has {} bytes, more than {FILE_MAX}", bytes.len());
                    self.report.error("limit", at, Path::ROOT, message);
                    return None;
                }
                match std::str::from_utf8(bytes) {
                    Ok(text) => Some(Some(text.to_owned())),
                    Err(fault) => {
                        let line = bytes[..fault.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
                        let at = Position { line: u32::try_from(line).unwrap_or(0).saturating_add(1), ..at };
                        self.report.error("encoding", at, Path::ROOT, "the file is not UTF-8");
                        None
                    }
                }
            }
        }
    }

    /// The documents of a Compose file as they are written. `from` is the value that names the file.
    fn documents(&mut self, path: &str, from: Option<Position>) -> Option<Rc<Vec<Node>>> {
        if let Some(documents) = self.parsed.get(path) {
            return Some(documents.clone());
        }
        let text = self.text(path, Some(from.unwrap_or_default()))??;
        let file = self.report.file(path);
        let documents = Rc::new(yaml::parse(&text, file, &mut self.report));
        if documents.is_empty() && !self.report.is_refused() {
            let at = Position { file, line: 1, column: 1 };
            self.report.error("empty", at, Path::ROOT, "the file is empty");
        }
        self.parsed.insert(path.to_owned(), documents.clone());
        Some(documents)
    }

    fn name(
        &mut self,
        options: &Options,
        folder: &str,
        documents: &[Rc<Vec<Node>>],
        environment: &BTreeMap<String, String>,
    ) -> Option<String> {
        let given = options.name.clone().or_else(|| environment.get("COMPOSE_PROJECT_NAME").cloned());
        if let Some(name) = given.filter(|name| !name.is_empty()) {
            return self.named(name, Position::default());
        }
        let documents = documents.iter().flat_map(|documents| documents.iter());
        let node = documents.filter_map(|it| it.get("name")).next_back();
        if let Some(mut node) = node.cloned() {
            self.interpolate(&mut node, environment, Path::ROOT.key("name"));
            let name = node.as_str().unwrap_or_default().to_owned();
            return self.named(name, node.at);
        }
        let base = folder.rsplit('/').next().unwrap_or_default().to_lowercase();
        let kept: String = base.chars().filter(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | '-')).collect();
        let name = kept.trim_start_matches(['_', '-']).to_owned();
        if name.is_empty() {
            let message = "the project has no name";
            let help = "give one with --name, or as `name:` in the file";
            self.report.refuse("name", Position::default(), Path::ROOT, message, help);
            return None;
        }
        Some(name)
    }

    fn named(&mut self, name: String, at: Position) -> Option<String> {
        if !is_project_name(&name) {
            let message = format!("`{name}` cannot be the name of a project");
            let help = "use lower-case letters, digits, `-` and `_`, beginning with a letter or digit";
            self.report.refuse("name", at, Path::ROOT.key("name"), message, help);
            return None;
        }
        Some(name)
    }

    /// Files merged one onto the other.
    fn layers(&mut self, files: &[String], place: &Place) -> Option<Node> {
        let mut merged: Option<Node> = None;
        for file in files {
            for document in self.documents(file, Some(place.named_at))?.iter() {
                let Some(document) = self.document(document.clone(), place) else { continue };
                let document = self.included(document, file, place);
                let document = self.extended(document, merged.as_ref(), file, place);
                let base = merged.take().unwrap_or_else(|| Node::new(Value::Map(Map::new()), document.at));
                merged = Some(merge::merge(base, document, &mut self.report));
            }
        }
        merged
    }

    /// Interpolates a document and brings it into the long form.
    fn document(&mut self, mut document: Node, place: &Place) -> Option<Node> {
        if document.as_map().is_none() {
            let message = format!("a Compose file is a mapping, not {}", document.kind());
            self.report.error("type", document.at, Path::ROOT, message);
            return None;
        }
        self.interpolate(&mut document, &place.environment, Path::ROOT);
        if let Some(version) = document.as_map_mut().and_then(|map| map.shift_remove("version")) {
            self.report.note("obsolete", version.named_at(), "version", "`version` is obsolete and ignored");
        }
        let home = self.home.clone();
        let mut shaper = Shaper { report: &mut self.report, folder: &place.folder, home: home.as_deref() };
        shaper.shape(&mut document, &Type::Object(&schema::FILE), Path::ROOT);
        merge::check_clashes(&document, &mut self.report);
        Some(document)
    }

    fn interpolate(&mut self, node: &mut Node, environment: &BTreeMap<String, String>, path: Path<'_>) {
        match &mut node.value {
            Value::Text(text) if text.contains('$') => {
                let lookup = |name: &str| environment.get(name).cloned();
                let at = node.at;
                let (variables, report) = (&mut self.variables, &mut self.report);
                let mut used = |one: Use| note_use(variables, report, one, environment, at);
                match interpolate(text, &lookup, &mut used) {
                    Ok(value) => *text = value,
                    Err(fault) => self.report.error("interpolation", at, path, fault.to_string()),
                }
            }
            Value::List(list) => {
                for (index, node) in list.iter_mut().enumerate() {
                    self.interpolate(node, environment, path.index(index));
                }
            }
            Value::Map(map) => {
                for (key, node) in map.iter_mut() {
                    self.interpolate(node, environment, path.key(key));
                }
            }
            Value::Text(_) | Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
        }
    }

    /// The document with everything that it includes.
    fn included(&mut self, mut document: Node, file: &str, place: &Place) -> Node {
        let Some(map) = document.as_map_mut() else { return document };
        let Some(includes) = map.shift_remove("include") else { return document };
        for include in includes.elements() {
            let Some(model) = self.include(include, file, place) else { continue };
            let Value::Map(model) = model.value else { continue };
            for (kind, node) in model {
                let Value::Map(entries) = node.value else { continue };
                if kind.starts_with("x-") || kind == "name" {
                    continue;
                }
                let into = map.entry(kind.clone()).or_insert_with(|| Node::new(Value::Map(Map::new()), include.at));
                if let Some(into) = into.as_map_mut() {
                    merge::import(into, entries, &kind, &mut self.report);
                }
            }
        }
        document
    }

    fn include(&mut self, include: &Node, file: &str, place: &Place) -> Option<Node> {
        let paths: Vec<String> = include
            .get("path")?
            .elements()
            .filter_map(Node::as_str)
            .map(|path| resolve_path(&place.folder, path, self.home.as_deref()))
            .collect();
        let first = paths.first()?.clone();
        let is_remote = |path: &str| path.contains("://") || path.starts_with("git@") || path.starts_with("oci:");
        if include.get("path")?.elements().filter_map(Node::as_str).any(is_remote) {
            let message = "files of another host cannot be included";
            self.report.refuse("include", include.at, "include", message, "fetch the file and include the copy");
            return None;
        }
        let mut chain = place.chain.clone();
        chain.push(file.to_owned());
        if chain.contains(&first) || chain.len() > CHAIN_MAX {
            chain.push(first);
            self.report.error(
                "include-cycle",
                include.at,
                "include",
                format!("includes itself: {}", chain.join(" → ")),
            );
            return None;
        }
        let folder = match include.get("project_directory").and_then(Node::as_str) {
            Some(folder) => resolve_path(&place.folder, folder, self.home.as_deref()),
            None => parent(&first),
        };
        let given = include.get("env_file").map(|files| files.elements().filter_map(Node::as_str));
        let (env_files, required): (Vec<String>, _) = match given {
            Some(files) => (files.map(|path| resolve_path(&place.folder, path, None)).collect(), Some(include.at)),
            None => (vec![resolve_path(&folder, ".env", None)], None),
        };
        let mut environment = BTreeMap::new();
        for path in env_files {
            let (outer, inner) = (place.environment.clone(), environment.clone());
            let lookup = |name: &str| outer.get(name).or_else(|| inner.get(name)).cloned();
            for (key, value) in self.variables_of(&path, required, false, &lookup)? {
                environment.extend(value.map(|value| (key, value)));
            }
        }
        environment.extend(place.environment.iter().map(|(key, value)| (key.clone(), value.clone())));
        self.layers(&paths, &Place { folder, environment: Rc::new(environment), chain, named_at: include.at })
    }

    /// The document with the bases of its services below them.
    fn extended(&mut self, mut document: Node, below: Option<&Node>, file: &str, place: &Place) -> Node {
        let Some(services) = document.get("services").and_then(Node::as_map).cloned() else { return document };
        let mut known = below.and_then(|it| it.get("services")).and_then(Node::as_map).cloned().unwrap_or_default();
        known.extend(services.iter().map(|(name, node)| (name.clone(), node.clone())));
        let mut result = services.clone();
        for (name, node) in services {
            if node.get("extends").is_some() {
                let mut chain = vec![(file.to_owned(), name.clone())];
                if let Some(extended) = self.extend(node, &known, place, &mut chain) {
                    result.insert(name, extended);
                }
            }
        }
        if let Some(services) = document.get_mut("services") {
            services.value = Value::Map(result);
        }
        document
    }

    fn extend(
        &mut self,
        mut service: Node,
        known: &Map,
        place: &Place,
        chain: &mut Vec<(String, String)>,
    ) -> Option<Node> {
        let Some(extends) = service.as_map_mut().and_then(|map| map.shift_remove("extends")) else {
            return Some(service);
        };
        let at = extends.at;
        let path = format!("services.{}.extends", chain.last().map_or("", |(_, name)| name));
        let Some(name) = extends.get("service").and_then(Node::as_str).map(str::to_owned) else {
            self.report.error("extends", at, path, "names no service");
            return None;
        };
        let (file, foreign) = match extends.get("file").and_then(Node::as_str) {
            Some(file) => {
                let file = resolve_path(&place.folder, file, self.home.as_deref());
                let place = Place { folder: parent(&file), ..place.clone() };
                let services = self.services_of(&file, at, &place)?;
                (file, Some((services, place)))
            }
            None => (chain.last().map(|(file, _)| file.clone()).unwrap_or_default(), None),
        };
        let (known, place) = foreign.as_ref().map_or((known, place), |(services, place)| (services, place));
        let Some(base) = known.get(&name) else {
            self.report.error("extends", at, path, format!("the service `{name}` does not exist in {file}"));
            return None;
        };
        let link = (file, name);
        let is_cycle = chain.contains(&link);
        chain.push(link);
        if is_cycle || chain.len() > CHAIN_MAX {
            let names: Vec<&str> = chain.iter().map(|(_, name)| name.as_str()).collect();
            self.report.error("extends-cycle", at, path, format!("extends itself: {}", names.join(" → ")));
            return None;
        }
        let base = self.extend(base.clone(), known, place, chain)?;
        Some(merge::merge_service(base, service, &mut self.report))
    }

    /// The services of a file that another one extends.
    fn services_of(&mut self, file: &str, from: Position, place: &Place) -> Option<Map> {
        let mut services = Map::new();
        for document in self.documents(file, Some(from))?.iter() {
            let document = self.document(document.clone(), place)?;
            services.extend(document.get("services").and_then(Node::as_map).cloned().unwrap_or_default());
        }
        Some(services)
    }
}

/// Keeps what is known of a variable; warns once if it has no value and no default.
fn note_use(
    variables: &mut BTreeMap<String, Variable>,
    report: &mut Report,
    one: Use,
    environment: &BTreeMap<String, String>,
    at: Position,
) {
    let value = environment.get(&one.name);
    let is_new = !variables.contains_key(&one.name);
    if is_new && value.is_none() && one.operator.is_empty() {
        let message = format!("the variable {} is not set; it is read as an empty text", one.name);
        report.warn("unset-variable", at, Path::ROOT, message);
    }
    let place = format!("{}:{}:{}", report.file_name(at), at.line, at.column);
    let variable = variables.entry(one.name.clone()).or_insert_with(|| Variable {
        name: one.name,
        default: None,
        required: false,
        is_set: value.is_some(),
        used_at: Vec::new(),
    });
    if one.operator.ends_with('-') && variable.default.is_none() {
        variable.default = Some(one.word);
    }
    variable.required |= one.operator.ends_with('?');
    if !variable.used_at.contains(&place) {
        variable.used_at.push(place);
    }
}

fn parent(path: &str) -> String {
    match path.rsplit_once('/') {
        Some(("", _)) => "/".into(),
        Some((folder, _)) => folder.into(),
        None => ".".into(),
    }
}
