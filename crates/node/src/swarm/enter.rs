//! Entering a swarm, beginning one, and leaving it.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use herder_decide::swarm::control::take_external;
use herder_model::swarm::{
    Availability, Change, Cluster, ClusterRecord, InitRequest, JoinRequest, JoinTokens, LEVEL, ManagerAddr, NodeRecord,
    NodeStatus, Role, SwarmNode, SwarmNodeState, Time,
};
use herder_place::Error as ApiError;
use herder_store::{Key, StoreError};
use herder_wire::JoinCode;
use herder_wire::identity::{Identity, IdentityError, OwnPool, Shared, new_id};
use herder_wire::link::{self, Joined, LinkError};
use http::StatusCode;
use tokio::time::timeout;

use super::certifier::signer;
use super::host::{Host, JoinStatus, Known, LEAVE_TIME_MAX, managers_told, now, refused};
use super::kept::PersistedState;
use super::root::tls_info;

/// Swarm mode's port for traffic between containers of several hosts.
const DATA_PATH_PORT: u32 = 4789;

/// Time limit of a client that waits for a node to enter its swarm, as with Docker's engine.
pub(super) const ENTER_TIME_MAX: Duration = Duration::from_secs(20);

/// Message of Docker's engine for a manager that waits for its key.
const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to \
                      unlock it.";

/// The refusal to encrypt networks on a host without the means.
const NO_TUNNEL: &str =
    "networks cannot be encrypted on this host: it has neither WireGuard in its kernel nor the device /dev/net/tun";

impl Host {
    /// Ends this node's part gracefully. Clients of its ingress go elsewhere or wait for the next herder, and another
    /// manager leads.
    pub async fn end(&self) {
        self.ingress.leave().await;
        self.close_store().await;
    }

    pub(super) async fn begin_swarm(self: &Arc<Host>, mut request: InitRequest) -> Result<String, ApiError> {
        self.check_advertised(&request.advertise_addr)?;
        check_data_path(&request.data_path_addr).await?;
        // Outside of a swarm it is an ordinary beginning.
        if request.force_new_cluster && self.kept.borrow().is_some() {
            return self.begin_anew().await;
        }
        let underlay = self.underlay(&request.data_path_addr).await;
        if request.encrypt_networks && underlay.tunnel.is_none() {
            return Err(ApiError::bad_request(NO_TUNNEL));
        }
        let external = match take_external(&mut request) {
            Some(wanted) => Some(self.prepare_external(wanted).await?),
            None => None,
        };
        PersistedState::remove(&self.state)
            .map_err(|error| ApiError::internal(format!("cannot leave the old swarm: {error}")))?;
        let cluster = self.first_cluster(&request)?;
        let managing = self.open_store(None).await.map_err(refused)?;
        managing.store.begin(&self.here).await.map_err(refused)?;
        let mut node = self.first_node(&request);
        node.node.description.underlay = underlay;
        let id = cluster.cluster.id.clone();
        managing.store.commit(vec![cluster.into(), node.into()], now()).await.map_err(refused)?;
        let managers = vec![ManagerAddr { id: self.id.clone(), addr: self.here.clone() }];
        self.keep(Some(PersistedState {
            cluster: id,
            managers,
            manages: true,
            data_path: request.data_path_addr,
            ..PersistedState::default()
        }));
        // The swarm is there by now. A node that is slow to come into its own swarm does so by itself.
        if timeout(ENTER_TIME_MAX, self.until_in(&self.id)).await.is_err() {
            tracing::warn!("the swarm has begun, and this node is not in session with its own manager yet");
        }
        if let Some(external) = external {
            self.take_external(external).await?;
        }
        Ok(self.id.clone())
    }

    /// One manager goes on alone with what it has.
    async fn begin_anew(self: &Arc<Host>) -> Result<String, ApiError> {
        let store = self.store().ok_or_else(|| {
            let known = self.known.lock();
            let why = match &*known.broken {
                _ if known.locked => LOCKED.to_owned(),
                "" => "this node is no manager: only a manager can begin the swarm again".to_owned(),
                broken => format!("this manager's store cannot be opened: {broken}"),
            };
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)
        })?;
        store.force_new_cluster(&self.here).await.map_err(refused)?;
        let view = store.view();
        let managers = view.nodes.values().filter(|it| it.node.id != self.id && it.node.spec.role == Role::Manager);
        let demoted = managers.map(|it| {
            let mut record = NodeRecord::clone(it);
            (record.role, record.node.spec.role) = (Role::Worker, Role::Worker);
            record.into()
        });
        let mut changes: Vec<Change> = demoted.collect();
        if let Some(cluster) = &view.cluster {
            let mut record = ClusterRecord::clone(cluster);
            let managers = view.nodes.values().filter(|it| it.node.id != self.id && it.role == Role::Manager);
            record.demoted.extend(managers.map(|it| (it.node.id.clone(), millis(now()))));
            changes.push(record.into());
        }
        store.commit(changes, now()).await.map_err(refused)?;
        Ok(self.id.clone())
    }

    fn check_advertised(&self, asked: &str) -> Result<(), ApiError> {
        let here = host_of(&self.here);
        let asked = host_of(asked);
        let Ok(address) = asked.parse::<IpAddr>() else { return Ok(()) };
        if address.is_unspecified() {
            return Err(ApiError::bad_request(
                "advertise address must be a non-zero IP address or network interface (with optional port number)",
            ));
        }
        // Only an address of this host can be listened on.
        if let Err(error) = UdpSocket::bind((address, 0)) {
            return Err(ApiError::bad_request(format!(
                "{asked} is no address of this host ({error}); other nodes know this one as {here}, which `herder up --advertise` sets"
            )));
        }
        if asked != here {
            tracing::warn!(
                asked,
                here,
                "the address of this node for others stays as it was: `herder up --advertise` sets their way to it, for the pool and the swarm"
            );
        }
        Ok(())
    }

    fn first_cluster(&self, request: &InitRequest) -> Result<ClusterRecord, ApiError> {
        let code = self.link.identity().join_code().map_err(|error| ApiError::internal(error.to_string()))?;
        let token = || code.with_secret(rand::random()).to_string();
        let mut spec = herder_decide::swarm::control::cluster_spec(request).map_err(ApiError::from)?;
        spec.encryption_config.auto_lock_managers |= request.auto_lock_managers;
        let locked = spec.encryption_config.auto_lock_managers;
        let cluster = Cluster {
            id: new_id(),
            spec,
            tls_info: tls_info(&self.link.identity()),
            default_addr_pool: Some(
                request
                    .default_addr_pool
                    .clone()
                    .filter(|it| !it.is_empty())
                    .unwrap_or_else(|| vec!["10.0.0.0/8".into()]),
            ),
            subnet_size: if request.subnet_size == 0 { 24 } else { request.subnet_size },
            data_path_port: if request.data_path_port == 0 { DATA_PATH_PORT } else { request.data_path_port },
            join_tokens: Some(JoinTokens { worker: token(), manager: token(), ..JoinTokens::default() }),
            ..Cluster::default()
        };
        let unlock_key = if locked { Key::random().text() } else { String::new() };
        // As random as a key of a store, and in the same letters.
        let managers_key = Key::random().text();
        // From now on the managers have it, and no other node.
        let ca_key = self.root_key()?;
        Ok(ClusterRecord {
            cluster,
            unlock_key,
            managers_key,
            ca_key,
            level: LEVEL,
            encrypts_networks: request.encrypt_networks,
            ..ClusterRecord::default()
        })
    }

    /// Key of the root of this node's pool.
    pub(super) fn root_key(&self) -> Result<String, ApiError> {
        let root = self.link.identity().shared.root();
        let missing =
            "this node does not have the key of its pool's root: the swarm that it was in has just ended; try again";
        root.map(|it| it.key).ok_or_else(|| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, missing))
    }

    pub(super) fn first_node(&self, request: &InitRequest) -> NodeRecord {
        let mut node = SwarmNode { id: self.id.clone(), ..SwarmNode::default() };
        node.spec.role = Role::Manager;
        node.spec.availability = availability(&request.availability);
        node.description = self.description.borrow().clone();
        let addr = herder_model::host_of(&self.here).to_owned();
        node.status = NodeStatus { state: SwarmNodeState::Ready, addr, ..NodeStatus::default() };
        let (addr, state_since) = (self.here.clone(), now());
        NodeRecord { node, role: Role::Manager, addr, state_since, level: LEVEL, ..NodeRecord::default() }
    }

    pub(super) async fn enter(self: &Arc<Host>, request: JoinRequest) -> Result<(), ApiError> {
        let code: JoinCode = request.join_token.parse().map_err(|_| ApiError::bad_request("invalid join token"))?;
        check_data_path(&request.data_path_addr).await?;
        let remotes = request.remote_addrs.clone().unwrap_or_default();
        let mine = self.link.identity().join_code().map_err(|error| ApiError::internal(error.to_string()))?;
        let mut kept = PersistedState {
            token: request.join_token.clone(),
            availability: availability(&request.availability),
            managers: remotes.iter().map(|addr| ManagerAddr { id: String::new(), addr: with_port(addr) }).collect(),
            data_path: request.data_path_addr.clone(),
            ..PersistedState::default()
        };
        if mine.of_same_pool(&code) {
            kept.managers.extend(managers_told(&self.views.borrow()).into_iter().map(|(manager, _)| manager));
            self.keep(Some(kept));
            return self.until_joined(&self.id).await;
        }
        let name = self.link.identity().name.clone();
        let addresses: Vec<String> = kept.managers.iter().map(|it| it.addr.clone()).collect();
        let joined = link::join(&addresses, &code, &name, SystemTime::now()).await;
        let Joined { identity, managers } = joined.map_err(|error| not_let_in(error, &code))?;
        let known = kept.managers.into_iter().filter(|it| managers.iter().all(|other| other.addr != it.addr));
        kept.managers = managers.clone().into_iter().chain(known).collect();
        let id = identity.id.clone();
        identity.save(&self.state).map_err(|error| ApiError::internal(error.to_string()))?;
        kept.save(&self.state).map_err(|error| ApiError::internal(error.to_string()))?;
        // The next life of this node reads both.
        let _ = self.another.send(identity).await;
        self.until_joined(&id).await
    }

    /// Same as [`Host::until_in`] with the limit of Docker's engine, and its words afterwards.
    async fn until_joined(&self, id: &str) -> Result<(), ApiError> {
        timeout(ENTER_TIME_MAX, self.until_in(id)).await.unwrap_or_else(|_| {
            let text = "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use \
                        the \"docker info\" command to see the current swarm status of your node.";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text))
        })
    }

    /// Resolves when the swarm has admitted the node with this id, or refuses it.
    pub(super) async fn until_in(&self, id: &str) -> Result<(), ApiError> {
        let mut standing = self.standing.subscribe();
        let decided = |it: &JoinStatus| it.node == id && (!it.cluster.is_empty() || !it.refused.is_empty());
        let standing = standing.wait_for(decided).await;
        let refused = standing.map(|it| it.refused.clone()).unwrap_or_default();
        if refused.is_empty() {
            return Ok(());
        }
        Err(ApiError::bad_request(format!("rpc error: code = InvalidArgument desc = {refused}")))
    }

    /// Out of the swarm. Who was one of several is a node of its own afterwards; with the last manager, the swarm ends.
    pub(super) async fn exit(self: &Arc<Host>) -> Result<(), ApiError> {
        let _exiting = self.exiting.lock().await;
        if self.kept.borrow().is_none() {
            return Ok(());
        }
        let manages = self.managing.borrow().clone();
        let managers = match &manages {
            Some(managing) => managing.store.managers().await.unwrap_or_default(),
            None => Vec::new(),
        };
        let others = managers.iter().any(|it| it.id != self.id);
        // Or the leader takes a manager that says hello once more while its store is still open back among the managers.
        self.ready.send_replace(false);
        if let Some(managing) = &manages
            && others
            && let Err(error) = timeout(LEAVE_TIME_MAX, managing.store.remove_manager(&self.id)).await.unwrap_or(Ok(()))
        {
            tracing::warn!(%error, "cannot inform the other managers that this one leaves");
        }
        let last = manages.is_some() && !others;
        if last && let Some(managing) = &manages {
            managing.manager.dissolve().await;
        }
        self.leaving.send_replace(true);
        let _ = timeout(LEAVE_TIME_MAX, self.agent.leave()).await;
        let cluster = manages.as_ref().and_then(|it| it.store.view().cluster);
        self.close_store().await;
        if last && let Some(cluster) = &cluster {
            self.take_root_back(cluster)?;
        }
        self.keep(None);
        if last {
            *self.known.lock() = Known::default();
            self.standing.send_replace(JoinStatus { node: self.id.clone(), ..JoinStatus::default() });
            self.leaving.send_replace(false);
            return Ok(());
        }
        let name = self.link.identity().name.clone();
        let identity =
            Identity::first(&name, SystemTime::now()).map_err(|error| ApiError::internal(error.to_string()))?;
        identity.save(&self.state).map_err(|error| ApiError::internal(error.to_string()))?;
        let id = identity.id.clone();
        let _ = self.another.send(identity).await;
        let mut standing = self.standing.subscribe();
        let _ = timeout(LEAVE_TIME_MAX, standing.wait_for(|it| it.node == id)).await;
        Ok(())
    }

    /// Takes the root's key back when the swarm ends, and gives it to the nodes of the pool, which stays.
    fn take_root_back(&self, cluster: &ClusterRecord) -> Result<(), ApiError> {
        if !cluster.certifies() {
            return Ok(());
        }
        let failed = |error: IdentityError| ApiError::internal(error.to_string());
        let root = match signer(cluster) {
            // Only an external CA has the key: this node begins a pool of its own.
            root if root.key.is_empty() => Shared::new_root(SystemTime::now()).map_err(failed)?,
            root => root,
        };
        let pool = OwnPool { root, gossip_key: None, removed: cluster.removed.clone() };
        self.link.begin_pool(pool).map_err(failed)
    }

    pub(super) async fn open_locked(self: &Arc<Host>, key: &str) -> Result<bool, ApiError> {
        let key: Key = key.parse().map_err(|error: StoreError| ApiError::bad_request(error.to_string()))?;
        match self.open_store(Some(key)).await {
            Ok(_) => Ok(true),
            Err(StoreError::WrongKey) => Ok(false),
            Err(error) => Err(refused(error)),
        }
    }
}

/// Without the port.
fn host_of(addr: &str) -> &str {
    let is_bare_v6 = addr.matches(':').count() > 1 && !addr.starts_with('[');
    let host = if is_bare_v6 { addr } else { herder_model::host_of(addr) };
    host.trim_matches(['[', ']'])
}

/// Refuses a data path that this node does not have. An empty one is the node's address.
async fn check_data_path(text: &str) -> Result<(), ApiError> {
    if text.is_empty() {
        return Ok(());
    }
    herder_agent::net::data_path(text).await.map(drop).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// Milliseconds since 1970.
pub(super) fn millis(time: Time) -> u64 {
    u64::try_from(time.since(Time::default()).as_millis()).unwrap_or(u64::MAX)
}

fn availability(text: &str) -> Availability {
    match text.to_lowercase().as_str() {
        "pause" => Availability::Pause,
        "drain" => Availability::Drain,
        _ => Availability::Active,
    }
}

/// Swarm mode's port means nothing here: nodes listen on that of the node link.
fn with_port(addr: &str) -> String {
    match addr.rsplit_once(':') {
        Some((host, "2377")) => format!("{host}:{}", herder_model::NODE_PORT),
        Some(_) => addr.to_owned(),
        None => format!("{addr}:{}", herder_model::NODE_PORT),
    }
}

fn not_let_in(error: LinkError, code: &JoinCode) -> ApiError {
    match error {
        LinkError::Refused { .. } => ApiError::bad_request(
            "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster",
        ),
        LinkError::Stranger { .. } => {
            ApiError::internal(format!("remote CA does not match fingerprint. Expected: {}", code.ca_digest()))
        }
        other => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("rpc error: code = Unavailable desc = {other}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_its_port() {
        for (addr, expected) in [
            ("10.0.0.1:2377", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]:2377", "::1"),
            ("::1", "::1"),
            ("eth0:2377", "eth0"),
            ("", ""),
        ] {
            assert_eq!(host_of(addr), expected, "{addr}");
        }
    }
}
