//! The project's own verbs: `cargo xtask check | fix | tidy | test | sim | demo | bench`.
#![expect(clippy::print_stdout, reason = "the verbs of a command line talk to a person")]

mod bench;
mod demo;
mod fuzz;
mod packages;
mod run;
mod sim;
mod test;
mod tidy;
mod words;

use std::process::Command;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "herder's own verbs")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Look whether everything is in order; changes nothing
    Check,
    /// Put in order what can be put in order by machine
    Fix,
    /// Look whether crates use only what they may
    Tidy,
    /// Install what is missing, then run every test
    Test,
    /// Three hosts, herder over them, and the voting application to play with
    Demo {
        /// End when everything was shown, instead of waiting for Ctrl-C
        #[arg(long)]
        once: bool,
    },
    /// Ask with random bytes until something breaks, or the time is over
    Fuzz {
        /// Target, or all
        #[arg(default_value = "all")]
        what: String,
        /// Seconds for each target
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Play whole swarms in one thread from seeds, with faults
    Sim {
        /// This seed alone, and tell everything that happens
        seed: Option<u64>,
        /// Seeds from the first up to the second, without it
        #[arg(long, value_name = "FROM..TO", default_value = "0..100", conflicts_with = "seed")]
        seeds: String,
        /// Kind of stories: stores alone, or whole swarms
        #[arg(long, value_parser = ["stores", "swarm", "releases", "parts"])]
        story: Option<String>,
    },
    /// Measure, side by side with what it replaces
    Bench {
        /// Benchmark to run: schedule, swarm-schedule, list, bus, store, control, pool, swarm, failover, scale or all
        #[arg(default_value = "all")]
        what: String,
        #[arg(long, default_value = "table", value_parser = ["table", "json"])]
        format: String,
        /// Number of times each fault happens, for failover
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Arguments of the benchmark itself, such as `--nodes 10000 --tasks 1000000` for control
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    std::env::set_current_dir(run::root()?)?;
    match Cli::parse().verb {
        Verb::Check => check(),
        Verb::Fix => {
            run::cargo(&["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"])?;
            run::cargo(&["fmt", "--all"])
        }
        Verb::Tidy => tidy::run(),
        Verb::Test => test::run(),
        Verb::Demo { once } => demo::run(once),
        Verb::Fuzz { what, seconds } => fuzz::run(&what, seconds),
        Verb::Sim { seed, seeds, story } => sim::run(seed, &seeds, story.as_deref()),
        Verb::Bench { what, format, rounds, arguments } => bench::run(&what, &format, rounds, &arguments),
    }
}

fn check() -> anyhow::Result<()> {
    run::cargo(&["fmt", "--all", "--check"])?;
    tidy::run()?;
    run::cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    let doc = ["doc", "--workspace", "--no-deps", "--quiet"];
    // Links to private items help whoever reads the source, and do no harm in the pages.
    let flags = "--deny warnings --allow rustdoc::private-intra-doc-links";
    run::check(Command::new(run::cargo_path()).args(doc).env("RUSTDOCFLAGS", flags))?;
    println!("everything is in order");
    Ok(())
}
