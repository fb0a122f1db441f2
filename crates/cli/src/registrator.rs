//! `herder registrator`: services of one engine's containers in a store, with Registrator's flags.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;

use crate::error::UsageError;
use crate::up::Door;

/// Register the services of one engine's containers in Consul, etcd or ZooKeeper.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder registrator consul://127.0.0.1:8500                      in Consul's catalogue, by the agent of this host
  herder registrator --ip 10.0.0.5 consulkv://consul/services     as keys services/NAME/HOST:CONTAINER:PORT = IP:PORT
  herder registrator --ttl 30 --ttl-refresh 10 etcd://etcd:2379/services
  herder registrator --naming legacy-2015 consul://consul/services
  herder registrator -H unix:///run/herder.sock --pool consulkv://consul/services       for a whole pool

Options may be written with one dash, as in Registrator: -ip, -ttl-refresh, -useIpFromLabel.")]
pub struct Registrator {
    /// consul:// consul-tls:// consul-unix:// consulkv:// consulkv-unix:// etcd:// etcd2:// skydns2:// zookeeper://, then HOST, then :PORT and /PATH if there are any
    pub uri: String,
    /// Address of this host in all services [default: that of the binding, or what the host's name resolves to]
    #[arg(long)]
    pub ip: Option<String>,
    /// Name of this host, the first part of each id [default: that of the system]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Register the containers' own addresses and ports
    #[arg(long)]
    pub internal: bool,
    /// Only register containers with SERVICE_NAME
    #[arg(long)]
    pub explicit: bool,
    /// Take the address from this label of the container
    #[arg(long = "useIpFromLabel", alias = "use-ip-from-label", value_name = "LABEL")]
    pub use_ip_from_label: Option<String>,
    /// Tags that every service gets, with commas; may be a template over the container
    #[arg(long, default_value = "", value_name = "TAGS")]
    pub tags: String,
    /// Time of life of entries in seconds; 0: no end
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub ttl: u64,
    /// Interval in seconds at which entries are renewed
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub ttl_refresh: u64,
    /// Interval in seconds at which everything is registered again; 0: never
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub resync: u64,
    /// Time to remove entries of ended containers: always, or on-success (those of failed ones stay until their TTL)
    #[arg(long, default_value = "always", value_parser = ["always", "on-success"], value_name = "WHEN")]
    pub deregister: String,
    /// Remove entries of this host that no container has
    #[arg(long)]
    pub cleanup: bool,
    /// Attempts at the store at the start, besides the first; -1: for ever
    #[arg(long, default_value_t = 0, value_name = "NUMBER", allow_hyphen_values = true)]
    pub retry_attempts: i64,
    /// Milliseconds between these attempts
    #[arg(long, default_value_t = 2000, value_name = "MILLISECONDS")]
    pub retry_interval: u64,
    /// Rules of names: v7 (Registrator 7) or legacy-2015
    #[arg(long, default_value = "v7", value_parser = ["v7", "legacy-2015"], value_name = "ERA")]
    pub naming: String,
    /// The endpoint is one over many engines. The containers of all nodes are registered, each with its node's name and
    /// address, and entries of a node that is down are removed
    #[arg(long)]
    pub pool: bool,
    /// With consul://, register in the catalogue under a node with this host's name, for one Consul of many hosts
    #[arg(long)]
    pub consul_catalog: bool,
    #[command(flatten)]
    pub door: Door,
}

impl Registrator {
    /// Refuses flags that exclude each other.
    ///
    /// # Errors
    /// The sentence of Registrator.
    pub fn check(&self) -> Result<(), UsageError> {
        match (self.ttl, self.ttl_refresh) {
            (0, 0) => Ok(()),
            (0, _) | (_, 0) => Err(UsageError::TtlPair),
            (ttl, refresh) if ttl <= refresh => Err(UsageError::TtlRefresh),
            _ => Ok(()),
        }
    }

    /// The address in `--ip`, where it is one and not a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.ip.as_deref()?.parse().ok()
    }

    /// A number of seconds; none for 0.
    pub fn seconds(number: u64) -> Option<Duration> {
        (number > 0).then(|| Duration::from_secs(number))
    }
}
