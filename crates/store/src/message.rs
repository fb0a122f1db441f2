//! Messages between managers: a byte of version, the length of a head, the head (JSON), and a body of bytes.
//!
//! New kinds of requests may be added; one that does not know them answers with an error that says so.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::members::ManagerSeen;
use crate::raft::{Member, Outcome, Proposal, SnapshotMeta, Types, Vote};

const VERSION: u8 = 1;
/// Version and length of the head.
const FRAME_BYTES: usize = 5;

/// A request to another manager.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) from: Member,
    /// Addressed member, if known. Another one under its address must not answer.
    pub(crate) to: Option<Member>,
    pub(crate) call: Call,
    /// Proof that `from` is a manager. Empty where it knows no swarm yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) proof: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Call {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Transfer(TransferLeaderRequest<Types>),
    /// A part of a snapshot; the bytes are the body of the message.
    Snapshot(Box<Part>),
    /// Asks for the member's identity.
    Hello,
    /// Asks the leader to write this.
    Commit(Proposal),
    /// Asks the leader for the index that a view must have to contain all earlier writes.
    ReadIndex,
    /// Asks the leader for the managers and which of them it reaches.
    Managers,
    /// Asks the leader to add a manager.
    Add {
        node: String,
        addr: String,
    },
    /// Asks the leader to remove a manager.
    Remove {
        node: String,
    },
    /// Asks this leader to hand over. Any other member ignores it.
    StepDown {
        leader: Member,
    },
}

impl Call {
    /// True if it changes who leads, or what is in the log.
    pub(crate) fn is_of_raft(&self) -> bool {
        match self {
            Call::Append(_) | Call::Vote(_) | Call::PreVote(_) | Call::Transfer(_) | Call::Snapshot(_) => true,
            Call::Hello
            | Call::Commit(_)
            | Call::ReadIndex
            | Call::Managers
            | Call::Add { .. }
            | Call::Remove { .. }
            | Call::StepDown { .. } => false,
        }
    }
}

/// Position of a part of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct Part {
    /// Bytes of the whole transfer.
    pub(crate) transfer: u64,
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) offset: usize,
    /// Length of the whole snapshot.
    pub(crate) total: usize,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Transfer(openraft::raft::TransferLeaderResponse<Types>),
    /// The part is there, more are expected.
    Part,
    Snapshot(SnapshotResponse<Types>),
    Hello {
        member: Member,
        /// Known managers; none if the member belongs to no swarm.
        managers: Vec<Member>,
    },
    Outcome(Outcome),
    Index(u64),
    Managers(Vec<ManagerSeen>),
    Done,
    Refused(Refusal),
}

/// Reason why there is no other answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// Nothing was done. The named member may be the leader.
    NotLeader(Option<Member>),
    /// Nothing was done: the message is for another member.
    NotMe(Member),
    /// The outcome is unknown.
    Unknown(String),
    QuorumLoss,
    UnknownManager(String),
    AlreadyBegun(String),
    Unreachable {
        node: String,
        addr: String,
        why: String,
    },
    Busy,
    NobodyElse,
    Other(String),
}

pub(crate) fn encode<T: Serialize>(head: &T, body: &[u8]) -> Result<Bytes, serde_json::Error> {
    let mut bytes = BytesMut::with_capacity(FRAME_BYTES + 512 + body.len());
    bytes.put_u8(VERSION);
    bytes.put_u32(0);
    let mut writer = bytes.writer();
    serde_json::to_writer(&mut writer, head)?;
    let mut bytes = writer.into_inner();
    let length = u32::try_from(bytes.len() - FRAME_BYTES).map_err(serde::ser::Error::custom)?;
    bytes[1..FRAME_BYTES].copy_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    Ok(bytes.freeze())
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &Bytes) -> Result<(T, Bytes), String> {
    let short = || format!("a message of {} bytes is not whole", bytes.len());
    let (frame, rest) = bytes.split_first_chunk::<FRAME_BYTES>().ok_or_else(short)?;
    if frame[0] != VERSION {
        return Err(format!("a message has version {}, which this version of herder does not know", frame[0]));
    }
    let length = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]);
    let length = usize::try_from(length).map_err(|_| short())?;
    let head = rest.get(..length).ok_or_else(short)?;
    let head = serde_json::from_slice(head).map_err(|error| format!("malformed message: {error}"))?;
    Ok((head, bytes.slice(FRAME_BYTES + length..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_bytes_and_no_others() {
        let bytes = encode(&Refusal::Busy, b"body").expect("bytes");
        assert_eq!(decode::<Refusal>(&bytes), Ok((Refusal::Busy, Bytes::from_static(b"body"))));
        let check = |bytes: &[u8], expected: &str| {
            let error = decode::<Refusal>(&Bytes::copy_from_slice(bytes)).expect_err("refused");
            assert!(error.contains(expected), "{error}");
        };
        check(b"", "not whole");
        check(&bytes[..8], "not whole");
        check(b"\x02\0\0\0\0", "version 2");
        check(b"\x01\0\0\0\x06\"Lazy\"", "malformed");
    }
}
