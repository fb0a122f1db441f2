//! Services of containers, written into Consul, etcd or ZooKeeper, as Registrator does it.
//!
//! The decisions are pure: [`service`] (a container → its services), [`record`] (a service → what a store gets), [`plan`] (wanted and
//! written services → writes). See ARCHITECTURE.md.

mod engine;
pub mod plan;
pub mod record;
mod run;
pub mod service;
mod sink;
mod tags;

pub use engine::EngineFailed;
pub use run::{Deregister, RunError, Settings, run, withdraw};
pub use sink::{Sink, SinkError, SinkOptions};
pub use tags::ForcedTags;
