//! The folder of a store: `raft/key`, the key of the data (itself sealed when the swarm is locked), and `raft/store.redb`.
//!
//! The folder is made beside its place and moved there whole, so what is missing later was taken away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::seal::Sealer;
use crate::{Key, StoreError};

const PLACE: &str = "data key";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeyFile {
    /// The data key in clear: a reader of the folder can read the data.
    Open { version: u8, key: String },
    /// The data key, sealed with the key of the swarm.
    Locked { version: u8, key: String },
}

const VERSION: u8 = 1;

/// An opened folder.
pub(crate) struct Vault {
    /// `raft` in the folder of the store.
    folder: PathBuf,
    data_key: [u8; 32],
}

impl Vault {
    /// Opens the folder, or makes it with what `fill` puts into the database at the given path.
    pub(crate) fn open(
        folder: &Path,
        key: Option<&Key>,
        fill: impl FnOnce(&Path, &Sealer) -> Result<(), StoreError>,
    ) -> Result<Vault, StoreError> {
        let inner = folder.join("raft");
        if !inner.exists() {
            create(folder, &inner, key, fill)?;
        }
        let vault = Vault { data_key: read_key(&inner, key)?, folder: inner };
        if !vault.database().exists() {
            return Err(damaged(&vault.folder, "store.redb", "it is not there"));
        }
        Ok(vault)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join("store.redb")
    }

    pub(crate) fn sealer(&self) -> Sealer {
        Sealer::new(&self.data_key)
    }

    /// Replaces the key that opens the folder; `None` removes it.
    pub(crate) fn lock(&self, key: Option<&Key>) -> Result<(), StoreError> {
        write_key(&self.folder, &self.data_key, key)
    }
}

fn create(
    folder: &Path,
    inner: &Path,
    key: Option<&Key>,
    fill: impl FnOnce(&Path, &Sealer) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let new = folder.join("raft.new");
    let doing = || StoreError::io(format!("make the folder {}", inner.display()));
    if new.exists() {
        // Left by a start that was broken off: nothing was promised with it.
        fs::remove_dir_all(&new).map_err(doing())?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&new).map_err(doing())?;
    let data_key: [u8; 32] = rand::random();
    write_key(&new, &data_key, key)?;
    fill(&new.join("store.redb"), &Sealer::new(&data_key))?;
    fs::rename(&new, inner).and_then(|()| sync(folder)).map_err(doing())
}

fn read_key(folder: &Path, key: Option<&Key>) -> Result<[u8; 32], StoreError> {
    let path = folder.join("key");
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(folder, "key", "it is not there, and without it nothing can be read"));
        }
        read => read.map_err(StoreError::io(format!("read {}", path.display())))?,
    };
    let file: KeyFile = serde_json::from_slice(&bytes).map_err(|error| damaged(folder, "key", &error.to_string()))?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|error| damaged(folder, "key", &error.to_string()));
    let plain = match file {
        KeyFile::Open { version: VERSION, key } => decode(&key)?,
        KeyFile::Locked { version: VERSION, key: sealed } => {
            let key = key.ok_or(StoreError::Locked)?;
            Sealer::new(key.bytes()).open(PLACE, &decode(&sealed)?).map_err(|_| StoreError::WrongKey)?
        }
        KeyFile::Open { version, .. } | KeyFile::Locked { version, .. } => {
            return Err(damaged(folder, "key", &format!("version {version} is not known to this version of herder")));
        }
    };
    plain.try_into().map_err(|_| damaged(folder, "key", "it is not 32 bytes long"))
}

/// Replaces the file at once: after a crash it is the old or the new one.
fn write_key(folder: &Path, data_key: &[u8; 32], key: Option<&Key>) -> Result<(), StoreError> {
    let file = match key {
        None => KeyFile::Open { version: VERSION, key: STANDARD.encode(data_key) },
        Some(key) => {
            let sealed = Sealer::new(key.bytes()).seal(PLACE, data_key);
            KeyFile::Locked { version: VERSION, key: STANDARD.encode(sealed) }
        }
    };
    let path = folder.join("key");
    let doing = StoreError::io(format!("write {}", path.display()));
    let json = serde_json::to_vec(&file).map_err(|error| StoreError::Refused(error.to_string()))?;
    replace(&path, &json).map_err(doing)
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync)
}

/// Makes names in a folder last.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(crate) fn damaged(folder: &Path, what: &str, why: &str) -> StoreError {
    StoreError::Damaged { folder: folder.to_owned(), what: what.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(path: &Path, _: &Sealer) -> Result<(), StoreError> {
        fs::write(path, "database").map_err(StoreError::io("fill"))
    }

    #[test]
    fn a_folder_opens_with_the_key_that_it_was_locked_with_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (Key::random(), Key::random());
        let check = |key: Option<&Key>, expected: &str| {
            let opened = Vault::open(folder.path(), key, fill);
            let text = opened.as_ref().map_or_else(ToString::to_string, |_| "open".to_owned());
            assert_eq!(text, expected);
            opened.ok()
        };
        let vault = check(Some(&one), "open").expect("new");
        let locked = "the store is locked: it opens with the key of the swarm";
        let wrong = "the store could not be unlocked: invalid key provided";
        check(None, locked);
        check(Some(&two), wrong);
        check(Some(&one), "open");
        vault.lock(Some(&two)).expect("a new key");
        check(Some(&one), wrong);
        assert_eq!(check(Some(&two), "open").expect("open").data_key, vault.data_key);
        vault.lock(None).expect("no key");
        check(None, "open");
        check(Some(&two), "open");
    }

    #[test]
    fn a_folder_whose_files_were_taken_away_is_not_made_anew() {
        for file in ["key", "store.redb"] {
            let folder = tempfile::tempdir().expect("a folder");
            Vault::open(folder.path(), None, fill).map(|_| ()).expect("new");
            fs::remove_file(folder.path().join("raft").join(file)).expect("there");
            let error = Vault::open(folder.path(), None, fill).map(|_| ()).expect_err("damaged").to_string();
            assert!(error.starts_with(&format!("{file} in ")) && error.contains("it is not there"), "{error}");
        }
    }
}
