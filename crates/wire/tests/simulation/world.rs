//! Doors, owners of names and engines on the simulated network. What they decide is the real code of `herder_decide`; what
//! is simulated is who sends what when, and what gets lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use herder_decide::claims::{Claims, Settled};
use herder_decide::placing::{Claiming, Said, Tickets, Turns};
use herder_decide::request::{self, CreateRequest};
use herder_decide::schedule::{Filter, Scheduler};
use herder_model::{Node, NodeState};
use rand::RngExt as _;
use serde_json::json;

use crate::network::{Pool, id};

mod doors;
mod faults;
mod news;
mod truth;

/// Same as in `pool::life`: the pause before a broken stream of news is opened again.
const FOLLOW_REST: Duration = Duration::from_secs(1);
/// Same as in `wire::calls`: the maximum time of an answer to a claim.
const CLAIM_TIME_MAX: Duration = Duration::from_secs(3);
/// Same as in `wire::calls`: a connection that is silent for longer is broken.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// An event in the world.
pub(crate) enum Event {
    /// A client asks a door for a container.
    Ask(usize),
    /// Something arrives.
    Message {
        from: usize,
        to: usize,
        life: u64,
        message: Message,
    },
    /// The asking node has waited long enough.
    Late {
        job: usize,
        call: u64,
    },
    /// A door looks again.
    Look {
        job: usize,
        call: u64,
    },
    /// An image is there; the engine is asked.
    Brought {
        node: usize,
        life: u64,
        ticket: u64,
        job: usize,
        call: u64,
    },
    /// An engine has an answer, for the program that asked, if it still runs.
    Created {
        node: usize,
        host: u64,
        life: u64,
        ticket: u64,
        job: usize,
        call: u64,
    },
    /// Streams of news that are broken are opened again.
    Follow {
        node: usize,
        life: u64,
    },
    Settle {
        from: usize,
        life: u64,
        to: usize,
        number: u64,
        settled: Settled,
        attempts: u32,
    },
    /// A client removes a container, whichever comes first after this id.
    Remove {
        node: usize,
        after: u64,
    },
    /// The story goes on.
    Fault(Fault),
}

/// A fault that a story injects into the pool.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The program ends; its host and engine live.
    Stop(usize),
    /// The host loses power.
    Crash(usize),
    Start(usize),
    /// Hosts are on these sides now.
    Cut(Vec<u8>),
    Loss(u32),
}

#[derive(Clone)]
pub(crate) enum Message {
    Claim {
        job: usize,
        call: u64,
        name: Arc<str>,
        number: u64,
    },
    Given {
        job: usize,
        call: u64,
    },
    Refused {
        job: usize,
        call: u64,
        said: Said,
        why: String,
    },
    /// No program listens there, or it ended.
    Broken {
        job: usize,
        call: u64,
    },
    Settle {
        number: u64,
        settled: Settled,
    },
    Create {
        job: usize,
        call: u64,
    },
    Made {
        job: usize,
        call: u64,
        version: u64,
    },
    /// All containers of an engine, as they are then.
    News {
        node: Arc<Node>,
        version: u64,
    },
}

impl Message {
    /// The question that this asks.
    fn question(&self) -> Option<(usize, u64)> {
        match self {
            Message::Claim { job, call, .. } | Message::Create { job, call } => Some((*job, *call)),
            _ => None,
        }
    }

    /// The question that this answers.
    fn answers(&self) -> Option<(usize, u64)> {
        match self {
            Message::Given { job, call }
            | Message::Refused { job, call, .. }
            | Message::Broken { job, call }
            | Message::Made { job, call, .. } => Some((*job, *call)),
            _ => None,
        }
    }
}

/// Progress of a create.
#[derive(Debug)]
enum State {
    Claiming,
    /// Asked of this node.
    Asking {
        at: usize,
        ticket: u64,
    },
    /// Made; the door waits until its picture shows that.
    Reading {
        at: usize,
        ticket: u64,
        version: u64,
    },
    Ended,
}

/// Result of a create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Made,
    Refused(String),
    /// The door's program ended.
    BrokenOff,
}

/// One create, from the client's view.
pub(crate) struct Job {
    pub(crate) door: usize,
    pub(crate) request: Arc<CreateRequest>,
    pub(crate) began: Duration,
    pub(crate) end: Option<(Duration, End)>,
    life: u64,
    number: u64,
    claiming: Claiming,
    owners: Vec<usize>,
    turns: Option<Turns<String>>,
    call: u64,
    state: State,
}

/// One host.
pub(crate) struct Place {
    /// The engine, as it is. Survives every program.
    pub(crate) engine: Arc<Node>,
    /// Containers were made or removed so often.
    version: u64,
    /// Counts losses of power.
    host: u64,
    dark: bool,
    began: Duration,
    claims: Claims,
    tickets: Tickets,
    /// Pictures that this node has of the others, itself left out, by number.
    pub(crate) pictures: Vec<Option<Arc<Node>>>,
    versions: Vec<u64>,
    following: Vec<bool>,
    alive: BTreeMap<String, usize>,
}

/// A name that came to be on a second node.
#[derive(Clone, Debug)]
pub(crate) struct Double {
    /// The broken rule, with place and time.
    pub(crate) what: String,
    /// True if the network was cut at that moment, or shortly before the create began.
    pub(crate) cut: bool,
}

pub(crate) struct World {
    pub(crate) pool: Pool<Event>,
    pub(crate) places: Vec<Place>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) doubles: Vec<Double>,
    /// Periods of use of each name: from, to.
    pub used: BTreeMap<String, Vec<(Duration, Option<Duration>)>>,
    pub(crate) steps: u64,
    /// Creates of 1000 that have to bring an image, which takes seconds.
    pub(crate) images: u32,
    last_fault: Duration,
    last_cut: Option<Duration>,
    next: u64,
    scheduler: Scheduler,
}

pub(crate) struct Size {
    pub(crate) memory: i64,
    pub(crate) cpus: i64,
    pub(crate) slots: usize,
}

impl World {
    pub(crate) fn new(count: usize, seed: u64, size: impl Fn(usize) -> Size) -> World {
        let pool: Pool<Event> = Pool::new(count, seed);
        let place = |number: usize| {
            let Size { memory, cpus, slots } = size(number);
            let mut engine = Node {
                addr: address(number),
                name: format!("n{number:04}"),
                id: id(number),
                state: NodeState::Healthy,
                health_indicator: 100,
                ncpu: cpus,
                ..Node::default()
            };
            engine.total.memory_bytes = memory << 20;
            engine.total.nano_cpus = cpus * 1_000_000_000;
            engine.labels.insert("containerslots".into(), slots.to_string());
            Place {
                engine: Arc::new(engine),
                version: 1,
                host: 0,
                dark: false,
                began: Duration::ZERO,
                claims: Claims::default(),
                tickets: Tickets::default(),
                pictures: vec![None; count],
                versions: vec![0; count],
                following: vec![false; count],
                alive: BTreeMap::from([(id(number), number)]),
            }
        };
        let mut world = World {
            pool,
            places: (0..count).map(place).collect(),
            jobs: Vec::new(),
            doubles: Vec::new(),
            used: BTreeMap::new(),
            steps: 0,
            images: 0,
            last_fault: Duration::ZERO,
            last_cut: None,
            next: 0,
            scheduler: Scheduler { filters: Filter::ALL.to_vec(), ..Scheduler::default() },
        };
        // A thousand that begin at once look at each other when most have come.
        let first = if count > 100 { 5 * FOLLOW_REST } else { FOLLOW_REST };
        (0..count).for_each(|node| world.pool.later(first, Event::Follow { node, life: 1 }));
        world
    }

    /// A client will ask this door. `memory` in MiB, `cpus` whole, `port` 0 for none.
    pub(crate) fn ask(&mut self, after: Duration, door: usize, name: &str, memory: i64, cpus: i64, port: u16) {
        let mut host = json!({ "Memory": memory << 20, "NanoCpus": cpus * 1_000_000_000 });
        if port > 0 {
            host["PortBindings"] = json!({ "80/tcp": [{ "HostPort": port.to_string() }] });
        }
        let job = self.jobs.len();
        let body = json!({ "Image": "x", "HostConfig": host });
        let request = request::parse(Some(name), body, &format!("{job:064x}")).expect("a request");
        self.jobs.push(Job {
            door,
            request: Arc::new(request),
            began: self.pool.now + after,
            end: None,
            life: 0,
            number: self.pool.rng.random(),
            claiming: Claiming::default(),
            owners: Vec::new(),
            turns: None,
            call: 0,
            state: State::Claiming,
        });
        self.pool.later(after, Event::Ask(job));
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.pool.now + time;
        while let Some(event) = self.pool.step(end) {
            self.steps += 1;
            self.happen(event);
        }
    }

    /// Runs until it holds; how long that took. Fails after `limit`.
    pub(crate) fn until(
        &mut self,
        limit: Duration,
        what: &str,
        holds: impl Fn(&World) -> Result<(), String>,
    ) -> Duration {
        let began = self.pool.now;
        loop {
            let Err(reason) = holds(self) else { return self.pool.now - began };
            assert!(self.pool.now - began < limit, "{what}: not within {limit:?}: {reason}");
            self.run(Duration::from_millis(100));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Ask(job) => self.begin(job),
            Event::Message { from, to, life, message } => self.arrive(from, to, life, message),
            Event::Late { job, call } => self.late(job, call),
            Event::Look { job, call } if self.jobs[job].call == call => self.claim(job),
            Event::Brought { node, life, ticket, job, call } if self.runs(node, life) => {
                let host = self.places[node].host;
                let takes = Duration::from_millis(self.pool.rng.random_range(5..250));
                self.pool.later(takes, Event::Created { node, host, life, ticket, job, call });
            }
            Event::Created { node, host, life, ticket, job, call } if self.places[node].host == host => {
                self.created(node, life, ticket, job, call);
            }
            Event::Follow { node, life } if self.runs(node, life) => {
                self.follow(node);
                self.follow_soon(node);
            }
            Event::Settle { from, life, to, number, settled, attempts } if self.runs(from, life) => {
                self.settle(from, to, number, settled, attempts);
            }
            Event::Remove { node, after } => self.remove(node, after),
            Event::Fault(fault) => self.fault(fault),
            _ => {}
        }
    }

    fn runs(&self, node: usize, life: u64) -> bool {
        let host = &self.pool.hosts[node];
        host.core.is_some() && host.life == life
    }
}

pub(crate) fn address(number: usize) -> String {
    format!("n{number:04}:7946")
}
