//! Paths and query strings: taken apart at the door, put together again for an engine. Pure.

use herder_decide::versions::{self, Version, VersionError};

use crate::Query;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `/v1.41/…` → `1.41`.
    pub version: Option<String>,
    /// The rest, percent-decoded, with a leading slash.
    pub path: String,
}

/// Takes an optional version off a path. What only looks like a version (`/vx/…`) is a part of the path.
pub(crate) fn split(path: &str) -> Result<Target, VersionError> {
    let decoded = decode(path, false);
    match decoded.strip_prefix("/v").and_then(|rest| rest.split_once('/')) {
        Some((version, rest)) if Version::parse(version).is_some() => {
            versions::accept(version)?;
            Ok(Target { version: Some(version.to_owned()), path: format!("/{rest}") })
        }
        _ => Ok(Target { version: None, path: decoded }),
    }
}

/// Path and query for an engine. `path` is decoded and may bring its own query after a `?` (encoded); without one, the
/// client's query string is kept as it was sent.
pub(crate) fn for_engine(version: Option<&str>, path: &str, client_query: Option<&str>) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, client_query),
    };
    let mut text = String::with_capacity(path.len() + query.map_or(0, str::len) + 8);
    if let Some(version) = version.filter(|version| !version.is_empty()) {
        text.push_str("/v");
        text.push_str(version);
    }
    encode_into(&mut text, path, b"-._~/:@!$&'()*+,;=");
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        text.push('?');
        text.push_str(query);
    }
    text
}

/// Makes `text` safe as one value (or key) of a query string.
pub fn encode_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode_into(&mut out, text, b"-._~");
    out
}

/// A query string taken apart.
pub(crate) fn query(text: &str) -> Query {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    Query(
        pairs
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(key, true), decode(value, true))
            })
            .collect(),
    )
}

fn encode_into(out: &mut String, text: &str, safe: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || safe.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// Undoes percent-encoding; what is not valid stays as it is, as in Docker's own router.
fn decode(text: &str, plus_is_blank: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        let hex = hex.filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (byte, hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 3;
                continue;
            }
            (b'+', _) if plus_is_blank => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
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

    #[test]
    fn a_query_is_taken_apart_in_order() {
        let Query(pairs) = query("a=1&b=x+y%3D&a=2&&flag");
        let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}:{value}")).collect();
        assert_eq!(text.join(" "), "a:1 b:x y= a:2 flag:");
    }

    #[test]
    fn a_path_for_an_engine_keeps_the_clients_query_unless_it_brings_its_own() {
        assert_eq!(
            for_engine(Some("1.41"), "/containers/a b/json", Some("size=1")),
            "/v1.41/containers/a%20b/json?size=1"
        );
        assert_eq!(for_engine(None, "/build?t=x%3A1", Some("t=y")), "/build?t=x%3A1");
        assert_eq!(for_engine(None, "/images/r.io/a:b@sha256:1/json", Some("")), "/images/r.io/a:b@sha256:1/json");
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in ["a b&c=d", "ü/%", "{\"label\":[\"x=y\"]}", ""] {
            assert_eq!(decode(&encode_query(text), true), text);
        }
    }
}
