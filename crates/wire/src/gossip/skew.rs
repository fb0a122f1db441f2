//! Packets of other versions: dropped and counted, and gossip goes on.

use std::collections::BTreeMap;

use super::core::{Core, Counters, Member, Settings};
use super::seal::Sealer;
use super::*;
use herder_model::Liveness;

const KEY: [u8; 32] = [1; 32];

fn member(number: u8) -> Member {
    Member { id: format!("node{number}"), addr: SocketAddr::from(([10, 0, 0, number], 7946)), generation: 1 }
}

fn core(number: u8) -> Core<StdRng> {
    Core::new(member(number), KEY, Settings::default(), StdRng::seed_from_u64(number.into()))
}

/// Gives a packet to a core that is alone: what it counts, and how many packets it answers with.
#[track_caller]
fn check(packet: &[u8], expected: Counters) {
    let mut core = core(1);
    core.begin(Vec::new());
    let answers = core.packet(Duration::from_secs(1), member(2).addr, packet).packets.len();
    assert_eq!((core.counters(), answers), (expected, 0));
    assert_eq!(core.live(), 1);
}

#[test]
fn a_packet_of_another_version_is_dropped_and_counted() {
    let other = |count| Counters { other_version: count, ..Counters::default() };
    let mut packet = Sealer::new(&KEY, [2; 16]).seal(b"hello").to_vec();
    for version in [0, 2, 255] {
        packet[0] = version;
        check(&packet, other(1));
        check(&[version], other(1));
    }
    let mut core = core(1);
    for _ in 0..3 {
        core.packet(Duration::from_secs(1), member(2).addr, &packet);
    }
    assert_eq!(core.counters(), other(3));
    check(&[], Counters { sealed_wrong: 1, ..Counters::default() });
}

#[test]
fn a_kind_of_packet_that_a_later_version_adds_is_dropped_and_counted() {
    for kind in [6, 7, 100] {
        let packet = Sealer::new(&KEY, [2; 16]).seal(&[kind, 5, 1, 2, 3]);
        check(&packet, Counters { malformed: 1, ..Counters::default() });
    }
}

/// Runs two nodes on a network without losses for some time.
fn run(nodes: [&mut Core<StdRng>; 2], begin: [Effects; 2], end: Duration) {
    let mut now = Duration::ZERO;
    let mut timers: Vec<(Duration, usize, Event)> = Vec::new();
    let mut waiting: Vec<(usize, Effects)> = begin.into_iter().enumerate().collect();
    loop {
        while let Some((node, effects)) = waiting.pop() {
            timers.extend(effects.timers.into_iter().map(|(after, event)| (now + after, node, event)));
            for (to, packet) in effects.packets.into_iter().filter(|(to, _)| *to == member(2 - node as u8).addr) {
                let there = 1 - node;
                assert_eq!(to, member(there as u8 + 1).addr);
                waiting.push((there, nodes[there].packet(now, member(node as u8 + 1).addr, &packet)));
            }
        }
        let next = timers.iter().enumerate().min_by_key(|(_, (due, ..))| *due).map(|(index, _)| index);
        let Some((due, node, event)) = next.map(|index| timers.swap_remove(index)).filter(|it| it.0 < end) else {
            return;
        };
        now = due;
        waiting.push((node, nodes[node].event(now, event)));
    }
}

#[test]
fn after_packets_of_other_versions_nodes_find_each_other_and_pass_on_facts_that_they_do_not_know() {
    let (mut one, mut other) = (core(1), core(2));
    let mut sealer = Sealer::new(&KEY, [9; 16]);
    for packet in [&[2u8, 0, 0][..], &sealer.seal(&[77, 1])] {
        one.packet(Duration::from_secs(1), member(3).addr, packet);
    }
    let facts = BTreeMap::from([("of the next version".to_owned(), "some".to_owned())]);
    one.set_facts(facts.clone());
    let begin = [one.begin(vec![member(2).addr]), other.begin(Vec::new())];
    run([&mut one, &mut other], begin, Duration::from_secs(3));
    let view = other.view();
    let seen = view.get("node1").expect("node1 was heard of");
    assert_eq!((seen.health, &*seen.facts), (Liveness::Alive, &facts));
    assert_eq!(other.counters(), Counters::default());
}

#[test]
fn values_of_facts_stay_out_of_the_debug_form() {
    let mut one = core(1);
    one.set_facts(BTreeMap::from([("join".to_owned(), "hush".to_owned())]));
    let text = format!("{:?} {one:?}", one.view());
    assert!(text.contains("join") && !text.contains("hush"), "{text}");
}
