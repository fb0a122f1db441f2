//! Errors of a store.

use std::io;
use std::path::PathBuf;

use herder_model::swarm::{Conflict, Feature};

/// Reason why the store refused a call or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written, because of a conflict.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Nothing was written, because no leader is known.
    #[error(
        "the swarm does not have a leader: it is possible that too few managers are online; make sure that more than half of \
         them are"
    )]
    NoLeader,
    /// Nothing was written, because this manager leads no more.
    #[error("this manager does not lead any more")]
    LeadsNoMore,
    /// The command may have been written, or may still be. It will not be written twice.
    #[error("the outcome of the change is unknown ({why}): check before trying again")]
    Lost { why: String },
    /// Nothing was written, because some manager lacks the feature.
    #[error("{feature} need feature level {}, and the swarm's managers agree on level {level}: upgrade all managers", feature.level())]
    Level { feature: Feature, level: u32 },
    #[error("the change is {bytes} bytes long, more than {max} are refused: split it", max = crate::COMMAND_BYTES_MAX)]
    TooLarge { bytes: usize },
    /// The folder has a key and none was given.
    #[error("the store is locked: it opens with the key of the swarm")]
    Locked,
    #[error("the store could not be unlocked: invalid key provided")]
    WrongKey,
    #[error("invalid key string")]
    KeyForm,
    /// A store does not start with what it cannot trust.
    #[error(
        "{what} in {} cannot be used: {why}; if other managers are there, remove the folder and let this node join again, \
         else restore a backup",
        folder.display()
    )]
    Damaged { folder: PathBuf, what: String, why: String },
    #[error("failed to {doing}")]
    Io { doing: String, source: io::Error },
    /// Another process has it open.
    #[error("the store in {} is in use by another process", folder.display())]
    InUse { folder: PathBuf },
    #[error("this node is not a manager of a swarm")]
    NotBegun,
    #[error("{node} is a manager of a swarm already")]
    AlreadyBegun { node: String },
    /// The text is that of swarm mode.
    #[error("can't remove member from the raft: this would result in a loss of quorum")]
    QuorumLoss,
    /// The text is that of swarm mode.
    #[error("can't find manager in raft memberlist")]
    UnknownManager { node: String },
    #[error("manager {node} at {addr} does not answer: {why}")]
    Unreachable { node: String, addr: String, why: String },
    #[error("managers are being changed already: wait until that is done")]
    Busy,
    #[error("no other manager can lead now")]
    NobodyElse,
    /// The store has ended: it was shut down, or its disk failed. It must be opened anew.
    #[error("the store has stopped: {why}")]
    Stopped { why: String },
    /// A message of another manager was refused as invalid.
    #[error("{0}")]
    Refused(String),
    #[error("this is no backup that can be restored: {why}")]
    Backup { why: String },
}

impl StoreError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
        let doing = doing.into();
        move |source| StoreError::Io { doing, source }
    }
}

/// Reason why a request got no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);
