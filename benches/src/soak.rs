//! Benchmark of managers after long churn: memory, open files and threads of each herder, before and after. Three
//! managers in a lab; services are made, scaled, updated and removed, configs come and go, and now and then the leader
//! is started anew.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use herder_lab::{Lab, LabSpec};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::http::Connection;
use crate::note;
use crate::pool::API;
use crate::process::sibling;
use crate::report::{Goal, Report, Row};

const LAB: &str = "bench-soak";
const HOSTS: u16 = 3;
/// Services that are there at the same time.
const SERVICES: usize = 12;
/// Maximum time to come to rest before a measurement: idle connections and old cache entries are dropped.
const REST: Duration = Duration::from_secs(45);
/// Interval of looks at memory meanwhile.
const SAMPLE_PERIOD: Duration = Duration::from_secs(30);
/// The churn after which the beginning is measured: what is filled once (caches, pools of memory) is no leak.
const WARM_UP: Duration = Duration::from_secs(60);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Maximum growth at the end.
const GROWTH_MAX: f64 = 1.10;

struct Stage(Lab);

impl Drop for Stage {
    fn drop(&mut self) {
        note("taking the lab down");
        if let Err(error) = Lab::down_by_name(LAB) {
            note(&format!("cannot remove the lab: {error:#}"));
        }
    }
}

/// Resources that one herder holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    resident_kb: u64,
    files: u64,
    threads: u64,
}

pub(crate) async fn run(json: bool, minutes: u64) -> anyhow::Result<()> {
    note(&format!("starting a lab of {HOSTS} hosts"));
    let spec = LabSpec { name: LAB.into(), hosts: HOSTS, herder: Some(sibling("herder")?), ..LabSpec::default() };
    let stage = Stage(Lab::ensure(&spec)?);
    let doors: Vec<String> = stage.0.status().into_iter().filter_map(|it| it.herder_host).collect();
    let doors: Vec<String> = doors.iter().map(|it| it.trim_start_matches("tcp://").to_owned()).collect();
    begin(&doors[0]).await?;
    let mut churn = Churn { doors, number: 0 };
    churn.go_on(WARM_UP, &stage.0).await?;
    churn.clear().await?;
    sleep(REST).await;
    let before = held(&stage.0)?;
    churn.go_on(Duration::from_secs(minutes * 60), &stage.0).await?;
    churn.clear().await?;
    sleep(REST).await;
    let after = held(&stage.0)?;
    let mut report = Report::new("soak", json, "the same herder after a minute of churn");
    for (host, after) in &after {
        let before = before.get(host).copied().unwrap_or_default();
        let figures = [
            ("resident memory", "kB", before.resident_kb, after.resident_kb),
            ("open files", "", before.files, after.files),
            ("threads", "", before.threads, after.threads),
        ];
        for (figure, unit, before, after) in figures {
            #[expect(clippy::cast_precision_loss, reason = "no herder holds 2^52 kB")]
            let (measured, baseline) = (after as f64, before as f64);
            let goal = Goal::RatioAtMost(GROWTH_MAX);
            report.row(Row { figure: format!("{host}: {figure}"), unit, measured, baseline: Some(baseline), goal });
        }
    }
    report.end();
    Ok(())
}

async fn ask(addr: &str, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let asked = async { Connection::open(addr).await?.call(method, &format!("{API}{path}"), body).await };
    timeout(ANSWER_TIME_MAX, asked).await.with_context(|| format!("{addr} does not answer"))?
}

/// All hosts are managers of one swarm.
async fn begin(first: &str) -> anyhow::Result<()> {
    ask(first, "POST", "/swarm/init", Some(&json!({"ListenAddr": "0.0.0.0:2377"}))).await?;
    let began = Instant::now();
    loop {
        let nodes = ask(first, "GET", "/nodes", None).await?;
        let nodes = nodes.as_array().cloned().unwrap_or_default();
        let workers: Vec<&Value> = nodes.iter().filter(|it| it["Spec"]["Role"] == "worker").collect();
        if nodes.len() == usize::from(HOSTS) && workers.is_empty() {
            return Ok(());
        }
        for node in workers {
            let mut spec = node["Spec"].clone();
            spec["Role"] = "manager".into();
            let id = node["ID"].as_str().unwrap_or_default();
            // Refused while the node is written by somebody else; then it is tried again.
            let path = format!("/nodes/{id}/update?version={}", node["Version"]["Index"]);
            let _ = ask(first, "POST", &path, Some(&spec)).await;
        }
        if began.elapsed() > Duration::from_secs(60) {
            bail!("not all hosts are managers: {nodes:?}");
        }
        sleep(Duration::from_millis(200)).await;
    }
}

struct Churn {
    doors: Vec<String>,
    number: usize,
}

impl Churn {
    async fn go_on(&mut self, time: Duration, lab: &Lab) -> anyhow::Result<()> {
        let (began, mut sampled) = (Instant::now(), Instant::now());
        while began.elapsed() < time {
            let number = self.number;
            self.number += 1;
            // What is refused (a name that is taken, a version that is old) is part of it.
            if let Err(error) = self.step(number).await {
                note(&format!("step {number}: {error:#}"));
                sleep(Duration::from_millis(500)).await;
            }
            if sampled.elapsed() > SAMPLE_PERIOD {
                sampled = Instant::now();
                note(&format!("after {:.0?}, {} steps: {:?}", began.elapsed(), self.number, held(lab)?));
            }
        }
        Ok(())
    }

    fn door(&self, number: usize) -> &str {
        &self.doors[number % self.doors.len()]
    }

    async fn step(&self, number: usize) -> anyhow::Result<()> {
        let (door, name) = (self.door(number), format!("soak-{}", number % SERVICES));
        let config = json!({"Name": format!("soak-{number}"), "Data": "eA=="});
        let made = ask(door, "POST", "/configs/create", Some(&config)).await?;
        ask(door, "DELETE", &format!("/configs/{}", made["ID"].as_str().unwrap_or_default()), None).await?;
        let replicas = number % 4;
        let container = json!({"Image": "busybox", "Command": ["sleep", "1000"], "Env": [format!("STEP={}", number / 3)],
            "StopGracePeriod": 0});
        let spec = json!({"Name": name, "Mode": {"Replicated": {"Replicas": replicas}},
            "TaskTemplate": {"ContainerSpec": container, "RestartPolicy": {"Delay": 0}}});
        let filters = format!("%7B%22name%22%3A%5B%22{name}%22%5D%7D");
        let found = ask(door, "GET", &format!("/services?filters={filters}"), None).await?;
        let found = found.as_array().and_then(|all| all.iter().find(|it| it["Spec"]["Name"] == name.as_str()).cloned());
        match found {
            None => drop(ask(door, "POST", "/services/create", Some(&spec)).await?),
            Some(it) if number.is_multiple_of(7) => {
                ask(door, "DELETE", &format!("/services/{}", it["ID"].as_str().unwrap_or_default()), None).await?;
            }
            Some(it) => {
                let (id, version) = (it["ID"].as_str().unwrap_or_default(), &it["Version"]["Index"]);
                ask(door, "POST", &format!("/services/{id}/update?version={version}"), Some(&spec)).await?;
            }
        }
        // What people look at meanwhile.
        ask(self.door(number + 1), "GET", "/tasks", None).await?;
        ask(self.door(number + 2), "GET", "/containers/json?all=1", None).await?;
        Ok(())
    }

    async fn clear(&self) -> anyhow::Result<()> {
        let services = ask(&self.doors[0], "GET", "/services", None).await?;
        for service in services.as_array().into_iter().flatten() {
            let id = service["ID"].as_str().unwrap_or_default();
            ask(&self.doors[0], "DELETE", &format!("/services/{id}"), None).await?;
        }
        Ok(())
    }
}

/// Returns the resources of each host's herder now.
fn held(lab: &Lab) -> anyhow::Result<BTreeMap<String, Held>> {
    let script = r#"p=$(cat /run/herder-lab/LAB/HOST/herder.pid); grep -E "VmRSS|Threads" /proc/$p/status; ls /proc/$p/fd | wc -l"#;
    let mut all = BTreeMap::new();
    for host in lab.status() {
        let script = script.replace("LAB", LAB).replace("HOST", &host.name);
        let output = Command::new(sibling("herder")?)
            .args(["lab", "exec", "--name", LAB, &host.name, "sh", "-c", &script])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let number = |key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_default()
        };
        let files = text.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or_default();
        let held = Held { resident_kb: number("VmRSS:"), files, threads: number("Threads:") };
        if held.resident_kb == 0 {
            bail!("herder does not run on {}: {text}", host.name);
        }
        all.insert(host.name, held);
    }
    Ok(all)
}
