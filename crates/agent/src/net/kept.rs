//! States of networks on disk: after a reboot without managers, networks, names and published ports come back as they were.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use herder_model::swarm::NetState;
use serde::{Deserialize, Serialize};

use super::{Known, States};

const FILE: &str = "networks.json";

#[derive(Debug, Serialize, Deserialize)]
struct SavedState {
    version: u64,
    state: Arc<NetState>,
}

/// Reads what was kept; nothing if there is nothing, or nothing that makes sense.
pub(super) async fn load(folder: &Path) -> Option<States> {
    let bytes = tokio::fs::read(folder.join(FILE)).await.ok()?;
    let kept: BTreeMap<String, SavedState> = serde_json::from_slice(&bytes).ok()?;
    let known = |kept: SavedState| Known { version: kept.version, state: kept.state, ..Known::default() };
    Some(kept.into_iter().map(|(id, kept)| (id, known(kept))).collect())
}

pub(super) async fn save(folder: &Path, states: &States) -> io::Result<()> {
    let kept = |known: &Known| SavedState { version: known.version, state: known.state.clone() };
    let kept: BTreeMap<&String, SavedState> = states.iter().map(|(id, known)| (id, kept(known))).collect();
    let path = folder.join(FILE);
    let part = path.with_extension("part");
    tokio::fs::create_dir_all(folder).await?;
    tokio::fs::write(&part, serde_json::to_vec(&kept)?).await?;
    tokio::fs::rename(&part, &path).await
}
