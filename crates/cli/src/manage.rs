//! `manage` and `join`: what was typed, and what it means after it was checked.

use std::time::Duration;

use clap::Args;

use crate::args::{ActionArgs, Discovered, EndpointArgs, given};
use crate::duration::{self, Signed};
use crate::error::{Ratio, UsageError};
use crate::tls::{TlsArgs, TlsFiles};

/// Serve the Docker API over many engines.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  herder manage -H tcp://0.0.0.0:2375 10.0.0.[1:3]:2375
  herder manage --strategy binpack -H unix:///run/herder.sock file:///etc/herder/nodes
  herder manage --replication --advertise 10.0.0.9:2375 consul://10.0.0.8:8500/cluster
  herder manage --tlsverify --tlscacert ca.pem --tlscert cert.pem --tlskey key.pem 10.0.0.1:2376")]
pub struct Manage {
    #[command(flatten)]
    pub discovered: Discovered,
    /// Ranking of nodes: spread, binpack or random
    #[arg(long, default_value = "spread", value_name = "NAME")]
    pub strategy: String,
    /// Use only these filters, in this order; may be repeated [default: all]
    #[arg(long, short, value_name = "NAME")]
    pub filter: Vec<String>,
    /// Address to listen on: tcp://IP:PORT or unix:///PATH; may be repeated [default: tcp://127.0.0.1:2375]
    #[arg(long, short = 'H', env = "SWARM_HOST", value_delimiter = ',', value_name = "URL")]
    pub host: Vec<String>,
    /// One of several managers; the primary is chosen by a lock in the discovery store
    #[arg(long)]
    pub replication: bool,
    /// Time for which the lock of a vanished primary is kept
    #[arg(long, default_value = "20s", value_name = "TIME", allow_hyphen_values = true)]
    pub replication_ttl: String,
    /// Address under which other managers reach this one
    #[arg(long, visible_alias = "addr", env = "SWARM_ADVERTISE", value_name = "IP:PORT")]
    pub advertise: Option<String>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Shortest time between two full reads of an engine
    #[arg(long, default_value = "30s", value_name = "TIME", allow_hyphen_values = true)]
    pub engine_refresh_min_interval: String,
    /// Longest time between two full reads of an engine
    #[arg(long, default_value = "60s", value_name = "TIME", allow_hyphen_values = true)]
    pub engine_refresh_max_interval: String,
    /// Failures in a row that make a node unhealthy
    #[arg(long, default_value_t = 3, value_name = "COUNT", allow_hyphen_values = true)]
    pub engine_failure_retry: i64,
    /// Deprecated: use --engine-failure-retry
    #[arg(long, default_value_t = 3, hide = true, allow_hyphen_values = true)]
    pub engine_refresh_retry: i64,
    /// Interval at which discovery is read anew
    #[arg(long, default_value = "60s", value_name = "TIME", allow_hyphen_values = true)]
    pub heartbeat: String,
    /// Let pages of other origins call
    #[arg(long, visible_alias = "cors")]
    pub api_enable_cors: bool,
    /// The cluster driver: swarm
    #[arg(long, short, default_value = "swarm", value_name = "NAME")]
    pub cluster_driver: String,
    /// swarm.overcommit=RATIO (0.05) or swarm.createretry=COUNT (0); may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub cluster_opt: Vec<String>,
    /// Read an engine anew before a container list that filters by node
    #[arg(long)]
    pub refresh_on_node_filter: bool,
    /// Read all engines anew before a container list that filters by this name
    #[arg(long, value_name = "NAME")]
    pub container_name_refresh_filter: Option<String>,
    /// Name things in lists as classic Swarm did: /NODE/NAME only, local volumes and networks as NODE/NAME
    #[arg(long)]
    pub classic_names: bool,
    #[command(flatten)]
    pub actions: ActionArgs,
    #[command(flatten)]
    pub endpoint: EndpointArgs,
}

/// Settings of `manage`.
#[derive(Clone, Debug)]
pub struct ManageSettings {
    /// Empty only where `actions.conf` may name the engine.
    pub discovery: String,
    pub discovery_options: Vec<(String, String)>,
    pub strategy: String,
    pub filters: Vec<String>,
    pub hosts: Vec<String>,
    /// Advertised address and time to live of the lock, with --replication.
    pub replication: Option<(String, Duration)>,
    pub tls: Option<TlsFiles>,
    pub refresh_min: Duration,
    pub refresh_max: Duration,
    pub failure_retry: u32,
    pub heartbeat: Duration,
    pub cors: bool,
    pub overcommit: f64,
    pub create_retry: u32,
    pub refresh_on_node_filter: bool,
    pub container_name_refresh_filter: Option<String>,
    pub classic_names: bool,
    pub actions: ActionArgs,
    pub endpoint: EndpointArgs,
}

impl Manage {
    /// Checks everything before anything is done.
    pub fn settings(self) -> anyhow::Result<ManageSettings> {
        let discovery = match (self.discovered.url(), &self.actions.conf) {
            (Some(discovery), _) => discovery.to_owned(),
            // The file may name an engine.
            (None, Some(_)) => String::new(),
            (None, None) => return Err(UsageError::Discovery("manage a cluster", "manage").into()),
        };
        let discovery_options = options(&self.discovered.discovery_opt)?;
        let refresh_min = time(&self.engine_refresh_min_interval)?.positive();
        let refresh_min = refresh_min.ok_or(UsageError::Interval("min refresh"))?;
        // Zero and below are less than the shortest, which is the original's sentence for them.
        let refresh_max = time(&self.engine_refresh_max_interval)?.positive().filter(|max| *max >= refresh_min);
        let refresh_max = refresh_max.ok_or(UsageError::IntervalOrder)?;
        if self.engine_refresh_retry != 3 {
            return Err(UsageError::RefreshRetry.into());
        }
        let failure_retry = u32::try_from(self.engine_failure_retry).ok().filter(|count| *count > 0);
        let failure_retry = failure_retry.ok_or(UsageError::FailureRetry)?;
        if self.cluster_driver != "swarm" {
            return Err(UsageError::Driver(self.cluster_driver).into());
        }
        let (overcommit, create_retry) = cluster_options(&self.cluster_opt)?;
        Ok(ManageSettings {
            replication: replication(&self, &discovery)?,
            discovery,
            discovery_options,
            strategy: self.strategy,
            filters: self.filter,
            hosts: hosts(self.host),
            tls: self.tls.files()?,
            refresh_min,
            refresh_max,
            failure_retry,
            heartbeat: heartbeat(&self.heartbeat)?,
            cors: self.api_enable_cors,
            overcommit,
            create_retry,
            refresh_on_node_filter: self.refresh_on_node_filter,
            container_name_refresh_filter: self.container_name_refresh_filter,
            classic_names: self.classic_names,
            actions: self.actions,
            endpoint: self.endpoint,
        })
    }
}

/// Default address of `manage`.
const HOST: &str = "tcp://127.0.0.1:2375";

/// Returns the addresses to listen on; empty entries (`SWARM_HOST=`) count as not given.
fn hosts(given: Vec<String>) -> Vec<String> {
    let hosts: Vec<String> = given.into_iter().filter(|host| !host.is_empty()).collect();
    if hosts.is_empty() { vec![HOST.to_owned()] } else { hosts }
}

fn replication(manage: &Manage, discovery: &str) -> anyhow::Result<Option<(String, Duration)>> {
    let ttl = time(&manage.replication_ttl)?.positive().ok_or(UsageError::Positive("--replication-ttl"))?;
    let advertise = given(manage.advertise.as_deref());
    if let Some(advertise) = advertise {
        check_advertise(advertise)?;
    }
    if !manage.replication {
        return Ok(None);
    }
    if !["consul://", "etcd://", "zk://"].iter().any(|scheme| discovery.starts_with(scheme)) {
        return Err(UsageError::ElectionStore.into());
    }
    let advertise = advertise.ok_or(UsageError::AdvertiseForElection)?;
    Ok(Some((advertise.to_owned(), ttl)))
}

/// Keep an engine's address in a discovery store.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  herder join --advertise 10.0.0.1:2375 consul://10.0.0.8:8500/cluster")]
pub struct Join {
    #[command(flatten)]
    pub discovered: Discovered,
    /// Address of the engine, as managers reach it
    #[arg(long, visible_alias = "addr", env = "SWARM_ADVERTISE", value_name = "IP:PORT")]
    pub advertise: Option<String>,
    /// Interval at which the entry is renewed
    #[arg(long, default_value = "60s", value_name = "TIME", allow_hyphen_values = true)]
    pub heartbeat: String,
    /// Lifetime of the entry without renewal
    #[arg(long, default_value = "180s", value_name = "TIME", allow_hyphen_values = true)]
    pub ttl: String,
    /// Start after a random time of at most this, so that many hosts do not come at once
    #[arg(long, default_value = "0s", value_name = "TIME", allow_hyphen_values = true)]
    pub delay: String,
}

/// Settings of `join`.
#[derive(Clone, Debug)]
pub struct JoinSettings {
    pub discovery: String,
    pub discovery_options: Vec<(String, String)>,
    pub advertise: String,
    pub heartbeat: Duration,
    pub ttl: Duration,
    pub delay: Duration,
}

impl Join {
    /// Checks everything before anything is done.
    pub fn settings(self) -> anyhow::Result<JoinSettings> {
        let discovery = self.discovered.url().ok_or(UsageError::Discovery("join a cluster", "join"))?.to_owned();
        let advertise = given(self.advertise.as_deref()).ok_or(UsageError::AdvertiseMissing)?.to_owned();
        check_advertise(&advertise)?;
        let heartbeat = heartbeat(&self.heartbeat)?;
        let ttl = time(&self.ttl)?.positive().filter(|ttl| *ttl > heartbeat).ok_or(UsageError::Ttl)?;
        let delay = time(&self.delay)?;
        if delay.negative {
            return Err(UsageError::Delay.into());
        }
        let discovery_options = options(&self.discovered.discovery_opt)?;
        Ok(JoinSettings { discovery, discovery_options, advertise, heartbeat, ttl, delay: delay.length })
    }
}

/// Checked settings of `herder list`.
#[derive(Clone, Debug)]
pub struct ListSettings {
    pub discovery: String,
    pub discovery_options: Vec<(String, String)>,
    /// Maximum time to wait for the store.
    pub timeout: Duration,
}

impl crate::List {
    /// Checks everything before anything is done.
    pub fn settings(&self) -> anyhow::Result<ListSettings> {
        let discovery = self.discovered.url().ok_or(UsageError::Discovery("list a cluster", "list"))?.to_owned();
        let timeout = time(&self.timeout)?.positive().ok_or(UsageError::Positive("--timeout"))?;
        Ok(ListSettings { discovery, discovery_options: options(&self.discovered.discovery_opt)?, timeout })
    }
}

fn time(text: &str) -> anyhow::Result<Signed> {
    duration::parse(text).map_err(anyhow::Error::msg)
}

fn heartbeat(text: &str) -> anyhow::Result<Duration> {
    let heartbeat = time(text)?.positive().filter(|time| *time >= Duration::from_secs(1));
    heartbeat.ok_or(UsageError::Heartbeat.into())
}

fn check_advertise(text: &str) -> Result<(), UsageError> {
    let (host, port) = text.rsplit_once(':').ok_or(UsageError::Advertise)?;
    let host_fits = !host.is_empty() && (host.starts_with('[') || !host.contains(':')) && !host.contains('/');
    match port.parse::<u16>() {
        Ok(port) if port > 0 && host_fits => Ok(()),
        _ => Err(UsageError::Advertise),
    }
}

fn options(texts: &[String]) -> Result<Vec<(String, String)>, UsageError> {
    let pair = |text: &String| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    texts.iter().map(|text| pair(text).ok_or(UsageError::DiscoveryOption)).collect()
}

fn cluster_options(texts: &[String]) -> Result<(f64, u32), UsageError> {
    let (mut overcommit, mut create_retry) = (0.05, 0);
    for text in texts {
        let unknown = || UsageError::ClusterOption(text.clone());
        match text.split_once('=').ok_or_else(unknown)? {
            ("swarm.overcommit", value) => {
                overcommit = value.parse().map_err(|_| unknown())?;
                if !(overcommit > -1.0 && overcommit < f64::INFINITY) {
                    return Err(UsageError::Overcommit(Ratio(overcommit)));
                }
            }
            ("swarm.createretry", value) => {
                let count: i64 = value.parse().map_err(|_| unknown())?;
                create_retry = u32::try_from(count).map_err(|_| UsageError::CreateRetry(count))?;
            }
            _ => return Err(unknown()),
        }
    }
    Ok((overcommit, create_retry))
}

#[cfg(test)]
mod tests {
    use crate::{Cli, Verb, argv};
    use clap::Parser as _;

    /// Returns `ok` for a command line, or the sentence of refusal.
    fn outcome(line: &str) -> String {
        // `""` stands for an empty word.
        let words = argv::normalize(format!("herder {line}").split_whitespace().map(|word| word.replace("\"\"", "")));
        let cli = match Cli::try_parse_from(words) {
            Ok(cli) => cli,
            Err(error) => return error.to_string(),
        };
        let settings = match cli.verb {
            Verb::Manage(manage) => manage.settings().map(drop),
            Verb::Up(up) => up.settings().map(drop),
            Verb::Join(join) => join.settings().map(drop),
            Verb::List(list) => list.settings().map(drop),
            _ => Ok(()),
        };
        settings.map_or_else(|error| error.to_string(), |()| "ok".into())
    }

    #[test]
    fn command_lines_are_checked_whole_in_the_originals_words() {
        for (line, expected) in [
            ("manage a:1", "ok"),
            ("m -strategy binpack -f health -f port -H tcp://a:1 -cluster-opt swarm.overcommit=0.1 a:1", "ok"),
            ("manage", "discovery required to manage a cluster. See 'herder manage --help'."),
            ("manage --conf conf.json", "ok"),
            ("manage --task-timeout 2500ms --tracking-service-interval 10s a:1", "ok"),
            ("manage --engine-refresh-min-interval 0s a:1", "min refresh interval should be a positive number"),
            (
                "manage --engine-refresh-min-interval 9s --engine-refresh-max-interval 5s a:1",
                "max refresh interval cannot be less than min refresh interval",
            ),
            ("manage --engine-failure-retry 0 a:1", "invalid failure retry count"),
            ("manage --engine-refresh-retry 5 a:1", "--engine-refresh-retry is deprecated. Use --engine-failure-retry"),
            (
                "manage --engine-refresh-max-interval 0s a:1",
                "max refresh interval cannot be less than min refresh interval",
            ),
            (
                "manage --engine-refresh-max-interval -9s a:1",
                "max refresh interval cannot be less than min refresh interval",
            ),
            ("manage --engine-refresh-min-interval -9s a:1", "min refresh interval should be a positive number"),
            ("manage --engine-failure-retry -1 a:1", "invalid failure retry count"),
            ("manage --heartbeat -5s a:1", "--heartbeat should be at least one second"),
            ("-l DEBUG -experimental manage a:1", "ok"),
            ("--log-level Warning m a:1", "ok"),
            ("manage --advertise \"\" a:1", "ok"),
            ("manage --host \"\" a:1", "ok"),
            ("manage --tlscacert \"\" --tlscert=\"\" --tlskey \"\" a:1", "ok"),
            ("manage --tls --tlscert \"\" --tlskey b a:1", "--tlscert and --tlskey must be provided when using --tls"),
            ("manage \"\"", "discovery required to manage a cluster. See 'herder manage --help'."),
            (
                "manage --replication --advertise \"\" etcd://a:1/x",
                "--advertise address must be provided when using --leader-election",
            ),
            ("manage --replication-ttl -20s a:1", "--replication-ttl should be a positive number"),
            ("join --advertise \"\" consul://a:1", "missing mandatory --advertise flag"),
            ("join --advertise a:1 --ttl -1s consul://a:1", "--ttl must be strictly superior to the heartbeat value"),
            ("list --timeout -10s a:1", "--timeout should be a positive number"),
            ("list \"\"", "discovery required to list a cluster. See 'herder list --help'."),
            ("up --name \"\" --advertise \"\" --token \"\" --discovery \"\" --bus-listen \"\" --join \"\"", "ok"),
            ("manage --heartbeat 100ms a:1", "--heartbeat should be at least one second"),
            ("manage -c mesos a:1", "unsupported cluster \"mesos\""),
            (
                "manage --cluster-opt swarm.overcommit=-2 a:1",
                "swarm.overcommit should be larger than -1, -2.000000 is invalid",
            ),
            ("manage --cluster-opt swarm.createretry=-1 a:1", "swarm.createretry can not be negative, -1 is invalid"),
            ("manage --discovery-opt x a:1", "--discovery-opt must contain key=value strings"),
            ("manage --tls a:1", "--tlscert and --tlskey must be provided when using --tls"),
            ("manage --tlsverify --tlscert a --tlskey b a:1", "--tlscacert must be provided when using --tlsverify"),
            (
                "manage --tlskey b a:1",
                "--tlscert, --tlskey and --tlscacert require the use of either --tls or --tlsverify",
            ),
            ("up --tlsverify --tlscacert c --tlscert a --tlskey b -H tcp://a:1", "ok"),
            ("up --tls", "--tlscert and --tlskey must be provided when using --tls"),
            (
                "up --tlscert a --tlskey b",
                "--tlscert, --tlskey and --tlscacert require the use of either --tls or --tlsverify",
            ),
            ("up --tls --tlscert a --tlskey b --bus-listen a:1 -H unix:///x", "ok"),
            ("up --tls --tlscert a --tlskey b --conf conf.json", "ok"),
            (
                "up --tls --tlscert a --tlskey b -H unix:///x",
                "--tls and --tlsverify are for TCP: give --listen tcp://IP:PORT or --bus-listen; unix sockets stay plain",
            ),
            (
                "manage --replication a:1",
                "Leader election is only supported with consul, etcd and zookeeper discovery.",
            ),
            ("manage --replication etcd://a:1/x", "--advertise address must be provided when using --leader-election"),
            ("manage --replication-ttl 0s a:1", "--replication-ttl should be a positive number"),
            ("manage --advertise nonsense a:1", "--advertise should be of the form ip:port or hostname:port"),
            ("join consul://a:1", "missing mandatory --advertise flag"),
            ("join --advertise a:0 consul://a:1", "--advertise should be of the form ip:port or hostname:port"),
            ("join --advertise a:1 --ttl 60s consul://a:1", "--ttl must be strictly superior to the heartbeat value"),
            ("join --advertise a:1 --delay -1s consul://a:1", "--delay should not be a negative number"),
            ("join --advertise a:1", "discovery required to join a cluster. See 'herder join --help'."),
            ("list --timeout 0s a:1", "--timeout should be a positive number"),
            ("list a:1", "ok"),
        ] {
            assert_eq!(outcome(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_empty_leaves_the_default() {
        let words = ["herder", "manage", "--host", "", "a:1"].map(str::to_owned);
        let Verb::Manage(manage) = Cli::parse_from(words).verb else { panic!("another verb") };
        assert_eq!(manage.settings().unwrap().hosts, ["tcp://127.0.0.1:2375"]);
    }

    #[test]
    fn every_verb_helps_with_an_example() {
        use clap::CommandFactory as _;
        for verb in ["up", "token", "node", "manage", "join", "certs", "lab", "completion", "explain"] {
            let mut command = Cli::command();
            let command = command.find_subcommand_mut(verb).unwrap();
            assert!(command.render_long_help().to_string().contains("Example"), "{verb}");
        }
    }
}
