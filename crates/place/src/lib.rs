//! Placing, claiming and moving plain containers in a pool: choice of a node, and recovery when a node is lost.
//!
//! See ARCHITECTURE.md.

pub mod create;
mod error;
pub mod overlays;
pub mod peers;
mod placer;
pub mod reread;
pub mod reschedule;
pub mod transfer;
pub mod turn;

pub use error::{Error, gather_answer};
pub use placer::{Placer, Settings};
