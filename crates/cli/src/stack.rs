//! `herder stack`: Compose files on a cluster.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::args::positive;
use crate::up::Door;

/// Deploy Compose files as stacks.
#[derive(Clone, Debug, Args)]
pub struct StackArgs {
    #[command(subcommand)]
    pub verb: StackVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum StackVerb {
    /// Create or update a stack, and wait until it runs
    Deploy(StackDeploy),
    /// Show what a deployment would change
    Plan(StackPlan),
    /// Check Compose files and print the canonical file
    Config(StackConfig),
    /// List stacks
    Ls(StackLs),
    /// Remove a stack; its volumes stay
    Rm(StackRm),
}

/// The Compose files of a stack, and their variables.
#[derive(Clone, Debug, Default, Args)]
pub struct StackFiles {
    /// A Compose file; may be repeated, later ones are merged onto earlier ones; - reads from the input
    /// [default: compose.yaml, compose.yml, docker-compose.yml or docker-compose.yaml, and their override file]
    #[arg(long = "compose-file", short = 'c', visible_short_alias = 'f', value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The folder that relative paths refer to [default: that of the first file]
    #[arg(long, value_name = "FOLDER")]
    pub project_directory: Option<PathBuf>,
    /// A file with variables in place of .env; may be repeated, later ones win
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// A profile to activate; may be repeated; * is all
    #[arg(long, value_name = "NAME")]
    pub profile: Vec<String>,
}

/// Whether images are looked up in their registry.
#[derive(Clone, Debug, Args)]
pub struct StackImages {
    /// Look images up in their registry and run the digest found: always, only where the file changed the image, or never
    #[arg(long, default_value = "always", value_parser = ["always", "changed", "never"], value_name = "WHEN")]
    pub resolve_image: String,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder stack deploy shop                          compose.yaml of this folder
  herder stack deploy -c stack.yml -c prod.yml shop
  herder stack deploy -c stack.yml shop --detach    does not wait
  TAG=1.4 herder stack deploy -c stack.yml shop     variables of the environment win over .env

Services start after those that they depend on. Services, networks, secrets and configs of the stack \
that the files do not name any more are removed (--no-prune keeps them); volumes never are. If a \
deployment fails, it goes back: what it created is removed, what it changed gets its former spec.

Exit codes: 0 all runs as declared; 1 it failed and went back; 2 the files are wrong; 3 the time was over, \
the cluster goes on; 4 the cluster refused it.")]
pub struct StackDeploy {
    /// Name of the stack [default: the project's name]
    #[arg(value_name = "STACK")]
    pub name: Option<String>,
    #[command(flatten)]
    pub files: StackFiles,
    #[command(flatten)]
    pub images: StackImages,
    /// Keep objects of the stack that the files do not name any more
    #[arg(long)]
    pub no_prune: bool,
    /// Do not wait until all runs
    #[arg(long, short)]
    pub detach: bool,
    /// The time for all of it
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = positive)]
    pub timeout: Duration,
    /// Leave everything as it is if the deployment fails
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub door: Door,
    /// How to print the result
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder stack plan -c stack.yml shop
  herder stack plan shop --detailed-exitcode     2 if there are changes, for scripts")]
pub struct StackPlan {
    /// Name of the stack [default: the project's name]
    #[arg(value_name = "STACK")]
    pub name: Option<String>,
    #[command(flatten)]
    pub files: StackFiles,
    #[command(flatten)]
    pub images: StackImages,
    /// As if objects that the files do not name were kept
    #[arg(long)]
    pub no_prune: bool,
    /// End with code 2 if there are changes
    #[arg(long)]
    pub detailed_exitcode: bool,
    #[command(flatten)]
    pub door: Door,
    /// How to print it
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder stack config                   the canonical file, or every fault with its line
  herder stack config -c a.yml -c b.yml --format json
  herder stack config --variables       the variables that the files read
  herder stack config --images
  herder stack config --objects shop    what a deployment sends to the cluster

No cluster is needed.")]
pub struct StackConfig {
    #[command(flatten)]
    pub files: StackFiles,
    /// Print the images of the services
    #[arg(long, group = "what")]
    pub images: bool,
    /// Print the names of the services
    #[arg(long, group = "what")]
    pub services: bool,
    /// Print the variables that the files read
    #[arg(long, group = "what")]
    pub variables: bool,
    /// Print the objects that a deployment under this name sends, as JSON
    #[arg(long, group = "what", value_name = "STACK")]
    pub objects: Option<String>,
    /// Print nothing if the files are right
    #[arg(long, short)]
    pub quiet: bool,
    /// How to print it
    #[arg(long, default_value = "yaml", value_parser = ["yaml", "json"])]
    pub format: String,
}

#[derive(Clone, Debug, Args)]
pub struct StackLs {
    #[command(flatten)]
    pub door: Door,
    /// How to print it
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    pub format: String,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:
  herder stack rm shop

Services, networks, secrets and configs of the stack are removed, and its tasks end. Volumes stay.")]
pub struct StackRm {
    /// Name of the stack; may be repeated
    #[arg(value_name = "STACK", required = true)]
    pub names: Vec<String>,
    /// The time for each stack
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = positive)]
    pub timeout: Duration,
    #[command(flatten)]
    pub door: Door,
}
