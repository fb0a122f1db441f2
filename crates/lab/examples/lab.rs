//! The lab's verbs as a program of their own: `cargo run -p herder-lab --example lab -- up --hosts 2`.

use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    lab: herder_lab::LabArgs,
}

fn main() -> anyhow::Result<()> {
    herder_lab::run(Cli::parse().lab)
}
