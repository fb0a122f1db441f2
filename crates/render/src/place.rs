//! A rendered text → a file, whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::config::Job;

/// The mode of a new file where nothing else is said.
const MODE: u32 = 0o644;

/// Says which file could not be written, and why.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("{path}: {what}: {source}")]
    Io { path: PathBuf, what: &'static str, source: io::Error },
    #[error("{0} is not overwritten with nothing; set allow_empty if that is meant")]
    Empty(PathBuf),
    #[error("{path}: there is no {kind} `{name}` on this host")]
    NoOwner { path: PathBuf, kind: &'static str, name: String },
}

/// A text beside its destination, not in use yet.
#[derive(Debug)]
pub struct Staged {
    file: NamedTempFile,
    destination: PathBuf,
    backup: bool,
}

fn told(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_owned();
    move |source| PlaceError::Io { path, what, source }
}

/// Writes a text beside its destination. None if the file is so already.
///
/// # Errors
/// Says what could not be done; the old file is as it was.
pub fn stage(job: &Job, text: &str) -> Result<Option<Staged>, PlaceError> {
    // What a link names is replaced, and the link stays.
    let destination = fs::canonicalize(&job.destination).unwrap_or_else(|_| job.destination.clone());
    let folder = match destination.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    if job.create_dest_dirs {
        fs::create_dir_all(&folder).map_err(told(&folder, "cannot make the folder"))?;
    }
    let there = match fs::metadata(&destination) {
        Ok(there) => Some(there),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(told(&destination, "cannot look at the file")(error)),
    };
    let owner = |name: &Option<String>, kind, file: &str| match name {
        None => Ok(None),
        Some(name) => match name.parse::<u32>().ok().or_else(|| id_of(name, file)) {
            Some(id) => Ok(Some(id)),
            None => Err(PlaceError::NoOwner { path: destination.clone(), kind, name: name.clone() }),
        },
    };
    let (user, group) = (owner(&job.user, "user", "/etc/passwd")?, owner(&job.group, "group", "/etc/group")?);
    let mode = job.perms.or(there.as_ref().map(|there| there.mode() & 0o7777)).unwrap_or(MODE);
    if let Some(there) = &there {
        let same_owner = user.is_none_or(|user| user == there.uid()) && group.is_none_or(|group| group == there.gid());
        let same = there.len() == text.len() as u64
            && fs::read(&destination).map_err(told(&destination, "cannot read the file"))? == text.as_bytes();
        if same && same_owner && mode == there.mode() & 0o7777 {
            return Ok(None);
        }
        if text.is_empty() && there.len() > 0 && !job.allow_empty {
            return Err(PlaceError::Empty(destination));
        }
    }
    let name = destination.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let prefix = format!(".{name}.");
    // Nobody else reads it before it has its mode.
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(&prefix).permissions(fs::Permissions::from_mode(0o600));
    let mut file = builder.tempfile_in(&folder).map_err(told(&folder, "cannot write a file beside the destination"))?;
    let path = file.path().to_owned();
    file.write_all(text.as_bytes()).map_err(told(&path, "cannot write"))?;
    let (user, group) = match &there {
        Some(there) => (user.or(Some(there.uid())), group.or(Some(there.gid()))),
        None => (user, group),
    };
    std::os::unix::fs::chown(&path, user, group).map_err(told(&path, "cannot give it its owner"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(told(&path, "cannot give it its mode"))?;
    file.as_file().sync_all().map_err(told(&path, "cannot write"))?;
    Ok(Some(Staged { file, destination, backup: job.backup }))
}

impl Staged {
    /// Path of the stage file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Leaves the staged file where it is.
    pub fn keep(self) -> io::Result<PathBuf> {
        Ok(self.file.keep().map_err(|error| error.error)?.1)
    }

    /// Replaces the file in one step; where the destination is a mount of its own, it writes into it.
    ///
    /// # Errors
    /// Says what could not be done; the old file is as it was, but for a mount on which writing broke off.
    pub fn put(self) -> Result<(), PlaceError> {
        let destination = self.destination;
        if self.backup && destination.exists() {
            let backup = PathBuf::from(format!("{}.bak", destination.display()));
            let _ = fs::remove_file(&backup);
            fs::hard_link(&destination, &backup).map_err(told(&backup, "cannot keep the old file"))?;
        }
        match self.file.persist(&destination) {
            Ok(_) => {}
            Err(error) if is_mount(&error.error) => {
                let text = fs::read(error.file.path()).map_err(told(error.file.path(), "cannot read it again"))?;
                let mut file = File::create(&destination).map_err(told(&destination, "cannot write"))?;
                file.write_all(&text).map_err(told(&destination, "cannot write"))?;
                file.sync_all().map_err(told(&destination, "cannot write"))?;
                return Ok(());
            }
            Err(error) => return Err(told(&destination, "cannot put the new file in its place")(error.error)),
        }
        let folder = destination.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The name is on the disk only with its folder.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(told(folder, "cannot write the folder"))
    }
}

fn is_mount(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices)
}

/// The number of a user or group in a file like `/etc/passwd`.
fn id_of(name: &str, file: &str) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}
