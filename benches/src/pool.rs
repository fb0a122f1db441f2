//! herder over a lab of three real engines, in turn with one of those engines asked directly.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use herder_lab::{Lab, LabSpec};
use serde_json::{Value, json};

use crate::http::{self, Connection};
use crate::load::{self, Load};
use crate::process::Herder;
use crate::report::{Goal, Report, Row, Times};
use crate::{note, streams};

const LAB: &str = "bench-pool";
const HOSTS: u16 = 3;
const CONTAINERS: usize = 60;
/// Containers that are made at the same time; an engine starts one in some 300 ms.
const MAKERS: usize = 4;
const CONNECTIONS: usize = 8;
/// Rounds of load on each side, and how long each is.
const ROUNDS: u32 = 6;
const ROUND_TIME: Duration = Duration::from_secs(2);
/// Containers made through herder and directly. An engine's own times differ by a fifth, so the median needs many.
const PAIRS: usize = 60;
/// The Docker API that the lab's engines speak.
pub(crate) const API: &str = "/v1.41";

/// The lab; its end removes it.
struct Stage(Lab);

impl Drop for Stage {
    fn drop(&mut self) {
        note("taking the lab down");
        if let Err(error) = Lab::down_by_name(LAB) {
            note(&format!("cannot remove the lab: {error:#}"));
        }
    }
}

/// The measured side and its baseline.
pub(crate) struct Sides {
    pub herder: Herder,
    /// `host:port` of each engine.
    pub engines: Vec<String>,
    /// The first engine's name as a node.
    pub node: String,
}

pub(crate) async fn run(json: bool) -> anyhow::Result<()> {
    note(&format!("starting a lab of {HOSTS} hosts"));
    let stage = Stage(Lab::ensure(&LabSpec { name: LAB.into(), hosts: HOSTS, ..LabSpec::default() })?);
    let folder = tempfile::tempdir()?;
    let hosts = stage.0.status();
    let engines: Vec<String> = hosts.iter().map(|host| host.docker_host.trim_start_matches("tcp://").into()).collect();
    let herder = Herder::start(&format!("nodes://{}", engines.join(",")), folder.path(), "error")?;
    herder.ready(engines.len()).await?;
    let node = Connection::open(&engines[0]).await?.call("GET", "/info", None).await?["Name"].clone();
    let sides = Sides { herder, engines, node: node.as_str().context("the engine has no name")?.into() };
    note(&format!("starting {CONTAINERS} containers"));
    populate(&sides).await?;
    let mut report =
        Report::new("pool", json, "one of the 3 engines, asked directly, with its 20 of the 60 containers");
    let idle = sides.herder.memory_mb()?;
    lists(&sides, &mut report).await?;
    inspects(&sides, &mut report).await?;
    latency(&sides, &mut report).await?;
    streams::exec(&sides, &mut report).await?;
    streams::attach(&sides, &mut report).await?;
    let memory =
        |figure: &str, measured, baseline, goal| Row { figure: figure.into(), unit: "MB", measured, baseline, goal };
    report.row(memory(
        "memory after the load, baseline: before",
        sides.herder.memory_mb()?,
        Some(idle),
        Goal::Below(30.0),
    ));
    streams::image(&sides, &mut report).await?;
    report.end();
    Ok(())
}

/// A container that does nothing for long; with a `node`, only there.
fn sleeper(node: Option<&str>) -> Value {
    let env: Vec<String> = node.iter().map(|node| format!("constraint:node=={node}")).collect();
    json!({"Image": "busybox", "Cmd": ["sleep", "100000"], "Env": env})
}

async fn populate(sides: &Sides) -> anyhow::Result<()> {
    let makers = (0..MAKERS).map(|maker| async move {
        let mut connection = Connection::open(&sides.herder.addr).await?;
        for number in (maker..CONTAINERS).step_by(MAKERS) {
            let path = format!("{API}/containers/create?name=bench-{number}");
            let made = connection.call("POST", &path, Some(&sleeper(None))).await?;
            connection.call("POST", &format!("{API}/containers/{}/start", id(&made)?), None).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    try_join_all(makers).await.map(drop)
}

pub(crate) fn id(made: &Value) -> anyhow::Result<&str> {
    made["Id"].as_str().context("no id was answered")
}

async fn lists(sides: &Sides, report: &mut Report) -> anyhow::Result<()> {
    let request = http::request("GET", &format!("{API}/containers/json?all=1"), None);
    let mut herder = Load::open(&sides.herder.addr, CONNECTIONS, request.clone()).await?;
    let mut engine = Load::open(&sides.engines[0], CONNECTIONS, request).await?;
    let outcome = load::side_by_side((&mut herder, &mut engine), ROUNDS, ROUND_TIME).await?;
    both(report, "list all=1, 8 connections", &outcome, Goal::RatioAtLeast(20.0), Goal::Below(2.0));
    Ok(())
}

async fn inspects(sides: &Sides, report: &mut Report) -> anyhow::Result<()> {
    let list = Connection::open(&sides.engines[0]).await?.call("GET", &format!("{API}/containers/json"), None).await?;
    let request = http::request("GET", &format!("{API}/containers/{}/json", id(&list[0])?), None);
    let mut herder = Load::open(&sides.herder.addr, CONNECTIONS, request.clone()).await?;
    let mut engine = Load::open(&sides.engines[0], CONNECTIONS, request).await?;
    let outcome = load::side_by_side((&mut herder, &mut engine), ROUNDS, ROUND_TIME).await?;
    both(report, "inspect, 8 connections", &outcome, Goal::RatioAtLeast(0.5), Goal::None);
    Ok(())
}

fn both(
    report: &mut Report,
    what: &str,
    (herder, engine, rates): &(load::Outcome, load::Outcome, (f64, f64)),
    rate: Goal,
    p99: Goal,
) {
    for (figure, unit, (measured, baseline), goal) in [
        (what.to_owned(), "req/s", *rates, rate),
        (format!("{what}, p50"), "ms", (herder.ms(0.5), engine.ms(0.5)), Goal::None),
        (format!("{what}, p99"), "ms", (herder.ms(0.99), engine.ms(0.99)), p99),
    ] {
        report.row(Row { figure, unit, measured, baseline: Some(baseline), goal });
    }
}

/// Times of the parts of a container's life.
#[derive(Default)]
struct Life {
    create: Vec<Duration>,
    start: Vec<Duration>,
    remove: Vec<Duration>,
}

impl Life {
    async fn live(&mut self, connection: &mut Connection, body: &Value) -> anyhow::Result<()> {
        let began = Instant::now();
        let made = connection.call("POST", &format!("{API}/containers/create"), Some(body)).await?;
        let created = Instant::now();
        connection.call("POST", &format!("{API}/containers/{}/start", id(&made)?), None).await?;
        let started = Instant::now();
        connection.call("DELETE", &format!("{API}/containers/{}?force=1", id(&made)?), None).await?;
        self.create.push(created - began);
        self.start.push(started - created);
        self.remove.push(started.elapsed());
        Ok(())
    }
}

/// Containers made on the same engine, through herder and directly, in turn.
async fn latency(sides: &Sides, report: &mut Report) -> anyhow::Result<()> {
    let (through, direct) = (sleeper(Some(&sides.node)), sleeper(None));
    let mut herder = Connection::open(&sides.herder.addr).await?;
    let mut engine = Connection::open(&sides.engines[0]).await?;
    // The first ones warm both sides up.
    Life::default().live(&mut herder, &through).await?;
    Life::default().live(&mut engine, &direct).await?;
    let (mut measured, mut baseline) = (Life::default(), Life::default());
    for pair in 0..PAIRS {
        if pair % 2 == 0 {
            measured.live(&mut herder, &through).await?;
            baseline.live(&mut engine, &direct).await?;
        } else {
            baseline.live(&mut engine, &direct).await?;
            measured.live(&mut herder, &through).await?;
        }
    }
    let median = |times: &[Duration]| times.iter().copied().collect::<Times>().ms(0.5);
    let sum = |life: &Life| -> Vec<Duration> { life.create.iter().zip(&life.start).map(|(a, b)| *a + *b).collect() };
    for (figure, measured, baseline, goal) in [
        ("create, median", median(&measured.create), median(&baseline.create), Goal::None),
        ("start, median", median(&measured.start), median(&baseline.start), Goal::None),
        ("create + start, median", median(&sum(&measured)), median(&sum(&baseline)), Goal::RatioAtMost(1.05)),
        ("remove, median", median(&measured.remove), median(&baseline.remove), Goal::None),
    ] {
        report.row(Row { figure: figure.into(), unit: "ms", measured, baseline: Some(baseline), goal });
    }
    Ok(())
}
