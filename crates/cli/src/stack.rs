//! `herder stack`: Compose files on a cluster.

mod target;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::args::positive;
use crate::up::Door;

pub use target::{StackTarget, TargetAdd, TargetLs, TargetOne, TargetVerb};

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
    /// Remove a stack; its volumes stay unless they are asked for
    Rm(StackRm),
    /// List the tasks of a stack
    Ps(StackOne),
    /// List the services of a stack
    Services(StackOne),
    /// Print what the tasks of a stack say
    Logs(StackLogs),
    /// Deploy an earlier revision again
    Rollback(StackRollback),
    /// Give a stack another name; its tasks go on
    Rename(StackRename),
    /// List the revisions of a stack
    History(StackOne),
    /// Show what differs: the cluster from the file, or two revisions
    Diff(StackDiff),
    /// Follow the operation on a stack until its end
    Watch(StackWatch),
    /// Print the Compose file of a revision
    Export(StackExport),
    /// Remote swarms and single engines to which stacks are deployed by name
    Target(StackTarget),
}

/// The cluster that has the stacks.
#[derive(Clone, Debug, Args)]
pub struct StackAt {
    #[command(flatten)]
    pub door: Door,
    /// A target that the door keeps: a remote swarm or a single engine; see `herder stack target --help`
    #[arg(long, default_value = "own", value_name = "NAME")]
    pub target: String,
}

/// One stack, and how it is printed.
#[derive(Clone, Debug, Args)]
pub struct StackOne {
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub name: String,
    #[command(flatten)]
    pub at: StackAt,
    /// Output format
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    pub format: String,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder stack logs shop                      all services
  herder stack logs shop web --tail 20 -f     one, and what comes

Each line stands behind the service and the number of its task; lines of stderr go to stderr.")]
pub struct StackLogs {
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub name: String,
    /// Services of the stack, by their names in the file; all if there are none
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
    /// Go on with what is said from now on
    #[arg(long, short)]
    pub follow: bool,
    /// Lines of each task, from the end, or all
    #[arg(long, default_value = "all", value_name = "LINES")]
    pub tail: String,
    /// Lines of this last time only, such as 10m
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub since: Option<Duration>,
    /// Print the time of each line
    #[arg(long, short)]
    pub timestamps: bool,
    #[command(flatten)]
    pub at: StackAt,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder stack rollback shop        the revision before the present one
  herder stack rollback shop 3      revision 3; `herder stack history shop` lists them

The rollback is a new revision with the source of the earlier one.")]
pub struct StackRollback {
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub name: String,
    /// The revision [default: the one before the present]
    #[arg(value_name = "REVISION")]
    pub revision: Option<u64>,
    /// Do not wait until all runs
    #[arg(long, short)]
    pub detach: bool,
    /// The time for all of it
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = positive)]
    pub timeout: Duration,
    #[command(flatten)]
    pub at: StackAt,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder stack diff shop          what was changed by hand since the deployment
  herder stack diff shop 3        revision 3 and the present one
  herder stack diff shop 3 4")]
pub struct StackDiff {
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub name: String,
    /// An earlier revision, and a later one
    #[arg(value_name = "REVISION", num_args = 0..=2)]
    pub revisions: Vec<u64>,
    #[command(flatten)]
    pub at: StackAt,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:
  herder stack rename shop store

Services get the new name, and no task is started anew; until a deployment changes a service, it can be reached by its \
former name, too. Networks, volumes, secrets and configs keep their names, and later deployments as `store` \
find them.")]
pub struct StackRename {
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub name: String,
    /// The name that it gets
    #[arg(value_name = "NEW")]
    pub new: String,
    #[command(flatten)]
    pub at: StackAt,
}

#[derive(Clone, Debug, Args)]
pub struct StackWatch {
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub name: String,
    #[command(flatten)]
    pub at: StackAt,
}

#[derive(Clone, Debug, Args)]
pub struct StackExport {
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub name: String,
    /// The revision [default: the present one]
    #[arg(value_name = "REVISION")]
    pub revision: Option<u64>,
    #[command(flatten)]
    pub at: StackAt,
    /// Output format
    #[arg(long, default_value = "yaml", value_parser = ["yaml", "json"])]
    pub format: String,
}

/// The Compose files of a stack, and their variables.
#[derive(Clone, Debug, Default, Args)]
pub struct StackFiles {
    /// A Compose file. May be repeated; later ones are merged onto earlier ones; - reads from the input
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

/// Lookup of images in their registry.
#[derive(Clone, Debug, Args)]
pub struct StackImages {
    /// Look images up in their registry and run the digest found. When: always, only where the file changed the image,
    /// or never
    #[arg(long, default_value = "always", value_parser = ["always", "changed", "never"], value_name = "WHEN")]
    pub resolve_image: String,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder stack deploy shop                          compose.yaml of this folder
  herder stack deploy -c stack.yml -c prod.yml shop
  herder stack deploy -c stack.yml shop --detach    does not wait
  TAG=1.4 herder stack deploy -c stack.yml shop     variables of the environment win over .env
  herder stack deploy shop --target paris           to a target that the door keeps

Services with `build` are built first, by a node of the cluster; no registry is needed. \
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
    /// The node that builds the images of services with `build` [default: the one that built them before]
    #[arg(long, value_name = "NODE")]
    pub builder: Option<String>,
    /// End the operation that works on the stack, where there is one; without this, the deployment is refused then
    #[arg(long)]
    pub supersede: bool,
    #[command(flatten)]
    pub at: StackAt,
    /// Output format of the result
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
    /// Keep objects that the files do not name
    #[arg(long)]
    pub no_prune: bool,
    /// End with code 2 if there are changes
    #[arg(long)]
    pub detailed_exitcode: bool,
    #[command(flatten)]
    pub at: StackAt,
    /// Output format
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
    /// Output format
    #[arg(long, default_value = "yaml", value_parser = ["yaml", "json"])]
    pub format: String,
}

#[derive(Clone, Debug, Args)]
pub struct StackLs {
    #[command(flatten)]
    pub at: StackAt,
    /// Output format
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    pub format: String,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:
  herder stack rm shop

Services, networks, secrets and configs of the stack are removed, and its tasks end. Volumes stay, \
unless --volumes is given.")]
pub struct StackRm {
    /// Name of the stack; may be repeated
    #[arg(value_name = "STACK", required = true)]
    pub names: Vec<String>,
    /// Remove the volumes of the stack as well, with all that is in them
    #[arg(long)]
    pub volumes: bool,
    /// The time for each stack
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = positive)]
    pub timeout: Duration,
    #[command(flatten)]
    pub at: StackAt,
}
