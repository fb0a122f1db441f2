//! TLS and TCP as herder uses them: configurations from PEM files, certificates, socket options.
//!
//! See ARCHITECTURE.md.

pub mod certs;
mod config;
mod facts;
pub mod names;
pub mod tcp;

pub use config::*;
