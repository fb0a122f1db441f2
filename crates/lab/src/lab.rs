//! A lab as a whole: brought up, looked at, taken down.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::faults::{self, Slowness};
use crate::host::{Host, end_all};
use crate::plan::{self, HOSTS_MAX, Plan};
use crate::{image, shell};

/// Folder with all labs' disks.
const DISKS: &str = "/var/lib/herder-lab";

/// Specification of a lab.
#[derive(Clone, Debug, Default)]
pub struct LabSpec {
    pub name: String,
    pub hosts: u16,
    /// `h1:zone=a,disk=ssd`, or `zone=a` for every host.
    pub labels: Vec<String>,
    /// The memory that each engine shows, in bytes; the machine's own if none.
    pub memory_bytes: Option<u64>,
    /// More arguments for each dockerd.
    pub engine_args: Vec<String>,
    /// Variables in the environment of each dockerd.
    pub engine_env: Vec<(String, String)>,
    /// The program to run as `up` beside each engine, if any.
    pub herder: Option<PathBuf>,
    /// More arguments for it.
    pub herder_args: Vec<String>,
}

/// A lab that exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lab {
    plan: Plan,
    hosts: u16,
    labels: BTreeMap<u16, Vec<String>>,
    memory_bytes: Option<u64>,
    engine_args: Vec<String>,
    #[serde(default)]
    engine_env: Vec<(String, String)>,
    #[serde(default)]
    herder: Option<PathBuf>,
    #[serde(default)]
    herder_args: Vec<String>,
}

/// Present state of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostStatus {
    pub name: String,
    /// `up`, `engine down`, `engine hung`, `off`.
    pub state: &'static str,
    pub address: String,
    /// Value for `DOCKER_HOST`.
    pub docker_host: String,
    /// herder's own door, if it runs there.
    pub herder_host: Option<String>,
    pub labels: Vec<String>,
}

impl Lab {
    /// Brings a lab up. `progress` is told each thing that is done. What a failed start leaves, [`Lab::down_by_name`] removes.
    pub fn up(spec: &LabSpec, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Lab> {
        shell::check_machine()?;
        plan::check_name(&spec.name).map_err(anyhow::Error::msg)?;
        if !(1..=HOSTS_MAX).contains(&spec.hosts) {
            bail!("a lab has 1 to {HOSTS_MAX} hosts, not {}", spec.hosts);
        }
        if Path::new(&format!("{DISKS}/{}", spec.name)).exists() {
            bail!("the lab `{0}` exists; `herder lab down --name {0}` removes it, --name makes another", spec.name);
        }
        let labels = plan::labels(&spec.labels, spec.hosts).map_err(anyhow::Error::msg)?;
        let plan = Plan { name: spec.name.clone(), number: claim_number(&spec.name)? };
        let lab = Lab {
            plan,
            hosts: spec.hosts,
            labels,
            memory_bytes: spec.memory_bytes,
            engine_args: spec.engine_args.clone(),
            engine_env: spec.engine_env.clone(),
            herder: spec.herder.clone(),
            herder_args: spec.herder_args.clone(),
        };
        // Written first, so that an aborted start can be cleaned up.
        fs::write(lab.plan.state_file(), serde_json::to_vec_pretty(&lab)?)?;
        let tar = image::make(&lab.plan.disk())?;
        lab.switch_up().context("cannot make the switch")?;
        progress("the switch is up");
        lab.on_all_hosts(|host| {
            host.network_up()?;
            lab.boot_engine(host)?;
            image::load(&host.socket(), &tar)?;
            progress(&format!("{} is up", host.name()));
            Ok(())
        })?;
        // The first makes the pool that the others join.
        lab.herder_start(Host { plan: &lab.plan, number: 1 })?;
        lab.on_all_hosts(|host| if host.number > 1 { lab.herder_start(host) } else { Ok(()) })?;
        Ok(lab)
    }

    /// Brings a lab up after removing what an earlier one of that name left.
    pub fn ensure(spec: &LabSpec) -> anyhow::Result<Lab> {
        shell::check_machine()?;
        Lab::down_by_name(&spec.name)?;
        Lab::up(spec, &|_| {})
    }

    /// The lab of this name.
    pub fn open(name: &str) -> anyhow::Result<Lab> {
        plan::check_name(name).map_err(anyhow::Error::msg)?;
        let path = format!("{DISKS}/{name}/lab.json");
        let text = fs::read(&path)
            .with_context(|| format!("there is no lab `{name}`; `herder lab up --name {name}` makes it"))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{path} is damaged; `herder lab down --name {name}` cleans up"))
    }

    /// Removes everything of a lab: also what an aborted `up` or a crash left, and also if there is nothing.
    pub fn down_by_name(name: &str) -> anyhow::Result<()> {
        plan::check_name(name).map_err(anyhow::Error::msg)?;
        let number = Lab::open(name).map_or(0, |lab| lab.plan.number);
        let plan = Plan { name: name.to_owned(), number };
        let namespaces = shell::run(&["ip", "netns", "list"])?;
        let namespaces: Vec<&str> = namespaces
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|it| plan::is_of(name, it))
            .collect();
        for namespace in &namespaces {
            end_all(namespace)?;
        }
        for number in 1..=HOSTS_MAX {
            Host { plan: &plan, number }.remove_cgroups();
        }
        if namespaces.contains(&plan.switch().as_str()) {
            // Goes with the switch's end of the cable, too; here so that it is gone when this returns.
            let _ = shell::run(&["ip", "link", "del", &plan.uplink()]);
        }
        for namespace in &namespaces {
            shell::run(&["ip", "netns", "del", namespace])?;
        }
        for folder in [plan.run(), plan.disk()] {
            if Path::new(&folder).exists() {
                fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {folder}"))?;
            }
        }
        Ok(())
    }

    pub fn down(self) -> anyhow::Result<()> {
        Lab::down_by_name(&self.plan.name)
    }

    /// Names of all labs on this machine.
    pub fn names() -> Vec<String> {
        let entries = fs::read_dir(DISKS).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    pub fn name(&self) -> &str {
        &self.plan.name
    }

    pub fn host_count(&self) -> u16 {
        self.hosts
    }

    /// This machine's own address in the lab.
    pub fn gateway(&self) -> String {
        self.plan.gateway()
    }

    /// `tcp://10.231.0.11:2375` of `h1`.
    pub fn docker_host(&self, host: &str) -> anyhow::Result<String> {
        Ok(self.host(host)?.docker_host())
    }

    /// The engine's socket on this machine: it answers also when the host is cut off. `unix:///…/docker.sock`.
    pub fn engine_socket(&self, host: &str) -> anyhow::Result<String> {
        Ok(format!("unix://{}", self.host(host)?.socket()))
    }

    pub fn status(&self) -> Vec<HostStatus> {
        let status = |host: Host<'_>| {
            let state = match (host.init(), host.engine_pid()) {
                (None, _) => "off",
                (Some(_), None) => "engine down",
                (Some(_), Some(_)) if host.answers() => "up",
                (Some(_), Some(_)) => "engine hung",
            };
            HostStatus {
                name: host.name(),
                state,
                address: self.plan.address(host.number),
                docker_host: host.docker_host(),
                herder_host: host.herder_pid().map(|_| host.herder_host()),
                labels: self.labels_of(host.number),
            }
        };
        self.all_hosts().map(status).collect()
    }

    /// The engine dies at once; its containers stay.
    pub fn kill(&self, host: &str) -> anyhow::Result<()> {
        self.host(host)?.engine_kill()
    }

    /// Starts an engine that does not run; `arguments` are for this time only.
    pub fn start(&self, host: &str, arguments: &[String]) -> anyhow::Result<()> {
        let host = self.host(host)?;
        host.engine_start(&self.labels_of(host.number), &[&self.engine_args, arguments].concat(), &self.engine_env)
    }

    /// The engine hangs: its ports are open and nothing answers.
    pub fn pause(&self, host: &str) -> anyhow::Result<()> {
        self.host(host)?.engine_signal("-STOP")
    }

    pub fn resume(&self, host: &str) -> anyhow::Result<()> {
        self.host(host)?.engine_signal("-CONT")
    }

    /// Power off: the host falls silent, every process of it dies, its disk stays.
    pub fn crash(&self, host: &str) -> anyhow::Result<()> {
        let host = self.host(host)?;
        // First, so that nothing is heard of processes that die before others.
        faults::partition(&self.plan, host.number, false)?;
        host.power_off()
    }

    /// Power on after a crash.
    pub fn boot_again(&self, host: &str) -> anyhow::Result<()> {
        let host = self.host(host)?;
        if host.init().is_some() {
            bail!("{} is on", host.name());
        }
        faults::heal(&self.plan, host.number)?;
        self.boot(host)
    }

    /// Cuts a host off; `silent` keeps the cable in and drops every packet.
    pub fn partition(&self, host: &str, silent: bool) -> anyhow::Result<()> {
        faults::partition(&self.plan, self.host(host)?.number, silent)
    }

    /// Undoes [`Lab::partition`] and [`Lab::slow`], for one host or for all.
    pub fn heal(&self, host: Option<&str>) -> anyhow::Result<()> {
        match host {
            Some(host) => faults::heal(&self.plan, self.host(host)?.number),
            None => {
                faults::join(&self.plan);
                self.all_hosts().try_for_each(|host| faults::heal(&self.plan, host.number))
            }
        }
    }

    pub fn slow(&self, host: &str, slowness: &Slowness) -> anyhow::Result<()> {
        faults::slow(&self.plan, self.host(host)?.number, slowness)
    }

    /// The beginning of a command line that runs inside a host.
    pub fn enter(&self, host: &str) -> anyhow::Result<Vec<String>> {
        self.host(host)?.enter()
    }

    /// herder's process on a host dies at once; the engine goes on.
    pub fn kill_herder(&self, host: &str) -> anyhow::Result<()> {
        self.host(host)?.herder_kill()
    }

    /// herder on a host is asked to end, as `systemctl stop` does.
    pub fn stop_herder(&self, host: &str) -> anyhow::Result<()> {
        self.host(host)?.herder_stop()
    }

    /// Starts herder on a host where it does not run.
    pub fn start_herder(&self, host: &str) -> anyhow::Result<()> {
        self.herder_start(self.host(host)?)
    }

    /// Cuts the lab in two: these hosts on one side, the others on the other.
    pub fn split(&self, hosts: &[String]) -> anyhow::Result<()> {
        let side = hosts.iter().map(|host| Ok(self.host(host)?.number)).collect::<anyhow::Result<Vec<u16>>>()?;
        let other: Vec<u16> = (1..=self.hosts).filter(|number| !side.contains(number)).collect();
        if side.is_empty() || other.is_empty() {
            bail!("a lab of {} hosts cannot be split so; name some of them, not all", self.hosts);
        }
        faults::split(&self.plan, &side, &other)
    }

    fn herder_start(&self, host: Host<'_>) -> anyhow::Result<()> {
        let Some(program) = &self.herder else { return Ok(()) };
        let others: Vec<String> =
            self.all_hosts().filter(|it| it.number != host.number).map(|it| self.plan.address(it.number)).collect();
        // A host that is in the pool already comes back by its own certificate; a swarm has no join code of the pool.
        let token = match host.number {
            1 => None,
            _ if host.herder_state_exists() => None,
            // Nor does a swarm let in a host that lost its state: it begins a pool of its own.
            _ => Host { plan: &self.plan, number: 1 }.herder_token(program).ok(),
        };
        let knows = token.is_some() || host.herder_state_exists();
        let join = if knows { others } else { Vec::new() };
        host.herder_start(program, &join, token.as_deref(), &self.herder_args)
    }

    fn boot(&self, host: Host<'_>) -> anyhow::Result<()> {
        self.boot_engine(host)?;
        self.herder_start(host)
    }

    fn boot_engine(&self, host: Host<'_>) -> anyhow::Result<()> {
        host.power_on(self.memory_bytes)?;
        host.engine_start(&self.labels_of(host.number), &self.engine_args, &self.engine_env)
    }

    fn host(&self, text: &str) -> anyhow::Result<Host<'_>> {
        let number = plan::host_number(text, self.hosts).map_err(anyhow::Error::msg)?;
        Ok(Host { plan: &self.plan, number })
    }

    fn all_hosts(&self) -> impl Iterator<Item = Host<'_>> {
        (1..=self.hosts).map(|number| Host { plan: &self.plan, number })
    }

    fn labels_of(&self, number: u16) -> Vec<String> {
        self.labels.get(&number).cloned().unwrap_or_default()
    }

    /// Does the same on all hosts at the same time; returns the first failure.
    fn on_all_hosts(&self, work: impl Fn(Host<'_>) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
        thread::scope(|scope| {
            let work = &work;
            let started: Vec<_> = self.all_hosts().map(|host| (host, scope.spawn(move || work(host)))).collect();
            let outcomes = started.into_iter().map(|(host, thread)| {
                let outcome = thread.join().unwrap_or_else(|_| bail!("a thread panicked"));
                outcome.with_context(|| format!("cannot bring {} up", host.name()))
            });
            outcomes.collect::<Vec<_>>().into_iter().collect()
        })
    }

    /// Creates the switch: a bridge in a namespace of its own, since an engine's firewall would drop frames.
    fn switch_up(&self) -> anyhow::Result<()> {
        let (switch, uplink) = (self.plan.switch(), self.plan.uplink());
        shell::run(&["ip", "netns", "add", &switch])?;
        let off = "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 >$f; done";
        shell::run(&["ip", "netns", "exec", &switch, "sh", "-c", off])?;
        shell::run(&[
            "ip",
            "-n",
            &switch,
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "stp_state",
            "0",
            "mcast_snooping",
            "0",
        ])?;
        shell::run(&["ip", "-n", &switch, "link", "set", "br0", "up"])?;
        shell::run(&["ip", "link", "add", &uplink, "type", "veth", "peer", "name", "root", "netns", &switch])?;
        shell::run(&["ip", "-n", &switch, "link", "set", "root", "master", "br0", "up"])?;
        shell::run(&["ip", "addr", "add", &format!("{}/24", self.plan.gateway()), "dev", &uplink])?;
        shell::run(&["ip", "link", "set", &uplink, "up"]).map(drop)
    }
}

/// Takes the lowest number that no other lab has and whose addresses are not routed, with the lab's folder.
fn claim_number(name: &str) -> anyhow::Result<u16> {
    fs::create_dir_all(DISKS)?;
    let lock = fs::File::create("/run/herder-lab.lock")?;
    // Released when the file is closed, also by a crash.
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let taken: Vec<u16> =
        Lab::names().iter().filter_map(|name| Lab::open(name).ok()).map(|lab| lab.plan.number).collect();
    let routes = shell::run(&["ip", "-4", "route", "show", "table", "all"])?;
    let number = plan::free_number(&taken, &routes).map_err(anyhow::Error::msg)?;
    fs::create_dir_all(format!("{DISKS}/{name}"))?;
    let claim =
        serde_json::json!({"plan": {"name": name, "number": number}, "hosts": 0, "labels": {}, "engine_args": []});
    fs::write(format!("{DISKS}/{name}/lab.json"), claim.to_string())?;
    Ok(number)
}
