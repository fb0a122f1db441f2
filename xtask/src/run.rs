//! Starting other programs, with their output going where ours goes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// The root of the project. Cargo says it at run time: clones that share a target directory may share this program.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").context("no CARGO_MANIFEST_DIR; start this with `cargo xtask`")?;
    Ok(Path::new(&package).parent().context("xtask has no parent folder")?.to_path_buf())
}

/// Returns the folder of cargo's results.
pub(crate) fn target() -> anyhow::Result<PathBuf> {
    let line = ["metadata", "--format-version", "1", "--no-deps"];
    let output = Command::new(cargo_path()).args(line).stderr(Stdio::inherit()).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target directory")?.into())
}

pub(crate) fn cargo_path() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

pub(crate) fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    check(Command::new(cargo_path()).args(arguments))
}

/// Runs a command and waits for it. A failure is an error that names the command.
pub(crate) fn check(command: &mut Command) -> anyhow::Result<()> {
    let text = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {text}"))?;
    if !status.success() {
        bail!("{text} ended with {status}");
    }
    Ok(())
}

/// Runs to the end and gives what it printed; its complaints are shown.
pub(crate) fn read(command: &mut Command) -> anyhow::Result<String> {
    let text = format!("{command:?}");
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {text}"))?;
    if !output.status.success() {
        bail!("{text} ended with {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns an error where the disk of a folder has less free space than a run needs.
///
/// A run that fills the disk ends in errors that do not name the cause.
pub(crate) fn needs_space(folder: &Path, gib: u64) -> anyhow::Result<()> {
    let there = folder.ancestors().find(|it| it.exists()).unwrap_or(folder);
    let answer = read(Command::new("df").args(["--output=avail", "--block-size=1M"]).arg(there))?;
    let free: u64 = answer.lines().last().unwrap_or_default().trim().parse().context("df told no free space")?;
    if free < gib << 10 {
        bail!(
            "{} MiB are free on the disk of {}, and {gib} GiB are needed: remove results of earlier builds (cargo clean), or set \
             CARGO_TARGET_DIR to another disk",
            free,
            there.display()
        );
    }
    Ok(())
}
