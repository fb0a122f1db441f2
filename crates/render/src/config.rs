//! Configuration: template specifications, files of consul-template, resources of confd. Pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::child::{Exec, signal};
use crate::cycle::{Wait, duration};
use crate::hcl;
use crate::render::Dialect;

/// A command runs at most this long, where nothing else is said.
pub const COMMAND_TIME: Duration = Duration::from_secs(30);

/// A command: a text for `sh -c`, or a program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    Shell(String),
    Program(Vec<String>),
}

/// The place of a template's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    Text(String),
}

/// One file that is rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub dialect: Dialect,
    pub source: Source,
    pub destination: PathBuf,
    pub create_dest_dirs: bool,
    pub command: Option<Order>,
    pub command_timeout: Duration,
    /// Must succeed over the staged file before it is used; `{{.src}}` is its path.
    pub check: Option<String>,
    pub perms: Option<u32>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub backup: bool,
    pub left: String,
    pub right: String,
    pub wait: Option<Wait>,
    pub error_on_missing_key: bool,
    pub allow_empty: bool,
    /// Keys of confd, and the prefix that is removed from them.
    pub keys: Vec<String>,
    pub prefix: String,
}

impl Job {
    fn new(dialect: Dialect, source: Source, destination: PathBuf) -> Job {
        Job {
            dialect,
            source,
            destination,
            create_dest_dirs: dialect == Dialect::ConsulTemplate,
            command: None,
            command_timeout: COMMAND_TIME,
            check: None,
            perms: None,
            user: None,
            group: None,
            backup: false,
            left: "{{".into(),
            right: "}}".into(),
            wait: None,
            error_on_missing_key: false,
            allow_empty: false,
            keys: Vec::new(),
            prefix: String::new(),
        }
    }

    /// The name of the template in errors.
    pub fn name(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Text(_) => format!("(contents of {})", self.destination.display()),
        }
    }
}

/// `source:destination[:command]`; further colons belong to the command.
///
/// # Errors
/// Says that a part is missing.
pub fn spec(text: &str) -> Result<Job, String> {
    let mut parts = text.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(source), Some(destination), command) if !source.is_empty() && !destination.is_empty() => {
            let mut job = Job::new(Dialect::ConsulTemplate, Source::File(source.into()), destination.into());
            job.command = command.filter(|command| !command.trim().is_empty()).map(|it| Order::Shell(it.to_owned()));
            Ok(job)
        }
        _ => Err(format!("`{text}` is no template; write SOURCE:DESTINATION or SOURCE:DESTINATION:COMMAND")),
    }
}

/// The parts of a consul-template configuration file that are understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    pub jobs: Vec<Job>,
    pub wait: Option<Wait>,
    /// `consul { address }`.
    pub consul: Option<String>,
    pub token: Option<String>,
    /// `exec`: a program that runs while files are rendered.
    pub exec: Option<Exec>,
    /// Keys without a meaning here.
    pub ignored: Vec<String>,
}

/// Reads a configuration file by its ending: `.toml`, `.json`, else HCL.
///
/// # Errors
/// Says what of it is not understood.
pub fn file(path: &Path, text: &str) -> Result<File, String> {
    let told = |why: String| format!("{}: {why}", path.display());
    let value = match path.extension().and_then(|kind| kind.to_str()) {
        Some("toml") => toml_value(text),
        Some("json") => serde_json::from_str(text).map_err(|error| error.to_string()),
        _ => hcl::parse(text),
    };
    let value = value.map_err(told)?;
    let mut found = File::default();
    for (key, value) in value.as_object().into_iter().flatten() {
        match key.as_str() {
            "template" => {
                let blocks = match value {
                    Value::Array(blocks) => blocks.iter().collect(),
                    one => vec![one],
                };
                for block in blocks {
                    found.jobs.push(template(block).map_err(told)?);
                }
            }
            "wait" => found.wait = wait(value).map_err(told)?,
            "consul" if value.is_string() => found.consul = value.as_str().map(str::to_owned),
            "consul" => {
                found.consul = value["address"].as_str().map(str::to_owned);
                found.token = value["token"].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
            }
            "exec" => found.exec = exec(value).map_err(told)?,
            "vault" => return Err(told(format!("`{key}` is not built in; take the block out"))),
            other => found.ignored.push(other.to_owned()),
        }
    }
    Ok(found)
}

fn exec(value: &Value) -> Result<Option<Exec>, String> {
    if value["enabled"] == false {
        return Ok(None);
    }
    let words = value["command"].as_array().map(|it| it.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    let command = value["command"].as_str().map(str::to_owned).or(words).filter(|it| !it.trim().is_empty());
    let mut exec = Exec::new(&command.ok_or("exec has no command")?);
    exec.reload = value["reload_signal"].as_str().filter(|it| !it.is_empty()).map(signal).transpose()?;
    exec.kill = value["kill_signal"].as_str().filter(|it| !it.is_empty()).map_or(Ok(exec.kill), signal)?;
    exec.kill_timeout = value["kill_timeout"].as_str().map_or(Ok(exec.kill_timeout), duration)?;
    let known = ["enabled", "command", "reload_signal", "kill_signal", "kill_timeout"];
    match value.as_object().into_iter().flatten().find(|(key, _)| !known.contains(&key.as_str())) {
        Some((key, _)) => Err(format!("exec: `{key}` is not built in; take it out")),
        None => Ok(Some(exec)),
    }
}

fn wait(value: &Value) -> Result<Option<Wait>, String> {
    if let Some(text) = value.as_str() {
        return Wait::parse(text).map(Some);
    }
    if value["enabled"] == false {
        return Ok(None);
    }
    let part = |key: &str| value[key].as_str().map(duration).transpose();
    let min = part("min")?.ok_or("wait has no min")?;
    Ok(Some(Wait { min, max: part("max")?.unwrap_or(min * 4) }))
}

struct Block<'b> {
    map: &'b Map<String, Value>,
}

impl Block<'_> {
    fn text(&self, key: &str) -> Result<Option<String>, String> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(format!("template: `{key}` must be a text, not {other}")),
        }
    }

    fn switch(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.map.get(key) {
            None => Ok(default),
            Some(Value::Bool(bool)) => Ok(*bool),
            Some(other) => Err(format!("template: `{key}` must be true or false, not {other}")),
        }
    }
}

/// `0644` as a text is octal, and a number is what HCL made of it.
fn mode(value: &Value) -> Result<u32, String> {
    let octal = |text: &str| u32::from_str_radix(text.trim_start_matches("0o"), 8).ok();
    let mode = match value {
        Value::String(text) => octal(text),
        Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        _ => None,
    };
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| format!("template: {value} is no mode of a file; write \"0644\""))
}

const TEMPLATE_KEYS: &[&str] = &[
    "source",
    "contents",
    "destination",
    "create_dest_dirs",
    "command",
    "exec",
    "command_timeout",
    "check",
    "perms",
    "user",
    "group",
    "uid",
    "gid",
    "backup",
    "left_delimiter",
    "right_delimiter",
    "wait",
    "error_on_missing_key",
    "error_fatal",
    "allow_empty",
];

fn template(value: &Value) -> Result<Job, String> {
    let map = value.as_object().ok_or("template must be a block")?;
    if let Some(unknown) = map.keys().find(|key| !TEMPLATE_KEYS.contains(&key.as_str())) {
        return Err(format!("template: `{unknown}` is not known; there are {}", TEMPLATE_KEYS.join(", ")));
    }
    let block = Block { map };
    let source = match (block.text("source")?, block.text("contents")?) {
        (Some(path), None) => Source::File(path.into()),
        (None, Some(text)) => Source::Text(text),
        _ => return Err("template: give either `source` or `contents`".to_owned()),
    };
    let destination = block.text("destination")?.ok_or("template: `destination` is missing")?;
    let mut job = Job::new(Dialect::ConsulTemplate, source, destination.into());
    job.create_dest_dirs = block.switch("create_dest_dirs", true)?;
    let order = |value: &Value| match value {
        Value::String(text) => Ok(Order::Shell(text.clone())),
        Value::Array(words) => {
            let words: Option<Vec<String>> = words.iter().map(|word| word.as_str().map(str::to_owned)).collect();
            words.filter(|words| !words.is_empty()).map(Order::Program).ok_or("a command is a list of texts".to_owned())
        }
        other => Err(format!("a command is a text or a list, not {other}")),
    };
    let command = map.get("command").or_else(|| map.get("exec")?.get("command"));
    job.command = command.map(order).transpose()?;
    if let Some(text) = block.text("command_timeout")? {
        job.command_timeout = duration(&text)?;
    }
    job.check = block.text("check")?;
    job.perms = map.get("perms").map(mode).transpose()?;
    job.user = block.text("user")?.or_else(|| map.get("uid").map(Value::to_string));
    job.group = block.text("group")?.or_else(|| map.get("gid").map(Value::to_string));
    job.backup = block.switch("backup", false)?;
    job.left = block.text("left_delimiter")?.filter(|it| !it.is_empty()).unwrap_or(job.left);
    job.right = block.text("right_delimiter")?.filter(|it| !it.is_empty()).unwrap_or(job.right);
    job.wait = map.get("wait").map(wait).transpose()?.flatten();
    job.error_on_missing_key = block.switch("error_on_missing_key", false)?;
    job.allow_empty = block.switch("allow_empty", false)?;
    Ok(job)
}

/// Reads a resource of confd (`conf.d/*.toml`). Templates are in the folder `templates`; `prefix` of the command line wins.
///
/// # Errors
/// Says what of it is not understood.
pub fn confd(path: &Path, text: &str, templates: &Path, prefix: &str) -> Result<Job, String> {
    let told = |why: String| format!("{}: {why}", path.display());
    let value = toml_value(text).map_err(told)?;
    let map = value["template"].as_object().ok_or_else(|| told("there is no [template]".into()))?;
    let known = ["src", "dest", "keys", "prefix", "mode", "uid", "gid", "owner", "group", "check_cmd", "reload_cmd"];
    if let Some(unknown) = map.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(told(format!("`{unknown}` is not known; there are {}", known.join(", "))));
    }
    let block = Block { map };
    let text = |key: &str| block.text(key).map_err(told);
    let needed = |key: &str| text(key)?.ok_or_else(|| told(format!("`{key}` is missing")));
    let mut job = Job::new(Dialect::Confd, Source::File(templates.join(needed("src")?)), needed("dest")?.into());
    let keys = map.get("keys").and_then(Value::as_array).ok_or_else(|| told("`keys` is missing".into()))?;
    job.keys = keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect();
    job.prefix = if prefix.is_empty() { text("prefix")?.unwrap_or_default() } else { prefix.to_owned() };
    job.perms = map.get("mode").map(mode).transpose().map_err(told)?;
    let id = |key: &str| map.get(key).and_then(Value::as_i64).filter(|id| *id >= 0).map(|id| id.to_string());
    job.user = id("uid").or(text("owner")?);
    job.group = id("gid").or(text("group")?);
    job.check = text("check_cmd")?;
    job.command = text("reload_cmd")?.map(Order::Shell);
    job.error_on_missing_key = false;
    Ok(job)
}

fn toml_value(text: &str) -> Result<Value, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}
