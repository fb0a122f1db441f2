//! A simulated network and clock, and a node of the real gossip core on each host.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use herder_model::Liveness;
use herder_wire::gossip::core::{Core, Effects, Event};
use herder_wire::gossip::{Member, Settings};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub(crate) const KEY: [u8; 32] = [7; 32];
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Treatment of packets by the network.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// Lost packets of 1000.
    pub(crate) loss: u32,
    /// Duplicated packets of 1000.
    pub(crate) twice: u32,
    /// The longest way, in milliseconds.
    pub(crate) delay_ms: u64,
}

/// A scheduled event. `A` is the type of a story's own events.
enum What<A> {
    Packet { from: SocketAddr, to: usize, bytes: Bytes },
    Timer { node: usize, life: u64, event: Event },
    Other(A),
}

pub(crate) struct Host {
    pub(crate) core: Option<Core<StdRng>>,
    /// Counts starts.
    pub(crate) life: u64,
    /// Hosts on different sides do not reach each other.
    pub(crate) side: u8,
    /// Its view of the others is not what it was when this was last set to false.
    pub(crate) viewed: bool,
}

impl Host {
    pub(crate) fn core(&self) -> &Core<StdRng> {
        self.core.as_ref().expect("a live node")
    }
}

pub(crate) struct Pool<A = ()> {
    pub(crate) now: Duration,
    last: u64,
    /// Keyed by time, then in the order in which it was put in.
    due: BTreeMap<(Duration, u64), What<A>>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) weather: Weather,
    pub(crate) rng: StdRng,
    pub(crate) packets: u64,
}

pub(crate) fn addr(node: usize) -> SocketAddr {
    let [_, _, high, low] = u32::try_from(node).expect("a small pool").to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 7946))
}

pub(crate) fn number(addr: SocketAddr) -> usize {
    let IpAddr::V4(ip) = addr.ip() else { return usize::MAX };
    let [_, _, high, low] = ip.octets();
    usize::from(high) * 256 + usize::from(low)
}

pub(crate) fn id(node: usize) -> String {
    format!("node{node:021}")
}

impl<A> Pool<A> {
    /// Nodes that all begin now, each knowing one other.
    pub(crate) fn new(count: usize, seed: u64) -> Pool<A> {
        let host = |_| Host { core: None, life: 0, side: 0, viewed: false };
        let mut pool = Pool {
            now: Duration::ZERO,
            last: 0,
            due: BTreeMap::new(),
            hosts: (0..count).map(host).collect(),
            weather: Weather { delay_ms: 2, ..Weather::default() },
            rng: StdRng::seed_from_u64(seed),
            packets: 0,
        };
        (0..count).for_each(|node| pool.start(node));
        pool
    }

    pub(crate) fn start(&mut self, node: usize) {
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

    pub(crate) fn crash(&mut self, node: usize) {
        self.hosts[node].core = None;
        self.hosts[node].life += 1;
    }

    pub(crate) fn leave(&mut self, node: usize) {
        for step in [Core::leave, Core::leave_again] {
            let effects = step(self.hosts[node].core.as_mut().expect("a live node"));
            self.carry_out(node, effects);
        }
        self.crash(node);
    }

    fn put(&mut self, at: Duration, what: What<A>) {
        self.last += 1;
        self.due.insert((at, self.last), what);
    }

    /// Puts in something of the story's own.
    pub(crate) fn later(&mut self, after: Duration, other: A) {
        self.put(self.now + after, What::Other(other));
    }

    /// Returns the travel time of a message.
    pub(crate) fn way(&mut self) -> Duration {
        Duration::from_micros(self.rng.random_range(50..=self.weather.delay_ms.max(1) * 1000))
    }

    pub(crate) fn reach(&self, one: usize, other: usize) -> bool {
        self.hosts[one].side == self.hosts[other].side
    }

    pub(crate) fn carry_out(&mut self, node: usize, effects: Effects) {
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
                    let late = self.way();
                    self.put(self.now + late, What::Packet { from: addr(node), to, bytes: bytes.clone() });
                }
            }
        }
        self.hosts[node].viewed |= effects.changed;
        let life = self.hosts[node].life;
        for (after, event) in effects.timers {
            self.put(self.now + after, What::Timer { node, life, event });
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end).is_some() {}
    }

    /// Runs until an event of the story is due, or to the end.
    pub(crate) fn step(&mut self, end: Duration) -> Option<A> {
        while let Some(next) = self.due.first_entry() {
            let (at, _) = *next.key();
            if at > end {
                break;
            }
            self.now = at;
            let (node, effects) = match next.remove() {
                What::Other(other) => return Some(other),
                What::Packet { from, to, bytes } if self.hosts[number(from)].side == self.hosts[to].side => {
                    (to, self.hosts[to].core.as_mut().map(|core| core.packet(at, from, &bytes)))
                }
                What::Timer { node, life, event } if self.hosts[node].life == life => {
                    (node, self.hosts[node].core.as_mut().map(|core| core.event(at, event)))
                }
                _ => continue,
            };
            if let Some(effects) = effects {
                self.carry_out(node, effects);
            }
        }
        self.now = end;
        None
    }

    /// Runs until it holds; how long that took. Fails after `limit`.
    pub(crate) fn until(
        &mut self,
        limit: Duration,
        what: &str,
        holds: impl Fn(&Pool<A>) -> Result<(), String>,
    ) -> Duration {
        let began = self.now;
        loop {
            let Err(reason) = holds(self) else { return self.now - began };
            assert!(self.now - began < limit, "{what}: not within {limit:?}: {reason}");
            self.run(Duration::from_millis(50));
        }
    }

    pub(crate) fn live(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|node| self.hosts[*node].core.is_some()).collect()
    }

    /// Everybody on a side sees exactly who lives there as alive, with their newest facts.
    pub(crate) fn agrees(&self) -> Result<(), String> {
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
                if seen.health != Liveness::Alive || seen.facts.get("start") != Some(&start) {
                    return Err(format!("node {seer} sees {node} as {:?} with {:?}", seen.health, seen.facts));
                }
            }
        }
        Ok(())
    }

    /// Pairs in which a live, reachable node is not seen to live.
    pub(crate) fn slandered(&self) -> usize {
        let live = self.live();
        let mut lives = vec![false; self.hosts.len()];
        live.iter().for_each(|node| lives[*node] = true);
        let by = |seer: &usize| {
            let there = live.iter().filter(|node| self.reach(*seer, **node)).count();
            let seen = self.hosts[*seer].core().addresses().map(number);
            there - seen.filter(|node| lives[*node] && self.reach(*seer, *node)).count()
        };
        live.iter().map(by).sum()
    }

    pub(crate) fn seen_by_all(&self, node: usize, expected: Liveness) -> Result<(), String> {
        for seer in self.live() {
            let health = self.hosts[seer].core().view().get(&id(node)).map(|seen| seen.health);
            if health != Some(expected) {
                return Err(format!("node {seer} sees {node} as {health:?}"));
            }
        }
        Ok(())
    }

    /// Checks that every node counts this many alive.
    pub(crate) fn counted(&self, expected: usize) -> Result<(), String> {
        match self.live().into_iter().find(|node| self.hosts[*node].core().live() != expected) {
            None => Ok(()),
            Some(node) => Err(format!("node {node} counts {}", self.hosts[node].core().live())),
        }
    }
}
