//! Desired state: what may be declared.

mod check;
pub mod container;
pub mod members;
mod proposal;
mod refusal;
pub mod step;
pub mod template;

pub use check::{config, node, secret, service};
pub use proposal::Proposal;
pub use refusal::{Code, Refusal};
