//! Until when tasks may run that need to hear from managers. It outlives a restart of this program: what a node was promised
//! before is all it has after.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

/// How long the host has been up, which nobody sets; and which of its starts that was.
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
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Uptime::new(boot.trim(), || Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default())
    }
}

impl std::fmt::Debug for Uptime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Uptime({:?} of {:?})", (self.now)(), self.boot)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lease {
    until: watch::Sender<Instant>,
    uptime: Uptime,
    path: PathBuf,
    /// Something here depends on it: it is written down.
    is_kept: AtomicBool,
}

impl Lease {
    /// What is left of the one that was written down in this folder since the host started.
    pub(crate) fn of(folder: &Path, uptime: Uptime) -> Lease {
        let path = folder.join("lease");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let left = parse(&text, &uptime.boot).map(|until| until.saturating_sub((uptime.now)())).unwrap_or_default();
        Lease { until: watch::Sender::new(Instant::now() + left), uptime, path, is_kept: AtomicBool::new(false) }
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

    /// From now on it is written down.
    pub(crate) fn keep(&self) {
        if !self.is_kept.swap(true, Ordering::Relaxed) {
            self.write(*self.until.borrow());
        }
    }

    fn write(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let text = format(&self.uptime.boot, (self.uptime.now)() + left);
        // Over what was there, all at once: a restart of the host makes it worthless anyway.
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        let written: io::Result<()> = file.and_then(|file| file.write_all_at(text.as_bytes(), 0));
        if let Err(error) = written {
            warn!(path = %self.path.display(), %error, "the lease of fenced tasks is not kept over a restart");
        }
    }
}

/// Always of the same length.
fn format(boot: &str, until: Duration) -> String {
    format!("{:020} {boot}\n", until.as_millis())
}

fn parse(text: &str, boot: &str) -> Option<Duration> {
    let (millis, of) = text.trim_end().split_once(' ')?;
    (of == boot).then_some(Duration::from_millis(millis.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_read_as_it_was_written_and_only_of_this_start_of_the_host() {
        let text = format("b1", Duration::from_millis(1500));
        for (text, boot, expected) in [
            (text.as_str(), "b1", Some(1500)),
            (&text, "b2", None),
            (&text[..10], "b1", None),
            ("", "b1", None),
            ("x b1\n", "b1", None),
        ] {
            assert_eq!(parse(text, boot), expected.map(Duration::from_millis), "{text:?} {boot}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_a_lease_outlives_the_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let began = Instant::now();
        let open = |boot: &str| Lease::of(folder.path(), Uptime::new(boot, move || began.elapsed()));
        assert!(open("b1").is_over());
        let lease = open("b1");
        lease.keep();
        lease.set(Instant::now() + Duration::from_secs(2));
        tokio::time::advance(Duration::from_millis(1900)).await;
        assert!(!open("b1").is_over());
        assert!(open("b2").is_over());
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(open("b1").is_over());
    }
}
