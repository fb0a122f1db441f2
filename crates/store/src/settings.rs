//! Settings of a store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{Backend, Key, StoreError};

/// A command longer than this is refused (in JSON). Swarm mode has 1.5 MiB; a message between nodes has 9 MiB, and must hold
/// a command with what is around it.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;

/// Settings with which a store is opened.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of this store alone. Created if it is missing.
    pub folder: PathBuf,
    /// Id of this node.
    pub node: String,
    /// Opens a folder that is locked, locks a new one.
    pub key: Option<Key>,
    /// Interval of a leader's heartbeats.
    pub heartbeat: Duration,
    /// Leader lease: a silent leader is tolerated for so long. The election timeout follows, half of this to all of it.
    pub patience: Duration,
    /// A request is given up after so long: Docker's clients of swarm mode wait so long, too.
    pub wait: Duration,
    /// Commands between two snapshots (swarm mode: `SnapshotInterval`).
    pub snapshot_interval: u64,
    /// Log bytes since the last snapshot that cause a new one, if they also exceed its size. A manager that starts
    /// reads the whole log. So what snapshots cost is a share of what the log costs.
    pub log_bytes: usize,
    /// Commands kept for managers that are slow, though a snapshot has them (`LogEntriesForSlowFollowers`).
    pub keep: u64,
    /// Storage of the database, if not a file in the folder.
    pub backend: Option<Arc<dyn Backend>>,
}

impl Settings {
    /// Returns the default settings. A leader is missed after three heartbeats and a half, and another one asks for
    /// votes after two to three and a half more: under a second in all.
    pub fn new(folder: impl Into<PathBuf>, node: impl Into<String>) -> Settings {
        Settings {
            folder: folder.into(),
            node: node.into(),
            key: None,
            heartbeat: Duration::from_millis(100),
            patience: Duration::from_millis(350),
            wait: Duration::from_secs(20),
            snapshot_interval: 10_000,
            log_bytes: 64 << 20,
            keep: 500,
            backend: None,
        }
    }
}

/// A manager that does not answer is tried again after these times.
const BACKOFF: &str = "50ms 100ms 200ms ...500ms";
/// Commands in one message between managers, as far as their bytes allow.
const MESSAGE_COMMANDS_MAX: u64 = 1024;
/// Time that a removed leader goes on, so that the others receive the removal.
const STEP_DOWN_MS: u64 = 150;

impl Settings {
    /// The settings of raft that come of these.
    pub(crate) fn raft(&self) -> Result<openraft::Config, StoreError> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let patience = millis(self.patience);
        let config = openraft::Config {
            cluster_name: "herder".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            // Raft waits for a lease as long as the longest time, and then for a random time between both.
            election_timeout_min: patience / 2,
            election_timeout_max: patience,
            // A leader without a majority is silent for a while, so that one with a majority is found.
            quorum_loss_probe_interval: Some(patience * 3),
            // One that was cut off asks first, and does not depose anybody when it comes back.
            enable_pre_vote: Some(true),
            // The views of a leader that was started again may be old: it has to be elected again.
            enable_leader_restore: Some(false),
            removed_leader_step_down: openraft::StepDownPolicy::After(STEP_DOWN_MS),
            max_payload_entries: MESSAGE_COMMANDS_MAX,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_interval),
            max_in_snapshot_log_to_keep: self.keep,
            replication_lag_threshold: self.snapshot_interval.saturating_mul(2),
            backoff: BACKOFF.to_owned(),
            ..openraft::Config::default()
        };
        config.validate().map_err(|error| StoreError::Refused(format!("the settings of the store do not fit: {error}")))
    }
}
