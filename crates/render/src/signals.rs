//! Signals that programs are told by, and their default actions in the programs that are started.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Signals that programs are told by, with their names.
pub(crate) const TOLD: [(&str, Signal); 8] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("TERM", Signal::TERM),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("WINCH", Signal::WINCH),
];

/// Gives programs that are started from now on the default actions of [`TOLD`].
///
/// A signal that is ignored, as SIGHUP under `nohup`, is ignored by started programs, too; one with a handler has its default action
/// there. So ignored signals get a handler that does nothing. The mask is std's to empty.
///
/// # Errors
/// If handlers cannot be set.
pub(crate) fn heeded_by_programs() -> io::Result<()> {
    let ignored = ignored()?;
    for (_, told) in TOLD.iter().filter(|(_, it)| ignored & bit(*it) != 0) {
        // The handler outlives its listener.
        drop(signal(SignalKind::from_raw(told.as_raw()))?);
    }
    Ok(())
}

/// Returns the signals that this process ignores, one bit for each.
fn ignored() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|it| it.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
    mask.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status names no ignored signals"))
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::*;

    /// Set in the process that ignores signals.
    const IGNORES: &str = "HERDER_TEST_IGNORES";
    const THIS: &str = "signals::tests::a_program_heeds_what_its_starter_ignores";

    #[tokio::test]
    async fn a_program_heeds_what_its_starter_ignores() {
        if std::env::var_os(IGNORES).is_none() {
            let mut again = Command::new("sh");
            again.args(["-c", "trap '' HUP USR1; exec \"$@\"", "sh"]);
            again.arg(std::env::current_exe().expect("a path")).args(["--exact", THIS]).env(IGNORES, "1");
            let output = again.output().await.expect("it starts");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let both = bit(Signal::HUP) | bit(Signal::USR1);
        assert_eq!(ignored().expect("readable") & both, both);
        let exec = |signal: &str| crate::child::Exec::new(&format!("sh -c 'kill -{signal} $$'"));
        for (name, code) in [("HUP", 129), ("USR1", 138), ("TERM", 143)] {
            let mut running = crate::child::Running::start(&exec(name)).expect("it starts");
            assert_eq!(running.ended().await, code, "{name}");
        }
        // The signal still does nothing to the starter.
        let pid = rustix::process::getpid();
        rustix::process::kill_process(pid, Signal::HUP).expect("sent");
    }
}
