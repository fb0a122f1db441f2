//! `/services/{id}/logs` and `/tasks/{id}/logs`: what many tasks say as one stream, each line saying whose it is.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use herder_decide::swarm::lookup;
use herder_decide::versions::Version;
use herder_model::swarm::TaskSpec;
use herder_pool::BoxError;
use http::{HeaderValue, Response, header};
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;

use super::{LogPiece, LogsOf, LogsWanted, Swarm, read};
use crate::{ApiError, Call, Query, Reply};

/// Pieces that wait for the client; when it does not read, the engines wait.
const PIECES_WAITING_MAX: usize = 16;

/// Bytes of a frame's head: which stream, and how many bytes follow.
const HEAD_BYTES: usize = 8;

/// A frame is a line, of which engines send at most 16 KiB at once. Far more is no frame.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// The stream in which Docker's clients expect failures of the engine itself.
const STREAM_FAILURE: u8 = 3;

/// Framed streams have a content type of their own since this version.
const MULTIPLEXED: Version = Version { major: 1, minor: 42 };

pub(crate) async fn of_service(swarm: &Arc<dyn Swarm>, call: Call, id: String) -> Result<Reply, ApiError> {
    check(&call.query)?;
    let view = read(swarm).await?;
    let service = &lookup::service(&view, &id)?.service;
    let has_terminal = has_terminal(&service.spec.task_template);
    let of = LogsOf::Service(service.id.clone());
    stream(swarm, call.query, call.version, of, has_terminal).await
}

pub(crate) async fn of_task(swarm: &Arc<dyn Swarm>, call: Call, id: String) -> Result<Reply, ApiError> {
    check(&call.query)?;
    let view = read(swarm).await?;
    let task = &lookup::task(&view, &id)?.task;
    stream(swarm, call.query, call.version, LogsOf::Task(task.id.clone()), has_terminal(&task.spec)).await
}

fn has_terminal(spec: &TaskSpec) -> bool {
    spec.container_spec.as_ref().is_some_and(|it| it.tty)
}

fn check(query: &Query) -> Result<(), ApiError> {
    if !query.flag("stdout") && !query.flag("stderr") {
        return Err(ApiError::bad_request("must specify at least one of 'stdout' or 'stderr'"));
    }
    let tail = query.get("tail").unwrap_or_default();
    if !matches!(tail, "" | "all") && tail.parse::<i64>().is_err() {
        return Err(ApiError::bad_request(format!("invalid tail {tail:?}: expected a number of lines, or all")));
    }
    Ok(())
}

async fn stream(
    swarm: &Arc<dyn Swarm>,
    query: Query,
    version: Option<String>,
    of: LogsOf,
    has_terminal: bool,
) -> Result<Reply, ApiError> {
    let text = |key: &str| query.get(key).unwrap_or_default().to_owned();
    let tail = Some(text("tail")).filter(|it| !it.is_empty()).unwrap_or_else(|| "all".into());
    let wanted = LogsWanted {
        of,
        follow: query.flag("follow"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        timestamps: query.flag("timestamps"),
        since: text("since"),
        until: text("until"),
        tail,
    };
    let details = query.flag("details");
    let mut lines = Lines { details, timestamps: wanted.timestamps, has_terminal, tasks: HashMap::new() };
    let mut pieces = swarm.logs(wanted).await?;
    let (mut out, body) = Channel::<Bytes, BoxError>::new(PIECES_WAITING_MAX);
    tokio::spawn(async move {
        while let Some(piece) = pieces.next().await {
            let bytes = lines.next(piece);
            if !bytes.is_empty() && out.send_data(bytes).await.is_err() {
                return;
            }
        }
    });
    let client = version.as_deref().and_then(Version::parse);
    let multiplexed = !has_terminal && client.is_none_or(|client| client >= MULTIPLEXED);
    let kind = if multiplexed { "multiplexed" } else { "raw" };
    let kind = format!("application/vnd.docker.{kind}-stream");
    let mut reply = Response::new(body.boxed_unsync());
    if let Ok(kind) = HeaderValue::from_str(&kind) {
        reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Ok(reply)
}

/// Makes whole lines of the pieces of many tasks. Sans-I/O.
#[derive(Debug)]
struct Lines {
    /// True if each line shall say whose it is.
    details: bool,
    /// True if each line begins with a time.
    timestamps: bool,
    has_terminal: bool,
    tasks: HashMap<String, Pending>,
}

/// The beginning of a task's log line.
#[derive(Debug, Default)]
struct Pending {
    bytes: BytesMut,
    /// True after malformed data of the task; the rest of it is not read.
    lost: bool,
}

impl Lines {
    fn next(&mut self, piece: LogPiece) -> Bytes {
        let mut out = BytesMut::new();
        match piece {
            LogPiece::Missing(reason) => self.failure(&reason, &mut out),
            LogPiece::Bytes { service_id, task_id, node_id, bytes } => {
                let mut pending = self.tasks.remove(&task_id).unwrap_or_default();
                if !pending.lost {
                    pending.bytes.extend_from_slice(&bytes);
                    let whose = if self.details { whose(&node_id, &service_id, &task_id) } else { String::new() };
                    self.take(&mut pending, &whose, &mut out);
                    if pending.lost {
                        self.failure(&format!("the logs of task {task_id} are malformed"), &mut out);
                    }
                }
                self.tasks.insert(task_id, pending);
            }
        }
        out.freeze()
    }

    /// Takes what is whole.
    fn take(&self, pending: &mut Pending, whose: &str, out: &mut BytesMut) {
        if self.has_terminal {
            // Without frames: a line ends with its newline; what is not whole is said at once if nothing goes before it.
            while let Some(end) = pending.bytes.iter().position(|it| *it == b'\n') {
                out.extend_from_slice(&self.line(&pending.bytes.split_to(end + 1), whose));
            }
            let too_long = pending.bytes.len() > FRAME_BYTES_MAX;
            if (whose.is_empty() || too_long) && !pending.bytes.is_empty() {
                out.extend_from_slice(&pending.bytes.split());
            }
            return;
        }
        while pending.bytes.len() >= HEAD_BYTES {
            let length = (&pending.bytes[4..HEAD_BYTES]).get_u32() as usize;
            if length > FRAME_BYTES_MAX || pending.bytes[0] > STREAM_FAILURE {
                (pending.lost, pending.bytes) = (true, BytesMut::new());
                return;
            }
            if pending.bytes.len() < HEAD_BYTES + length {
                return;
            }
            let frame = pending.bytes.split_to(HEAD_BYTES + length);
            self.frame(frame[0], &self.line(&frame[HEAD_BYTES..], whose), out);
        }
    }

    /// A line with whose it is, after its time.
    fn line(&self, line: &[u8], whose: &str) -> Bytes {
        if whose.is_empty() {
            return Bytes::copy_from_slice(line);
        }
        let time = line.iter().position(|it| *it == b' ').filter(|_| self.timestamps).map_or(0, |at| at + 1);
        Bytes::from([&line[..time], whose.as_bytes(), b" ", &line[time..]].concat())
    }

    fn frame(&self, stream: u8, line: &[u8], out: &mut BytesMut) {
        if self.has_terminal {
            out.extend_from_slice(line);
            return;
        }
        out.put_slice(&[stream, 0, 0, 0]);
        out.put_u32(u32::try_from(line.len()).unwrap_or_default());
        out.extend_from_slice(line);
    }

    fn failure(&self, reason: &str, out: &mut BytesMut) {
        let text = format!(
            "Error grabbing logs: warning: incomplete log stream. some logs could not be retrieved for the following reasons: \
             {reason}\n"
        );
        self.frame(STREAM_FAILURE, text.as_bytes(), out);
    }
}

/// Returns the prefix of a line as Docker's client parses it.
fn whose(node: &str, service: &str, task: &str) -> String {
    format!("com.docker.swarm.node.id={node},com.docker.swarm.service.id={service},com.docker.swarm.task.id={task}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).expect("short").to_be_bytes();
        [&[stream, 0, 0, 0][..], &length, text.as_bytes()].concat()
    }

    fn lines(details: bool, timestamps: bool, has_terminal: bool) -> Lines {
        Lines { details, timestamps, has_terminal, tasks: HashMap::new() }
    }

    fn piece(task: &str, bytes: &[u8]) -> LogPiece {
        let bytes = Bytes::copy_from_slice(bytes);
        LogPiece::Bytes { service_id: "s".into(), task_id: task.into(), node_id: "n".into(), bytes }
    }

    const WHOSE: &str = "com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t";

    #[test]
    fn each_line_says_whose_it_is_after_its_time() {
        let check = |details: bool, timestamps: bool, line: &str, expected: &str| {
            let out = lines(details, timestamps, false).next(piece("t", &frame(2, line)));
            assert_eq!(out, frame(2, expected));
        };
        check(false, false, "tick\n", "tick\n");
        check(true, false, "tick tock\n", &format!("{WHOSE} tick tock\n"));
        check(true, true, "2026-01-01T00:00:00Z tick\n", &format!("2026-01-01T00:00:00Z {WHOSE} tick\n"));
    }

    #[test]
    fn what_a_terminal_shows_has_no_frames() {
        let out = lines(true, false, true).next(piece("t", b"one\r\ntwo\r\nthr"));
        assert_eq!(out, format!("{WHOSE} one\r\n{WHOSE} two\r\n"));
        let mut plain = lines(false, false, true);
        assert_eq!(plain.next(piece("t", b"one\r\nprompt> ")), "one\r\nprompt> ");
    }

    #[test]
    fn what_is_missing_is_told_and_what_makes_no_sense_too() {
        let out = lines(false, false, false).next(LogPiece::Missing("node x is not available".into()));
        assert_eq!(out[0], STREAM_FAILURE);
        assert!(out.ends_with(b"for the following reasons: node x is not available\n"));
        let mut lines = lines(false, false, false);
        let out = lines.next(piece("t", b"GET / HTTP/1.1"));
        assert!(out.ends_with(b"the logs of task t are malformed\n"));
        assert_eq!(lines.next(piece("t", &frame(1, "x"))), "");
    }

    proptest! {
        /// However the bytes of two tasks are cut, whole frames come out, each task's in order.
        #[test]
        fn frames_of_many_tasks_are_never_mixed(cuts in prop::collection::vec((any::<bool>(), 1..9_usize), 1..80)) {
            let said: [Vec<u8>; 2] = ["a", "b"].map(|name| (0..6).flat_map(|at| frame(1, &format!("{name}{at}\n"))).collect());
            let (mut at, mut lines, mut out) = ([0_usize; 2], lines(false, false, false), Vec::new());
            let rest = [(false, usize::MAX), (true, usize::MAX)];
            for (which, length) in cuts.into_iter().chain(rest) {
                let which = usize::from(which);
                let end = at[which].saturating_add(length).min(said[which].len());
                out.extend(lines.next(piece(["t1", "t2"][which], &said[which][at[which]..end])));
                at[which] = end;
            }
            let (mut rest, mut seen) = (&out[..], [String::new(), String::new()]);
            while !rest.is_empty() {
                let length = (&rest[4..8]).get_u32() as usize;
                let line = String::from_utf8_lossy(&rest[8..8 + length]).into_owned();
                seen[usize::from(line.starts_with('b'))].push_str(line.trim());
                rest = &rest[8 + length..];
            }
            prop_assert_eq!(seen, ["a0a1a2a3a4a5".to_owned(), "b0b1b2b3b4b5".to_owned()]);
        }
    }
}
