//! Differences that are written down with their reasons.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Compares what was found with what a file has. There, a line that begins with # is the reason of those that follow.
///
/// With `UPDATE=1` the file is written anew; reasons of known lines stay, others get a question mark.
pub(crate) fn check(path: &Path, found: &[String]) {
    let written = std::fs::read_to_string(path).unwrap_or_default();
    let mut reason = "";
    let mut reasons: BTreeMap<&str, &str> = BTreeMap::new();
    for line in written.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(text) => reason = text,
            None => drop(reasons.insert(line, reason)),
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        let mut by_reason: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for line in found {
            by_reason.entry(reasons.get(line.as_str()).copied().unwrap_or("?")).or_default().push(line);
        }
        let mut text = String::new();
        for (reason, lines) in by_reason {
            let _ = writeln!(text, "# {reason}");
            text.extend(lines.iter().map(|line| format!("{line}\n")));
            text.push('\n');
        }
        std::fs::write(path, text.trim_end().to_owned() + "\n").unwrap();
        return;
    }
    let is_known = |line: &&String| reasons.get(line.as_str()).is_some_and(|reason| *reason != "?");
    let new: Vec<&String> = found.iter().filter(|line| !is_known(line)).collect();
    let gone: Vec<&&str> = reasons.keys().filter(|line| !found.iter().any(|it| it == *line)).collect();
    assert!(new.is_empty() && gone.is_empty(), "new: {new:#?}\ngone: {gone:#?}");
}
