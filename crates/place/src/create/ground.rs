//! Networks and volumes that a node needs before a container, made there as they are elsewhere.

use herder_decide::ground::{self, Ground};
use herder_pool::{Engine, EngineError};
use http::Method;
use serde_json::Value;

use crate::{Error, Placer};

/// Rewrites a create body for an engine and creates missing networks and volumes there. A concurrent create is no
/// error.
pub async fn prepare(placer: &Placer, engine: &Engine, body: &mut Value) -> Result<(), Error> {
    let ground = ground::prepare(&placer.pool.nodes(), &engine.node(), body);
    make(engine, ground).await
}

/// Makes the part of network `name` on the engine, if the network spans nodes and has none there.
pub async fn network(placer: &Placer, engine: &Engine, name: &str) -> Result<(), Error> {
    let missing = ground::network(&placer.pool.nodes(), &engine.node(), name);
    make(engine, Ground { networks: missing.into_iter().collect(), volumes: Vec::new() }).await
}

async fn make(engine: &Engine, Ground { networks, volumes }: Ground) -> Result<(), Error> {
    let any = (!networks.is_empty(), !volumes.is_empty());
    for body in networks {
        tracing::info!(network = %body["Name"], node = engine.node().name, "a network is made on a node that lacks it");
        match create(engine, "/networks/create", &body).await {
            Err(EngineError::Answer { status: 400 | 403 | 500, .. }) => {
                create(engine, "/networks/create", &ground::with_addresses_of_its_own(body)).await?;
            }
            result => result?,
        }
    }
    for body in volumes {
        tracing::info!(volume = %body["Name"], node = engine.node().name, "a volume is made on a node that lacks it");
        create(engine, "/volumes/create", &body).await?;
    }
    if any.0 {
        engine.refresh_networks().await?;
    }
    if any.1 {
        engine.refresh_volumes().await?;
    }
    Ok(())
}

/// Creates the object; one that exists already counts as created.
async fn create(engine: &Engine, path: &str, body: &Value) -> Result<(), EngineError> {
    match engine.call(Method::POST, path, Some(body)).await {
        Ok(_) | Err(EngineError::Answer { status: 409, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
