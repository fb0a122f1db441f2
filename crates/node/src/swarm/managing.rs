//! A manager's store, and what goes on while it is open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use herder_agent::session::{Heard, Lines};
use herder_manager::Manager;
use herder_model::Liveness;
use herder_model::swarm::{Clock, ClusterRecord, Feature, LEVEL, ManagerAddr, Object, Written};
use herder_parts::Parts;
use herder_pool::Pool;
use herder_store::{Key, ManagerSeen, Store, StoreError, Transport, TransportError};
use herder_wire::calls::Peer;
use herder_wire::link::{Certifier, Link};
use herder_wire::swarm::SwarmCalls;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::certifier::{StoreCertifier, roster};
use crate::ingress::follow_routed;

/// Maximum age of the known state of managers.
const LOOK: Duration = Duration::from_millis(300);

/// Messages between stores go over the node link.
#[derive(Debug)]
pub(super) struct NodeTransport(pub(super) Arc<SwarmCalls>);

impl Transport for NodeTransport {
    fn call<'a>(
        &'a self,
        node: &'a str,
        addr: &'a str,
        request: Bytes,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + 'a>> {
        Box::pin(async move {
            let peer = Peer { id: node.to_owned(), addr: addr.to_owned() };
            self.0.raft(&peer, request).await.map_err(|status| TransportError(status.message().to_owned()))
        })
    }
}

/// Sessions go over the node link.
pub(super) struct NodeLines(pub(super) Arc<SwarmCalls>);

impl Lines for NodeLines {
    fn session<'l>(
        &'l self,
        manager: &'l ManagerAddr,
        said: mpsc::Receiver<Bytes>,
    ) -> BoxFuture<'l, Result<Heard, String>> {
        Box::pin(async move {
            let peer = Peer { id: manager.id.clone(), addr: manager.addr.clone() };
            let why = |status: herder_wire::swarm::Status| status.message().to_owned();
            let heard = self.0.session(&peer, said).await.map_err(why)?;
            Ok(Box::pin(heard.map(move |message| message.map_err(why))) as Heard)
        })
    }
}

/// A store that is open.
#[derive(Clone, Debug)]
pub(super) struct Managing {
    pub(super) store: Arc<Store>,
    pub(super) manager: Arc<Manager>,
    /// The managers as the leader saw them lately.
    pub(super) managers: watch::Receiver<Vec<ManagerSeen>>,
    stop: CancellationToken,
}

impl Managing {
    pub(super) fn begin(
        store: Arc<Store>,
        me: ManagerAddr,
        gossip: watch::Receiver<Arc<BTreeMap<String, Liveness>>>,
        pool: Option<Arc<Pool>>,
        link: Arc<Link>,
        written: broadcast::Sender<Arc<[Written]>>,
        parts: &Parts,
    ) -> Managing {
        let stop = parts.stop().child_token();
        let parts = parts.until(stop.clone());
        let (told, plain) = watch::channel(Arc::default());
        if let Some(pool) = pool {
            parts.looping("managers' plain containers", move || follow_routed(pool.clone(), told.clone()));
        }
        let settings = herder_manager::Settings {
            me,
            gossip,
            plain: plain.clone(),
            clock: Clock::system(),
            new_id: herder_wire::identity::new_id,
            level: LEVEL,
        };
        let manager = Manager::start(store.clone(), settings, &parts);
        let of = store.clone();
        parts.looping("managers' keys", move || follow(of.clone(), link.clone(), written.clone()));
        let (told, managers) = watch::channel(Vec::new());
        let of = store.clone();
        parts.looping("managers' board", move || look(of.clone(), told.clone()));
        let certificates = herder_acme::Settings {
            store: store.clone(),
            served: manager.challenges(),
            plain,
            clock: Clock::system(),
            new_id: herder_wire::identity::new_id,
        };
        parts.looping("managers' certificates", move || herder_acme::run(certificates.clone()));
        Managing { store, manager, managers, stop }
    }

    pub(super) async fn end(self) {
        self.stop.cancel();
        self.store.shutdown().await;
    }
}

/// Looks who the managers are: at once when the lead changes, and now and then.
async fn look(store: Arc<Store>, told: watch::Sender<Vec<ManagerSeen>>) {
    let mut leadership = store.leadership();
    loop {
        if let Ok(seen) = store.managers().await {
            told.send_if_modified(|known| std::mem::replace(known, seen.clone()) != seen);
        }
        // Whether a manager is in reach is no news that comes by itself.
        if let Ok(Err(_)) = tokio::time::timeout(LOOK, leadership.changed()).await {
            return;
        }
    }
}

/// Keeps the node to what is declared about managers: whom they let in, and the key of their stores.
async fn follow(store: Arc<Store>, link: Arc<Link>, written: broadcast::Sender<Arc<[Written]>>) {
    let (_, mut watch) = store.watch();
    let (mut known, mut members_changed) = (None, true);
    loop {
        let cluster = store.view().cluster;
        if cluster != known {
            if let Some(cluster) = &cluster {
                let of_store = || StoreCertifier { store: store.clone(), link: Arc::downgrade(&link) };
                let certifier = cluster.certifies().then(|| Arc::new(of_store()) as Arc<dyn Certifier>);
                link.certify_with(certifier);
                keep_key(&store, known.as_deref(), cluster).await;
            }
            known = cluster;
        }
        hand_over_root(&store, &link).await;
        if members_changed {
            // Until the store knows of a swarm, the node knows what the leader told it.
            if let Some(roster) = roster(&store.view()) {
                link.follow_roster(Some(roster));
            }
        }
        let seen = watch.next().await;
        members_changed = seen.resync || seen.written.iter().any(is_about_members);
        if !seen.written.is_empty() {
            // Nobody listens: then nobody is told.
            let _ = written.send(seen.written);
        }
    }
}

/// Moves the root's key, which every node of an earlier release's swarm has. Once all managers know this release, the
/// leader writes it where only managers read it, and nodes forget it.
async fn hand_over_root(store: &Store, link: &Link) {
    let view = store.view();
    let (Some(record), Some(root)) = (&view.cluster, link.identity().shared.root()) else { return };
    let is_settled = record.certifies() || record.root_rotation.is_some();
    let is_ours = root.cert == record.cluster.tls_info.trust_root;
    if is_settled || !is_ours || view.level() < Feature::Certificates.level() || !store.leadership().borrow().me {
        return;
    }
    let record = ClusterRecord { ca_key: root.key, ..ClusterRecord::clone(record) };
    match store.commit(vec![record.into()], Clock::system().now()).await {
        Ok(_) => tracing::info!("the managers have the key of the root; other nodes forget it"),
        // Somebody else has changed the record meanwhile: it comes again with that.
        Err(error) => tracing::debug!(%error, "the key of the root was not written yet"),
    }
}

/// True if a write may have changed who is who in the swarm.
fn is_about_members(written: &Written) -> bool {
    let roles = |object: &Option<Object>| match object {
        Some(Object::Node(it)) => Some((it.node.id.clone(), it.role, it.addr.clone())),
        Some(_) | None => None,
    };
    matches!(written.after, Some(Object::Cluster(_))) || roles(&written.before) != roles(&written.after)
}

/// The key of this manager's store is that of the swarm.
async fn keep_key(store: &Arc<Store>, known: Option<&ClusterRecord>, cluster: &ClusterRecord) {
    if known.is_some_and(|known| known.unlock_key == cluster.unlock_key) {
        return;
    }
    let changed = match key_of(&cluster.unlock_key) {
        Ok(key) => store.rotate_key(key).await,
        Err(error) => Err(error),
    };
    if let Err(error) = changed {
        tracing::error!(%error, "cannot change the key of this manager's store");
    }
}

/// No text is no key. A text that is no key must not open what is locked.
fn key_of(text: &str) -> Result<Option<Key>, StoreError> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_makes_no_sense_is_not_taken_for_none() {
        let check = |text: &str, expected: &str| {
            let said = match key_of(text) {
                Ok(key) => key.map_or("none".to_owned(), |key| key.text()),
                Err(error) => error.to_string(),
            };
            assert_eq!(said, expected, "{text}");
        };
        check("", "none");
        let key = Key::random().text();
        check(&key, &key);
        check(&key[..key.len() - 1], "invalid key string");
        check("SWMKEY-1-", "invalid key string");
        check(" ", "invalid key string");
    }
}
