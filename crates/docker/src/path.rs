//! Paths and query strings of the Docker API. Pure.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Escaped in a value (or key) of a query string: all but RFC 3986's unreserved characters.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Escaped in a path: what may not stand in one (RFC 3986, `pchar` and `/`).
const PATH: &AsciiSet = &QUERY
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');

/// Path and query for an engine. `path` is decoded and may bring its own query after a `?` (encoded); without one, the
/// client's query string is kept as it was sent.
pub fn for_engine(version: Option<&str>, path: &str, client_query: Option<&str>) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, client_query),
    };
    let mut text = String::with_capacity(path.len() + query.map_or(0, str::len) + 8);
    if let Some(version) = version.filter(|version| !version.is_empty()) {
        text.push_str("/v");
        text.push_str(version);
    }
    text.extend(utf8_percent_encode(path, PATH));
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        text.push('?');
        text.push_str(query);
    }
    text
}

/// Makes `text` safe as one value (or key) of a query string, or as one part of a path.
pub fn encode_query(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

/// Takes a query string apart, in the order given.
pub fn query_pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(key, value)| (decode_query(key), decode_query(value))).collect()
}

/// Undoes percent-encoding; invalid escapes stay as they are, as in Docker's own router.
pub fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Same as [`decode`], where `+` is a blank.
fn decode_query(text: &str) -> String {
    let text: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    decode(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_undone_and_broken_ones_kept() {
        for (text, expected) in [("node%2Fweb", "node/web"), ("a%zz", "a%zz"), ("a%2", "a%2"), ("a+b", "a+b")] {
            assert_eq!(decode(text), expected);
        }
    }

    #[test]
    fn a_query_is_taken_apart_in_order() {
        let pairs = query_pairs("a=1&b=x+y%3D&a=2&&flag");
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
    fn an_encoded_text_decodes_to_itself() {
        for text in ["a b&c=d", "ü/%", "{\"label\":[\"x=y\"]}", "", "+"] {
            assert_eq!(decode_query(&encode_query(text)), text);
        }
    }
}
