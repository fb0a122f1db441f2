//! This node's certificate as its swarm wants it: from which root, for which role, and how long it is valid.

use std::sync::Weak;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use herder_model::swarm::{CaConfig, ExternalCa, JoinTokens, NewRoot, Role, RootRotation, TlsInfo, Welcome};
use herder_place::Error as ApiError;
use herder_tls::certs::{Pair, check_root};
use herder_wire::calls::Peer;
use herder_wire::identity::{Identity, IdentityError, Issuer, Shared};
use herder_wire::link::{Link, LinkError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::host::Host;

/// Pause after a change that failed: no manager is in reach, or the disk is full.
const REST: Duration = Duration::from_secs(5);
/// The same while a node waits for its certificate as a manager.
const PROMOTION_REST: Duration = Duration::from_millis(300);

/// Requirements of the leader for a node's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Id of the swarm; empty before its leader has said anything.
    cluster: String,
    role: Role,
    /// True if managers certify nodes.
    certified: bool,
    new_root: Option<NewRoot>,
    trust_root: String,
    /// Lifetime of certificates; `None` keeps it.
    lifetime: Option<Duration>,
}

impl Wanted {
    pub(super) fn of(welcome: &Welcome) -> Wanted {
        Wanted {
            cluster: welcome.cluster.clone(),
            role: welcome.role,
            certified: welcome.certified,
            new_root: welcome.new_root.clone(),
            trust_root: welcome.trust_root.clone(),
            lifetime: (welcome.cert_expiry_s > 0).then(|| Duration::from_secs(welcome.cert_expiry_s)),
        }
    }

    /// Returns the reason why this node needs another certificate, if it does.
    fn lacks(&self, identity: &Identity) -> Option<&'static str> {
        let subject = identity.subject();
        let is = |check: &dyn Fn(&herder_wire::Subject) -> bool| subject.as_ref().is_some_and(check);
        let root = self.new_root.as_ref().map_or(&self.trust_root, |it| &it.cert);
        match () {
            () if !is(&|it| it.cluster == self.cluster && it.role == Some(self.role)) => Some("role"),
            () if identity.shared.has_authority() || identity.shared.has_join_code() => Some("keys of the pool"),
            () if identity.shared.ca_certificate() != root => Some("root"),
            () if self.lifetime.is_some_and(|it| it != identity.lifetime()) => Some("lifetime"),
            () => None,
        }
    }

    async fn apply(&self, link: &Link, managers: &[Peer]) -> Result<(), LinkError> {
        if !self.certified {
            return Ok(self.apply_alone(link)?);
        }
        if let Some(what) = self.lacks(&link.identity()) {
            link.obtain(managers).await?;
            tracing::info!(what, role = ?self.role, "this node has a new certificate");
            // The manager that was asked may be behind what the leader wants.
            if let Some(what) = self.lacks(&link.identity()) {
                let reason = format!("its certificate is not yet as the leader wants it: {what}");
                return Err(LinkError::Refused { addr: "a manager".to_owned(), reason });
            }
        }
        if self.new_root.is_none() && link.trust_only(&self.trust_root)? {
            tracing::info!("the previous root is no longer trusted");
        }
        Ok(())
    }

    /// Applies the wishes where every node has the root's key, as in earlier releases.
    fn apply_alone(&self, link: &Link) -> Result<(), IdentityError> {
        let now = SystemTime::now();
        // First, so that a certificate of a new root is not made twice.
        if let Some(lifetime) = self.lifetime
            && link.live_for(lifetime, now)?
        {
            tracing::info!(?lifetime, "the certificate of this node is valid for as long as the swarm says");
        }
        if let Some(NewRoot { cert, key, rest: _ }) = self.new_root.clone() {
            if link.adopt_root(Pair { cert, key }, now)? {
                tracing::info!("the certificate of this node comes from the new root");
            }
        } else if link.trust_only(&self.trust_root)? {
            tracing::info!("the previous root is no longer trusted");
        }
        Ok(())
    }
}

/// Applies the leader's wishes whenever they change.
pub(super) async fn keep(host: Weak<Host>, mut wanted: watch::Receiver<Wanted>) {
    loop {
        let now = wanted.borrow_and_update().clone();
        let Some(it) = host.upgrade() else { return };
        let done = it.apply(&now).await;
        drop(it);
        match done {
            Ok(()) => {
                if wanted.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot get the new certificate of this node; trying again");
                // It may want another one by then.
                if let Ok(Err(_)) = timeout(REST, wanted.changed()).await {
                    return;
                }
            }
        }
    }
}

/// Asks the nodes of the pool for their shared values after the end of the swarm.
pub(super) async fn keep_pool(host: Weak<Host>) {
    loop {
        let Some(it) = host.upgrade() else { return };
        let alone = it.kept.borrow().is_none() && !it.link.identity().shared.has_authority();
        if alone && let Err(error) = it.link.obtain(&it.directory.others()).await {
            tracing::debug!(%error, "no node of the pool has sent the key of the root yet");
        }
        drop(it);
        sleep(REST).await;
    }
}

impl Host {
    async fn apply(&self, wanted: &Wanted) -> Result<(), LinkError> {
        if wanted.cluster.is_empty() {
            return Ok(());
        }
        let before = self.link.identity().subject();
        let done = wanted.apply(&self.link, &self.manager_peers()).await;
        if before != self.link.identity().subject() {
            // What is said from now on is said with the new certificate.
            self.calls.forget();
        }
        done
    }

    pub(super) fn manager_peers(&self) -> Vec<Peer> {
        let managers = self.kept.borrow().as_ref().map(|it| it.managers.clone()).unwrap_or_default();
        managers.into_iter().filter(|it| !it.id.is_empty()).map(|it| Peer { id: it.id, addr: it.addr }).collect()
    }

    /// Completes when this node has its certificate as a manager: others listen to no manager without one.
    pub(super) async fn until_certified(&self, welcome: &Welcome) {
        if !welcome.certified {
            return;
        }
        let mut identities = self.link.identities();
        loop {
            let subject = identities.borrow_and_update().subject();
            if subject.is_some_and(|it| it.role == Some(Role::Manager) && it.cluster == welcome.cluster) {
                return;
            }
            if let Ok(Err(_)) = timeout(PROMOTION_REST, identities.changed()).await {
                return;
            }
            // The leader may have changed its mind.
            if self.root.borrow().role != Role::Manager {
                return;
            }
        }
    }
}

/// Returns the TLS facts of the node's certificate.
pub(super) fn tls_info(identity: &Identity) -> TlsInfo {
    let issuer = identity.issuer().inspect_err(|error| tracing::error!(%error, "cannot read the root of this node"));
    of_issuer(identity.trust_root(), issuer.ok())
}

fn of_issuer(trust_root: &str, issuer: Option<Issuer>) -> TlsInfo {
    let (subject, public_key) = issuer.map(|it| (it.subject, it.public_key)).unwrap_or_default();
    TlsInfo {
        trust_root: trust_root.to_owned(),
        cert_issuer_subject: STANDARD.encode(subject),
        cert_issuer_public_key: STANDARD.encode(public_key),
        ..TlsInfo::default()
    }
}

/// Returns the refusal of settings whose external CA cannot be used, in the words of swarm mode.
pub(super) fn unreachable(ca: &ExternalCa, reason: &str) -> ApiError {
    ApiError::bad_request(format!(
        "rpc error: code = InvalidArgument desc = there must be at least one valid, reachable external CA corresponding to the \
         desired CA certificate: {}: {reason}",
        ca.url
    ))
}

/// Another root for the swarm of this node, and what goes with it: the wanted one, else a new one.
pub(super) fn make(identity: &Identity, wanted: &CaConfig) -> Result<RootRotation, ApiError> {
    let (cert, key) = (wanted.signing_ca_cert.trim(), wanted.signing_ca_key.trim());
    if !cert.is_empty() {
        check_root(cert, Some(key).filter(|it| !it.is_empty()), SystemTime::now())
            .map_err(|error| ApiError::bad_request(format!("rpc error: code = InvalidArgument desc = {error}")))?;
    }
    let made = || -> Result<RootRotation, IdentityError> {
        let root = match cert {
            "" => Shared::new_root(SystemTime::now())?,
            cert => Pair { cert: format!("{cert}\n"), key: key.to_owned() },
        };
        let code = identity.join_code_of(&root.cert)?;
        let token = || code.with_secret(rand::random()).to_string();
        let join_tokens = JoinTokens { worker: token(), manager: token(), ..JoinTokens::default() };
        let tls_info = of_issuer(&root.cert, Some(Issuer::of_root(&root.cert)?));
        let root = NewRoot { cert: root.cert, key: root.key, ..NewRoot::default() };
        let gossip_key = STANDARD.encode(rand::random::<[u8; 32]>());
        Ok(RootRotation { root, tls_info, join_tokens, gossip_key, ..RootRotation::default() })
    };
    made().map_err(|error| ApiError::internal(format!("rpc error: code = Internal desc = {error}")))
}
