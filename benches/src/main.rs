//! `cargo xtask bench pool`, `scale`, `swarm`, `net`, `failover`, `soak` and `storm`. They run the real herder over real
//! engines, and over many simulated ones.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to a person")]

mod failover;
mod http;
mod load;
mod net;
mod pool;
mod process;
mod report;
mod scale;
mod soak;
mod storm;
mod streams;
mod swarm;

use anyhow::bail;
use clap::Parser;

#[derive(Debug, Parser)]
struct Cli {
    /// pool, scale, swarm, net, failover, soak or storm
    what: String,
    /// table or json
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Number of times each fault happens
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of the soak in minutes; two hours show what a night would
    #[arg(long, default_value_t = 120)]
    minutes: u64,
    /// Requests per second of the storm
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Name of the storm's lab
    #[arg(long, default_value = "bench-storm")]
    lab: String,
    /// Server of the part `dns-load`, which `net` starts in a container's network
    #[arg(long, hide = true, default_value = "")]
    gateway: String,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let json = cli.format == "json";
    // One thread: the generator of load leaves the other processors to what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = async {
        match cli.what.as_str() {
            "pool" => pool::run(json).await,
            "scale" => scale::run(json).await,
            "swarm" => swarm::run(json).await,
            "net" => net::run(json).await,
            "dns-load" => net::dns_load(&cli.gateway),
            "failover" => failover::run(json, cli.rounds).await,
            "soak" => soak::run(json, cli.minutes).await,
            "storm" => storm::run(json, cli.lab.clone(), cli.rate).await,
            // What runs in its tasks.
            "storm-task" => storm::task::serve().await,
            other => {
                bail!("there is no benchmark `{other}` here; there are: pool, scale, swarm, net, failover, soak, storm")
            }
        }
    };
    runtime.block_on(async {
        tokio::select! {
            outcome = work => outcome,
            // What was started ends with its handles.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

/// Prints the progress while nothing is measured.
fn note(text: &str) {
    eprintln!("… {text}");
}
