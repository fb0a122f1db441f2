//! Lease of fenced tasks: they may run until its end unless managers answer again. It outlives a restart of this
//! program, which has no more than the remaining lease. While something depends on it, a watchdog beside this program
//! holds it, too ([`crate::fence`]).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use herder_parts::blocking;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::fence::{self, Fenced, LEASE_FILE, StoredLease};

/// Uptime of the host, which cannot be set, and the id of its boot.
#[derive(Clone)]
pub struct Uptime {
    boot: String,
    now: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Uptime {
    pub fn new(boot: &str, now: impl Fn() -> Duration + Send + Sync + 'static) -> Uptime {
        Uptime { boot: boot.to_owned(), now: Arc::new(now) }
    }

    /// The kernel's; time in which the host sleeps counts.
    pub fn system() -> Uptime {
        Uptime::new(&fence::boot_id(), fence::boottime)
    }
}

impl std::fmt::Debug for Uptime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Uptime({:?} of {:?})", (self.now)(), self.boot)
    }
}

/// The program that holds the lease when this one does not. It calls [`fence::watch`] with the node's folder.
#[derive(Clone, Debug)]
pub struct Watchdog {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lease {
    until: watch::Sender<Instant>,
    uptime: Uptime,
    folder: PathBuf,
    watchdog: Option<Watchdog>,
    /// Something here depends on it: it is written down, and watched.
    is_kept: AtomicBool,
    beside: Mutex<Beside>,
}

/// State that the watchdog receives.
#[derive(Debug, Default)]
struct Beside {
    child: Option<Child>,
    /// Keyed by id.
    fenced: BTreeMap<String, Fenced>,
    has_warned: bool,
}

impl Lease {
    /// Restores the rest of the lease that this folder holds for the present boot.
    pub(crate) fn of(folder: &Path, uptime: Uptime, watchdog: Option<Watchdog>) -> Lease {
        let text = fs::read_to_string(folder.join(LEASE_FILE)).unwrap_or_default();
        let kept = StoredLease::parse(&text).filter(|kept| kept.boot == uptime.boot);
        let left = kept.map(|kept| kept.until.saturating_sub((uptime.now)())).unwrap_or_default();
        let fenced: BTreeMap<String, Fenced> =
            fence::read_fenced(folder).into_iter().map(|it| (it.id.clone(), it)).collect();
        // Else the watchdog of the time before would end what managers let run on.
        let is_kept = AtomicBool::new(!fenced.is_empty());
        let beside = Mutex::new(Beside { fenced, ..Beside::default() });
        let until = watch::Sender::new(Instant::now() + left);
        // The watchdog has another working directory.
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        Lease { until, uptime, folder, watchdog, is_kept, beside }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Instant> {
        self.until.subscribe()
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.until.borrow() <= Instant::now()
    }

    pub(crate) fn set(&self, until: Instant) {
        self.until.send_replace(until);
        if self.is_kept.load(Ordering::Relaxed) {
            self.write(until);
        }
    }

    /// Fences this container: it needs a lease from now on. Called before it is started, and again when its first
    /// process is known.
    pub(crate) fn hold(&self, container: &str, pid: i64) {
        let news = {
            let mut beside = self.beside.lock();
            let known = beside.fenced.get(container);
            if known.is_some_and(|known| known.pid == pid || pid == 0) {
                None
            } else {
                let started = self.watchdog.as_ref().and_then(|_| fence::started(pid));
                if pid > 0
                    && self.watchdog.is_some()
                    && started.is_none()
                    && !std::mem::replace(&mut beside.has_warned, true)
                {
                    warn!(
                        container,
                        "the processes of containers are not visible here: herder.fence holds only while herder and the engine \
                         run; give herder the host's process namespace"
                    );
                }
                let pid = if started.is_some() { pid } else { 0 };
                let fenced = Fenced { id: container.to_owned(), pid, started: started.unwrap_or_default() };
                beside.fenced.insert(container.to_owned(), fenced);
                Some(beside.fenced.values().cloned().collect::<Vec<_>>())
            }
        };
        news.into_iter().for_each(|fenced| self.write_fenced(&fenced));
        if !self.is_kept.swap(true, Ordering::Relaxed) {
            self.write(*self.until.borrow());
        }
    }

    /// The container has ended, or is gone.
    pub(crate) fn release(&self, container: &str) {
        let news = {
            let mut beside = self.beside.lock();
            beside.fenced.remove(container).map(|_| beside.fenced.values().cloned().collect::<Vec<_>>())
        };
        news.into_iter().for_each(|fenced| self.write_fenced(&fenced));
    }

    /// Releases all containers but these; others ended unnoticed.
    pub(crate) fn release_all_but(&self, there: &[String]) {
        let gone: Vec<String> = self.beside.lock().fenced.keys().filter(|id| !there.contains(id)).cloned().collect();
        gone.iter().for_each(|id| self.release(id));
    }

    fn write_fenced(&self, fenced: &[Fenced]) {
        if let Err(error) = blocking(|| fence::write_fenced(&self.folder, fenced)) {
            warn!(folder = %self.folder.display(), %error, "fenced containers are not guarded while herder does not run");
        }
    }

    fn write(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let watcher = self.watcher();
        let kept = StoredLease { until: (self.uptime.now)() + left, boot: self.uptime.boot.clone(), watcher };
        // Over what was there, all at once: a restart of the host makes it worthless anyway.
        let path = self.folder.join(LEASE_FILE);
        let written: io::Result<()> = blocking(|| {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            let text = kept.text();
            let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
            // Of a release before this one.
            if file.metadata()?.len() > length {
                file.set_len(length)?;
            }
            file.write_all_at(text.as_bytes(), 0)
        });
        if let Err(error) = written {
            warn!(path = %path.display(), %error, "cannot save the lease of fenced tasks for a restart");
        }
    }

    /// The process id of the watchdog, which is started if none runs; 0 if there is none.
    fn watcher(&self) -> u32 {
        let Some(watchdog) = &self.watchdog else { return 0 };
        let mut beside = self.beside.lock();
        if let Some(child) = &mut beside.child {
            match child.try_wait() {
                Ok(None) => return child.id(),
                ended => warn!(?ended, "the watchdog of fenced tasks has ended; another one is started"),
            }
        }
        let started = Command::new(&watchdog.program)
            .args(&watchdog.arguments)
            .arg(&self.folder)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // It must not end with what ends this program.
            .process_group(0)
            .spawn();
        match started {
            Ok(child) => {
                let id = child.id();
                info!(pid = id, "a watchdog holds the lease of fenced tasks");
                beside.child = Some(child);
                id
            }
            Err(error) => {
                warn!(%error, "no watchdog for fenced tasks: herder.fence holds only while herder and the engine run");
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_a_lease_outlives_the_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let began = Instant::now();
        let open = |boot: &str| Lease::of(folder.path(), Uptime::new(boot, move || began.elapsed()), None);
        assert!(open("b1").is_over());
        let lease = open("b1");
        lease.hold("0123456789ab", 0);
        lease.set(Instant::now() + Duration::from_secs(2));
        tokio::time::advance(Duration::from_millis(1900)).await;
        assert!(!open("b1").is_over());
        assert!(open("b2").is_over());
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(open("b1").is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_a_lease_is_kept_for_what_was_fenced_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let began = Instant::now();
        let open = || Lease::of(folder.path(), Uptime::new("b1", move || began.elapsed()), None);
        open().hold("0123456789ab", 0);
        let lease = open();
        lease.set(Instant::now() + Duration::from_secs(2));
        assert!(!open().is_over(), "it was written down before anybody knew of the task again");
        lease.release_all_but(&[]);
        assert!(fence::read_fenced(folder.path()).is_empty());
    }

    #[tokio::test]
    async fn a_watchdog_that_ends_is_started_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let watchdog = Watchdog { program: "true".into(), arguments: Vec::new() };
        let lease = Lease::of(folder.path(), Uptime::system(), Some(watchdog));
        lease.hold("0123456789ab", 0);
        let watcher = || {
            StoredLease::parse(&fs::read_to_string(folder.path().join(LEASE_FILE)).expect("written"))
                .map(|it| it.watcher)
        };
        let first = watcher();
        assert!(first.is_some_and(|pid| pid > 0));
        let again = async {
            while watcher() == first {
                tokio::time::sleep(Duration::from_millis(20)).await;
                lease.set(Instant::now() + Duration::from_secs(1));
            }
        };
        tokio::time::timeout(Duration::from_secs(10), again).await.expect("another one");
    }
}
