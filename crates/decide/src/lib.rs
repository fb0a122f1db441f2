//! Every decision as a pure function: placement, names, filters; no clock, socket, file or async.
//!
//! Time, ids and randomness are handed in. Asked twice with the same arguments, each function gives the same answer.
//! See ARCHITECTURE.md.

pub mod actions;
pub mod claims;
pub mod df;
pub mod events;
pub mod expr;
pub mod fuzz;
pub mod ground;
pub mod info;
pub mod list;
pub mod merge;
pub mod names;
pub mod placing;
pub mod prune;
pub mod render;
pub mod request;
pub mod reschedule;
pub mod schedule;
pub mod swarm;
pub mod versions;
pub mod words;
