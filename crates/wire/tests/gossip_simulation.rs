//! Gossip of a whole pool in one thread: the real core, a simulated network and clock, everything from one seed.
//!
//! `GOSSIP_SEEDS=5000 cargo test -p herder-wire --test gossip_simulation` plays more of them, `GOSSIP_SEED=17` one alone.
#![expect(clippy::print_stdout, reason = "a simulation tells what it measured")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use herder_wire::gossip::core::{Core, Effects, Event};
use herder_wire::gossip::{Health, Member, Settings};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const KEY: [u8; 32] = [7; 32];
const SECOND: Duration = Duration::from_secs(1);
/// Seeds that every test run plays.
const SEEDS: u64 = 530;

/// How the network treats packets.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// Of 1000 packets, so many are lost.
    loss: u32,
    /// Of 1000 packets, so many come twice.
    twice: u32,
    /// The longest way, in milliseconds.
    delay_ms: u64,
}

enum What {
    Packet { from: SocketAddr, to: usize, bytes: Bytes },
    Timer { node: usize, life: u64, event: Event },
}

struct Host {
    core: Option<Core<StdRng>>,
    /// Counts starts.
    life: u64,
    /// Hosts on different sides do not reach each other.
    side: u8,
}

impl Host {
    fn core(&self) -> &Core<StdRng> {
        self.core.as_ref().expect("a live node")
    }
}

struct Pool {
    now: Duration,
    last: u64,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    due: BTreeMap<u64, What>,
    hosts: Vec<Host>,
    weather: Weather,
    rng: StdRng,
    packets: u64,
}

fn addr(node: usize) -> SocketAddr {
    let [_, _, high, low] = u32::try_from(node).expect("a small pool").to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 7946))
}

fn number(addr: SocketAddr) -> usize {
    let IpAddr::V4(ip) = addr.ip() else { return usize::MAX };
    let [_, _, high, low] = ip.octets();
    usize::from(high) * 256 + usize::from(low)
}

fn id(node: usize) -> String {
    format!("node{node:021}")
}

impl Pool {
    /// Nodes that all begin now, each knowing one other.
    fn new(count: usize, seed: u64) -> Pool {
        let host = |_| Host { core: None, life: 0, side: 0 };
        let mut pool = Pool {
            now: Duration::ZERO,
            last: 0,
            queue: BinaryHeap::new(),
            due: BTreeMap::new(),
            hosts: (0..count).map(host).collect(),
            weather: Weather { delay_ms: 2, ..Weather::default() },
            rng: StdRng::seed_from_u64(seed),
            packets: 0,
        };
        (0..count).for_each(|node| pool.start(node));
        pool
    }

    fn start(&mut self, node: usize) {
        self.hosts[node].life += 1;
        let life = self.hosts[node].life;
        let me = Member { id: id(node), addr: addr(node), generation: life };
        let rng = StdRng::seed_from_u64(self.rng.random());
        let mut core = Core::new(me, KEY, Settings::default(), rng);
        let known = if node == 0 { self.hosts.len() - 1 } else { node / 2 };
        let begin = core.begin(vec![addr(known)]);
        let facts = core.set_facts(BTreeMap::from([("start".to_owned(), life.to_string())]));
        self.hosts[node].core = Some(core);
        self.carry_out(node, begin);
        self.carry_out(node, facts);
    }

    fn crash(&mut self, node: usize) {
        self.hosts[node].core = None;
        self.hosts[node].life += 1;
    }

    fn leave(&mut self, node: usize) {
        for step in [Core::leave, Core::leave_again] {
            let effects = step(self.hosts[node].core.as_mut().expect("a live node"));
            self.carry_out(node, effects);
        }
        self.crash(node);
    }

    fn put(&mut self, at: Duration, what: What) {
        self.last += 1;
        self.queue.push(Reverse((at, self.last)));
        self.due.insert(self.last, what);
    }

    fn carry_out(&mut self, node: usize, effects: Effects) {
        for (to, bytes) in effects.packets {
            assert!(bytes.len() <= 1400, "a packet of {} bytes", bytes.len());
            self.packets += 1;
            let to = number(to);
            if to >= self.hosts.len() {
                continue;
            }
            let copies = 1 + u32::from(self.rng.random_range(0..1000) < self.weather.twice);
            for _ in 0..copies {
                if self.rng.random_range(0..1000) >= self.weather.loss {
                    let late = Duration::from_micros(self.rng.random_range(50..=self.weather.delay_ms.max(1) * 1000));
                    self.put(self.now + late, What::Packet { from: addr(node), to, bytes: bytes.clone() });
                }
            }
        }
        let life = self.hosts[node].life;
        for (after, event) in effects.timers {
            self.put(self.now + after, What::Timer { node, life, event });
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, count))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            let (node, effects) = match self.due.remove(&count) {
                Some(What::Packet { from, to, bytes }) if self.hosts[number(from)].side == self.hosts[to].side => {
                    (to, self.hosts[to].core.as_mut().map(|core| core.packet(at, from, &bytes)))
                }
                Some(What::Timer { node, life, event }) if self.hosts[node].life == life => {
                    (node, self.hosts[node].core.as_mut().map(|core| core.event(at, event)))
                }
                _ => continue,
            };
            if let Some(effects) = effects {
                self.carry_out(node, effects);
            }
        }
        self.now = end;
    }

    /// Runs until it holds; how long that took. Fails after `limit`.
    fn until(&mut self, limit: Duration, what: &str, holds: impl Fn(&Pool) -> Result<(), String>) -> Duration {
        let began = self.now;
        loop {
            let Err(reason) = holds(self) else { return self.now - began };
            assert!(self.now - began < limit, "{what}: not within {limit:?}: {reason}");
            self.run(Duration::from_millis(50));
        }
    }

    fn live(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|node| self.hosts[*node].core.is_some()).collect()
    }

    /// Everybody on a side sees exactly who lives there as alive, with their newest facts.
    fn agrees(&self) -> Result<(), String> {
        let live = self.live();
        for seer in &live {
            let same_side = |node: &usize| self.hosts[*node].side == self.hosts[*seer].side;
            let side: Vec<usize> = live.iter().copied().filter(same_side).collect();
            let core = self.hosts[*seer].core();
            // Cheap first: the whole view only when the number is right.
            if core.live() != side.len() {
                return Err(format!("node {seer} sees {} of {} alive", core.live(), side.len()));
            }
            let view = core.view();
            for node in side {
                let seen = view.get(&id(node)).ok_or(format!("node {seer} does not know {node}"))?;
                let start = self.hosts[node].life.to_string();
                if seen.health != Health::Alive || seen.facts.get("start") != Some(&start) {
                    return Err(format!("node {seer} sees {node} as {:?} with {:?}", seen.health, seen.facts));
                }
            }
        }
        Ok(())
    }

    /// Pairs in which a live, reachable node is seen dead.
    fn slandered(&self) -> usize {
        let live = self.live();
        let by = |seer: &usize| {
            let view = self.hosts[*seer].core().view();
            let others = live.iter().filter(|node| self.hosts[**node].side == self.hosts[*seer].side);
            others.filter(|node| view.get(&id(**node)).is_some_and(|seen| seen.health >= Health::Dead)).count()
        };
        live.iter().map(by).sum()
    }

    fn seen_by_all(&self, node: usize, expected: Health) -> Result<(), String> {
        for seer in self.live() {
            let health = self.hosts[seer].core().view().get(&id(node)).map(|seen| seen.health);
            if health != Some(expected) {
                return Err(format!("node {seer} sees {node} as {health:?}"));
            }
        }
        Ok(())
    }

    /// Everybody counts so many alive.
    fn counted(&self, expected: usize) -> Result<(), String> {
        match self.live().into_iter().find(|node| self.hosts[*node].core().live() != expected) {
            None => Ok(()),
            Some(node) => Err(format!("node {node} counts {}", self.hosts[node].core().live())),
        }
    }
}

/// `share` of all seeds, or those that the environment asks for.
fn seeds(share: u64) -> Vec<u64> {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match asked("GOSSIP_SEED") {
        Some(seed) => vec![seed],
        None => (0..asked("GOSSIP_SEEDS").unwrap_or(SEEDS) * share / SEEDS).collect(),
    }
}

/// Plays every seed; says which one failed.
fn play<T>(share: u64, story: impl Fn(u64) -> T) -> Vec<T> {
    let mut outcomes = Vec::new();
    for seed in seeds(share) {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(seed))) {
            Ok(outcome) => outcomes.push(outcome),
            Err(panic) => {
                eprintln!("seed {seed} failed; GOSSIP_SEED={seed} plays it alone");
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

#[test]
fn a_dead_node_is_known_to_be_dead() {
    let times = play(150, |seed| {
        let mut pool = Pool::new(5, seed);
        pool.until(10 * SECOND, "a pool of five", Pool::agrees);
        pool.run(SECOND);
        pool.crash(3);
        pool.until(4 * SECOND, "a death", |pool| pool.seen_by_all(3, Health::Dead))
    });
    let most = tell("five nodes know of a death after", times);
    assert!(most <= 3 * SECOND, "{most:?}");
}

#[test]
fn a_node_that_says_goodbye_has_left() {
    play(20, |seed| {
        let mut pool = Pool::new(7, seed);
        pool.until(10 * SECOND, "a pool of seven", Pool::agrees);
        pool.leave(2);
        pool.until(4 * SECOND, "a goodbye", |pool| pool.seen_by_all(2, Health::Left));
    });
}

#[test]
fn nobody_is_slandered_for_long_when_packets_get_lost() {
    play(60, |seed| {
        let count = 3 + usize::try_from(seed).unwrap_or(0) * 7 % 20;
        let mut pool = Pool::new(count, seed);
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
        let mut pool = Pool::new(count, seed);
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
        let mut pool = Pool::new(5, seed);
        pool.until(10 * SECOND, "a pool of five", Pool::agrees);
        pool.hosts.iter_mut().take(2).for_each(|host| host.side = 1);
        pool.until(8 * SECOND, "two halves", Pool::agrees);
        pool.run(10 * SECOND);
        pool.hosts.iter_mut().for_each(|host| host.side = 0);
        pool.until(5 * SECOND, "one pool", Pool::agrees)
    });
    tell("five nodes that were cut 2|3 agree after", times);
}

#[test]
fn a_thousand_nodes_agree() {
    play(1, |seed| {
        let mut pool = Pool::new(1000, seed);
        let joined = pool.until(60 * SECOND, "a thousand nodes", |pool| pool.counted(1000));
        pool.crash(500);
        let known = pool.until(20 * SECOND, "a death", |pool| pool.counted(999));
        println!("a thousand nodes: joined after {joined:?}, a death known to all after {known:?}");
        println!("{} packets in {:?}", pool.packets, pool.now);
    });
}

#[test]
fn packets_of_strangers_and_old_ones_do_nothing() {
    let mut pool = Pool::new(3, 1);
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
