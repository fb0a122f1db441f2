//! Runs of many seeds, each in a process of its own: some randomness in a process depends on earlier seeds.

use std::fmt;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::QUIETLY;
use crate::play::{OUTCOME, Story};

/// Results of many seeds.
#[derive(Debug)]
pub(crate) struct Many {
    pub(crate) played: u64,
    took: Duration,
    /// Failed seeds with their last lines.
    pub(crate) failed: Vec<(u64, String)>,
}

impl fmt::Display for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (took, failed) = (self.took.as_secs_f64(), self.failed.len());
        write!(f, "{} seeds played in {took:.1} s, {failed} failed", self.played)
    }
}

/// Plays seeds on all processors, until all are played or the time is over.
pub(crate) fn play(story: Story, seeds: Range<u64>, time: Option<Duration>) -> Many {
    let began = Instant::now();
    let (next, played, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || time.is_some_and(|time| began.elapsed() > time) {
                return;
            }
            let why = play_one(story, seed).err();
            played.fetch_add(1, Ordering::Relaxed);
            failed.lock().extend(why.map(|why| (seed, why)));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner();
    failed.sort();
    Many { played: played.into_inner(), took: began.elapsed(), failed }
}

/// Plays a seed; an error is the end of its story.
fn play_one(story: Story, seed: u64) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let arguments = [story.to_string(), seed.to_string(), QUIETLY.to_owned()];
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome: Vec<&str> = text.lines().skip_while(|line| !line.starts_with(OUTCOME)).collect();
    match outcome.is_empty() {
        true => Err(format!("{story} {seed}: {} {}", output.status, String::from_utf8_lossy(&output.stderr))),
        false => Err(outcome.join("\n")),
    }
}
