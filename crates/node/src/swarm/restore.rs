//! All that a swarm's managers know, out of one and into another: `herder backup` and `herder restore`.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Restored;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use herder_model::swarm::{Change, ClusterRecord, InitRequest, ManagerAddr, NodeRecord, Role, SwarmNodeState, View};
use herder_place::Error as ApiError;
use herder_store::{Backup, Key, StoreError};
use herder_tls::certs::Pair;
use herder_wire::JoinCode;
use herder_wire::identity::{IdentityError, OwnPool};
use http::StatusCode;
use tokio::time::timeout;

use super::enter::millis;
use super::host::{Host, LEAVE_TIME_MAX, managers_told, now, refused};
use super::kept::{PersistedState, remove_folder, rename_folder, store_folder};
use super::root::tls_info;

/// Maximum attempts of the first change. The leader's loop, which runs already, may write the same object meanwhile.
const ATTEMPTS_MAX: u32 = 20;

/// Folder of the store that a restore replaces; it comes back if that fails.
const ASIDE: &str = "old";

impl Host {
    pub(super) async fn backup(&self, key: &str) -> Result<Bytes, ApiError> {
        let key: Key = key.parse().map_err(|error: StoreError| ApiError::bad_request(error.to_string()))?;
        let store = self.needed_store()?;
        let mut view = store.view();
        if let Some(cluster) = &mut view.cluster {
            let shared = &self.link.identity().shared;
            Arc::make_mut(cluster).gossip_key = STANDARD.encode(shared.gossip_next.unwrap_or(shared.gossip_key));
        }
        Ok(store.backup_of(view, Some(key)).await.map_err(refused)?.into())
    }

    /// Begins the swarm in a backup anew, with this node as its only manager.
    pub(super) async fn restore(self: &Arc<Host>, key: &str, bytes: Bytes, force: bool) -> Result<Restored, ApiError> {
        let Ok(_one) = self.restoring.try_lock() else {
            return Err(ApiError::new(StatusCode::CONFLICT, "another restore is under way on this node"));
        };
        let key: Key = key.parse().map_err(|error: StoreError| ApiError::bad_request(error.to_string()))?;
        let read = tokio::task::spawn_blocking(move || Backup::open(&bytes, Some(&key))).await;
        let read = read.map_err(|error| ApiError::internal(error.to_string()))?;
        let backup = read.map_err(|error| ApiError::bad_request(error.to_string()))?;
        let record = backup.view().cluster.as_ref();
        let record = record.ok_or_else(|| ApiError::bad_request("this backup has no swarm in it"))?;
        let cluster = record.cluster.id.clone();
        self.may_be_replaced(force)?;
        let before = self.link.identity();
        let own = self.own_root();
        let is_alone = self.views.borrow().iter().all(|(id, seen)| *id == self.id || !seen.health.is_there());
        let root = Root::of(record, before.trust_root(), own, is_alone).ok_or_else(|| {
            let text = "this node is in a pool with other nodes, has no key of its root, and the backup has none either: `docker swarm \
                        leave --force`, then restore";
            ApiError::new(StatusCode::CONFLICT, text)
        })?;
        self.leave_other(&cluster).await;
        let (store, aside) = (store_folder(&self.state), store_folder(&self.state).with_extension(ASIDE));
        if let Err(error) = remove_folder(&aside).and_then(|()| rename_folder(&store, &aside)) {
            self.open_kept_store().await;
            return Err(ApiError::internal(format!("{} cannot be put aside: {error}", store.display())));
        }
        let restored = match self.take(&root) {
            Ok(()) => self.begin_with(backup, &root).await,
            Err(error) => Err(ApiError::internal(format!("the root of the backup cannot be taken over: {error}"))),
        };
        match restored {
            Ok(restored) => {
                if let Err(error) = remove_folder(&aside) {
                    tracing::warn!(%error, folder = %aside.display(), "cannot remove the store from before the restore");
                }
                Ok(restored)
            }
            Err(error) => {
                self.close_store().await;
                if let Err(error) = self.link.put_back(before) {
                    tracing::error!(%error, "cannot use the certificate from before the restore again");
                }
                if let Err(error) = remove_folder(&store).and_then(|()| rename_folder(&aside, &store)) {
                    tracing::error!(%error, folder = %aside.display(), "rollback of the failed restore is incomplete; the previous store is left there");
                }
                self.open_kept_store().await;
                Err(error)
            }
        }
    }

    /// Refuses where a swarm would be lost, or where two would claim to be the same one.
    fn may_be_replaced(&self, force: bool) -> Result<(), ApiError> {
        let denied = |text: String| Err(ApiError::new(StatusCode::CONFLICT, text));
        let managers = managers_told(&self.views.borrow()).into_iter().map(|(it, _)| it);
        let others: Vec<String> = managers.filter(|it| it.id != self.id).map(|it| it.addr).collect();
        if !others.is_empty() {
            return denied(format!(
                "this node's swarm has managers that live, at {}: they would go on with what they have. Let them leave (`docker \
                 swarm leave --force` there) or stop them for good, then restore",
                others.join(", ")
            ));
        }
        let kept = self.kept.borrow().clone();
        match kept {
            Some(kept) if !force => denied(format!(
                "this node is in a swarm already ({}): with --force the backup takes its place, and what was declared since it \
                 was made is lost",
                if kept.cluster.is_empty() { "it is about to enter it" } else { &kept.cluster }
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Ends the tasks of another swarm here. Those of the swarm in the backup go on.
    async fn leave_other(&self, cluster: &str) {
        let other = self.kept.borrow().as_ref().is_some_and(|it| it.cluster != cluster);
        if other {
            self.leaving.send_replace(true);
            let _ = timeout(LEAVE_TIME_MAX, self.agent.leave()).await;
            self.leaving.send_replace(false);
        }
        self.close_store().await;
    }

    async fn begin_with(self: &Arc<Host>, backup: Backup, root: &Root) -> Result<Restored, ApiError> {
        let managing = self.open_store(None).await.map_err(refused)?;
        managing.store.restore(backup, &self.here).await.map_err(refused)?;
        let code = self.link.identity().join_code().map_err(|error| ApiError::internal(error.to_string()))?;
        let mut attempts = 0;
        let same_pool = loop {
            let view = managing.store.view();
            let same_pool = tokens(&view).all(|it| code.of_same_pool(&it));
            match managing.store.commit(self.refit(&view, &code, root.key()), now()).await {
                Ok(_) => break same_pool,
                Err(StoreError::Conflict(_)) if attempts < ATTEMPTS_MAX => attempts += 1,
                Err(error) => return Err(refused(error)),
            }
        };
        let view = managing.store.view();
        let cluster = view.cluster.as_ref().map(|it| it.cluster.id.clone()).unwrap_or_default();
        let managers = vec![ManagerAddr { id: self.id.clone(), addr: self.here.clone() }];
        self.keep(Some(PersistedState {
            cluster: cluster.clone(),
            managers,
            manages: true,
            ..PersistedState::default()
        }));
        let others = view.nodes.values().filter(|it| it.node.id != self.id);
        let name = |it: &std::sync::Arc<NodeRecord>| match &*it.node.description.hostname {
            "" => it.node.id.clone(),
            hostname => hostname.to_owned(),
        };
        let others = others.map(name).collect();
        self.until_in(&self.id).await?;
        // Hosts that are left do not know this node yet.
        let addrs = view.nodes.values().filter(|it| it.addr != self.here).filter_map(|it| it.addr.parse().ok());
        self.seeds.send_replace(addrs.collect::<Vec<SocketAddr>>());
        tracing::warn!(cluster, "the swarm continues from a backup, with this node as its only manager");
        Ok(Restored { cluster, node: self.id.clone(), others, same_pool })
    }

    /// Returns the key of the root that this node trusts, from its identity or the store that it manages now.
    fn own_root(&self) -> Option<String> {
        let identity = self.link.identity();
        let root = identity.trust_root();
        let own = identity.shared.root().filter(|it| it.cert == root).map(|it| it.key);
        let view = self.store().map(|it| it.view());
        own.or_else(|| view.and_then(|it| key_of(it.cluster.as_ref()?, root)))
    }

    /// This node trusts the root from now on, and can certify with it.
    fn take(&self, root: &Root) -> Result<(), IdentityError> {
        match root {
            Root::Own { .. } => Ok(()),
            Root::OfBackup(pool) => self.link.begin_pool(pool.clone()),
        }
    }

    /// Returns the changes to a restored swarm. This node is its only manager, and its tokens are for this node's pool.
    fn refit(&self, view: &View, code: &JoinCode, ca_key: &str) -> Vec<Change> {
        let mut changes = Vec::new();
        for other in view.nodes.values().filter(|it| it.node.id != self.id) {
            let mut record = NodeRecord::clone(other);
            (record.role, record.node.spec.role) = (Role::Worker, Role::Worker);
            if record.node.status.state == SwarmNodeState::Ready {
                // As it was when the backup was made; nothing has been heard of it since.
                (record.node.status.state, record.state_since) = (SwarmNodeState::Unknown, now());
            }
            changes.push(record.into());
        }
        let mut me = match view.nodes.get(&self.id) {
            Some(known) => NodeRecord::clone(known),
            None => self.first_node(&InitRequest::default()),
        };
        (me.role, me.node.spec.role) = (Role::Manager, Role::Manager);
        me.addr.clone_from(&self.here);
        changes.push(me.into());
        if let Some(cluster) = &view.cluster {
            let mut record = ClusterRecord::clone(cluster);
            record.removed.remove(&self.id);
            record.cluster.tls_info = tls_info(&self.link.identity());
            // Of the pool that was; this one has a root of its own.
            (record.root_rotation, record.cluster.root_rotation_in_progress) = (None, false);
            if let Some(tokens) = &mut record.cluster.join_tokens {
                for token in [&mut tokens.worker, &mut tokens.manager] {
                    if let Ok(was) = token.parse::<JoinCode>() {
                        *token = code.with_secret(*was.secret()).to_string();
                    }
                }
            }
            let others = view.nodes.values().filter(|it| it.node.id != self.id && it.role == Role::Manager);
            record.demoted.extend(others.map(|it| (it.node.id.clone(), millis(now()))));
            record.demoted.remove(&self.id);
            ca_key.clone_into(&mut record.ca_key);
            changes.push(record.into());
        }
        changes
    }
}

/// The root of a restored swarm.
#[derive(Debug)]
enum Root {
    /// The one that this node trusts already.
    Own { key: String },
    /// The one that the swarm had. Hosts that are left trust this node then.
    OfBackup(OwnPool),
}

impl Root {
    /// Chooses the root of a restored swarm. It depends on the backup, the root that this node trusts, its key if
    /// known, and whether other nodes of its pool live. Those would be left behind with another root. `None` if the key
    /// of the required root is unknown.
    fn of(record: &ClusterRecord, trusted: &str, own: Option<String>, is_alone: bool) -> Option<Root> {
        let root = &record.cluster.tls_info.trust_root;
        let kept = key_of(record, root);
        match (own.or_else(|| key_of(record, trusted)), kept) {
            (Some(key), Some(_)) if trusted == root => Some(Root::Own { key }),
            (_, Some(key)) if is_alone => {
                let gossip_key = STANDARD.decode(&record.gossip_key).ok().and_then(|it| it.try_into().ok());
                let root = Pair { cert: root.clone(), key };
                Some(Root::OfBackup(OwnPool { root, gossip_key, removed: record.removed.clone() }))
            }
            (Some(key), _) => Some(Root::Own { key }),
            (None, _) => None,
        }
    }

    fn key(&self) -> &str {
        match self {
            Root::Own { key } => key,
            Root::OfBackup(pool) => &pool.root.key,
        }
    }
}

/// The key of this root (PEM), if it is a root of this swarm.
fn key_of(record: &ClusterRecord, root: &str) -> Option<String> {
    let kept = (record.cluster.tls_info.trust_root == root).then(|| record.ca_key.clone());
    let next = || record.root_rotation.as_ref().filter(|it| it.root.cert == root).map(|it| it.root.key.clone());
    kept.or_else(next).filter(|it| !it.is_empty())
}

fn tokens(view: &View) -> impl Iterator<Item = JoinCode> {
    let tokens = view.cluster.iter().filter_map(|it| it.cluster.join_tokens.clone());
    tokens.flat_map(|it| [it.worker, it.manager]).filter_map(|it| it.parse().ok())
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{NewRoot, RootRotation};

    use super::*;

    #[test]
    fn a_restored_swarm_keeps_its_root_unless_others_would_be_left_behind() {
        let mut record = ClusterRecord { ca_key: "key of a".into(), ..ClusterRecord::default() };
        record.cluster.tls_info.trust_root = "a".into();
        let mut changing = record.clone();
        let next = NewRoot { cert: "b".into(), key: "key of b".into(), ..NewRoot::default() };
        changing.root_rotation = Some(RootRotation { root: next, ..RootRotation::default() });
        let of_before = ClusterRecord { ca_key: String::new(), ..record.clone() };
        let check = |record: &ClusterRecord, trusted: &str, own: Option<&str>, is_alone: bool, expected: &str| {
            let root = Root::of(record, trusted, own.map(str::to_owned), is_alone);
            let text = match &root {
                None => "none".to_owned(),
                Some(Root::Own { key }) => format!("own {key}"),
                Some(Root::OfBackup(pool)) => format!("{} {}", pool.root.cert, pool.root.key),
            };
            assert_eq!(text, expected, "{trusted} {own:?} {is_alone}");
        };
        // A host set up anew, once and again; the others of its pool would not trust it any more.
        check(&record, "z", Some("key of z"), true, "a key of a");
        check(&record, "a", Some("key of a"), true, "own key of a");
        check(&record, "z", Some("key of z"), false, "own key of z");
        // A worker of the swarm, and one of another swarm.
        check(&record, "a", None, false, "own key of a");
        check(&record, "z", None, true, "a key of a");
        check(&record, "z", None, false, "none");
        // The root was being changed when the backup was made.
        check(&changing, "b", None, false, "own key of b");
        check(&changing, "b", None, true, "a key of a");
        // Of a release in which each node had the key.
        check(&of_before, "a", Some("key of a"), true, "own key of a");
        check(&of_before, "z", Some("key of z"), true, "own key of z");
        check(&of_before, "z", None, true, "none");
    }
}
