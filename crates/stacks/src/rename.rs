//! Renames a stack of this cluster in one write: its services and records get the name, its tasks go on. Pure.
//!
//! Networks, volumes, secrets and configs keep their names, which the stack's record pins: nobody can rename a network or a
//! volume, and tasks refer to secrets and configs by name.

use std::collections::{BTreeMap, BTreeSet};

use herder_compose::{FORMER_NAMES_LABEL, Pins, STACK_LABEL};
use herder_model::swarm::{Change, Config, Kind, NetworkRecord, Resource, Secret, ServiceRecord, ServiceSpec, View};
use serde::Serialize;
use serde_json::Value;

use crate::begin::{Refused, check_level, names_are_free};
use crate::bundle::check_name;
use crate::queue::line;
use crate::record::{Found, Revision, Stack, StackState, find, kinds, record_name, revisions, stacks};
use crate::target::OWN;

/// Bytes of all changes at most: they are one command of the managers' log.
const BYTES_MAX: usize = 3 << 20;
/// Characters of a service's name at most: it is a DNS label.
const SERVICE_NAME_MAX: usize = 63;

/// A rename that is done once the changes are written.
#[derive(Debug)]
pub struct Renamed {
    pub changes: Vec<Change>,
    /// Objects that keep their names.
    pub pins: Pins,
    /// Old revisions for which there is no room in one write; they are removed.
    pub dropped: Vec<u64>,
}

type Labels = Option<BTreeMap<String, String>>;

fn is_of(labels: &Labels, stack: &str) -> bool {
    labels.as_ref().and_then(|labels| labels.get(STACK_LABEL)).is_some_and(|it| it == stack)
}

fn relabel(labels: &mut Labels, stack: &str) {
    labels.get_or_insert_default().insert(STACK_LABEL.into(), stack.into());
}

/// All objects of a stack in the swarm's state.
struct Objects<'v> {
    services: Vec<&'v ServiceRecord>,
    networks: Vec<&'v NetworkRecord>,
    secrets: Vec<&'v Secret>,
    configs: Vec<&'v Config>,
}

impl<'v> Objects<'v> {
    fn of(view: &'v View, stack: &str) -> Objects<'v> {
        let services = view.services.values().map(AsRef::as_ref);
        let networks = view.networks.values().map(AsRef::as_ref);
        let secrets = view.secrets.values().map(AsRef::as_ref);
        let configs = view.configs.values().map(AsRef::as_ref);
        Objects {
            services: services.filter(|it: &&ServiceRecord| is_of(&it.service.spec.labels, stack)).collect(),
            networks: networks.filter(|it: &&NetworkRecord| is_of(&it.spec.labels, stack)).collect(),
            secrets: secrets.filter(|it: &&Secret| is_of(&it.spec.labels, stack)).collect(),
            configs: configs.filter(|it: &&Config| is_of(&it.spec.labels, stack)).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.services.is_empty() && self.networks.is_empty() && self.secrets.is_empty() && self.configs.is_empty()
    }
}

/// Gives a stack another name. `id` is that of its record, where Docker's own client made it.
pub fn rename(view: &View, old: &str, new: &str, by: &str, id: String) -> Result<Renamed, Refused> {
    check_level(view)?;
    check_name(new).map_err(|error| Refused::Wrong(error.to_string()))?;
    if old == new {
        return Err(Refused::Wrong(format!("the stack has the name {new} already")));
    }
    let kinds = kinds().ok_or_else(|| Refused::Wrong("this node knows too many kinds of objects".into()))?;
    let found = stacks(view, OWN).into_iter().find(|it| it.record.stack == old);
    let objects = Objects::of(view, old);
    if found.is_none() && objects.is_empty() {
        return Err(Refused::NoStack(old.to_owned()));
    }
    for stack in [old, new] {
        if let Some(present) = line(view, OWN, stack).into_iter().next() {
            return Err(Refused::Busy { stack: stack.to_owned(), operation: present.id });
        }
    }
    let names = service_names(view, &objects, old, new)?;
    let taken = stacks(view, OWN).into_iter().find(|it| it.record.stack.eq_ignore_ascii_case(new));
    let is_other = taken.is_some_and(|it| it.record.stack != old);
    if is_other || !Objects::of(view, new).is_empty() {
        return Err(Refused::Wrong(format!("there is a stack {new} already: choose another name, or remove it first")));
    }
    names_are_free(view, OWN, new, old)?;
    let kept = revisions(view, OWN, old);
    let (id, version, mut record) = match found {
        Some(it) => (it.id, it.version, it.record),
        None => (id, 0, Stack { target: OWN.into(), state: StackState::Active, ..Stack::default() }),
    };
    record.pins = pins(&record.pins, &objects, &kept, old, new);
    new.clone_into(&mut record.stack);
    by.clone_into(&mut record.by);
    let pins = record.pins.clone();
    let present = record.revision;

    let mut changes = renamed_objects(&objects, &names, new);
    let stored = find::<Stack>(view, kinds.stack, &id).and_then(|_| view.resources.get(&kinds.stack)?.get(&id));
    let mut resource = match stored {
        Some(stored) => Resource::clone(stored),
        None => Resource::new(kinds.stack, &id, "", &record)?,
    };
    resource.set(&record)?;
    resource.name = record_name(OWN, new);
    resource.meta.version.index = version;
    changes.push(resource.into());
    let mut bytes: usize = changes.iter().map(size).sum();
    let mut dropped = Vec::new();
    // The present one first: the newer a revision is, the sooner somebody wants it back.
    let (first, others): (Vec<_>, Vec<_>) = kept.into_iter().partition(|it| it.record.number == present);
    for revision in first.into_iter().chain(others) {
        let number = revision.record.number;
        let Some(stored) = view.resources.get(&kinds.revision).and_then(|table| table.get(&revision.id)) else {
            continue;
        };
        let mut resource = Resource::clone(stored);
        resource.set(&Revision { stack: new.to_owned(), ..revision.record })?;
        resource.name = format!("{}/{number}", record_name(OWN, new));
        let change = Change::from(resource);
        let more = size(&change);
        if bytes + more > BYTES_MAX && number != present {
            dropped.push(number);
            changes.push(Change::Remove(Kind::Resource(kinds.revision), revision.id));
            continue;
        }
        bytes += more;
        changes.push(change);
    }
    if bytes > BYTES_MAX {
        return Err(Refused::Wrong(format!(
            "the objects of stack {old} have {bytes} bytes, more than one write may have ({BYTES_MAX}): deploy its files as \
             {new}, then remove {old}"
        )));
    }
    Ok(Renamed { changes, pins, dropped })
}

/// The new names of services, by id. Refused with all that stands against them.
fn service_names(
    view: &View,
    objects: &Objects<'_>,
    old: &str,
    new: &str,
) -> Result<BTreeMap<String, String>, Refused> {
    let (mut names, mut reasons) = (BTreeMap::new(), Vec::new());
    for record in &objects.services {
        let name = &record.service.spec.name;
        let Some(key) = name.strip_prefix(&format!("{old}_")) else { continue };
        let wanted = format!("{new}_{key}");
        if wanted.len() > SERVICE_NAME_MAX {
            reasons.push(format!(
                "service {wanted} would have more than {SERVICE_NAME_MAX} characters: choose a shorter name"
            ));
        } else if view.named(Kind::Service, &wanted).is_some() {
            reasons.push(format!("service {wanted} exists already: choose another name, or remove that service"));
        }
        names.insert(record.service.id.clone(), wanted);
    }
    if reasons.is_empty() { Ok(names) } else { Err(Refused::Wrong(reasons.join("; "))) }
}

fn renamed_objects(objects: &Objects<'_>, names: &BTreeMap<String, String>, new: &str) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for record in &objects.services {
        let mut record = ServiceRecord::clone(record);
        let service = &mut record.service;
        let former = service.spec.name.clone();
        let name = names.get(&service.id).unwrap_or(&former).clone();
        for spec in [Some(&mut service.spec), service.previous_spec.as_mut()].into_iter().flatten() {
            rename_service(spec, &name, &former, new);
        }
        changes.push(record.into());
    }
    for record in &objects.networks {
        let mut record = NetworkRecord::clone(record);
        relabel(&mut record.spec.labels, new);
        changes.push(record.into());
    }
    for object in &objects.secrets {
        let mut object = Secret::clone(object);
        relabel(&mut object.spec.labels, new);
        changes.push(object.into());
    }
    for object in &objects.configs {
        let mut object = Config::clone(object);
        relabel(&mut object.spec.labels, new);
        changes.push(object.into());
    }
    changes
}

/// Tasks are not started anew: what a container has of the old name stays as it is.
fn rename_service(spec: &mut ServiceSpec, name: &str, former: &str, stack: &str) {
    name.clone_into(&mut spec.name);
    relabel(&mut spec.labels, stack);
    let labels = spec.labels.get_or_insert_default();
    let all = labels.get(FORMER_NAMES_LABEL).map(String::as_str).unwrap_or_default();
    let all: BTreeSet<&str> = all.split(',').chain([former]).filter(|it| !it.is_empty() && *it != name).collect();
    let all: Vec<&str> = all.into_iter().collect();
    labels.insert(FORMER_NAMES_LABEL.into(), all.join(","));
}

/// The names that objects keep, by their keys in the files.
fn pins(before: &Pins, objects: &Objects<'_>, kept: &[Found<Revision>], old: &str, new: &str) -> Pins {
    let prefix = format!("{old}_");
    let mut pins = before.clone();
    let mut pin = |section: &str, name: &str| {
        if let Some(key) = name.strip_prefix(&prefix) {
            pins.entry(section.to_owned()).or_default().insert(key.to_owned(), name.to_owned());
        }
    };
    objects.networks.iter().for_each(|it| pin("networks", &it.name));
    objects.secrets.iter().for_each(|it| pin("secrets", without_digest(&it.spec.name)));
    objects.configs.iter().for_each(|it| pin("configs", without_digest(&it.spec.name)));
    // Nodes have volumes that no service uses any more; going back must find them.
    let mut specs: Vec<Value> =
        objects.services.iter().filter_map(|it| serde_json::to_value(&it.service.spec).ok()).collect();
    for loaded in kept.iter().filter_map(|it| it.record.bundle.load(Some(old)).ok()) {
        let mut desired = loaded.desired;
        desired.pin(before);
        specs.extend(desired.services.into_iter().map(|it| it.spec));
    }
    specs.iter().flat_map(volumes).for_each(|name| pin("volumes", name));
    for names in pins.values_mut() {
        // Renamed back.
        names.retain(|key, name| *name != format!("{new}_{key}"));
    }
    pins.retain(|_, names| !names.is_empty());
    pins
}

/// The volumes of a service spec and of its hooks.
fn volumes(spec: &Value) -> Vec<&str> {
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    let hooks = container["Herder"]["Hooks"].as_object().into_iter().flat_map(|all| all.values());
    let hooks = hooks.filter_map(Value::as_array).flatten();
    let lists = hooks.map(|hook| &hook["Mounts"]).chain([&container["Mounts"]]);
    let mounts = lists.filter_map(Value::as_array).flatten().filter(|mount| mount["Type"] == "volume");
    mounts.filter_map(|mount| mount["Source"].as_str()).collect()
}

/// The name of a secret or config without the digest that another content has behind it.
fn without_digest(name: &str) -> &str {
    let is_digest = |text: &str| text.len() == 8 && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    name.rsplit_once('.').filter(|(_, digest)| is_digest(digest)).map_or(name, |(name, _)| name)
}

/// Bytes of a change in the managers' log.
fn size(change: &impl Serialize) -> usize {
    serde_json::to_vec(change).map_or(usize::MAX / 2, |bytes| bytes.len())
}

#[cfg(test)]
mod tests;
