//! Stacks as stored objects of a swarm: their records, and the execution of operations.
//!
//! A deployment, rollback or removal is an operation. [`begin`] decides whether it may start and what is written then
//! (pure); the leader carries it out with [`run`] and writes how far it is, so another leader goes on. Nothing here speaks
//! HTTP: the target is an [`herder_deploy::Api`], the swarm's state a [`Records`].

mod begin;
mod bundle;
pub mod engine;
mod queue;
mod record;
mod rename;
mod run;
mod target;

pub use begin::{Asking, Begun, Ids, Refused, Wish, begin, cancel};
pub use bundle::{Bundle, BundleError, File, Loaded};
pub use queue::due;
pub use record::{
    DeployOptions, Found, Operation, OperationState, Revision, Stack, StackState, StepRecord, StepState, Verb, find,
    kinds, operations, pins, record_name, revisions, stack, stacks,
};
pub use rename::{Renamed, rename};
pub use run::{NotWritten, Records, fail, run};
pub use target::{
    Chance, OWN, Target, TargetError, TargetKind, Tls, WantedTarget, credentials, remove_target, target, targets,
    write_target,
};
