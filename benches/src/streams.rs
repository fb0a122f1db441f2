//! Much data through herder: output of containers, and an image for all engines.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::http::Connection;
use crate::pool::{API, Sides, id};
use crate::report::{Goal, Report, Row, middle};

/// 64 KiB each: about 300 MB.
const BLOCKS: u32 = 4_600;
/// Streams on each side, in turn. One may be three times as fast as the next, on either side; so many together are steady.
const ROUNDS: usize = 25;
/// Megabytes of the image.
const IMAGE_MB: usize = 100;
/// Loads of the image on each side, in turn.
const IMAGE_ROUNDS: usize = 3;
/// Limit of memory between the sockets, however large the image is.
const GROWTH_MB_MAX: f64 = 16.0;
const IMAGE: &str = "bench-big:latest";

fn zeros() -> Value {
    json!(["dd", "if=/dev/zero", "bs=64k", format!("count={BLOCKS}")])
}

/// Seconds for all of [`BLOCKS`].
fn seconds((bytes, seconds): (u64, f64)) -> anyhow::Result<f64> {
    if bytes < u64::from(BLOCKS) << 16 {
        bail!("only {bytes} bytes came");
    }
    Ok(seconds)
}

/// All streams from herder and all from the engine, now one first and now the other.
async fn compare(figure: &str, seconds: impl AsyncFn(bool) -> anyhow::Result<f64>) -> anyhow::Result<Row> {
    let (mut herder, mut engine) = (0.0, 0.0);
    for round in 0..ROUNDS {
        for through_herder in [round % 2 == 0, round % 2 == 1] {
            *if through_herder { &mut herder } else { &mut engine } += seconds(through_herder).await?;
        }
    }
    let rate = |seconds: f64| f64::from(BLOCKS) * 65_536e-6 * ROUNDS as f64 / seconds;
    let (measured, baseline) = (rate(herder), Some(rate(engine)));
    let figure = format!("{figure}, {ROUNDS} of 300 MB");
    Ok(Row { figure, unit: "MB/s", measured, baseline, goal: Goal::RatioAtLeast(0.9) })
}

/// `docker exec` of a program that prints much.
pub(crate) async fn exec(sides: &Sides, report: &mut Report) -> anyhow::Result<()> {
    let list = Connection::open(&sides.engines[0]).await?.call("GET", &format!("{API}/containers/json"), None).await?;
    let container = id(&list[0])?;
    let once = async |through_herder: bool| {
        let addr = if through_herder { &sides.herder.addr } else { &sides.engines[0] };
        let mut connection = Connection::open(addr).await?;
        let body = json!({"AttachStdout": true, "Cmd": zeros()});
        let made = connection.call("POST", &format!("{API}/containers/{container}/exec"), Some(&body)).await?;
        let path = format!("{API}/exec/{}/start", id(&made)?);
        seconds(connection.hijack(&path, &json!({"Detach": false, "Tty": false})).await?.drain().await?)
    };
    report.row(compare("exec output", once).await?);
    Ok(())
}

/// `docker attach` to a program that prints much.
pub(crate) async fn attach(sides: &Sides, report: &mut Report) -> anyhow::Result<()> {
    let there = [format!("constraint:node=={}", sides.node)];
    let once = async |through_herder: bool| {
        let (addr, env): (_, &[String]) =
            if through_herder { (&sides.herder.addr, &there) } else { (&sides.engines[0], &[]) };
        let mut connection = Connection::open(addr).await?;
        let log = json!({"LogConfig": {"Type": "none"}});
        let body = json!({"Image": "busybox", "Cmd": zeros(), "Env": env, "AttachStdout": true, "HostConfig": log});
        let made = connection.call("POST", &format!("{API}/containers/create"), Some(&body)).await?;
        let container = format!("{API}/containers/{}", id(&made)?);
        let path = format!("{container}/attach?stream=1&stdout=1");
        let stream = Connection::open(addr).await?.hijack(&path, &Value::Null).await?;
        let start = format!("{container}/start");
        let (drained, started) = tokio::join!(stream.drain(), connection.call("POST", &start, None));
        started?;
        connection.call("DELETE", &format!("{container}?force=1"), None).await?;
        seconds(drained?)
    };
    report.row(compare("attach output", once).await?);
    Ok(())
}

/// `docker load` of a large image for all engines: herder against three clients at the same time.
pub(crate) async fn image(sides: &Sides, report: &mut Report) -> anyhow::Result<()> {
    let archive = &archive(&sides.engines[0]).await?;
    let load = async |addr: &str| {
        let answer = Connection::open(addr).await?.upload(&format!("{API}/images/load?quiet=1"), archive).await?;
        if answer.contains("\"error\"") { bail!("{addr} answered the load with {answer}") } else { Ok(()) }
    };
    let remove = async || {
        let removed = sides.engines.iter().map(async |engine| {
            Connection::open(engine).await?.call("DELETE", &format!("{API}/images/{IMAGE}?force=1"), None).await
        });
        try_join_all(removed).await
    };
    let (mut rounds, mut grown) = (Vec::new(), 0.0_f64);
    for _ in 0..IMAGE_ROUNDS {
        let began = Instant::now();
        try_join_all(sides.engines.iter().map(async |engine| load(engine).await)).await?;
        let engines = began.elapsed().as_secs_f64() * 1e3;
        remove().await?;
        let idle = sides.herder.memory_mb()?;
        sides.herder.forget_peak()?;
        let began = Instant::now();
        load(&sides.herder.addr).await?;
        rounds.push((began.elapsed().as_secs_f64() * 1e3, engines));
        grown = grown.max(sides.herder.peak_mb()? - idle);
        remove().await?;
    }
    let (measured, baseline) = middle(rounds);
    report.row(Row {
        figure: format!("load of {IMAGE_MB} MB to 3 engines"),
        unit: "ms",
        measured,
        baseline: Some(baseline),
        goal: Goal::None,
    });
    let figure = "growth of memory in that load, most".to_owned();
    report.row(Row { figure, unit: "MB", measured: grown, baseline: None, goal: Goal::Below(GROWTH_MB_MAX) });
    Ok(())
}

/// An image of random bytes as `docker save` gives it, no longer on the engine.
async fn archive(engine: &str) -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let random = std::fs::File::open("/dev/urandom")?;
    let mut content = std::fs::File::create(folder.path().join("content"))?;
    std::io::copy(&mut std::io::Read::take(random, (IMAGE_MB as u64) << 20), &mut content)?;
    let tar = Command::new("tar").arg("-C").arg(folder.path()).args(["-cf", "-", "content"]).output();
    let tar = tar.context("cannot start tar")?.stdout;
    let (repo, tag) = IMAGE.split_once(':').context("an image has a tag")?;
    let mut connection = Connection::open(engine).await?;
    connection.upload(&format!("{API}/images/create?fromSrc=-&repo={repo}&tag={tag}"), &tar).await?;
    let mut archive = Vec::new();
    let get = crate::http::request("GET", &format!("{API}/images/{IMAGE}/get"), None);
    let status = connection.exchange(&get, &mut archive).await?;
    connection.call("DELETE", &format!("{API}/images/{IMAGE}?force=1"), None).await?;
    if status != 200 {
        bail!("the engine does not give its image: {status}");
    }
    Ok(archive)
}
