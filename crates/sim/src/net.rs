//! A network that is played: it takes its time, loses things, and can be cut in two, in either direction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use herder_agent::session::{Heard, Lines};
use herder_manager::Manager;
use herder_model::swarm::{LEVEL, ManagerAddr};
use herder_store::{Store, Transport, TransportError};
use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::releases::as_next_release;
use crate::trace::Trace;

/// A packet that was lost is sent again after so long, in milliseconds.
const AGAIN: std::ops::Range<u64> = 200..600;

/// Copies are the same network.
#[derive(Clone)]
pub(crate) struct Net(Arc<Mutex<Wires>>);

struct Wires {
    rng: StdRng,
    trace: Trace,
    stores: BTreeMap<String, (u64, Arc<Store>)>,
    /// The starts of nodes that go on.
    lives: BTreeMap<String, u64>,
    managers: BTreeMap<String, (u64, Arc<Manager>)>,
    /// Nodes whose program is of a later release: they say what this one does not know.
    newer: BTreeSet<String>,
    /// Nodes that do not reach each other, in one direction.
    cut: BTreeSet<(String, String)>,
    /// Lost messages of a thousand.
    lost: u32,
    /// One way, in milliseconds.
    delay: std::ops::Range<u64>,
}

/// The network, as one start of a node has it.
#[derive(Clone)]
pub(crate) struct Port {
    net: Net,
    me: String,
    start: u64,
}

/// Fate of one message: delivered after a delay, never delivered, or failed after a delay.
enum Way {
    There(Duration),
    Nowhere,
    Broken(Duration),
}

impl Net {
    pub(crate) fn new(rng: StdRng, trace: Trace) -> Net {
        let wires = Wires {
            rng,
            trace,
            stores: BTreeMap::new(),
            managers: BTreeMap::new(),
            lives: BTreeMap::new(),
            newer: BTreeSet::new(),
            cut: BTreeSet::new(),
            lost: 0,
            delay: 0..3,
        };
        Net(Arc::new(Mutex::new(wires)))
    }

    /// A node starts.
    pub(crate) fn port(&self, me: &str, start: u64) -> Port {
        self.0.lock().lives.insert(me.to_owned(), start);
        Port { net: self.clone(), me: me.to_owned(), start }
    }

    /// Registers the store that answers at this address.
    pub(crate) fn plug(&self, node: &str, start: u64, store: Arc<Store>) {
        self.0.lock().stores.insert(node.to_owned(), (start, store));
    }

    /// Registers the manager that answers at this address.
    pub(crate) fn plug_manager(&self, node: &str, start: u64, manager: Arc<Manager>) {
        self.0.lock().managers.insert(node.to_owned(), (start, manager));
    }

    /// True if both reach each other, if need be over others, as gossip does.
    pub(crate) fn in_reach(&self, one: &str, other: &str) -> bool {
        let wires = self.0.lock();
        let passes = |from: &str, to: &str| !wires.cut.contains(&(from.to_owned(), to.to_owned()));
        let (mut seen, mut next) = (BTreeSet::from([one]), vec![one]);
        while let Some(from) = next.pop() {
            for to in wires.lives.keys().filter(|it| passes(from, it) && passes(it, from)) {
                if seen.insert(to) {
                    next.push(to);
                }
            }
        }
        wires.lives.contains_key(other) && seen.contains(other)
    }

    /// A node is gone.
    pub(crate) fn unplug(&self, node: &str) {
        let mut wires = self.0.lock();
        wires.stores.remove(node);
        wires.managers.remove(node);
        wires.lives.remove(node);
    }

    /// Cuts one direction of traffic.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        self.0.lock().cut.insert((from.to_owned(), to.to_owned()));
    }

    /// Sets the share of lost messages (of a thousand) and the delay of others in milliseconds.
    pub(crate) fn weather(&self, lost: u32, delay: std::ops::Range<u64>) {
        let mut wires = self.0.lock();
        (wires.lost, wires.delay) = (lost, delay);
    }

    pub(crate) fn heal(&self) {
        self.0.lock().cut.clear();
        self.weather(0, 0..3);
    }

    /// Returns the fate of one message now.
    fn way(&self, from: &str, to: &str) -> Way {
        let mut wires = self.0.lock();
        let mut delay = Duration::from_millis({
            let delay = wires.delay.clone();
            wires.rng.random_range(delay)
        });
        if wires.rng.random_range(0..1000) < wires.lost {
            delay += Duration::from_millis(wires.rng.random_range(AGAIN));
            if wires.rng.random_range(0..3) == 0 {
                return Way::Broken(delay);
            }
        }
        if wires.cut.contains(&(from.to_owned(), to.to_owned())) { Way::Nowhere } else { Way::There(delay) }
    }

    async fn carry(&self, from: &str, to: &str) -> Result<(), TransportError> {
        match self.way(from, to) {
            Way::There(delay) => {
                sleep(delay).await;
                Ok(())
            }
            Way::Nowhere => std::future::pending().await,
            Way::Broken(delay) => {
                sleep(delay).await;
                Err(TransportError("the connection broke".to_owned()))
            }
        }
    }

    fn store(&self, node: &str) -> Option<(u64, Arc<Store>)> {
        self.0.lock().stores.get(node).cloned()
    }

    pub(crate) fn set_release(&self, node: &str, level: u32) {
        let newer = &mut self.0.lock().newer;
        newer.remove(node);
        if level > LEVEL {
            newer.insert(node.to_owned());
        }
    }

    /// True if this start of the node is the one that is.
    pub(crate) fn lives(&self, node: &str, start: u64) -> bool {
        self.0.lock().lives.get(node) == Some(&start)
    }
}

impl Transport for Port {
    fn call<'a>(
        &'a self,
        node: &'a str,
        _addr: &'a str,
        request: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(async move {
            let trace = self.net.0.lock().trace.clone();
            trace.tell(format_args!("{} → {node} {}", self.me, request.len()));
            if !self.net.lives(&self.me, self.start) {
                return std::future::pending().await;
            }
            self.net.carry(&self.me, node).await?;
            let Some((start, store)) = self.net.store(node) else {
                return Err(TransportError("connection refused".to_owned()));
            };
            let from = self.me.clone();
            // Who asked may go away; what was asked goes on.
            let answer = tokio::spawn(async move { store.handle(&from, request).await }).await;
            if self.net.store(node).is_none_or(|now| now.0 != start) || !self.net.lives(&self.me, self.start) {
                return std::future::pending().await;
            }
            self.net.carry(node, &self.me).await?;
            let answer = answer.map_err(|error| TransportError(error.to_string()))?;
            answer.map_err(|error| TransportError(error.to_string()))
        })
    }
}

/// Maximum number of messages that wait in one direction of a session.
const PIPE_MAX: usize = 256;
/// Interval at which a blocked message is sent again.
const RESEND: Duration = Duration::from_millis(200);

impl Port {
    /// Returns the port of a start that the network knows already.
    pub(crate) fn of(net: &Net, me: &str, start: u64) -> Port {
        Port { net: net.clone(), me: me.to_owned(), start }
    }

    /// Carries messages in their order, until one side is gone. What cannot pass waits until it can.
    async fn pump(
        net: Net,
        (from, from_start): (String, u64),
        (to, to_start): (String, u64),
        mut said: mpsc::Receiver<Bytes>,
        heard: mpsc::Sender<Bytes>,
    ) {
        while let Some(message) = said.recv().await {
            loop {
                if !net.lives(&from, from_start) {
                    return;
                }
                if !net.lives(&to, to_start) {
                    // A host without power says nothing; one with power says that nobody is there.
                    let is_silent = net.0.lock().rng.random::<bool>();
                    return if is_silent { std::future::pending().await } else { sleep(RESEND).await };
                }
                match net.way(&from, &to) {
                    Way::There(delay) => {
                        sleep(delay).await;
                        break;
                    }
                    Way::Nowhere => sleep(RESEND).await,
                    Way::Broken(delay) => return sleep(delay).await,
                }
            }
            let is_newer = net.0.lock().newer.contains(&from);
            let messages = if is_newer { as_next_release(&message) } else { vec![message] };
            for message in messages {
                if heard.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn received<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl futures_util::Stream<Item = T> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async {
        let message = receiver.recv().await?;
        Some((message, receiver))
    })
}

impl Lines for Port {
    fn session<'l>(
        &'l self,
        manager: &'l ManagerAddr,
        said: mpsc::Receiver<Bytes>,
    ) -> BoxFuture<'l, Result<Heard, String>> {
        Box::pin(async move {
            self.net.carry(&self.me, &manager.id).await.map_err(|error| error.to_string())?;
            let there = self.net.0.lock().managers.get(&manager.id).cloned();
            let (start, there_manager) = there.ok_or("connection refused")?;
            let trace = self.net.0.lock().trace.clone();
            trace.tell(format_args!("{} opens a session with {}", self.me, manager.id));
            let (me, it) = ((self.me.clone(), self.start), (manager.id.clone(), start));
            let (say, heard) = mpsc::channel(PIPE_MAX);
            tokio::spawn(Port::pump(self.net.clone(), me.clone(), it.clone(), said, say));
            let answers = there_manager.session(&self.me, Box::pin(received(heard)));
            let (say, heard) = mpsc::channel(PIPE_MAX);
            tokio::spawn(Port::pump(self.net.clone(), it, me, answers, say));
            Ok(Box::pin(received(heard).map(Ok)) as Heard)
        })
    }
}
