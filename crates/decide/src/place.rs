//! Placement of plain containers in a pool: which node takes a container, and what it claims there meanwhile.

pub mod claims;
pub mod expr;
pub mod ground;
pub mod overlays;
pub mod placing;
pub mod prefer;
pub mod request;
pub mod reschedule;
pub mod schedule;
