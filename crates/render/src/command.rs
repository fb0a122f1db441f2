//! Commands of templates: bounded in time and in output.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::Order;
use crate::signals::heeded_by_programs;

/// Maximum bytes of a command's output for the log.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

/// The shell in which a check names the staged file.
const STAGED: &str = "{{.src}}";

/// Says how a command ended.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("`{command}` cannot be started: {source}")]
    Start { command: String, source: std::io::Error },
    #[error("`{command}` took longer than {} s and was killed", .limit.as_secs_f64())]
    Late { command: String, limit: Duration },
    #[error("`{command}` ended with {status}: {output}")]
    Failed { command: String, status: String, output: String },
}

/// The command over the staged file.
pub(crate) fn check_of(check: &str, staged: &Path) -> Order {
    let mut command = check.to_owned();
    for form in [STAGED, "{{ .src }}"] {
        command = command.replace(form, &staged.display().to_string());
    }
    Order::Shell(command)
}

/// The command as text.
pub(crate) fn told(order: &Order) -> String {
    match order {
        Order::Shell(text) => text.clone(),
        Order::Program(words) => words.join(" "),
    }
}

/// Runs a command to its end.
///
/// # Errors
/// Says how it failed, with what it said.
pub(crate) async fn run(order: &Order, limit: Duration) -> Result<(), CommandError> {
    let command = told(order);
    let mut program = match order {
        Order::Shell(text) => {
            let mut program = Command::new("sh");
            program.args(["-c", text]);
            program
        }
        Order::Program(words) => {
            let mut program = Command::new(words.first().map_or("", String::as_str));
            program.args(words.iter().skip(1));
            program
        }
    };
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let start = |source| CommandError::Start { command: command.clone(), source };
    // It may start a daemon.
    let mut child = heeded_by_programs().and_then(|()| program.spawn()).map_err(start)?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let output = tokio::spawn(async move { tokio::join!(said(out), said(err)) });
    let status = match timeout(limit, child.wait()).await {
        Ok(status) => status.map_err(start)?,
        Err(_) => {
            // With what it started.
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait().await;
            output.abort();
            return Err(CommandError::Late { command, limit });
        }
    };
    if status.success() {
        // A daemon that it started may hold the pipes for ever, and is heard to its end.
        drop(output);
        return Ok(());
    }
    let said = timeout(Duration::from_secs(1), output).await;
    let output = said.ok().and_then(Result::ok).map(|(out, err)| format!("{out}{err}")).unwrap_or_default();
    Err(CommandError::Failed { command, status: status.to_string(), output: output.trim().to_owned() })
}

async fn said(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(pipe) = pipe else { return String::new() };
    let mut kept = Vec::new();
    let mut pipe = pipe.take(OUTPUT_BYTES_MAX);
    let _ = pipe.read_to_end(&mut kept).await;
    // The rest is read and forgotten, so that the command does not wait.
    let mut rest = pipe.into_inner();
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}
