//! Identity of this node, and its way into its pool.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, SystemTime};

use crate::NodeSettings;
use anyhow::{Context as _, bail};
use herder_parts::blocking;
use herder_pool::discovery::Discovery;
use herder_wire::JoinCode;
use herder_wire::identity::Identity;
use herder_wire::link::{Joined, LinkError};
use herder_wire::{link, multicast};
use tokio::time::sleep;

use crate::{store, swarm};

/// Number of attempts to join, since the other nodes may be starting, and the pause between.
const JOIN_ATTEMPTS: u32 = 10;
const JOIN_REST: Duration = Duration::from_secs(1);

/// Returns the stored identity, a new one of the pool to join, or the first of a new pool.
pub async fn of(settings: &NodeSettings, store: Option<&Discovery>) -> anyhow::Result<Identity> {
    let code: Option<JoinCode> = settings.token.as_deref().map(str::parse).transpose().context("--token")?;
    let kept = Identity::load(&settings.state)?;
    if let Some(mut identity) = kept {
        if let Some(code) = &code
            // Its secret may have been changed, before or after this node was up last: who is in stays in.
            && !identity.join_code()?.of_same_pool(code)
            // The last word was that of `docker swarm join`.
            && swarm::remotes(&settings.state).is_empty()
        {
            bail!(
                "this node is of another pool than the join code; remove {} to join that one",
                settings.state.join("identity.json").display()
            );
        }
        if let Some(name) = settings.name.as_ref().filter(|name| **name != identity.name) {
            identity.name.clone_from(name);
            identity.save(&settings.state)?;
        }
        // In a swarm managers are asked for another certificate, as soon as they are in reach.
        if identity.shared.has_authority() && identity.renew_at() <= SystemTime::now() {
            identity = identity.renewed(SystemTime::now())?;
            identity.save(&settings.state)?;
        }
        return Ok(identity);
    }
    let name = settings.name.clone().unwrap_or_default();
    let now = SystemTime::now();
    let found = match &code {
        Some(code) => found(settings, store, code).await?,
        None => settings.join.clone(),
    };
    let identity = match (&code, found.is_empty()) {
        (Some(code), false) => {
            let Joined { identity, managers } = join(&found, code, &name).await?;
            if !managers.is_empty() {
                swarm::enter(&settings.state, code.to_string(), managers)?;
            }
            identity
        }
        (None, true) => {
            tracing::info!("this is the first node of a new pool; `herder token` prints what others need to join");
            Identity::first(&name, now)?
        }
        (None, false) => bail!("--join needs --token; `herder token` on a node of the pool prints it"),
        (Some(_), true) => {
            bail!("no node of the pool of --token was found; --join names one by its address")
        }
    };
    identity.save(&settings.state)?;
    Ok(identity)
}

/// Returns addresses of nodes that may admit this one. They are given ones, those in the store, or those that
/// answer on the local network.
async fn found(settings: &NodeSettings, store: Option<&Discovery>, code: &JoinCode) -> anyhow::Result<Vec<String>> {
    if let Some(store) = store {
        let listed = store::list(store).await;
        if !listed.is_empty() {
            return Ok(settings.join.iter().cloned().chain(listed).collect());
        }
    }
    if !settings.join.is_empty() || !settings.multicast {
        return Ok(settings.join.clone());
    }
    let found = multicast::ask(code).await.context("cannot ask the local network for nodes")?;
    tracing::info!(?found, "asked the local network for nodes");
    Ok(found.iter().map(ToString::to_string).collect())
}

/// Asks one node after the other, again while none can be reached.
async fn join(addresses: &[String], code: &JoinCode, name: &str) -> anyhow::Result<Joined> {
    for attempt in 1.. {
        match link::join(addresses, code, name, SystemTime::now()).await {
            Err(error @ (LinkError::Connect { .. } | LinkError::Late { .. })) if attempt < JOIN_ATTEMPTS => {
                tracing::warn!(%error, "trying again");
                sleep(JOIN_REST).await;
            }
            joined => return Ok(joined?),
        }
    }
    bail!("no node to join was found")
}

/// Returns the first addresses for gossip: given ones, and those that answer on the local network.
pub async fn seeds(settings: &NodeSettings, code: &JoinCode) -> Vec<SocketAddr> {
    let mut seeds = Vec::new();
    if settings.multicast {
        match multicast::ask(code).await {
            Ok(found) => seeds.extend(found),
            Err(error) => tracing::warn!(%error, "cannot ask the local network for nodes"),
        }
    }
    seeds.extend(resolve(&settings.join).await);
    // Where the node came to its pool by `docker swarm join`, nothing on the command line says so.
    seeds.extend(resolve(&swarm::remotes(&settings.state)).await);
    seeds
}

/// Resolves these addresses, and logs those that fail.
pub async fn resolve(addresses: &[String]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for address in addresses {
        match tokio::net::lookup_host(address.as_str()).await {
            Ok(resolved) => found.extend(resolved),
            Err(error) => tracing::warn!(address, %error, "cannot resolve a node's address"),
        }
    }
    found
}

/// Returns the address under which other nodes reach this one.
pub fn advertise(settings: &NodeSettings) -> anyhow::Result<SocketAddr> {
    let (host, port) = &settings.advertise;
    if let Some(host) = host {
        let host = host.trim_matches(['[', ']']);
        let mut found = blocking(|| (host, *port).to_socket_addrs()).with_context(|| format!("--advertise {host}"))?;
        return found.next().with_context(|| format!("--advertise {host} has no address"));
    }
    let towards = settings.join.iter().find_map(|address| blocking(|| address.to_socket_addrs()).ok()?.next());
    // Nothing is sent to this documentation address (RFC 5737); it only asks for the route.
    let towards = towards.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9)));
    Ok(SocketAddr::new(source(towards).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), *port))
}

/// The address from which packets to `towards` would go.
fn source(towards: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if towards.is_ipv6() { ([0u16; 8], 0).into() } else { ([0, 0, 0, 0], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(towards).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
