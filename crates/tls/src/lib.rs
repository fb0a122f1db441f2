//! TLS and TCP as herder uses them: configurations from PEM files, certificates, socket options.
//!
//! See ARCHITECTURE.md.

pub mod certs;
mod config;
mod facts;
mod issued;
pub mod names;
pub mod tcp;

pub use config::*;
pub use issued::{IssuedError, check_issued};
