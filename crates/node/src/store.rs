//! Nodes of a pool in a discovery store: each puts itself in, and asks whom it finds there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::NodeSettings;
use herder_pool::discovery::{self, Discovery, Options};
use herder_wire::gossip::Gossip;
use tokio_util::sync::CancellationToken;

/// Maximum time of the store's first answer; then the node goes on without it.
const FIRST_LIST_TIME_MAX: Duration = Duration::from_secs(10);
/// Interval of a node's registration, and its validity.
const HEARTBEAT: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(30);

/// The store that the command line names, if it names one.
pub fn of(settings: &NodeSettings) -> anyhow::Result<Option<Discovery>> {
    let Some(url) = &settings.discovery else { return Ok(None) };
    Ok(Some(Discovery::parse(url, &Options::parse(&settings.discovery_options)?)?))
}

/// Returns the registered nodes. A failing store is logged and does not prevent the start.
pub async fn list(store: &Discovery) -> Vec<String> {
    match discovery::list(store, FIRST_LIST_TIME_MAX).await {
        Ok(found) => found.into_iter().collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot read the nodes from discovery");
            Vec::new()
        }
    }
}

/// Keeps this node in the store and asks those that come, until `stop`.
pub async fn keep(store: Discovery, here: SocketAddr, gossip: Arc<Gossip>, stop: CancellationToken) {
    let address = here.to_string();
    let registered = async {
        let joined = discovery::join(&store, &address, HEARTBEAT, TTL, Duration::ZERO, stop.clone()).await;
        if let Err(error) = joined {
            // A list in a file is kept by a person.
            tracing::info!(%error, "not registering this node: the discovery source is read-only");
        }
    };
    let followed = async {
        let mut members = store.watch(HEARTBEAT, stop.clone());
        let mut known = BTreeSet::new();
        loop {
            let current = members.borrow_and_update().clone().unwrap_or_default();
            let new: Vec<String> = current.difference(&known).cloned().collect();
            gossip.add_seeds(crate::identity::resolve(&new).await).await;
            known = current;
            if members.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::join!(registered, followed);
}
