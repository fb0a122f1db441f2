//! `herder render`: configuration files from a store or the cluster, with the flags of consul-template and of confd.

use std::path::PathBuf;

use clap::Args;

use crate::up::Door;

/// Render configuration files from what a store or the cluster says, and reload what reads them.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder render -template haproxy.ctmpl:/etc/haproxy/haproxy.cfg:'systemctl reload haproxy'
  herder render --source herder:// -template builtin/nginx:/etc/nginx/nginx.conf:'nginx -s reload'
  herder render --config /etc/consul-template.d -once
  herder render --confdir /etc/confd --backend etcdv3 --node 10.0.0.5:2379 --watch

Templates are those of consul-template, or of confd with --confdir. Options may be written with one dash.")]
pub struct Render {
    /// SOURCE:DESTINATION or SOURCE:DESTINATION:COMMAND; may be repeated; SOURCE may be builtin/haproxy or builtin/nginx
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Vec<String>,
    /// Configuration file of consul-template (.toml, .json, .hcl), or a folder of such; may be repeated
    #[arg(long, value_name = "PATH")]
    pub config: Vec<PathBuf>,
    /// Source of values. One of consul://, etcd://, etcd2://, zookeeper://HOST:PORT,…, or herder:// for the services
    /// of the cluster behind -H [default: consul:// at CONSUL_HTTP_ADDR, or at 127.0.0.1:8500]
    #[arg(long, value_name = "URL")]
    pub source: Option<String>,
    /// Address of Consul, as consul-template has it
    #[arg(long, value_name = "HOST:PORT")]
    pub consul_addr: Option<String>,
    /// Token for Consul [default: CONSUL_HTTP_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub consul_token: Option<String>,
    /// Render everything once and end
    #[arg(long)]
    pub once: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub dry: bool,
    /// Time to wait for more changes: MIN or MIN:MAX [default: 200ms:2s]
    #[arg(long, value_name = "MIN[:MAX]")]
    pub wait: Option<String>,
    /// Program that runs beside the rendered files. It starts when all are there and restarts when one changes; its end ends herder
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,
    /// Signal that tells the program of a change, instead of beginning it anew
    #[arg(long, value_name = "SIGNAL", requires = "exec")]
    pub exec_reload_signal: Option<String>,
    /// Signal that asks the program to end [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL", requires = "exec")]
    pub exec_kill_signal: Option<String>,
    /// Time after which the program is killed then [default: 30s]
    #[arg(long, value_name = "TIME", requires = "exec")]
    pub exec_kill_timeout: Option<String>,
    /// Folder in which this process tells the state of its files
    #[arg(long, default_value = "/run/herder-render", value_name = "FOLDER")]
    pub status_folder: PathBuf,
    /// Show the state of all files rendered on this host, and end; fails if one of them failed
    #[arg(value_parser = ["status"], value_name = "status")]
    pub verb: Option<String>,
    /// Output format of the states
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    pub format: String,
    /// A command that fails ends herder, as it ends consul-template
    #[arg(long)]
    pub strict: bool,
    /// Write this process's id into a file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Lowest level that is logged: debug, info, warn or error
    #[arg(long, value_name = "LEVEL", ignore_case = true, value_parser = ["trace", "debug", "info", "warn", "warning", "error"])]
    pub log_level: Option<String>,

    /// confd: folder with conf.d and templates
    #[arg(long, value_name = "FOLDER")]
    pub confdir: Option<PathBuf>,
    /// confd: consul, etcd (its second API), etcdv3, zookeeper or env
    #[arg(long, value_name = "STORE", value_parser = ["consul", "etcd", "etcdv3", "zookeeper", "env"])]
    pub backend: Option<String>,
    /// confd: address of the store; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    pub node: Vec<String>,
    /// confd: what is taken off in front of all keys
    #[arg(long, default_value = "", value_name = "PREFIX")]
    pub prefix: String,
    /// confd: as --once
    #[arg(long)]
    pub onetime: bool,
    /// confd: accepted; changes are always watched
    #[arg(long)]
    pub watch: bool,
    /// confd: accepted; changes are always watched
    #[arg(long, value_name = "SECONDS")]
    pub interval: Option<u64>,
    /// confd: say what would change, and change nothing
    #[arg(long)]
    pub noop: bool,
    /// confd: write files, and run neither checks nor reloads
    #[arg(long)]
    pub sync_only: bool,
    /// confd: leave staged files that failed their check
    #[arg(long)]
    pub keep_stage_file: bool,
    #[command(flatten)]
    pub door: Door,
}
