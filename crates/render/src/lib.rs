//! Configuration files rendered from what a store or the cluster says, as consul-template and confd do it.
//!
//! Pure: what a template may ask for (`data`), its functions (`consul_template`, `confd`), when to render (`cycle`), what is to be rendered
//! (`config`). Thin: sources, files, commands, and the loop (`run`). See ARCHITECTURE.md.

mod builtin;
mod child;
mod command;
pub mod confd;
pub mod config;
pub mod consul_template;
pub mod cycle;
pub mod data;
mod hcl;
mod numbers;
pub mod place;
pub mod render;
mod run;
mod signals;
mod source;
mod status;
mod texts;

pub use child::{Exec, signal};
pub use run::{RunError, Settings, run};
pub use source::{Source, SourceError};
pub use status::{FileStatus, RenderStatus, statuses};
