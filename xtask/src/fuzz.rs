//! `cargo xtask fuzz`: runs fuzz targets with the stable compiler.

use std::process::Command;

use anyhow::bail;

use crate::run;

const TARGETS: &[&str] = &[
    "expressions",
    "requests",
    "connections",
    "actions",
    "gossip",
    "bus",
    "dns",
    "templates",
    "ingress",
    "proxy",
    "compose",
];

/// Compiler flags of cargo-fuzz, without sanitizers, which only nightly has.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

pub(crate) fn run(what: &str, seconds: u32) -> anyhow::Result<()> {
    let chosen: Vec<&&str> = TARGETS.iter().filter(|name| what == "all" || **name == what).collect();
    if chosen.is_empty() {
        bail!("there is no fuzz target `{what}`; there are: all, {}", TARGETS.join(", "));
    }
    let target = run::target()?.join("fuzz");
    let host = run::read(Command::new("rustc").args(["-vV"]))?;
    let host =
        host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("x86_64-unknown-linux-gnu").to_owned();
    // With a target named, flags are not for build scripts and macros.
    let build = ["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &host];
    let mut build_command = Command::new(run::cargo_path());
    build_command.args(build).env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &target);
    run::check(&mut build_command)?;
    for name in chosen {
        println!("== {name}");
        let folder = target.join("corpus").join(name);
        let findings = target.join("findings").join(name);
        std::fs::create_dir_all(&folder)?;
        std::fs::create_dir_all(&findings)?;
        let program = target.join(&host).join("release").join(name);
        let mut fuzz = Command::new(program);
        fuzz.arg(&folder).arg(format!("-max_total_time={seconds}")).arg("-rss_limit_mb=4096").arg("-timeout=20");
        fuzz.arg("-dict=fuzz/words.dict").arg(format!("-artifact_prefix={}/", findings.display()));
        if *name == "compose" {
            // What people write, to be mutated.
            fuzz.arg("examples/stacks");
        }
        run::check(&mut fuzz)?;
    }
    Ok(())
}
