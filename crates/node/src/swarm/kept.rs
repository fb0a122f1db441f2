//! A node's stored knowledge of its swarm: one small file beside its identity.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use herder_model::swarm::{Availability, ManagerAddr};
use herder_parts::blocking;
use herder_store::Settings;
use herder_wire::link::Roster;
use serde::{Deserialize, Serialize};

const FILE: &str = "swarm.json";
/// The store of a manager.
const STORE: &str = "managers";

/// Members are only added; one that is missing means what was before it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PersistedState {
    /// Id of the swarm; empty until it has let this node in.
    pub(super) cluster: String,
    /// Token that admitted the node, until the swarm knows it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) token: String,
    pub(super) availability: Availability,
    /// Managers that were known last. The first ones are where this node came from.
    pub(super) managers: Vec<ManagerAddr>,
    /// Ids of nodes that were removed, and nodes that were managers with when they ceased to be (milliseconds since 1970).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) removed: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) demoted: BTreeMap<String, u64>,
    /// True if this node is a manager, and has a store.
    pub(super) manages: bool,
    /// Snapshot interval of the store, as the swarm sets it; 0 for the default.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) snapshot_interval: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) keep_entries: u64,
    /// Address or interface of the data path, as the client gave it; empty: the node's address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) data_path: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl std::fmt::Debug for PersistedState {
    /// The token stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PersistedState")
            .field("cluster", &self.cluster)
            .field("manages", &self.manages)
            .finish_non_exhaustive()
    }
}

impl PersistedState {
    /// Returns the state of a node that a manager has admitted.
    pub(super) fn joined(token: String, availability: Availability, managers: Vec<ManagerAddr>) -> PersistedState {
        PersistedState { token, availability, managers, ..PersistedState::default() }
    }

    /// Returns the roster that this node was sent.
    pub(super) fn roster(&self) -> Roster {
        Roster {
            cluster: self.cluster.clone(),
            managers: self.managers.clone(),
            removed: self.removed.clone(),
            demoted: self.demoted.clone(),
        }
    }

    /// Sets the options with which this manager's store is opened.
    pub(super) fn open_with(&self, settings: &mut Settings) {
        for (number, told) in
            [(&mut settings.snapshot_interval, self.snapshot_interval), (&mut settings.keep, self.keep_entries)]
        {
            *number = if told == 0 { *number } else { told };
        }
    }

    /// Loads the state; `None` if the node is in no swarm.
    pub(super) fn load(folder: &Path) -> anyhow::Result<Option<PersistedState>> {
        let path = folder.join(FILE);
        let damaged = |error: serde_json::Error| {
            let path = path.display();
            anyhow::anyhow!(
                "{path} is damaged: {error}; remove it: where other managers are there, this node gets its place in the swarm \
                 again, else restore a backup"
            )
        };
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(damaged)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(anyhow::Error::new(error).context(format!("cannot read {}", path.display()))),
        }
    }

    /// Whole or not at all.
    pub(super) fn save(&self, folder: &Path) -> io::Result<()> {
        let (path, new) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
        let text = serde_json::to_vec_pretty(self)?;
        blocking(|| {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        })
    }

    /// The node is in no swarm any more; its store goes, too.
    pub(super) fn remove(folder: &Path) -> io::Result<()> {
        unless_missing(blocking(|| fs::remove_file(folder.join(FILE))))?;
        remove_folder(&store_folder(folder))
    }
}

/// Removes a folder and what is in it, if it is there.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    unless_missing(blocking(|| fs::remove_dir_all(folder)))
}

/// Gives a folder another name, if it is there.
pub(super) fn rename_folder(from: &Path, to: &Path) -> io::Result<()> {
    unless_missing(blocking(|| fs::rename(from, to)))
}

fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Moves a store to a place where it is not opened, replacing an earlier one there. Returns the place.
pub(super) fn set_aside(folder: &Path) -> io::Result<PathBuf> {
    let place = folder.join(format!("{STORE}.damaged"));
    remove_folder(&place)?;
    blocking(|| fs::rename(store_folder(folder), &place))?;
    Ok(place)
}

/// Notes that this node was let into a swarm, so that it opens a session with its managers.
pub fn enter(folder: &Path, token: String, managers: Vec<ManagerAddr>) -> io::Result<()> {
    PersistedState::joined(token, Availability::default(), managers).save(folder)
}

/// Addresses of nodes that this one met in its swarm.
pub fn remotes(folder: &Path) -> Vec<String> {
    let kept = PersistedState::load(folder).ok().flatten().unwrap_or_default();
    kept.managers.into_iter().map(|it| it.addr).collect()
}

pub(super) fn store_folder(folder: &Path) -> PathBuf {
    folder.join(STORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_opened_as_the_swarm_says_and_else_as_without_a_word() {
        let check = |snapshot_interval, keep_entries, expected| {
            let kept = PersistedState { snapshot_interval, keep_entries, ..PersistedState::default() };
            let read: PersistedState =
                serde_json::from_str(&serde_json::to_string(&kept).expect("JSON")).expect("the same");
            let mut settings = Settings::new("folder", "node");
            read.open_with(&mut settings);
            assert_eq!((settings.snapshot_interval, settings.keep), expected);
        };
        let usual = Settings::new("folder", "node");
        check(0, 0, (usual.snapshot_interval, usual.keep));
        check(100, 0, (100, usual.keep));
        check(0, 7, (usual.snapshot_interval, 7));
    }

    #[test]
    fn a_store_is_set_aside_whole_and_one_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        set_aside(folder.path()).expect_err("there is none");
        for text in ["first", "second"] {
            fs::create_dir(store_folder(folder.path())).expect("a store");
            fs::write(store_folder(folder.path()).join("file"), text).expect("written");
            let place = set_aside(folder.path()).expect("set aside");
            assert_eq!(fs::read_to_string(place.join("file")).expect("there"), text);
            assert!(!store_folder(folder.path()).exists());
        }
    }

    #[test]
    fn what_is_kept_is_read_again_and_gone_when_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(PersistedState::load(folder.path()).expect("nothing there"), None);
        let kept = PersistedState { cluster: "c".into(), token: "secret".into(), ..PersistedState::default() };
        kept.save(folder.path()).expect("saved");
        fs::create_dir(store_folder(folder.path())).expect("a store");
        assert_eq!(PersistedState::load(folder.path()).expect("readable"), Some(kept.clone()));
        assert!(!format!("{kept:?}").contains("secret"));
        for _ in 0..2 {
            PersistedState::remove(folder.path()).expect("removed");
            assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
        }
        fs::write(folder.path().join(FILE), "{").expect("written");
        assert!(PersistedState::load(folder.path()).expect_err("damaged").to_string().contains("is damaged"));
    }
}
