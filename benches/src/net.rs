//! Benchmark of overlay networks between two of three hosts, with ratios. Side by side are VXLAN by hand, herder's
//! overlay, virtual IP, routing mesh, a proxy and encryption; then the time of changes, and the DNS server.
//!
//! Each path leads from a client on the first host (or outside of all) to the same programs on the second: iperf3 and nginx. Sides are
//! measured in turn, several rounds; what counts are ratios.

mod dns;
mod world;

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use crate::http::Connection;
use crate::note;
use crate::pool::API;
use crate::report::{Goal, Report, Row, Times, middle};
use crate::swarm::side::{Declared, Side};
pub(crate) use dns::load as dns_load;
use world::{HTTP, IPERF, Path, World};

/// Odd, so that one is in the middle.
const ROUNDS: usize = 3;
/// Seconds of each measurement of throughput and of connections.
const SECONDS: u32 = 2;
/// Attempts of each measurement, and the pause between them.
const ATTEMPTS: usize = 3;
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);
/// Changes of which each must be seen on all hosts.
const CHANGES: usize = 100;
/// A change that is seen nowhere by then is lost.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(20);
/// Replicas of the service that is updated.
const UPDATED: usize = 10;
const REPEATED: usize = 3;

pub(crate) async fn run(json: bool) -> anyhow::Result<()> {
    let mut world = World::up()?;
    let mut side = world.side().await?;
    world.ready().await?;
    let mut report = Report::new("net", json, "as said in each line; two hosts on one machine");
    data_paths(&world, &mut report).await?;
    control(&world, &mut side, &mut report).await?;
    let (rate, p99) = dns::measure(&world)?;
    let row = |figure: &str, unit, measured, goal| Row { figure: figure.into(), unit, measured, baseline: None, goal };
    report.row(row("DNS, one core", "answers/s", rate, Goal::None));
    report.row(row("DNS, p99 at 20,000 questions/s", "ms", p99, Goal::Below(1.0)));
    report.end();
    Ok(())
}

/// Figures of each path, round by round: bits and connections per second.
async fn data_paths(world: &World, report: &mut Report) -> anyhow::Result<()> {
    let mut seen: Vec<(Path, Vec<(f64, f64)>)> = Path::ALL.iter().map(|path| (*path, Vec::new())).collect();
    for round in 0..ROUNDS {
        note(&format!("paths, round {} of {ROUNDS}", round + 1));
        for (path, figures) in &mut seen {
            let bits = repeated(*path, || throughput(world, *path)).await;
            let opened = repeated(*path, || connections(world, *path)).await;
            figures.push((bits, opened));
        }
    }
    let of = |path: Path, at: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        seen.iter().find(|(it, _)| *it == path).map(|(_, all)| all.iter().map(at).collect()).unwrap_or_default()
    };
    for (what, unit, at) in
        [("throughput", "Mbit/s", (|it| it.0) as fn(&(f64, f64)) -> f64), ("connections", "/s", |it| it.1)]
    {
        for path in Path::ALL {
            for (baseline, goal) in path.goals() {
                let rounds = of(path, at).into_iter().zip(of(*baseline, at)).collect();
                let (measured, base) = middle(rounds);
                let figure = format!("{what}: {} : {}", path.name(), baseline.name());
                report.row(Row { figure, unit, measured, baseline: Some(base), goal: *goal });
            }
        }
    }
    Ok(())
}

/// Measures, and again where the program that measures fails: a server may not have ended the test before. 0 if it fails to the end.
async fn repeated(path: Path, measure: impl Fn() -> anyhow::Result<f64>) -> f64 {
    for _ in 0..ATTEMPTS {
        match measure() {
            Ok(figure) => return figure,
            Err(error) => note(&format!("{}: {error}", path.name())),
        }
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
    0.0
}

fn throughput(world: &World, path: Path) -> anyhow::Result<f64> {
    let (client, target) = world.way(path, IPERF);
    let (address, port) = target.rsplit_once(':').context("a port")?;
    let seconds = SECONDS.to_string();
    let text = client.output(&["iperf3", "-J", "-c", address, "-p", port, "-t", &seconds])?;
    let said: serde_json::Value = serde_json::from_str(&text).context("iperf3 said no JSON")?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.with_context(|| format!("iperf3 measured nothing: {}", said["error"]))? / 1e6)
}

fn connections(world: &World, path: Path) -> anyhow::Result<f64> {
    let (client, target) = world.way(path, HTTP);
    let duration = format!("-d{SECONDS}s");
    let url = format!("http://{target}/");
    let text = client.output(&["wrk", "-t1", "-c8", &duration, "-H", "Connection: close", &url])?;
    let line = text.lines().find_map(|it| it.trim().strip_prefix("Requests/sec:")).context("wrk measured nothing")?;
    Ok(line.trim().parse()?)
}

/// Lines that `nft monitor` prints on a host, with when.
fn monitor(world: &World, host: &str) -> anyhow::Result<(Receiver<(Instant, String)>, std::process::Child)> {
    let words = world.on(host).words(&["stdbuf", "-oL", "nft", "-nn", "monitor", "elements"]);
    let mut child = Command::new(&words[0]).args(&words[1..]).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("its output")?;
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    Ok((lines, child))
}

async fn control(world: &World, side: &mut Side, report: &mut Report) -> anyhow::Result<()> {
    note(&format!("{CHANGES} changes"));
    let monitors: Vec<_> = ["h1", "h2", "h3"].into_iter().map(|host| monitor(world, host)).collect::<Result<_, _>>()?;
    let mut door = Connection::open(&world.door).await?;
    let mut waits = Vec::new();
    for n in 0..CHANGES {
        let id = world.service.clone();
        let service = door.call("GET", &format!("{API}/services/{id}"), None).await?;
        let mut spec = service["Spec"].clone();
        spec["Labels"] = if n % 2 == 0 { json!({"herder.affinity": "source"}) } else { json!({}) };
        let version = &service["Version"]["Index"];
        for (lines, _) in &monitors {
            while lines.try_recv().is_ok() {}
        }
        let began = Instant::now();
        door.call("POST", &format!("{API}/services/{id}/update?version={version}"), Some(&spec)).await?;
        // A service hashed by source is balanced by another chain.
        let wanted = if n % 2 == 0 { "goto q" } else { "goto p" };
        let mut last = began;
        for (lines, _) in &monitors {
            let end = Instant::now() + CHANGE_TIME_MAX;
            loop {
                let left = end.saturating_duration_since(Instant::now());
                let (at, line) = lines.recv_timeout(left).context("a change was not seen on a host")?;
                if line.contains("add element ip herder ports") && line.contains(wanted) {
                    last = last.max(at);
                    break;
                }
            }
        }
        waits.push(last.duration_since(began));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (_, mut child) in monitors {
        let _ = child.kill();
        let _ = child.wait();
    }
    let mut waits: Times = waits.into_iter().collect();
    let ms = |figure: &str, measured, limit| Row {
        figure: figure.into(),
        unit: "ms",
        measured,
        baseline: None,
        goal: Goal::Below(limit),
    };
    report.row(ms("change, until all three hosts have applied it, p50", waits.ms(0.5), 20.0));
    report.row(ms("change, until all three hosts have applied it, p99", waits.ms(0.99), 100.0));
    note("removal and updates");
    let (mut removals, mut updates) = (Vec::new(), Vec::new());
    for _ in 0..REPEATED {
        let declared = |replicas| Declared { network: Some(world::OVERLAY), on: Some("h1"), ..Declared::new(replicas) };
        let service = side.create("one", &declared(1)).await?;
        side.until_running(&service, 1).await?;
        let began = Instant::now();
        side.remove(&service).await?;
        side.until_containers(&service, true, 0).await?;
        removals.push(began.elapsed());
        let mut many = declared(UPDATED);
        let service = side.create("many", &many).await?;
        side.until_running(&service, UPDATED).await?;
        many.version += 1;
        let began = Instant::now();
        side.declare(&service, &many).await?;
        side.until_updated(&service, &many).await?;
        updates.push(began.elapsed());
        side.remove(&service).await?;
        side.until_containers(&service, true, 0).await?;
    }
    let median = |all: Vec<Duration>| all.into_iter().collect::<Times>().ms(0.5);
    report.row(ms("service rm of one replica on an overlay", median(removals), 300.0));
    report.row(ms("rolling update of 10 on an overlay", median(updates), 3000.0));
    Ok(())
}
