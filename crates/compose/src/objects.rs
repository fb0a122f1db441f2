//! A project → the objects of a swarm that it declares, in the form of the Docker API.
//!
//! Service specs equal those of `docker stack deploy` (docker CLI 28) for every key that it knows. A key that a swarm's
//! API cannot say travels in the member `Herder` of the container spec. A key without a way is refused, all at once.

mod container;
mod hooks;
mod host;
mod keys;
mod networks;
mod pins;
mod service;

use std::collections::BTreeMap;

use serde_json::{Map as Json, Value, json};

use crate::diagnostic::{Diagnostic, Path, Report, Severity};
use crate::load::Sources;
use crate::node::{Node, Position};
use crate::project::Project;

pub use pins::{FORMER_NAMES_LABEL, Pins, relabel};

/// The label that names the stack of an object.
pub const STACK_LABEL: &str = "com.docker.stack.namespace";
/// The label that keeps the image as the file names it.
pub const IMAGE_LABEL: &str = "com.docker.stack.image";

/// All objects of a stack, each in the form in which the Docker API takes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    pub stack: String,
    /// Bodies of `POST /networks/create`, by name.
    pub networks: BTreeMap<String, Value>,
    /// Names of networks that must exist already.
    pub external_networks: Vec<String>,
    pub secrets: Vec<FileObject>,
    pub configs: Vec<FileObject>,
    /// Services, each after those that it depends on.
    pub services: Vec<DesiredService>,
}

/// A service, and what its deployment waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredService {
    /// The name in the file.
    pub key: String,
    /// The name in the cluster.
    pub name: String,
    /// The service spec. Secrets and configs are referred to by name; ids are filled in when it is sent.
    pub spec: Value,
    pub depends_on: Vec<Dependency>,
}

/// A service that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The name in the cluster.
    pub service: String,
    pub condition: Condition,
    pub required: bool,
}

/// Condition that a dependent service waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Started,
    Healthy,
    Completed,
}

/// A secret or config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileObject {
    /// The name in the cluster.
    pub name: String,
    /// True if it must exist already.
    pub external: bool,
    pub labels: BTreeMap<String, String>,
    pub content: Content,
    /// The name of the template engine, or empty.
    pub template: String,
    /// The secret driver with its options, where one is declared.
    pub driver: Option<(String, BTreeMap<String, String>)>,
}

/// Source of the content of a [`FileObject`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// No content: the object is external, or its driver has it.
    None,
    /// A file of the caller's host.
    File(String),
    Text(String),
}

/// The objects of a project as a stack, with notes about keys without a meaning on a cluster. Refused with every key that
/// has no way, if there is one.
///
/// `environment` gives the content of secrets and configs that come from variables.
pub fn objects(
    project: &Project,
    stack: &str,
    environment: &BTreeMap<String, String>,
) -> Result<(Desired, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut report = Report::of_files(&project.files);
    let links = networks::links(project);
    let mut context = Context { project, stack, environment, links, report: &mut report };
    let desired = Desired {
        stack: stack.to_owned(),
        networks: networks::declared(&mut context),
        external_networks: networks::external(&mut context),
        secrets: file_objects(&mut context, "secrets"),
        configs: file_objects(&mut context, "configs"),
        services: service::all(&mut context),
    };
    for (key, object) in [("secrets", &desired.secrets), ("configs", &desired.configs)] {
        for object in object.iter().filter(|object| object.name.len() > NAME_MAX) {
            let message = format!("the name `{}` has more than {NAME_MAX} characters", object.name);
            context.report.error("name", Position::default(), key, message);
        }
    }
    let diagnostics = report.diagnostics;
    if diagnostics.iter().any(|it| it.severity == Severity::Error) {
        Err(diagnostics)
    } else {
        Ok((desired, diagnostics))
    }
}

/// Characters of the name of a secret or config at most (swarmkit, `controlapi/secret.go`).
const NAME_MAX: usize = 64;

/// State that the parts of this module need.
struct Context<'a> {
    project: &'a Project,
    stack: &'a str,
    environment: &'a BTreeMap<String, String>,
    links: networks::Links<'a>,
    report: &'a mut Report,
}

impl Context<'_> {
    /// The name of a declared object in the cluster. Objects of a stack have its name in front, not the project's.
    fn object_name(&self, section: &str, key: &str) -> String {
        let node = self.project.model.get(section).and_then(|section| section.get(key));
        let name = node.and_then(|node| node.get("name")).and_then(Node::as_str).unwrap_or(key);
        match name.strip_prefix(&format!("{}_", self.project.name)) {
            Some(rest) if rest == key => format!("{}_{key}", self.stack),
            _ => name.to_owned(),
        }
    }

    fn is_external(&self, section: &str, key: &str) -> bool {
        let node = self.project.model.get(section).and_then(|section| section.get(key));
        node.and_then(|node| node.get("external")).and_then(Node::as_bool) == Some(true)
    }
}

/// A mapping of texts.
fn texts(node: Option<&Node>) -> BTreeMap<String, String> {
    let entries = node.into_iter().flat_map(Node::entries);
    entries.map(|(key, node)| (key.to_owned(), node.scalar_text().unwrap_or_default())).collect()
}

/// Labels with that of the stack.
fn labels(node: Option<&Node>, stack: &str) -> BTreeMap<String, String> {
    let mut labels = texts(node);
    labels.insert(STACK_LABEL.into(), stack.into());
    labels
}

/// A list of texts.
fn list(node: Option<&Node>) -> Vec<String> {
    node.into_iter().flat_map(Node::elements).filter_map(Node::scalar_text).collect()
}

/// Inserts a member unless it is empty, as Go's `omitempty` does.
fn put(json: &mut Json<String, Value>, key: &str, value: impl Into<Value>) {
    let value = value.into();
    let is_empty = match &value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    if !is_empty {
        json.insert(key.into(), value);
    }
}

fn file_objects(context: &mut Context<'_>, section: &str) -> Vec<FileObject> {
    let mut objects = Vec::new();
    for (key, node) in context.project.section(section) {
        let text = |name: &str| node.get(name).and_then(Node::as_str).map(str::to_owned);
        let from_variable = |name: String| context.environment.get(&name).cloned().map(Content::Text);
        let content = text("file")
            .map(Content::File)
            .or_else(|| text("content").map(Content::Text))
            .or_else(|| text("environment").and_then(from_variable))
            .unwrap_or(Content::None);
        objects.push(FileObject {
            name: context.object_name(section, key),
            external: context.is_external(section, key),
            labels: labels(node.get("labels"), context.stack),
            content,
            template: text("template_driver").unwrap_or_default(),
            driver: text("driver").map(|driver| (driver, texts(node.get("driver_opts")))),
        });
    }
    objects
}

impl FileObject {
    /// The body of `POST /secrets/create` or `/configs/create`; `data` is the content.
    pub fn body(&self, data: &[u8]) -> Value {
        use base64::Engine as _;
        let mut body = Json::new();
        body.insert("Name".into(), self.name.as_str().into());
        body.insert("Labels".into(), json!(self.labels));
        match &self.driver {
            Some((name, options)) => put(&mut body, "Driver", json!({"Name": name, "Options": options})),
            None => {
                let data = base64::engine::general_purpose::STANDARD.encode(data);
                body.insert("Data".into(), data.into());
            }
        }
        if !self.template.is_empty() {
            body.insert("Templating".into(), json!({"Name": self.template}));
        }
        body.into()
    }

    /// The content, read from `sources` where it is a file.
    pub fn data<'a>(&'a self, sources: &'a Sources) -> Option<&'a [u8]> {
        match &self.content {
            Content::None => Some(b""),
            Content::Text(text) => Some(text.as_bytes()),
            Content::File(path) => sources.get(path)?.as_deref(),
        }
    }
}

/// The path of a service's key, for messages.
fn at_key(service: &str, key: &str) -> String {
    Path::ROOT.key("services").key(service).key(key).to_string()
}
