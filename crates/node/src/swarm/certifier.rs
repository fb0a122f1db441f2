//! A manager's right to certify nodes: the key of the root and the tokens, as they are in its store.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use herder_decide::swarm::control::externals_of;
use herder_model::swarm::{ClusterRecord, ExternalCa, ManagerAddr, Role, View};
use herder_store::Store;
use herder_tls::certs::Pair;
use herder_wire::identity::{Shared, Trust};
use herder_wire::link::{Certifier, Link, Roster, Wish};
use herder_wire::{JoinCode, Secret, Subject, same_secret};

use super::external_ca;

/// Reason why a removed node gets no certificate.
const REMOVED: &str = "this node was removed from the swarm; `docker swarm leave --force`, then join again";
const NO_SWARM: &str = "this manager knows no swarm yet";
const NO_KEY: &str = "the key of the root is not in the store";

/// Certifies with what is in the store, or has an external CA that the store names certify.
#[derive(Debug)]
pub(super) struct StoreCertifier {
    pub(super) store: Arc<Store>,
    /// Holds the certificate that this manager shows to an external CA. It holds this certifier, in turn.
    pub(super) link: Weak<Link>,
}

impl StoreCertifier {
    fn cluster_record(&self) -> Option<Arc<ClusterRecord>> {
        self.store.view().cluster
    }
}

/// Returns the roster of this view.
pub(super) fn roster(view: &View) -> Option<Roster> {
    let record = view.cluster.as_ref()?;
    let managers = view.nodes.values().filter(|it| it.role == Role::Manager);
    Some(Roster {
        cluster: record.cluster.id.clone(),
        managers: managers.map(|it| ManagerAddr { id: it.node.id.clone(), addr: it.addr.clone() }).collect(),
        removed: record.removed.clone(),
        demoted: record.demoted.clone(),
    })
}

impl Certifier for StoreCertifier {
    fn cluster(&self) -> String {
        self.cluster_record().map(|it| it.cluster.id.clone()).unwrap_or_default()
    }

    fn admits(&self, secret: &Secret) -> Option<Role> {
        let record = self.cluster_record()?;
        let tokens = record.cluster.join_tokens.as_ref()?;
        let is = |token: &str| token.parse::<JoinCode>().is_ok_and(|it| same_secret(it.secret(), secret));
        match () {
            () if is(&tokens.manager) => Some(Role::Manager),
            () if is(&tokens.worker) => Some(Role::Worker),
            () => None,
        }
    }

    fn role_of(&self, subject: &Subject) -> Result<Role, String> {
        let view = self.store.view();
        let record = view.cluster.as_ref().ok_or(NO_SWARM)?;
        if record.removed.contains(&subject.node) {
            return Err(REMOVED.to_owned());
        }
        // A node of the pool that was not enrolled yet is a worker.
        Ok(view.nodes.get(&subject.node).map_or(Role::Worker, |it| it.node.spec.role.max(it.role)))
    }

    fn managers(&self) -> Vec<ManagerAddr> {
        roster(&self.store.view()).map(|it| it.managers).unwrap_or_default()
    }

    fn lifetime(&self) -> Duration {
        let expiry = self.cluster_record().map(|it| it.cluster.spec.ca_config.node_cert_expiry).unwrap_or_default();
        Duration::from_nanos(u64::try_from(expiry).unwrap_or_default())
    }

    fn trust(&self) -> Result<Trust, String> {
        let record = self.cluster_record().ok_or(NO_SWARM)?;
        let root = record.cluster.tls_info.trust_root.clone();
        let Some(rotation) = &record.root_rotation else { return Ok(Trust { root, before: None, gossip_next: None }) };
        let (now, new) = (SystemTime::now(), &rotation.root);
        let before = Pair { cert: root.clone(), key: record.ca_key.clone() };
        let cross = Shared::cross_sign(before, &new.cert, now).map_err(|error| error.to_string())?;
        let gossip_next = STANDARD.decode(&rotation.gossip_key).ok().and_then(|it| it.try_into().ok());
        Ok(Trust { root: new.cert.clone(), before: Some((root, cross)), gossip_next })
    }

    fn certify(&self, wish: Wish) -> BoxFuture<'_, Result<String, String>> {
        async move {
            let record = self.cluster_record().ok_or(NO_SWARM)?;
            let root = signer(&record);
            let cas: Vec<ExternalCa> = externals_of(&record.cluster.spec.ca_config, &root.cert).cloned().collect();
            if cas.is_empty() {
                return sign(&record, root, &wish);
            }
            let identity = self.link.upgrade().ok_or("this node stops")?.identity();
            // What counts as a manager's must be newer than the node's last demotion.
            let is_manager = wish.role() == Some(Role::Manager);
            let after = record.demoted.get(&wish.subject.common_name).filter(|_| is_manager).copied();
            external_ca::sign(&cas, &wish, &identity, &root.cert, after).await
        }
        .boxed()
    }
}

/// Returns the root that signs. Its key is empty if only an external CA has it.
pub(super) fn signer(record: &ClusterRecord) -> Pair {
    match &record.root_rotation {
        Some(rotation) => Pair { cert: rotation.root.cert.clone(), key: rotation.root.key.clone() },
        None => Pair { cert: record.cluster.tls_info.trust_root.clone(), key: record.ca_key.clone() },
    }
}

fn sign(record: &ClusterRecord, root: Pair, wish: &Wish) -> Result<String, String> {
    if root.key.is_empty() {
        return Err(NO_KEY.to_owned());
    }
    let now = SystemTime::now();
    let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    // Clocks of managers differ: a node that is promoted again gets a certificate that counts.
    let after = record.demoted.get(&wish.subject.common_name).map_or(0, |it| it.saturating_add(1));
    let issued_ms = u64::try_from(millis).unwrap_or(u64::MAX).max(after);
    wish.sign(root, issued_ms, now).map_err(|error| error.to_string())
}

/// True if a peer with this certificate may call this manager's store. The store itself asks for a proof of those that
/// are not among its members yet.
pub(super) fn may_use_store(record: Option<&ClusterRecord>, roster: Option<&Roster>, from: &Subject) -> bool {
    match (record, roster) {
        (Some(record), _) => {
            let demoted = record.demoted.get(&from.node).is_some_and(|demoted| from.issued_ms <= *demoted);
            let other = !from.cluster.is_empty() && from.cluster != record.cluster.id;
            !demoted && !other && from.role != Some(Role::Worker) && !record.removed.contains(&from.node)
        }
        // A store that knows of no swarm yet is being filled by the managers that this node was told of.
        (None, Some(roster)) => roster.may_lead(from),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::Cluster;

    use super::*;

    fn subject(node: &str, role: Option<Role>, cluster: &str, issued_ms: u64) -> Subject {
        Subject { node: node.into(), cluster: cluster.into(), role, issued_ms }
    }

    #[test]
    fn raft_is_for_managers_whose_certificates_count() {
        let cluster = Cluster { id: "c".into(), ..Cluster::default() };
        let (removed, demoted) = (["gone".to_owned()].into(), [("was".to_owned(), 10)].into());
        let record = ClusterRecord { cluster, removed, demoted, ..ClusterRecord::default() };
        let check = |from: Subject, expected: bool| {
            assert_eq!(may_use_store(Some(&record), None, &from), expected, "{from:?}");
        };
        check(subject("m", Some(Role::Manager), "c", 1), true);
        check(subject("m", Some(Role::Manager), "other", 1), false);
        check(subject("m", Some(Role::Worker), "c", 1), false);
        check(subject("w", Some(Role::Worker), "c", 1), false);
        check(subject("gone", Some(Role::Manager), "c", 1), false);
        check(subject("was", Some(Role::Manager), "c", 10), false);
        check(subject("was", None, "", 0), false);
        check(subject("was", Some(Role::Manager), "c", 11), true);
        // Of an earlier release: the store asks for its proof.
        check(subject("old", None, "", 0), true);
    }

    #[test]
    fn an_empty_store_is_filled_by_managers_that_the_node_was_told_of() {
        let managers = vec![ManagerAddr { id: "m".into(), ..ManagerAddr::default() }];
        let roster = Roster { cluster: "c".into(), managers, ..Roster::default() };
        let check = |from: Subject, expected: bool| {
            assert_eq!(may_use_store(None, Some(&roster), &from), expected, "{from:?}");
            assert!(!may_use_store(None, None, &from));
        };
        check(subject("m", Some(Role::Manager), "c", 1), true);
        check(subject("new", Some(Role::Manager), "c", 1), true);
        check(subject("w", Some(Role::Worker), "c", 1), false);
        check(subject("w", None, "", 0), false);
    }
}
