//! `up`, `token` and `node`: a pool without masters.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::args::{ActionArgs, EndpointArgs, given};
use crate::error::UsageError;
use crate::tls::{TlsArgs, TlsFiles};

/// Default folder of a node's identity.
pub(crate) const STATE: &str = "/var/lib/herder";

/// Stands for standard input in place of a join code.
const STDIN: &str = "-";

pub use herder_model::NODE_PORT;

/// Run beside the local Docker Engine as a node of a pool.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder up                                        a pool of one that others can join
  herder token                                     what others need to join
  herder up --join 10.0.0.1 --token-file code      join it
  herder up --listen tcp://0.0.0.0:2376 --tlsverify --tlscacert ca.pem --tlscert cert.pem --tlskey key.pem
                                                   also serve the Docker API on TCP, to whom `herder certs` made known
  DOCKER_HOST=unix:///run/herder.sock docker ps    use the pool
  herder up --print-unit > /etc/systemd/system/herder.service")]
pub struct Up {
    /// Name of this node [default: that of the engine]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Nodes to join, with or without port; may be repeated
    #[arg(long, value_name = "ADDR,…", value_delimiter = ',')]
    pub join: Vec<String>,
    /// The pool's join code, or - to read it from standard input; needed the first time only
    #[arg(long, env = "HERDER_TOKEN", value_name = "CODE", hide_env_values = true)]
    pub token: Option<String>,
    /// File that holds the join code; its text goes before --token and HERDER_TOKEN
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Find nodes to join here: file://PATH, consul://, etcd:// or zk://HOST,…/PREFIX
    #[arg(long, value_name = "URL")]
    pub discovery: Option<String>,
    /// Option of the discovery back end; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub discovery_opt: Vec<String>,
    /// Address to listen on besides the socket: tcp://IP:PORT or unix:///PATH; may be repeated
    #[arg(long, short = 'H', visible_alias = "host", value_name = "URL", value_delimiter = ',')]
    pub listen: Vec<String>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// The unix socket that always serves the Docker API
    #[arg(long, default_value = "/run/herder.sock", value_name = "PATH")]
    pub socket: PathBuf,
    /// The local Docker Engine
    #[arg(long, default_value = "unix:///var/run/docker.sock", value_name = "URL")]
    pub engine: String,
    /// Address under which other nodes reach this one [default: found out], port 7946
    #[arg(long, value_name = "IP[:PORT]")]
    pub advertise: Option<String>,
    /// Label of this node; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Folder of the node's identity
    #[arg(long, default_value = STATE, value_name = "FOLDER")]
    pub state: PathBuf,
    /// Ranking of nodes: spread, binpack or random
    #[arg(long, default_value = "spread", value_name = "NAME")]
    pub strategy: String,
    /// Root of the documented addresses on the event bus
    #[arg(long, default_value = "herder", value_name = "NAME")]
    pub cluster: String,
    /// Address at which Vert.x clients of the event bus connect by TCP, such as 127.0.0.1:7000 [default: none]
    #[arg(long, value_name = "IP:PORT")]
    pub bus_listen: Option<String>,
    /// Rules for clients of the event bus, as JSON; docs/bus.md describes the form [default: documented addresses]
    #[arg(long, value_name = "FILE")]
    pub bus_rules: Option<PathBuf>,
    #[command(flatten)]
    pub actions: ActionArgs,
    #[command(flatten)]
    pub endpoint: EndpointArgs,
    /// Do not answer or ask by multicast on the local network
    #[arg(long)]
    pub no_multicast: bool,
    /// Print a systemd unit with these options, and end
    #[arg(long)]
    pub print_unit: bool,
}

/// Checked settings of `up`.
#[derive(Clone, Debug)]
pub struct UpSettings {
    pub name: Option<String>,
    /// `host:port` each.
    pub join: Vec<String>,
    pub token: Option<String>,
    pub discovery: Option<String>,
    pub discovery_options: Vec<(String, String)>,
    /// URLs, the socket's first.
    pub listen: Vec<String>,
    /// TLS files for listeners on TCP.
    pub tls: Option<TlsFiles>,
    pub engine: String,
    /// `host:port`, or only the port when the address is to be found out.
    pub advertise: (Option<String>, u16),
    pub labels: Vec<(String, String)>,
    pub state: PathBuf,
    pub strategy: String,
    pub multicast: bool,
    pub cluster: String,
    pub bus_listen: Option<String>,
    pub bus_rules: Option<PathBuf>,
    pub actions: ActionArgs,
    pub endpoint: EndpointArgs,
}

impl Up {
    /// Checks everything before anything is done.
    pub fn settings(self) -> anyhow::Result<UpSettings> {
        // As everywhere on the command line, what is empty counts as not given.
        let text = |text: &Option<String>| given(text.as_deref()).map(str::to_owned);
        let join = self.join.iter().filter(|text| !text.is_empty());
        let join = join.map(|text| with_port(text)).collect::<Result<_, _>>()?;
        let bus_listen = text(&self.bus_listen);
        let listen: Vec<String> = self.listen.iter().filter(|url| !url.is_empty()).cloned().collect();
        let advertise = match given(self.advertise.as_deref()) {
            None => (None, NODE_PORT),
            Some(text) => {
                let text = with_port(text)?;
                let (host, port) = text.rsplit_once(':').unwrap_or((&text, ""));
                (Some(host.to_owned()), port.parse().unwrap_or(NODE_PORT))
            }
        };
        let pair = |text: &String| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels = self.label.iter().map(|text| {
            let label = pair(text).filter(|(key, _)| !key.is_empty() && key != "node");
            label.ok_or_else(|| UsageError::Label(text.clone()))
        });
        let options = self.discovery_opt.iter().map(|text| pair(text).ok_or(UsageError::DiscoveryOption));
        let socket = format!("unix://{}", self.socket.display());
        let tls = self.tls.files()?;
        let tcp = listen.iter().any(|url| !url.starts_with("unix://")) || bus_listen.is_some();
        // The file may open a door on TCP.
        if tls.is_some() && !tcp && self.actions.conf.is_none() {
            return Err(UsageError::TlsForNothing.into());
        }
        Ok(UpSettings {
            join,
            labels: labels.collect::<Result<_, _>>()?,
            discovery_options: options.collect::<Result<_, _>>()?,
            listen: std::iter::once(socket).chain(listen).collect(),
            tls,
            name: text(&self.name),
            token: token(text(&self.token), self.token_file)?,
            discovery: text(&self.discovery),
            engine: self.engine,
            advertise,
            state: self.state,
            strategy: self.strategy,
            multicast: !self.no_multicast,
            cluster: self.cluster,
            bus_listen,
            bus_rules: self.bus_rules,
            actions: self.actions,
            endpoint: self.endpoint,
        })
    }
}

/// The join code from where the command line says it is.
fn token(token: Option<String>, file: Option<PathBuf>) -> anyhow::Result<Option<String>> {
    let text = match (file, token) {
        (Some(file), _) => {
            fs::read_to_string(&file).with_context(|| format!("cannot read --token-file {}", file.display()))?
        }
        (None, Some(text)) if text == STDIN => {
            io::read_to_string(io::stdin()).context("cannot read the join code from standard input")?
        }
        (None, token) => return Ok(token.filter(|it| !it.is_empty())),
    };
    Ok(Some(text.trim().to_owned()))
}

/// Takes the value of `--token` out of the arguments of a program. Other users read those in `ps` and in units; `-`, which
/// stands for standard input, stays.
pub fn without_token(arguments: impl IntoIterator<Item = String>) -> (Vec<String>, Option<String>) {
    const FLAG: &str = "--token";
    let (mut rest, mut token) = (Vec::new(), None);
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        let inline = argument.strip_prefix(FLAG).and_then(|it| it.strip_prefix('='));
        match inline.map(str::to_owned) {
            Some(value) if value != STDIN => token = Some(value),
            None if argument == FLAG && arguments.peek().is_some_and(|it| it != STDIN) => token = arguments.next(),
            _ => rest.push(argument),
        }
    }
    (rest, token)
}

/// `10.0.0.1` → `10.0.0.1:7946`; `[::1]` likewise.
fn with_port(text: &str) -> Result<String, UsageError> {
    let wrong = || UsageError::NodeAddress(text.to_owned());
    let plain = text.strip_prefix("tcp://").unwrap_or(text);
    let has_port = plain.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let full = match (has_port, plain.contains(':') && !plain.starts_with('[')) {
        (true, _) => plain.to_owned(),
        (false, true) => format!("[{plain}]:{NODE_PORT}"),
        (false, false) => format!("{plain}:{NODE_PORT}"),
    };
    let (host, port) = full.rsplit_once(':').ok_or_else(wrong)?;
    let fits = !host.is_empty() && !host.contains(['/', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if fits { Ok(full) } else { Err(wrong()) }
}

/// Print the join code of this node's pool, or change it.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder token
  herder token | ssh other herder up --join $(hostname -I | cut -d' ' -f1) --token -
  herder token --rotate --format json

After --rotate the old code lets nobody in any more; nodes that are in stay in. A node that is down or cut off learns of it
when it is back.")]
pub struct Token {
    /// Make a new code, through the node of the door, and print it
    #[arg(long)]
    pub rotate: bool,
    #[command(flatten)]
    pub door: Door,
    /// Folder of the node's identity
    #[arg(long, default_value = STATE, value_name = "FOLDER")]
    pub state: PathBuf,
    /// Output format
    #[arg(long, default_value = "plain", value_parser = ["plain", "json"])]
    pub format: String,
}

/// Look at the nodes of a pool.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder node ls
  herder node ls --host tcp://10.0.0.1:2375 --format json
  DOCKER_HOST=tcp://10.0.0.1:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=certs/client-admin herder node ls")]
pub struct NodeArgs {
    #[command(subcommand)]
    pub verb: NodeVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum NodeVerb {
    /// Every node with its state, address, labels and resources
    Ls(NodeLs),
}

#[derive(Clone, Debug, Args)]
pub struct NodeLs {
    #[command(flatten)]
    pub door: Door,
    /// Output format
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    pub format: String,
}

/// Explain why a task is on its node, or why it waits. Shows every node's reasons for and against it, and
/// remedies.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder why web                  the first task of the service that waits, else its newest one
  herder why 0rkalgw94a8s2pmr2i5cxus1d --format json")]
pub struct Why {
    /// Id of a task, or id or name of a service
    #[arg(value_name = "TASK|SERVICE")]
    pub subject: String,
    #[command(flatten)]
    pub door: Door,
    /// Output format
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}

/// The door of any node.
#[derive(Clone, Debug, Args)]
pub struct Door {
    /// The door to ask: unix:///PATH or tcp://HOST:PORT [default: that of DOCKER_HOST, or unix:///run/herder.sock]
    #[arg(long, short = 'H', env = "HERDER_HOST", value_name = "URL")]
    pub host: Option<String>,
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// File from which the unit takes the join code.
pub const ENVIRONMENT: &str = "/etc/herder/environment";

/// A systemd unit that runs `up` with these arguments. A join code among them is left out: every user can read units.
pub fn unit(program: &str, arguments: &[String]) -> String {
    let (arguments, _) = without_token(arguments.iter().cloned());
    let quoted = |text: &String| match text.contains([' ', '"', '\'', '\\', '$', '%']) {
        true => {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$").replace('%', "%%"))
        }
        false => text.clone(),
    };
    let line: Vec<String> = std::iter::once(&program.to_owned()).chain(&arguments).map(quoted).collect();
    format!(
        "[Unit]
Description=herder, a node of a pool of Docker hosts
Documentation=man:docker(1)
Wants=network-online.target docker.service
After=network-online.target docker.service

[Service]
Type=notify
# The first start needs the pool's join code: write HERDER_TOKEN=SWMTKN-1-… to this file, and make it readable for root only.
EnvironmentFile=-{ENVIRONMENT}
ExecStart={}
Restart=always
RestartSec=1
# Containers belong to the engine: nothing of theirs ends with this service.
KillMode=process
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
",
        line.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_in_the_end() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1:7946"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("tcp://h1", "h1:7946"),
            ("::1", "[::1]:7946"),
            ("[::1]", "[::1]:7946"),
            ("[::1]:9", "[::1]:9"),
            ("", "-"),
            ("h1:0", "-"),
            ("h1:x", "-"),
            ("a/b", "-"),
        ] {
            assert_eq!(with_port(text).as_deref().unwrap_or("-"), expected, "{text}");
        }
    }

    #[test]
    fn a_unit_quotes_what_systemd_would_cut() {
        let text = unit("/usr/bin/herder", &["up".into(), "--label".into(), "a=b c$".into()]);
        assert!(text.contains("ExecStart=/usr/bin/herder up --label \"a=b c$$\"\n"), "{text}");
        assert!(text.contains("Type=notify"));
    }

    #[test]
    fn a_join_code_is_in_no_unit_and_in_no_list_of_processes() {
        let check = |line: &str, rest: &str, token: Option<&str>| {
            let (left, taken) = without_token(line.split_whitespace().map(str::to_owned));
            assert_eq!((left.join(" ").as_str(), taken.as_deref()), (rest, token), "{line}");
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert!(token.is_none_or(|token| !unit("herder", &arguments).contains(token)), "{line}");
        };
        check("up --token SECRET --join h1", "up --join h1", Some("SECRET"));
        check("up --join h1 --token=SECRET", "up --join h1", Some("SECRET"));
        check("up --token - --join h1", "up --token - --join h1", None);
        check("up --token=-", "up --token=-", None);
        check("up --token", "up --token", None);
        check("up --token-file FILE", "up --token-file FILE", None);
    }

    #[test]
    fn a_join_code_is_read_from_a_file() {
        let file = std::env::temp_dir().join(format!("herder-token-{}", std::process::id()));
        fs::write(&file, "CODE\n").expect("written");
        let read = token(Some("other".into()), Some(file.clone())).expect("readable");
        fs::remove_file(&file).expect("there");
        assert_eq!(read.as_deref(), Some("CODE"));
        assert_eq!(token(Some("given".into()), None).expect("given").as_deref(), Some("given"));
        let error = token(None, Some(file.clone())).expect_err("gone").to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
}
