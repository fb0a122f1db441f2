//! Stories of who is in the pool.

use std::time::Duration;

use herder_model::Liveness;
use herder_wire::gossip::core::Core;
use herder_wire::gossip::{Member, Settings};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::network::{Pool, SECOND, Weather, addr, id};
use crate::{play, tell};

#[test]
fn a_dead_node_is_known_to_be_dead() {
    let times = play(150, |seed| {
        let mut pool = Pool::<()>::new(5, seed);
        pool.until(10 * SECOND, "a pool of five", Pool::agrees);
        pool.run(SECOND);
        pool.crash(3);
        pool.until(4 * SECOND, "a death", |pool| pool.seen_by_all(3, Liveness::Dead))
    });
    let most = tell("five nodes know of a death after", times);
    assert!(most <= 3 * SECOND, "{most:?}");
}

#[test]
fn a_node_that_says_goodbye_has_left() {
    play(20, |seed| {
        let mut pool = Pool::<()>::new(7, seed);
        pool.until(10 * SECOND, "a pool of seven", Pool::agrees);
        pool.leave(2);
        pool.until(4 * SECOND, "a goodbye", |pool| pool.seen_by_all(2, Liveness::Left));
    });
}

#[test]
fn nobody_is_slandered_for_long_when_packets_get_lost() {
    play(60, |seed| {
        let count = 3 + usize::try_from(seed).unwrap_or(0) * 7 % 20;
        let mut pool = Pool::<()>::new(count, seed);
        pool.until(15 * SECOND, "a pool", Pool::agrees);
        pool.weather = Weather { loss: 50, twice: 20, delay_ms: 20 };
        let (step, mut slandered) = (Duration::from_millis(200), Duration::ZERO);
        for _ in 0..100 {
            pool.run(step);
            slandered = if pool.slandered() > 0 { slandered + step } else { Duration::ZERO };
            assert!(slandered <= 2 * SECOND, "a live node is seen dead for {slandered:?}");
        }
    });
}

#[test]
fn after_all_faults_everybody_agrees() {
    let times = play(260, |seed| {
        let mut dice = StdRng::seed_from_u64(seed ^ 0xfa17);
        let count = dice.random_range(3..=14);
        let mut pool = Pool::<()>::new(count, seed);
        for _ in 0..dice.random_range(2..8) {
            match dice.random_range(0..5) {
                0 => pool.weather = Weather { loss: dice.random_range(0..100), twice: 30, delay_ms: 50 },
                1 => pool.crash(dice.random_range(0..count)),
                2 => {
                    let node = dice.random_range(0..count);
                    pool.crash(node);
                    pool.start(node);
                }
                3 => pool.hosts.iter_mut().for_each(|host| host.side = dice.random_range(0..2)),
                _ => pool.hosts.iter_mut().for_each(|host| host.side = 0),
            }
            pool.run(Duration::from_millis(dice.random_range(0..4000)));
        }
        pool.weather = Weather { delay_ms: 2, ..Weather::default() };
        pool.hosts.iter_mut().for_each(|host| host.side = 0);
        for node in 0..count {
            if pool.hosts[node].core.is_none() {
                pool.start(node);
            }
        }
        pool.until(10 * SECOND, "agreement after faults", Pool::agrees)
    });
    tell("after faults, everybody agrees after", times);
}

#[test]
fn a_pool_that_was_cut_in_two_is_one_again() {
    let times = play(38, |seed| {
        let mut pool = Pool::<()>::new(5, seed);
        pool.until(10 * SECOND, "a pool of five", Pool::agrees);
        pool.hosts.iter_mut().take(2).for_each(|host| host.side = 1);
        pool.until(8 * SECOND, "two halves", Pool::agrees);
        pool.run(10 * SECOND);
        pool.hosts.iter_mut().for_each(|host| host.side = 0);
        pool.until(5 * SECOND, "one pool", Pool::agrees)
    });
    tell("five nodes that were cut 2|3 agree after", times);
}

/// A pool too large for one node to send everything to all.
#[test]
fn in_a_large_pool_newcomers_know_all_within_4_s_and_nobody_is_slandered_for_longer_than_2_s() {
    let times = play(3, |seed| {
        let count = 120;
        let mut pool = Pool::<()>::new(count, seed);
        let joined = pool.until(6 * SECOND, "a large pool", Pool::agrees);
        (0..5).for_each(|node| pool.crash(node * 20));
        pool.until(6 * SECOND, "deaths", Pool::agrees);
        (0..5).for_each(|node| pool.start(node * 20));
        let known = pool.until(4 * SECOND, "newcomers", Pool::agrees);
        pool.weather.loss = 50;
        let (step, mut slandered) = (Duration::from_millis(200), Duration::ZERO);
        for _ in 0..60 {
            pool.run(step);
            slandered = if pool.slandered() > 0 { slandered + step } else { Duration::ZERO };
            assert!(slandered <= 2 * SECOND, "a live node is seen dead for {slandered:?}");
        }
        pool.hosts.iter_mut().take(6).for_each(|host| host.side = 1);
        pool.run(8 * SECOND);
        pool.hosts.iter_mut().for_each(|host| host.side = 0);
        pool.weather.loss = 0;
        let healed = pool.until(6 * SECOND, "one pool", Pool::agrees);
        (joined, known, healed)
    });
    println!("120 nodes: joined, newcomers know all, one pool after a cut: {times:?}");
}

#[test]
fn packets_of_strangers_and_old_ones_do_nothing() {
    let mut pool = Pool::<()>::new(3, 1);
    pool.until(10 * SECOND, "a pool of three", Pool::agrees);
    let stranger = Member { id: id(9), addr: addr(9), generation: 1 };
    let mut stranger = Core::new(stranger, [8; 32], Settings::default(), StdRng::seed_from_u64(2));
    let knock = stranger.begin(vec![addr(0)]).packets.remove(0).1.to_vec();
    let cut = knock[..30].to_vec();
    let noise = [knock, cut, Vec::new(), vec![0; 64 << 10], b"GET / HTTP/1.1".to_vec()];
    let victim = pool.hosts[0].core.as_mut().expect("a live node");
    for packet in &noise {
        let effects = victim.packet(SECOND, addr(9), packet);
        assert!(effects.packets.is_empty() && !effects.changed);
    }
    let counters = victim.counters();
    // Of the noise two begin with a byte that might be a version.
    assert_eq!((counters.sealed_wrong, counters.other_version), (3, 2));
    // A packet of the pool itself, sent once more.
    let packet = pool.hosts[1].core.as_mut().expect("a live node").add_seeds(vec![addr(7)]).packets.remove(0).1;
    let victim = pool.hosts[0].core.as_mut().expect("a live node");
    for _ in 0..2 {
        let _ = victim.packet(SECOND, addr(1), &packet);
    }
    assert_eq!(victim.counters().replayed, 1);
    pool.until(SECOND, "agreement", Pool::agrees);
}
