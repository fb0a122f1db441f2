//! Versions of the Docker API: served ones, the one for an engine's call, and additions to answers for old clients.

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

/// Reason why a version is refused. Docker's own sentences; answered with 400.
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

/// Returns the version for a call to an engine. It is the client's, or the engine's own if that is older (or the
/// client gave none).
pub fn for_engine(client: Option<&str>, engine: &str) -> String {
    let client = client.and_then(Version::parse);
    match (client, Version::parse(engine)) {
        (Some(client), Some(engine)) => client.min(engine).to_string(),
        (Some(client), None) => client.to_string(),
        (None, _) => engine.to_owned(),
    }
}

/// Adds the members to an image inspection that a client of this version needs, whatever the engine's age. They belong
/// to `GET /images/{name}/json`: docker-compose 1.29 reads `ContainerConfig`, which engines of API 1.45 and later
/// dropped; `VirtualSize` went with 1.44.
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

/// Same as [`image_inspect`], for one entry of `GET /images/json`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_the_oldest_to_the_newest_are_accepted() {
        let too_old = "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a \
                       newer version";
        for (client, expected) in [
            ("1.24", "1.24"),
            ("1.41", "1.41"),
            ("1.50", "1.50"),
            ("1.23", too_old),
            ("1.51", "client version 1.51 is too new. Maximum supported API version is 1.50"),
            ("1", "invalid API version `1`: expected two numbers such as 1.50"),
            ("1.x", "invalid API version `1.x`: expected two numbers such as 1.50"),
            ("1.", "invalid API version `1.`: expected two numbers such as 1.50"),
        ] {
            let text = accept(client).map_or_else(|error| error.to_string(), |version| version.to_string());
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn an_engine_is_asked_in_no_newer_version_than_its_own() {
        for (client, engine, expected) in [
            (Some("1.24"), "1.41", "1.24"),
            (Some("1.50"), "1.41", "1.41"),
            (Some("1.9"), "1.41", "1.9"),
            (None, "1.41", "1.41"),
            (Some("1.44"), "", "1.44"),
        ] {
            assert_eq!(for_engine(client, engine), expected);
        }
    }

    #[test]
    fn old_clients_find_what_new_engines_dropped() {
        let new = json!({"Id": "i", "Size": 5, "Config": {"Env": ["A=b"]}});
        for (client, expected) in [
            (None, "Id Size Config"),
            (Some("1.50"), "Id Size Config"),
            (Some("1.44"), "Id Size Config ContainerConfig"),
            (Some("1.41"), "Id Size Config ContainerConfig VirtualSize"),
        ] {
            let mut image = new.clone();
            image_inspect(&mut image, client);
            let keys: Vec<&str> = image.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys.join(" "), expected, "{client:?}");
        }
        let mut image = new;
        image_inspect(&mut image, Some("1.24"));
        assert_eq!((&image["ContainerConfig"], &image["VirtualSize"]), (&json!({"Env": ["A=b"]}), &json!(5)));
    }

    #[test]
    fn what_an_engine_says_itself_stays() {
        let old = json!({"ContainerConfig": {"Image": "x"}, "VirtualSize": 7, "Size": 5});
        let mut image = old.clone();
        image_inspect(&mut image, Some("1.24"));
        assert_eq!(image, old);
    }

    #[test]
    fn images_without_name_say_so_to_old_clients() {
        for (client, expected) in
            [(Some("1.41"), json!(["<none>:<none>"])), (Some("1.43"), json!([])), (None, json!([]))]
        {
            let mut image = json!({"RepoTags": [], "RepoDigests": [], "Size": 5});
            image_entry(&mut image, client);
            assert_eq!(image["RepoTags"], expected, "{client:?}");
        }
    }
}
