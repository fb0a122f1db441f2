//! The way to a target: the door itself, or an engine that herder does not run on.

use herder_deploy::able::Able;
use herder_deploy::{Answer, Api, Fault, Kind, Pieces};
use herder_stacks::engine::OneEngine;
use http::Method;
use serde_json::Value;

use super::Inside;
use super::remote::Remote;

/// The Docker API of a target.
pub(crate) enum Reach {
    Own(Inside),
    /// A manager of a swarm of Docker's engines.
    Remote(Box<Remote>),
    /// One engine, and the version of its API.
    Engine(Box<OneEngine<Remote>>, (u32, u32)),
}

impl Reach {
    /// The abilities of the target.
    pub(crate) fn able(&self) -> Able {
        match self {
            Reach::Own(_) => Able::Herder,
            Reach::Remote(api) => Able::Swarm { api: api.version() },
            Reach::Engine(_, version) => Able::Engine { api: *version },
        }
    }
}

impl Api for Reach {
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Fault> {
        match self {
            Reach::Own(api) => api.call(method, path, body).await,
            Reach::Remote(api) => api.call(method, path, body).await,
            Reach::Engine(api, _) => api.call(method, path, body).await,
        }
    }

    async fn pieces(&self, path: &str) -> Result<Pieces, Fault> {
        match self {
            Reach::Own(api) => api.pieces(path).await,
            Reach::Remote(api) => api.pieces(path).await,
            Reach::Engine(api, _) => api.pieces(path).await,
        }
    }

    fn content(&self, kind: Kind, name: &str, body: &Value) {
        match self {
            Reach::Own(_) | Reach::Remote(_) => {}
            Reach::Engine(api, _) => api.content(kind, name, body),
        }
    }

    async fn settle(&self, stack: &str) -> Result<(), Fault> {
        match self {
            Reach::Own(_) | Reach::Remote(_) => Ok(()),
            Reach::Engine(api, _) => api.settle(stack).await,
        }
    }
}
