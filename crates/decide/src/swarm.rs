//! Desired state: what may be declared.

mod check;
mod refusal;

pub use check::{config, node, secret, service};
pub use refusal::{Code, Refusal};
