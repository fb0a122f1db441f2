//! Frames between nodes: one byte of version, then one frame. Pure.
//!
//! A frame whose version or kind is not known is refused and does no harm. New kinds may be added at the end of the list
//! within a version, since older nodes skip them; anything else needs a new version, and a node then sends the older form
//! until all its peers know the new one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Kind;
use crate::message::Headers;

/// The version of the encoding.
const VERSION: u8 = 1;

/// Maximum bytes of a frame: a message of about one MiB. Larger data belongs into an image or a volume.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Reason why a frame is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the frame is empty")]
    Empty,
    #[error("the frame has version {0}; this node knows version {VERSION}: the newer node must send the older form")]
    Version(u8),
    #[error("the frame has {0} bytes; at most {FRAME_BYTES_MAX} are allowed")]
    TooLarge(usize),
    #[error("the frame is damaged: {0}")]
    Damaged(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Frame<'a> {
    /// Addresses with receivers at the sender's node. `fresh`: forget what was said before. Long lists come in parts.
    Registrations {
        fresh: bool,
        #[serde(borrow)]
        addresses: Vec<&'a str>,
    },
    Registered(&'a str),
    Unregistered(&'a str),
    /// Delivers a message to one receiver.
    Send(#[serde(borrow)] Post<'a>),
    /// Delivers a message to all receivers.
    Publish(#[serde(borrow)] Post<'a>),
    /// Delivers a message to all receivers, each of which must answer.
    Ask(#[serde(borrow)] Post<'a>),
    /// Number of receivers that got the `Ask` with this id; precedes their answers.
    Asked {
        to: u64,
        receivers: u32,
    },
    /// The answer to the request with this id; the address of the post is empty.
    Reply {
        to: u64,
        #[serde(borrow)]
        post: Post<'a>,
    },
    Failure {
        to: u64,
        kind: Kind,
        code: i32,
        message: &'a str,
    },
}

/// The contents of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Post<'a> {
    pub(crate) address: &'a str,
    /// The id under which the sender waits for an answer.
    pub(crate) reply: Option<u64>,
    #[serde(borrow)]
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    /// JSON text.
    pub(crate) body: &'a str,
}

impl<'a> Post<'a> {
    pub(crate) fn new(address: &'a str, reply: Option<u64>, headers: &'a Headers, body: &'a str) -> Post<'a> {
        let headers = headers.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Post { address, reply, headers, body }
    }

    pub(crate) fn open(&self) -> Result<(Headers, Value), FrameError> {
        let headers = self.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let body = serde_json::from_str(self.body).map_err(|error| FrameError::Damaged(error.to_string()))?;
        Ok((Headers(headers), body))
    }
}

impl<'a> Frame<'a> {
    pub(crate) fn encode(&self) -> Result<Bytes, FrameError> {
        let mut out = Vec::with_capacity(256);
        out.push(VERSION);
        let out = postcard::to_extend(self, out).map_err(|error| FrameError::Damaged(error.to_string()))?;
        if out.len() > FRAME_BYTES_MAX { Err(FrameError::TooLarge(out.len())) } else { Ok(out.into()) }
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let (version, rest) = bytes.split_first().ok_or(FrameError::Empty)?;
        if *version != VERSION {
            return Err(FrameError::Version(*version));
        }
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge(bytes.len()));
        }
        postcard::from_bytes(rest).map_err(|error| FrameError::Damaged(error.to_string()))
    }
}

/// Reads a frame as a node would and forgets it; for fuzzing. Panics if a frame that was read is not the same when it is
/// written and read again.
pub fn fuzz_frame(bytes: &[u8]) {
    let Ok(frame) = Frame::decode(bytes) else { return };
    if let Ok(again) = frame.encode() {
        assert_eq!(Frame::decode(&again), Ok(frame), "a frame changed on the way");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_refused_is_told() {
        let check = |bytes: &[u8], expected: &str| {
            assert_eq!(Frame::decode(bytes).expect_err("refused").to_string(), expected);
        };
        check(b"", "the frame is empty");
        check(
            &[9, 1, 2, 3],
            "the frame has version 9; this node knows version 1: the newer node must send the older form",
        );
        check(&[1, 200], "the frame is damaged: Hit the end of buffer, expected more data");
        check(&vec![1; FRAME_BYTES_MAX + 1], "the frame has 1048577 bytes; at most 1048576 are allowed");
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read_without_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), known: bool) {
            if known && let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            fuzz_frame(&bytes);
        }

        #[test]
        fn what_was_written_is_read(address in ".{1,60}", body in ".{0,60}", reply: Option<u64>, name in ".{0,9}", to: u64) {
            let headers = Headers(vec![(name, body.clone())]);
            let post = Post::new(&address, reply, &headers, &body);
            for frame in [
                Frame::Send(post.clone()),
                Frame::Reply { to, post },
                Frame::Registrations { fresh: true, addresses: vec![&address, &body] },
                Frame::Failure { to, kind: Kind::Timeout, code: -1, message: &body },
            ] {
                let bytes = frame.encode().expect("small enough");
                prop_assert_eq!(Frame::decode(&bytes), Ok(frame));
            }
        }
    }
}
