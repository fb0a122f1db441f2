//! The architecture as a table, and the table as a test: which crate may use which.

mod dependencies;
mod encode;
mod paths;
mod prose;

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{run, words};

/// Holds the table of crates, under [`HEADING`].
const ARCHITECTURE: &str = "ARCHITECTURE.md";
const HEADING: &str = "## Layers";

/// Word of the table: this crate may use all others.
const ALL: &str = "all";

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
    let layers = layers(&std::fs::read_to_string(ARCHITECTURE)?)?;
    let mut violations = violations(&layers, uses);
    violations.extend(unlisted(&layers)?);
    violations.extend(dependencies::check()?);
    violations.extend(encode::check()?);
    violations.extend(paths::check()?);
    violations.extend(prose::check()?);
    violations.extend(words::violations()?);
    for (path, lines) in long_files()? {
        println!("note: {path} has {lines} lines; over {FILE_LINES_MAX} it may hide a noun");
    }
    if violations.is_empty() { Ok(()) } else { bail!("{}", violations.join("\n")) }
}

fn short(name: &str) -> &str {
    name.strip_prefix("herder-").unwrap_or(name)
}

/// Each crate with the crates it may use.
type Layers = BTreeMap<String, Vec<String>>;

/// Reads the table "Layers": the first column names the crate, the last one the crates it may use.
fn layers(text: &str) -> anyhow::Result<Layers> {
    let (_, section) = text.split_once(HEADING).with_context(|| format!("{ARCHITECTURE} has no \"{HEADING}\""))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix('|'));
    let layers: Layers = rows
        .filter_map(|row| {
            let (name, columns) = row.split_once('`')?;
            let (_, uses) = columns.rsplit_once('|')?;
            let uses = uses.split(',').map(|it| it.trim().to_owned()).filter(|it| !it.is_empty());
            Some((name.to_owned(), uses.collect()))
        })
        .collect();
    if layers.is_empty() { bail!("{ARCHITECTURE}, \"{HEADING}\": there is no table") } else { Ok(layers) }
}

/// The uses that the table does not list, and those it lists in vain, as lines to print. Crates outside the table are free.
fn violations<'a>(layers: &Layers, uses: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut unused: Vec<(&str, &str)> =
        layers.iter().flat_map(|(from, uses)| uses.iter().map(move |to| (from.as_str(), to.as_str()))).collect();
    unused.retain(|(_, to)| *to != ALL);
    let mut violations = Vec::new();
    for (from, to) in uses {
        unused.retain(|it| *it != (from, to));
        let Some(allowed) = layers.get(from) else { continue };
        if !allowed.iter().any(|it| it == to || it == ALL) {
            violations.push(format!("`{from}` uses `{to}`; see {ARCHITECTURE}, \"Layers\""));
        }
    }
    let unused = unused.into_iter().map(|(from, to)| format!("{ARCHITECTURE}: `{from}` may use `{to}`, and does not"));
    violations.extend(unused);
    violations
}

/// Crates without a row, and rows without a crate.
fn unlisted(layers: &Layers) -> anyhow::Result<Vec<String>> {
    let folders = std::fs::read_dir("crates")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let crates: Vec<String> =
        folders.filter(|name| std::fs::exists(format!("crates/{name}/Cargo.toml")).unwrap_or(false)).collect();
    let missing = crates.iter().filter(|name| !layers.contains_key(*name));
    let missing = missing.map(|name| format!("{ARCHITECTURE}, \"Layers\": no row for `{name}`"));
    let stale = layers.keys().filter(|name| !crates.contains(name));
    let stale = stale.map(|name| format!("{ARCHITECTURE}, \"Layers\": there is no crate `{name}`"));
    Ok(missing.chain(stale).collect())
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
    use super::{layers, violations};

    const TABLE: &str = "## Layers\n\n| crate | | may use |\n|---|---|---|\n| `model` | nouns | |\n| `decide` | pure | model |\n\
        | `herder` | the program | all |\n\n## Other\n| `x` | | y |\n";

    fn judged(uses: &[(&str, &str)]) -> String {
        violations(&layers(TABLE).expect("a table"), uses.iter().copied()).join("\n")
    }

    #[test]
    fn the_table_says_which_crate_uses_which() {
        assert_eq!(judged(&[("decide", "model"), ("herder", "decide"), ("xtask", "lab")]), "");
        assert_eq!(
            judged(&[("decide", "model"), ("decide", "pool")]),
            "`decide` uses `pool`; see ARCHITECTURE.md, \"Layers\""
        );
        assert_eq!(judged(&[]), "ARCHITECTURE.md: `decide` may use `model`, and does not");
        assert!(layers("# none").is_err());
    }
}
