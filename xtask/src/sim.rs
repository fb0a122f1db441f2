//! `cargo xtask sim`: plays seeds.

use crate::run;

/// Seeds of each story in every test run, and for how long at the most, in seconds.
const SEEDS: u64 = 500;
const SECONDS: u64 = 220;

/// Faster than a test, with its checks.
pub(crate) const PROFILE: [&str; 2] = ["--profile", "sim"];

pub(crate) fn run(seed: Option<u64>, seeds: &str, story: Option<&str>) -> anyhow::Result<()> {
    let seeds = seed.map_or_else(|| seeds.to_owned(), |seed| seed.to_string());
    let mut line = vec!["run", "--quiet", "--package", "herder-sim"];
    line.extend(PROFILE);
    line.push("--");
    line.extend(story);
    line.push(&seeds);
    run::cargo(&line)
}

/// Variables that tests read.
pub(crate) fn environment() -> [(&'static str, String); 2] {
    [("HERDER_SIM_SEEDS", SEEDS.to_string()), ("HERDER_SIM_SECONDS", SECONDS.to_string())]
}
