//! Other programs: lookup, runs, and errors with their output.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Program → Debian package that has it.
const PROGRAMS: [(&str, &str); 9] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("dockerd", "docker.io"),
    ("busybox", "busybox-static"),
    ("tar", "tar"),
];

/// Refuses clearly where a lab cannot be.
pub(crate) fn check_machine() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("a lab needs root: it makes network namespaces and starts Docker Engines; run it with sudo");
    }
    let missing: Vec<(&str, &str)> = PROGRAMS.into_iter().filter(|(program, _)| find(program).is_none()).collect();
    if let Some((program, _)) = missing.first() {
        let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        bail!("the program `{program}` is missing; on Debian: apt-get install {}", packages.join(" "));
    }
    Ok(())
}

/// The path of a program, also where root's programs are.
pub(crate) fn find(program: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"]);
    folders.map(|folder| format!("{folder}/{program}")).find(|path| Path::new(path).is_file())
}

/// Runs a program to its end; what it printed. Fails with what it said.
pub(crate) fn run(line: &[&str]) -> anyhow::Result<String> {
    let (program, arguments) = line.split_first().context("an empty command")?;
    let path = find(program).unwrap_or_else(|| (*program).to_owned());
    let output = Command::new(path).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start `{program}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}", line.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a script of one program from its standard input (`nft -f -`).
pub(crate) fn feed(line: &[&str], input: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let (program, arguments) = line.split_first().context("an empty command")?;
    let path = find(program).unwrap_or_else(|| (*program).to_owned());
    let mut child = Command::new(path)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{program}`"))?;
    child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("`{}` failed: {}", line.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
