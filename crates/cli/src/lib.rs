//! The verbs of the command line, as declarations.
//!
//! What was typed becomes values here, checked as a whole; what the verbs do lives elsewhere. See ARCHITECTURE.md.

mod args;
pub mod argv;
mod bus;
pub mod config;
mod duration;
mod error;
mod export;
mod ingress;
mod manage;
mod registrator;
mod render;
mod stack;
mod swarm;
mod tls;
mod up;

pub use args::{
    ActionArgs, Certs, Cli, Completion, ConfigArgs, ConfigVerb, Create, Discovered, Doctor, EndpointArgs, Explain,
    Global, List, Verb,
};
pub use bus::{BusArgs, BusVerb, Listen, Post, Request, body as bus_body};
pub use error::{PAGES, UsageError};
pub use export::{ExportAdd, ExportArgs, ExportRm, ExportVerb};
pub use ingress::{
    CertArgs, CertExport, CertImport, CertRm, CertShow, CertVerb, IngressArgs, IngressDoor, IngressEnable, IngressLs,
    IngressVerb,
};
pub use manage::{Join, JoinSettings, ListSettings, Manage, ManageSettings};
pub use registrator::Registrator;
pub use render::Render;
pub use stack::{
    StackArgs, StackAt, StackConfig, StackDeploy, StackDiff, StackExport, StackFiles, StackImages, StackLogs, StackLs,
    StackOne, StackPlan, StackRename, StackRm, StackRollback, StackTarget, StackVerb, StackWatch, TargetAdd, TargetLs,
    TargetOne, TargetVerb,
};
pub use swarm::{
    Backup, Plan, Restore, ScaleTarget, ServiceArgs, ServiceScale, ServiceUpdate, ServiceVerb, SwarmArgs, SwarmInit,
    SwarmVerb, Top, Watch,
};
pub use tls::{ClientFiles, TlsArgs, TlsFiles};
pub use up::{
    Door, ENVIRONMENT, NODE_PORT, NodeArgs, NodeLs, NodeVerb, Token, Up, UpSettings, Why, unit, without_token,
};
