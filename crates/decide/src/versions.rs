//! Versions of the Docker API: which are served, in which one an engine is asked, and what old clients miss in new answers.

use std::fmt;

use serde_json::{Value, json};

/// A version of the Docker API, such as `1.41`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

/// The oldest version that is served; older clients are of before 2016.
pub const OLDEST: Version = Version { major: 1, minor: 24 };
/// The newest version that is served.
pub const NEWEST: Version = Version { major: 1, minor: 50 };

/// Why a version is refused. Docker's own sentences; answered with 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    #[error(
        "client version {0} is too old. Minimum supported API version is {OLDEST}, please upgrade your client to a newer \
         version"
    )]
    TooOld(String),
    #[error("client version {0} is too new. Maximum supported API version is {NEWEST}")]
    TooNew(String),
    #[error("invalid API version `{0}`: expected two numbers such as {NEWEST}")]
    Invalid(String),
}

impl Version {
    /// Reads `1.41`.
    pub fn parse(text: &str) -> Option<Version> {
        let (major, minor) = text.split_once('.')?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        Some(Version { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Accepts what a client asks in, from [`OLDEST`] to [`NEWEST`].
pub fn accept(client: &str) -> Result<Version, VersionError> {
    match Version::parse(client) {
        None => Err(VersionError::Invalid(client.to_owned())),
        Some(version) if version < OLDEST => Err(VersionError::TooOld(client.to_owned())),
        Some(version) if version > NEWEST => Err(VersionError::TooNew(client.to_owned())),
        Some(version) => Ok(version),
    }
}

/// The version in which an engine is asked: the client's, or the engine's own if that is older (or the client gave none).
pub fn for_engine(client: Option<&str>, engine: &str) -> String {
    let client = client.and_then(Version::parse);
    match (client, Version::parse(engine)) {
        (Some(client), Some(engine)) => client.min(engine).to_string(),
        (Some(client), None) => client.to_string(),
        (None, _) => engine.to_owned(),
    }
}

/// What an answer to `GET /images/{name}/json` must have for a client of this version, whatever the engine's age.
/// docker-compose 1.29 reads `ContainerConfig`, which engines of API 1.45 and later dropped; `VirtualSize` went with 1.44.
pub fn image_inspect(image: &mut Value, client: Option<&str>) {
    let Some(client) = client.and_then(Version::parse) else { return };
    let Some(fields) = image.as_object_mut() else { return };
    if client < (Version { major: 1, minor: 45 }) && !fields.contains_key("ContainerConfig") {
        let config = fields.get("Config").filter(|config| config.is_object()).cloned();
        fields.insert("ContainerConfig".into(), config.unwrap_or_else(|| json!({})));
    }
    if client < (Version { major: 1, minor: 44 }) && !fields.contains_key("VirtualSize") {
        let size = fields.get("Size").cloned().unwrap_or_else(|| json!(0));
        fields.insert("VirtualSize".into(), size);
    }
}

/// As [`image_inspect`], for one entry of `GET /images/json`.
pub fn image_entry(image: &mut Value, client: Option<&str>) {
    let Some(client) = client.and_then(Version::parse) else { return };
    let Some(fields) = image.as_object_mut() else { return };
    if client < (Version { major: 1, minor: 44 }) && !fields.contains_key("VirtualSize") {
        let size = fields.get("Size").cloned().unwrap_or_else(|| json!(0));
        fields.insert("VirtualSize".into(), size);
    }
    // Until 1.43 an image without name had one that says so.
    if client < (Version { major: 1, minor: 43 }) {
        let bare = |value: Option<&Value>| value.and_then(Value::as_array).is_none_or(Vec::is_empty);
        if bare(fields.get("RepoTags")) && bare(fields.get("RepoDigests")) {
            fields.insert("RepoTags".into(), json!(["<none>:<none>"]));
            fields.insert("RepoDigests".into(), json!(["<none>@<none>"]));
        }
    }
}
