//! The program that answers DNS-01: it puts a text into a zone, and takes it out.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::Failed;

/// The program returns when the zone's servers have the text.
const HOOK_TIME_MAX: Duration = Duration::from_secs(300);
/// Bytes of a hook's output that an error shows.
const SAID_BYTES_MAX: usize = 500;

/// Calls `PROGRAM set|unset NAME VALUE`.
pub(crate) async fn call(program: &str, verb: &str, name: &str, value: &str) -> Result<(), Failed> {
    let mut command = Command::new(program);
    command.args([verb, name, value]).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(HOOK_TIME_MAX, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(Failed::refused(format!("the hook {program} cannot be started: {error}"))),
        Err(_) => return Err(Failed::refused(format!("the hook {program} {verb} did not end within 5 minutes"))),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said[..said.len().min(SAID_BYTES_MAX)]).trim().to_owned();
    Err(Failed::refused(format!("the hook {program} {verb} {name} failed ({}): {said}", output.status)))
}
