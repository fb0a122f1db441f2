//! Desired state: what may be declared, how it is found and changed, what follows from it, and what clients are told of it.

mod check;
mod constraint;
pub mod container;
mod counts;
mod demand;
mod dirty;
mod draft;
mod enforce;
mod fleet;
mod generic;
mod global;
mod ids;
mod jobs;
mod lost;
pub mod members;
mod proposal;
mod reap;
mod reconcile;
mod refusal;
mod replicated;
mod report;
mod restart;
mod schedule;
pub mod step;
pub mod template;
#[cfg(test)]
mod testing;
mod update;
mod why;

pub use check::{config, node, secret, service};
pub use constraint::Constraint;
pub use counts::service_status;
pub use demand::{Filter, eligible};
pub use dirty::is_dirty;
pub use enforce::{enforce, enforce_node};
pub use fleet::Fleet;
pub use ids::Ids;
pub use proposal::Proposal;
pub use reconcile::{Plan, reconcile};
pub use refusal::{Code, Refusal};
pub use report::on_task_report;
pub use schedule::{Placed, schedule};
pub use why::{NodeWhy, Refused, Why, why};
