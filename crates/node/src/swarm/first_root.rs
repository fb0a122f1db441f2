//! Beginning a swarm with an external CA. The swarm begins with the root of its node, and changes at once to that of the CA.

use herder_decide::swarm::control::{ClusterUpdate, Fresh, update_cluster};
use herder_model::swarm::{CaConfig, RootRotation, View};
use herder_place::Error as ApiError;
use herder_store::StoreError;
use http::StatusCode;
use tokio::time::timeout;

use super::enter::ENTER_TIME_MAX;
use super::host::{Host, now, refused};
use super::{external_ca, root};

/// Attempts to declare the CA while the leader writes to the same record.
const ATTEMPTS_MAX: usize = 5;

/// External CAs that have signed a trial request, and the root that goes with them.
#[derive(Debug)]
pub(super) struct ExternalRoot {
    wanted: CaConfig,
    /// `None` if the CAs sign for the root of this node.
    root: Option<RootRotation>,
}

impl Host {
    /// Checks external CAs that a swarm is to begin with. Nothing is changed yet.
    pub(super) async fn prepare_external(&self, wanted: CaConfig) -> Result<ExternalRoot, ApiError> {
        let identity = self.link.identity();
        for ca in &wanted.external_cas {
            external_ca::try_out(ca, &identity).await.map_err(|reason| root::unreachable(ca, &reason))?;
        }
        let cert = wanted.signing_ca_cert.trim();
        let is_another = !cert.is_empty() && cert != identity.trust_root().trim();
        let root = is_another.then(|| root::make(&identity, &wanted)).transpose()?;
        Ok(ExternalRoot { wanted, root })
    }

    /// Declares external CAs in a swarm that has just begun, and waits until its node has their certificate.
    pub(super) async fn take_external(&self, external: ExternalRoot) -> Result<(), ApiError> {
        let begun = |error: ApiError| {
            let how = "the swarm has begun with a root of its own: use the external CA with `docker swarm ca --rotate --ca-cert \
                       FILE --external-ca …`, or leave the swarm (`docker swarm leave --force`) and begin it again";
            ApiError::new(error.status(), format!("{error}; {how}"))
        };
        self.declare(&external).await.map_err(begun)?;
        let store = self.needed_store()?;
        let has_it = |view: &View| view.cluster.as_ref().is_some_and(|it| it.root_rotation.is_none());
        let changed = async {
            let (mut view, mut watch) = store.watch();
            while !has_it(&view) {
                view = watch.next().await.view;
            }
        };
        timeout(ENTER_TIME_MAX, changed).await.map_err(|_| {
            let text = "the swarm has begun, and not all its nodes have a certificate of the external CA yet; they go on trying, and \
                        their logs say why. `docker info` shows whether the root is still being changed";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })
    }

    async fn declare(&self, external: &ExternalRoot) -> Result<(), ApiError> {
        let store = self.needed_store()?;
        let mut attempts = 1;
        loop {
            let view = store.read().await.map_err(refused)?;
            let Some(cluster) = view.cluster.as_ref().map(|it| &it.cluster) else {
                return Err(ApiError::internal("the swarm has ended meanwhile"));
            };
            let mut spec = cluster.spec.clone();
            spec.ca_config.external_cas.clone_from(&external.wanted.external_cas);
            spec.ca_config.signing_ca_cert.clone_from(&external.wanted.signing_ca_cert);
            let update = ClusterUpdate { version: cluster.meta.version.index, spec, ..ClusterUpdate::default() };
            let fresh = Fresh { root: external.root.clone(), ..Fresh::default() };
            match store.commit(update_cluster(&view, update, fresh)?, now()).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict(_)) if attempts < ATTEMPTS_MAX => attempts += 1,
                Err(error) => return Err(refused(error)),
            }
        }
    }
}
