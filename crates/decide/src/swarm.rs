//! Desired state: what may be declared, and what follows from it.

mod check;
mod counts;
mod dirty;
mod draft;
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
mod update;

pub use check::{config, node, secret, service};
pub use counts::service_status;
pub use dirty::is_dirty;
pub use ids::Ids;
pub use proposal::Proposal;
pub use reconcile::{Plan, reconcile};
pub use refusal::{Code, Refusal};
pub use report::on_task_report;
