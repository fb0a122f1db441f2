//! `cargo xtask test`: everything, with one summary at the end.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::{packages, run, sim, tidy};

/// Name prefixes of labs that tests create. What an aborted run left is removed before and after.
const LABS: &[&str] = &["scenarios", "agent-tests"];
/// The seed of the cases that property tests make up. Two runs of one commit try the same cases, so that a run tells of the
/// commit; `PROPTEST_CASES=5000 cargo test` looks for new ones, and those that it finds become tests.
const CASES_SEED: &str = "PROPTEST_RNG_SEED";
/// Folder of the labs' disks.
const DISKS: &str = "/var/lib/herder-lab";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    packages::ensure(&[packages::LAB, packages::TESTS])?;
    packages::ensure_clients()?;
    tidy::run()?;
    run::cargo(&["build", "--package", "herder", "--package", "voting"])?;
    clean()?;
    let outcome = both(arguments);
    clean()?;
    let (sums, why) = outcome?;
    let Sums { passed, failed, ignored } = sums;
    // Once more, where whoever reads the end of a long output sees it.
    why.iter().for_each(|line| println!("{line}"));
    println!("\n{passed} passed, {failed} failed, {ignored} skipped");
    if failed > 0 || passed == 0 {
        bail!("not every test passed");
    }
    Ok(())
}

/// Numbers of tests by result.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    passed: u32,
    failed: u32,
    ignored: u32,
}

/// All but the seeds, and these optimized.
fn both(arguments: &[String]) -> anyhow::Result<(Sums, Vec<String>)> {
    let (one, mut why) = tests(&["--workspace", "--exclude", "herder-sim", "--no-fail-fast"], arguments)?;
    let mut seeds = vec!["--package", "herder-sim", "--no-fail-fast"];
    seeds.extend(sim::PROFILE);
    let (other, more) = tests(&seeds, arguments)?;
    why.extend(more);
    let sums = Sums {
        passed: one.passed + other.passed,
        failed: one.failed + other.failed,
        ignored: one.ignored + other.ignored,
    };
    Ok((sums, why))
}

/// Runs `cargo test`, shows what it prints, adds its summaries up, and keeps what it says of tests that failed.
fn tests(what: &[&str], arguments: &[String]) -> anyhow::Result<(Sums, Vec<String>)> {
    let mut command = Command::new(run::cargo_path());
    command.arg("test").args(what).args(arguments).envs(sim::environment());
    if std::env::var_os(CASES_SEED).is_none() {
        command.env(CASES_SEED, "1");
    }
    command.stdout(Stdio::piped()).stdin(Stdio::null());
    let mut child = command.spawn().context("cannot start cargo")?;
    let (mut sums, mut why, mut explains) = (Sums::default(), Vec::new(), false);
    for line in BufReader::new(child.stdout.take().context("a pipe")?).lines() {
        let line = line?;
        println!("{line}");
        explains |= line == "failures:";
        if let Some(Sums { passed, failed, ignored }) = summary(&line) {
            sums.passed += passed;
            sums.failed += failed;
            sums.ignored += ignored;
            explains = false;
        }
        if explains {
            why.push(line);
        }
    }
    let status = child.wait()?;
    // A test program that did not compile or crashed has no summary.
    if !status.success() && sums.failed == 0 {
        bail!("cargo test ended with {status}");
    }
    Ok((sums, why))
}

/// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
fn summary(line: &str) -> Option<Sums> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let part = counts.split(';').map(str::trim).find(|part| part.ends_with(word))?;
        part.split(' ').next()?.parse::<u32>().ok()
    };
    Some(Sums { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
}

fn clean() -> anyhow::Result<()> {
    let herder = run::target()?.join("debug/herder");
    let disks = std::fs::read_dir(DISKS).into_iter().flatten().filter_map(Result::ok);
    let names = disks.filter_map(|disk| disk.file_name().into_string().ok());
    for lab in names.filter(|name| LABS.iter().any(|begin| name.starts_with(begin))) {
        run::check(Command::new(&herder).args(["lab", "down", "--name", &lab]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Sums, summary};

    #[test]
    fn summaries_are_read() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.12s";
        assert_eq!(summary(line), Some(Sums { passed: 5, failed: 2, ignored: 1 }));
        assert_eq!(summary("test a::b ... ok"), None);
    }
}
