//! The routes of the door, by subject: Docker's objects, those of a swarm, and herder's own.

mod docker;
mod own;
mod stacks;
mod swarm;

use std::pin::Pin;
use std::sync::Arc;

use crate::router::{self, Table};
use crate::swarm::Swarm;
use crate::{ApiError, Call, Front, Reply};

/// An answer under way.
pub(crate) type Answer<'f> = Pin<Box<dyn Future<Output = Result<Reply, ApiError>> + Send + 'f>>;

/// Handler of a route.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    Front(for<'f> fn(&'f Arc<Front>, Call) -> Answer<'f>),
    /// Needs a swarm; refused where the door has none.
    Swarm(for<'f> fn(&'f Arc<dyn Swarm>, Call) -> Answer<'f>),
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Handler::Front(_) => "Front",
            Handler::Swarm(_) => "Swarm",
        })
    }
}

pub(crate) use stacks::ROUTES as STACKS;

pub(crate) type Route = router::Route<Handler>;

/// Docker's own paths come last: they have the widest patterns.
pub(crate) static TABLE: Table<Handler> = Table::new(&[own::ROUTES, stacks::ROUTES, swarm::ROUTES, docker::ROUTES]);

const fn route(
    method: &'static str,
    pattern: &'static str,
    action: &'static str,
    handler: for<'f> fn(&'f Arc<Front>, Call) -> Answer<'f>,
) -> Route {
    Route::new(method, pattern, action, Handler::Front(handler))
}
