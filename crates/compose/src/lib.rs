//! Compose files → one canonical project.
//!
//! [`load`] parses, interpolates, includes, extends and merges files as the Compose Specification says, and keeps the
//! place of every value, so that each fault is told with file, line and column. It reads no files itself: it answers
//! with those that it needs, and is called again. See ARCHITECTURE.md, "Where to start".

mod check;
mod diagnostic;
mod dotenv;
mod export;
mod forms;
mod interpolate;
mod load;
mod merge;
mod node;
mod objects;
mod project;
mod schema;
mod shape;
mod units;
mod yaml;

pub use diagnostic::{Diagnostic, Related, Severity};
pub use export::to_yaml;
pub use load::{FILE_MAX, FILES_MAX, Options, Sources, Step, is_project_name, load};
pub use node::{Join, Map, Node, Position, Value};
pub use objects::{
    Condition, Content, Dependency, Desired, DesiredService, FORMER_NAMES_LABEL, FileObject, IMAGE_LABEL, Pins,
    STACK_LABEL, objects, relabel,
};
pub use project::{Project, Variable};
pub use units::{bytes, duration, duration_text};
pub use yaml::{DEPTH_MAX, NODES_MAX};
