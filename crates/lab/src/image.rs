//! The image that every host of a lab has: busybox, made from the machine's own program, without a registry.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::{http, shell};

/// An import takes a second; a machine that is busy takes longer.
const IMPORT_TIME_MAX: Duration = Duration::from_secs(60);

/// The image as a tar file in `folder`, made once.
pub(crate) fn make(folder: &str) -> anyhow::Result<Vec<u8>> {
    let tar = format!("{folder}/busybox.tar");
    if !Path::new(&tar).exists() {
        let root = format!("{folder}/busybox-root");
        fs::create_dir_all(&root)?;
        fill(Path::new(&root)).context("cannot make the busybox image")?;
        let part = format!("{tar}.part");
        shell::run(&["tar", "-C", &root, "--numeric-owner", "--owner=0", "--group=0", "-cf", &part, "."])?;
        fs::rename(&part, &tar)?;
        fs::remove_dir_all(&root)?;
    }
    fs::read(&tar).with_context(|| format!("cannot read {tar}"))
}

fn fill(root: &Path) -> anyhow::Result<()> {
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    for folder in ["bin", "etc", "root", "dev", "proc", "sys", "var", "usr/bin", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    let busybox = shell::find("busybox").context("busybox is missing")?;
    fs::copy(&busybox, root.join("bin/busybox"))?;
    for applet in shell::run(&["busybox", "--list"])?.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    Ok(())
}

/// Gives the image to an engine, unless it has one of that name.
pub(crate) fn load(socket: &str, tar: &[u8]) -> anyhow::Result<()> {
    if http::ask(socket, "GET /images/busybox:latest/json", &[], IMPORT_TIME_MAX)?.0 == 200 {
        return Ok(());
    }
    let request = "POST /images/create?fromSrc=-&repo=busybox&tag=latest&changes=CMD+%5B%22sh%22%5D";
    match http::ask(socket, request, tar, IMPORT_TIME_MAX)? {
        (200, body) if !body.contains("errorDetail") => Ok(()),
        (status, body) => bail!("the engine refused the busybox image: {status} {body}"),
    }
}
