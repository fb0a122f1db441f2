//! Storage of a database: a file with threads of its own, or a simulated backend.

use std::fmt;
use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// Storage that replaces the file of a store's database. With one, the store needs no thread besides those of its
/// runtime: what takes long is done where it is asked for, so that a run in one thread can be repeated.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Opens the database, or makes it. The folder of `path` is there; afterwards there must be a file, too, or the store says that
    /// it was taken away.
    fn open(&self, path: &Path, builder: &redb::Builder) -> Result<redb::Database, redb::DatabaseError>;

    /// Resolves when the backend accepts the next write. What is to be written until then is written together.
    fn turn(&self) -> BoxFuture<'_, ()>;
}

/// The database itself says where its bytes are, through this.
pub use redb::{Builder as DatabaseBuilder, Database, DatabaseError, StorageBackend};

/// Permissions of a database file: its owner reads and writes it, and no other user.
const PRIVATE: u32 = 0o600;

/// Runs long work: on threads, or where a backend asks for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackendHandle(pub(crate) Option<Arc<dyn Backend>>);

impl BackendHandle {
    /// Runs work that waits for disks or computes for a while, where it blocks no other task.
    pub(crate) async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        match self.0 {
            Some(_) => Ok(work()),
            None => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
        }
    }

    pub(crate) fn create(&self, path: &Path) -> Result<Database, DatabaseError> {
        match &self.0 {
            Some(backend) => backend.open(path, &redb::Builder::new()),
            None => {
                let made = OpenOptions::new().append(true).create(true).mode(PRIVATE).open(path);
                made.map_err(redb::StorageError::Io)?;
                Database::create(path)
            }
        }
    }

    pub(crate) fn open(&self, path: &Path, builder: &redb::Builder) -> Result<Database, DatabaseError> {
        match &self.0 {
            Some(backend) => backend.open(path, builder),
            None => {
                // A release before this one left it readable for everybody.
                std::fs::set_permissions(path, Permissions::from_mode(PRIVATE)).map_err(redb::StorageError::Io)?;
                builder.open(path)
            }
        }
    }
}
