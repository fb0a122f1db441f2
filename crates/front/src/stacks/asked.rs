//! Requests of the stack API as they are read.

mod forms;

use std::collections::BTreeMap;
use std::time::Duration;

use herder_stacks::{Bundle, DeployOptions, File, Loaded};
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::problem::Problem;
use super::v2::{Answered, author, ok};
use crate::{Call, guard, swarm};

pub(crate) use forms::read_any;

/// Bytes of a request at most: a bundle of files with the escapes of JSON.
const BODY_BYTES_MAX: usize = 16 << 20;
/// A client may wait as long for the end of an operation within one request.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(600);

/// The parts of a request that its operation goes by.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) by: String,
    /// The id of the operation by the request's `Idempotency-Key`.
    pub(crate) key: Option<String>,
    /// The time that the client waits for the end (`Prefer: wait=120`).
    pub(crate) wait: Duration,
    /// True if the operation may wait behind others on the same stack (`?queue=false`).
    pub(crate) may_queue: bool,
}

impl Asker {
    pub(crate) fn of(call: &Call) -> Asker {
        let prefer = call.parts.headers.get("prefer").and_then(|it| it.to_str().ok()).unwrap_or_default();
        let wait = prefer.split(',').find_map(|it| it.trim().strip_prefix("wait=")?.parse().ok()).unwrap_or(0);
        let may_queue = call.query.get("queue").is_none() || call.query.flag("queue");
        Asker { by: author(call), key: key_of(call), wait: Duration::from_secs(wait).min(WAIT_MAX), may_queue }
    }
}

/// The body of a request as what is wanted.
pub(crate) async fn read<T: DeserializeOwned>(call: &mut Call) -> Result<T, Problem> {
    let bytes = call.bytes(BODY_BYTES_MAX).await?;
    guard::is_json(&call.parts.headers, bytes.is_empty())?;
    parse(if bytes.is_empty() { b"{}" } else { &bytes })
}

/// A document as what is wanted.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner();
        Problem::bad_request(if path == "." { reason.to_string() } else { format!("{path}: {reason}") })
    })
}

/// One text, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Default for Texts {
    fn default() -> Texts {
        Texts::Many(Vec::new())
    }
}

impl From<Texts> for Vec<String> {
    fn from(texts: Texts) -> Vec<String> {
        match texts {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        }
    }
}

/// A request to deploy, plan or check files.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Asked {
    pub(crate) name: Option<String>,
    files: BTreeMap<String, Option<File>>,
    main: Texts,
    directory: String,
    environment: BTreeMap<String, Value>,
    env_files: Option<Texts>,
    profiles: Texts,
    pub(crate) options: AskedOptions,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AskedOptions {
    prune: Option<bool>,
    /// Seconds.
    timeout: Option<u64>,
    keep: Option<bool>,
    resolve: Option<String>,
    /// Ends the operation under way first.
    pub(crate) supersede: bool,
}

impl AskedOptions {
    pub(crate) fn read(&self) -> Result<DeployOptions, Problem> {
        let default = DeployOptions::default();
        let resolve = self.resolve.clone().unwrap_or(default.resolve);
        if !["always", "changed", "never"].contains(&resolve.as_str()) {
            return Err(Problem::bad_request(format!("options.resolve: `{resolve}` is not always, changed or never")));
        }
        Ok(DeployOptions {
            prune: self.prune.unwrap_or(default.prune),
            timeout_seconds: self.timeout.unwrap_or(default.timeout_seconds).clamp(1, 24 * 3600),
            keep: self.keep.unwrap_or(default.keep),
            resolve,
        })
    }
}

impl Asked {
    pub(crate) fn bundle(&self) -> Result<Bundle, Problem> {
        let text = |(name, value): (&String, &Value)| {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(is) => is.to_string(),
                _ => return Err(Problem::bad_request(format!("environment.{name} is no text"))),
            };
            Ok((name.clone(), value))
        };
        Ok(Bundle {
            files: self.files.clone(),
            main: self.main.clone().into(),
            directory: self.directory.clone(),
            environment: self.environment.iter().map(text).collect::<Result<_, Problem>>()?,
            env_files: self.env_files.clone().map(Into::into),
            profiles: self.profiles.clone().into(),
        })
    }
}

/// Loads a bundle on a thread that may be busy for a moment.
pub(crate) async fn load(bundle: &Bundle, name: Option<&str>) -> Result<Loaded, Problem> {
    let (bundle, name) = (bundle.clone(), name.map(str::to_owned));
    let loaded = tokio::task::spawn_blocking(move || bundle.load(name.as_deref())).await;
    let broken = |error: tokio::task::JoinError| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", format!("the files could not be loaded: {error}"))
    };
    Ok(loaded.map_err(broken)??)
}

/// The id that an operation has by its `Idempotency-Key`: the same key finds the same operation.
fn key_of(call: &Call) -> Option<String> {
    let key = call.parts.headers.get("idempotency-key")?.to_str().ok()?;
    let text = format!("{} {} {key}", call.parts.method, call.path);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let number = digest.as_ref().iter().take(16).fold(0_u128, |all, byte| (all << 8) | u128::from(*byte));
    Some(swarm::id_of(number))
}

/// `POST /v2/compose/check`: the faults of files, with places.
pub(crate) async fn check(mut call: Call) -> Answered {
    let asked = read_any(&mut call).await?;
    match load(&asked.bundle()?, asked.name.as_deref()).await {
        Ok(loaded) => ok(&json!({"ok": true, "name": loaded.name, "diagnostics": loaded.notes})),
        Err(problem) if problem.code == "invalid_compose_file" => {
            ok(&json!({"ok": false, "diagnostics": problem.more.get("errors")}))
        }
        Err(problem) => Err(problem),
    }
}

/// `POST /v2/compose/config`: the canonical file.
pub(crate) async fn config(mut call: Call) -> Answered {
    let asked = read_any(&mut call).await?;
    let loaded = load(&asked.bundle()?, asked.name.as_deref()).await?;
    ok(&json!({"config": loaded.canonical, "yaml": loaded.canonical_yaml, "diagnostics": loaded.notes}))
}

/// `POST /v2/compose/variables`: the variables that files read.
pub(crate) async fn variables(mut call: Call) -> Answered {
    let asked = read_any(&mut call).await?;
    let loaded = load(&asked.bundle()?, asked.name.as_deref()).await?;
    ok(&json!({"items": loaded.variables}))
}
