//! Desired state: what may be declared.

mod check;
mod draft;
pub mod members;
mod refusal;

pub use check::{config, node, secret, service};
pub use draft::Draft;
pub use refusal::{Code, Refusal};
