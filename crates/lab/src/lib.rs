//! Several Docker hosts on one machine: namespaces, real engines, real faults.
//!
//! Each host has its own network, mounts, host name and process ids, and its own Docker Engine; a bridge in a namespace of
//! its own joins them. Killing a host's first process is pulling its plug. Traffic stays inside the namespaces.
//! See ARCHITECTURE.md.

mod faults;
mod host;
mod http;
mod image;
mod lab;
mod plan;
mod shell;
mod verbs;

pub use faults::Slowness;
pub use lab::{HostStatus, Lab, LabSpec};
pub use verbs::{LabArgs, run};
