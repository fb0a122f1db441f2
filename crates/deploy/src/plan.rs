//! Compares the objects of a stack with those of a target. Pure.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use herder_compose::{
    Desired, DesiredService, FORMER_NAMES_LABEL, FileObject, IMAGE_LABEL, STACK_LABEL, Sources, relabel,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fields::{Field, compare};
use crate::observe::{Observed, is_of};
use crate::seal::{DIGEST_LABEL, config_digest, is_seal_of, seal, short};

/// Change of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Create,
    Update,
    Remove,
    Keep,
}

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Network,
    Secret,
    Config,
    Service,
    /// Only removed, and only when asked for.
    Volume,
}

impl Kind {
    /// The word of messages and of `--format json`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Network => "network",
            Kind::Secret => "secret",
            Kind::Config => "config",
            Kind::Service => "service",
            Kind::Volume => "volume",
        }
    }

    /// The collection in paths of the API.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Kind::Network => "networks",
            Kind::Secret => "secrets",
            Kind::Config => "configs",
            Kind::Service => "services",
            Kind::Volume => "volumes",
        }
    }
}

/// One change of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub action: Action,
    pub kind: Kind,
    /// The name in the cluster.
    pub name: String,
    /// The id, where the object exists.
    pub id: String,
    /// The fields that change, for people.
    pub fields: Vec<Field>,
    /// The body of the request; null for a removal. It refers to secrets and configs by name; ids are filled in when it is sent.
    pub body: Value,
}

/// The steps that make a target as a stack declares it, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub stack: String,
    pub steps: Vec<Step>,
    /// Things that are left as they are, for people.
    pub notes: Vec<String>,
    /// Reasons for which nothing is done at all.
    pub refused: Vec<String>,
}

impl Plan {
    /// Compares. `sources` has the content of files; `salt` gives the salt of each new digest of a secret; with `prune`,
    /// objects of the stack that it does not declare any more are removed.
    pub fn of(
        desired: &Desired,
        observed: &Observed,
        sources: &Sources,
        prune: bool,
        salt: &mut dyn FnMut() -> [u8; 16],
    ) -> Plan {
        let mut planner = Planner {
            observed,
            sources,
            plan: Plan { stack: desired.stack.clone(), steps: Vec::new(), notes: Vec::new(), refused: Vec::new() },
            renamed: BTreeMap::new(),
            used: BTreeSet::new(),
        };
        planner.networks(desired);
        for secret in &desired.secrets {
            planner.file(secret, Kind::Secret, &desired.stack, salt);
        }
        for config in &desired.configs {
            planner.file(config, Kind::Config, &desired.stack, salt);
        }
        for service in &desired.services {
            planner.service(service);
        }
        planner.removals(desired, prune);
        planner.plan
    }

    /// True if nothing has to change.
    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| step.action == Action::Keep)
    }

    /// The steps of services, by name.
    pub(crate) fn step(&self, kind: Kind, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.kind == kind && step.name == name)
    }
}

struct Planner<'a> {
    observed: &'a Observed,
    sources: &'a Sources,
    plan: Plan,
    /// Names of secrets and configs whose content changed → the names of their new versions.
    renamed: BTreeMap<(Kind, String), String>,
    /// Names of secrets and configs that the stack uses.
    used: BTreeSet<(Kind, String)>,
}

impl Planner<'_> {
    fn push(&mut self, action: Action, kind: Kind, name: &str, id: &str, fields: Vec<Field>, body: Value) {
        self.plan.steps.push(Step { action, kind, name: name.to_owned(), id: id.to_owned(), fields, body });
    }

    fn networks(&mut self, desired: &Desired) {
        for name in &desired.external_networks {
            match self.observed.network(name) {
                None => self.plan.refused.push(format!("network {name}: it is external and does not exist")),
                Some(network) if network["Scope"] != "swarm" => {
                    let message =
                        format!("network {name}: it is external and exists on single nodes only, not in the swarm");
                    self.plan.refused.push(message);
                }
                Some(_) => {}
            }
        }
        for (name, body) in &desired.networks {
            let Some(there) = self.observed.network(name).filter(|it| it["Scope"] == "swarm") else {
                self.push(Action::Create, Kind::Network, name, "", Vec::new(), body.clone());
                continue;
            };
            if !is_of(&there["Labels"], &desired.stack) {
                let message =
                    format!("network {name}: it exists and does not belong to this stack; declare it `external`");
                self.plan.refused.push(message);
            }
            let mut declared = body.clone();
            if let Some(members) = declared.as_object_mut() {
                // It is about the request, not about the network.
                members.remove("CheckDuplicate");
            }
            let fields = compare(&declared_of(there, body), &declared);
            if !fields.is_empty() {
                let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
                let message = format!(
                    "network {name}: {} cannot change while tasks use it; give the network another name",
                    names.join(", ")
                );
                self.plan.refused.push(message);
            }
            let id = there["Id"].as_str().unwrap_or_default();
            self.push(Action::Keep, Kind::Network, name, id, Vec::new(), Value::Null);
        }
    }

    fn file(&mut self, file: &FileObject, kind: Kind, stack: &str, salt: &mut dyn FnMut() -> [u8; 16]) {
        let all = if kind == Kind::Secret { &self.observed.secrets } else { &self.observed.configs };
        let named = |name: &str| all.iter().find(|object| object["Spec"]["Name"] == name);
        let name = &file.name;
        let word = kind.word();
        if file.external {
            if named(name).is_none() {
                self.plan.refused.push(format!("{word} {name}: it is external and does not exist"));
            }
            self.used.insert((kind, name.clone()));
            return;
        }
        let Some(data) = file.data(self.sources) else {
            self.plan.refused.push(format!("{word} {name}: its file cannot be read"));
            return;
        };
        let is_same = |object: &Value| match kind {
            Kind::Config => match object["Spec"]["Data"].as_str() {
                Some(there) => there == BASE64.encode(data),
                None => object["Spec"]["Labels"][DIGEST_LABEL] == config_digest(data).1.as_str(),
            },
            _ => object["Spec"]["Labels"][DIGEST_LABEL].as_str().is_some_and(|label| is_seal_of(label, data)),
        };
        let version = format!("{}.{}", cut(name), short(data));
        // The newest version has the wanted content: the plain name, or one with a digest behind it.
        let current = [name.as_str(), version.as_str()].into_iter().find_map(|name| Some((name, named(name)?)));
        let same = [name.as_str(), version.as_str()]
            .into_iter()
            .find_map(|name| named(name).filter(|object| is_same(object)).map(|object| (name, object)));
        let mut labels = file.labels.clone();
        if kind == Kind::Secret {
            labels.insert(DIGEST_LABEL.into(), seal(data, salt()));
        }
        let with_labels = FileObject { labels, ..file.clone() };
        match (same, current) {
            (Some((there, object)), _) => {
                let id = object["ID"].as_str().unwrap_or_default();
                self.renamed.insert((kind, name.clone()), there.to_owned());
                self.used.insert((kind, there.to_owned()));
                // The body is not sent: a target without such objects copies its content into containers.
                let labels = labels_of(object);
                let body = FileObject { name: there.to_owned(), labels, ..file.clone() }.body(data);
                self.push(Action::Keep, kind, there, id, Vec::new(), body);
            }
            (None, None) => {
                self.used.insert((kind, name.clone()));
                self.push(Action::Create, kind, name, "", Vec::new(), with_labels.body(data));
            }
            (None, Some((_, object))) => {
                if !is_of(&object["Spec"]["Labels"], stack) {
                    self.plan.refused.push(format!(
                        "{word} {name}: it exists and does not belong to this stack; declare it `external`"
                    ));
                    return;
                }
                // What is in a secret or config never changes: another content is another object.
                let body = FileObject { name: version.clone(), ..with_labels }.body(data);
                self.renamed.insert((kind, name.clone()), version.clone());
                self.used.insert((kind, version.clone()));
                let field = Field { name: "Data".into(), old: "old content".into(), new: "new content".into() };
                self.push(Action::Create, kind, &version, "", vec![field], body);
            }
        }
    }

    fn service(&mut self, service: &DesiredService) {
        let mut spec = service.spec.clone();
        self.refer_to_versions(&mut spec);
        let there = self.observed.services.iter().find(|it| it["Spec"]["Name"] == service.name.as_str());
        let Some(there) = there else {
            self.push(Action::Create, Kind::Service, &service.name, "", image_field(&spec), spec);
            return;
        };
        let old = &there["Spec"];
        keep_digest(old, &mut spec);
        // The counter of forced updates is the cluster's; a file has none.
        spec["TaskTemplate"]["ForceUpdate"] = old["TaskTemplate"]["ForceUpdate"].clone();
        let there_now = self.comparable(old);
        let mut kept = spec.clone();
        keep_names(old, &mut kept);
        let task = |spec: &Value| json!({"TaskTemplate": spec["TaskTemplate"]});
        if compare(&task(&there_now), &task(&self.comparable(&kept))).is_empty() {
            spec = kept;
        }
        let fields = compare(&there_now, &self.comparable(&spec));
        let action = if fields.is_empty() { Action::Keep } else { Action::Update };
        let id = there["ID"].as_str().unwrap_or_default();
        self.push(action, Kind::Service, &service.name, id, fields, spec);
    }

    /// Replaces names of secrets and configs by those of the versions that the stack uses now.
    fn refer_to_versions(&self, spec: &mut Value) {
        for (kind, list, key) in FILES {
            let files = spec["TaskTemplate"]["ContainerSpec"].get_mut(list).and_then(Value::as_array_mut);
            for file in files.into_iter().flatten() {
                let name = file[key].as_str().unwrap_or_default().to_owned();
                if let Some(version) = self.renamed.get(&(kind, name)) {
                    file[key] = version.as_str().into();
                }
            }
        }
    }

    /// A spec in which networks are named, ids are left out, and defaults are said.
    fn comparable(&self, spec: &Value) -> Value {
        let mut spec = spec.clone();
        if let Some(networks) = spec["TaskTemplate"].get_mut("Networks").and_then(Value::as_array_mut) {
            for network in networks.iter_mut() {
                let target = network["Target"].as_str().unwrap_or_default();
                network["Target"] = self.observed.network_name(target).into();
            }
            networks.sort_by_key(|network| network["Target"].as_str().unwrap_or_default().to_owned());
        }
        for (_, list, key) in FILES {
            let id = if key == "SecretName" { "SecretID" } else { "ConfigID" };
            let files = spec["TaskTemplate"]["ContainerSpec"].get_mut(list).and_then(Value::as_array_mut);
            for file in files.into_iter().flatten().filter_map(Value::as_object_mut) {
                file.remove(id);
            }
        }
        default(&mut spec["TaskTemplate"]["ContainerSpec"], "Isolation", "default");
        default(&mut spec["EndpointSpec"], "Mode", "vip");
        for port in spec["EndpointSpec"].get_mut("Ports").and_then(Value::as_array_mut).into_iter().flatten() {
            default(port, "Protocol", "tcp");
            default(port, "PublishMode", "ingress");
        }
        for config in ["UpdateConfig", "RollbackConfig"] {
            default(&mut spec[config], "FailureAction", "pause");
            default(&mut spec[config], "Order", "stop-first");
        }
        default(&mut spec["TaskTemplate"]["RestartPolicy"], "Condition", "any");
        if let Some(task) = spec["TaskTemplate"].as_object_mut() {
            task.remove("Runtime");
        }
        if let Some(mode) = spec["Mode"].get_mut("Replicated").and_then(Value::as_object_mut) {
            mode.entry("Replicas").or_insert(1.into());
        }
        spec
    }

    fn removals(&mut self, desired: &Desired, prune: bool) {
        let named: BTreeSet<&str> = desired.services.iter().map(|service| service.name.as_str()).collect();
        let mut left = Vec::new();
        for service in &self.observed.services {
            let name = service["Spec"]["Name"].as_str().unwrap_or_default();
            if !named.contains(name) {
                left.push((Kind::Service, name.to_owned(), service["ID"].as_str().unwrap_or_default().to_owned()));
            }
        }
        for network in self.observed.networks.iter().filter(|it| it["Scope"] == "swarm") {
            let name = network["Name"].as_str().unwrap_or_default();
            if is_of(&network["Labels"], &desired.stack) && !desired.networks.contains_key(name) {
                left.push((Kind::Network, name.to_owned(), network["Id"].as_str().unwrap_or_default().to_owned()));
            }
        }
        for (kind, all) in [(Kind::Secret, &self.observed.secrets), (Kind::Config, &self.observed.configs)] {
            for object in all.iter().filter(|object| is_of(&object["Spec"]["Labels"], &desired.stack)) {
                let name = object["Spec"]["Name"].as_str().unwrap_or_default();
                if !self.used.contains(&(kind, name.to_owned())) {
                    left.push((kind, name.to_owned(), object["ID"].as_str().unwrap_or_default().to_owned()));
                }
            }
        }
        // Services first: they use the others.
        left.sort_by_key(|(kind, name, _)| (*kind != Kind::Service, *kind, name.clone()));
        if !prune && !left.is_empty() {
            let names: Vec<String> = left.iter().map(|(kind, name, _)| format!("{} {name}", kind.word())).collect();
            self.plan
                .notes
                .push(format!("not in the file and left as it is (--prune removes it): {}", names.join(", ")));
            return;
        }
        for (kind, name, id) in left {
            self.push(Action::Remove, kind, &name, &id, Vec::new(), Value::Null);
        }
    }
}

/// The labels of a secret or config.
fn labels_of(object: &Value) -> BTreeMap<String, String> {
    let labels = object["Spec"]["Labels"].as_object().into_iter().flatten();
    labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// Lists of files in a container spec, with the member that names a file.
pub(crate) const FILES: [(Kind, &str, &str); 2] =
    [(Kind::Secret, "Secrets", "SecretName"), (Kind::Config, "Configs", "ConfigName")];

/// A name with room for a point and eight digits within the 64 characters of a secret's name.
fn cut(name: &str) -> &str {
    let end = name.char_indices().nth(55).map_or(name.len(), |(end, _)| end);
    &name[..end]
}

fn default(value: &mut Value, key: &str, text: &str) {
    if let Some(map) = value.as_object_mut() {
        let is_empty = map.get(key).is_none_or(|it| it.as_str() == Some(""));
        if is_empty {
            map.insert(key.into(), text.into());
        }
    }
}

/// The members of a network that a file declares, as the target shows them.
fn declared_of(there: &Value, body: &Value) -> Value {
    let mut shown = json!({});
    for key in ["Name", "Driver", "Internal", "Attachable", "EnableIPv6", "Labels"] {
        shown[key] = there[key].clone();
    }
    // The target adds options and addresses of its own.
    if let Some(options) = body.get("Options").and_then(Value::as_object) {
        shown["Options"] = options.keys().map(|key| (key.clone(), there["Options"][key].clone())).collect();
    }
    if body.get("IPAM").is_some_and(|ipam| ipam.get("Config").is_some()) {
        shown["IPAM"] = json!({"Config": there["IPAM"]["Config"]});
        if body["IPAM"].get("Driver").is_some() {
            shown["IPAM"]["Driver"] = there["IPAM"]["Driver"].clone();
        }
    }
    shown
}

/// Keeps the digest that was found for an image when the file still names the same one.
fn keep_digest(old: &Value, new: &mut Value) {
    let wanted = new["Labels"][IMAGE_LABEL].as_str().unwrap_or_default().to_owned();
    let image = new["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned();
    // An image that was looked up has a digest behind its tag.
    let is_same = old["Labels"][IMAGE_LABEL] == wanted.as_str() && (image == wanted || !image.contains('@'));
    if is_same {
        new["TaskTemplate"]["ContainerSpec"]["Image"] = old["TaskTemplate"]["ContainerSpec"]["Image"].clone();
    }
}

/// Keeps the names that a service has from the time before its stack was renamed. They are no reason to start its tasks again,
/// and go when another one is there.
fn keep_names(old: &Value, new: &mut Value) {
    let former = &old["Labels"][FORMER_NAMES_LABEL];
    let before = old["TaskTemplate"]["ContainerSpec"]["Labels"][STACK_LABEL].as_str();
    if let (true, Some(before)) = (former.is_string(), before) {
        new["Labels"][FORMER_NAMES_LABEL] = former.clone();
        relabel(&mut new["TaskTemplate"], before);
    }
}

fn image_field(spec: &Value) -> Vec<Field> {
    let image = spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default();
    vec![Field { name: "Image".into(), old: String::new(), new: image.to_owned() }]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service of the stack `old` that was renamed to `new`, and a file for it.
    fn plan(change: impl FnOnce(&mut Value)) -> Step {
        let spec = |stack: &str| {
            let labels = json!({STACK_LABEL: stack});
            let mount = json!({"Type": "volume", "VolumeOptions": {"Labels": labels}});
            json!({"Name": "new_web", "Labels": {STACK_LABEL: "new"}, "TaskTemplate": {
                "ContainerSpec": {"Image": "i", "Labels": labels, "Mounts": [mount]}}})
        };
        let mut there = json!({"ID": "1", "Spec": spec("old")});
        there["Spec"]["Labels"][FORMER_NAMES_LABEL] = "old_web".into();
        let mut wanted = spec("new");
        change(&mut wanted);
        let service =
            DesiredService { key: "web".into(), name: "new_web".into(), spec: wanted, depends_on: Vec::new() };
        let desired = Desired { stack: "new".into(), services: vec![service], ..Desired::default() };
        let observed = Observed { services: vec![there], ..Observed::default() };
        Plan::of(&desired, &observed, &Sources::new(), true, &mut || [0; 16]).steps.remove(0)
    }

    #[test]
    fn a_renamed_service_keeps_its_old_names_until_its_tasks_are_started_anew() {
        let same = plan(|_| {});
        assert_eq!(same.action, Action::Keep);
        let scaled = plan(|spec| spec["Mode"] = json!({"Replicated": {"Replicas": 3}}));
        assert_eq!((scaled.action, scaled.fields.len()), (Action::Update, 1), "{:?}", scaled.fields);
        let container = &scaled.body["TaskTemplate"]["ContainerSpec"];
        assert_eq!(
            (&container["Labels"][STACK_LABEL], &scaled.body["Labels"][FORMER_NAMES_LABEL]),
            (&json!("old"), &json!("old_web"))
        );
        let rolled = plan(|spec| spec["TaskTemplate"]["ContainerSpec"]["Image"] = "j".into());
        let container = &rolled.body["TaskTemplate"]["ContainerSpec"];
        assert_eq!(container["Labels"][STACK_LABEL], "new");
        assert!(rolled.body["Labels"][FORMER_NAMES_LABEL].is_null());
    }
}
