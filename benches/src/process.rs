//! The programs under test, ended with their handle.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::http::Connection;

/// Maximum time until all engines are read on a slow machine.
const READY_TIME_MAX: Duration = Duration::from_secs(120);
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// A program that stands beside this one in the target directory.
pub(crate) fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe()?;
    let path = me.parent().context("no folder")?.join(name);
    if !path.exists() {
        bail!("{} is missing; `cargo xtask bench` builds it", path.display());
    }
    Ok(path)
}

/// `herder manage`, on a free port of the loopback address.
#[derive(Debug)]
pub(crate) struct Herder {
    child: Child,
    pub addr: String,
    log: PathBuf,
}

impl Herder {
    /// `discovery` as on the command line; the log goes into `folder`.
    pub(crate) fn start(discovery: &str, folder: &Path, log_filter: &str) -> anyhow::Result<Herder> {
        // The port is free again when herder binds it; nothing else on this machine is that fast.
        let addr = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let log = folder.join("herder.log");
        let child = Command::new(sibling("herder")?)
            .args(["manage", "--host", &format!("tcp://{addr}"), discovery])
            .env("HERDER_LOG", log_filter)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start herder")?;
        Ok(Herder { child, addr, log })
    }

    /// Waits until that many nodes are healthy; how long it took.
    pub(crate) async fn ready(&self, nodes: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut seen = 0;
        while began.elapsed() < READY_TIME_MAX {
            if let Ok(mut connection) = Connection::open(&self.addr).await {
                let info = connection.call("GET", "/info", None).await?.to_string();
                seen = info.matches(r#""Healthy""#).count();
                if seen >= nodes {
                    return Ok(began.elapsed());
                }
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
        bail!("{seen} of {nodes} nodes are healthy after {READY_TIME_MAX:?}; the log says:\n{}", self.log_text()?);
    }

    pub(crate) fn log_text(&self) -> anyhow::Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }

    /// Megabytes of memory in use.
    pub(crate) fn memory_mb(&self) -> anyhow::Result<f64> {
        self.status("VmRSS:")
    }

    /// Most megabytes of memory since [`Herder::forget_peak`].
    pub(crate) fn peak_mb(&self) -> anyhow::Result<f64> {
        self.status("VmHWM:")
    }

    pub(crate) fn forget_peak(&self) -> anyhow::Result<()> {
        // See proc(5): 5 resets the peak.
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").context("cannot reset the peak of memory")
    }

    fn status(&self, field: &str) -> anyhow::Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)).context("herder has ended")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / 1e6)
    }
}

impl Drop for Herder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
