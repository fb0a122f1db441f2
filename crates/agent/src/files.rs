//! Secrets and configs as files in memory: a file system below the node's folder, with a folder for each task.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use herder_decide::swarm::container::File;
use herder_parts::blocking;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tokio::sync::Mutex;

/// More than all secrets and configs of a node together may take. One is at most 1 MB.
const OPTIONS: &str = "mode=0700,size=256m";

/// Files of tasks, in memory.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    /// Held while the file system is made.
    made: Mutex<bool>,
}

/// Reason why files cannot be provided. Never holds their content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error(
        "secrets and configs need a file system in memory, and {folder} cannot be one: {source}; run herder as root"
    )]
    Mount { folder: String, source: io::Error },
    #[error("cannot write the file for {target}: {source}")]
    Write { target: String, source: io::Error },
}

impl Files {
    /// `state` is the node's folder; on its disk nothing is written.
    pub(crate) fn new(state: &Path) -> Files {
        Files { folder: state.join("files"), made: Mutex::new(false) }
    }

    /// Writes the files of a task, replacing earlier ones. Returns path on this node → place in the container.
    pub(crate) async fn put(&self, task: &str, files: &[File]) -> Result<Vec<(String, String)>, FilesError> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        {
            let mut made = self.made.lock().await;
            if !*made {
                blocking(|| self.make())
                    .map_err(|source| FilesError::Mount { folder: self.folder.display().to_string(), source })?;
                *made = true;
            }
        }
        blocking(|| self.write_all(task, files))
    }

    fn write_all(&self, task: &str, files: &[File]) -> Result<Vec<(String, String)>, FilesError> {
        let folder = self.folder.join(task);
        let wrong = |target: &str, source| FilesError::Write { target: target.to_owned(), source };
        DirBuilder::new().mode(0o700).recursive(true).create(&folder).map_err(|error| wrong("the task", error))?;
        let binds = files.iter().enumerate().map(|(number, file)| {
            let path = folder.join(number.to_string());
            write(&path, file).map_err(|error| wrong(&file.target, error))?;
            Ok((path.display().to_string(), file.target.clone()))
        });
        binds.collect()
    }

    /// Takes the files of a task away, if it has some.
    pub(crate) fn remove(&self, task: &str) {
        // Nothing is there for most tasks.
        let _ = blocking(|| fs::remove_dir_all(self.folder.join(task)));
    }

    /// Takes everything away.
    pub(crate) async fn clear(&self) {
        let mut made = self.made.lock().await;
        *made = false;
        // Containers that end slowly may hold it a little longer; what is in it goes with the last of them.
        let _ = unmount(&self.folder, UnmountFlags::DETACH);
    }

    fn make(&self) -> io::Result<()> {
        DirBuilder::new().mode(0o700).recursive(true).create(&self.folder)?;
        if self.is_made()? {
            return Ok(());
        }
        let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        let options = |more: &str| std::ffi::CString::new(format!("{OPTIONS}{more}"));
        // Kernels before 6.4 know no `noswap`.
        let unswapped = options(",noswap")?;
        if mount("tmpfs", &self.folder, "tmpfs", flags, Some(unswapped.as_c_str())).is_err() {
            mount("tmpfs", &self.folder, "tmpfs", flags, Some(options("")?.as_c_str()))?;
        }
        Ok(())
    }

    /// The folder is a file system of its own already: herder was restarted.
    fn is_made(&self) -> io::Result<bool> {
        let parent = self.folder.parent().unwrap_or(Path::new("/"));
        Ok(fs::metadata(&self.folder)?.dev() != fs::metadata(parent)?.dev())
    }
}

fn write(path: &Path, file: &File) -> io::Result<()> {
    // A container may see the old file: it is written anew in its place, never a link followed.
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    to.write_all(&file.data)?;
    chown(path, Some(file.uid), Some(file.gid))?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(file.mode))
}
