//! Benchmark of three managers in this process, each with its own folder. It measures writes per second, reads, and
//! time without a leader.
//!
//! `cargo bench -p herder-store --bench store [-- --format json]`. All managers share this machine's cores and its disk.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/common/mod.rs"]
mod common;
#[expect(dead_code, reason = "goals of other benchmarks")]
#[path = "../../../benches/src/report.rs"]
mod report;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Swarm, put, secret};
use herder_model::swarm::Time;
use herder_store::Store;
use report::{Goal, Report, Row, Times};

/// Bytes of a task in a write.
const TASK_BYTES: usize = 1500;
/// Threads that only burn time, for each core.
const BURNERS_A_CORE: usize = 4;
/// A leader that dies has a successor within this.
const CHANGE: Goal = Goal::Below(1000.0);

fn figure(report: &mut Report, figure: impl Into<String>, unit: &'static str, measured: f64, goal: Goal) {
    report.row(Row { figure: figure.into(), unit, measured, baseline: None, goal });
}

fn times(report: &mut Report, part: &str, mut times: Times, goal: Goal) {
    for (share, label) in [(0.5, "p50"), (0.99, "p99")] {
        figure(report, format!("{part}, {label}"), "ms", times.ms(share), goal);
    }
}

/// Measures the disk: each write waits for it at least once.
fn disk(report: &mut Report, folder: &std::path::Path, seconds: f64) {
    let mut file = File::create(folder.join("sync")).expect("a file");
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed().as_secs_f64() < seconds {
        file.write_all(&[1; 4096]).and_then(|()| file.sync_data()).expect("written");
        count += 1;
    }
    figure(report, "4 KiB to the disk, alone", "/s", f64::from(count) / began.elapsed().as_secs_f64(), Goal::None);
}

async fn writes(report: &mut Report, part: &str, store: Arc<Store>, seconds: f64, writers: usize) {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let text = "x".repeat(TASK_BYTES);
    let tasks = (0..writers).map(|writer| {
        let (store, text, part) = (Arc::clone(&store), text.clone(), part.to_owned());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                let id = format!("{part} {writer} {}", times.len());
                store.commit(vec![secret(&id, &text)], Time(1)).await.expect("written");
                times.push(began.elapsed());
            }
            times
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await.expect("no panic"));
    }
    figure(report, format!("{part}, rate"), "/s", all.len() as f64 / seconds, Goal::None);
    times(report, part, all.into_iter().collect(), Goal::None);
}

async fn reads(report: &mut Report, store: &Store, seconds: f64) {
    let (began, mut all) = (Instant::now(), Vec::new());
    while began.elapsed().as_secs_f64() < seconds {
        let began = Instant::now();
        store.read().await.expect("read");
        all.push(began.elapsed());
    }
    times(report, "reads of all that was written, on another manager", all.into_iter().collect(), Goal::None);
}

/// Measures the time from the death of a leader to the first write through another manager.
async fn changes(report: &mut Report, kills: usize) {
    let swarm = Swarm::of(3).await;
    let mut all = Vec::new();
    for kill in 0..kills {
        let names = swarm.names();
        let leader = swarm.leader(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        swarm.agree().await;
        let (writer, died) = (swarm.store(&swarm.other(&leader)), Instant::now());
        let written = async {
            put(&writer, &format!("kill {kill}")).await.expect("written");
            died.elapsed()
        };
        let (took, ()) = tokio::join!(written, swarm.kill(&leader));
        all.push(took);
        swarm.open(&leader).await.expect("opens");
    }
    let worst = all.iter().max().copied().unwrap_or_default();
    times(report, "first write after a leader's death", all.into_iter().collect(), CHANGE);
    figure(report, "first write after a leader's death, worst", "ms", worst.as_secs_f64() * 1e3, CHANGE);
}

/// Loads all cores several times over while managers write: no leader should be deposed.
async fn flapping(report: &mut Report, seconds: f64) {
    let swarm = Swarm::of(3).await;
    let term = swarm.store("n1").leadership().borrow().term;
    let over = Arc::new(AtomicBool::new(false));
    let burners = std::thread::available_parallelism().map_or(4, |cores| cores.get() * BURNERS_A_CORE);
    let burners = (0..burners).map(|_| {
        let over = Arc::clone(&over);
        std::thread::spawn(move || while !over.load(Ordering::Relaxed) {})
    });
    let burners: Vec<_> = burners.collect();
    writes(report, "all cores busy, follower, 16 writers", swarm.store("n2"), seconds, 16).await;
    over.store(true, Ordering::Relaxed);
    for burner in burners {
        burner.join().expect("no panic");
    }
    let changes = swarm.store("n2").leadership().borrow().term - term;
    figure(report, "all cores busy, elections", "", changes as f64, Goal::Below(1.0));
}

async fn run(report: &mut Report, seconds: f64, kills: usize) {
    let swarm = Swarm::of(1).await;
    disk(report, swarm.folder.path(), seconds);
    writes(report, "one manager, 1 writer", swarm.store("n1"), seconds, 1).await;
    writes(report, "one manager, 64 writers", swarm.store("n1"), seconds, 64).await;
    drop(swarm);
    let swarm = Swarm::of(3).await;
    writes(report, "leader of three, 1 writer", swarm.store("n1"), seconds, 1).await;
    writes(report, "leader of three, 64 writers", swarm.store("n1"), seconds, 64).await;
    writes(report, "follower, 1 writer", swarm.store("n2"), seconds, 1).await;
    writes(report, "follower, 64 writers", swarm.store("n2"), seconds, 64).await;
    reads(report, &swarm.store("n3"), seconds).await;
    drop(swarm);
    changes(report, kills).await;
    flapping(report, seconds * 4.0).await;
}

fn main() {
    let json = std::env::args().skip_while(|argument| argument != "--format").nth(1).is_some_and(|it| it == "json");
    // `cargo bench` says so; as a test it only has to run.
    let (seconds, kills) = if std::env::args().any(|it| it == "--bench") { (5.0, 20) } else { (0.1, 1) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut report = Report::new("store", json, "");
    runtime.block_on(run(&mut report, seconds, kills));
    report.end();
}
