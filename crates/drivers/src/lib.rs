//! Hands on the outside world: Docker engines, key-value stores, TCP, TLS.
//!
//! Nothing here decides: a driver does what it is told, reports what it saw, and bounds every wait. See ARCHITECTURE.md.

pub mod certs;
pub mod engine;
pub mod kv;
pub mod tcp;
pub mod tls;
