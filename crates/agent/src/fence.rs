//! Watchdog that ends fenced containers at the end of the node's lease, independently of herder and the engine.
//!
//! It is a process of its own (`herder fence-watch`), started by the agent as soon as a fenced task is on the node. It reads two
//! files in the node's folder, `lease` and `fenced`, and kills the containers' processes itself: neither herder nor the engine nor
//! containerd has to answer. Leaders start a replacement no earlier than a second after the lease has run out
//! (`decide::swarm::members`).
//!
//! What it cannot do: see processes of containers in another process namespace (herder in a container without the host's), of an
//! engine on another host, or end what the kernel itself does not end.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The file with the time until which fenced containers may run.
pub(crate) const LEASE_FILE: &str = "lease";
/// The file with the containers that may not run without a lease.
const FENCED_FILE: &str = "fenced";
/// Interval at which an expired lease is enforced. A container that an engine starts late runs for no longer.
const KILL_PERIOD: Duration = Duration::from_millis(50);
/// Time for which the lease is enforced at that interval. An engine that hung carries out old calls when it is back.
const KILL_EAGERLY: Duration = Duration::from_secs(60);
/// Interval of enforcement afterwards.
const KILL_LAZILY_PERIOD: Duration = Duration::from_millis(250);
/// Maximum time until the lease names a new watchdog; after it the watchdog assumes that another one is active.
const NAMED_TIME_MAX: Duration = Duration::from_secs(5);
/// A container's id is long enough not to be found by chance in the name of a cgroup.
const ID_LENGTH_MIN: usize = 12;

/// Expiry of fenced containers as the agent writes it and the watchdog reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredLease {
    /// End of the lease as time since the host's start, time asleep included.
    pub(crate) until: Duration,
    /// The host's start ([`boot_id`]).
    pub(crate) boot: String,
    /// Process id of the watchdog in charge; 0 if there is none.
    pub(crate) watcher: u32,
}

impl StoredLease {
    /// Always of the same length for one boot id, so that it can be written over the one before.
    pub(crate) fn text(&self) -> String {
        let body = format!("{:020} {} {:010}", self.until.as_millis(), self.boot, self.watcher);
        format!("{body} {:08x}\n", checksum(&body))
    }

    /// Parses the file; `None` if it was read while it was being written.
    pub(crate) fn parse(text: &str) -> Option<StoredLease> {
        let text = text.trim_end();
        // A release before this one wrote neither a watcher nor a sum.
        let (body, is_whole) = match text.rsplit_once(' ') {
            Some((body, sum)) if body.contains(' ') => (body, sum == format!("{:08x}", checksum(body))),
            _ => (text, true),
        };
        let mut words = body.split(' ');
        let (millis, boot) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        let watcher = words.next().map_or(Some(0), |word| word.parse().ok())?;
        is_whole.then(|| StoredLease { until: Duration::from_millis(millis), boot, watcher })
    }
}

/// FNV-1a: a torn line is to be noticed, not an attack.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum: u32, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Returns the id of the host's present boot.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Returns the uptime of the host; time in which it sleeps counts.
pub(crate) fn boottime() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// A container that may not run without a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fenced {
    pub(crate) id: String,
    /// Its first process, with that process's start; 0: it is found by the container's cgroup only.
    pub(crate) pid: i64,
    pub(crate) started: u64,
}

/// Replaces the list as a whole.
pub(crate) fn write_fenced(folder: &Path, fenced: &[Fenced]) -> io::Result<()> {
    let mut text = String::new();
    for it in fenced {
        // Writing into a text cannot fail.
        let _ = writeln!(text, "{} {} {}", it.id, it.pid, it.started);
    }
    let fresh = folder.join("fenced.new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    fs::rename(fresh, folder.join(FENCED_FILE))
}

pub(crate) fn read_fenced(folder: &Path) -> Vec<Fenced> {
    let text = fs::read_to_string(folder.join(FENCED_FILE)).unwrap_or_default();
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let id = words.next().filter(|id| id.len() >= ID_LENGTH_MIN)?.to_owned();
        let mut number = || words.next().unwrap_or_default();
        Some(Fenced { id, pid: number().parse().unwrap_or(0), started: number().parse().unwrap_or(0) })
    };
    text.lines().filter_map(parse).collect()
}

/// Returns the start of a process in the kernel's ticks; `None` if it does not exist. It differs for a later process
/// with the same number.
pub(crate) fn started(pid: i64) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; the 20th field after it is the start.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Holds the lease in this folder, until the folder is gone or another watchdog is in charge.
pub fn watch(folder: &Path) -> io::Result<()> {
    // The last one that the kernel should choose when memory is short. Only root may say so.
    let _ = fs::write("/proc/self/oom_score_adj", "-999");
    let (me, began, boot) = (std::process::id(), boottime(), boot_id());
    let mut was_named = false;
    let mut until = None;
    loop {
        match fs::read_to_string(folder.join(LEASE_FILE)).as_deref().map(StoredLease::parse) {
            Ok(Some(kept)) if kept.boot != boot => return Ok(()),
            Ok(Some(kept)) => {
                was_named |= kept.watcher == me;
                if kept.watcher != me && (was_named || boottime() > began + NAMED_TIME_MAX) {
                    return Ok(());
                }
                until = Some(kept.until);
            }
            // It is being written, and is read again when the one before has run out.
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && boottime() > began + NAMED_TIME_MAX => {
                return Ok(());
            }
            Err(_) => {}
        }
        let now = boottime();
        let wake = match until {
            Some(until) if until > now => until.min(now + NAMED_TIME_MAX),
            Some(until) => {
                kill(&read_fenced(folder));
                let period = if now < until + KILL_EAGERLY { KILL_PERIOD } else { KILL_LAZILY_PERIOD };
                boottime() + period
            }
            None => now + KILL_PERIOD,
        };
        sleep_until(wake);
    }
}

/// Also comes right after the host has slept beyond that time.
fn sleep_until(time: Duration) {
    if let Ok(time) = Timespec::try_from(time) {
        // Interrupted by a signal, it is looked at again earlier.
        let _ = clock_nanosleep_absolute(ClockId::Boottime, &time);
    }
}

/// Ends all processes of these containers, and says how many there were.
fn kill(fenced: &[Fenced]) -> usize {
    if fenced.is_empty() {
        return 0;
    }
    let first = fenced.iter().filter(|it| it.pid > 0 && started(it.pid) == Some(it.started));
    let first = first.filter(|it| end(it.pid, |pid| started(pid) == Some(it.started))).count();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|it| it.file_name().to_str()?.parse::<i64>().ok());
    let is_inside = |pid: i64| {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        fenced.iter().any(|it| cgroups.contains(&it.id))
    };
    first + pids.filter(|pid| is_inside(*pid) && end(*pid, is_inside)).count()
}

/// Kills a process if it is still the one that is meant.
fn end(pid: i64, is_it: impl Fn(i64) -> bool) -> bool {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    match pidfd_open(number, PidfdFlags::empty()) {
        // The number cannot become another process's while this handle is open.
        Ok(process) => is_it(pid) && pidfd_send_signal(process, Signal::KILL).is_ok(),
        Err(rustix::io::Errno::NOSYS) => is_it(pid) && kill_process(number, Signal::KILL).is_ok(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Instant;

    use super::*;

    /// More than anything here may take.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_lease_is_read_as_it_was_written_and_never_half() {
        let kept = StoredLease { until: Duration::from_millis(1500), boot: "b1".into(), watcher: 7 };
        let text = kept.text();
        assert_eq!(StoredLease::parse(&text), Some(kept.clone()));
        let later = StoredLease { until: Duration::from_millis(2600), ..kept };
        assert_eq!(text.len(), later.text().len());
        for cut in 1..text.len() - 1 {
            let torn = format!("{}{}", &text[..cut], &later.text()[cut..]);
            let read = StoredLease::parse(&torn);
            assert!(read.is_none() || torn == text || torn == later.text(), "{torn} is taken for {read:?}");
        }
        let before = StoredLease { until: Duration::from_millis(9), boot: "b1".into(), watcher: 0 };
        assert_eq!(StoredLease::parse("00000000000000000009 b1\n"), Some(before), "of the release before");
        for nonsense in ["", "x b1\n", "00009"] {
            assert_eq!(StoredLease::parse(nonsense), None, "{nonsense:?}");
        }
    }

    /// A process that stands for a container's first.
    struct Program(Child);

    impl Program {
        fn start() -> (Program, Fenced) {
            let child = Command::new("sleep").arg("60").spawn().expect("sleep");
            let pid = i64::from(child.id());
            let id = format!("{pid:064}");
            let fenced = Fenced { id, pid, started: started(pid).expect("it runs") };
            (Program(child), fenced)
        }

        fn has_ended(&mut self) -> bool {
            self.0.try_wait().expect("ours").is_some()
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn write_lease(folder: &Path, left: Duration, watcher: u32) -> Duration {
        let until = boottime() + left;
        let kept = StoredLease { until, boot: boot_id(), watcher };
        fs::write(folder.join(LEASE_FILE), kept.text()).expect("written");
        until
    }

    #[test]
    fn what_is_fenced_ends_when_the_lease_does_and_not_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut program, fenced) = Program::start();
        let (mut other, _) = Program::start();
        // Another process has the number meanwhile.
        let (mut reused, mut stale) = Program::start();
        stale.started += 1;
        write_fenced(folder.path(), &[fenced, stale]).expect("written");
        write_lease(folder.path(), Duration::from_millis(300), std::process::id());
        let path = folder.path().to_owned();
        let watching = std::thread::spawn(move || watch(&path));
        std::thread::sleep(Duration::from_millis(150));
        assert!(!program.has_ended());
        // It is renewed, and holds.
        let until = write_lease(folder.path(), Duration::from_millis(500), std::process::id());
        std::thread::sleep(Duration::from_millis(300));
        assert!(!program.has_ended());
        let began = Instant::now();
        while !program.has_ended() {
            assert!(began.elapsed() < PATIENCE, "it still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(boottime() >= until, "it ended too early");
        assert!(!other.has_ended() && !reused.has_ended());
        // Another watchdog is in charge.
        write_lease(folder.path(), Duration::ZERO, 1);
        watching.join().expect("no panic").expect("read");
    }

    #[test]
    fn a_watchdog_ends_with_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        write_lease(folder.path(), Duration::ZERO, std::process::id());
        let path = folder.path().to_owned();
        let watching = std::thread::spawn(move || watch(&path));
        drop(folder);
        watching.join().expect("no panic").expect("read");
    }
}
