//! The pool: all engines, one picture of them, one stream of their events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use herder_drivers::engine::Way;
use herder_model::{ClusterEvent, Container, Node};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::board::Board;
use crate::{Engine, life};

/// Events kept for a listener that is slow; a slower one is told that it missed some. As in classic Swarm.
pub const EVENT_QUEUE: usize = 10_000;

/// How the pool treats its engines. Flags of `herder manage` set them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Share that may be promised beyond what a node has: 0.05 is 5 %. Above -1.
    pub overcommit: f64,
    /// Full re-read of an engine without doubt happens between these.
    pub refresh_min: Duration,
    pub refresh_max: Duration,
    /// Connection failures in a row that make a node unhealthy.
    pub failure_retry: u32,
    /// How often a quiet engine is asked whether it lives.
    pub ping_period: Duration,
    /// How long a ping may take.
    pub ping_timeout: Duration,
    /// How engines are reached.
    pub way: Way,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            overcommit: 0.05,
            refresh_min: Duration::from_secs(30),
            refresh_max: Duration::from_secs(60),
            failure_retry: 3,
            ping_period: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(1),
            way: Way::Plain,
        }
    }
}

/// All engines. Cheap to share by `Arc`.
#[derive(Debug)]
pub struct Pool {
    settings: Arc<Settings>,
    board: Arc<Board>,
    members: RwLock<BTreeMap<String, Member>>,
    seen: Mutex<Seen>,
    placing: Mutex<Placing>,
}

/// What `nodes()` showed last.
#[derive(Debug, Default)]
struct Seen {
    /// Count of the board's pictures before the look.
    pictures: u64,
    nodes: Arc<[Arc<Node>]>,
}

#[derive(Debug)]
struct Member {
    engine: Arc<Engine>,
    stop: CancellationToken,
}

/// Placements under way, by ticket number.
#[derive(Debug, Default)]
struct Placing {
    next: u64,
    tickets: BTreeMap<u64, (String, Arc<Container>)>,
}

impl Pool {
    pub fn new(settings: Settings) -> Arc<Pool> {
        Arc::new(Pool {
            settings: Arc::new(settings),
            board: Arc::new(Board::new()),
            members: RwLock::default(),
            seen: Mutex::default(),
            placing: Mutex::default(),
        })
    }

    /// Makes exactly these addresses the members: newcomers are connected, others leave (with their containers).
    /// Must be called inside a tokio runtime.
    pub fn set_members(self: &Arc<Self>, addrs: &BTreeSet<String>) {
        let mut members = self.members.write();
        members.retain(|addr, member| {
            let stays = addrs.contains(addr);
            if !stays {
                info!(addr, "node has left");
                member.stop.cancel();
            }
            stays
        });
        for addr in addrs {
            members.entry(addr.clone()).or_insert_with(|| {
                let engine = Arc::new(Engine::new(addr, self.settings.clone(), self.board.clone()));
                let stop = CancellationToken::new();
                tokio::spawn(life::run(engine.clone(), stop.clone()));
                Member { engine, stop }
            });
        }
        drop(members);
        self.board.changed();
    }

    /// All nodes, pending ones too, in natural order of their names. Never waits.
    pub fn nodes(&self) -> Arc<[Arc<Node>]> {
        // Taken before the look, so that a change during the look is looked at again.
        let pictures = self.board.pictures();
        let mut seen = self.seen.lock();
        if seen.pictures != pictures {
            let nodes = self.look(&seen.nodes);
            *seen = Seen { pictures, nodes };
        }
        seen.nodes.clone()
    }

    /// The nodes as they are now. In the order of the last look if that still holds: sorting by name is what costs most.
    fn look(&self, last: &[Arc<Node>]) -> Arc<[Arc<Node>]> {
        let members = self.members.read();
        let same_place = |old: &Arc<Node>| {
            let node = members.get(&old.addr)?.engine.node();
            (node.name == old.name).then_some(node)
        };
        if last.len() == members.len()
            && let Some(nodes) = last.iter().map(same_place).collect::<Option<Vec<_>>>()
        {
            return nodes.into();
        }
        let mut nodes: Vec<Arc<Node>> = members.values().map(|member| member.engine.node()).collect();
        nodes.sort_by(|a, b| natural(&a.name, &b.name).then_with(|| natural(&a.addr, &b.addr)));
        nodes.into()
    }

    /// Grows with every change of `nodes()`, save that of `updated_at` alone.
    pub fn version(&self) -> u64 {
        self.board.version()
    }

    /// Wakes whoever wants to look again after a change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.board.changes()
    }

    /// The engine with this address.
    pub fn engine(&self, addr: &str) -> Option<Arc<Engine>> {
        self.members.read().get(addr).map(|member| member.engine.clone())
    }

    /// Events of all engines and of the pool itself (`engine_connect` …) from now on.
    pub fn events(&self) -> broadcast::Receiver<ClusterEvent> {
        self.board.events()
    }

    /// Publishes an event about a node that is not its engine's; `attributes` is an object of strings.
    pub fn announce(&self, action: &str, node: &Node, attributes: serde_json::Value) {
        self.board.announce_with(action, node, attributes);
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Decides under the placing lock. `decide` sees the nodes with all placements that are under way put in as
    /// containers, and answers with the address of the chosen node and the container to be. The [`Ticket`] keeps that
    /// container counted (name, ports, resources, slots) until it is dropped, so that no other placement can collide.
    pub fn place<E>(
        self: &Arc<Self>,
        decide: impl FnOnce(&[Arc<Node>]) -> Result<(String, Container), E>,
    ) -> Result<Ticket, E> {
        let began = Instant::now();
        let mut placing = self.placing.lock();
        let mut nodes = self.nodes().to_vec();
        for (number, (addr, container)) in &placing.tickets {
            let Some(node) = nodes.iter_mut().find(|node| node.addr == *addr) else { continue };
            let there = |other: &Arc<Container>| {
                other.name == container.name && other.swarm_id == container.swarm_id && !other.name.is_empty()
                    || !container.swarm_id.is_empty() && other.swarm_id == container.swarm_id
            };
            // Read back already: counted once, not twice.
            if !node.containers.values().any(there) {
                let container = Container { id: format!("placing-{number}"), ..Container::clone(container) };
                Arc::make_mut(node).put_container(Arc::new(container));
            }
        }
        let (addr, container) = decide(&nodes)?;
        let number = placing.next;
        placing.next += 1;
        // Read by `cargo xtask bench scale`.
        let took_us = began.elapsed().as_micros();
        debug!(addr, took_us, "placed");
        let container = Arc::new(container);
        placing.tickets.insert(number, (addr.clone(), container.clone()));
        Ok(Ticket { pool: self.clone(), number, addr, container })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for member in self.members.get_mut().values() {
            member.stop.cancel();
        }
    }
}

/// A placement under way. Drop it after the real container was read back (or the create failed).
#[derive(Debug)]
pub struct Ticket {
    pool: Arc<Pool>,
    number: u64,
    pub addr: String,
    pub container: Arc<Container>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pool.placing.lock().tickets.remove(&self.number);
    }
}

/// Order in which `node-2` comes before `node-10`.
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    pieces(a).cmp(&pieces(b))
}

/// `node-10` → `[("node-", 10)]`: text and number in turn.
fn pieces(text: &str) -> Vec<(&str, u64)> {
    let mut rest = text;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(word);
        let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (digits, tail) = tail.split_at(digits);
        pieces.push((word, digits.parse().unwrap_or(u64::MAX)));
        rest = tail;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_stand_in_natural_order() {
        let mut names = ["node-10", "node-2", "a", "node-2b", "node-1"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names.join(" "), "a node-1 node-2 node-2b node-10");
    }

    #[test]
    fn a_placement_under_way_is_seen_by_the_next() {
        let pool = Pool::new(Settings::default());
        let place = |name: &str| {
            pool.place(|_| Ok::<_, ()>(("a:1".into(), Container { name: name.into(), ..Container::default() })))
        };
        let first = place("x").unwrap();
        let second = place("y").unwrap();
        assert_eq!(pool.placing.lock().tickets.len(), 2);
        drop(first);
        let left: Vec<String> = pool.placing.lock().tickets.values().map(|(_, it)| it.name.clone()).collect();
        assert_eq!(left, std::slice::from_ref(&second.container.name));
    }

    /// A pool of one node per amount of memory, without engines behind them.
    fn pool_of(memories: &[i64]) -> Arc<Pool> {
        let pool = Pool::new(Settings::default());
        for (number, memory_bytes) in memories.iter().enumerate() {
            let addr = format!("n{number}:1");
            let engine = Arc::new(Engine::new(&addr, pool.settings.clone(), pool.board.clone()));
            engine.update(|node| {
                node.name = format!("n{number}");
                node.total.memory_bytes = *memory_bytes;
            });
            pool.members.write().insert(addr, Member { engine, stop: CancellationToken::new() });
        }
        pool
    }

    /// The first node with room, if the name is free.
    fn place(pool: &Arc<Pool>, name: &str, memory_bytes: i64) -> Result<Ticket, &'static str> {
        pool.place(|nodes| {
            if nodes.iter().flat_map(|node| node.containers.values()).any(|other| other.name == name) {
                return Err("taken");
            }
            let has_room = |node: &&Arc<Node>| node.used.memory_bytes + memory_bytes <= node.total.memory_bytes;
            let node = nodes.iter().find(has_room).ok_or("full")?;
            let reserved = herder_model::Resources { memory_bytes, ..Default::default() };
            Ok((node.addr.clone(), Container { name: name.into(), reserved, ..Container::default() }))
        })
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(50))]
        /// Some placements end with a container that was read back, some fail; all are made at the same time.
        #[test]
        fn concurrent_placements_never_share_a_name_or_oversubscribe(
            memories in proptest::collection::vec(0..100_i64, 1..4),
            wishes in proptest::collection::vec((0..12_u8, 1..60_i64, proptest::bool::ANY), 1..40),
        ) {
            let pool = pool_of(&memories);
            let kept = Mutex::new(Vec::new());
            let run = |wishes: &[(u8, i64, bool)]| {
                for (name, memory_bytes, stays) in wishes {
                    let Ok(ticket) = place(&pool, &format!("c{name}"), *memory_bytes) else { continue };
                    if *stays {
                        let engine = pool.engine(&ticket.addr).unwrap();
                        let id = format!("id-{}", ticket.number);
                        let read_back = Container { id, ..Container::clone(&ticket.container) };
                        engine.update(|node| node.put_container(Arc::new(read_back)));
                    } else {
                        // Under way until the end.
                        kept.lock().push(ticket);
                    }
                }
            };
            std::thread::scope(|scope| {
                for part in wishes.chunks(wishes.len().div_ceil(4)) {
                    scope.spawn(|| run(part));
                }
            });
            let nodes = pool.nodes();
            let mut names: Vec<&str> = nodes.iter().flat_map(|node| node.containers.values()).map(|it| it.name.as_str()).collect();
            let kept = kept.into_inner();
            names.extend(kept.iter().map(|ticket| ticket.container.name.as_str()));
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            proptest::prop_assert_eq!(count, names.len());
            for node in nodes.iter() {
                let tickets = kept.iter().filter(|ticket| ticket.addr == node.addr);
                let promised = node.used.memory_bytes + tickets.map(|ticket| ticket.container.reserved.memory_bytes).sum::<i64>();
                proptest::prop_assert!(promised <= node.total.memory_bytes, "{}: {promised}", node.name);
            }
        }
    }
}
