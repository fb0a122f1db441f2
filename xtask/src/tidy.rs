//! The architecture as a table, and the table as a test: which crate may use which.

use std::process::Command;

use anyhow::bail;

use crate::run;

/// Each crate with the crates it may use. Dependencies point upwards; ARCHITECTURE.md, "Layers", says why.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("decide", &["model"]),
    ("store", &["model"]),
    ("drivers", &["model"]),
    ("wire", &["model", "drivers"]),
    ("bus", &["model"]),
    ("lab", &[]),
    ("pool", &["model", "decide", "drivers"]),
    ("agent", &["model", "decide", "drivers", "pool", "wire"]),
    ("manager", &["model", "decide", "store"]),
    ("front", &["model", "decide", "drivers", "pool", "bus"]),
    ("sim", &["model", "decide", "drivers", "store", "manager", "agent"]),
    ("cli", &["model", "lab"]),
    (
        "herder",
        &["model", "decide", "drivers", "store", "pool", "agent", "manager", "front", "cli", "lab", "wire", "bus"],
    ),
];

/// A file longer than this asks for a missing noun; it is named, not refused.
const FILE_LINES_MAX: usize = 600;

pub(crate) fn run() -> anyhow::Result<()> {
    let text = run::read(Command::new(run::cargo_path()).args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let uses = packages.flat_map(|package| {
        let from = short(package["name"].as_str().unwrap_or_default());
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let ours = dependencies.filter(|it| it["path"].is_string() && it["kind"].is_null());
        ours.filter_map(|it| it["name"].as_str()).map(move |to| (from, short(to)))
    });
    let violations = violations(uses);
    for (path, lines) in long_files()? {
        println!("note: {path} has {lines} lines; over {FILE_LINES_MAX} it may hide a noun");
    }
    if violations.is_empty() { Ok(()) } else { bail!("{}", violations.join("\n")) }
}

fn short(name: &str) -> &str {
    name.strip_prefix("herder-").unwrap_or(name)
}

/// The uses that [`LAYERS`] does not list, as lines to print. Crates outside the table are free.
fn violations<'a>(uses: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let known = |name: &str| LAYERS.iter().any(|(layer, _)| *layer == name);
    uses.into_iter()
        .filter(|(from, to)| known(from) && !LAYERS.iter().any(|(name, uses)| name == from && uses.contains(to)))
        .map(|(from, to)| format!("`{from}` uses `{to}`; see ARCHITECTURE.md, \"Layers\""))
        .collect()
}

fn long_files() -> anyhow::Result<Vec<(String, usize)>> {
    let files = run::read(Command::new("git").args(["ls-files", "*.rs"]))?;
    let mut long = Vec::new();
    for path in files.lines() {
        // A file that was removed and not yet committed is listed, too.
        let lines = std::fs::read_to_string(path).unwrap_or_default().lines().count();
        if lines > FILE_LINES_MAX {
            long.push((path.to_owned(), lines));
        }
    }
    Ok(long)
}

#[cfg(test)]
mod tests {
    use super::violations;

    #[test]
    fn decisions_stay_pure() {
        assert_eq!(violations([("pool", "decide"), ("xtask", "lab")]), [""; 0]);
        assert_eq!(violations([("decide", "pool")]), ["`decide` uses `pool`; see ARCHITECTURE.md, \"Layers\""]);
    }
}
