//! The log, as raft writes and reads it. The newest entries are kept in memory, for they are what is read.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::disk::{Disk, Done, Found, Op};
use crate::envelope;
use crate::raft::{Entry, LogId, Types, Vote};

/// Bytes of log kept in memory, by length on disk. Decoded, with an object of its own for each version of a task, the
/// log takes several times as much. A member that is further behind is sent what the disk has. What is not yet on the
/// disk is kept in any case.
pub(crate) const KEPT_BYTES: usize = 2 << 20;
/// Bytes of entries in one message between managers. With the largest command it stays below the 9 MiB of a message.
const BATCH_BYTES: usize = 2 << 20;

/// The log of one member. Copies are the same log.
#[derive(Clone)]
pub(crate) struct Log {
    disk: Arc<Disk>,
    tail: Arc<Mutex<Tail>>,
    long: Arc<Notify>,
    long_bytes: usize,
}

#[derive(Default)]
struct Tail {
    /// The newest entries without a gap, with their length.
    kept: BTreeMap<u64, (Entry, usize)>,
    bytes: usize,
    /// Length of the log since the last snapshot.
    since_snapshot: usize,
    last: Option<LogId>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    vote: Option<Vote>,
}

impl Tail {
    fn push(&mut self, entry: Entry, length: usize) {
        self.last = Some(entry.log_id.clone());
        self.bytes += length;
        self.since_snapshot += length;
        self.kept.insert(entry.log_id.index, (entry, length));
    }

    /// Forgets the oldest of those that are on the disk, up to this one.
    fn forget(&mut self, flushed: u64) {
        while self.bytes > KEPT_BYTES
            && let Some(first) = self.kept.first_entry()
            && *first.key() <= flushed
        {
            self.bytes -= first.remove().1;
        }
    }

    fn cut(&mut self, range: impl RangeBounds<u64>) {
        let gone: Vec<u64> = self.kept.range(range).map(|(index, _)| *index).collect();
        for index in gone {
            self.bytes -= self.kept.remove(&index).map_or(0, |it| it.1);
        }
    }
}

impl Log {
    pub(crate) fn new(disk: Arc<Disk>, found: Found, long_bytes: usize) -> Log {
        let Found { vote, committed, purged, entries, since_snapshot, .. } = found;
        let mut tail = Tail { last: purged.clone(), purged, committed, vote, ..Tail::default() };
        for (entry, length) in entries {
            let index = entry.log_id.index;
            tail.push(entry, length);
            tail.forget(index.saturating_sub(1));
        }
        tail.since_snapshot = since_snapshot;
        Log { disk, tail: Arc::new(Mutex::new(tail)), long: Arc::default(), long_bytes }
    }

    /// Resolves when the log is long enough for a snapshot.
    pub(crate) async fn long(&self) {
        self.long.notified().await;
    }

    /// The first entry that is kept in memory.
    pub(crate) fn first_kept(&self) -> u64 {
        self.tail.lock().kept.first_key_value().map_or(0, |(index, _)| *index)
    }

    /// Returns the entries of a range that are in memory, and the range to be read from disk before them.
    fn kept(&self, from: u64, to: u64, bytes_max: usize) -> (std::ops::Range<u64>, Vec<Entry>) {
        let tail = self.tail.lock();
        let first = tail.kept.first_key_value().map_or(u64::MAX, |(index, _)| *index);
        let before = from..to.min(first).max(from);
        if from >= to {
            return (before, Vec::new());
        }
        let mut bytes = 0;
        let fits = tail.kept.range(from..to).take_while(|(_, (_, length))| {
            let first = bytes == 0;
            bytes += length;
            first || bytes <= bytes_max
        });
        (before, fits.map(|(_, (entry, _))| entry.clone()).collect())
    }

    async fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let purged = self.tail.lock().purged.as_ref().map_or(0, |it| it.index + 1);
        let (before, kept) = self.kept(from.max(purged), to, bytes_max);
        if before.is_empty() {
            return Ok(kept);
        }
        let read = self.disk.entries(before, bytes_max).await?;
        let mut entries: Vec<Entry> = read.into_iter().map(|(entry, _)| entry).collect();
        // With a limit, what was read from the disk is enough, and may not be all before what is in memory.
        if bytes_max == usize::MAX || entries.is_empty() {
            entries.extend(kept);
        }
        Ok(entries)
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<Entry>, io::Error>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(to) => to.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        let next = self.tail.lock().last.as_ref().map_or(0, |it| it.index + 1);
        self.read(from, to.min(next), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, BATCH_BYTES).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.tail.lock().vote.clone())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let tail = self.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged.clone(), last_log_id: tail.last.clone() })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.disk.write(vec![Op::Vote(vote.clone())]).await?;
        self.tail.lock().vote = Some(vote.clone());
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.tail.lock().committed.clone_from(&committed);
        self.disk.set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.tail.lock().committed.clone())
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = <Types as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut ops = Vec::new();
        {
            let mut tail = self.tail.lock();
            for entry in entries {
                let plain = envelope::wrap(&entry)?;
                let length = plain.len();
                ops.push(Op::Log(entry.index(), plain));
                tail.push(entry, length);
            }
            tail.forget(self.disk.flushed());
            if tail.since_snapshot > self.disk.snapshot_bytes().max(self.long_bytes) {
                tail.since_snapshot = 0;
                self.long.notify_one();
            }
        }
        self.disk.send(ops, Done::Flushed(flushed)).await;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.as_ref().map_or(0, |it| it.index + 1);
        {
            let mut tail = self.tail.lock();
            tail.cut(from..);
            if tail.last.as_ref().is_some_and(|it| it.index >= from) {
                tail.last = last;
            }
        }
        self.disk.write(vec![Op::CutFrom(from)]).await
    }

    async fn purge(&mut self, to: LogId) -> Result<(), io::Error> {
        let index = to.index;
        {
            let mut tail = self.tail.lock();
            tail.cut(..=index);
            tail.purged = Some(to.clone());
            if tail.last.as_ref().is_none_or(|last| last.index < index) {
                tail.last = Some(to.clone());
            }
        }
        self.disk.write(vec![Op::Purged(Some(to)), Op::PurgeTo(index)]).await
    }
}
