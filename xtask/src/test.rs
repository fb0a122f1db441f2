//! `cargo xtask test`: everything, with one summary at the end.

mod programs;

use std::process::Command;
use std::sync::mpsc;
use std::thread;

use anyhow::bail;

use crate::{packages, run, sim, tidy};
use programs::{Program, Tests};

/// Name prefixes of labs that tests create. What an aborted run left is removed before and after.
const LABS: &[&str] = &["scenarios", "agent-tests"];
/// Folder of the labs' disks.
const DISKS: &str = "/var/lib/herder-lab";
/// Builds every test program and the programs that they start, with one choice of features. A package built alone would
/// be built a second time.
const BUILD: &[&str] = &["build", "--workspace", "--exclude", "herder-sim", "--lib", "--bins", "--tests", "--examples"];
/// Free space in GiB that a run needs beside the results of an earlier build.
///
/// It is for labs, their images, and crates that are compiled again.
const SPACE: u64 = 6;
/// The same where nothing is built yet.
const SPACE_EMPTY: u64 = 20;
/// The test program that waits most of its time: for containers, elections and stop signals.
const WAITS: &str = "scenarios";

pub(crate) fn run() -> anyhow::Result<()> {
    let target = run::target()?;
    run::needs_space(&target, if target.join("debug/deps").exists() { SPACE } else { SPACE_EMPTY })?;
    packages::ensure(&[packages::LAB, packages::AUTHORITY, packages::TESTS])?;
    packages::ensure_clients()?;
    tidy::run()?;
    let programs = programs::build(BUILD)?;
    clean()?;
    let outcome = all(programs);
    clean()?;
    let Tests { passed, failed, ignored, why } = outcome?;
    // Once more, where whoever reads the end of a long output sees it.
    why.iter().for_each(|line| println!("{line}"));
    println!("\n{passed} passed, {failed} failed, {ignored} skipped");
    if failed > 0 || passed == 0 {
        bail!("not every test passed");
    }
    Ok(())
}

/// Runs the scenarios beside all other programs, and the seeds last, when the machine has nothing else to do.
fn all(programs: Vec<Program>) -> anyhow::Result<Tests> {
    let (waiting, others): (Vec<_>, Vec<_>) = programs.into_iter().partition(|program| program.name == WAITS);
    let (send, results) = mpsc::channel();
    let seeds = thread::scope(|scope| {
        let to = send.clone();
        scope.spawn(move || waiting.iter().for_each(|program| drop(to.send(program.run(true)))));
        others.iter().for_each(|program| drop(send.send(program.run(false))));
        drop(send.send(programs::documentation()));
        let mut build = vec!["test", "--no-run", "--package", "herder-sim"];
        build.extend(sim::PROFILE);
        programs::build(&build)
    })?;
    drop(send);
    let mut sums = Tests::default();
    for tests in results.into_iter().chain(seeds.iter().map(|program| program.run(true))) {
        sums.add(tests?);
    }
    Ok(sums)
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
