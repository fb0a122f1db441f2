//! Every decision as a pure function: placement, names, filters; no clock, socket, file or async.
//!
//! Time, ids and randomness are handed in. Asked twice with the same arguments, each function gives the same answer.
//! See ARCHITECTURE.md.

pub mod actions;
pub mod df;
pub mod endpoints;
pub mod events;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod info;
pub mod ingress;
pub mod list;
pub mod merge;
pub mod names;
pub mod naming;
pub mod net;
pub mod place;
pub mod prune;
pub mod render;
pub mod swarm;
pub mod versions;
pub mod words;

// Old paths, until all callers name the new ones.
pub use place::{claims, expr, ground, overlays, placing, prefer, request, reschedule, schedule};
