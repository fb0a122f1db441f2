//! Interface of doors to the swarm of this node.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use herder_decide::swarm::local::{ManagerSeen, SwarmStatus};
use herder_model::swarm::{
    CaConfig, Change, Conflict, InitRequest, JoinRequest, NetworkRecord, RootRotation, View, Written,
};
use herder_place::Error as ApiError;
use herder_place::peers::Asked;
use tokio::sync::broadcast;

/// The calls of a door to the swarm that this node is in. Calls are for the swarm that this node is in now.
pub trait Swarm: Send + Sync + std::fmt::Debug + 'static {
    /// Returns the state of this node in the swarm. Does not wait.
    fn status(&self) -> SwarmStatus;
    /// The managers as raft sees them; empty where that is not known. Does not wait.
    fn managers(&self) -> Vec<ManagerSeen>;
    /// Returns the swarm's networks as this node received them last; `None` before that. Nothing where it was not. Does
    /// not wait.
    fn networks(&self) -> Option<Vec<Arc<NetworkRecord>>>;
    /// Returns a view that is not older than this call.
    fn read(&self) -> Asked<'_, View>;
    /// Writes all changes or none; what is declared then.
    fn commit(&self, changes: Vec<Change>) -> Committed<'_>;
    /// Makes a swarm of this node; its id. The request was checked.
    fn init(&self, request: InitRequest) -> Asked<'_, String>;
    /// Enters a swarm. The request was checked. Who does not wait for the end (20 s) does not end it.
    fn join(&self, request: JoinRequest) -> Asked<'_, ()>;
    /// Leaves the swarm. Whether that is allowed was checked.
    fn leave(&self, force: bool) -> Asked<'_, ()>;
    /// Makes a root that all nodes could have their certificates from, with the tokens of then.
    fn new_root(&self, wanted: &CaConfig) -> Result<RootRotation, ApiError>;
    /// Checks that the external CAs of these settings can be reached.
    fn reach_external_cas(&self, wanted: CaConfig) -> Asked<'_, ()>;
    /// Opens a locked store. False: it is the wrong key.
    fn unlock(&self, key: String) -> Asked<'_, bool>;
    /// All that this manager knows, sealed with a key (`SWMKEY-1-…`).
    fn backup(&self, key: String) -> Asked<'_, Bytes>;
    /// Makes this node the only manager of the swarm in a backup. Nothing is changed unless the backup is whole; with `force`
    /// also on a node that is in a swarm.
    fn restore(&self, key: String, backup: Bytes, force: bool) -> Asked<'_, Restored>;
    /// Streams the logs of tasks; with `follow` also later lines.
    fn logs(&self, wanted: LogsWanted) -> Asked<'_, BoxStream<'static, LogPiece>>;
    /// Receives one item for each command that is written while this node is a manager. Silent otherwise, and never
    /// closed.
    fn written(&self) -> broadcast::Receiver<Arc<[Written]>>;
}

/// A write under way.
pub type Committed<'s> = Pin<Box<dyn Future<Output = Result<View, NotWritten>> + Send + 's>>;

/// Reason why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    /// Another client was faster.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    #[error(transparent)]
    Failed(#[from] ApiError),
}

/// Selection of logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogsOf {
    /// All tasks of the service with this id; with `follow`, also those that come.
    Service(String),
    Task(String),
}

/// Options of a call for logs. Times are as Docker's engines take them (seconds since 1970, with an optional fraction);
/// empty is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsWanted {
    pub of: LogsOf,
    pub follow: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub timestamps: bool,
    pub since: String,
    pub until: String,
    /// A number, or `all`. For each task.
    pub tail: String,
}

/// A piece of the logs.
#[derive(Clone, Debug)]
pub enum LogPiece {
    /// Bytes as the engine sent them: in frames, unless the task has a terminal. Cut anywhere; of one task in order.
    Bytes { service_id: String, task_id: String, node_id: String, bytes: Bytes },
    /// Some logs cannot be had; a sentence.
    Missing(String),
}

/// Result of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Id of the swarm.
    pub cluster: String,
    /// Id of this node in it.
    pub node: String,
    /// Names of nodes that the swarm knows, besides this one.
    pub others: Vec<String>,
    /// True if nodes of the swarm can stay in it; false if they have another CA than this node.
    pub same_pool: bool,
}
