//! `herder registrator`: flags → the registrator's settings.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use herder_registrator::service::{Naming, Rules};
use herder_registrator::{Deregister, ForcedTags, Settings, Sink, SinkOptions, run as keep_registered};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::door::Door;
use crate::manage::asked_to_stop;

/// The engine beside which it runs, where nothing else is said.
const ENGINE: &str = "unix:///var/run/docker.sock";

/// Registers until SIGTERM or Ctrl-C. Entries stay then, as the containers do.
pub(crate) async fn run(mut asked: herder_cli::Registrator) -> anyhow::Result<()> {
    asked.check()?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if asked.door.host.is_none() && variable("DOCKER_HOST").is_none() {
        asked.door.host = Some(ENGINE.to_owned());
    }
    let engine = Door::of(&asked.door)?;
    let hostname = match asked.hostname.clone() {
        Some(name) => name,
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let host_ip = match asked.address() {
        Some(ip) => Some(ip),
        None => address_of(&hostname).await,
    };
    let files = ["CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"].map(variable);
    let files = match files {
        [Some(ca), Some(certificate), Some(key)] => Some([ca, certificate, key].map(PathBuf::from)),
        _ => None,
    };
    let catalogue = match (asked.consul_catalog, asked.ip.clone().or(host_ip.map(|ip| ip.to_string()))) {
        (false, _) => None,
        (true, Some(ip)) => Some((hostname.clone(), ip)),
        (true, None) => return Err(anyhow!("the host's name {hostname} has no address: give --ip")),
    };
    let options = SinkOptions { ttl: asked.ttl, token: variable("CONSUL_HTTP_TOKEN"), consul_files: files, catalogue };
    let sink = Sink::parse(&asked.uri, &options)?;
    let legacy = asked.naming == "legacy-2015";
    let settings = Settings {
        rules: Rules {
            hostname: hostname.clone(),
            host_ip,
            ip: asked.ip.clone(),
            internal: asked.internal,
            explicit: asked.explicit,
            ip_label: asked.use_ip_from_label.clone(),
            naming: if legacy { Naming::Legacy2015 } else { Naming::V7 },
            ttl: asked.ttl,
        },
        tags: ForcedTags::parse(&asked.tags).map_err(anyhow::Error::msg).context("--tags")?,
        ttl_refresh: herder_cli::Registrator::seconds(asked.ttl_refresh),
        resync: herder_cli::Registrator::seconds(asked.resync),
        // Entries of other hosts are not told from those of hosts that are gone for good.
        cleanup: if asked.cleanup && !asked.pool { vec![hostname.clone()] } else { Vec::new() },
        deregister: if asked.deregister == "always" { Deregister::Always } else { Deregister::OnSuccess },
        many_hosts: asked.pool,
        retry_attempts: u64::try_from(asked.retry_attempts).ok(),
        retry_interval: Duration::from_millis(asked.retry_interval),
    };
    info!(hostname, store = asked.uri, engine = engine.host, "services of containers are registered");
    let stop = CancellationToken::new();
    tokio::select! {
        ended = keep_registered(engine.link(), &sink, &settings, &stop) => Ok(ended?),
        asked = asked_to_stop() => {
            stop.cancel();
            asked
        }
    }
}

/// The first address that a name has; loopback says nothing to others.
async fn address_of(name: &str) -> Option<IpAddr> {
    let found = tokio::net::lookup_host((name, 0)).await.ok()?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    addresses.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    addresses.first().copied()
}
