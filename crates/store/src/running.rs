//! A store between its start and its end: raft, its disk, and the task that follows who leads.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use herder_parts::Parts;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::RaftError;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::board::Board;
use crate::disk::{Disk, Found};
use crate::leading::{self, Heard, Leads};
use crate::link::Links;
use crate::log::Log;
use crate::machine::Machine;
use crate::message::Refusal;
use crate::proof;
use crate::raft::{Address, Member, Metrics, Raft, Types};
use crate::serve::Incoming;
use crate::{Settings, StoreError, Transport};

pub(crate) struct Running {
    pub(crate) me: Member,
    pub(crate) raft: Raft,
    pub(crate) disk: Arc<Disk>,
    pub(crate) links: Links,
    pub(crate) board: Arc<Board>,
    pub(crate) patience: Duration,
    pub(crate) wait: Duration,
    /// A snapshot that is coming in.
    pub(crate) incoming: Mutex<Option<Incoming>>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) leads: Leads,
    ended: AtomicBool,
    follows: JoinHandle<()>,
    shortens: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(
        settings: &Settings,
        transport: Arc<dyn Transport>,
        board: Arc<Board>,
        leads: Leads,
        (disk, found): (Disk, Found),
    ) -> Result<Running, StoreError> {
        let disk = Arc::new(disk);
        let me = found.member.clone();
        let links = Links { me: me.clone(), transport, board: Arc::clone(&board), silence: Arc::default() };
        let log = Log::new(Arc::clone(&disk), found, settings.log_bytes);
        let machine = Machine::new(Arc::clone(&disk), Arc::clone(&board));
        let config = Arc::new(settings.raft()?);
        let raft = Raft::new(me.clone(), config, links.clone(), log.clone(), machine)
            .await
            .map_err(|error| StoreError::Stopped { why: error.to_string() })?;
        // Both are aborted by `stop`.
        let parts = Parts::default();
        let raft_to_shorten = raft.clone();
        let shortens = parts.until_done("raft log", move || shorten(raft_to_shorten.clone(), log.clone()));
        let (patience, wait) = (settings.patience, settings.wait);
        let heard = Arc::new(Heard::new(patience));
        let (metrics, of, listening, led) = (raft.metrics(), settings.clone(), Arc::clone(&heard), leads.clone());
        let follows = parts.until_done("raft leadership", move || {
            leading::follow(metrics.clone(), of.clone(), Arc::clone(&listening), led.clone())
        });
        Ok(Running {
            me,
            raft,
            disk,
            links,
            board,
            patience,
            wait,
            incoming: Mutex::default(),
            heard,
            leads,
            ended: AtomicBool::new(false),
            follows,
            shortens,
        })
    }

    /// Ends all of it. The folder may be opened again after that.
    pub(crate) async fn stop(&self) {
        self.ended.store(true, Ordering::Release);
        // It only fails if raft has ended before.
        let _ = self.raft.shutdown().await;
        self.disk.close().await;
        self.follows.abort();
        self.shortens.abort();
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Returns the leader, unless it is silent.
    pub(crate) fn leader(&self) -> Option<Member> {
        self.heard.leader(&self.raft.metrics().borrow_watched()).cloned()
    }

    pub(crate) fn address(&self, member: &Member) -> Option<Address> {
        self.metrics().membership_config.get_node(member).cloned()
    }

    /// Members that vote, and the others.
    pub(crate) fn voters(&self) -> BTreeSet<Member> {
        self.metrics().membership_config.voter_ids().collect()
    }

    pub(crate) fn is_member(&self, member: &Member) -> bool {
        self.raft.metrics().borrow_watched().membership_config.get_node(member).is_some()
    }

    /// True if the sender may send messages of raft: a member, or a manager by its proof. A store without a swarm
    /// accepts the manager that takes it in.
    pub(crate) fn is_manager(&self, member: &Member, proof: &str) -> bool {
        self.is_member(member) || self.board.managers_key().is_none_or(|key| proof::holds(&key, member, proof))
    }

    /// Resolves when raft has ended, with the reason.
    pub(crate) async fn ended(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Some(why) = self.stopped() {
                return why;
            }
            if metrics.changed().await.is_err() {
                return self.stopped().unwrap_or_else(|| "it does not say why".to_owned());
            }
        }
    }

    /// Returns the reason why raft has ended, if it has.
    pub(crate) fn stopped(&self) -> Option<String> {
        let shut = self.ended.load(Ordering::Acquire).then(|| "it was shut down".to_owned());
        shut.or_else(|| self.raft.metrics().borrow_watched().running_state.as_ref().err().map(ToString::to_string))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.follows.abort();
        self.shortens.abort();
    }
}

/// Purges the log by size in bytes, in addition to openraft's limit by entry count. Some entries are a million times as
/// long as others.
async fn shorten(raft: Raft, log: Log) {
    let mut metrics = raft.metrics();
    let mut purged = 0;
    loop {
        let ended = tokio::select! {
            () = log.long() => raft.trigger().snapshot().await.is_err(),
            changed = metrics.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
        let covered = metrics.borrow_watched().snapshot.as_ref().map_or(0, |it| it.index);
        let to = covered.min(log.first_kept().saturating_sub(1));
        if to > purged {
            purged = to;
            if raft.trigger().purge_log(to).await.is_err() {
                return;
            }
        }
    }
}

/// Maps an error of raft to a refusal.
pub(crate) fn refusal<E>(error: RaftError<Types, E>) -> Refusal
where
    E: Error + Into<Refusal>,
{
    match error {
        RaftError::APIError(error) => error.into(),
        RaftError::Fatal(fatal) => Refusal::Unknown(format!("the store has stopped: {fatal}")),
    }
}
