//! Whole swarms in one thread. Real stores, managers and agents run over simulated networks, disks, clocks and engines,
//! all from one seed. A story that failed is played again by its seed, step by step the same.
//!
//! `cargo xtask sim 17` plays one seed and prints what happened, `cargo xtask sim --seeds 0..5000` plays many.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]

mod chance;
mod disk;
mod engine;
mod history;
mod kernel;
mod leaving;
mod many;
mod net;
mod nodes;
mod play;
mod reach;
mod releases;
mod runs;
mod stores;
mod swarm;
mod trace;

use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use play::Story;

const USAGE: &str = "usage: herder-sim [stores|swarm|releases|parts] SEED, and everything is told
       herder-sim [stores|swarm|releases|parts] FROM..TO [SECONDS AT THE MOST, FOR EACH STORY]";

/// Argument after a seed: only its outcome is printed.
const QUIETLY: &str = "quietly";

enum Asked {
    One(Story, u64, bool),
    Many(Vec<Story>, Range<u64>, Option<Duration>),
}

fn parse(arguments: &[&str]) -> Option<Asked> {
    let (story, rest) = match arguments.split_first()? {
        (&"stores", rest) => (Some(Story::Stores), rest),
        (&"swarm", rest) => (Some(Story::Swarm), rest),
        (&"releases", rest) => (Some(Story::Releases), rest),
        (&"parts", rest) => (Some(Story::Parts), rest),
        _ => (None, arguments),
    };
    let (seeds, rest) = rest.split_first()?;
    let Some((from, to)) = seeds.split_once("..") else {
        return Some(Asked::One(story.unwrap_or(Story::Swarm), seeds.parse().ok()?, rest != [QUIETLY]));
    };
    let seconds = match rest {
        [] => None,
        [seconds, ..] => Some(Duration::from_secs(seconds.parse().ok()?)),
    };
    let stories = story.map_or_else(|| Story::ALL.to_vec(), |story| vec![story]);
    Some(Asked::Many(stories, from.parse().ok()?..to.parse().ok()?, seconds))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let all_well = match parse(&arguments) {
        None => {
            eprintln!("{USAGE}");
            false
        }
        Some(Asked::One(story, seed, told)) => {
            let outcome = play::play(story, seed, told);
            println!("{outcome}");
            outcome.failures.is_empty()
        }
        Some(Asked::Many(stories, seeds, time)) => {
            let played = stories.into_iter().map(|story| {
                let many = many::play(story, seeds.clone(), time);
                many.failed.iter().for_each(|(_, text)| println!("{text}"));
                println!("{story}: {many}");
                many.failed.is_empty() && many.played > 0
            });
            // All of them, also after one that failed.
            played.fold(true, |all, one| all & one)
        }
    };
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
