//! The swarm that has to bear it: hosts, doors, services, and what the engines say.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use herder_lab::{Lab, LabSpec};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::witness::{self, Written};
use crate::http::Connection;
use crate::note;
use crate::pool::API;
use crate::process::sibling;

const LAB: &str = "bench-failover";
const HOSTS: usize = 5;
const MANAGERS: usize = 3;
/// Two on each host.
const REPLICAS: usize = 10;
/// Number of services of one fenced task each: about one on each host.
const FENCED: usize = 5;
const LOOK_PERIOD: Duration = Duration::from_millis(10);
/// Maximum time of a door's answer before it is asked anew.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// Maximum time until everything is as declared.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(60);
/// Program that ends when it is stopped.
const PROGRAM: &str = r#"trap "exit 0" TERM; sleep 100000 & wait"#;
/// Writes down when it lives.
const BEATS: &str = r#"f=/beats/$SERVICE-$(hostname); while true; do cat /proc/uptime >>$f; sleep 0.05; done"#;

/// The lab and what is in it; its end removes it.
pub(super) struct Cluster {
    stage: Stage,
    hosts: Vec<Host>,
    round: usize,
    /// Folder in which containers record that they live.
    beats: tempfile::TempDir,
    /// Configs that were acknowledged: of this round, and one of each round before.
    fresh: Vec<String>,
    kept: Vec<String>,
}

struct Host {
    name: String,
    door: String,
    /// The engine's own socket.
    engine: String,
    /// Id of the node in the swarm.
    node: String,
}

/// The services of a round.
pub(super) struct Services {
    web: String,
    fenced: Vec<String>,
    ids: Vec<String>,
}

struct Stage(std::sync::Arc<Lab>);

impl Drop for Stage {
    fn drop(&mut self) {
        note("taking the lab down");
        if let Err(error) = Lab::down_by_name(LAB) {
            note(&format!("cannot remove the lab: {error:#}"));
        }
    }
}

/// One question at a door that may be away.
async fn ask(addr: &str, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let asked = async { Connection::open(addr).await?.call(method, &format!("{API}{path}"), body).await };
    timeout(ANSWER_TIME_MAX, asked).await.with_context(|| format!("{addr} does not answer"))?
}

impl Cluster {
    pub(super) async fn up() -> anyhow::Result<Cluster> {
        note(&format!("starting a lab of {HOSTS} hosts"));
        let spec = LabSpec {
            name: LAB.into(),
            hosts: u16::try_from(HOSTS)?,
            herder: Some(sibling("herder")?),
            ..LabSpec::default()
        };
        let stage = Stage(Lab::ensure(&spec)?.into());
        let mut hosts = Vec::new();
        for host in stage.0.status() {
            let door = host.herder_host.with_context(|| format!("herder does not run on {}", host.name))?;
            let door = door.trim_start_matches("tcp://").to_owned();
            hosts.push(Host { engine: stage.0.engine_socket(&host.name)?, name: host.name, door, node: String::new() });
        }
        let beats = tempfile::tempdir()?;
        let mut cluster = Cluster { stage, hosts, round: 0, beats, fresh: Vec::new(), kept: Vec::new() };
        cluster.begin().await?;
        Ok(cluster)
    }

    async fn begin(&mut self) -> anyhow::Result<()> {
        let first = self.hosts[0].door.clone();
        ask(&first, "POST", "/swarm/init", Some(&json!({"ListenAddr": "0.0.0.0:2377"}))).await?;
        let began = Instant::now();
        while ask(&first, "GET", "/nodes", None).await?.as_array().map_or(0, Vec::len) < HOSTS {
            in_time(began, "all hosts are nodes")?;
            sleep(LOOK_PERIOD).await;
        }
        let nodes = ask(&first, "GET", "/nodes", None).await?;
        for node in nodes.as_array().into_iter().flatten() {
            let name = node["Description"]["Hostname"].as_str().unwrap_or_default();
            if let Some(host) = self.hosts.iter_mut().find(|it| it.name == name) {
                host.node = node["ID"].as_str().unwrap_or_default().to_owned();
            }
        }
        for host in &self.hosts[1..MANAGERS] {
            let path = format!("/nodes/{}", host.node);
            let began = Instant::now();
            loop {
                let node = ask(&first, "GET", &path, None).await?;
                let mut spec = node["Spec"].clone();
                spec["Role"] = "manager".into();
                let path = format!("{path}/update?version={}", node["Version"]["Index"]);
                // Its version changes while it comes up.
                match ask(&first, "POST", &path, Some(&spec)).await {
                    Ok(_) => break,
                    Err(error) => in_time(began, &format!("a node is promoted ({error:#})"))?,
                }
            }
        }
        self.until_all_there().await
    }

    /// All nodes ready, all managers in reach, one of them the leader; said by every manager.
    async fn until_all_there(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let mut there = true;
            for host in &self.hosts[..MANAGERS] {
                let nodes = ask(&host.door, "GET", "/nodes", None).await.unwrap_or_default();
                let nodes: Vec<&Value> = nodes.as_array().into_iter().flatten().collect();
                let count = |is: &dyn Fn(&Value) -> bool| nodes.iter().filter(|it| is(it)).count();
                there &= count(&|it| it["Status"]["State"] == "ready") == HOSTS;
                there &= count(&|it| it["ManagerStatus"]["Reachability"] == "reachable") == MANAGERS;
                there &= count(&|it| it["ManagerStatus"]["Leader"] == true) == 1;
            }
            if there {
                return Ok(());
            }
            in_time(began, "all nodes are there")?;
            sleep(LOOK_PERIOD).await;
        }
    }

    /// New services, all running.
    pub(super) async fn declare(&mut self) -> anyhow::Result<Services> {
        self.round += 1;
        let spec = |name: &str, program: &str, fenced: bool, replicas: usize| {
            let labels = if fenced { json!({"herder.fence": "true"}) } else { json!({}) };
            json!({
                "Name": name, "Labels": labels,
                "Mode": {"Replicated": {"Replicas": replicas}},
                "TaskTemplate": {
                    "ContainerSpec": {
                        "Image": "busybox:latest", "Command": ["sh", "-c", program], "Env": [format!("SERVICE={name}")],
                        "StopGracePeriod": 1_000_000_000_i64,
                        "Mounts": [{"Type": "bind", "Source": self.beats.path(), "Target": "/beats"}],
                    },
                    "RestartPolicy": {"Condition": "any", "Delay": 0},
                },
            })
        };
        let mut services = Services {
            web: format!("web{}", self.round),
            fenced: (1..=FENCED).map(|number| format!("only{}x{number}", self.round)).collect(),
            ids: Vec::new(),
        };
        let door = self.hosts[0].door.clone();
        let mut specs = vec![spec(&services.web, PROGRAM, false, REPLICAS)];
        specs.extend(services.fenced.iter().map(|name| spec(name, BEATS, true, 1)));
        for spec in specs {
            let made = ask(&door, "POST", "/services/create", Some(&spec)).await?;
            services.ids.push(made["ID"].as_str().context("no id was answered")?.to_owned());
        }
        self.until_as_declared(&services).await?;
        Ok(services)
    }

    /// Everybody is there, and the engines run what is declared, no more.
    pub(super) async fn until_as_declared(&self, services: &Services) -> anyhow::Result<()> {
        self.until_all_there().await?;
        let began = Instant::now();
        loop {
            let mut running = Vec::new();
            for host in &self.hosts {
                running.extend(services_on(host).await?);
            }
            let count = |name: &str| running.iter().filter(|it| *it == name).count();
            let (web, fenced) = (count(&services.web), services.fenced.iter().map(|it| count(it)).collect::<Vec<_>>());
            if web == REPLICAS && fenced.iter().all(|it| *it == 1) && self.says_running(services).await {
                return Ok(());
            }
            in_time(began, &format!("all is as declared; on the engines are {web} and {fenced:?}"))?;
            sleep(LOOK_PERIOD).await;
        }
    }

    /// The managers say so, too.
    async fn says_running(&self, services: &Services) -> bool {
        let all = ask(&self.hosts[0].door, "GET", "/services?status=1", None).await.unwrap_or_default();
        let all: Vec<&Value> = all.as_array().into_iter().flatten().collect();
        services.ids.iter().all(|id| {
            let service = all.iter().find(|it| it["ID"].as_str() == Some(id));
            service.is_some_and(|it| it["ServiceStatus"]["RunningTasks"] == it["ServiceStatus"]["DesiredTasks"])
        })
    }

    pub(super) async fn leader(&self) -> anyhow::Result<usize> {
        let nodes = ask(&self.hosts[0].door, "GET", "/nodes", None).await?;
        let leads = |it: &&Value| it["ManagerStatus"]["Leader"] == true;
        let leader = nodes.as_array().into_iter().flatten().find(leads).context("nobody leads")?;
        let host = self.hosts.iter().position(|it| leader["ID"].as_str() == Some(&it.node));
        host.context("a stranger leads")
    }

    pub(super) async fn follower(&self, number: usize) -> anyhow::Result<usize> {
        let leader = self.leader().await?;
        let followers: Vec<usize> = (0..MANAGERS).filter(|it| *it != leader).collect();
        Ok(followers[number % followers.len()])
    }

    pub(super) async fn worker(&self, number: usize) -> anyhow::Result<usize> {
        Ok(MANAGERS + number % (HOSTS - MANAGERS))
    }

    /// The door of a manager that stays.
    pub(super) fn door_besides(&self, victim: usize, number: usize) -> String {
        let managers: Vec<usize> = (0..MANAGERS).filter(|it| *it != victim).collect();
        self.hosts[managers[number % managers.len()]].door.clone()
    }

    /// Returns true if a fenced task is there.
    pub(super) async fn fenced_on(&self, host: usize) -> anyhow::Result<bool> {
        Ok(services_on(&self.hosts[host]).await?.iter().any(|it| it.starts_with("only")))
    }

    /// Containers of those that must never run twice, on all other hosts.
    pub(super) async fn fenced_besides(&self, victim: usize) -> anyhow::Result<BTreeSet<String>> {
        let mut there = BTreeSet::new();
        for (_, host) in self.hosts.iter().enumerate().filter(|(number, _)| *number != victim) {
            let fenced = containers_on(host).await?.into_iter().filter(|(service, _)| service.starts_with("only"));
            there.extend(fenced.map(|(_, id)| id));
        }
        Ok(there)
    }

    pub(super) fn crash(&self, host: usize) -> JoinHandle<anyhow::Result<()>> {
        let name = self.hosts[host].name.clone();
        self.does(move |lab| lab.crash(&name))
    }

    pub(super) fn cut(&self, host: usize, silent: bool) -> JoinHandle<anyhow::Result<()>> {
        let name = self.hosts[host].name.clone();
        self.does(move |lab| lab.partition(&name, silent))
    }

    pub(super) async fn boot(&self, host: usize) -> anyhow::Result<()> {
        let name = self.hosts[host].name.clone();
        self.does(move |lab| lab.boot_again(&name)).await?
    }

    pub(super) async fn heal(&self, host: usize) -> anyhow::Result<()> {
        let name = self.hosts[host].name.clone();
        self.does(move |lab| lab.heal(Some(&name))).await?
    }

    fn does(&self, work: impl FnOnce(&Lab) -> anyhow::Result<()> + Send + 'static) -> JoinHandle<anyhow::Result<()>> {
        let lab = self.stage.0.clone();
        tokio::task::spawn_blocking(move || work(&lab))
    }

    /// All tasks run on other hosts than this one, say the engines there.
    pub(super) async fn until_elsewhere(
        &self,
        services: &Services,
        victim: usize,
        began: Instant,
    ) -> anyhow::Result<Duration> {
        loop {
            if self.elsewhere(victim, &services.web).await? >= REPLICAS {
                return Ok(began.elapsed());
            }
            in_time(began, "the tasks of the victim run elsewhere")?;
            sleep(LOOK_PERIOD).await;
        }
    }

    pub(super) async fn until_fenced_elsewhere(
        &self,
        services: &Services,
        victim: usize,
        began: Instant,
    ) -> anyhow::Result<Duration> {
        for name in &services.fenced {
            while self.elsewhere(victim, name).await? == 0 {
                in_time(began, "the fenced tasks of the victim run elsewhere")?;
                sleep(LOOK_PERIOD).await;
            }
        }
        Ok(began.elapsed())
    }

    async fn elsewhere(&self, victim: usize, service: &str) -> anyhow::Result<usize> {
        let mut count = 0;
        for (_, host) in self.hosts.iter().enumerate().filter(|(number, _)| *number != victim) {
            count += services_on(host).await?.iter().filter(|it| *it == service).count();
        }
        Ok(count)
    }

    pub(super) async fn remove(&self, services: &Services) -> anyhow::Result<()> {
        for id in &services.ids {
            ask(&self.hosts[0].door, "DELETE", &format!("/services/{id}"), None).await?;
        }
        let began = Instant::now();
        for host in &self.hosts {
            while !services_on(host).await?.is_empty() {
                in_time(began, "removed services have ended")?;
                sleep(LOOK_PERIOD).await;
            }
        }
        Ok(())
    }

    pub(super) fn remember(&mut self, written: Written) {
        self.fresh = written.ids();
    }

    /// Checks that acknowledged writes are there, at every manager. All but one of the round are taken away then.
    pub(super) async fn writes_there(&mut self) -> anyhow::Result<Vec<String>> {
        let lost = self.lost(&self.fresh).await?;
        let mut fresh = std::mem::take(&mut self.fresh).into_iter();
        self.kept.extend(fresh.next());
        let mut door = Connection::open(&self.hosts[0].door).await?;
        for id in fresh {
            // One that was lost is not there.
            let _ = door.call("DELETE", &format!("{API}/configs/{id}"), None).await;
        }
        Ok(lost)
    }

    pub(super) async fn writes_kept(&self) -> anyhow::Result<Vec<String>> {
        self.lost(&self.kept).await
    }

    async fn lost(&self, written: &[String]) -> anyhow::Result<Vec<String>> {
        let mut lost = Vec::new();
        for host in &self.hosts[..MANAGERS] {
            let configs = ask(&host.door, "GET", "/configs", None).await?;
            let there: BTreeSet<&str> =
                configs.as_array().into_iter().flatten().filter_map(|it| it["ID"].as_str()).collect();
            let gone = written.iter().filter(|it| !there.contains(it.as_str()));
            lost.extend(
                gone.map(|id| format!("the config {id} was acknowledged and is not there, says {}", host.name)),
            );
        }
        Ok(lost)
    }

    pub(super) fn lived_twice(&self, _: &Services) -> anyhow::Result<Vec<String>> {
        let twice = witness::lived_twice(self.beats.path())?;
        for entry in std::fs::read_dir(self.beats.path())? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(twice)
    }
}

/// Names of services of the containers that run there, one for each.
async fn services_on(host: &Host) -> anyhow::Result<Vec<String>> {
    Ok(containers_on(host).await?.into_iter().map(|(service, _)| service).collect())
}

/// Services and ids of the containers that run there; says the engine, whether the host is cut off or not.
async fn containers_on(host: &Host) -> anyhow::Result<Vec<(String, String)>> {
    let began = Instant::now();
    let filters = "%7B%22label%22%3A%5B%22com.docker.swarm.service.name%22%5D%7D";
    loop {
        match ask(&host.engine, "GET", &format!("/containers/json?filters={filters}"), None).await {
            Ok(list) => {
                let containers = list.as_array().into_iter().flatten();
                let named = containers.filter_map(|it| {
                    let service = it["Labels"]["com.docker.swarm.service.name"].as_str()?;
                    Some((service.to_owned(), it["Id"].as_str()?.to_owned()))
                });
                return Ok(named.collect());
            }
            Err(error) => in_time(began, &format!("the engine of {} answers ({error:#})", host.name))?,
        }
        sleep(LOOK_PERIOD).await;
    }
}

fn in_time(began: Instant, what: &str) -> anyhow::Result<()> {
    if began.elapsed() > SETTLE_TIME_MAX {
        bail!("waited {SETTLE_TIME_MAX:?} in vain until {what}");
    }
    Ok(())
}
