//! Check of the crates that are linked: their licences, and that all come from crates.io.

use std::process::Command;

use crate::run;

/// Licences that herder's own one agrees with.
const LICENCES: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "MPL-2.0+",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Returns the dependencies that break the rules, as lines to print.
pub(super) fn check() -> anyhow::Result<Vec<String>> {
    let text = run::read(Command::new(run::cargo_path()).args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        // Packages without a source are those of the workspace.
        let Some(source) = package["source"].as_str() else { continue };
        let (name, version) = (&package["name"], &package["version"]);
        let licence = package["license"].as_str().unwrap_or_default();
        if source != REGISTRY {
            faults.push(format!("Cargo.lock: {name} {version} comes from {source}; only crates.io is allowed"));
        }
        if !is_allowed(licence) {
            faults.push(format!("Cargo.lock: {name} {version} has the licence `{licence}`, which is not allowed"));
        }
    }
    Ok(faults)
}

/// True if one of the alternatives of a licence expression is allowed in all its parts.
fn is_allowed(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    // `AND` binds stronger in all expressions of the lock file but one form: `(A OR B) AND C`.
    let parts = |text: &str| text.split(" AND ").all(|it| LICENCES.contains(&it.trim()));
    match expression.split_once(") AND ") {
        Some((first, rest)) => is_allowed(first.trim_start_matches('(')) && is_allowed(rest),
        None => plain.split(" OR ").any(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn one_alternative_of_a_licence_is_enough() {
        let allowed =
            ["MIT", "GPL-3.0 OR MIT", "Unlicense/MIT", "Apache-2.0 AND ISC", "(GPL-3.0 OR MIT) AND Unicode-3.0"];
        assert_eq!(allowed.map(is_allowed), [true; 5]);
        let refused = ["", "GPL-3.0", "Apache-2.0 AND GPL-3.0", "(MIT OR Apache-2.0) AND GPL-3.0"];
        assert_eq!(refused.map(is_allowed), [false; 4]);
    }
}
