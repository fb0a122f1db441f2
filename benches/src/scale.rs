//! The real herder over a thousand engines that are none, thirty containers on each.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::http::{self, Connection};
use crate::note;
use crate::pool::id;
use crate::process::{Herder, sibling};
use crate::report::{Goal, Report, Row, Times};

const ENGINES: usize = 1_000;
const CONTAINERS: usize = 30;
const LISTS: usize = 300;
const CREATES: usize = 300;
/// Each engine costs a few connections on both sides.
const FILES: u64 = 20_000;
/// Time for what the start left to settle: every engine is read once, idle connections are closed.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// herder then tells how long each placement took.
const LOG_FILTER: &str = "error,herder_pool::pool=debug";

/// The process with the engines; ends when its standard input does.
struct Fakes {
    child: Child,
    addresses: Vec<String>,
}

impl Fakes {
    fn start() -> anyhow::Result<Fakes> {
        let mut child = Command::new(sibling("examples/fakes")?)
            .args([ENGINES.to_string(), CONTAINERS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the engines")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        Ok(Fakes { child, addresses: line.trim().split(',').map(str::to_owned).collect() })
    }
}

impl Drop for Fakes {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn run(json: bool) -> anyhow::Result<()> {
    raise_limit();
    note(&format!("starting {ENGINES} engines that are none"));
    let fakes = Fakes::start()?;
    let folder = tempfile::tempdir()?;
    let list = folder.path().join("engines");
    std::fs::write(&list, fakes.addresses.join("\n"))?;
    let herder = Herder::start(&format!("file://{}", list.display()), folder.path(), LOG_FILTER)?;
    let ready = herder.ready(ENGINES).await?;
    tokio::time::sleep(SETTLE_TIME).await;
    let mut report = Report::new("scale", json, "an engine of the thousand, asked directly, with its 30 containers");
    let row = |figure: &str, unit, measured, goal| Row { figure: figure.into(), unit, measured, baseline: None, goal };
    report.row(row("1,000 engines healthy after", "ms", ready.as_secs_f64() * 1e3, Goal::None));
    report.row(row("memory at rest", "MB", herder.memory_mb()?, Goal::Below(300.0)));
    lists(&herder, &fakes, &mut report).await?;
    creates(&herder, &fakes, &mut report).await?;
    report.row(row("memory after the load", "MB", herder.memory_mb()?, Goal::Below(300.0)));
    report.end();
    Ok(())
}

fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.current.map_or(FILES, |current| current.max(FILES));
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_err() {
        note(&format!("the limit of open files stays at {:?}; {FILES} are wanted", limit.current));
    }
}

async fn lists(herder: &Herder, fakes: &Fakes, report: &mut Report) -> anyhow::Result<()> {
    let request = http::request("GET", "/v1.41/containers/json?all=1", None);
    let mut connection = Connection::open(&herder.addr).await?;
    let mut body = Vec::new();
    let mut ask = async |connection: &mut Connection| -> anyhow::Result<Duration> {
        let began = Instant::now();
        connection.exchange(&request, &mut body).await?;
        Ok(began.elapsed())
    };
    let first = ask(&mut connection).await?.as_secs_f64() * 1e3;
    let row = |figure: String, measured, baseline, goal| Row { figure, unit: "ms", measured, baseline, goal };
    report.row(row("first list of 30,000, everything is rendered".into(), first, None, Goal::None));
    let mut direct = Connection::open(&fakes.addresses[0]).await?;
    let mut baseline = Vec::new();
    for _ in 0..LISTS {
        baseline.push(ask(&mut direct).await?);
    }
    let mut baseline: Times = baseline.into_iter().collect();
    let mut quiet = Vec::new();
    for _ in 0..LISTS {
        quiet.push(ask(&mut connection).await?);
    }
    // Each list after a change is made anew.
    let mut changed = Vec::new();
    let mut other = Connection::open(&herder.addr).await?;
    for number in 0..LISTS {
        let path = format!("/v1.41/containers/create?name=list-{number}");
        let made = other.call("POST", &path, Some(&json!({"Image": "busybox"}))).await?;
        changed.push(ask(&mut connection).await?);
        other.call("DELETE", &format!("/v1.41/containers/{}?force=1", id(&made)?), None).await?;
        changed.push(ask(&mut connection).await?);
    }
    for (what, times) in [("nothing changed", quiet), ("after each change", changed)] {
        let mut times: Times = times.into_iter().collect();
        for (share, name, goal) in [(0.5, "p50", Goal::None), (0.99, "p99", Goal::Below(30.0))] {
            let figure = format!("list all=1, {what}, {name}");
            report.row(row(figure, times.ms(share), Some(baseline.ms(share)), goal));
        }
    }
    Ok(())
}

async fn creates(herder: &Herder, fakes: &Fakes, report: &mut Report) -> anyhow::Result<()> {
    let conditions = json!(["constraint:zone==z3", "affinity:com.docker.compose.project!=project-x"]);
    let row = |figure: String, measured, baseline, goal| Row { figure, unit: "ms", measured, baseline, goal };
    for (what, conditions) in [("anywhere", json!([])), ("constraint + affinity", conditions)] {
        let body = json!({"Image": "busybox", "Env": conditions, "HostConfig": {"Memory": 1 << 20}});
        let before = decisions(herder)?.len();
        let mut measured = make(&herder.addr, &body).await?;
        let mut direct = make(&fakes.addresses[0], &body).await?;
        let mut decided: Times = decisions(herder)?.split_off(before).into_iter().collect();
        for (share, name, goal) in [(0.5, "p50", Goal::None), (0.99, "p99", Goal::Below(1.0))] {
            report.row(row(format!("decision, {what}, {name}"), decided.ms(share), None, goal));
        }
        for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
            let figure = format!("create, {what}, {name}");
            report.row(row(figure, measured.ms(share), Some(direct.ms(share)), Goal::None));
        }
    }
    Ok(())
}

async fn make(addr: &str, body: &Value) -> anyhow::Result<Times> {
    let mut connection = Connection::open(addr).await?;
    let mut times = Vec::new();
    for number in 0..CREATES {
        // Every other one is given a name, which must be free on all nodes.
        let name = if number % 2 == 0 { format!("?name=new-{number}") } else { String::new() };
        let began = Instant::now();
        let made = connection.call("POST", &format!("/v1.41/containers/create{name}"), Some(body)).await?;
        times.push(began.elapsed());
        connection.call("DELETE", &format!("/v1.41/containers/{}?force=1", id(&made)?), None).await?;
    }
    Ok(times.into_iter().collect())
}

/// Returns the time of each placement from herder's log, waiting for others included.
fn decisions(herder: &Herder) -> anyhow::Result<Vec<Duration>> {
    let log = herder.log_text()?;
    let times = log.lines().filter_map(|line| line.split("took_us=").nth(1)?.split_whitespace().next()?.parse().ok());
    Ok(times.map(Duration::from_micros).collect())
}
