//! Seeds of every test run. `cargo xtask test` plays more of them, and faster; `HERDER_SIM_SEEDS` and `HERDER_SIM_SECONDS` say how
//! many of each story, and for how long at the most.

use std::process::Command;

/// Number of seeds that a test run without optimization has time for.
const SEEDS: &str = "10";
const SECONDS: &str = "30";

fn play(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_herder-sim")).args(arguments).output().expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Plays the configured number of seeds, divided by `share`, in a time divided likewise.
fn check(story: &str, share: u64) {
    let asked = |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    let number = |name: &str, otherwise: &str| asked(name, otherwise).parse::<u64>().expect("a number").div_ceil(share);
    let seeds = format!("0..{}", number("HERDER_SIM_SEEDS", SEEDS));
    let (is_well, text) = play(&[story, &seeds, &number("HERDER_SIM_SECONDS", SECONDS).to_string()]);
    eprintln!("{text}");
    assert!(is_well, "`cargo xtask sim SEED --story {story}` tells all of one");
}

#[test]
fn stores_lose_nothing_and_tell_one_story_through_all_faults() {
    check("stores", 1);
}

#[test]
fn swarms_come_through_all_faults_to_what_is_declared() {
    check("swarm", 1);
}

#[test]
fn swarms_come_through_loops_that_panic() {
    check("parts", 6);
}

#[test]
fn nothing_that_the_next_release_wrote_is_lost_while_nodes_are_upgraded_and_go_back() {
    check("releases", 6);
}

#[test]
fn a_seed_is_played_again_step_by_step() {
    for story in ["stores", "swarm"] {
        let (one, again, other) = (play(&[story, "7"]).1, play(&[story, "7"]).1, play(&[story, "8"]).1);
        let differ = one.lines().zip(again.lines()).find(|(one, again)| one != again);
        assert_eq!(differ, None, "{story}");
        assert_eq!(one.len(), again.len(), "{story}");
        assert_ne!(one, other, "{story}");
    }
}
