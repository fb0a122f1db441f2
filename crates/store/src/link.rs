//! Messages of raft to other managers, sent over the [`Transport`].

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Snapshot};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::board::Board;
use crate::message::{Answer, Call, Part, Refusal, Request, decode, encode};
use crate::proof;
use crate::raft::{Address, Member, SnapshotMeta, Types, Vote};
use crate::silence::{News, Silence};
use crate::{Transport, TransportError};

/// Maximum time for entries to reach another disk. One that is cut off is not waited for longer, so that it is soon
/// found again.
const APPEND_WAIT: Duration = Duration::from_secs(2);
/// Maximum time for a part of a snapshot. A part that was lost on its way to a manager that was cut off is sent again
/// after this.
const PART_WAIT: Duration = Duration::from_secs(10);
/// Bytes per second that a slow disk writes. The last part of a snapshot is answered when all of it is on the disk.
const WRITTEN_BYTES: usize = 8 << 20;
/// Bytes of a snapshot in one message; messages between nodes have 9 MiB at most.
const PART_BYTES: usize = 1 << 20;

/// The way of one member to others.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) me: Member,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) board: Arc<Board>,
    pub(crate) silence: Arc<Mutex<Silence>>,
}

impl Links {
    pub(crate) async fn call(
        &self,
        node: &str,
        addr: &str,
        to: Option<&Member>,
        call: Call,
        body: &[u8],
    ) -> Result<Answer, TransportError> {
        let proof = self.board.managers_key().map(|key| proof::of(&key, &self.me)).unwrap_or_default();
        let request = Request { from: self.me.clone(), to: to.cloned(), call, proof };
        let request = encode(&request, body).map_err(|error| TransportError(error.to_string()))?;
        let answer = self.transport.call(node, addr, request).await?;
        decode::<Answer>(&answer).map(|(answer, _)| answer).map_err(TransportError)
    }

    /// Logs that a manager stopped to answer, or answers again.
    fn tell(&self, node: &str, failure: Option<&str>) {
        match (self.silence.lock().note(node, failure.is_none(), Instant::now()), failure) {
            (Some(News::Silent), Some(why)) => tracing::warn!(node, why, "a manager does not answer"),
            (Some(News::Answers(after)), _) => tracing::info!(node, ?after, "a manager answers again"),
            _ => {}
        }
    }
}

/// The way to one member.
pub(crate) struct Link {
    links: Links,
    to: Member,
    addr: String,
}

impl Link {
    async fn call(&self, call: Call, body: &[u8], wait: Duration) -> Result<Answer, Unreachable<Types>> {
        let answer = timeout(wait, self.links.call(self.to.node(), &self.addr, Some(&self.to), call, body)).await;
        let failure = match &answer {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {wait:?}")),
        };
        self.links.tell(self.to.node(), failure.as_deref());
        match answer {
            Ok(Ok(Answer::Refused(refusal))) => Err(Unreachable::from_string(format!("{}: {refusal:?}", self.to))),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Unreachable::new(&error)),
            Err(_) => Err(Unreachable::from_string(format!("{} did not answer within {wait:?}", self.to))),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        snapshot: Bytes,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let (transfer, total) = (rand::random(), snapshot.len());
        let mut offset = 0;
        loop {
            let body = snapshot.slice(offset..total.min(offset + PART_BYTES));
            let part = Part { transfer, vote: vote.clone(), meta: meta.clone(), offset, total };
            offset += body.len();
            match self.call(Call::Snapshot(Box::new(part)), &body, part_wait(offset, total)).await? {
                Answer::Part if offset < total => {}
                Answer::Snapshot(response) => return Ok(response),
                _ => return Err(strange::<StreamingError<Types>>()),
            }
        }
    }
}

/// Returns the maximum time for the part of a snapshot that ends at `end`.
fn part_wait(end: usize, total: usize) -> Duration {
    let written = if end < total { 0 } else { total / WRITTEN_BYTES };
    PART_WAIT + Duration::from_secs(u64::try_from(written).unwrap_or(u64::MAX))
}

/// An answer to another question.
fn strange<E: From<NetworkError<Types>>>() -> E {
    NetworkError::from_string("the answer does not fit the question").into()
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: Member, node: &Address) -> Link {
        Link { links: self.clone(), to: target, addr: node.addr.clone() }
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let wait = if rpc.entries.is_empty() { option.hard_ttl() } else { APPEND_WAIT };
        match self.call(Call::Append(rpc), &[], wait).await? {
            Answer::Append(response) => Ok(response),
            _ => Err(strange()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Call::Vote(rpc), &[], option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(strange()),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Call::PreVote(rpc), &[], option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(strange()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<openraft::alias::CommittedLeaderIdOf<Types>, Member, Address, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Snapshot { meta, snapshot } = snapshot;
        match select(pin!(self.send_snapshot(vote, meta, snapshot)), pin!(cancel)).await {
            Either::Left((sent, _)) => sent,
            Either::Right((closed, _)) => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(Call::Transfer(req), &[], option.hard_ttl()).await? {
            Answer::Transfer(response) => Ok(response),
            _ => Err(strange()),
        }
    }
}

impl From<Refusal> for crate::StoreError {
    fn from(refusal: Refusal) -> crate::StoreError {
        use crate::StoreError;
        match refusal {
            Refusal::NotLeader(_) => StoreError::NoLeader,
            Refusal::NotMe(member) => {
                StoreError::Refused(format!("{} lost its folder: add it as a manager again", member.node()))
            }
            Refusal::Unknown(why) => StoreError::Lost { why },
            Refusal::QuorumLoss => StoreError::QuorumLoss,
            Refusal::UnknownManager(node) => StoreError::UnknownManager { node },
            Refusal::AlreadyBegun(node) => StoreError::AlreadyBegun { node },
            Refusal::Unreachable { node, addr, why } => StoreError::Unreachable { node, addr, why },
            Refusal::Busy => StoreError::Busy,
            Refusal::NobodyElse => StoreError::NobodyElse,
            Refusal::Other(why) => StoreError::Refused(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::part_wait;

    #[test]
    fn a_small_snapshot_that_is_lost_is_sent_again_soon_and_a_large_one_has_its_time() {
        let check = |end: usize, total: usize, seconds: u64| assert_eq!(part_wait(end, total).as_secs(), seconds);
        check(60_000, 60_000, 10);
        check(1 << 20, 800 << 20, 10);
        check(800 << 20, 800 << 20, 110);
    }
}
