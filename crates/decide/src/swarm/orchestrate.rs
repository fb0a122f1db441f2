//! Orchestration: what follows from what is declared, as changes of tasks. The counterpart of SwarmKit's `orchestrator`.

mod ahead;
mod dirty;
pub(crate) mod draft;
mod enforce;
mod global;
mod jobs;
mod lost;
mod matters;
mod proposal;
pub(crate) mod reap;
pub(crate) mod reconcile;
mod replicated;
pub(crate) mod restart;
mod update;

pub use dirty::is_dirty;
pub use enforce::{enforce, enforce_node};
pub use lost::give_up;
pub use matters::{frees, matters};
pub use proposal::Proposal;
pub use reconcile::{Plan, reconcile};
