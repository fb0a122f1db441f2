//! `herder join` and `herder list` without their command lines.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::patience::Patience;
use super::{Discovery, DiscoveryError, Source, file};

/// Registers `addr` every `heartbeat` for `ttl` until `stop`, then removes it, so that managers need not wait for its
/// expiry. Begins after a random part of `delay`, so that many engines do not come at once. A store that is away is
/// tried again, sooner than the next heartbeat. Errors only for a discovery that takes no registrations.
pub async fn join(
    discovery: &Discovery,
    addr: &str,
    heartbeat: Duration,
    ttl: Duration,
    delay: Duration,
    stop: CancellationToken,
) -> Result<(), DiscoveryError> {
    discovery.registrable()?;
    let delay = delay.mul_f64(rand::rng().random());
    if stop.run_until_cancelled(sleep(delay)).await.is_none() {
        return Ok(());
    }
    info!(addr, ?heartbeat, ?ttl, "registering");
    stop.run_until_cancelled(keep_registered(discovery, addr, heartbeat, ttl)).await;
    match discovery.deregister(addr).await {
        Ok(()) => info!(addr, "deregistered"),
        Err(error) => info!(addr, %error, "cannot deregister; the entry ends after its ttl"),
    }
    Ok(())
}

async fn keep_registered(discovery: &Discovery, addr: &str, heartbeat: Duration, ttl: Duration) {
    let mut patience = Patience::new("registering with the store");
    loop {
        let pause = match discovery.register(addr, ttl).await {
            Ok(()) => {
                patience.worked();
                debug!(addr, "registered");
                heartbeat
            }
            Err(error) => patience.failed(&error).min(heartbeat),
        };
        sleep(pause).await;
    }
}

/// The members as they are now.
pub async fn list(discovery: &Discovery, limit: Duration) -> Result<BTreeSet<String>, DiscoveryError> {
    match &discovery.source {
        Source::Nodes(nodes) => Ok(nodes.clone()),
        Source::File(path) => file::read(path),
        Source::Kv { .. } => {
            let stop = CancellationToken::new();
            let _stop_at_the_end = stop.clone().drop_guard();
            let mut members = discovery.watch(limit, stop);
            let first = timeout(limit, members.wait_for(Option::is_some)).await;
            match first {
                Ok(Ok(members)) => Ok(members.clone().unwrap_or_default()),
                Ok(Err(_)) | Err(_) => Err(DiscoveryError::TimedOut { reason: reason(discovery).await }),
            }
        }
    }
}

/// Returns the reason of a failure by asking once more, as the watch has only logged it.
async fn reason(discovery: &Discovery) -> Option<String> {
    /// Maximum wait for an immediate reason, such as a refused connection.
    const REASON_WAIT: Duration = Duration::from_secs(1);
    let (kv, dir) = discovery.registrable().ok()?;
    match timeout(REASON_WAIT, kv.get(dir)).await {
        Ok(Err(error)) => Some(error.to_string()),
        Ok(Ok(_)) => None,
        Err(_) => Some(format!("no answer from {} for key `{dir}`", kv.store())),
    }
}
