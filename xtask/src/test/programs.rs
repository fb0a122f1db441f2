//! Test programs: built by cargo, started here, so that several can run at once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{run, sim};

/// The seed of the cases that property tests make up. Two runs of one commit try the same cases, so that a run tells of the
/// commit; `PROPTEST_CASES=5000 cargo test` looks for new ones, and those that it finds become tests.
const CASES_SEED: &str = "PROPTEST_RNG_SEED";

/// An executable that cargo built from one target's tests.
#[derive(Debug)]
pub(super) struct Program {
    /// Name of the target.
    pub(super) name: String,
    path: PathBuf,
    /// The package's folder, in which cargo runs tests.
    folder: PathBuf,
}

/// Numbers of tests by result, and what the programs said of those that failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tests {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) ignored: u32,
    pub(super) why: Vec<String>,
}

impl Tests {
    pub(super) fn add(&mut self, other: Tests) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.why.extend(other.why);
    }
}

/// Runs cargo with `arguments` of a build, and returns the test programs that it made.
pub(super) fn build(arguments: &[&str]) -> anyhow::Result<Vec<Program>> {
    let mut command = Command::new(run::cargo_path());
    command.args(arguments).arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = command.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    let messages = lines.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    Ok(messages.iter().filter_map(program).collect())
}

/// Reads a message of cargo about a target that was built for its tests.
fn program(message: &Value) -> Option<Program> {
    let tests = message["profile"]["test"].as_bool()?;
    let (path, manifest) = (message["executable"].as_str()?, Path::new(message["manifest_path"].as_str()?));
    let name = message["target"]["name"].as_str()?.to_owned();
    tests.then(|| Program { name, path: path.into(), folder: manifest.parent().unwrap_or(manifest).into() })
}

impl Program {
    /// Runs all tests of this program. Shows each line as it comes if it is `live`, else all of them at its end.
    pub(super) fn run(&self, live: bool) -> anyhow::Result<Tests> {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder).envs(sim::environment());
        if std::env::var_os(CASES_SEED).is_none() {
            command.env(CASES_SEED, "1");
        }
        tests(&mut command, &self.name, live)
    }
}

/// Runs the examples in documentation comments, which cargo alone can build.
pub(super) fn documentation() -> anyhow::Result<Tests> {
    let line = ["test", "--doc", "--workspace", "--exclude", "herder-sim"];
    tests(Command::new(run::cargo_path()).args(line), "documentation", false)
}

/// Runs a program that prints as Rust's test programs do. Adds its summaries up, and keeps what it says of failed
/// tests.
fn tests(command: &mut Command, name: &str, live: bool) -> anyhow::Result<Tests> {
    let started = Instant::now();
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stderr(writer.try_clone()?).stdout(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    // The command holds the writing end, without which the output would never end.
    command.stderr(Stdio::null()).stdout(Stdio::null());
    let (mut sums, mut explains, mut shown) = (Tests::default(), false, Vec::new());
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        explains |= line == "failures:";
        if let Some(more) = summary(&line) {
            sums.add(more);
            explains = false;
        }
        if explains {
            sums.why.push(line.clone());
        }
        if live { println!("{line}") } else { shown.push(line) }
    }
    let status = child.wait()?;
    // A test program that crashed has no summary.
    if !status.success() && sums.failed == 0 {
        sums.failed += 1;
        sums.why.push(format!("{name} ended with {status}"));
    }
    shown.push(format!("{name} took {:.0?}\n", started.elapsed()));
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", shown.join("\n"))?;
    Ok(sums)
}

/// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
fn summary(line: &str) -> Option<Tests> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let part = counts.split(';').map(str::trim).find(|part| part.ends_with(word))?;
        part.split(' ').next()?.parse::<u32>().ok()
    };
    let (passed, failed, ignored) = (count("passed")?, count("failed")?, count("ignored")?);
    Some(Tests { passed, failed, ignored, why: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::{Tests, program, summary};

    #[test]
    fn summaries_are_read() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.12s";
        assert_eq!(summary(line), Some(Tests { passed: 5, failed: 2, ignored: 1, why: Vec::new() }));
        assert_eq!(summary("test a::b ... ok"), None);
    }

    #[test]
    fn programs_are_executables_with_tests() {
        let read = |text: &str| program(&serde_json::from_str(text).expect("JSON")).map(|it| it.name);
        let built =
            r#"{"manifest_path":"/a/Cargo.toml","target":{"name":"n"},"profile":{"test":true},"executable":"/n"}"#;
        assert_eq!(read(built), Some("n".to_owned()));
        assert_eq!(read(&built.replace("true", "false")), None);
        assert_eq!(read(&built.replace("\"/n\"", "null")), None);
        assert_eq!(read(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
