//! Comparison of herder's swarm with the engine's own swarm mode and with a client alone. The client creates
//! its containers itself; all are measured in turn. There are two labs of one host each, with the same
//! engine.

pub(crate) mod side;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use herder_lab::{Lab, LabSpec};

use crate::note;
use crate::process::sibling;
use crate::report::{Goal, Report, Row, middle};
use side::{Declared, Side};

const ENGINE_LAB: &str = "bench-swarm-a";
const HERDER_LAB: &str = "bench-swarm-b";
/// Rounds of each shape: an odd number, so that one is in the middle.
const ROUNDS: &[(usize, usize)] = &[(1, 9), (10, 5), (50, 3)];
const UPDATE_ROUNDS: usize = 3;
const CRASH_ROUNDS: usize = 3;
/// Replicas of the service that is updated.
const UPDATED: usize = 10;
/// swarm mode asks a registry for each task, if this is not set; there is none here.
const OFFLINE: (&str, &str) = ("DOCKER_SERVICE_PREFER_OFFLINE_IMAGE", "1");

/// A lab; its end removes it.
struct Stage(Lab);

impl Stage {
    fn up(name: &str, with_herder: bool) -> anyhow::Result<Stage> {
        note(&format!("starting the lab {name}"));
        let herder = with_herder.then(|| sibling("herder")).transpose()?;
        let engine_env = vec![(OFFLINE.0.to_owned(), OFFLINE.1.to_owned())];
        Ok(Stage(Lab::ensure(&LabSpec { name: name.into(), hosts: 1, engine_env, herder, ..LabSpec::default() })?))
    }

    async fn side(&self) -> anyhow::Result<Side> {
        let hosts = self.0.status();
        let host = hosts.first().context("the lab has no host")?;
        let plain = |url: &str| url.trim_start_matches("tcp://").to_owned();
        let engine = plain(&host.docker_host);
        let door = host.herder_host.as_deref().map_or(engine.clone(), plain);
        Side::open(&door, &engine, &host.address).await
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let name = self.0.name().to_owned();
        note(&format!("taking the lab {name} down"));
        if let Err(error) = Lab::down_by_name(&name) {
            note(&format!("cannot remove the lab: {error:#}"));
        }
    }
}

/// Seconds by what was done, in the order of the figures.
type Figures = BTreeMap<(usize, &'static str), Duration>;

/// Results of each round: of herder, of swarm mode, of the bare engine.
#[derive(Default)]
struct Rounds {
    herder: Vec<Figures>,
    engine: Vec<Figures>,
    raw: Vec<Duration>,
}

pub(crate) async fn run(json: bool) -> anyhow::Result<()> {
    let stages = (Stage::up(ENGINE_LAB, false)?, Stage::up(HERDER_LAB, true)?);
    let (mut engine, mut herder) = (stages.0.side().await?, stages.1.side().await?);
    let mut report = Report::new("swarm", json, "the engine's own swarm mode; or its API, with 8 calls at a time");
    // The first ones warm both sides up.
    shapes(&mut engine, 1).await?;
    shapes(&mut herder, 1).await?;
    herder.raw(1).await?;
    for (replicas, rounds) in ROUNDS {
        note(&format!("{replicas} replicas, {rounds} rounds"));
        let mut seen = Rounds::default();
        for round in 0..*rounds {
            // Each is first as often as the others, and each has the same before it.
            seen.raw.push(herder.raw(*replicas).await?);
            if round % 2 == 0 {
                seen.engine.push(shapes(&mut engine, *replicas).await?);
                seen.herder.push(shapes(&mut herder, *replicas).await?);
            } else {
                seen.herder.push(shapes(&mut herder, *replicas).await?);
                seen.engine.push(shapes(&mut engine, *replicas).await?);
            }
        }
        told(&mut report, &seen, |what| goal(what, *replicas));
        let figure = format!("create of {replicas}, against the engine's API");
        against_raw(&mut report, &seen, figure, Goal::RatioAtMost(1.05));
    }
    for order in ["stop-first", "start-first"] {
        note(&format!("updates, {order}, {UPDATE_ROUNDS} rounds"));
        let mut seen = Rounds::default();
        for _ in 0..UPDATE_ROUNDS {
            seen.raw.push(herder.raw_update(UPDATED, order == "start-first").await?);
            seen.engine.push(update(&mut engine, order).await?);
            seen.herder.push(update(&mut herder, order).await?);
        }
        // What is declared to be watched for five seconds is watched for five seconds.
        told(&mut report, &seen, |what| Goal::RatioAtMost(if what.ends_with("completed") { 1.0 } else { 1.0 / 3.0 }));
        let figure = format!("{order}, against the engine's API");
        against_raw(&mut report, &seen, figure, Goal::None);
    }
    note(&format!("crashes, {CRASH_ROUNDS} rounds"));
    let mut seen = Rounds::default();
    for _ in 0..CRASH_ROUNDS {
        seen.engine.push(crashes(&mut engine).await?);
        seen.herder.push(crashes(&mut herder).await?);
    }
    told(&mut report, &seen, |_| Goal::RatioAtMost(1.0));
    report.end();
    Ok(())
}

fn goal(what: &str, replicas: usize) -> Goal {
    if replicas == 1 && what.starts_with("rm") { Goal::Below(300.0) } else { Goal::RatioAtMost(1.0) }
}

/// Create, scale, remove.
async fn shapes(side: &mut Side, replicas: usize) -> anyhow::Result<Figures> {
    let mut figures = Figures::new();
    let (all, one) = (Declared::new(replicas), Declared::new(1));
    let began = Instant::now();
    let service = side.create("bench", &all).await?;
    side.until_running(&service, replicas).await?;
    figures.insert((0, "create, until all run"), began.elapsed());
    if replicas > 1 {
        let began = Instant::now();
        side.declare(&service, &one).await?;
        side.until_containers(&service, false, 1).await?;
        figures.insert((1, "scale to 1, until the others are stopped"), began.elapsed());
        side.until_containers(&service, true, 1).await?;
        figures.insert((2, "scale to 1, until the others are removed"), began.elapsed());
        let began = Instant::now();
        side.declare(&service, &all).await?;
        side.until_running(&service, replicas).await?;
        figures.insert((3, "scale from 1, until all run"), began.elapsed());
    }
    let began = Instant::now();
    side.remove(&service).await?;
    side.until_containers(&service, true, 0).await?;
    figures.insert((4, "rm, until all containers are gone"), began.elapsed());
    Ok(figures)
}

async fn update(side: &mut Side, order: &'static str) -> anyhow::Result<Figures> {
    let mut figures = Figures::new();
    let mut declared = Declared { order, ..Declared::new(UPDATED) };
    let service = side.create("bench", &declared).await?;
    side.until_running(&service, UPDATED).await?;
    declared.version += 1;
    let began = Instant::now();
    side.declare(&service, &declared).await?;
    side.until_updated(&service, &declared).await?;
    let (run, done) = match order {
        "start-first" => ("start-first, until all new run", "start-first, until completed"),
        _ => ("stop-first, until all new run", "stop-first, until completed"),
    };
    figures.insert((0, run), began.elapsed());
    side.until_completed(&service).await?;
    figures.insert((1, done), began.elapsed());
    side.remove(&service).await?;
    side.until_containers(&service, true, 0).await?;
    Ok(figures)
}

async fn crashes(side: &mut Side) -> anyhow::Result<Figures> {
    let mut figures = Figures::new();
    let cases =
        [(Some(Duration::ZERO), "killed, until the next runs, no delay"), (None, "killed, the usual delay of 5 s")];
    for (number, (restart_delay, what)) in cases.into_iter().enumerate() {
        let service = side.create("bench", &Declared { restart_delay, ..Declared::new(1) }).await?;
        side.until_running(&service, 1).await?;
        figures.insert((number, what), side.crash(&service).await?);
        side.remove(&service).await?;
        side.until_containers(&service, true, 0).await?;
    }
    Ok(figures)
}

fn told(report: &mut Report, seen: &Rounds, goal: impl Fn(&str) -> Goal) {
    let Some(first) = seen.herder.first() else { return };
    for key in first.keys() {
        let ms = |of: &[Figures]| -> Vec<f64> {
            of.iter().filter_map(|it| it.get(key)).map(|it| it.as_secs_f64() * 1e3).collect()
        };
        let (herder, engine) = (ms(&seen.herder), ms(&seen.engine));
        spread(key.1, &herder, &engine);
        let (measured, baseline) = middle(herder.into_iter().zip(engine).collect());
        report.row(Row { figure: key.1.into(), unit: "ms", measured, baseline: Some(baseline), goal: goal(key.1) });
    }
}

/// The first figure, and the same containers by the engine's own API.
fn against_raw(report: &mut Report, seen: &Rounds, figure: String, goal: Goal) {
    let ms = |time: &Duration| time.as_secs_f64() * 1e3;
    let first: Vec<f64> = seen.herder.iter().flat_map(|it| it.values().next()).map(ms).collect();
    let raw: Vec<f64> = seen.raw.iter().map(ms).collect();
    spread(&figure, &first, &raw);
    let (measured, baseline) = middle(first.into_iter().zip(raw).collect());
    report.row(Row { figure, unit: "ms", measured, baseline: Some(baseline), goal });
}

/// Prints the spread of rounds.
fn spread(what: &str, measured: &[f64], baseline: &[f64]) {
    let text = |of: &[f64]| of.iter().map(|it| format!("{it:.0}")).collect::<Vec<_>>().join(" ");
    note(&format!("{what}, ms: {} | baseline: {}", text(measured), text(baseline)));
}
