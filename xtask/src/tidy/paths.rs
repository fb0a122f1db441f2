//! Checks that the files and folders which some pages name are there.
//!
//! The pages are those for developers, and the one that names the tests of overlay networks.

use std::path::Path;

/// Pages that name files, relative to the root or to `crates/`.
const PAGES: [&str; 3] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/networks.md"];

/// Returns the names without a file, as lines to print.
pub(super) fn check() -> anyhow::Result<Vec<String>> {
    let mut violations = Vec::new();
    for page in PAGES {
        let text = std::fs::read_to_string(page)?;
        let missing =
            named(&text).filter(|(_, path)| !Path::new(path).exists() && !Path::new("crates").join(path).exists());
        violations.extend(missing.map(|(line, path)| format!("{page}:{line}: there is no `{path}`")));
    }
    Ok(violations)
}

/// Paths of a page with their lines, counted from 1. They stand in backquotes, have a slash, and no placeholder of
/// capitals or stars.
fn named(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(number, line)| {
        let quoted = line.split('`').skip(1).step_by(2);
        quoted.filter(|it| is_path(it)).map(move |path| (number + 1, path))
    })
}

fn is_path(text: &str) -> bool {
    let ends = [".rs", ".md", ".txt", ".toml", ".sh", ".py", "/"];
    let is_placeholder = text.contains(|it: char| it == '*' || it == '…' || it == ' ' || it.is_ascii_uppercase());
    text.contains('/') && !text.starts_with('/') && !is_placeholder && ends.iter().any(|end| text.ends_with(end))
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_are_found() {
        let text = "a `b/c.rs` and `d.rs`\n`crates/NAME/`, `/run/x/`, `GET /v2/`, `e/f/`, `g/*.txt`\n";
        assert_eq!(super::named(text).collect::<Vec<_>>(), [(1, "b/c.rs"), (2, "e/f/")]);
    }
}
