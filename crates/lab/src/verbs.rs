//! `herder lab …`: the verbs, as declarations, and what they print.
#![expect(clippy::print_stdout, reason = "the verbs of a command line talk to a person")]

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::faults::Slowness;
use crate::plan;
use crate::{Lab, LabSpec};

/// Several Docker hosts on this machine, to try herder on
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  herder lab up --hosts 3 --labels h1:zone=a,disk=ssd --labels h2:zone=b
  herder lab status
  herder lab exec h1 docker ps
  herder lab kill h2 && herder lab start h2
  herder lab down")]
pub struct LabArgs {
    #[command(subcommand)]
    verb: Verb,
    /// Name of the lab
    #[arg(long, global = true, default_value = "lab", value_name = "NAME")]
    name: String,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a lab: hosts with an engine each, joined by a network of their own
    Up {
        /// Number of hosts
        #[arg(long, default_value_t = 3)]
        hosts: u16,
        /// Labels of engines: h1:zone=a,disk=ssd, or zone=a for all; may be repeated
        #[arg(long, value_name = "LABELS")]
        labels: Vec<String>,
        /// The memory that each engine shows, such as 2g
        #[arg(long, value_name = "SIZE")]
        memory: Option<String>,
        /// One more argument for each dockerd; may be repeated
        #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
        engine_arg: Vec<String>,
        /// Run `herder up` beside each engine, all in one pool
        #[arg(long)]
        herder: bool,
        /// One more argument for each `herder up`; may be repeated
        #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
        herder_arg: Vec<String>,
    },
    /// Show the hosts
    #[command(visible_alias = "ps")]
    Status {
        #[arg(long, default_value = "table", value_parser = ["table", "json"])]
        format: String,
    },
    /// Run a command inside a host
    Exec {
        host: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Print what makes docker talk to a host's engine
    Env { host: String },
    /// End a host's engine at once; its containers stay
    Kill {
        host: String,
        /// Act on the herder beside the engine instead
        #[arg(long)]
        herder: bool,
    },
    /// Start a host's engine
    Start {
        host: String,
        /// Act on the herder beside the engine instead
        #[arg(long)]
        herder: bool,
        /// One more argument for this dockerd, this time; may be repeated
        #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true, conflicts_with = "herder")]
        engine_arg: Vec<String>,
    },
    /// Cut the lab in two: the hosts named here, and the others
    Split {
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Make a host's engine hang
    Pause { host: String },
    /// Let a hung engine go on
    Resume { host: String },
    /// Pull the plug of a host; its disk stays
    Crash { host: String },
    /// Turn a host on again
    Boot { host: String },
    /// Cut a host off
    Partition {
        host: String,
        /// Leave the cable in and drop every packet
        #[arg(long)]
        silent: bool,
    },
    /// Undo partition and slow, for one host or for all
    Heal { host: Option<String> },
    /// Make a host's line slow or lossy
    Slow {
        host: String,
        #[command(flatten)]
        slowness: Slowness,
    },
    /// Remove a lab and everything that it made
    Down,
}

/// Runs the command of the lab. Blocks.
pub fn run(args: LabArgs) -> anyhow::Result<()> {
    let name = args.name;
    match args.verb {
        Verb::Up { hosts, labels, memory, engine_arg, herder, herder_arg } => {
            let memory_bytes = memory.map(|text| plan::bytes(&text)).transpose().map_err(anyhow::Error::msg)?;
            let herder = herder.then(std::env::current_exe).transpose()?;
            let (engine_args, herder_args) = (engine_arg, herder_arg);
            let engine_env = Vec::new();
            up(&LabSpec { name, hosts, labels, memory_bytes, engine_args, engine_env, herder, herder_args })
        }
        Verb::Status { format } => status(&name, &format),
        Verb::Exec { host, command } => exec(&Lab::open(&name)?, &host, &command),
        Verb::Env { host } => {
            println!("export DOCKER_HOST={}", Lab::open(&name)?.docker_host(&host)?);
            Ok(())
        }
        Verb::Kill { host, herder: true } => Lab::open(&name)?.kill_herder(&host),
        Verb::Kill { host, herder: false } => Lab::open(&name)?.kill(&host),
        Verb::Start { host, herder: true, .. } => Lab::open(&name)?.start_herder(&host),
        Verb::Start { host, herder: false, engine_arg } => Lab::open(&name)?.start(&host, &engine_arg),
        Verb::Split { hosts } => Lab::open(&name)?.split(&hosts),
        Verb::Pause { host } => Lab::open(&name)?.pause(&host),
        Verb::Resume { host } => Lab::open(&name)?.resume(&host),
        Verb::Crash { host } => Lab::open(&name)?.crash(&host),
        Verb::Boot { host } => Lab::open(&name)?.boot_again(&host),
        Verb::Partition { host, silent } => Lab::open(&name)?.partition(&host, silent),
        Verb::Heal { host } => Lab::open(&name)?.heal(host.as_deref()),
        Verb::Slow { host, slowness } => Lab::open(&name)?.slow(&host, &slowness),
        Verb::Down => Lab::down_by_name(&name),
    }
}

fn up(spec: &LabSpec) -> anyhow::Result<()> {
    let bar = ProgressBar::new(u64::from(spec.hosts) + 1);
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    let outcome = Lab::up(spec, &|news| {
        bar.inc(1);
        bar.set_message(news.to_owned());
        if !std::io::stderr().is_terminal() {
            anstream::eprintln!("{news}");
        }
    });
    bar.finish_and_clear();
    if let Err(error) = outcome {
        // Whoever made an aborted lab is told how to be rid of it, unless there is none.
        let hint = format!("`herder lab down --name {}` removes what is there", spec.name);
        return Err(if Lab::names().contains(&spec.name) { error.context(hint) } else { error });
    }
    status(&spec.name, "table")
}

fn status(name: &str, format: &str) -> anyhow::Result<()> {
    let lab = Lab::open(name)?;
    let hosts = lab.status();
    if format == "json" {
        println!("{}", serde_json::json!({"name": name, "gateway": lab.gateway(), "hosts": hosts}));
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["HOST", "STATE", "DOCKER_HOST", "HERDER", "LABELS"]);
    for host in hosts {
        let herder = host.herder_host.unwrap_or_default();
        table.add_row([host.name, host.state.to_owned(), host.docker_host, herder, host.labels.join(",")]);
    }
    println!("{}", table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// Becomes the command, so that its terminal, signals and exit code are its own.
fn exec(lab: &Lab, host: &str, command: &[String]) -> anyhow::Result<()> {
    let enter = lab.enter(host)?;
    let error =
        Command::new(&enter[0]).args(&enter[1..]).args(command).env("DOCKER_HOST", lab.docker_host(host)?).exec();
    Err(error).with_context(|| format!("cannot run `{}` in {host}", command.join(" ")))
}
