//! The nodes of the pool, their contents, and a way to each engine.
//!
//! The inventory follows each engine's event stream, re-reads what an event names, and does a full read on connect, on a
//! timer and after any doubt. Readers get an immutable picture and never wait for a host. See ARCHITECTURE.md.

mod board;
pub mod discovery;
mod engine;
mod events;
#[cfg(feature = "fake")]
pub mod fake;
mod ingest;
mod life;
mod mirror;
mod news;
mod pool;

pub use engine::{Description, Engine};
pub use herder_docker::{Body, BoxError, Dial, Dialling, EngineError, LinkError, Way, empty, full};
pub use mirror::{Asking, Following, Part, Source};
pub use news::News;
pub use pool::{EVENT_QUEUE, Pool, Settings, Ticket};
