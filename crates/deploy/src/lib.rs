//! Deploys the objects of a stack to a target with the Docker API of a swarm. The target is this cluster or
//! a remote one.
//!
//! [`observe`] reads what is there, [`Plan::of`] compares (pure), [`apply`] carries the steps out, waits for
//! dependencies, and goes back on failure. The target is an [`Api`]: the client of the caller.

pub mod able;
mod api;
mod apply;
pub mod fields;
pub mod images;
mod journal;
pub mod listing;
pub mod logs;
mod news;
mod observe;
mod plan;
mod seal;
mod status;

pub use api::{Answer, Api, Cause, Fault, Pieces, escape};
pub use apply::{Applied, Progress, Settings, apply, remove, undo};
pub use journal::{Entry, Journal};
pub use news::{News, sign};
pub use observe::{Observed, observe};
pub use plan::{Action, Kind, Plan, Step};
pub use seal::config_digest;
pub use status::{State, Status, TaskFailure, status};
