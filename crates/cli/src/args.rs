//! Every verb with its flags.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::bus::BusArgs;
use crate::export::ExportArgs;
use crate::ingress::{CertArgs, IngressArgs};
use crate::manage::{Join, Manage};
use crate::registrator::Registrator;
use crate::render::Render;
use crate::stack::StackArgs;
use crate::swarm::{Backup, Plan, Restore, ServiceArgs, SwarmArgs, Top};
use crate::up::{NodeArgs, Token, Up, Why};

/// Many Docker hosts that behave as one.
#[derive(Debug, Parser)]
#[command(
    name = "herder",
    version,
    about,
    after_help = "Examples:
  herder up
  herder up --join 10.0.0.1 --token SWMTKN-1-…
  herder manage -H tcp://0.0.0.0:2375 10.0.0.1:2375,10.0.0.2:2375
  DOCKER_HOST=tcp://localhost:2375 docker run -d --name web -p 80:80 nginx
  herder lab up --hosts 3

Every option of classic Swarm is known, also with one dash (-experimental)."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub struct Global {
    /// Log everything
    #[arg(long, env = "DEBUG", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub debug: bool,
    /// Lowest level that is logged: debug, info, warn, error, fatal or panic
    #[arg(long, short, default_value = "info", value_name = "LEVEL", ignore_case = true,
          value_parser = ["trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"])]
    pub log_level: String,
    /// Format of the log
    #[arg(long, default_value = "text", env = "HERDER_LOG_FORMAT", value_parser = ["text", "json"])]
    pub log_format: String,
    /// Configuration file of `up` and `manage`, with the names of flags; flags win over it [default:
    /// /etc/herder/herder.toml, if it exists]
    #[arg(long, env = "HERDER_CONFIG", value_name = "FILE")]
    pub config: Option<std::path::PathBuf>,
    /// Print the settings in force, as a configuration file with where each comes from, and end
    #[arg(long)]
    pub print_config: bool,
    /// Show as experimental in `docker info` and `docker version`
    #[arg(long)]
    pub experimental: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run beside the local Docker Engine as a node of a pool
    Up(Box<Up>),
    /// Print the join code of this node's pool
    Token(Token),
    /// Look at the nodes of a pool
    Node(NodeArgs),
    /// Begin a swarm with settings of herder's own
    Swarm(SwarmArgs),
    /// Tell why a task of a swarm is where it is, or why it waits
    Why(Why),
    /// Show what `docker stack deploy` would change, before it does
    Plan(Plan),
    /// Declare services otherwise, and watch what becomes of it
    Service(ServiceArgs),
    /// Deploy Compose files as stacks
    Stack(Box<StackArgs>),
    /// Route requests from outside to services, by their labels
    Ingress(IngressArgs),
    /// Look after the certificates of the ingress
    Cert(CertArgs),
    /// Keep the services of all nodes in Consul, etcd or ZooKeeper
    Export(ExportArgs),
    /// Show nodes, services, tasks and events of a swarm as they are now
    Top(Top),
    /// Write all that a swarm's managers know into one sealed file
    Backup(Backup),
    /// Begin a swarm anew with what is in a backup
    Restore(Restore),
    /// Send and receive messages on the event bus
    Bus(BusArgs),
    /// Serve the Docker API over many engines
    #[command(visible_alias = "m")]
    Manage(Box<Manage>),
    /// Keep an engine's address in a discovery store
    #[command(visible_alias = "j")]
    Join(Join),
    /// List the engines that discovery knows
    #[command(visible_alias = "l")]
    List(List),
    /// Gone: tokens of hosted discovery
    #[command(visible_alias = "c", hide = true)]
    Create(Create),
    /// Register the services of one engine's containers in Consul, etcd or ZooKeeper
    Registrator(Box<Registrator>),
    /// Render configuration files from a store or the cluster, and reload what reads them
    Render(Box<Render>),
    /// Make a CA and certificates for engines, endpoint and clients
    Certs(Certs),
    /// Hold the lease of fenced containers while `herder up` does not; started by it
    #[command(hide = true)]
    FenceWatch(FenceWatch),
    /// Hold the sockets of the ingress while `herder up` restarts; started by it
    #[command(hide = true)]
    IngressHold,
    /// Answer DNS queries of containers on overlay networks; started by `herder up`
    #[command(hide = true)]
    NetDns(NetAside),
    /// Carry packets of encrypted networks between nodes; started by `herder up`
    #[command(hide = true)]
    NetTunnel(NetAside),
    /// Check the overlay networks of this host
    Doctor(Doctor),
    /// Several Docker hosts on this machine, to try herder on
    Lab(Box<herder_lab::LabArgs>),
    /// Look at configuration files
    Config(ConfigArgs),
    /// Print a completion script for a shell
    Completion(Completion),
    /// Tell more about an error code
    Explain(Explain),
}

/// Arguments of the watchdog of fenced containers.
#[derive(Clone, Debug, Args)]
pub struct FenceWatch {
    /// The node's state folder
    pub state: std::path::PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// File to check
    #[arg(value_parser = ["net"], default_value = "net")]
    pub what: String,
    /// State folder of this host's `herder up`
    #[arg(long, default_value = crate::up::STATE, value_name = "FOLDER")]
    pub state: std::path::PathBuf,
    /// Output format
    #[arg(long, default_value = "plain", value_parser = ["plain", "json"])]
    pub format: String,
}

/// Arguments of the processes of overlay networks.
#[derive(Clone, Debug, Args)]
pub struct NetAside {
    /// Unix socket by which it is fed
    #[arg(long)]
    pub socket: std::path::PathBuf,
    /// Folder in which the DNS server stores what it was fed last, and which holds the key of tunnels
    #[arg(long)]
    pub folder: std::path::PathBuf,
}

/// Source of the engines' addresses.
#[derive(Clone, Debug, Args)]
pub struct Discovered {
    /// nodes://HOST:PORT,… (or the bare list), file://PATH, consul://, etcd:// or zk://HOST,…/PREFIX
    #[arg(env = "SWARM_DISCOVERY", value_name = "DISCOVERY")]
    pub discovery: Option<String>,
    /// Option of the discovery back end: kv.path, kv.cacertfile, kv.certfile, kv.keyfile; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub discovery_opt: Vec<String>,
}

/// Settings of DockerMod's actions (`POST /`).
#[derive(Clone, Debug, Default, Args)]
pub struct ActionArgs {
    /// Folder with templates for the action create-container, NAME.json each
    #[arg(long, value_name = "FOLDER")]
    pub templates: Option<std::path::PathBuf>,
    /// DockerMod's own configuration file; flags win over it, keys without effect are named in the log
    #[arg(long, value_name = "FILE")]
    pub conf: Option<std::path::PathBuf>,
    /// Maximum time of a node's answer to an action [default: 2500ms]
    #[arg(long, value_name = "TIME", value_parser = positive, allow_hyphen_values = true)]
    pub task_timeout: Option<Duration>,
    /// Maximum time of each container of a create [default: 15s]
    #[arg(long, value_name = "TIME", value_parser = positive, allow_hyphen_values = true)]
    pub new_container_timeout: Option<Duration>,
    /// Interval of liveness checks of nodes [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = positive, allow_hyphen_values = true)]
    pub announce_interval: Option<Duration>,
    /// Interval at which all containers of a node are read anew, besides its events
    #[arg(long, value_name = "TIME", value_parser = positive, allow_hyphen_values = true)]
    pub tracking_service_interval: Option<Duration>,
}

impl Discovered {
    /// The discovery URL; an empty argument or environment variable counts as not given, as in classic Swarm.
    pub(crate) fn url(&self) -> Option<&str> {
        given(self.discovery.as_deref())
    }
}

/// An option or environment variable that is empty counts as not given.
pub(crate) fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Protection of an endpoint.
#[derive(Clone, Debug, Default, Args)]
pub struct EndpointArgs {
    /// Further name under which clients may reach the API on TCP, such as pool.example or *.example; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub allowed_host: Vec<String>,
    /// Append an entry (JSON) for each request that may change something to this file
    #[arg(long, value_name = "FILE")]
    pub audit_log: Option<std::path::PathBuf>,
}

pub(crate) fn positive(text: &str) -> Result<Duration, String> {
    crate::duration::parse(text)?.positive().ok_or_else(|| "expected a time above zero".to_owned())
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub discovered: Discovered,
    /// Maximum time to wait for an answer
    #[arg(long, default_value = "10s", value_name = "TIME", allow_hyphen_values = true)]
    pub timeout: String,
    /// Output format
    #[arg(long, default_value = "plain", value_parser = ["plain", "json"])]
    pub format: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  herder certs --dir certs --engine 10.0.0.1 --engine 10.0.0.2,h2.example --endpoint 10.0.0.9 --client admin")]
pub struct Certs {
    /// Folder for the files
    #[arg(long, default_value = "certs", value_name = "FOLDER")]
    pub dir: std::path::PathBuf,
    /// Names and addresses of an engine, joined by commas; may be repeated
    #[arg(long, value_name = "NAME,…")]
    pub engine: Vec<String>,
    /// Names and addresses of the endpoint (`herder manage`), joined by commas
    #[arg(long, default_value = "127.0.0.1,localhost", value_name = "NAME,…")]
    pub endpoint: String,
    /// Name of a client; may be repeated
    #[arg(long, default_value = "client", value_name = "NAME")]
    pub client: Vec<String>,
    /// Lifetime of the certificates in days
    #[arg(long, default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
    /// Replace what is there
    #[arg(long)]
    pub force: bool,
    /// Output format
    #[arg(long, default_value = "plain", value_parser = ["plain", "json"])]
    pub format: String,
}

/// Look at configuration files.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  herder config check                     the file that `up` and `manage` read
  herder config check herder.toml
  herder --print-config up --listen tcp://0.0.0.0:2375 > herder.toml")]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Check a configuration file as a whole, and change nothing
    Check {
        /// The file [default: that of --config, or /etc/herder/herder.toml]
        #[arg(value_name = "FILE")]
        file: Option<std::path::PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    #[arg(hide = true)]
    pub anything: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  herder completion bash > /etc/bash_completion.d/herder")]
pub struct Completion {
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  herder explain HD0006")]
pub struct Explain {
    pub code: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn verbs_about_a_swarm_show_by_example_how_they_are_used() {
        let cli = Cli::command();
        for path in ["why", "plan", "service scale", "service update", "top", "backup", "restore"] {
            let verb = path.split(' ').try_fold(&cli, |verb, name| verb.find_subcommand(name));
            let help = verb.expect("a verb").get_after_help().expect("help").to_string();
            assert!(help.starts_with("Examples:\n") && help.contains(&format!("  herder {path} ")), "{path}: {help}");
        }
    }
}
