//! Desired state: declarable objects, their lookup and changes, the decisions that follow, and the views for clients.
//!
//! The folders are named as SwarmKit's parts: `control` (its `controlapi`), `allocate` (its `allocator`), `orchestrate`,
//! `schedule`, `task`, `nodes`.

pub mod allocate;
pub mod attachments;
pub mod control;
mod counts;
pub mod events;
mod ids;
pub mod list;
pub mod nets;
pub mod networks;
pub mod nodes;
pub mod orchestrate;
mod refusal;
pub mod schedule;
pub mod task;
#[cfg(test)]
pub(crate) mod testing;

pub use control::{config, node, secret, service};
pub use counts::service_status;
pub use ids::Ids;
pub use orchestrate::{Plan, Proposal, enforce, enforce_node, frees, give_up, is_dirty, matters, reconcile};
pub use refusal::{Code, Denial, Refusal};
pub use schedule::{Constraint, Filter, Fleet, NodeWhy, Placed, Refused, Why, eligible, schedule, why};
pub use task::{SentAssignments, Touched, TouchedNodes, on_task_report, touch, touch_service};

// Old paths, until all callers name the new ones.
pub use control::{lookup, spec};
pub use nodes::{local, members};
pub use task::{container, step, template};
