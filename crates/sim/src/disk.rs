//! A simulated disk. It takes its time, and after a loss of power it has what was flushed, and random parts of the
//! rest.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use herder_store::{Backend, Database, DatabaseBuilder, DatabaseError, StorageBackend};
use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::sleep;

/// The part of a write that a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// The disk of one host. It outlives the host's crashes.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<Plate>>);

#[derive(Debug)]
struct Plate {
    rng: StdRng,
    /// Content after a loss of power.
    stable: Vec<u8>,
    /// Content for readers, with all writes.
    seen: Vec<u8>,
    unflushed: Vec<Written>,
    /// Counts the starts of its host. Whoever was there before may write no more.
    start: u64,
    /// Writes until the power is gone.
    fuse: Option<u32>,
    /// Duration of a flush, in milliseconds.
    pace: std::ops::Range<u64>,
}

#[derive(Debug)]
enum Written {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

/// The disk, as one start of its host has it.
#[derive(Clone, Debug)]
pub(crate) struct Mount {
    disk: Disk,
    start: u64,
    gone: Arc<Notify>,
}

/// Kind of a host's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The program alone: the system still writes what it was given.
    Killed,
    /// Without power.
    Dark,
    /// Without power, in the middle of a write.
    Torn,
}

/// Usual duration of a flush.
pub(crate) const QUICK: std::ops::Range<u64> = 1..4;

impl Disk {
    pub(crate) fn new(rng: StdRng) -> Disk {
        Disk(Arc::new(Mutex::new(Plate {
            rng,
            stable: Vec::new(),
            seen: Vec::new(),
            unflushed: Vec::new(),
            start: 0,
            fuse: None,
            pace: QUICK,
        })))
    }

    pub(crate) fn mount(&self) -> Mount {
        let mut plate = self.0.lock();
        plate.start += 1;
        plate.fuse = None;
        Mount { disk: self.clone(), start: plate.start, gone: Arc::default() }
    }

    /// Sets the duration of a flush.
    pub(crate) fn pace(&self, millis: std::ops::Range<u64>) {
        self.0.lock().pace = millis;
    }
}

impl Mount {
    /// The host goes away. What waits for the disk is lost.
    pub(crate) async fn end(&self, how: End) {
        if how == End::Torn {
            {
                let mut plate = self.disk.0.lock();
                plate.fuse = Some(plate.rng.random_range(0..12));
            }
            // Whoever waits writes now, until the fuse has blown.
            self.gone.notify_waiters();
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        }
        let mut plate = self.disk.0.lock();
        plate.start += 1;
        if how == End::Killed {
            return;
        }
        let Plate { rng, stable, unflushed, seen, .. } = &mut *plate;
        for written in unflushed.drain(..) {
            if rng.random() {
                written.put(stable, rng.random::<bool>().then(|| rng.random_range(0..8)));
            }
        }
        seen.clone_from(stable);
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Plate) -> io::Result<T>) -> io::Result<T> {
        let mut plate = self.disk.0.lock();
        if plate.start != self.start || plate.fuse == Some(0) {
            return Err(io::Error::other("the host has no power"));
        }
        use_it(&mut plate)
    }
}

impl Plate {
    fn write(&mut self, written: Written) {
        if let Some(fuse) = &mut self.fuse {
            *fuse -= 1;
        }
        written.put(&mut self.seen, None);
        self.unflushed.push(written);
    }
}

impl Written {
    /// Writes the bytes, or only some sectors of them.
    fn put(&self, bytes: &mut Vec<u8>, sectors: Option<usize>) {
        match self {
            Written::Length(length) => bytes.resize(*length, 0),
            Written::Bytes(offset, data) => {
                let length = sectors.map_or(data.len(), |sectors| data.len().min(sectors * SECTOR_BYTES));
                if bytes.len() < offset + length {
                    bytes.resize(offset + length, 0);
                }
                bytes[*offset..offset + length].copy_from_slice(&data[..length]);
            }
        }
    }
}

fn small(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(io::Error::other)
}

impl StorageBackend for Mount {
    fn len(&self) -> io::Result<u64> {
        self.with(|plate| u64::try_from(plate.seen.len()).map_err(io::Error::other))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = small(offset)?;
        self.with(|plate| {
            let there = plate.seen.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(there);
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = small(length)?;
        self.with(|plate| {
            plate.write(Written::Length(length));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|plate| {
            if let Some(fuse) = &mut plate.fuse {
                *fuse -= 1;
            }
            for written in std::mem::take(&mut plate.unflushed) {
                written.put(&mut plate.stable, None);
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = small(offset)?;
        self.with(|plate| {
            plate.write(Written::Bytes(offset, data.to_vec()));
            Ok(())
        })
    }
}

impl Backend for Mount {
    fn open(&self, path: &Path, builder: &DatabaseBuilder) -> Result<Database, DatabaseError> {
        // Only the name is there.
        std::fs::File::create(path).map_err(|error| DatabaseError::Storage(error.into()))?;
        builder.create_with_backend(self.clone())
    }

    fn turn(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let pace = {
                let mut plate = self.disk.0.lock();
                let pace = plate.pace.clone();
                plate.rng.random_range(pace)
            };
            tokio::select! {
                biased;
                () = sleep(Duration::from_millis(pace)) => {}
                () = self.gone.notified() => {}
            }
        })
    }
}
