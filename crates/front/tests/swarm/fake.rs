//! A swarm in memory: commands are applied to a view at once, and nodes follow.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use herder_decide::swarm::allocate::first_ingress;
use herder_decide::swarm::control;
use herder_decide::swarm::local::{LocalState, ManagerSeen, Peer, SwarmStatus};
use herder_front::ApiError;
use herder_front::swarm::{Committed, LogPiece, LogsOf, LogsWanted, NotWritten, Restored, Swarm};
use herder_model::swarm::{
    CaConfig, Change, ClusterRecord, Command, Conflict, Engine, InitRequest, JoinRequest, JoinTokens, Kind, LEVEL,
    NetworkRecord, NodeRecord, Platform, Plugin, Reachability, Reservations, Role, RootRotation, SwarmNodeState, Time,
    TlsInfo, TunnelEnd, View, Written,
};
use herder_place::peers::Asked;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// All nodes together.
#[derive(Debug)]
pub(crate) struct World {
    state: Mutex<State>,
    written: broadcast::Sender<Arc<[Written]>>,
}

#[derive(Debug, Default)]
struct State {
    view: View,
    /// Id of the node at each door, while it is in the swarm.
    nodes: [Option<String>; 2],
    locked: bool,
    /// Writes that somebody else is faster with.
    late: u32,
    /// True if calls are never answered.
    silent: bool,
}

impl World {
    pub(crate) fn new() -> Arc<World> {
        Arc::new(World { state: Mutex::default(), written: broadcast::Sender::new(64) })
    }

    pub(crate) fn view(&self) -> View {
        self.state.lock().view.clone()
    }

    /// The first node begins anew, and waits for its key.
    pub(crate) fn lock(&self) {
        let record = self.view().cluster.expect("a swarm");
        let mut record = ClusterRecord::clone(&record);
        record.cluster.spec.encryption_config.auto_lock_managers = true;
        self.write(vec![record.into()]);
        self.state.lock().locked = true;
    }

    /// The next writes come too late.
    pub(crate) fn be_late(&self, times: u32) {
        self.state.lock().late = times;
    }

    /// Managers that do not answer.
    pub(crate) fn be_silent(&self) {
        self.state.lock().silent = true;
    }

    /// Version of the object that a path means.
    pub(crate) fn version_of(&self, kind: &str, text: &str) -> Option<u64> {
        use herder_decide::swarm::lookup;
        let view = self.view();
        let meta = match kind {
            "swarm" => view.cluster.as_ref().map(|it| &it.cluster.meta),
            "services" => lookup::service(&view, text).ok().map(|it| &it.service.meta),
            "nodes" => lookup::node(&view, text).ok().map(|it| &it.node.meta),
            "secrets" => lookup::secret(&view, text).ok().map(|it| &it.meta),
            "configs" => lookup::config(&view, text).ok().map(|it| &it.meta),
            _ => None,
        };
        meta.map(|it| it.version.index)
    }

    /// Writes without competition.
    pub(crate) fn write(&self, changes: Vec<Change>) {
        self.commit(changes).expect("written");
    }

    fn commit(&self, changes: Vec<Change>) -> Result<View, NotWritten> {
        let mut state = self.state.lock();
        if state.late > 0 {
            state.late -= 1;
            return Err(Conflict::Sequence { kind: Kind::Service, id: "web".into() }.into());
        }
        let index = state.view.index + 1;
        let at = Time(1_795_207_286_000_000_000 + index * 1_000_003);
        let written = state.view.apply(index, &Command { at, changes })?;
        let view = state.view.clone();
        drop(state);
        if !written.is_empty() {
            // Nobody listens: that is no failure.
            let _ = self.written.send(written.into());
        }
        Ok(view)
    }

    /// Carries out what managers do at once: roles, a new root and the first network.
    fn settle(&self) {
        let view = self.view();
        let moved = view.nodes.values().filter(|it| it.role != it.node.spec.role);
        let moved = moved.map(|it| NodeRecord { role: it.node.spec.role, ..NodeRecord::clone(it) }.into());
        let changes: Vec<Change> = moved.collect();
        if !changes.is_empty() {
            self.write(changes);
        }
        let view = self.view();
        if let Some(cluster) = &view.cluster {
            self.write(first_ingress(&view, cluster, "i".repeat(25)));
        }
    }
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    world: Arc<World>,
    at: usize,
    host: String,
    addr: String,
}

impl Node {
    pub(crate) fn new(world: Arc<World>, at: usize, host: &str) -> Node {
        Node { world, at, host: host.into(), addr: format!("10.229.0.{}", 11 + at) }
    }

    fn record(&self, id: &str, role: Role) -> NodeRecord {
        let mut record = NodeRecord { role, level: LEVEL, ..NodeRecord::default() };
        let node = &mut record.node;
        node.id = id.to_owned();
        node.spec.role = role;
        node.status.state = SwarmNodeState::Ready;
        node.status.addr.clone_from(&self.addr);
        let description = &mut node.description;
        description.hostname.clone_from(&self.host);
        description.platform = Platform { architecture: "x86_64".into(), os: "linux".into(), ..Platform::default() };
        description.resources =
            Reservations { nano_cpus: 2_000_000_000, memory_bytes: 8 << 30, ..Reservations::default() };
        let plugin = |kind: &str, name: &str| Plugin { kind: kind.into(), name: name.into(), ..Plugin::default() };
        let plugins = vec![plugin("Log", "json-file"), plugin("Network", "bridge"), plugin("Volume", "local")];
        description.engine = Engine { engine_version: "28.5.2".into(), plugins, ..Engine::default() };
        description.tls_info = tls_info();
        description.underlay.tunnel = Some(TunnelEnd { key: format!("key {}", self.at), ..TunnelEnd::default() });
        record
    }
}

fn tls_info() -> TlsInfo {
    let text = |text: &str| text.to_owned();
    TlsInfo {
        trust_root: text("PEM"),
        cert_issuer_subject: text("AA=="),
        cert_issuer_public_key: text("AA=="),
        ..TlsInfo::default()
    }
}

/// An id for the node at this door.
fn node_id(at: usize) -> String {
    format!("{}{}", "n".repeat(24), at)
}

const DIGEST: &str = "62ucfse6pw4q2xlv999etp7rpxybyuokhja3ljbwn4hi88apsb";

impl Swarm for Node {
    fn status(&self) -> SwarmStatus {
        let state = self.world.state.lock();
        let Some(id) = state.nodes[self.at].clone() else { return SwarmStatus::default() };
        if state.locked && self.at == 0 {
            let error = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm \
                         unlock\" to unlock it.";
            return SwarmStatus {
                state: LocalState::Locked,
                role: Role::Manager,
                node_addr: self.addr.clone(),
                error: error.into(),
                ..SwarmStatus::default()
            };
        }
        let role = state.view.nodes.get(&id).map(|it| it.role).unwrap_or_default();
        drop(state);
        let peer = |it: ManagerSeen| Peer { node_id: it.node_id, addr: it.addr };
        SwarmStatus {
            state: LocalState::Active,
            role,
            control_available: role == Role::Manager,
            node_id: id,
            node_addr: self.addr.clone(),
            remote_managers: self.managers().into_iter().map(peer).collect(),
            ..SwarmStatus::default()
        }
    }

    fn managers(&self) -> Vec<ManagerSeen> {
        let view = self.world.view();
        let managers = view.nodes.values().filter(|it| it.role == Role::Manager).map(|it| &it.node);
        let seen = managers.map(|it| ManagerSeen {
            node_id: it.id.clone(),
            addr: format!("{}:2377", it.status.addr),
            leader: it.id == node_id(0),
            reachability: Reachability::Reachable,
        });
        seen.collect()
    }

    fn networks(&self) -> Option<Vec<Arc<NetworkRecord>>> {
        None
    }

    fn read(&self) -> Asked<'_, View> {
        Box::pin(async {
            if self.world.state.lock().silent {
                std::future::pending::<()>().await;
            }
            Ok(self.world.view())
        })
    }

    fn commit(&self, changes: Vec<Change>) -> Committed<'_> {
        Box::pin(async {
            let view = self.world.commit(changes)?;
            self.world.settle();
            Ok(view)
        })
    }

    fn init(&self, request: InitRequest) -> Asked<'_, String> {
        Box::pin(async move {
            let id = node_id(self.at);
            let mut record = ClusterRecord { level: LEVEL, ..ClusterRecord::default() };
            let cluster = &mut record.cluster;
            cluster.id = "c".repeat(25);
            cluster.spec = control::cluster_spec(&request)?;
            cluster.tls_info = tls_info();
            (cluster.subnet_size, cluster.data_path_port) = (24, 4789);
            let token = |secret: &str| format!("SWMTKN-1-{DIGEST}-{}", secret.repeat(25));
            cluster.join_tokens = Some(JoinTokens { worker: token("w"), manager: token("m"), ..JoinTokens::default() });
            self.world.state.lock().nodes[self.at] = Some(id.clone());
            self.world.write(vec![record.into(), self.record(&id, Role::Manager).into()]);
            self.world.settle();
            Ok(id)
        })
    }

    fn join(&self, request: JoinRequest) -> Asked<'_, ()> {
        Box::pin(async move {
            let tokens =
                self.world.view().cluster.as_ref().and_then(|it| it.cluster.join_tokens.clone()).unwrap_or_default();
            if request.join_token != tokens.worker {
                let text = format!("remote CA does not match fingerprint. Expected: {}", "9c".repeat(32));
                return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
            let id = node_id(self.at);
            self.world.state.lock().nodes[self.at] = Some(id.clone());
            self.world.write(vec![self.record(&id, Role::Worker).into()]);
            Ok(())
        })
    }

    fn leave(&self, _: bool) -> Asked<'_, ()> {
        Box::pin(async {
            self.world.state.lock().nodes[self.at] = None;
            Ok(())
        })
    }

    fn new_root(&self, _: &CaConfig) -> Result<RootRotation, ApiError> {
        let tls_info = TlsInfo { cert_issuer_public_key: "another".into(), ..tls_info() };
        let token = |secret: &str| format!("SWMTKN-1-{}-{}", DIGEST.replace('6', "7"), secret.repeat(25));
        let join_tokens = JoinTokens { worker: token("v"), manager: token("n"), ..JoinTokens::default() };
        Ok(RootRotation { tls_info, join_tokens, ..RootRotation::default() })
    }

    fn reach_external_cas(&self, _: CaConfig) -> Asked<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn unlock(&self, key: String) -> Asked<'_, bool> {
        Box::pin(async move {
            let fits = !key.contains("AAAAAAAAAAAA");
            self.world.state.lock().locked = !fits;
            Ok(fits)
        })
    }

    fn backup(&self, key: String) -> Asked<'_, bytes::Bytes> {
        Box::pin(async move { Ok(format!("sealed with {key}").into()) })
    }

    fn restore(&self, key: String, backup: bytes::Bytes, force: bool) -> Asked<'_, Restored> {
        Box::pin(async move {
            if backup != format!("sealed with {key}") {
                return Err(ApiError::bad_request("another key"));
            }
            Ok(Restored { cluster: format!("forced {force}"), ..Restored::default() })
        })
    }

    /// Each task says the same, as the services of the recordings did.
    fn logs(&self, wanted: LogsWanted) -> Asked<'_, BoxStream<'static, LogPiece>> {
        Box::pin(async move {
            let view = self.world.view();
            let (service_id, tasks) = match wanted.of {
                LogsOf::Service(id) => (id.clone(), view.tasks_of_service(&id).map(|it| it.task.id.clone()).collect()),
                LogsOf::Task(id) => {
                    (view.tasks.get(&id).map(|it| it.task.service_id.clone()).unwrap_or_default(), vec![id])
                }
            };
            let service = view.services.get(&service_id).ok_or_else(|| ApiError::not_found("service"))?.service.clone();
            let time = if wanted.timestamps { "2026-11-20T20:39:21.657716263Z " } else { "" };
            let framed = |stream: u8, text: &str| {
                let text = format!("{time}{text}\n");
                let length = u32::try_from(text.len()).expect("short").to_be_bytes();
                [&[stream, 0, 0, 0][..], &length, text.as_bytes()].concat()
            };
            let said = match service.spec.name.as_str() {
                "full" => [framed(1, "tick"), framed(2, "err")].concat(),
                "ttys" => b"one\r\n".to_vec(),
                _ => framed(1, "hi from 0123456789ab"),
            };
            let piece = move |task_id: String| LogPiece::Bytes {
                service_id: service_id.clone(),
                task_id,
                node_id: node_id(0),
                bytes: Bytes::from(said.clone()),
            };
            Ok(stream::iter(tasks).map(piece).boxed())
        })
    }

    fn written(&self) -> broadcast::Receiver<Arc<[Written]>> {
        self.world.written.subscribe()
    }
}
