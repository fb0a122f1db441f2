//! Desired state: what may be declared, how it is found and changed, and what clients are told of it.

mod check;
pub mod control;
pub mod events;
pub mod list;
pub mod local;
pub mod lookup;
pub mod members;
mod proposal;
mod refusal;
pub mod spec;

pub use check::{config, node, secret, service};
pub use proposal::Proposal;
pub use refusal::{Code, Denial, Refusal};
