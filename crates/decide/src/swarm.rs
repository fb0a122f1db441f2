//! Desired state: what may be declared.

mod check;
mod constraint;
mod demand;
mod enforce;
mod fleet;
mod generic;
pub mod members;
mod proposal;
mod refusal;
mod schedule;
#[cfg(test)]
mod testing;
mod why;

pub use check::{config, node, secret, service};
pub use constraint::Constraint;
pub use demand::{Filter, eligible};
pub use enforce::{enforce, enforce_node};
pub use fleet::Fleet;
pub use proposal::Proposal;
pub use refusal::{Code, Refusal};
pub use schedule::{Placed, schedule};
pub use why::{NodeWhy, Refused, Why, why};
