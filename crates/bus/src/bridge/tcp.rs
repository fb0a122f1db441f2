//! The TCP bridge of Vert.x: four bytes of length (big-endian), then that many bytes of JSON. The caller listens and
//! hands connections in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::bridge::{Bridge, Dialect, Session};

/// A client that takes nothing for this long is given up; what it was sent would only pile up.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// Frames that are written at once go out together, up to this many bytes.
const BATCH_BYTES: usize = 64 << 10;

/// A length that is too large for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {bytes} bytes was announced; at most {max} are allowed")]
pub struct FrameTooLarge {
    bytes: u32,
    max: usize,
}

/// Takes the first frame out of what was read, if it is complete.
pub fn split(buffer: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, FrameTooLarge> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let bytes = u32::from_be_bytes(*head);
    // A negative length in the signed form is far too large in this one.
    let length = usize::try_from(bytes).ok().filter(|length| *length <= max).ok_or(FrameTooLarge { bytes, max })?;
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length)))
}

/// Writes a frame behind others.
pub fn join(buffer: &mut BytesMut, frame: &Value) {
    let text = frame.to_string();
    buffer.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    buffer.extend_from_slice(text.as_bytes());
}

/// Serves one client until it leaves. Its registrations leave with it.
pub async fn connection(bridge: Arc<Bridge>, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let frame_max = bridge.limits.frame_bytes;
    let mut session = Session::new(bridge, Dialect::Tcp);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    loop {
        while output.len() < BATCH_BYTES {
            match split(&mut input, frame_max) {
                Ok(Some(frame)) => {
                    if let Some(answer) = session.take(&frame) {
                        join(&mut output, &answer);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::info!(%error, "closing the connection of a bus client");
                    join(&mut output, &json!({"type": "err", "message": error.to_string()}));
                    return write(&mut writer, &mut output).await;
                }
            }
        }
        if !output.is_empty() {
            write(&mut writer, &mut output).await?;
            continue;
        }
        tokio::select! {
            read = reader.read_buf(&mut input) => if read? == 0 {
                return Ok(());
            },
            frame = session.next() => {
                join(&mut output, &frame);
                // What waits as well goes out with it.
                while output.len() < BATCH_BYTES {
                    let Some(frame) = futures_util::FutureExt::now_or_never(session.next()) else { break };
                    join(&mut output, &frame);
                }
            }
        }
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), output: &mut BytesMut) -> io::Result<()> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the client does not read");
    timeout(WRITE_TIME_MAX, writer.write_all(output)).await.map_err(|_| late())??;
    output.clear();
    writer.flush().await
}

/// Reads bytes as a client's and forgets them; for fuzzing. Panics if frames that were read are not the same when they are
/// written and read again.
pub fn fuzz_frames(bridge: &Arc<Bridge>, bytes: &[u8]) {
    let mut session = Session::new(bridge.clone(), Dialect::Tcp);
    let mut other = Session::new(bridge.clone(), Dialect::SockJs);
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(frame)) = split(&mut input, bridge.limits.frame_bytes) {
        for session in [&mut session, &mut other] {
            if let Some(answer) = session.take(&frame) {
                let mut output = BytesMut::new();
                join(&mut output, &answer);
                let again = split(&mut output, usize::MAX).ok().flatten();
                let again = again.and_then(|frame| serde_json::from_slice::<Value>(&frame).ok());
                assert_eq!(again, Some(answer), "a frame changed on the way");
            }
        }
    }
    other.take(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split_however_they_come() {
        let mut all = BytesMut::new();
        join(&mut all, &json!({"a": 1}));
        join(&mut all, &json!({}));
        let mut input = BytesMut::new();
        let mut frames = Vec::new();
        for byte in all {
            input.extend_from_slice(&[byte]);
            frames.extend(split(&mut input, 100).expect("small"));
        }
        assert_eq!(frames, [&b"{\"a\":1}"[..], b"{}"]);
        assert!(input.is_empty());
    }

    #[test]
    fn a_frame_too_large_is_refused_before_it_is_read() {
        for (head, expected) in [
            ([0, 0, 0, 101], "a frame of 101 bytes was announced; at most 100 are allowed"),
            ([255; 4], "a frame of 4294967295 bytes was announced; at most 100 are allowed"),
        ] {
            let error = split(&mut BytesMut::from(&head[..]), 100).expect_err("refused");
            assert_eq!(error.to_string(), expected);
        }
    }
}
