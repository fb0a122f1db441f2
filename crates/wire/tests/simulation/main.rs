//! A whole pool in one thread: real gossip and decisions, simulated network and clock, all from one seed.
//!
//! `SEEDS=5000 cargo test -p herder-wire --test simulation` plays more of them, `SEED=17` one alone.
#![expect(clippy::print_stdout, reason = "a simulation tells what it measured")]

mod gossip;
mod network;
mod placing;
mod world;

use std::time::Duration;

/// Seeds that every test run plays, of each kind of stories: gossip, and placing.
const SEEDS: u64 = 530;

/// `share` of all seeds, or those that the environment asks for.
fn seeds(share: u64) -> Vec<u64> {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match asked("SEED") {
        Some(seed) => vec![seed],
        None => (0..asked("SEEDS").unwrap_or(SEEDS) * share / SEEDS).collect(),
    }
}

/// Plays every seed; says which one failed.
fn play<T>(share: u64, story: impl Fn(u64) -> T) -> Vec<T> {
    let mut outcomes = Vec::new();
    for seed in seeds(share) {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(seed))) {
            Ok(outcome) => outcomes.push(outcome),
            Err(panic) => {
                eprintln!("seed {seed} failed; SEED={seed} plays it alone");
                std::panic::resume_unwind(panic);
            }
        }
    }
    outcomes
}

/// Prints p50, p99 and the longest; gives the 95 % point.
fn tell(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let share = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{what}: p50 {:?}, p99 {:?}, max {:?} of {}", share(50), share(99), share(100), times.len());
    share(95)
}
