//! `herder stack target`: clusters and engines that a door keeps by name.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::up::Door;

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder stack target add paris --address tcp://10.1.0.5:2376 \\
      --ca ca.pem --cert cert.pem --key key.pem
  herder stack target add box --address tcp://10.1.0.9:2375 --kind engine
  herder stack target check paris
  herder stack deploy shop --target paris
  herder stack ps shop --target paris

Certificates are kept sealed in the swarm's state and are never shown again.")]
pub struct StackTarget {
    #[command(subcommand)]
    pub verb: TargetVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum TargetVerb {
    /// Keep a target by name
    Add(TargetAdd),
    /// Change a target; without certificates it keeps those that it has
    Set(TargetAdd),
    /// List targets
    Ls(TargetLs),
    /// Connect to a target and tell each step
    Check(TargetOne),
    /// Forget a target that has no stacks
    Rm(TargetOne),
}

#[derive(Clone, Debug, Args)]
pub struct TargetAdd {
    /// Name of the target
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its Docker API, as tcp://HOST:PORT; of a swarm, that of a manager
    #[arg(long, value_name = "ADDRESS")]
    pub address: String,
    /// A swarm of Docker's engines, or one engine without a swarm
    #[arg(long, default_value = "swarm", value_parser = ["swarm", "engine"])]
    pub kind: String,
    /// File with the certificate of its authority
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key"])]
    pub ca: Option<PathBuf>,
    /// File with the certificate that herder shows
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    pub cert: Option<PathBuf>,
    /// File with the key of that certificate
    #[arg(long, value_name = "FILE", requires_all = ["ca", "cert"])]
    pub key: Option<PathBuf>,
    #[command(flatten)]
    pub door: Door,
}

#[derive(Clone, Debug, Args)]
pub struct TargetOne {
    /// Name of the target
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    pub door: Door,
}

#[derive(Clone, Debug, Args)]
pub struct TargetLs {
    #[command(flatten)]
    pub door: Door,
    /// Output format
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    pub format: String,
}
