//! `herder export`.

use clap::{Args, Subcommand};

use crate::ingress::IngressLs;
use crate::up::Door;

/// Services of all nodes in stores outside of the swarm.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    #[command(subcommand)]
    pub verb: ExportVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ExportVerb {
    /// Write the services of all nodes into a store from now on, or do it with other settings
    Add(ExportAdd),
    /// Show the stores
    Ls(IngressLs),
    /// Write into a store no longer, and remove its entries
    Rm(ExportRm),
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder export add etcd://etcd:2379/services             keys services/NAME/HOST:CONTAINER:PORT = IP:PORT
  herder export add --explicit consul://consul:8500       in Consul's catalogue, by one agent for all nodes
  herder export rm etcd://etcd:2379/services

The leader of the swarm writes. It removes the entries of a node that is down.")]
pub struct ExportAdd {
    /// URI of the store, in the form of `herder registrator`. Every manager must reach it
    pub uri: String,
    /// Tags that every service gets, with commas; may be a template over the container
    #[arg(long, default_value = "", value_name = "TAGS")]
    pub tags: String,
    /// Rules of names: v7 (Registrator 7) or legacy-2015
    #[arg(long, default_value = "v7", value_parser = ["v7", "legacy-2015"], value_name = "ERA")]
    pub naming: String,
    /// Export the containers' own addresses and ports
    #[arg(long)]
    pub internal: bool,
    /// Only export containers with SERVICE_NAME
    #[arg(long)]
    pub explicit: bool,
    #[command(flatten)]
    pub door: Door,
}

#[derive(Clone, Debug, Args)]
pub struct ExportRm {
    /// URI of the store, as it was given
    pub uri: String,
    #[command(flatten)]
    pub door: Door,
}

impl ExportVerb {
    /// The endpoint that is asked.
    pub fn door(&self) -> &Door {
        match self {
            ExportVerb::Add(asked) => &asked.door,
            ExportVerb::Ls(asked) => &asked.door,
            ExportVerb::Rm(asked) => &asked.door,
        }
    }
}
