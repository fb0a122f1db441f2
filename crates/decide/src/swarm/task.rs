//! One task: its container, its node's next step for it, and the messages about it.

pub mod assign;
pub mod container;
mod report;
pub mod step;
pub mod template;

pub use assign::{SentAssignments, Touched, TouchedNodes, touch, touch_service};
pub use report::on_task_report;
