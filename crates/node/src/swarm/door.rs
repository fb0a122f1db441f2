//! Calls to the node about its swarm, from its door and from other nodes.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Committed, LogPiece, LogsWanted, NotWritten, Restored, Swarm};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use herder_decide::swarm::local::{LocalState, ManagerSeen, Peer as ManagerPeer, SwarmStatus};
use herder_model::swarm::{
    CaConfig, Change, ExternalCa, InitRequest, JoinRequest, ManagerAddr, NetworkRecord, Role, RootRotation, View,
    Written,
};
use herder_place::Error as ApiError;
use herder_place::peers::Asked;
use herder_store::{Store, StoreError};
use herder_wire::Subject;
use herder_wire::swarm::{Heard, Managers, Said, Status};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;

use super::certifier::may_use_store;
use super::host::{Host, now, refused};
use super::{external_ca, logs, root};

/// The host, for those who ask.
#[derive(Clone, Debug)]
pub struct Door(pub Arc<Host>);

impl Door {
    /// Carries a connection of a peer's ingress to a task of this node.
    pub(crate) async fn tunnel(self: Arc<Door>, from: String, stream: impl AsyncRead + AsyncWrite + Unpin) {
        crate::ingress::serve(&self.0.agent, &from, stream).await;
    }
}

/// Calls of other nodes.
#[herder_wire::swarm::async_trait]
impl Managers for Door {
    async fn raft(&self, from: &Subject, message: Bytes) -> Result<Bytes, Status> {
        let store = self.0.store().ok_or_else(|| Status::unavailable("this node is no manager"))?;
        if !may_use_store(store.view().cluster.as_deref(), self.0.link.roster().as_deref(), from) {
            tracing::warn!(from = from.node, "refused a node that claims to be a manager of this swarm");
            return Err(Status::permission_denied(format!("{} is no manager of this swarm", from.node)));
        }
        store.handle(&from.node, message).await.map_err(|error| Status::unavailable(error.to_string()))
    }

    async fn session(&self, from: &Subject, heard: Heard) -> Result<Said, Status> {
        let managing = self.0.managing.borrow().clone();
        let managing = managing.ok_or_else(|| Status::unavailable("this node is no manager"))?;
        Ok(managing.manager.session(&from.node, Box::pin(whole(heard))))
    }
}

/// A session that breaks has ended.
fn whole(heard: Heard) -> impl futures_util::Stream<Item = Bytes> + Send {
    use futures_util::StreamExt as _;
    heard.take_while(|it| std::future::ready(it.is_ok())).filter_map(|it| std::future::ready(it.ok()))
}

impl Swarm for Door {
    fn status(&self) -> SwarmStatus {
        let kept = self.0.kept.borrow().clone();
        let Some(kept) = kept else { return SwarmStatus::default() };
        let known = self.0.known.lock();
        let store = self.0.store();
        // A moment without a leader is waited for where something is asked. Who never had one is being prepared.
        let had_leader = |it: &Arc<Store>| it.leadership().borrow().leader.is_some() || it.view().cluster.is_some();
        let manages = store.as_ref().is_some_and(had_leader);
        let state = match () {
            () if known.locked => LocalState::Locked,
            () if kept.cluster.is_empty() => LocalState::Pending,
            () if kept.manages && store.is_none() && !known.broken.is_empty() => LocalState::Error,
            () => LocalState::Active,
        };
        let manager = |it: &ManagerAddr| ManagerPeer { node_id: it.id.clone(), addr: it.addr.clone() };
        SwarmStatus {
            state,
            role: if kept.manages { Role::Manager } else { Role::Worker },
            control_available: manages,
            node_id: self.0.id.clone(),
            node_addr: herder_model::host_of(&self.0.here).to_owned(),
            error: if known.broken.is_empty() { known.error.clone() } else { known.broken.clone() },
            certificate_expired: self.0.link.identity().ends_at() < SystemTime::now(),
            remote_managers: kept.managers.iter().map(manager).collect(),
        }
    }

    fn managers(&self) -> Vec<ManagerSeen> {
        let managing = self.0.managing.borrow();
        let Some(managing) = managing.as_ref() else { return Vec::new() };
        let managers = managing.managers.borrow();
        let seen = managers.iter().map(|it| ManagerSeen {
            node_id: it.id.clone(),
            addr: it.addr.clone(),
            leader: it.leader,
            reachability: it.reachability,
        });
        seen.collect()
    }

    fn networks(&self) -> Option<Vec<Arc<NetworkRecord>>> {
        self.0.agent.networks().records()
    }

    fn read(&self) -> Asked<'_, View> {
        Box::pin(async move { self.0.needed_store()?.read().await.map_err(refused) })
    }

    fn commit(&self, changes: Vec<Change>) -> Committed<'_> {
        Box::pin(async move {
            let store = self.0.needed_store()?;
            store.commit(changes, now()).await.map_err(|error| match error {
                StoreError::Conflict(conflict) => NotWritten::Conflict(conflict),
                other => NotWritten::Failed(refused(other)),
            })
        })
    }

    fn init(&self, request: InitRequest) -> Asked<'_, String> {
        let host = self.0.clone();
        to_its_end(async move { host.begin_swarm(request).await })
    }

    fn join(&self, request: JoinRequest) -> Asked<'_, ()> {
        let host = self.0.clone();
        to_its_end(async move { host.enter(request).await })
    }

    fn leave(&self, _force: bool) -> Asked<'_, ()> {
        let host = self.0.clone();
        to_its_end(async move { host.exit().await })
    }

    fn new_root(&self, wanted: &CaConfig) -> Result<RootRotation, ApiError> {
        root::make(&self.0.link.identity(), wanted)
    }

    fn reach_external_cas(&self, wanted: CaConfig) -> Asked<'_, ()> {
        Box::pin(async move {
            let identity = self.0.link.identity();
            for ca in wanted.external_cas.iter().filter(|it| *it != &ExternalCa::default()) {
                external_ca::try_out(ca, &identity).await.map_err(|reason| root::unreachable(ca, &reason))?;
            }
            Ok(())
        })
    }

    fn unlock(&self, key: String) -> Asked<'_, bool> {
        let host = self.0.clone();
        to_its_end(async move { host.open_locked(&key).await })
    }

    fn backup(&self, key: String) -> Asked<'_, Bytes> {
        Box::pin(async move { self.0.backup(&key).await })
    }

    fn restore(&self, key: String, backup: Bytes, force: bool) -> Asked<'_, Restored> {
        let host = self.0.clone();
        to_its_end(async move { host.restore(&key, backup, force).await })
    }

    fn logs(&self, wanted: LogsWanted) -> Asked<'_, BoxStream<'static, LogPiece>> {
        Box::pin(async move {
            let front = self.0.front.upgrade().ok_or_else(|| ApiError::internal("this node is shutting down"))?;
            Ok(logs::of(front, self.0.needed_store()?, wanted))
        })
    }

    fn written(&self) -> broadcast::Receiver<Arc<[Written]>> {
        self.0.written.subscribe()
    }
}

/// Finishes a change when the client hangs up: a node must not stay half in or half out.
fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Asked<'static, T> {
    let change = tokio::spawn(change);
    Box::pin(async move {
        match change.await {
            Ok(outcome) => outcome,
            Err(error) => Err(ApiError::internal(format!("the change of membership was not carried out: {error}"))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_of_membership_goes_on_when_its_client_is_gone() {
        let (done, is_done) = tokio::sync::oneshot::channel();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let asked = to_its_end(async move {
            let _ = gone.await;
            let _ = done.send(());
            Ok(())
        });
        drop(asked);
        go.send(()).expect("it waits");
        is_done.await.expect("it went on");
    }
}
