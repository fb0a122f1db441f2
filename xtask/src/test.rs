//! `cargo xtask test`: everything, with one summary at the end.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::{packages, run, tidy};

/// Names of labs that tests make. What an aborted run left is removed before and after.
const LABS: &[&str] = &["scenarios", "scenarios-up", "lab-real"];

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    packages::ensure(&[packages::LAB, packages::TESTS])?;
    packages::ensure_clients()?;
    tidy::run()?;
    run::cargo(&["build", "--package", "herder", "--package", "voting"])?;
    clean()?;
    let outcome = tests(arguments);
    clean()?;
    let (passed, failed, ignored) = outcome?;
    println!("\n{passed} passed, {failed} failed, {ignored} skipped");
    if failed > 0 || passed == 0 {
        bail!("not every test passed");
    }
    Ok(())
}

/// Runs `cargo test`, shows what it prints, and adds its summaries up: passed, failed, ignored.
fn tests(arguments: &[String]) -> anyhow::Result<(u32, u32, u32)> {
    let mut command = Command::new(run::cargo_path());
    command.args(["test", "--workspace", "--no-fail-fast"]).args(arguments).stdout(Stdio::piped()).stdin(Stdio::null());
    let mut child = command.spawn().context("cannot start cargo")?;
    let mut sums = (0, 0, 0);
    for line in BufReader::new(child.stdout.take().context("a pipe")?).lines() {
        let line = line?;
        println!("{line}");
        if let Some((passed, failed, ignored)) = summary(&line) {
            sums = (sums.0 + passed, sums.1 + failed, sums.2 + ignored);
        }
    }
    let status = child.wait()?;
    // A test program that did not compile or crashed has no summary.
    if !status.success() && sums.1 == 0 {
        bail!("cargo test ended with {status}");
    }
    Ok(sums)
}

/// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
fn summary(line: &str) -> Option<(u32, u32, u32)> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let part = counts.split(';').map(str::trim).find(|part| part.ends_with(word))?;
        part.split(' ').next()?.parse::<u32>().ok()
    };
    Some((count("passed")?, count("failed")?, count("ignored")?))
}

fn clean() -> anyhow::Result<()> {
    let herder = run::target()?.join("debug/herder");
    for lab in LABS {
        run::check(Command::new(&herder).args(["lab", "down", "--name", lab]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn summaries_are_read() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.12s";
        assert_eq!(summary(line), Some((5, 2, 1)));
        assert_eq!(summary("test a::b ... ok"), None);
    }
}
