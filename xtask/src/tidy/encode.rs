//! Check that values which cannot be written as JSON do not become empty ones. A file would be replaced by nothing, and
//! Ok returned.

use std::process::Command;

use crate::run;

/// Functions whose failure must be handled.
const WRITES: &str = "serde_json::to_";
const SWALLOWED: [&str; 2] = [".unwrap_or_default()", ".unwrap_or(Vec::new())"];

/// Places in the repository where a failure to encode is passed over, as lines to print.
pub(super) fn check() -> anyhow::Result<Vec<String>> {
    let files = run::read(Command::new("git").args(["ls-files", "*.rs"]))?;
    let mut found = Vec::new();
    for path in files.lines().filter(|path| !path.ends_with("tidy/encode.rs")) {
        // A file that was removed and not yet committed is listed, too.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        found.extend(swallowed(&text).into_iter().map(|call| {
            format!("{path}: `{call}` writes nothing when it fails; hand the error on, or end what waits for it")
        }));
    }
    Ok(found)
}

/// Returns the calls that encode JSON and replace a failure by an empty value.
fn swallowed(text: &str) -> Vec<String> {
    let code: String = text.chars().filter(|it| !it.is_whitespace()).collect();
    let calls = code.match_indices(WRITES).filter_map(|(at, _)| {
        let call = &code[at..];
        let end = after_call(call)?;
        SWALLOWED.iter().any(|it| call[end..].starts_with(it)).then(|| call[..end].to_owned())
    });
    calls.collect()
}

/// Returns the place after the closing parenthesis of a call.
fn after_call(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(at + 1),
            ')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::swallowed;

    #[test]
    fn a_failure_to_encode_is_not_passed_over() {
        let check = |text: &str, expected: &[&str]| assert_eq!(swallowed(text), expected, "{text}");
        check("let text = serde_json::to_vec(&it(1)).unwrap_or_default();", &["serde_json::to_vec(&it(1))"]);
        check("serde_json::to_vec_pretty(self)\n    .unwrap_or_default()", &["serde_json::to_vec_pretty(self)"]);
        check("serde_json::to_vec(self)?; text.unwrap_or_default()", &[]);
        check("serde_json::to_value(it).ok().unwrap_or_default()", &[]);
        check("serde_json::to_vec(", &[]);
    }
}
