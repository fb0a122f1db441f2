//! This node's certificate as its swarm wants it: from which root, and how long it is valid.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use herder_model::swarm::{JoinTokens, NewRoot, RootRotation, TlsInfo, Welcome};
use herder_place::Error as ApiError;
use herder_tls::certs::Pair;
use herder_wire::identity::{Identity, IdentityError, Issuer, Shared};
use herder_wire::link::Link;
use tokio::sync::watch;
use tokio::time::sleep;

/// After a change that could not be made; most likely the disk is full.
const REST: Duration = Duration::from_secs(5);

/// What the leader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    new_root: Option<NewRoot>,
    trust_root: String,
    /// Nothing: as it is.
    lifetime: Option<Duration>,
}

impl Wanted {
    pub(super) fn of(welcome: &Welcome) -> Wanted {
        Wanted {
            new_root: welcome.new_root.clone(),
            trust_root: welcome.trust_root.clone(),
            lifetime: (welcome.cert_expiry_s > 0).then(|| Duration::from_secs(welcome.cert_expiry_s)),
        }
    }

    fn apply(&self, link: &Link) -> Result<(), IdentityError> {
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
            tracing::info!("the root of before is not trusted any more");
        }
        Ok(())
    }
}

/// Does what is wanted, whenever that changes.
pub(super) async fn keep(link: Arc<Link>, mut wanted: watch::Receiver<Wanted>) {
    loop {
        let now = wanted.borrow_and_update().clone();
        if let Err(error) = now.apply(&link) {
            tracing::error!(%error, "the certificate of this node cannot be changed as the swarm wants it; trying again");
            sleep(REST).await;
            continue;
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// What is told of a node's certificate.
pub(super) fn tls_info(identity: &Identity) -> TlsInfo {
    let issuer = identity.issuer().inspect_err(|error| tracing::error!(%error, "this node's root cannot be read"));
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

/// Another root for the swarm of this node, and what goes with it.
pub(super) fn make(identity: &Identity) -> Result<RootRotation, ApiError> {
    let made = || -> Result<RootRotation, IdentityError> {
        let root = Shared::new_root(SystemTime::now())?;
        let code = identity.join_code_of(&root.cert)?;
        let token = || code.with_secret(rand::random()).to_string();
        let join_tokens = JoinTokens { worker: token(), manager: token(), ..JoinTokens::default() };
        let tls_info = of_issuer(&root.cert, Some(Issuer::of_root(&root.cert)?));
        let root = NewRoot { cert: root.cert, key: root.key, ..NewRoot::default() };
        Ok(RootRotation { root, tls_info, join_tokens, ..RootRotation::default() })
    };
    made().map_err(|error| ApiError::internal(format!("rpc error: code = Internal desc = {error}")))
}
