//! Debian packages that tests and demo need: named before they are installed, and only those that are missing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::run;

/// Program → package, and what for.
pub(crate) type Packages = &'static [(&'static str, &'static str, &'static str)];

/// Packages for labs: hosts of network namespaces with real engines.
pub(crate) const LAB: Packages = &[
    ("/usr/sbin/dockerd", "docker.io", "real Docker Engines, and the docker client 20.10"),
    ("ip", "iproute2", "network namespaces"),
    ("iptables", "iptables", "what Docker Engines route with"),
    ("nft", "nftables", "overlay networks, and faults of the network"),
    ("busybox", "busybox-static", "the image of the lab"),
    ("curl", "curl", "a client of the API"),
    ("docker-compose", "docker-compose", "Compose 1.29"),
    ("script", "bsdutils", "a terminal for tests"),
];

/// Packages for the kernel's network tables alone.
pub(crate) const TABLES: Packages = &[
    ("ip", "iproute2", "links of a network namespace"),
    ("iptables", "iptables", "the chain of a Docker Engine"),
    ("nft", "nftables", "overlay networks"),
];

/// Packages for certificates of an authority on this machine.
pub(crate) const AUTHORITY: Packages = &[
    ("pebble", "pebble", "an authority that speaks ACME"),
    ("openssl", "openssl", "certificates, also wrong and expired ones"),
];

/// Packages that only measurements of networks need.
pub(crate) const LOAD: Packages = &[
    ("iperf3", "iperf3", "throughput of networks"),
    ("wrk", "wrk", "connections per second"),
    ("/usr/sbin/nginx", "nginx-light", "a server to be measured, and a proxy"),
    ("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream", "a proxy to be measured against"),
];

/// Packages that only tests need.
pub(crate) const TESTS: Packages = &[
    ("etcd", "etcd-server", "a discovery store"),
    ("/usr/share/zookeeper/bin/zkServer.sh", "zookeeper", "a discovery store"),
    ("/usr/sbin/haproxy", "haproxy", "a proxy whose file is rendered"),
    ("/usr/sbin/nginx", "nginx-light", "a proxy whose file is rendered"),
    ("node", "nodejs", "clients of the event bus"),
    ("npm", "npm", "clients of the event bus"),
    ("docker-registry", "docker-registry", "a registry to push to"),
    ("cfssl", "golang-cfssl", "an external CA"),
    ("faketime", "faketime", "a leader whose clock is wrong"),
    ("/usr/share/doc/python3-venv", "python3-venv", "a place for docker-py"),
];

/// Installs what is missing. Services that packages bring are not started.
pub(crate) fn ensure(lists: &[Packages]) -> anyhow::Result<()> {
    let missing: Vec<&(&str, &str, &str)> =
        lists.iter().copied().flatten().filter(|(program, ..)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let id = run::read(Command::new("id").arg("-u"))?;
    if id.trim() != "0" {
        bail!("root is needed for labs and to install packages; run this with sudo");
    }
    println!("These Debian packages are missing and will be installed:");
    for (_, package, reason) in &missing {
        println!("  {package:<16} {reason}");
    }
    let policy = NoServices::set()?;
    apt(&["update", "-qq"])?;
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    let names: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    apt(&[&install[..], &names[..]].concat())?;
    drop(policy);
    if let Some((program, package, _)) = missing.iter().find(|(program, ..)| !is_there(program)) {
        bail!("`{program}` is still missing after installing {package}");
    }
    Ok(())
}

/// Brings clients of the Docker API that Debian 12 does not have into the target directory.
pub(crate) fn ensure_clients() -> anyhow::Result<()> {
    println!("Compose v2 (Debian 13) and docker-py (PyPI) are brought into the target directory, once.");
    let cache = run::target()?.join("tmp/clients");
    run::check(Command::new("xtask/assets/fetch-clients.sh").arg(cache))
}

fn is_there(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    program.starts_with('/') && Path::new(program).exists()
        || !program.starts_with('/')
            && folders.map(|folder| format!("{folder}/{program}")).any(|path| Path::new(&path).exists())
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()).stdin(Stdio::null());
    run::check(&mut command).context("is this a Debian machine with access to its packages?")
}

/// Keeps packages from starting their services while it lives: the lab starts its own engines.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn set() -> anyhow::Result<NoServices> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(NoServices { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}
