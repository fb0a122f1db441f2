//! Verbs about a swarm: what Docker's own commands do not show or do.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::up::Door;

/// Write all that a swarm's managers know into one sealed file.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder backup swarm.bak > key              a new key, which is printed; keep it apart from the file
  herder backup swarm.bak --key-file key     the key in this file; it is made if it is not there
  herder restore swarm.bak --key-file key

The file holds services, nodes, tokens, configs and secrets. It is sealed (AES-256-GCM) with a key of \
its own, SWMKEY-1-…, that the swarm does not keep and that is not the one of `docker swarm unlock-key`: \
without it the file is worth nothing. Only its owner may read the file; it is checked before this ends. \
The key goes to the door with the question: ask by its socket or by TLS.")]
pub struct Backup {
    /// File to write; an existing one is replaced
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The key to seal it with [default: a new one, printed]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Take what this manager has, though it may not be the newest: where there is no leader
    #[arg(long)]
    pub stale: bool,
    #[command(flatten)]
    pub door: Door,
    /// Output format of the summary
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}

/// Begin a swarm anew with what is in a backup.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder restore swarm.bak --key-file key
  herder restore swarm.bak < key
  HERDER_BACKUP_KEY=SWMKEY-1-… herder restore swarm.bak

The node of the door becomes the only manager of the swarm, as after `docker swarm init \
--force-new-cluster`. Nodes of the same pool come back by themselves, and what runs on them goes on. A \
file that was cut or changed is refused whole. While another manager of the swarm lives, a backup is \
refused also with --force.")]
pub struct Restore {
    /// A file of `herder backup`
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The key it was sealed with [default: that of HERDER_BACKUP_KEY, or the first line of the input]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Also on a node that is in a swarm: what was declared since the backup is lost
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub door: Door,
    /// Output format of the result
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}

/// Begin a swarm with settings of herder's own.
#[derive(Clone, Debug, Args)]
pub struct SwarmArgs {
    #[command(subcommand)]
    pub verb: SwarmVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum SwarmVerb {
    /// Begin a swarm, as `docker swarm init` does
    Init(SwarmInit),
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder swarm init --encrypt                every overlay network is encrypted, also published ports between nodes
  herder swarm init --encrypt --data-path-addr eth1

Nodes join as ever. One that can encrypt nothing, for want of WireGuard in its kernel and of /dev/net/tun, takes no part \
in overlay networks then.")]
pub struct SwarmInit {
    /// Encrypt packets of all overlay networks between nodes
    #[arg(long)]
    pub encrypt: bool,
    /// Address of this node for others [default: that of `herder up`]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ADDRESS")]
    pub advertise_addr: String,
    /// Address or interface that packets of overlay networks come from
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ADDRESS|INTERFACE")]
    pub data_path_addr: String,
    /// UDP port of overlay networks, 1024 to 49151; encrypted ones use the one after it [default: 4789]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub data_path_port: u32,
    /// Block that subnets of overlay networks are taken from; may be repeated [default: 10.0.0.0/8]
    #[arg(long, value_name = "CIDR")]
    pub default_addr_pool: Vec<String>,
    #[command(flatten)]
    pub door: Door,
}

/// Show what the deployment of a stack would change, and what becomes of its tasks, before it does.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder plan stack.yml shop                  what `herder stack deploy -c stack.yml shop` would change
  herder plan stack.yml --detailed-exitcode   2 if there are changes, for scripts
  herder plan stack.yml -c more.yml --format json
  herder plan stack.yml shop --docker         what `docker stack deploy -c stack.yml shop` would change
  herder plan stack.yml shop --docker --prune also which services would be removed

The files are read as `herder stack deploy` reads them, or, with --docker, by the docker CLI at hand, whose \
requests go no further. What would be sent is compared with what the swarm has; nothing is changed. Checks that \
need more than the file (a port that another service publishes) are made when the stack is deployed.

Exit codes: 0 done; 1 the swarm would refuse something, or there is no plan; 2 the files are wrong, or (with \
--detailed-exitcode) there are changes.")]
pub struct Plan {
    /// The stack file; - reads it from the input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Name of the stack [default: the project's name; with --docker that of the file's folder]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// A further file that is put on top; may be repeated
    #[arg(long, short, value_name = "FILE")]
    pub compose_file: Vec<PathBuf>,
    /// Keep objects that the files do not name
    #[arg(long, conflicts_with = "prune")]
    pub no_prune: bool,
    /// With --docker: plan the removal of services that the file does not name
    #[arg(long, requires = "docker")]
    pub prune: bool,
    /// Lookup of images in their registry, as with `herder stack deploy`
    #[arg(long, default_value = "always", value_parser = ["always", "changed", "never"])]
    pub resolve_image: String,
    /// End with code 2 if there are changes
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Plan what `docker stack deploy` would do; a value names the program [default: docker]
    #[arg(long, num_args = 0..=1, default_missing_value = "docker", value_name = "PROGRAM")]
    pub docker: Option<PathBuf>,
    #[command(flatten)]
    pub door: Door,
    /// Output format
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}

/// Declare services otherwise, and watch what becomes of it.
#[derive(Clone, Debug, Args)]
pub struct ServiceArgs {
    #[command(subcommand)]
    pub verb: ServiceVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ServiceVerb {
    /// Give services another number of replicas
    Scale(ServiceScale),
    /// Give a service another image, environment or number of replicas
    Update(ServiceUpdate),
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder service scale web=5 --watch
  herder service scale web=5 db=2 --watch --timeout 1m")]
pub struct ServiceScale {
    /// Services and their new number of replicas
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    pub targets: Vec<ScaleTarget>,
    #[command(flatten)]
    pub watch: Watch,
    #[command(flatten)]
    pub door: Door,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder service update web --image nginx:1.29 --watch
  herder service update web --env LEVEL=debug --env-rm OLD --replicas 3 --watch
  herder service update web --force --watch     every task is replaced by one like it

What is not named stays as it is. The image is taken as it is written, without a look into a registry.")]
pub struct ServiceUpdate {
    /// Id or name of the service
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Another image
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// A variable of the environment, new or changed; may be repeated
    #[arg(long, visible_alias = "env-add", value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// A variable to take away; may be repeated
    #[arg(long, value_name = "NAME")]
    pub env_rm: Vec<String>,
    /// Another number of replicas
    #[arg(long, value_name = "COUNT")]
    pub replicas: Option<u64>,
    /// Replace every task, though nothing changes
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub watch: Watch,
    #[command(flatten)]
    pub door: Door,
}

/// Flags for commands that can wait for the end.
#[derive(Clone, Debug, Args)]
pub struct Watch {
    /// Show what each task does until all is as declared; fails if the update is paused or taken back
    #[arg(long, short)]
    pub watch: bool,
    /// With --watch: fail after this time
    #[arg(long, value_name = "TIME", value_parser = crate::args::positive, requires = "watch")]
    pub timeout: Option<std::time::Duration>,
}

/// A service and its number of replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleTarget {
    pub service: String,
    pub replicas: u64,
}

impl FromStr for ScaleTarget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ScaleTarget, &'static str> {
        let (service, replicas) =
            text.split_once('=').filter(|it| !it.0.is_empty()).ok_or("expected SERVICE=REPLICAS")?;
        let replicas = replicas.parse().map_err(|_| "the number of replicas must be a whole number")?;
        Ok(ScaleTarget { service: service.to_owned(), replicas })
    }
}

/// Show nodes, services, tasks and events of a swarm as they are now.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder top
  herder top -H tcp://10.0.0.1:2375
  herder top --once | head -20              one frame as text
  herder top --once --size 80x24

Keys: tab and 1 to 4 another table, arrows up and down another row, left and right the column to sort \
by, r the other way round, a also tasks that ended, q the end. A terminal of 110 columns and 30 lines \
shows all tables at once.")]
pub struct Top {
    /// Print one frame and end
    #[arg(long)]
    pub once: bool,
    /// Size of the frame of --once [default: as the terminal, else 120x40]
    #[arg(long, value_name = "COLUMNSxLINES", value_parser = size, requires = "once")]
    pub size: Option<(u16, u16)>,
    #[command(flatten)]
    pub door: Door,
}

fn size(text: &str) -> Result<(u16, u16), &'static str> {
    let expected = "expected COLUMNSxLINES, such as 80x24, at most 1000 each";
    let (columns, lines) = text.split_once('x').ok_or(expected)?;
    let number = |text: &str| text.parse().ok().filter(|it| (1..=1000).contains(it)).ok_or(expected);
    Ok((number(columns)?, number(lines)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_service_and_a_number() {
        for (text, expected) in [
            ("web=3", "web 3"),
            ("web=0", "web 0"),
            ("web", "expected SERVICE=REPLICAS"),
            ("=3", "expected SERVICE=REPLICAS"),
            ("web=x", "the number of replicas must be a whole number"),
            ("web=-1", "the number of replicas must be a whole number"),
        ] {
            let parsed = text.parse::<ScaleTarget>();
            assert_eq!(parsed.map_or_else(str::to_owned, |it| format!("{} {}", it.service, it.replicas)), expected);
        }
    }

    #[test]
    fn a_size_has_two_numbers() {
        assert_eq!(size("80x24"), Ok((80, 24)));
        for wrong in ["80", "0x1", "80x", "x24", "80x1001", "-1x5"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
