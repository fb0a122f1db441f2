//! One task: how it becomes a container, what its node does next for it, and what its node is sent and reports.

pub mod assign;
pub mod container;
mod report;
pub mod step;
pub mod template;

pub use assign::{Told, Touched, TouchedNodes, touch, touch_service};
pub use report::on_task_report;
