//! The audit log: one entry for each request that may change something, and for each that was denied.

use std::io::{self, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::thread::{self, JoinHandle};

use serde::Serialize;
use tokio::sync::mpsc;

/// Entries that wait to be written; then requests wait. A disk that is slower than the door slows the door down, since an
/// audit log with gaps is none.
const ENTRIES_WAITING_MAX: usize = 1024;

/// Result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The answer is not an error.
    Done,
    /// The answer is an error.
    Failed,
    /// The caller may not do this, or not from there.
    Denied,
    /// The client disconnected before the response. The operation may have been carried out.
    Abandoned,
}

/// One line of the audit log. Has no query string and no body: both may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Time of the answer: UTC, in the form of RFC 3339.
    pub time: String,
    pub request_id: String,
    /// The caller's name, where the connection proves one.
    pub who: Option<String>,
    /// The caller's address or process.
    pub from: String,
    /// `container.create`
    pub action: String,
    pub method: String,
    /// Without version, decoded.
    pub path: String,
    /// The status of the answer; nothing for [`Outcome::Abandoned`].
    pub status: Option<u16>,
    pub outcome: Outcome,
}

/// A write of an entry.
pub type Written<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Destination of audit entries.
pub trait Audit: Send + Sync + std::fmt::Debug + 'static {
    /// Takes an entry; ends when it is sure to be written unless the machine fails. Reports trouble by itself.
    fn write(&self, entry: Entry) -> Written<'_>;
    /// Same as [`Audit::write`], for callers that cannot wait.
    fn write_now(&self, entry: Entry);
}

/// Appends entries to a file, one JSON document a line.
#[derive(Debug)]
pub struct AuditFile {
    /// The queue of entries, until the drop.
    entries: Option<mpsc::Sender<Entry>>,
    writer: Option<JoinHandle<()>>,
}

impl AuditFile {
    /// Opens the file, which is made for its owner only, and starts to write. Whoever rotates it moves it away and restarts
    /// herder, or copies and truncates it.
    pub fn open(path: &Path) -> io::Result<AuditFile> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let (entries, waiting) = mpsc::channel(ENTRIES_WAITING_MAX);
        let path = path.to_owned();
        let writer = thread::Builder::new().name("audit".to_owned()).spawn(move || write_all(file, &path, waiting))?;
        Ok(AuditFile { entries: Some(entries), writer: Some(writer) })
    }
}

impl Drop for AuditFile {
    /// Waits until what was taken is written.
    fn drop(&mut self) {
        self.entries = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the audit log panicked");
        }
    }
}

impl Audit for AuditFile {
    fn write(&self, entry: Entry) -> Written<'_> {
        Box::pin(async {
            let Some(entries) = &self.entries else { return };
            if entries.send(entry).await.is_err() {
                tracing::error!("the audit log is closed; an entry is lost");
            }
        })
    }

    fn write_now(&self, entry: Entry) {
        if let Some(entries) = &self.entries
            && let Err(error) = entries.try_send(entry)
        {
            tracing::error!(%error, "an entry of the audit log is lost");
        }
    }
}

/// Ends when the last sender is gone.
fn write_all(mut file: std::fs::File, path: &Path, mut waiting: mpsc::Receiver<Entry>) {
    while let Some(entry) = waiting.blocking_recv() {
        let written = serde_json::to_vec(&entry).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            file.write_all(&line)
        });
        if let Err(error) = written {
            tracing::error!(%error, path = %path.display(), ?entry, "cannot write to the audit log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test may block")]
    async fn entries_become_lines_of_a_file_for_its_owner() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let log = AuditFile::open(&path).expect("a file");
        let entry = Entry {
            time: "2026-11-30T06:00:00Z".into(),
            request_id: "r1".into(),
            who: None,
            from: "tcp:10.0.0.1:1".into(),
            action: "container.create".into(),
            method: "POST".into(),
            path: "/containers/create".into(),
            status: Some(201),
            outcome: Outcome::Done,
        };
        log.write(entry.clone()).await;
        log.write_now(Entry { status: None, outcome: Outcome::Abandoned, ..entry });
        let line = |status: &str, outcome: &str| {
            format!(
                r#"{{"time":"2026-11-30T06:00:00Z","request_id":"r1","who":null,"from":"tcp:10.0.0.1:1","action":"container.create","method":"POST","path":"/containers/create","status":{status},"outcome":"{outcome}"}}"#
            ) + "\n"
        };
        let expected = line("201", "done") + &line("null", "abandoned");
        drop(log);
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), expected);
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
