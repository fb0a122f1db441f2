//! The pool: all engines, one picture of them, one stream of their events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use herder_decide::naming::Naming;
use herder_decide::placing::Tickets;
use herder_docker::Way;
use herder_model::{ClusterEvent, Container, Node};
use herder_parts::Parts;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::board::Board;
use crate::{Engine, Source, life};

/// Events kept for a slow listener. A slower one is informed that it missed some. As in classic Swarm.
pub const EVENT_QUEUE: usize = 10_000;

/// Settings of the pool. Flags of `herder manage` set them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Share that may be promised beyond what a node has: 0.05 is 5 %. Above -1.
    pub overcommit: f64,
    /// Full re-read of an engine without doubt happens between these.
    pub refresh_min: Duration,
    pub refresh_max: Duration,
    /// Connection failures in a row that make a node unhealthy.
    pub failure_retry: u32,
    /// Interval of pings to a quiet engine.
    pub ping_period: Duration,
    /// Maximum time of a ping.
    pub ping_timeout: Duration,
    /// Way to reach engines.
    pub way: Way,
    /// Other nodes, which read some of the engines.
    pub source: Option<Arc<dyn Source>>,
    /// Naming of objects of one node in lists.
    pub naming: Naming,
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
            source: None,
            naming: Naming::default(),
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
    placing: Mutex<Tickets>,
}

/// The last result of `nodes()`.
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
                let (of, until) = (engine.clone(), stop.clone());
                let parts = Parts::new(stop.clone());
                parts.restarted("engine", move || life::run(of.clone(), until.clone()));
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

    /// Watches for changes.
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
        placing.put_into(&mut nodes);
        let (addr, container) = decide(&nodes)?;
        // Read by `cargo xtask bench scale`.
        let took_us = began.elapsed().as_micros();
        debug!(addr, took_us, "placed");
        let container = Arc::new(container);
        let number = placing.add(addr.clone(), container.clone());
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
        self.pool.placing.lock().end(self.number);
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
    use herder_decide::schedule::Scheduler;
    use herder_model::Resources;

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
        assert_eq!(pool.placing.lock().containers().count(), 2);
        drop(first);
        let left: Vec<String> = pool.placing.lock().containers().map(|it| it.name.clone()).collect();
        assert_eq!(left, std::slice::from_ref(&second.container.name));
    }

    /// Returns a pool of healthy nodes with so many bytes and eighths of a processor, without engines.
    fn pool_of(sizes: &[(i64, i64)]) -> Arc<Pool> {
        let pool = Pool::new(Settings::default());
        for (number, (memory_bytes, eighths)) in sizes.iter().enumerate() {
            let addr = format!("n{number}:1");
            let engine = Arc::new(Engine::new(&addr, pool.settings.clone(), pool.board.clone()));
            engine.update(|node| {
                node.name = format!("n{number}");
                node.state = herder_model::NodeState::Healthy;
                node.health_indicator = 100;
                node.total = Resources { nano_cpus: eighths * EIGHTH, memory_bytes: *memory_bytes };
            });
            pool.members.write().insert(addr, Member { engine, stop: CancellationToken::new() });
        }
        pool
    }

    /// Billionths in an eighth of a processor.
    const EIGHTH: i64 = 125_000_000;

    /// A client's request: the number in the name, bytes, eighths of a processor, and the outcome.
    type Wish = (u8, i64, i64, End);

    #[derive(Clone, Copy, Debug)]
    enum End {
        /// Read back from the engine, then the ticket ends.
        Created,
        /// The engine refused.
        Failed,
        /// Still under way when all others have ended.
        UnderWay,
    }

    /// Chooses the node as a door does: names are taken once, the scheduler finds room.
    fn place(pool: &Arc<Pool>, (name, memory, eighths, _): Wish) -> Result<Ticket, String> {
        let host = serde_json::json!({"Memory": memory, "NanoCpus": eighths * EIGHTH});
        let swarm_id = format!("{:x}", rand::random::<u128>());
        let body = serde_json::json!({ "HostConfig": host });
        let request = herder_decide::request::parse(Some(&format!("c{name}")), body, &swarm_id).unwrap();
        pool.place(|nodes| {
            let mut others = nodes.iter().flat_map(|node| node.containers.values());
            if others.any(|other| other.name == request.container.name) {
                return Err("taken".to_owned());
            }
            let ranked = Scheduler::default().rank(&request, nodes, &mut rand::rng()).map_err(|error| error.summary)?;
            Ok((ranked[0].addr.clone(), request.container.clone()))
        })
    }

    /// Places each wish; gives the tickets that are not over.
    fn run(pool: &Arc<Pool>, wishes: &[Wish]) -> Vec<Ticket> {
        let mut kept = Vec::new();
        for wish in wishes {
            let Ok(ticket) = place(pool, *wish) else { continue };
            match wish.3 {
                End::Created => {
                    let id = format!("id-{}", ticket.number);
                    let read_back = Container { id, ..Container::clone(&ticket.container) };
                    pool.engine(&ticket.addr).unwrap().update(|node| node.put_container(Arc::new(read_back)));
                    // Between here and the end of the ticket it must count once, not twice and not never.
                    std::thread::yield_now();
                }
                End::Failed => std::thread::yield_now(),
                End::UnderWay => kept.push(ticket),
            }
        }
        kept
    }

    fn wishes() -> impl proptest::strategy::Strategy<Value = Vec<Wish>> {
        let end = proptest::sample::select(vec![End::Created, End::Created, End::Failed, End::UnderWay]);
        proptest::collection::vec((0..30_u8, 0..60_i64, 0..6_i64, end), 1..60)
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(100))]
        #[test]
        fn concurrent_placements_never_share_a_name_or_oversubscribe(
            sizes in proptest::collection::vec((0..100_i64, 0..16_i64), 1..4),
            wishes in wishes(),
        ) {
            let pool = pool_of(&sizes);
            let kept: Vec<Ticket> = std::thread::scope(|scope| {
                let parts = wishes.chunks(wishes.len().div_ceil(4));
                let threads: Vec<_> = parts.map(|part| scope.spawn(|| run(&pool, part))).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            let nodes = pool.nodes();
            let mut names: Vec<&str> = nodes.iter().flat_map(|node| node.containers.values()).map(|it| it.name.as_str()).collect();
            names.extend(kept.iter().map(|ticket| ticket.container.name.as_str()));
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            proptest::prop_assert_eq!(count, names.len());
            for node in nodes.iter() {
                let tickets = kept.iter().filter(|ticket| ticket.addr == node.addr);
                let promised = tickets.map(|ticket| ticket.container.reserved).fold(node.used, std::ops::Add::add);
                proptest::prop_assert!(promised.memory_bytes <= node.total.memory_bytes, "{}: {promised:?}", node.name);
                proptest::prop_assert!(promised.nano_cpus <= node.total.nano_cpus, "{}: {promised:?}", node.name);
            }
            // What was not refused for good can be had by the next.
            drop(kept);
            proptest::prop_assert_eq!(pool.placing.lock().containers().count(), 0);
        }
    }
}
