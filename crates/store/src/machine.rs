//! The state machine, as raft drives it: commands in, views out. Its state is in memory; on the disk are snapshots and the log.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend};

use crate::board::Board;
use crate::disk::{Disk, Op};
use crate::raft::{LogId, Membership, Outcome, SnapshotMeta, Types};
use crate::snapshot;
use crate::state::State;

type Snap = openraft::alias::SnapshotOf<Types, Bytes>;

pub(crate) struct Machine {
    disk: Arc<Disk>,
    board: Arc<Board>,
    state: State,
    last: Option<LogId>,
    membership: Membership,
}

/// Builds a raft snapshot from a copy of the state (openraft's snapshot builder).
pub(crate) struct Builder {
    disk: Arc<Disk>,
    state: State,
    meta: SnapshotMeta,
}

impl Machine {
    pub(crate) fn new(disk: Arc<Disk>, board: Arc<Board>) -> Machine {
        Machine { disk, board, state: State::default(), last: None, membership: Membership::default() }
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last.clone(), last_membership: self.membership.clone() }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((self.last.clone(), self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let index = entry.log_id.index;
            self.last = Some(entry.log_id.clone());
            let (outcome, written) = match entry.payload {
                EntryPayload::Normal(proposal) => self.state.apply(index, &proposal),
                EntryPayload::Blank => {
                    self.state.pass(index);
                    (Outcome::Done(index), Vec::new())
                }
                EntryPayload::Membership(membership) => {
                    self.membership = Membership::new(Some(entry.log_id), membership);
                    self.state.pass(index);
                    (Outcome::Done(index), Vec::new())
                }
            };
            self.board.put(&self.state.view, written);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        self.board.tell();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { disk: Arc::clone(&self.disk), state: self.state.clone(), meta: self.meta() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, bytes: Bytes) -> Result<(), io::Error> {
        let decoded = bytes.clone();
        let state = self.disk.backend().work(move || snapshot::decode(&decoded)).await?.map_err(io::Error::other)?;
        // When a store starts, it is given the snapshot that it has.
        if self.disk.snapshot_end().await? != meta.last_log_id {
            self.disk.write(vec![Op::Snapshot(meta.clone(), bytes)]).await?;
        }
        self.state = state;
        self.last.clone_from(&meta.last_log_id);
        self.membership = meta.last_membership.clone();
        self.board.replace(&self.state.view);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snap>, io::Error> {
        let there = self.disk.snapshot().await?;
        Ok(there.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snap, io::Error> {
        let state = self.state.clone();
        // A large state takes a while, in which other work goes on.
        let bytes: Bytes = self.disk.backend().work(move || snapshot::encode(&state)).await??.into();
        self.disk.write(vec![Op::Snapshot(self.meta.clone(), bytes.clone())]).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: bytes })
    }
}
