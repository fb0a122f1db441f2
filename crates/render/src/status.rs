//! The state of each file of a renderer, in a file of its own that `herder render status` reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The last thing that happened to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileStatus {
    /// `waiting`, `rendered` or `failed`.
    pub state: String,
    /// Time at which this state began (RFC 3339).
    pub since: String,
    /// Reason for waiting or for the failure.
    pub reason: String,
}

/// The states of one renderer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RenderStatus {
    pub pid: u32,
    /// By the path of the file.
    pub files: BTreeMap<String, FileStatus>,
    /// Commands that failed and are tried again, with what they said.
    pub commands: BTreeMap<String, String>,
}

impl RenderStatus {
    /// Returns whether something is not as it should be.
    pub fn has_failures(&self) -> bool {
        !self.commands.is_empty() || self.files.values().any(|it| it.state == "failed")
    }
}

/// Writes states of this process into a folder. Dropped, they are removed.
#[derive(Debug)]
pub(crate) struct StatusFile {
    path: PathBuf,
    now: RenderStatus,
    written: Option<RenderStatus>,
}

impl StatusFile {
    pub(crate) fn new(folder: &Path) -> StatusFile {
        let pid = std::process::id();
        let now = RenderStatus { pid, ..RenderStatus::default() };
        StatusFile { path: folder.join(format!("{pid}.json")), now, written: None }
    }

    pub(crate) fn set(&mut self, file: &Path, state: &str, reason: String) {
        let status = self.now.files.entry(file.display().to_string()).or_default();
        if status.state != state || status.reason != reason || state == "rendered" {
            let since = jiff::Timestamp::now().to_string();
            *status = FileStatus { state: state.to_owned(), since, reason };
        }
    }

    /// Commands that are tried again.
    pub(crate) fn commands(&mut self, failed: BTreeMap<String, String>) {
        self.now.commands = failed;
    }

    /// Writes what changed. A folder that cannot be written costs the status and nothing else.
    pub(crate) fn write(&mut self) {
        if self.written.as_ref() == Some(&self.now) {
            return;
        }
        let write = || {
            let folder = self.path.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(folder)?;
            let staged = self.path.with_extension("new");
            std::fs::write(&staged, serde_json::to_vec_pretty(&self.now)?)?;
            std::fs::rename(staged, &self.path)
        };
        if let Err(error) = write() {
            tracing::debug!(path = %self.path.display(), %error, "cannot write the status");
        }
        self.written = Some(self.now.clone());
    }
}

impl Drop for StatusFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The states of all renderers that write into a folder. Those of processes that were killed are passed over.
///
/// # Errors
/// If the folder cannot be read. One that is not there has no renderers.
pub fn statuses(folder: &Path) -> std::io::Result<Vec<RenderStatus>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found: Vec<RenderStatus> = Vec::new();
    for path in
        entries.filter_map(|it| Some(it.ok()?.path())).filter(|it| it.extension().is_some_and(|it| it == "json"))
    {
        let status = std::fs::read(&path).ok().and_then(|it| serde_json::from_slice::<RenderStatus>(&it).ok());
        found.extend(status.filter(|it| Path::new(&format!("/proc/{}", it.pid)).exists()));
    }
    found.sort_by_key(|it| it.pid);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_long_as_its_renderer_lives() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(statuses(&folder.path().join("none")).expect("read"), []);
        let mut file = StatusFile::new(folder.path());
        file.set(Path::new("/a"), "rendered", String::new());
        file.set(Path::new("/b"), "failed", "check".to_owned());
        file.write();
        // One that was killed.
        let other = RenderStatus { pid: 0x7fff_fff0, ..RenderStatus::default() };
        std::fs::write(folder.path().join("x.json"), serde_json::to_vec(&other).expect("JSON")).expect("written");
        let all = statuses(folder.path()).expect("read");
        assert_eq!(all.iter().map(|it| it.pid).collect::<Vec<_>>(), [std::process::id()]);
        assert!(all[0].has_failures());
        assert_eq!(all[0].files["/b"].reason, "check");
        drop(file);
        assert_eq!(statuses(folder.path()).expect("read"), []);
    }
}
