//! Paths and query strings, taken apart at the door. Pure.

use herder_decide::versions::{self, Version, VersionError};

pub use herder_docker::path::encode_query;
pub(crate) use herder_docker::path::for_engine;

use crate::Query;

/// Destination of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `/v1.41/…` → `1.41`.
    pub version: Option<String>,
    /// The rest, percent-decoded, with a leading slash.
    pub path: String,
}

/// Takes an optional version off a path. What only looks like a version (`/vx/…`) is a part of the path.
pub(crate) fn split(path: &str) -> Result<Target, VersionError> {
    let decoded = herder_docker::path::decode(path);
    match decoded.strip_prefix("/v").and_then(|rest| rest.split_once('/')) {
        Some((version, rest)) if Version::parse(version).is_some() => {
            versions::accept(version)?;
            Ok(Target { version: Some(version.to_owned()), path: format!("/{rest}") })
        }
        _ => Ok(Target { version: None, path: decoded }),
    }
}

/// A query string taken apart.
pub(crate) fn query(text: &str) -> Query {
    Query(herder_docker::path::query_pairs(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let text = match split(input) {
            Ok(target) => format!("{} {}", target.version.as_deref().unwrap_or("-"), target.path),
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expected, "{input}");
    }

    #[test]
    fn a_version_is_taken_off_the_path() {
        check("/v1.41/containers/json", "1.41 /containers/json");
        check("/containers/json", "- /containers/json");
        check("/v1.24/_ping", "1.24 /_ping");
        check("/vx/_ping", "- /vx/_ping");
        check("/v1.41", "- /v1.41");
        check("/", "- /");
        check("/v+1.41/info", "- /v+1.41/info");
    }

    #[test]
    fn a_version_that_is_too_old_is_refused_in_the_engines_words() {
        check(
            "/v1.12/info",
            "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer \
             version",
        );
    }

    #[test]
    fn percent_signs_are_undone_and_broken_ones_kept() {
        check("/containers/node%2Fweb/json", "- /containers/node/web/json");
        check("/containers/a%zz/json", "- /containers/a%zz/json");
        check("/containers/a%2", "- /containers/a%2");
        check("/containers/a+b", "- /containers/a+b");
    }
}
