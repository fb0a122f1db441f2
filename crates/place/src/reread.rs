//! Objects that are read again at once, so that the next list shows what a call did.

use herder_pool::Engine;

/// Rereads a container after a call. A failure is only logged: the next event triggers another read.
pub async fn reread(engine: &Engine, id: &str) {
    if let Err(error) = engine.refresh_container(id).await {
        tracing::debug!(%error, id, "cannot read a container again");
    }
}

/// Rereads the volumes of an engine if a new container mounts one that is not known.
pub async fn reread_volumes(engine: &Engine, id: &str) {
    let node = engine.node();
    let Some(container) = node.containers.get(id) else { return };
    let mut named = container.mounts.iter().filter(|mount| !mount.name.is_empty());
    if named.any(|mount| node.volumes.iter().all(|volume| volume.name != mount.name)) {
        refresh_volumes(engine).await;
    }
}

pub async fn refresh_volumes(engine: &Engine) {
    if let Err(error) = engine.refresh_volumes().await {
        tracing::debug!(%error, "cannot read volumes again");
    }
}
