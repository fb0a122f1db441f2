//! Templates in a service: Go's text/template, with its texts. What a field is called and when a key that is
//! missing is an error is swarm mode's (swarmkit `template/`).

use std::collections::BTreeMap;

use herder_gotemplate::{Lookup, Value};
use herder_model::swarm::{ContainerSpec, Mount, TaskRecord};
use serde_json::Value as Json;

use super::container::{NodeFacts, task_name};
use crate::swarm::{Code, Refusal};

/// Maximum length of one template's result; a config may have somewhat less.
const EXPANDED_BYTES_MAX: usize = 1 << 20;

/// Facts of a task for templates.
#[derive(Clone, Debug)]
pub struct Context {
    root: Value,
}

impl Context {
    /// `labels` are those of the service.
    pub fn of(record: &TaskRecord, labels: &BTreeMap<String, String>, node: &NodeFacts) -> Context {
        let task = &record.task;
        // Where there are no slots, the node stands for one.
        let slot = if task.slot == 0 { task.node_id.clone() } else { task.slot.to_string() };
        Context::new([&task.service_id, &record.service_name], labels, node, [&task.id, &task_name(record), &slot])
    }

    /// Stands for any task when a service is declared, on a node of which nothing is known.
    fn of_any(labels: &BTreeMap<String, String>) -> Context {
        let node = NodeFacts { id: "nodeid".into(), ..NodeFacts::default() };
        Context::new(["serviceid", "servicename"], labels, &node, ["", "taskname", "1"])
    }

    fn new(service: [&str; 2], labels: &BTreeMap<String, String>, node: &NodeFacts, task: [&str; 3]) -> Context {
        let text = |text: &str| Value::Text(text.to_owned());
        let platform = vec![("Architecture", text(&node.architecture)), ("OS", text(&node.os))];
        let service = Value::structure(
            "struct { ID string; Name string; Labels map[string]string }",
            vec![("ID", text(service[0])), ("Name", text(service[1])), ("Labels", Value::text_map(labels.clone()))],
        );
        let node = Value::structure(
            "struct { ID string; Hostname string; Platform template.Platform }",
            vec![
                ("ID", text(&node.id)),
                ("Hostname", text(&node.hostname)),
                ("Platform", Value::structure("template.Platform", platform)),
            ],
        );
        let task = Value::structure(
            "struct { ID string; Name string; Slot string }",
            vec![("ID", text(task[0])), ("Name", text(task[1])), ("Slot", text(task[2]))],
        );
        let root = vec![("Service", service), ("Node", node), ("Task", task)];
        Context { root: Value::structure("*template.Context", root) }
    }

    /// Expands a text of a service: a host name, a value of a variable, a place of a mount.
    pub fn expand(&self, text: &str) -> Result<String, String> {
        self.run(text, &[], &|_, _| Ok(String::new()))
    }

    /// Expands a secret or config. In it, `secret`, `config` and `env` look up the task's objects by name.
    pub(super) fn expand_payload(&self, text: &str, lookup: Lookup<'_>) -> Result<String, String> {
        self.run(text, &["config", "env", "secret"], lookup)
    }

    fn run(&self, text: &str, more: &[&str], lookup: Lookup<'_>) -> Result<String, String> {
        // By far the most common.
        if !text.contains("{{") {
            return Ok(text.to_owned());
        }
        herder_gotemplate::expand(text, more, &self.root, lookup, EXPANDED_BYTES_MAX)
    }

    /// The container with its templates expanded.
    pub fn container(&self, spec: &ContainerSpec) -> Result<ContainerSpec, String> {
        let mut spec = spec.clone();
        for entry in &mut spec.env {
            let Some((name, value)) = entry.split_once('=') else { continue };
            let value = self.expand(value);
            let value = value.map_err(|why| format!("expanding env failed: expanding env {entry:?}: {why}"))?;
            *entry = format!("{name}={value}");
        }
        for mount in &mut spec.mounts {
            self.mount(mount).map_err(|why| format!("expanding mounts failed: {why}"))?;
        }
        spec.hostname = self.expand(&spec.hostname).map_err(|why| format!("expanding hostname failed: {why}"))?;
        Ok(spec)
    }

    fn mount(&self, mount: &mut Mount) -> Result<(), String> {
        let place =
            |what: &str, text: &str| self.expand(text).map_err(|why| format!("expanding mount {what} {text:?}: {why}"));
        (mount.source, mount.target) = (place("source", &mount.source)?, place("target", &mount.target)?);
        let Some(options) = &mut mount.volume_options else { return Ok(()) };
        let labels = self.entries(options.get_mut("Labels"));
        labels.map_err(|why| format!("expanding volume labels: {why}"))?;
        let driver = self.entries(options.pointer_mut("/DriverConfig/Options"));
        driver.map_err(|why| format!("expanding volume driver config: {why}"))
    }

    fn entries(&self, entries: Option<&mut Json>) -> Result<(), String> {
        for (key, value) in entries.and_then(Json::as_object_mut).into_iter().flatten() {
            let Some(text) = value.as_str() else { continue };
            let expanded = self.expand(text);
            *value = expanded.map_err(|why| format!("expanding map entry {key:?}={text:?}: {why}"))?.into();
        }
        Ok(())
    }
}

/// Checks the templates of a container before there is any task. `labels` are those of the service; swarm mode passes
/// none here and refuses what it could expand later.
pub fn check_templates(spec: &ContainerSpec, labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let expanded = Context::of_any(labels).container(spec);
    expanded.map(drop).map_err(|text| Refusal::new(Code::InvalidArgument, text))
}

#[cfg(test)]
mod tests;
