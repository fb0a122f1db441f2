//! The agent of a node: makes the swarm's assigned tasks containers on the engine beside it, and reports their states.
//!
//! What is to be done next for a task is decided in `decide::swarm::step`; here it is carried out. Nothing about tasks is kept
//! on disk but until when fenced ones may run: containers carry their task's id as a label, and the engine says how they are. So a restart harms nothing, and tasks
//! run on when no manager is there. See ARCHITECTURE.md.

mod agent;
mod board;
mod call;
mod describe;
pub mod fence;
mod files;
mod health;
mod images;
mod lease;
mod life;
pub mod net;
mod observe;
pub mod session;

pub use agent::{AGENT, Agent, Settings};
pub use health::EngineHealth;
pub use herder_docker::EngineError;
pub use herder_docker::{Body, Way};
pub use images::{Images, NoImages};
pub use lease::{Uptime, Watchdog};
