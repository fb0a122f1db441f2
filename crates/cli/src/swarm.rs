//! Verbs about a swarm: what Docker's own commands do not show or do.

use std::path::PathBuf;

use clap::Args;

use crate::up::Door;

/// Write all that a swarm's managers know into one sealed file.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder backup swarm.bak > key              a new key, which is printed; keep it apart from the file
  herder backup swarm.bak --key-file key     the key in this file; it is made if it is not there
  herder restore swarm.bak --key-file key

The file holds services, nodes, tokens, configs and secrets. It is sealed (AES-256-GCM) with a key of its own, SWMKEY-1-…, that
is neither kept by the swarm nor the one of `docker swarm unlock-key`: without it the file is worth nothing. Only its owner
may read the file, and it is read once more before it takes FILE's place. The key goes to the door with the question: ask by
its socket or by TLS.")]
pub struct Backup {
    /// Where to write it; what is there is replaced
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
    /// How to tell what is in it
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}

/// Begin a swarm anew with what is in a backup.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder restore swarm.bak --key-file key
  herder restore swarm.bak < key
  HERDER_BACKUP_KEY=SWMKEY-1-… herder restore swarm.bak

The node of the door becomes the only manager of the swarm, as after `docker swarm init --force-new-cluster`. Nodes of the same
pool come back by themselves, and what runs on them goes on. A file that was cut or changed is refused whole. While another
manager of the swarm lives, a backup is refused also with --force.")]
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
    /// How to tell what was done
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}
