//! `herder join` and `herder list`: engines in a discovery store.

use std::collections::BTreeSet;

use herder_cli::{JoinSettings, ListSettings};
use herder_pool::discovery::{self, Discovery, Options};
use tokio_util::sync::CancellationToken;

use crate::manage::asked_to_stop;

/// Keeps an engine in the store until SIGTERM or Ctrl-C, then takes it out.
pub(crate) async fn join(settings: JoinSettings) -> anyhow::Result<()> {
    let discovery = Discovery::parse(&settings.discovery, &Options::parse(&settings.discovery_options)?)?;
    let stop = CancellationToken::new();
    let JoinSettings { advertise, heartbeat, ttl, delay, .. } = settings;
    let joined = discovery::join(&discovery, &advertise, heartbeat, ttl, delay, stop.clone());
    tokio::pin!(joined);
    tokio::select! {
        refused = &mut joined => Ok(refused?),
        asked = asked_to_stop() => {
            stop.cancel();
            joined.await?;
            asked
        }
    }
}

/// The engines that discovery knows now.
pub(crate) async fn list(settings: ListSettings) -> anyhow::Result<BTreeSet<String>> {
    let discovery = Discovery::parse(&settings.discovery, &Options::parse(&settings.discovery_options)?)?;
    Ok(discovery::list(&discovery, settings.timeout).await?)
}
