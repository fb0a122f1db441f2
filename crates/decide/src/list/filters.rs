//! Filters as clients write them: `{"label":["a=b"]}` or, older, `{"label":{"a=b":true}}`.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::ListError;

/// Maximum length of malformed filters that an error repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// The compiled patterns of one filter may not take more than this together. A target of 64 KiB has room for thousands of
/// patterns, and a single `\pL{100}` takes 5 MB.
const PATTERNS_BYTES_MAX: usize = 10 << 20;

/// The `filters` of a call: for each key the values, of which (but for labels) one must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the query parameter, in either form. Empty text means no filters. The error is a sentence for a 400.
    pub fn parse(text: &str) -> Result<Filters, String> {
        if text.trim().is_empty() {
            return Ok(Filters::default());
        }
        let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
        let wrong = |reason: String| format!("invalid filters `{shown}`: {reason}");
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        // A client without filters may well say so.
        if value.is_null() {
            return Ok(Filters::default());
        }
        let object = value.as_object().ok_or_else(|| wrong("expected a JSON object".into()))?;
        let pair = |(key, value): (&String, &Value)| {
            let values = values_of(value).ok_or_else(|| wrong(format!("`{key}` needs a list of strings")))?;
            Ok((key.clone(), values))
        };
        object.iter().map(pair).collect::<Result<_, String>>().map(Filters)
    }

    /// The values of `key`, none if it is not given.
    pub fn values<'f>(&'f self, key: &str) -> impl Iterator<Item = &'f str> + use<'f> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// True if `key` is given with a value.
    pub fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|values| !values.is_empty())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a value, as `--filter` given once more.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().push(value.to_owned());
    }

    /// Takes a key out, for what must not reach an engine (`node`).
    pub fn remove(&mut self, key: &str) -> Vec<String> {
        self.0.remove(key).unwrap_or_default()
    }

    /// The newer of the two forms, for an engine's query string (not yet percent-encoded).
    pub fn to_json(&self) -> String {
        serde_json::json!(self.0).to_string()
    }

    /// Refuses keys that are not in `known`.
    pub fn check(&self, known: &[&str]) -> Result<(), ListError> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(ListError::Key(key.clone())),
            None => Ok(()),
        }
    }

    /// A filter that is true or false (`1` and `0` as well). None if it is not given.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ListError> {
        let values: Vec<&str> = self.values(key).collect();
        match values[..] {
            [] => Ok(None),
            ["true" | "True" | "t" | "1"] => Ok(Some(true)),
            ["false" | "False" | "f" | "0"] => Ok(Some(false)),
            _ => Err(ListError::value(key, &values.join(" "), "true or false")),
        }
    }

    /// True if the key is not given, or any of its values is accepted.
    pub fn any(&self, key: &str, accepts: impl FnMut(&str) -> bool) -> bool {
        !self.has(key) || self.values(key).any(accepts)
    }

    /// True if the key is not given, or one of its values is `text`.
    pub fn is(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| value == text)
    }

    /// Refuses values of `key` that are not in `known`; `expected` names those in words.
    pub fn check_values(&self, key: &str, known: &[&str], expected: &'static str) -> Result<(), ListError> {
        match self.values(key).find(|value| !known.contains(value)) {
            Some(value) => Err(ListError::value(key, value, expected)),
            None => Ok(()),
        }
    }

    /// True if all `label` filters (`key`, `key=value`) match and no `label!` does.
    pub fn labels<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        let carries = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => label(key) == Some(value),
            None => label(wanted).is_some(),
        };
        self.values("label").all(carries) && !self.values("label!").any(carries)
    }

    /// The values of `key`, ready for matching many candidates.
    pub fn patterns(&self, key: &str) -> Patterns {
        let each = PATTERNS_BYTES_MAX / self.values(key).count().max(1);
        Patterns(self.values(key).map(|text| Pattern::new(text, each)).collect())
    }
}

fn values_of(values: &Value) -> Option<Vec<String>> {
    match values {
        Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        Value::Object(set) => {
            Some(set.iter().filter(|(_, on)| **on != false).map(|(value, _)| value.clone()).collect())
        }
        _ => None,
    }
}

/// One value as Docker matches names: the text itself, or a regular expression found anywhere in the candidate.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    /// Without anything that means something in an expression: most names and ids.
    plain: bool,
    regex: Option<Regex>,
}

impl Pattern {
    /// A regular expression that is wrong, or takes more than `bytes_max` when compiled, stands for its own text only.
    pub fn new(text: &str, bytes_max: usize) -> Pattern {
        let plain = regex_syntax_free(text);
        let compile = || RegexBuilder::new(text).size_limit(bytes_max).build().ok();
        Pattern { text: text.to_owned(), plain, regex: if plain { None } else { compile() } }
    }

    pub fn matches(&self, candidate: &str) -> bool {
        match &self.regex {
            _ if self.plain => candidate.contains(&self.text),
            Some(regex) => candidate == self.text || regex.is_match(candidate),
            None => candidate == self.text,
        }
    }
}

/// Found anywhere means the same with and without an expression.
fn regex_syntax_free(text: &str) -> bool {
    text.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '/' | ':' | '@' | ' '))
}

/// The values of one filter. Without any, everything matches.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if one of the values matches the name of an object on a node. The name matches bare, and with a slash
    /// also as `/name`, `node/name` and `/node/name`. Without one, a value that is found in the node's name means
    /// nothing.
    pub fn match_name(&self, node: &str, name: &str) -> bool {
        if self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(name)) {
            return true;
        }
        let mut slashed = self.0.iter().filter(|pattern| pattern.text.contains('/')).peekable();
        if slashed.peek().is_none() {
            return false;
        }
        let full = format!("/{node}/{name}");
        let candidates = [&full[1 + node.len()..], &full[1..], &full];
        slashed.any(|pattern| candidates.iter().any(|it| pattern.matches(it)))
    }

    /// True if one of the candidates matches one of the values.
    pub fn match_any(&self, candidates: &[&str]) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| candidates.iter().any(|it| pattern.matches(it)))
    }
}

/// Converts a file glob (`*`, `?`, `[a-z]`, `\x`; neither `*` nor `?` crosses a `/`) into a regular expression. `None`
/// if it is malformed.
pub fn glob(pattern: &str) -> Option<Regex> {
    let mut text = String::from("^(?s:");
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        match char {
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            '[' => {
                text.push('[');
                let mut closed = false;
                for (at, char) in chars.by_ref().enumerate() {
                    match char {
                        ']' if at > 0 => {
                            closed = true;
                            break;
                        }
                        '^' if at == 0 => text.push('^'),
                        '-' => text.push('-'),
                        char => text.push_str(&regex::escape(&char.to_string())),
                    }
                }
                if !closed {
                    return None;
                }
                text.push(']');
            }
            '\\' => text.push_str(&regex::escape(&chars.next()?.to_string())),
            char => text.push_str(&regex::escape(&char.to_string())),
        }
    }
    text.push_str(")$");
    Regex::new(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_filters_are_read() {
        for (text, expected) in
            [("", ""), (r#"{"label":["a","b=c"]}"#, "a b=c"), (r#"{"label":{"a":true,"b":false}}"#, "a")]
        {
            let filters = Filters::parse(text).unwrap();
            assert_eq!(filters.values("label").collect::<Vec<_>>().join(" "), expected, "{text}");
        }
    }

    #[test]
    fn wrong_filters_are_refused_by_name() {
        for (text, expected) in [
            ("nonsense", "invalid filters `nonsense`: expected ident at line 1 column 2"),
            ("[]", "invalid filters `[]`: expected a JSON object"),
            (r#"{"a":1}"#, r#"invalid filters `{"a":1}`: `a` needs a list of strings"#),
        ] {
            assert_eq!(Filters::parse(text).unwrap_err(), expected);
        }
        let error = Filters::parse(r#"{"colour":["red"]}"#).unwrap().check(&["name"]).unwrap_err();
        assert_eq!(error.to_string(), "invalid filter 'colour'");
    }

    #[test]
    fn globs_are_those_of_paths() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("busy*", "my/busybox", false),
            ("*/busybox", "my/busybox", true),
            ("b?sybox", "busybox", true),
            ("b?sybox", "b/sybox", false),
            ("[a-c]usybox", "busybox", true),
            ("[^a-c]usybox", "busybox", false),
            ("r.io/*", "rxio/a", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
        ] {
            assert_eq!(glob(pattern).unwrap().is_match(text), expected, "{pattern} {text}");
        }
        assert!(["[a", r"a\", "[]"].iter().all(|pattern| glob(pattern).is_none()));
    }

    #[test]
    fn patterns_are_found_anywhere_and_share_one_limit() {
        let check = |values: &[&str], candidate: &str, expected: bool| {
            let mut filters = Filters::default();
            values.iter().for_each(|value| filters.add("name", value));
            assert_eq!(filters.patterns("name").match_any(&[candidate]), expected, "{} on {candidate}", values.len());
        };
        check(&["eb-1"], "web-1", true);
        check(&["web-2"], "web-1", false);
        check(&["^web-.$"], "web-1", true);
        check(&["["], "[", true);
        check(&["["], "a[", false);
        check(&[r"^\pL{3}-1$"], "web-1", true);
        check(&[r"^\pL{3}-1$"; 4000], "web-1", false);
        check(&["^web-1$"; 4000], "web-1", true);
    }

    #[test]
    fn a_value_matches_the_nodes_name_only_behind_a_slash() {
        for (value, expected) in [
            ("web", true),
            ("^web$", true),
            ("n1", false),
            ("n1/", true),
            ("^/web", true),
            ("/n1/web", true),
            ("n2/web", false),
        ] {
            let mut filters = Filters::default();
            filters.add("name", value);
            assert_eq!(filters.patterns("name").match_name("n1", "web"), expected, "{value}");
        }
        assert!(Patterns::default().match_name("n1", "web"));
    }
}
