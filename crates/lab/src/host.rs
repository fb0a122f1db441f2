//! One host: its network, its first process, its engine.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::plan::{ENGINE_PORT, HERDER_PORT, Plan};
use crate::{http, shell};

/// Maximum time of an engine's start on a busy machine.
const ENGINE_START_MAX: Duration = Duration::from_secs(60);
/// Maximum time for herder to join its pool.
const HERDER_START_MAX: Duration = Duration::from_secs(20);
/// Maximum time for the start of a host's first process.
const INIT_START_MAX: Duration = Duration::from_secs(10);
/// Maximum time for killed processes to end.
const END_TIME_MAX: Duration = Duration::from_secs(10);
/// Limit for an end in good order: an ingress lets its requests end before.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);
/// Interval of looks at the outside world: there is no event across namespaces.
const LOOK_PERIOD: Duration = Duration::from_millis(20);
/// Maximum time of a ping before the engine counts as hung.
const PING_TIME_MAX: Duration = Duration::from_secs(1);

/// Script of a host's first process: private mounts, then a wait. The rest of the host are its children, so that its
/// end is theirs.
const INIT: &str = r#"
set -e
hostname "$HOST"
mount -t proc proc /proc
mkdir -p /run/docker /etc/docker "$DISK/etc-docker" "$DISK/cgroup"
mount -t tmpfs -o mode=755 tmpfs /run/docker
mount --bind "$DISK/etc-docker" /etc/docker
touch /run/xtables.lock "$DISK/xtables.lock"
mount --bind "$DISK/xtables.lock" /run/xtables.lock
mount --rbind /sys/fs/cgroup "$DISK/cgroup"
mount -t sysfs sysfs /sys
mount --move "$DISK/cgroup" /sys/fs/cgroup
if [ -n "$MEMORY_KB" ]; then
  sed "s/^\(MemTotal\|MemFree\|MemAvailable\):.*/\1: $MEMORY_KB kB/" /proc/meminfo >"$DISK/meminfo"
  mount --bind "$DISK/meminfo" /proc/meminfo
fi
touch "$RUN/ready"
trap : TERM
while :; do sleep 3600 & wait $! || true; done
"#;

/// A host of a lab.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'p> {
    pub plan: &'p Plan,
    /// Number of the host, from 1.
    pub number: u16,
}

impl Host<'_> {
    pub(crate) fn name(&self) -> String {
        format!("h{}", self.number)
    }
    fn disk(&self) -> String {
        format!("{}/h{}", self.plan.disk(), self.number)
    }
    fn run(&self) -> String {
        format!("{}/h{}", self.plan.run(), self.number)
    }
    pub(crate) fn socket(&self) -> String {
        format!("{}/docker.sock", self.run())
    }
    pub(crate) fn docker_host(&self) -> String {
        format!("tcp://{}:{ENGINE_PORT}", self.plan.address(self.number))
    }

    /// Joins the host to the switch.
    pub(crate) fn network_up(&self) -> anyhow::Result<()> {
        let (namespace, switch) = (self.plan.namespace(self.number), self.plan.switch());
        let (port, address) = (self.plan.port(self.number), self.plan.address(self.number));
        shell::run(&["ip", "netns", "add", &namespace])?;
        shell::run(&["ip", "-n", &namespace, "link", "set", "lo", "up"])?;
        shell::run(&[
            "ip", "-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace,
        ])?;
        shell::run(&["ip", "-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
        shell::run(&["ip", "-n", &namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        shell::run(&["ip", "-n", &namespace, "link", "set", "eth0", "up"])?;
        shell::run(&["ip", "-n", &namespace, "route", "add", "default", "via", &self.plan.gateway()]).map(drop)
    }

    /// Starts the host's first process.
    pub(crate) fn power_on(&self, memory_bytes: Option<u64>) -> anyhow::Result<()> {
        let (disk, run) = (self.disk(), self.run());
        // What an earlier life left: a stale pid file would be taken for a live process.
        let _ = fs::remove_dir_all(&run);
        fs::create_dir_all(&run)?;
        fs::create_dir_all(format!("{disk}/data"))?;
        let log = File::create(format!("{disk}/init.log"))?;
        let net = format!("--net=/run/netns/{}", self.plan.namespace(self.number));
        let outer = Command::new(shell::find("nsenter").context("nsenter is missing")?)
            .args([&net, "unshare", "-m", "-u", "-i", "-p", "-f", "--kill-child=SIGKILL", "--propagation", "private"])
            .args(["bash", "-c", INIT])
            .env("HOST", self.name())
            .env("DISK", &disk)
            .env("RUN", &run)
            .env("MEMORY_KB", memory_bytes.map(|bytes| (bytes >> 10).to_string()).unwrap_or_default())
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .process_group(0)
            .spawn()
            .context("cannot start nsenter")?;
        let ready = format!("{run}/ready");
        await_that(INIT_START_MAX, || Path::new(&ready).exists()).with_context(|| {
            let log = fs::read_to_string(format!("{disk}/init.log")).unwrap_or_default();
            format!("{} did not come up: {}", self.name(), log.trim())
        })?;
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", outer.id()))?;
        let init = children.split_whitespace().next().context("the first process of the host is gone")?;
        fs::write(format!("{run}/init.pid"), init).map_err(Into::into)
    }

    /// The host's first process, if it lives.
    pub(crate) fn init(&self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(format!("{}/init.pid", self.run())).ok()?.trim().parse().ok()?;
        // A pid may belong to somebody else by now: ours is in this host's network namespace.
        pids_in(&self.plan.namespace(self.number)).contains(&pid).then_some(pid)
    }

    /// A command line that runs inside the host.
    pub(crate) fn enter(&self) -> anyhow::Result<Vec<String>> {
        let init =
            self.init().with_context(|| format!("{} is off; `lab boot {}` turns it on", self.name(), self.name()))?;
        let nsenter = shell::find("nsenter").context("nsenter is missing")?;
        let line = [nsenter, "-t".into(), init.to_string()];
        Ok(line.into_iter().chain(["-m", "-u", "-i", "-n", "-p", "--"].map(str::to_owned)).collect())
    }

    /// Starts the engine; returns when it answers.
    pub(crate) fn engine_start(
        &self,
        labels: &[String],
        arguments: &[String],
        env: &[(String, String)],
    ) -> anyhow::Result<()> {
        if self.engine_pid().is_some() {
            bail!("the engine of {} runs already", self.name());
        }
        let (disk, run) = (self.disk(), self.run());
        for stale in ["docker.sock", "docker.pid"] {
            let _ = fs::remove_file(format!("{run}/{stale}"));
        }
        let log = OpenOptions::new().create(true).append(true).open(format!("{disk}/dockerd.log"))?;
        let enter = self.enter()?;
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).arg(shell::find("dockerd").context("dockerd is missing")?);
        for (flag, value) in [
            ("--data-root", format!("{disk}/data")),
            ("--exec-root", format!("{run}/exec")),
            ("--pidfile", format!("{run}/docker.pid")),
            ("--bip", self.plan.bridge(self.number)),
            ("--default-address-pool", self.plan.pool(self.number)),
            ("--cgroup-parent", format!("/{}", self.plan.cgroup(self.number))),
            ("--insecure-registry", self.plan.subnet()),
            ("--shutdown-timeout", "2".into()),
            ("--host", format!("unix://{run}/docker.sock")),
        ] {
            command.arg(flag).arg(value);
        }
        if !arguments.iter().any(|argument| argument.starts_with("--tls")) {
            command.arg("--tls=false");
        }
        command.args(["--host", &self.docker_host()]);
        for label in labels {
            command.args(["--label", label]);
        }
        command.args(arguments).envs(env.iter().cloned());
        command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log).process_group(0);
        command.spawn().context("cannot start dockerd")?;
        await_that(ENGINE_START_MAX, || self.answers()).with_context(|| {
            let log = fs::read_to_string(format!("{disk}/dockerd.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(3).collect();
            format!("the engine of {} does not answer; its log ends with: {}", self.name(), tail.join(" | "))
        })
    }

    fn herder_state(&self) -> String {
        format!("{}/herder", self.disk())
    }

    pub(crate) fn herder_state_exists(&self) -> bool {
        Path::new(&self.herder_state()).exists()
    }

    /// Starts herder beside the engine; returns when its door answers.
    pub(crate) fn herder_start(
        &self,
        program: &Path,
        join: &[String],
        token: Option<&str>,
        arguments: &[String],
    ) -> anyhow::Result<()> {
        if self.herder_pid().is_some() {
            bail!("herder runs already on {}", self.name());
        }
        let (disk, run) = (self.disk(), self.run());
        let log = OpenOptions::new().create(true).append(true).open(format!("{disk}/herder.log"))?;
        let enter = self.enter()?;
        let mut command = Command::new(&enter[0]);
        let told = r#"echo $$ >"$RUN/herder.pid"; exec "$@""#;
        command.args(&enter[1..]).args(["sh", "-c", told, "sh"]).arg(program).arg("up").env("RUN", &run);
        let socket = format!("{run}/herder.sock");
        for (flag, value) in [
            ("--state", self.herder_state()),
            ("--socket", socket.clone()),
            ("--engine", format!("unix://{}", self.socket())),
            ("--advertise", self.plan.address(self.number)),
            ("--listen", self.herder_host()),
        ] {
            command.args([flag, &value]);
        }
        command.args(join.iter().flat_map(|address| ["--join", address]));
        // Arguments are shown to everybody by `ps`.
        command.envs(token.map(|token| ("HERDER_TOKEN", token)));
        command.args(arguments).stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log).process_group(0);
        command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let answers = || matches!(http::ask(&socket, "GET /_ping", &[], PING_TIME_MAX), Ok((200, _)));
        await_that(HERDER_START_MAX, answers).with_context(|| {
            let log = fs::read_to_string(format!("{disk}/herder.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(3).collect();
            format!("herder on {} does not answer; its log ends with: {}", self.name(), tail.join(" | "))
        })
    }

    /// The join code of the pool of this host's herder.
    pub(crate) fn herder_token(&self, program: &Path) -> anyhow::Result<String> {
        let program = program.to_str().context("the program's path is no text")?;
        Ok(shell::run(&[program, "token", "--state", &self.herder_state()])?.trim().to_owned())
    }

    pub(crate) fn herder_host(&self) -> String {
        format!("tcp://{}:{HERDER_PORT}", self.plan.address(self.number))
    }

    /// herder's pid inside the host, if it lives.
    pub(crate) fn herder_pid(&self) -> Option<String> {
        let pid = fs::read_to_string(format!("{}/herder.pid", self.run())).ok()?.trim().to_owned();
        // One that was killed and that nobody has waited for yet does not live: what started it may itself be stopped.
        let alive = self.in_host(&["grep", "-q", "^State:.[^ZX]", &format!("/proc/{pid}/status")]);
        alive.is_ok().then_some(pid)
    }

    /// Kills herder at once and waits until it is gone.
    pub(crate) fn herder_kill(&self) -> anyhow::Result<()> {
        let pid = self.herder_pid().with_context(|| format!("herder does not run on {}", self.name()))?;
        self.signal_pid(&pid, "-KILL")?;
        await_that(END_TIME_MAX, || self.herder_pid().is_none()).context("herder does not end")
    }

    /// Asks herder to end, and waits until it has.
    pub(crate) fn herder_stop(&self) -> anyhow::Result<()> {
        let pid = self.herder_pid().with_context(|| format!("herder does not run on {}", self.name()))?;
        self.signal_pid(&pid, "-TERM")?;
        await_that(STOP_TIME_MAX, || self.herder_pid().is_none()).context("herder does not end")
    }

    /// True if the engine answers in time.
    pub(crate) fn answers(&self) -> bool {
        matches!(http::ask(&self.socket(), "GET /_ping", &[], PING_TIME_MAX), Ok((200, _)))
    }

    /// The engine's pid inside the host, if it lives.
    pub(crate) fn engine_pid(&self) -> Option<String> {
        let pid = fs::read_to_string(format!("{}/docker.pid", self.run())).ok()?.trim().to_owned();
        // One that was killed and that nobody has waited for yet does not live: what started it may itself be stopped.
        let alive = self.in_host(&["grep", "-q", "^State:.[^ZX]", &format!("/proc/{pid}/status")]);
        alive.is_ok().then_some(pid)
    }

    /// Sends the engine a signal.
    pub(crate) fn engine_signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.engine_pid().with_context(|| format!("the engine of {} does not run", self.name()))?;
        self.signal_pid(&pid, signal)
    }

    fn signal_pid(&self, pid: &str, signal: &str) -> anyhow::Result<()> {
        self.in_host(&["kill", signal, pid])
    }

    fn in_host(&self, command: &[&str]) -> anyhow::Result<()> {
        let enter = self.enter()?;
        let line: Vec<&str> = enter.iter().map(String::as_str).chain(command.iter().copied()).collect();
        shell::run(&line).map(drop)
    }

    /// Kills the engine at once and waits until it is gone.
    pub(crate) fn engine_kill(&self) -> anyhow::Result<()> {
        self.engine_signal("-KILL")?;
        await_that(END_TIME_MAX, || self.engine_pid().is_none()).context("the engine does not end")
    }

    /// Pulls the plug: every process of the host ends at once; its disk stays.
    pub(crate) fn power_off(&self) -> anyhow::Result<()> {
        end_all(&self.plan.namespace(self.number))?;
        let _ = fs::remove_dir_all(self.run());
        Ok(())
    }

    /// Takes away what is left of a host that is off.
    pub(crate) fn remove_cgroups(&self) {
        let name = self.plan.cgroup(self.number);
        let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for controller in controllers {
            remove_tree_of_cgroups(&controller.path().join(&name));
        }
        remove_tree_of_cgroups(&Path::new("/sys/fs/cgroup").join(&name));
    }
}

/// cgroups are removed from the leaves up; the files in them go along.
fn remove_tree_of_cgroups(path: &Path) {
    for child in fs::read_dir(path).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree_of_cgroups(&child.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// Processes whose network namespace this is.
pub(crate) fn pids_in(namespace: &str) -> Vec<u32> {
    let output = shell::run(&["ip", "netns", "pids", namespace]).unwrap_or_default();
    output.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Ends every process of a namespace that a lab made.
pub(crate) fn end_all(namespace: &str) -> anyhow::Result<()> {
    let ended = await_that(END_TIME_MAX, || {
        let pids = pids_in(namespace);
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            // One that ended by itself is what is wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
        pids.is_empty()
    });
    ended.with_context(|| format!("processes in {namespace} do not end"))
}

/// Looks again and again until something holds, or the time is over.
pub(crate) fn await_that(limit: Duration, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    while !holds() {
        if started.elapsed() > limit {
            bail!("not within {limit:?}");
        }
        std::thread::sleep(LOOK_PERIOD);
    }
    Ok(())
}
