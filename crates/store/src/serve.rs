//! Answers of this manager to others.

use bytes::{Bytes, BytesMut};
use openraft::alias::LeaderIdOf;
use openraft::errors::{ClientWriteError, LinearizableReadError};
use openraft::impls::ProgressResponder;
use openraft::raft::AppendEntriesResponse;
use openraft::vote::RaftLeaderId;
use openraft::{ReadPolicy, Snapshot};
use tokio::time::timeout;

use crate::StoreError;
use crate::message::{Answer, Call, Part, Refusal, Request, decode, encode};
use crate::raft::{Member, Proposal, Types};
use crate::running::{Running, refusal};

/// Maximum size of a snapshot. A larger one does not fit into the memory of usual hosts, in which all of it must be.
const SNAPSHOT_BYTES_MAX: usize = 2 << 30;

/// A snapshot that is coming in.
pub(crate) struct Incoming {
    transfer: u64,
    bytes: BytesMut,
}

impl Running {
    /// Answers a request of another manager. `from` is who it is for sure.
    pub(crate) async fn handle(&self, from: &str, request: Bytes) -> Result<Bytes, StoreError> {
        let (request, body) = decode::<Request>(&request).map_err(StoreError::Refused)?;
        if request.from.node() != from {
            return Err(StoreError::Refused(format!("{from} speaks for {}", request.from.node())));
        }
        let answer = match request.to {
            Some(to) if to != self.me => Answer::Refused(Refusal::NotMe(self.me.clone())),
            _ if request.call.is_of_raft() && !self.is_manager(&request.from, &request.proof) => {
                tracing::warn!(from, "refused a node that claims to be a manager of this swarm");
                Answer::Refused(Refusal::Other(format!("{from} does not prove that it is a manager of this swarm")))
            }
            _ => self.answer(&request.from, request.call, body).await,
        };
        encode(&answer, &[]).map_err(|error| StoreError::Refused(error.to_string()))
    }

    async fn answer(&self, from: &Member, call: Call, body: Bytes) -> Answer {
        match self.answer_raft(from, call, body).await {
            Ok(answer) => answer,
            // Not one of raft's own.
            Err(Some(Call::Hello)) => {
                let managers = self.voters();
                Answer::Hello { member: self.me.clone(), managers: managers.into_iter().collect() }
            }
            // Another may not know of a member yet, the leader does.
            Err(Some(call)) if self.leader().as_ref() != Some(&self.me) || self.is_member(from) => {
                self.answer_leader(call).await
            }
            Err(Some(_)) => Answer::Refused(Refusal::Other(format!("{} is no manager of this swarm", from.node()))),
            Err(None) => Answer::Refused(Refusal::Unknown("the store has stopped".to_owned())),
        }
    }

    /// Raft's own requests. Others are given back; nothing comes back if raft has ended.
    async fn answer_raft(&self, from: &Member, call: Call, body: Bytes) -> Result<Answer, Option<Call>> {
        let pretends = |vote: &crate::raft::Vote| {
            let claimed = &vote.leader_id.node_id;
            (claimed != from).then(|| Refusal::Other(format!("{from} speaks for {claimed}")))
        };
        match call {
            Call::Append(rpc) => match pretends(&rpc.vote) {
                Some(refusal) => Ok(Answer::Refused(refusal)),
                None => {
                    let response = self.raft.append_entries(rpc).await.map_err(|_| None)?;
                    if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                        self.heard.now();
                    }
                    Ok(Answer::Append(response))
                }
            },
            Call::Vote(rpc) => match pretends(&rpc.vote) {
                Some(refusal) => Ok(Answer::Refused(refusal)),
                None => self.raft.vote(rpc).await.map(Answer::Vote).map_err(|_| None),
            },
            Call::PreVote(rpc) => match pretends(&rpc.vote) {
                Some(refusal) => Ok(Answer::Refused(refusal)),
                None => self.raft.pre_vote(rpc).await.map(Answer::Vote).map_err(|_| None),
            },
            Call::Transfer(rpc) => match pretends(rpc.from_leader()) {
                Some(refusal) => Ok(Answer::Refused(refusal)),
                None => self.raft.handle_transfer_leader(rpc).await.map(Answer::Transfer).map_err(|_| None),
            },
            Call::Snapshot(part) => match pretends(&part.vote) {
                Some(refusal) => Ok(Answer::Refused(refusal)),
                None => self.take_part(*part, &body).await,
            },
            other => Err(Some(other)),
        }
    }

    async fn take_part(&self, part: Part, body: &[u8]) -> Result<Answer, Option<Call>> {
        let whole = {
            let mut incoming = self.incoming.lock();
            if part.total > SNAPSHOT_BYTES_MAX {
                let why = format!("a snapshot of {} bytes is too large", part.total);
                return Ok(Answer::Refused(Refusal::Other(why)));
            }
            self.heard.now();
            if part.offset == 0 {
                *incoming = Some(Incoming { transfer: part.transfer, bytes: BytesMut::new() });
            }
            let there = incoming.as_mut().filter(|it| it.transfer == part.transfer && it.bytes.len() == part.offset);
            let Some(there) = there else {
                let why = "the part of the snapshot does not follow the one before".to_owned();
                return Ok(Answer::Refused(Refusal::Other(why)));
            };
            there.bytes.extend_from_slice(body);
            if there.bytes.len() < part.total {
                return Ok(Answer::Part);
            }
            incoming.take().map(|it| it.bytes.freeze()).unwrap_or_default()
        };
        let copy = whole.clone();
        let decoded = self.disk.backend().work(move || crate::snapshot::decode(&copy).map(drop)).await;
        if let Err(why) = decoded.unwrap_or_else(|error| Err(error.to_string())) {
            // Raft would take it for a fault of this disk, and end.
            return Ok(Answer::Refused(Refusal::Other(format!("the snapshot is of no use: {why}"))));
        }
        let snapshot = Snapshot { meta: part.meta, snapshot: whole };
        self.raft.install_full_snapshot(part.vote, snapshot).await.map(Answer::Snapshot).map_err(|_| None)
    }

    /// Requests that only the leader answers. They may come from this manager itself.
    pub(crate) async fn answer_leader(&self, call: Call) -> Answer {
        let answer = timeout(self.wait, async {
            match call {
                Call::Commit(proposal) => {
                    self.raft.client_write(proposal).await.map(|it| Answer::Outcome(it.data)).map_err(refusal)
                }
                Call::ReadIndex => self.read_index().await.map(Answer::Index),
                Call::Managers => self.managers_seen().map(Answer::Managers),
                Call::Add { node, addr } => self.add(&node, &addr).await.map(|()| Answer::Done),
                Call::Remove { node } => self.remove(&node).await.map(|()| Answer::Done),
                Call::StepDown { leader } if leader == self.me => self.step_down().await.map(|()| Answer::Done),
                Call::StepDown { .. } => self.leading().map(|_| Answer::Done),
                _ => Err(Refusal::Other("this is no request for a leader".to_owned())),
            }
        });
        match answer.await {
            Ok(answer) => answer.unwrap_or_else(Answer::Refused),
            Err(_) => Answer::Refused(Refusal::Unknown(format!("the leader was not done within {:?}", self.wait))),
        }
    }

    /// Writes this in the name of this member as the leader of this term, and of no other one.
    pub(crate) async fn write_in(&self, term: u64, proposal: Proposal) -> Answer {
        let (responder, written) = ProgressResponder::complete_only();
        let leader: LeaderIdOf<Types> = RaftLeaderId::new(term, self.me.clone());
        if let Err(fatal) = self.raft.write(proposal).with_leader(leader).responder(responder).await {
            return Answer::Refused(Refusal::Unknown(format!("the store has stopped: {fatal}")));
        }
        match timeout(self.wait, written).await {
            Ok(Ok(Ok(written))) => Answer::Outcome(written.data),
            Ok(Ok(Err(error))) => Answer::Refused(error.into()),
            Ok(Err(_)) => Answer::Refused(Refusal::Unknown("the store has stopped".to_owned())),
            Err(_) => Answer::Refused(Refusal::Unknown(format!("it was not done within {:?}", self.wait))),
        }
    }

    async fn read_index(&self) -> Result<u64, Refusal> {
        let read = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await.map_err(refusal)?;
        Ok(read.read_log_id().index())
    }
}

impl From<ClientWriteError<Types>> for Refusal {
    fn from(error: ClientWriteError<Types>) -> Refusal {
        use openraft::errors::ChangeMembershipError::InProgress;
        match error {
            ClientWriteError::ForwardToLeader(to) => Refusal::NotLeader(to.leader_id),
            ClientWriteError::LogEntryDiscarded(_) => Refusal::Unknown("the leader changed meanwhile".to_owned()),
            ClientWriteError::ChangeMembershipError(InProgress(_)) => Refusal::Busy,
            other => Refusal::Other(other.to_string()),
        }
    }
}

impl From<LinearizableReadError<Types>> for Refusal {
    fn from(error: LinearizableReadError<Types>) -> Refusal {
        match error {
            LinearizableReadError::ForwardToLeader(to) => Refusal::NotLeader(to.leader_id),
            LinearizableReadError::QuorumNotEnough(_) => Refusal::NotLeader(None),
        }
    }
}
