//! `/herder/backup` and `/herder/restore`: all that a swarm's managers know, as one sealed body.
//!
//! The key comes in the body, never in a path or a header, which others may write down.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::json;
use tokio::time::timeout;

use super::{MANAGERS_TIME_MAX, Swarm, too_slow};
use crate::{ApiError, Call, Front, Reply, call};

/// Maximum bytes of an unlock key in a request; a key has 52.
const KEY_BYTES_MAX: usize = 256;

/// Maximum bytes of a backup; one with a million tasks is smaller.
const BACKUP_BYTES_MAX: usize = 2 << 30;

/// Maximum wait for a restore: reading a backup, writing it and becoming the leader take less. The restore goes on
/// after it.
const RESTORE_TIME_MAX: Duration = Duration::from_secs(120);

/// `POST /herder/backup`: the body is the key, the answer the backup. With `stale`, a manager without a leader gives what it has.
pub(crate) async fn backup(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let swarm = the_swarm(front)?;
    let stale = call.query.flag("stale");
    let key = text(&call.bytes(KEY_BYTES_MAX).await?)?;
    if !stale {
        // Nothing older than this call: a manager that was cut off does not know what it missed.
        super::read(swarm).await?;
    }
    let made = timeout(MANAGERS_TIME_MAX, swarm.backup(key)).await;
    let bytes = made.unwrap_or_else(|_| Err(too_slow()))?;
    let mut reply = Response::new(herder_pool::full(bytes));
    let kind = header::HeaderValue::from_static("application/octet-stream");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(reply)
}

/// `POST /herder/restore`: the body is the key, a line feed, and the backup.
pub(crate) async fn restore(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let swarm = the_swarm(front)?.clone();
    let force = call.query.flag("force");
    let mut body = call.bytes(BACKUP_BYTES_MAX).await?;
    let end = body.iter().take(KEY_BYTES_MAX).position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| ApiError::bad_request("the body is not a key, a line feed and a backup"))?;
    let key = text(&body.split_to(end))?;
    let backup = body.slice(1..);
    // It goes on when the client goes away: a half restored swarm helps nobody.
    let work = tokio::spawn(async move { swarm.restore(key, backup, force).await });
    let late =
        || ApiError::internal("the restore is not done yet and goes on; see `docker info` for what became of it");
    let done = timeout(RESTORE_TIME_MAX, work).await.map_err(|_| late())?;
    let restored =
        done.unwrap_or_else(|_| Err(ApiError::internal("the restore broke off; the node's log says why")))?;
    let answer = json!({
        "Cluster": restored.cluster, "Node": restored.node, "Others": restored.others, "SamePool": restored.same_pool,
    });
    Ok(call::json(StatusCode::OK, &answer))
}

fn the_swarm(front: &Arc<Front>) -> Result<&Arc<dyn Swarm>, ApiError> {
    front
        .swarm()
        .ok_or_else(|| ApiError::not_found("this door belongs to no node that can be in a swarm (`herder up`)"))
}

fn text(bytes: &Bytes) -> Result<String, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ApiError::bad_request("the key is not text"))?;
    Ok(text.trim().to_owned())
}
