//! The program that consul-template's `-exec` runs. It starts when all files are there, and is signalled or restarted
//! when one changes.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::info;

use crate::signals::{TOLD, heeded_by_programs};

/// Time limit for the end of a program that was asked to end.
const KILL_TIME: Duration = Duration::from_secs(30);

/// Options of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// A shell command.
    pub command: String,
    /// Signal that is sent at a change; `None` restarts the program.
    pub reload: Option<Signal>,
    /// Signal that asks the program to end.
    pub kill: Signal,
    /// Time after `kill` until the program is killed.
    pub kill_timeout: Duration,
}

impl Exec {
    pub fn new(command: &str) -> Exec {
        Exec { command: command.to_owned(), reload: None, kill: Signal::TERM, kill_timeout: KILL_TIME }
    }
}

/// Returns the signal of this name, which may begin with `SIG`.
///
/// # Errors
/// If there is no such signal.
pub fn signal(name: &str) -> Result<Signal, String> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = TOLD.iter().find(|(it, _)| *it == short).map(|(_, it)| *it);
    known.ok_or_else(|| format!("{name:?} is no signal that a program is told by: write SIGHUP, SIGUSR1, SIGTERM …"))
}

/// The program while it runs.
#[derive(Debug)]
pub(crate) struct Running {
    exec: Exec,
    child: Child,
}

impl Running {
    pub(crate) fn start(exec: &Exec) -> std::io::Result<Running> {
        let mut command = Command::new("sh");
        command.args(["-c", &script(exec)]).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        heeded_by_programs()?;
        let child = command.spawn()?;
        info!(command = exec.command, "the program runs");
        Ok(Running { exec: exec.clone(), child })
    }

    /// Signals or restarts the program after a change.
    pub(crate) async fn reload(&mut self) -> std::io::Result<()> {
        match self.exec.reload {
            Some(signal) => {
                self.tell(signal);
                Ok(())
            }
            None => {
                self.end().await;
                *self = Running::start(&self.exec)?;
                Ok(())
            }
        }
    }

    /// Asks the program to end, and kills it at the time limit.
    pub(crate) async fn end(&mut self) {
        self.tell(self.exec.kill);
        if timeout(self.exec.kill_timeout, self.child.wait()).await.is_err() {
            self.tell(Signal::KILL);
            let _ = self.child.wait().await;
        }
    }

    /// Waits for the end of the program, and returns its exit code as a shell does.
    pub(crate) async fn ended(&mut self) -> u8 {
        self.child.wait().await.map_or(1, code)
    }

    /// Signals the program and all that it started.
    fn tell(&self, signal: Signal) {
        // One that has ended and was waited for has no id.
        if let Some(group) = self.child.id().and_then(|it| Pid::from_raw(i32::try_from(it).ok()?)) {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tell(Signal::KILL);
    }
}

/// The script of the shell that runs a command.
///
/// A single program gets the place of the shell. Otherwise the shell stays, and passes over the signals that are for what it runs; when it
/// is asked to end, it runs nothing after that.
fn script(exec: &Exec) -> String {
    let first = exec.command.split_whitespace().next().unwrap_or_default();
    if !exec.command.contains(['\n', ';', '&', '|', '(', ')', '{', '}', '`']) && !first.contains('=') {
        return format!("exec {}", exec.command);
    }
    let trap = |action: &str, signal: Signal| match signal {
        Signal::KILL => String::new(),
        signal => format!("trap '{action}' {}\n", signal.as_raw()),
    };
    let told = exec.reload.filter(|it| *it != exec.kill).map(|it| trap(":", it)).unwrap_or_default();
    format!("{told}{}{}", trap(&format!("exit {}", 128 + exec.kill.as_raw()), exec.kill), exec.command)
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|it| 128 + it)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_told_begun_anew_and_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lines");
        let script = folder.path().join("program");
        let text = format!(
            "#!/bin/sh\ntrap 'echo told >>{0}; exit 3' HUP\necho begun >>{0}\nwhile true; do sleep 0.02; done\n",
            path.display()
        );
        std::fs::write(&script, text).expect("written");
        let lines = || std::fs::read_to_string(&path).unwrap_or_default();
        let begun = async |count: usize| {
            while lines().matches("begun").count() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let mut running = Running::start(&Exec::new(&format!("sh {}", script.display()))).expect("it starts");
        begun(1).await;
        running.reload().await.expect("begun anew");
        begun(2).await;
        running.exec.reload = Some(Signal::HUP);
        running.reload().await.expect("told");
        assert_eq!(running.ended().await, 3);
        assert_eq!(lines(), "begun\nbegun\ntold\n");
        assert_eq!(Running::start(&Exec::new("sh -c 'kill -9 $$'")).expect("it starts").ended().await, 137);
    }

    #[tokio::test]
    async fn a_command_of_several_programs_is_told_and_ended_as_a_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("program");
        let text = "trap 'echo told >>lines' HUP\ntrap 'echo ends >>lines; exit 0' TERM\necho begun >>lines\n\
                    while true; do sleep 0.02; done\n";
        std::fs::write(&program, text).expect("written");
        let lines = || std::fs::read_to_string(folder.path().join("lines")).unwrap_or_default();
        let until = async |text: &str| {
            while !lines().contains(text) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let command =
            format!("cd {} && echo first >lines && sh ./program; echo after >>lines", folder.path().display());
        let mut running =
            Running::start(&Exec { reload: Some(Signal::HUP), ..Exec::new(&command) }).expect("it starts");
        until("begun").await;
        running.reload().await.expect("told");
        until("told").await;
        running.end().await;
        assert_eq!(lines(), "first\nbegun\ntold\nends\n");
        assert_eq!(Running::start(&Exec::new("A=3 sh -c 'exit $A'")).expect("it starts").ended().await, 3);
        assert_eq!(Running::start(&Exec::new("true && (exit 4)")).expect("it starts").ended().await, 4);
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(signal("SIGHUP"), Ok(Signal::HUP));
        assert_eq!(signal("usr1"), Ok(Signal::USR1));
        assert!(signal("SIGX").is_err());
    }
}
