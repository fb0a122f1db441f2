//! Everything that may happen behind and around an ingress while clients use it. Such are updates, scaling, drained
//! nodes, lost leaders, restarts, lost hosts. Counts the requests, websockets and streams of gRPC that failed.
//!
//! Four hosts: three manage, two of these listen, and tasks run on all. The first leader does not listen, so that its loss and that of an
//! ingress are told apart.

mod load;
pub(crate) mod task;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use herder_lab::{Lab, LabSpec};
use tokio::process::Command;
use tokio::time::sleep;

use crate::note;
use crate::process::sibling;
use crate::report::{Goal, Report, Row, Times};
use load::{Load, Seen};

/// Port of the tasks.
const PORT: u16 = 8080;
/// Opcode of a websocket's close frame.
const CLOSE: u8 = 8;
/// Pause between two messages of a websocket or a stream.
const BEAT: Duration = Duration::from_millis(500);
const HOSTS: u16 = 4;
/// The hosts that listen.
const EDGES: [&str; 2] = ["h2", "h3"];
/// A host without an ingress and without a manager.
const WORKER: &str = "h4";
const LEADER: &str = "h1";
const REPLICAS: &str = "4";
/// Maximum time until everything is as declared.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(180);
const LOOK_PERIOD: Duration = Duration::from_millis(200);
/// Load before the first and after each thing that happens.
const REST: Duration = Duration::from_secs(5);
const SERVICES: [(&str, &str); 2] = [("web", "http"), ("grpc", "h2c")];

/// The lab. Dropped, it is removed.
struct Storm {
    lab: Arc<Lab>,
    name: String,
    /// Doors and addresses, in the order of the hosts.
    doors: Vec<String>,
    addresses: Vec<String>,
}

impl Drop for Storm {
    fn drop(&mut self) {
        note("taking the lab down");
        if let Err(error) = Lab::down_by_name(&self.name) {
            note(&format!("cannot remove the lab: {error:#}"));
        }
    }
}

pub(crate) async fn run(json: bool, name: String, rate: u32) -> anyhow::Result<()> {
    note(&format!("starting a lab of {HOSTS} hosts"));
    let spec = LabSpec { name: name.clone(), hosts: HOSTS, herder: Some(sibling("herder")?), ..LabSpec::default() };
    let lab = Arc::new(Lab::ensure(&spec)?);
    let hosts = lab.status();
    let doors = hosts.iter().filter_map(|it| it.herder_host.clone()).collect();
    let storm = Storm { doors, addresses: hosts.into_iter().map(|it| it.address).collect(), lab, name };
    storm.begin().await?;
    let edges = [storm.addresses[1].clone(), storm.addresses[2].clone()];
    let load = Load::start(&edges, rate);
    sleep(REST).await;
    let before = load.take();
    if before.times.is_empty() || before.messages == 0 {
        bail!("the load does not run: {:?}", before.failed);
    }
    let mut report = Report::new("storm", json, "none; no client may fail, save those that a lost process or host had");
    for what in Event::ALL {
        let began = Instant::now();
        storm.happen(what).await.with_context(|| format!("{what:?}"))?;
        sleep(REST).await;
        tell(&mut report, what, &load.take(), began.elapsed());
    }
    report.end();
    Ok(())
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Nothing,
    StopFirst,
    StartFirst,
    FewerTasks,
    Drain,
    LeaderKilled,
    IngressRestart,
    IngressKilled,
    HostLost,
}

impl Event {
    const ALL: [Event; 9] = [
        Event::Nothing,
        Event::StopFirst,
        Event::StartFirst,
        Event::FewerTasks,
        Event::Drain,
        Event::LeaderKilled,
        Event::IngressRestart,
        Event::IngressKilled,
        Event::HostLost,
    ];

    fn text(self) -> &'static str {
        match self {
            Event::Nothing => "nothing happens",
            Event::StopFirst => "rolling update, stop-first",
            Event::StartFirst => "rolling update, start-first",
            Event::FewerTasks => "scaled down and up",
            Event::Drain => "a node is drained",
            Event::LeaderKilled => "herder of the leader is killed",
            Event::IngressRestart => "herder of an ingress node restarts",
            Event::IngressKilled => "herder of an ingress node is killed",
            Event::HostLost => "a host loses power",
        }
    }

    /// The loss of a process or host may cost what it has under way.
    fn goal(self) -> Goal {
        if matches!(self, Event::IngressKilled | Event::HostLost) { Goal::None } else { Goal::Below(1.0) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of minutes")]
fn tell(report: &mut Report, what: Event, seen: &Seen, time: Duration) {
    let mut times: Times = seen.times.iter().copied().collect();
    let failed: u64 = seen.failed.values().sum();
    note(&format!(
        "{}: {} requests in {time:.1?}, {} failed, {} over a new connection; {} messages, {} moved; p50 {:.1} ms, p99 {:.1} ms, max {:.0} ms",
        what.text(),
        seen.times.len(),
        failed,
        seen.anew,
        seen.messages,
        seen.moved,
        times.ms(0.5),
        times.ms(0.99),
        times.ms(1.0)
    ));
    for (error, count) in seen.failed.iter().take(10) {
        note(&format!("  {count} x {error}"));
    }
    let row = |figure: &str, unit, measured, goal| Row {
        figure: format!("{}: {figure}", what.text()),
        unit,
        measured,
        baseline: None,
        goal,
    };
    report.row(row("failed", "", failed as f64, what.goal()));
    report.row(row("requests", "/s", seen.times.len() as f64 / time.as_secs_f64(), Goal::None));
    report.row(row("p99", "ms", times.ms(0.99), Goal::None));
}

impl Storm {
    async fn docker(&self, host: usize, line: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("docker").env("DOCKER_HOST", &self.doors[host]).args(line).output().await?;
        if !output.status.success() {
            bail!("docker {}: {}", line.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Asks until it holds. What fails meanwhile is asked again.
    async fn until(&self, host: usize, line: &[&str], holds: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let said = self.docker(host, line).await;
            if said.as_deref().is_ok_and(&holds) {
                return Ok(());
            }
            if began.elapsed() > SETTLE_TIME_MAX {
                bail!("docker {}: waited in vain; it says {said:?}", line.join(" "));
            }
            sleep(LOOK_PERIOD).await;
        }
    }

    /// All tasks run, and no others.
    async fn settled(&self, host: usize) -> anyhow::Result<()> {
        let full = |line: &str| line.split_once('/').is_some_and(|(runs, wanted)| runs == wanted);
        let all = |said: &str| said.lines().count() == SERVICES.len() && said.lines().all(full);
        self.until(host, &["service", "ls", "--format", "{{.Replicas}}"], all).await
    }

    async fn begin(&self) -> anyhow::Result<()> {
        self.docker(0, &["swarm", "init"]).await?;
        self.until(0, &["node", "ls", "-q"], |said| said.lines().count() == usize::from(HOSTS)).await?;
        self.docker(0, &["node", "promote", EDGES[0], EDGES[1]]).await?;
        let managers = ["node", "ls", "--format", "{{.ManagerStatus}}"];
        self.until(0, &managers, |said| said.matches("Reachable").count() == 2).await?;
        for edge in EDGES {
            self.docker(0, &["node", "update", "--label-add", "edge=true", edge]).await?;
        }
        let mut enable = Command::new(sibling("herder")?);
        enable.env("DOCKER_HOST", &self.doors[0]).args(["ingress", "enable", "--on", "node.labels.edge==true"]);
        if !enable.status().await?.success() {
            bail!("the ingress cannot be enabled");
        }
        let me = std::env::current_exe()?;
        let program = me.file_name().and_then(|it| it.to_str()).context("this program has no name")?;
        let folder = me.parent().context("this program is in no folder")?.display().to_string();
        let mounts = [("/lib", "/lib"), ("/lib64", "/lib64"), ("/usr", "/usr"), (folder.as_str(), "/storm")];
        let mounts = mounts.map(|(from, to)| format!("--mount=type=bind,source={from},target={to},readonly"));
        for (service, protocol) in SERVICES {
            let labels = [
                format!("--label=herder.http.host={service}.storm"),
                format!("--label=herder.http.port={PORT}"),
                // One that is spoken anyway needs no name.
                if protocol == "http" {
                    "--label=storm=1".into()
                } else {
                    format!("--label=herder.http.proto={protocol}")
                },
            ];
            let mut line = vec!["service", "create", "-d", "--no-resolve-image", "--name", service];
            line.extend(["--replicas", REPLICAS, "--update-monitor", "500ms", "--stop-grace-period", "3s"]);
            line.extend(mounts.iter().chain(&labels).map(String::as_str));
            let program = format!("/storm/{program}");
            line.extend(["busybox", program.as_str(), "storm-task"]);
            self.docker(0, &line).await?;
        }
        self.settled(0).await
    }

    async fn update(&self, order: &str) -> anyhow::Result<()> {
        for (service, _) in SERVICES {
            let line = ["service", "update", "-d", "--force", "--no-resolve-image", "--update-order", order, service];
            self.docker(0, &line).await?;
        }
        for (service, _) in SERVICES {
            let line = ["service", "inspect", service, "--format", "{{.UpdateStatus.State}}"];
            self.until(0, &line, |said| said == "completed").await?;
        }
        self.settled(0).await
    }

    async fn scale(&self, count: &str) -> anyhow::Result<()> {
        for (service, _) in SERVICES {
            self.docker(0, &["service", "scale", "-d", &format!("{service}={count}")]).await?;
        }
        self.settled(0).await?;
        // Those that leave are told by no replica count.
        for (service, _) in SERVICES {
            let line =
                ["service", "ps", service, "--filter", "desired-state=shutdown", "--format", "{{.CurrentState}}"];
            self.until(0, &line, |said| !said.contains("Running")).await?;
        }
        Ok(())
    }

    async fn ready(&self, host: usize, name: &str) -> anyhow::Result<()> {
        let line = ["node", "ls", "--format", "{{.Hostname}} {{.Status}}"];
        self.until(host, &line, |said| said.lines().any(|it| it.trim() == format!("{name} Ready"))).await
    }

    /// Herder of a host ends, and is there again at once, as under systemd.
    async fn restart(&self, host: &str, kill: bool) -> anyhow::Result<()> {
        let (lab, host) = (self.lab.clone(), host.to_owned());
        let again = move || {
            if kill {
                lab.kill_herder(&host)?
            } else {
                lab.stop_herder(&host)?
            }
            lab.start_herder(&host)
        };
        tokio::task::spawn_blocking(again).await?
    }

    async fn happen(&self, what: Event) -> anyhow::Result<()> {
        match what {
            Event::Nothing => sleep(REST).await,
            Event::StopFirst => self.update("stop-first").await?,
            Event::StartFirst => self.update("start-first").await?,
            Event::FewerTasks => {
                self.scale("1").await?;
                self.scale(REPLICAS).await?;
            }
            Event::Drain => {
                self.docker(0, &["node", "update", "--availability", "drain", WORKER]).await?;
                let line = ["node", "ps", WORKER, "--filter", "desired-state=running", "-q"];
                self.until(0, &line, str::is_empty).await?;
                self.settled(0).await?;
                self.docker(0, &["node", "update", "--availability", "active", WORKER]).await?;
                // So that it has tasks again.
                self.update("start-first").await?;
            }
            Event::LeaderKilled => {
                self.restart(LEADER, true).await?;
                self.ready(1, LEADER).await?;
                self.settled(1).await?;
            }
            Event::IngressRestart => {
                self.restart(EDGES[0], false).await?;
                self.ready(2, EDGES[0]).await?;
            }
            Event::IngressKilled => {
                self.restart(EDGES[1], true).await?;
                self.ready(1, EDGES[1]).await?;
            }
            Event::HostLost => {
                let lab = self.lab.clone();
                tokio::task::spawn_blocking(move || lab.crash(WORKER)).await??;
                let line = ["node", "ls", "--format", "{{.Hostname}} {{.Status}}"];
                self.until(1, &line, |said| said.contains(&format!("{WORKER} Down"))).await?;
                self.settled(1).await?;
            }
        }
        Ok(())
    }
}
