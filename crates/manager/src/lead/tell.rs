//! Messages of the leader to nodes: roles and assignments.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use herder_decide::swarm::members::HeartbeatScale;
use herder_decide::swarm::{SentAssignments, Touched};
use herder_model::swarm::{
    Cluster, ClusterRecord, IngressApplied, IngressServed, ManagerAddr, NewRoot, Role, ToNode, View, Welcome,
};
use tokio::time::Instant;

use super::Lead;
use crate::sessions::{LastHeartbeat, SessionSender};

/// Number of nodes that get all assignments in one step. After a change of leader all nodes need them, and copies of
/// all tasks must not be on their way at once.
const WHOLE_MAX: usize = 256;

/// State of one node's session, besides its record.
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) say: SessionSender,
    pub(super) last_heartbeat: Arc<LastHeartbeat>,
    told: Option<SentAssignments>,
    pub(super) is_welcome: bool,
    welcomed: Welcome,
    /// Networks that the node has, each with its version. `None`: it gets all of them whole.
    pub(super) nets: Option<BTreeMap<String, u64>>,
    /// Version of the ingress that the node has. `None`: it gets the whole state, if it listens.
    pub(super) ingress: Option<u64>,
    pub(super) ingress_applied: IngressApplied,
    /// Tasks of the node that get requests from ingress nodes, as sent last.
    pub(super) served: IngressServed,
    /// Heartbeat scale that the node was given; its lease depends on it.
    pub(super) scale: HeartbeatScale,
    /// Time since which the node reports a lost engine. It then counts as down, although it sends heartbeats.
    pub(super) engine_lost: Option<Instant>,
}

impl Session {
    pub(super) fn new(
        number: u64,
        say: SessionSender,
        last_heartbeat: Arc<LastHeartbeat>,
        has_engine: bool,
    ) -> Session {
        let engine_lost = (!has_engine).then(Instant::now);
        let (welcomed, scale) = (Welcome::default(), HeartbeatScale::default());
        Session {
            number,
            say,
            last_heartbeat,
            told: None,
            is_welcome: false,
            welcomed,
            nets: None,
            ingress: None,
            ingress_applied: IngressApplied::default(),
            served: IngressServed::default(),
            scale,
            engine_lost,
        }
    }

    fn welcome(&mut self, welcome: Welcome, scale: HeartbeatScale) -> bool {
        let is_news = self.welcomed != welcome;
        if !self.is_welcome {
            self.is_welcome = true;
            self.last_heartbeat.open();
        }
        // Known before it is said: the node must not be given up while it believes that it has more time.
        self.scale = self.scale.max(scale);
        let heard = !is_news || self.say.say(&ToNode::Welcome(welcome.clone()));
        self.welcomed = welcome;
        heard
    }

    fn wants_whole(&self, touched: &Touched) -> bool {
        touched.whole || self.told.is_none()
    }

    /// False, if the node does not listen.
    fn tell(&mut self, view: &View, node: &str, touched: &Touched) -> bool {
        let wants_whole = self.wants_whole(touched);
        let told = self.told.get_or_insert_default();
        let message = if wants_whole {
            Some(ToNode::Assignments(Box::new(told.whole(view, node))))
        } else {
            told.changes(view, node, touched).map(|it| ToNode::Changes(Box::new(it)))
        };
        message.is_none_or(|it| self.say.say(&it))
    }
}

impl Lead<'_> {
    /// Sends nodes the changes in their assignments.
    pub(super) fn tell(&mut self, view: &View) {
        if self.touched.is_empty() {
            return;
        }
        let scale = HeartbeatScale::of(view.nodes.len());
        let welcome = self.welcome(view, scale);
        let mut whole = 0;
        for (id, touched) in std::mem::take(&mut self.touched) {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let Some(record) = view.nodes.get(&id) else {
                session.say.say(&ToNode::Refused("this node was removed from the swarm".into()));
                self.close(&id);
                continue;
            };
            let role = record.node.spec.role.max(record.role);
            let heard = session.welcome(Welcome { role, ..welcome.clone() }, scale);
            let wants_whole = session.wants_whole(&touched);
            if wants_whole && heard && whole == WHOLE_MAX {
                self.touched.insert(id, touched);
                continue;
            }
            whole += usize::from(wants_whole);
            if !heard || !session.tell(view, &id, &touched) {
                tracing::warn!(node = id, "closing session: the node does not read messages");
                self.close(&id);
            }
        }
    }

    /// Returns the message that is the same for all nodes.
    fn welcome(&mut self, view: &View, scale: HeartbeatScale) -> Welcome {
        let cluster = view.cluster.as_ref().map(|it| &it.cluster);
        Welcome {
            cluster: cluster.map(|it| it.id.clone()).unwrap_or_default(),
            role: Role::default(),
            managers: self.managers.get_or_insert_with(|| managers(view)).clone(),
            heartbeat_ms: millis(scale.heartbeat()),
            lease_ms: millis(scale.lease()),
            new_root: view.cluster.as_ref().and_then(|it| new_root(it)),
            certified: view.cluster.as_ref().is_some_and(|it| it.certifies()),
            removed: view.cluster.as_ref().map(|it| it.removed.clone()).unwrap_or_default(),
            demoted: view.cluster.as_ref().map(|it| it.demoted.clone()).unwrap_or_default(),
            trust_root: cluster.map(|it| it.tls_info.trust_root.clone()).unwrap_or_default(),
            cert_expiry_s: cluster.map(cert_expiry_s).unwrap_or_default(),
            snapshot_interval: cluster.map(|it| it.spec.raft.snapshot_interval).unwrap_or_default(),
            keep_entries: cluster.map(|it| it.spec.raft.log_entries_for_slow_followers).unwrap_or_default(),
            level: view.level(),
        }
    }
}

/// The root that nodes are being brought to. Where managers certify the nodes, its key is theirs.
fn new_root(record: &ClusterRecord) -> Option<NewRoot> {
    let mut root = record.root_rotation.as_ref()?.root.clone();
    if record.certifies() {
        root.key.clear();
    }
    Some(root)
}

fn cert_expiry_s(cluster: &Cluster) -> u64 {
    u64::try_from(cluster.spec.ca_config.node_cert_expiry / 1_000_000_000).unwrap_or_default()
}

fn managers(view: &View) -> Vec<ManagerAddr> {
    let managers = view.nodes.values().filter(|it| it.role == Role::Manager);
    managers.map(|it| ManagerAddr { id: it.node.id.clone(), addr: it.addr.clone() }).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
