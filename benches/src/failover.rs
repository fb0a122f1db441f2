//! Benchmark of a swarm when a host dies or is cut off. It measures the time until all is as declared again, and
//! the faults meanwhile. Three managers and two workers, each a host of a lab; faults one after the other.
//!
//! The engines themselves are asked what runs, over sockets that no cut concerns. Containers of services that must never run
//! twice write down when they live: the hosts share this machine's clock.

mod cluster;
mod witness;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::note;
use crate::report::{Goal, Report, Row, Times};
use cluster::Cluster;
use witness::Writer;

/// Target of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Worker,
    Follower,
    Leader,
}

/// Fault of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// Every process of the host is killed at once, and it is turned on again later.
    Kill,
    /// The cable is pulled, or every packet is lost, in turn; and later it is as before.
    Cut,
}

const CASES: [(Fault, Victim); 6] = [
    (Fault::Kill, Victim::Worker),
    (Fault::Kill, Victim::Follower),
    (Fault::Kill, Victim::Leader),
    (Fault::Cut, Victim::Worker),
    (Fault::Cut, Victim::Follower),
    (Fault::Cut, Victim::Leader),
];

/// Long enough after the tasks run elsewhere that what is wrong shows.
const WATCHED: Duration = Duration::from_millis(1500);

/// Result of one round.
#[derive(Debug, Default)]
struct Round {
    elsewhere: Duration,
    /// Services that must never run twice wait for the lease of the lost node.
    fenced: Option<Duration>,
    write: Duration,
    healed: Duration,
    /// Tasks that must never run twice and ended on nodes that nothing happened to.
    ended: usize,
    wrong: Vec<String>,
}

pub(crate) async fn run(json: bool, rounds: usize) -> anyhow::Result<()> {
    let mut cluster = Cluster::up().await?;
    let mut seen: BTreeMap<(Fault, Victim), Vec<Round>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for number in 0..rounds {
        for (fault, victim) in CASES {
            let round = play(&mut cluster, fault, victim, number).await?;
            note(&format!(
                "{} of {rounds}, {fault:?} {victim:?}: elsewhere {:.2?}, fenced {:.2?}, write {:.3?}, healed {:.2?}, ended {} {}",
                number + 1,
                round.elsewhere,
                round.fenced,
                round.write,
                round.healed,
                round.ended,
                round.wrong.join("; ")
            ));
            wrong.extend(round.wrong.iter().cloned());
            seen.entry((fault, victim)).or_default().push(round);
        }
    }
    wrong.extend(cluster.writes_kept().await?);
    let mut report =
        Report::new("failover", json, "none; swarm mode needs 12 s for a worker's tasks and 42 s for a leader's");
    for ((fault, victim), rounds) in &seen {
        told(&mut report, *fault, *victim, rounds);
    }
    for what in &wrong {
        note(&format!("WRONG: {what}"));
    }
    report.row(row("promises that were broken".into(), "", wrong.len() as f64, Goal::Below(1.0)));
    report.end();
    Ok(())
}

async fn play(cluster: &mut Cluster, fault: Fault, victim: Victim, number: usize) -> anyhow::Result<Round> {
    let mut round = Round::default();
    let services = cluster.declare().await?;
    let host = match victim {
        Victim::Leader => cluster.leader().await?,
        Victim::Follower => cluster.follower(number).await?,
        Victim::Worker => cluster.worker(number).await?,
    };
    let fenced = cluster.fenced_on(host).await?;
    let others = cluster.fenced_besides(host).await?;
    let writer = Writer::start(cluster.door_besides(host, number));
    writer.warm().await?;
    let began = Instant::now();
    let doing = match fault {
        Fault::Kill => cluster.crash(host),
        Fault::Cut => cluster.cut(host, number % 2 == 1),
    };
    round.elsewhere = cluster.until_elsewhere(&services, host, began).await?;
    if fenced {
        round.fenced = Some(cluster.until_fenced_elsewhere(&services, host, began).await?);
    }
    doing.await??;
    tokio::time::sleep(WATCHED).await;
    round.ended = others.difference(&cluster.fenced_besides(host).await?).count();
    let healing = Instant::now();
    match fault {
        Fault::Kill => cluster.boot(host).await?,
        Fault::Cut => cluster.heal(host).await?,
    }
    if let Err(error) = cluster.until_as_declared(&services).await {
        round.wrong.push(format!("{fault:?} {victim:?}, round {}: {error:#}", number + 1));
    }
    round.healed = healing.elapsed();
    let written = writer.end().await?;
    round.write = written.first_after(began);
    cluster.remember(written);
    round.wrong.extend(cluster.writes_there().await?);
    cluster.remove(&services).await?;
    round.wrong.extend(cluster.lived_twice(&services)?);
    Ok(round)
}

fn told(report: &mut Report, fault: Fault, victim: Victim, rounds: &[Round]) {
    let what = match (fault, victim) {
        (Fault::Kill, Victim::Worker) => "killed worker",
        (Fault::Kill, Victim::Follower) => "killed follower",
        (Fault::Kill, Victim::Leader) => "killed leader",
        (Fault::Cut, Victim::Worker) => "cut-off worker",
        (Fault::Cut, Victim::Follower) => "cut-off follower",
        (Fault::Cut, Victim::Leader) => "cut-off leader",
    };
    let leader = victim == Victim::Leader;
    let limit = if leader { Goal::Below(4000.0) } else { Goal::Below(3000.0) };
    let elected = if leader { Goal::Below(1000.0) } else { Goal::None };
    let figures: [(&str, Vec<Duration>, Goal); 4] = [
        ("tasks run elsewhere", rounds.iter().map(|it| it.elsewhere).collect(), limit),
        ("fenced ones do", rounds.iter().filter_map(|it| it.fenced).collect(), Goal::None),
        ("a write is answered", rounds.iter().map(|it| it.write).collect(), elected),
        ("back, all as declared", rounds.iter().map(|it| it.healed).collect(), Goal::None),
    ];
    let ended: usize = rounds.iter().map(|it| it.ended).sum();
    report.row(row(format!("{what}: fenced ones elsewhere that ended"), "", ended as f64, Goal::Below(1.0)));
    for (figure, times, goal) in figures {
        let mut times: Times = times.into_iter().collect();
        report.row(row(format!("{what}: {figure}, p50"), "ms", times.ms(0.5), Goal::None));
        report.row(row(format!("{what}: {figure}, p99"), "ms", times.ms(0.99), goal));
    }
}

fn row(figure: String, unit: &'static str, measured: f64, goal: Goal) -> Row {
    Row { figure, unit, measured, baseline: None, goal }
}
