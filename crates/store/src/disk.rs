//! Database of a store: one file (redb), every value sealed. One thread writes jobs that arrive together in one
//! transaction.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use openraft::storage::IOFlushed;
use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadableDatabase, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::backend::BackendHandle;
use crate::log::KEPT_BYTES;
use crate::raft::{Entry, LogId, Member, SnapshotMeta, Types, Vote};
use crate::seal::Sealer;
use crate::{StoreError, envelope, vault};

pub(crate) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const SNAPSHOT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("snapshot");

/// Jobs that wait for the writing thread. Raft itself waits for most of them, so there are few.
const JOBS_MAX: usize = 1024;
/// Bytes of a snapshot that are sealed together.
const PART_BYTES: usize = 1 << 20;
/// The database keeps so much of its file in memory. What is needed often is kept by the log itself.
const CACHE_BYTES: usize = 4 << 20;

/// A change of the database.
#[derive(Debug)]
pub(crate) enum Op {
    /// An entry of the log.
    Log(u64, Vec<u8>),
    /// Takes the entries from this one on out of the log.
    CutFrom(u64),
    /// Takes the entries up to this one out of the log.
    PurgeTo(u64),
    Vote(Vote),
    Purged(Option<LogId>),
    Member(Member),
    Snapshot(SnapshotMeta, Bytes),
}

/// Receiver of a job's result.
pub(crate) enum Done {
    Flushed(IOFlushed<Types>),
    Reported(oneshot::Sender<io::Result<()>>),
}

struct Job {
    ops: Vec<Op>,
    done: Done,
}

#[derive(Serialize, Deserialize)]
struct SnapshotHead {
    meta: SnapshotMeta,
    parts: u64,
}

/// Content of the database when it was opened.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) member: Member,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// The newest entries of the log with their length, as far as they are kept in memory.
    pub(crate) entries: Vec<(Entry, usize)>,
    /// Length of all entries that are not in the snapshot.
    pub(crate) since_snapshot: usize,
}

pub(crate) struct Disk {
    inner: Arc<Inner>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<Writer>>,
}

/// The thread or task that writes.
enum Writer {
    Thread(thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

struct Inner {
    folder: PathBuf,
    backend: BackendHandle,
    /// The database, until it is closed.
    database: RwLock<Option<Database>>,
    sealer: Sealer,
    /// Written with whatever is written next: it may be lost, for it is found again.
    committed: Mutex<Option<LogId>>,
    /// The last entry of the log that is on the disk.
    flushed: AtomicU64,
    /// Length of the snapshot.
    snapshot_bytes: AtomicUsize,
}

impl Disk {
    /// Makes a database for a new member.
    pub(crate) fn create(backend: &BackendHandle, path: &Path, sealer: &Sealer, node: &str) -> Result<(), StoreError> {
        let doing = || format!("make {}", path.display());
        let database = backend.create(path).map_err(other).map_err(StoreError::io(doing()))?;
        Disk::fill(&database, sealer, Member::new(node)).map_err(StoreError::io(doing()))
    }

    pub(crate) fn fill(database: &Database, sealer: &Sealer, member: Member) -> io::Result<()> {
        write(database, sealer, &[vec![Op::Member(member)]], None)
    }

    /// Opens a database and reads all of it: what cannot be trusted is found now.
    pub(crate) fn open(backend: BackendHandle, path: &Path, sealer: Sealer) -> Result<(Disk, Found), StoreError> {
        let folder = path.parent().unwrap_or(path).to_owned();
        let opened =
            catch_unwind(AssertUnwindSafe(|| backend.open(path, redb::Builder::new().set_cache_size(CACHE_BYTES))));
        let mut database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(redb::DatabaseError::DatabaseAlreadyOpen)) => return Err(StoreError::InUse { folder }),
            Ok(Err(error)) => return Err(vault::damaged(&folder, "store.redb", &error.to_string())),
            Err(_) => return Err(vault::damaged(&folder, "store.redb", "its structure is broken")),
        };
        // What was left by a crash is mended by now; what is broken now was changed.
        let checked = catch_unwind(AssertUnwindSafe(|| database.check_integrity()));
        match checked {
            Ok(Ok(true)) => Disk::with(backend, database, folder, sealer),
            Ok(Err(error)) => Err(vault::damaged(&folder, "store.redb", &error.to_string())),
            Ok(Ok(false)) | Err(_) => Err(vault::damaged(&folder, "store.redb", "its structure is broken")),
        }
    }

    pub(crate) fn with(
        backend: BackendHandle,
        database: Database,
        folder: PathBuf,
        sealer: Sealer,
    ) -> Result<(Disk, Found), StoreError> {
        let inner = Arc::new(Inner {
            folder,
            backend,
            database: RwLock::new(Some(database)),
            sealer,
            committed: Mutex::default(),
            flushed: AtomicU64::new(0),
            snapshot_bytes: AtomicUsize::new(0),
        });
        let found = catch_unwind(AssertUnwindSafe(|| inner.read_all()))
            .unwrap_or_else(|_| Err(vault::damaged(&inner.folder, "store.redb", "its structure is broken")))?;
        *inner.committed.lock() = found.committed.clone();
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let writer = Arc::clone(&inner);
        let writer = if inner.backend.0.is_some() {
            Writer::Task(tokio::spawn(writer.write_in_turn(queue)))
        } else {
            let thread = thread::Builder::new().name("herder-store".to_owned());
            let thread = thread.spawn(move || writer.write_jobs(queue));
            Writer::Thread(thread.map_err(StoreError::io("start the thread that writes the store"))?)
        };
        let disk = Disk { inner, jobs: Mutex::new(Some(jobs)), writer: Mutex::new(Some(writer)) };
        Ok((disk, found))
    }

    /// Queues a write after earlier ones. `done` is notified when it is on the disk.
    pub(crate) async fn send(&self, ops: Vec<Op>, done: Done) {
        let jobs = self.jobs.lock().clone();
        let job = Job { ops, done };
        let refused = match jobs {
            Some(jobs) => jobs.send(job).await.err().map(|refused| refused.0),
            None => Some(job),
        };
        if let Some(job) = refused {
            job.done.tell(Err(io::Error::other("the store is closed")));
        }
    }

    pub(crate) fn backend(&self) -> &BackendHandle {
        &self.inner.backend
    }

    pub(crate) async fn write(&self, ops: Vec<Op>) -> io::Result<()> {
        let (done, told) = oneshot::channel();
        self.send(ops, Done::Reported(done)).await;
        told.await.unwrap_or_else(|_| Err(io::Error::other("the store is closed")))
    }

    /// The last entry of the log that is known to be on the disk.
    pub(crate) fn flushed(&self) -> u64 {
        self.inner.flushed.load(Ordering::Acquire)
    }

    /// Length of the snapshot that is on the disk, before it is sealed.
    pub(crate) fn snapshot_bytes(&self) -> usize {
        self.inner.snapshot_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn set_committed(&self, committed: Option<LogId>) {
        *self.inner.committed.lock() = committed;
    }

    /// Returns log entries with their lengths, at most `bytes_max` bytes of them but at least one entry.
    pub(crate) async fn entries(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(Entry, usize)>> {
        let inner = Arc::clone(&self.inner);
        self.backend().work(move || inner.entries(range, bytes_max)).await?
    }

    pub(crate) async fn snapshot(&self) -> io::Result<Option<(SnapshotMeta, Bytes)>> {
        let inner = Arc::clone(&self.inner);
        self.backend().work(move || inner.snapshot()).await?
    }

    /// Returns the last entry that the snapshot covers.
    pub(crate) async fn snapshot_end(&self) -> io::Result<Option<LogId>> {
        let inner = Arc::clone(&self.inner);
        let head = self.backend().work(move || inner.meta::<SnapshotHead>("snapshot")).await??;
        Ok(head.and_then(|head| head.meta.last_log_id))
    }

    /// Ends the writing thread after what was sent, and waits for it. Then the file is let go of.
    pub(crate) async fn close(&self) {
        drop(self.jobs.lock().take());
        let writer = self.writer.lock().take();
        // A panic of the writer was told to those who waited for it.
        match writer {
            Some(Writer::Thread(thread)) => drop(tokio::task::spawn_blocking(move || thread.join()).await),
            Some(Writer::Task(task)) => drop(task.await),
            None => {}
        }
        drop(self.inner.database.write().take());
    }
}

impl Done {
    fn tell(self, result: io::Result<()>) {
        match self {
            Done::Flushed(flushed) => flushed.io_completed(result),
            // Whoever asked may have gone.
            Done::Reported(report) => drop(report.send(result)),
        }
    }
}

impl Inner {
    fn write_jobs(&self, mut queue: mpsc::Receiver<Job>) {
        let (mut failed, mut jobs) = (None, Vec::new());
        while queue.blocking_recv_many(&mut jobs, JOBS_MAX) > 0 {
            self.write_together(&mut jobs, &mut failed);
        }
        self.write_last(failed.is_none());
    }

    /// Async variant of [`Inner::write_jobs`] for backends that hand out turns (simulations).
    async fn write_in_turn(self: Arc<Inner>, mut queue: mpsc::Receiver<Job>) {
        let (mut failed, mut jobs) = (None, Vec::new());
        while queue.recv_many(&mut jobs, JOBS_MAX).await > 0 {
            if let Some(backend) = &self.backend.0 {
                backend.turn().await;
            }
            while jobs.len() < JOBS_MAX
                && let Ok(job) = queue.try_recv()
            {
                jobs.push(job);
            }
            self.write_together(&mut jobs, &mut failed);
        }
        self.write_last(failed.is_none());
    }

    /// Writes what waits in one transaction, and so with one flush of the disk. After a failure nothing is written any more:
    /// what is on the disk must have no holes.
    fn write_together(&self, jobs: &mut Vec<Job>, failed: &mut Option<String>) {
        let (ops, waiting): (Vec<_>, Vec<_>) = jobs.drain(..).map(|job| (job.ops, job.done)).unzip();
        if failed.is_none() {
            let committed = self.committed.lock().clone();
            let write = || self.with(|database| write(database, &self.sealer, &ops, committed.as_ref()));
            let written = catch_unwind(AssertUnwindSafe(write));
            let written = written.unwrap_or_else(|_| Err(io::Error::other("the database broke")));
            *failed = written.err().map(|error| error.to_string());
            if let Some(why) = failed {
                tracing::error!("failed to write the store in {}: {why}", self.folder.display());
            }
        }
        for op in ops.iter().flatten().filter(|_| failed.is_none()) {
            match op {
                Op::Log(index, _) => self.flushed.store(*index, Ordering::Release),
                Op::Snapshot(_, bytes) => self.snapshot_bytes.store(bytes.len(), Ordering::Release),
                Op::CutFrom(index) => self.flushed.store(index.saturating_sub(1), Ordering::Release),
                _ => {}
            }
        }
        for done in waiting {
            done.tell(failed.as_ref().map_or(Ok(()), |why| Err(io::Error::other(why.clone()))));
        }
    }

    /// Writes cached metadata at close, so that the next start is faster. Errors are ignored: the start recomputes it.
    fn write_last(&self, is_whole: bool) {
        let committed = self.committed.lock().clone();
        if is_whole {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                self.with(|database| write(database, &self.sealer, &[], committed.as_ref()))
            }));
        }
    }

    fn with<T>(&self, use_it: impl FnOnce(&Database) -> io::Result<T>) -> io::Result<T> {
        use_it(self.database.read().as_ref().ok_or_else(|| io::Error::other("the store is closed"))?)
    }

    fn read_all(&self) -> Result<Found, StoreError> {
        let damaged = |what: &str| {
            let (folder, what) = (self.folder.clone(), what.to_owned());
            move |error: io::Error| StoreError::Damaged { folder, what, why: error.to_string() }
        };
        let member = self.meta("member").map_err(damaged("the member id"))?;
        let member = member.ok_or_else(|| vault::damaged(&self.folder, "the member id", "it is not there"))?;
        let vote = self.meta("vote").map_err(damaged("the vote"))?;
        let committed: Option<LogId> = self.meta("committed").map_err(damaged("the number of the last command"))?;
        let purged: Option<Option<LogId>> = self.meta("purged").map_err(damaged("the start of the log"))?;
        let purged = purged.flatten();
        let snapshot = self.snapshot().map_err(damaged("the snapshot"))?;
        self.snapshot_bytes.store(snapshot.as_ref().map_or(0, |(_, bytes)| bytes.len()), Ordering::Release);
        let covered = snapshot.and_then(|(meta, _)| meta.last_log_id).map(|it| it.index);
        if let Some(purged) = &purged
            && covered.is_none_or(|covered| covered < purged.index)
        {
            return Err(vault::damaged(&self.folder, "the snapshot", "it is older than the start of the log"));
        }
        let first = purged.as_ref().map_or(0, |it| it.index + 1);
        let (entries, since_snapshot) = self.check_log(first, covered).map_err(damaged("the log"))?;
        Ok(Found { member, vote, committed, purged, entries, since_snapshot })
    }

    /// Reads the log from this entry on and checks that it is whole. Each entry is sealed for its own place. A long log
    /// is not kept: raft asks for what it needs of it.
    fn check_log(&self, first: u64, covered: Option<u64>) -> io::Result<(Vec<(Entry, usize)>, usize)> {
        let transaction = self.with(|database| database.begin_read().map_err(other))?;
        let table = transaction.open_table(LOG).map_err(other)?;
        let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
        let (mut kept_bytes, mut since_snapshot) = (0, 0);
        let mut gap = None;
        for (expected, row) in (first..).zip(table.range(0..u64::MAX).map_err(other)?) {
            let (index, sealed) = row.map_err(other)?;
            let index = index.value();
            let plain = self.open_entry(index, sealed.value())?;
            if index != expected {
                gap.get_or_insert_with(|| format!("entry {expected} is not there, {index} is"));
            }
            if covered.is_none_or(|covered| covered < index) {
                since_snapshot += plain.len();
            }
            kept_bytes += plain.len();
            kept.push_back(plain);
            while kept_bytes > KEPT_BYTES && kept.len() > 1 {
                kept_bytes -= kept.pop_front().map_or(0, |plain| plain.len());
            }
        }
        if let Some(why) = gap {
            return Err(io::Error::other(why));
        }
        let entries = kept.into_iter().map(|plain| Ok((parse_entry(&plain)?, plain.len())));
        Ok((entries.collect::<io::Result<_>>()?, since_snapshot))
    }

    fn open_entry(&self, index: u64, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let opened = self.sealer.open(&place("log", index), sealed);
        opened.map_err(|error| io::Error::other(format!("entry {index}: {error}")))
    }

    fn meta<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let transaction = self.with(|database| database.begin_read().map_err(other))?;
        let table = transaction.open_table(META).map_err(other)?;
        let Some(sealed) = table.get(name).map_err(other)? else {
            return Ok(None);
        };
        let plain = self.sealer.open(&place("meta", name), sealed.value()).map_err(other)?;
        envelope::unwrap(&plain).map(Some).map_err(io::Error::other)
    }

    fn entries(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(Entry, usize)>> {
        let transaction = self.with(|database| database.begin_read().map_err(other))?;
        let table = transaction.open_table(LOG).map_err(other)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for row in table.range(range).map_err(other)? {
            let (index, sealed) = row.map_err(other)?;
            let index = index.value();
            let plain = self.open_entry(index, sealed.value())?;
            bytes += plain.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push((parse_entry(&plain)?, plain.len()));
        }
        Ok(entries)
    }

    fn snapshot(&self) -> io::Result<Option<(SnapshotMeta, Bytes)>> {
        let Some(head) = self.meta::<SnapshotHead>("snapshot")? else {
            return Ok(None);
        };
        let transaction = self.with(|database| database.begin_read().map_err(other))?;
        let table = transaction.open_table(SNAPSHOT).map_err(other)?;
        let mut bytes = Vec::new();
        for part in 0..head.parts {
            let sealed = table.get(part).map_err(other)?;
            let sealed = sealed.ok_or_else(|| io::Error::other(format!("part {part} is not there")))?;
            let plain = self.sealer.open(&part_place(&head.meta, part), sealed.value());
            bytes.extend(plain.map_err(|error| io::Error::other(format!("part {part}: {error}")))?);
        }
        Ok(Some((head.meta, bytes.into())))
    }
}

fn parse_entry(plain: &[u8]) -> io::Result<Entry> {
    envelope::unwrap(plain).map_err(|why| io::Error::other(format!("malformed log entry: {why}")))
}

/// Returns the place of a sealed value; it opens in this place only.
fn place(table: &str, key: impl std::fmt::Display) -> String {
    format!("{table} {key}")
}

fn part_place(meta: &SnapshotMeta, part: u64) -> String {
    let last = meta.last_log_id.as_ref().map_or(0, |it| it.index);
    format!("snapshot {last} {part}")
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// One transaction. It is on the disk when this returns.
fn write(database: &Database, sealer: &Sealer, jobs: &[Vec<Op>], committed: Option<&LogId>) -> io::Result<()> {
    let transaction = database.begin_write().map_err(other)?;
    {
        let mut log = transaction.open_table(LOG).map_err(other)?;
        let mut meta = transaction.open_table(META).map_err(other)?;
        let mut snapshot = transaction.open_table(SNAPSHOT).map_err(other)?;
        let mut put = |name: &str, value: serde_json::Result<Vec<u8>>| -> io::Result<()> {
            let sealed = sealer.seal(&place("meta", name), &value?);
            meta.insert(name, &*sealed).map(drop).map_err(other)
        };
        for op in jobs.iter().flatten() {
            match op {
                Op::Log(index, plain) => {
                    let sealed = sealer.seal(&place("log", index), plain);
                    log.insert(index, &*sealed).map_err(other)?;
                }
                Op::CutFrom(index) => log.retain_in::<u64, _>(*index.., |_, _| false).map_err(other)?,
                Op::PurgeTo(index) => log.retain_in::<u64, _>(..=*index, |_, _| false).map_err(other)?,
                Op::Vote(vote) => put("vote", envelope::wrap(vote))?,
                Op::Purged(purged) => put("purged", envelope::wrap(purged))?,
                Op::Member(member) => put("member", envelope::wrap(member))?,
                Op::Snapshot(head, bytes) => {
                    snapshot.retain(|_, _| false).map_err(other)?;
                    let mut parts = 0;
                    for part in bytes.chunks(PART_BYTES) {
                        let sealed = sealer.seal(&part_place(head, parts), part);
                        snapshot.insert(parts, &*sealed).map_err(other)?;
                        parts += 1;
                    }
                    put("snapshot", envelope::wrap(&SnapshotHead { meta: head.clone(), parts }))?;
                }
            }
        }
        if let Some(committed) = committed {
            put("committed", envelope::wrap(committed))?;
        }
    }
    transaction.commit().map_err(other)
}
