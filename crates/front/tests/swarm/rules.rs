//! `differences.txt`: what is meant to differ, what is not asked, and what is asked otherwise; each with its reason.

use serde_json::Value;

/// A line of the file: words, the first of which says what it is.
struct Rule {
    verb: String,
    pattern: String,
    /// Text of a rewrite, or the reason.
    rest: String,
    reason: String,
    used: bool,
}

pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// Lines `verb | pattern | rest`, below a line `# reason`.
    pub(crate) fn read(text: &str) -> Rules {
        let (mut rules, mut reason) = (Vec::new(), String::new());
        for line in text.lines().filter(|it| !it.trim().is_empty()) {
            if let Some(text) = line.strip_prefix('#') {
                text.trim().clone_into(&mut reason);
                continue;
            }
            let mut parts = line.splitn(3, " | ").map(|it| it.trim().to_owned());
            let mut next = || parts.next().unwrap_or_default();
            let (verb, pattern, rest) = (next(), next(), next());
            assert!(["same", "skip", "rewrite", "second", "locked"].contains(&verb.as_str()), "{line}");
            assert!(!reason.is_empty(), "no reason for {line}");
            rules.push(Rule { verb, pattern, rest, reason: reason.clone(), used: false });
        }
        Rules(rules)
    }

    /// True if the file is of this kind.
    pub(crate) fn is(&mut self, verb: &str, name: &str) -> bool {
        self.find(verb, name).is_some()
    }

    /// Returns the reason why an exchange is skipped.
    pub(crate) fn skips(&mut self, line: &str) -> Option<String> {
        self.find("skip", line)
    }

    /// True if a difference is meant.
    pub(crate) fn means(&mut self, line: &str) -> bool {
        self.find("same", line).is_some()
    }

    /// Rewrites a request: the value at a place of the body is replaced or removed.
    pub(crate) fn rewrite(&mut self, name: &str, body: &mut Value) {
        for rule in self.0.iter_mut().filter(|it| it.verb == "rewrite" && fits(&it.pattern, name)) {
            let (pointer, value) = rule.rest.split_once('=').expect("pointer=value");
            let Some((parent, key)) = pointer.rsplit_once('/') else { continue };
            let Some(parent) = body.pointer_mut(parent) else { continue };
            if parent.get(key).is_none() && parent.as_array().is_none() {
                continue;
            }
            rule.used = true;
            if value.is_empty() {
                parent.as_object_mut().map(|it| it.remove(key));
            } else if let Some(place) = body.pointer_mut(pointer) {
                *place = serde_json::from_str(value).expect("JSON");
            }
        }
    }

    fn find(&mut self, verb: &str, line: &str) -> Option<String> {
        let rule = self.0.iter_mut().find(|it| it.verb == verb && fits(&it.pattern, line))?;
        rule.used = true;
        Some(rule.reason.clone())
    }

    /// Returns the rules that matched nothing.
    pub(crate) fn unused(&self) -> Vec<String> {
        let unused = self.0.iter().filter(|it| !it.used);
        unused.map(|it| format!("{} | {} | {}", it.verb, it.pattern, it.rest)).collect()
    }
}

/// `*` is any text, also none.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut last = "";
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = part;
    }
    rest.is_empty() || pattern.contains('*') && text.ends_with(last) && !pattern.is_empty()
}
