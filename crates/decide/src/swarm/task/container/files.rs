//! Secrets and configs of a task as files.

use std::fmt;

use base64::Engine as _;
use herder_model::swarm::{Assignments, ContainerSpec, Driver, FileTarget, TaskRecord};

use super::{NodeFacts, facts};
use crate::swarm::task::template::Context;

/// Folder of secrets without one of their own.
const SECRETS_FOLDER: &str = "/run/secrets/";

/// A file that the node makes for a task, in memory, and that the container sees.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Path in the container.
    pub target: String,
    pub data: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl fmt::Debug for File {
    /// The data stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("target", &self.target).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// The files of a task, templates expanded. An error is told as the task's.
pub fn files(record: &TaskRecord, told: &Assignments, node: &NodeFacts) -> Result<Vec<File>, String> {
    let spec = record.task.spec.container_spec.as_ref().ok_or("the task has no container to run")?;
    let maker = Maker { spec, told, context: Context::of(record, &facts(record, told).labels, node) };
    let secrets = spec.secrets.iter().map(|it| {
        let payload = Payload { kind: "secret", id: &it.secret_id, name: &it.secret_name };
        it.file.as_ref().map(|file| maker.file(payload, file, SECRETS_FOLDER))
    });
    // One without a file is for the runtime.
    let configs = spec.configs.iter().map(|it| {
        let payload = Payload { kind: "config", id: &it.config_id, name: &it.config_name };
        it.file.as_ref().map(|file| maker.file(payload, file, "/"))
    });
    secrets.chain(configs).flatten().collect()
}

#[derive(Clone, Copy)]
struct Payload<'p> {
    /// `secret`, `config`.
    kind: &'static str,
    id: &'p str,
    name: &'p str,
}

struct Maker<'m> {
    spec: &'m ContainerSpec,
    told: &'m Assignments,
    context: Context,
}

impl Maker<'_> {
    fn file(&self, payload: Payload<'_>, file: &FileTarget, folder: &str) -> Result<File, String> {
        let number = |what: &str, text: &str| match text {
            "" => Ok(0),
            text => text
                .parse::<u32>()
                .map_err(|_| format!("the {what} {text:?} of {} {} must be a number", payload.kind, payload.name)),
        };
        let target = if file.name.starts_with('/') { file.name.clone() } else { format!("{folder}{}", file.name) };
        let (uid, gid) = (number("UID", &file.uid)?, number("GID", &file.gid)?);
        Ok(File { target, data: self.expanded(payload)?, mode: file.mode & 0o7777, uid, gid })
    }

    fn expanded(&self, payload: Payload<'_>) -> Result<Vec<u8>, String> {
        let (data, templating) = self.raw(payload)?;
        let Some(templating) = templating else { return Ok(data) };
        let refused = |why: String| format!("failed to expand templated {} {}: {why}", payload.kind, payload.id);
        if templating.name != "golang" {
            return Err(refused("unrecognized template type".into()));
        }
        let text = String::from_utf8(data).map_err(|_| refused("the template is no text".into()))?;
        let lookup = |function: &str, argument: &str| self.lookup(function, argument);
        self.context.expand_payload(&text, &lookup).map(String::into_bytes).map_err(refused)
    }

    /// Looks up a value for a template: other secrets and configs of the task by their targets, and its variables.
    fn lookup(&self, function: &str, argument: &str) -> Result<String, String> {
        let is_target = |file: &Option<FileTarget>| file.as_ref().is_some_and(|file| file.name == argument);
        let payload = match function {
            "env" => {
                let mut pairs = self.spec.env.iter().filter_map(|entry| entry.split_once('='));
                return Ok(pairs.find(|(name, _)| *name == argument).map_or("", |(_, value)| value).to_owned());
            }
            "secret" => {
                let it = self.spec.secrets.iter().find(|it| is_target(&it.file));
                it.map(|it| Payload { kind: "secret", id: &it.secret_id, name: &it.secret_name })
            }
            _ => {
                let it = self.spec.configs.iter().find(|it| is_target(&it.file));
                it.map(|it| Payload { kind: "config", id: &it.config_id, name: &it.config_name })
            }
        };
        let payload = payload.ok_or_else(|| format!("{function} target {argument} not found"))?;
        String::from_utf8(self.raw(payload)?.0).map_err(|_| format!("{} {} is no text", payload.kind, payload.name))
    }

    /// The data as it was declared.
    fn raw(&self, payload: Payload<'_>) -> Result<(Vec<u8>, Option<&Driver>), String> {
        let found = if payload.kind == "secret" {
            let secret = self.told.secrets.iter().find(|it| it.id == payload.id);
            secret.map(|it| (&it.spec.data, it.spec.templating.as_ref()))
        } else {
            let config = self.told.configs.iter().find(|it| it.id == payload.id);
            config.map(|it| (&it.spec.data, it.spec.templating.as_ref()))
        };
        let (data, templating) = found.ok_or_else(|| format!("{} {} not found", payload.kind, payload.name))?;
        let data = base64::engine::general_purpose::STANDARD.decode(data);
        let data = data.map_err(|error| format!("{} {} is damaged: {error}", payload.kind, payload.name))?;
        Ok((data, templating))
    }
}
