//! Membership of the pool: SWIM (Das, Gupta and Motivala 2002, by the crate `foca`) in sealed packets.
//!
//! [`core`] is sans-I/O: packets, timers, clock and randomness are handed in, so that the same code runs in a simulation of a
//! thousand nodes. [`Gossip`] is the thin loop around it: one UDP socket.

pub mod core;
mod facts;
pub mod seal;
#[cfg(test)]
mod skew;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use herder_parts::Parts;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

use self::core::{Core, Effects, Event};

pub use self::core::{Member, Seen, Settings, View};
pub use facts::{FACTS_BYTES_MAX, check as check_facts};
pub use seal::PoolKeys;

/// Orders of the program that wait to be carried out; there are a handful in a node's life.
const ORDERS_WAITING_MAX: usize = 64;
/// The largest datagram that is read; longer ones are noise.
const DATAGRAM_BYTES_MAX: usize = 2048;
/// Time that a leaving node stays, so that its goodbye reaches the others.
const LEAVE_TIME: Duration = Duration::from_millis(300);

/// Reason why gossip cannot begin, or facts cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    #[error("cannot listen for gossip on {addr}: {source}")]
    Bind { addr: SocketAddr, source: io::Error },
    #[error("facts of a node take {length} bytes, more than {FACTS_BYTES_MAX}; use fewer or shorter labels")]
    Facts { length: usize },
}

enum Order {
    Facts(BTreeMap<String, String>),
    Seeds(Vec<SocketAddr>),
    Keys(PoolKeys),
    Leave(oneshot::Sender<()>),
}

/// This node's part in gossip. Ends with its token.
#[derive(Debug)]
pub struct Gossip {
    view: watch::Receiver<View>,
    orders: mpsc::Sender<Order>,
    local: SocketAddr,
}

impl Gossip {
    /// Listens on `bind` and asks `seeds` to be let in. `key` is the pool's.
    pub async fn start(
        me: Member,
        key: [u8; 32],
        bind: SocketAddr,
        seeds: Vec<SocketAddr>,
        settings: Settings,
        parts: impl Into<Parts>,
    ) -> Result<Gossip, GossipError> {
        let failed = |source| GossipError::Bind { addr: bind, source };
        let socket = UdpSocket::bind(bind).await.map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        let core = Core::new(me, key, settings, StdRng::from_rng(&mut rand::rng()));
        let (told, view) = watch::channel(core.view());
        let (orders, waiting) = mpsc::channel(ORDERS_WAITING_MAX);
        let work = Loop { core, socket, told, began: Instant::now(), timers: DelayQueue::new() };
        let parts = parts.into();
        // It cannot be started again by itself: its socket and all that it knows are gone with it.
        parts.vital("gossip", work.run(seeds, waiting, parts.stop().clone()));
        Ok(Gossip { view, orders, local })
    }

    /// Everybody known, this node too.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Replaces the facts that this node publishes; [`FACTS_BYTES_MAX`] in all.
    pub async fn set_facts(&self, facts: BTreeMap<String, String>) -> Result<(), GossipError> {
        facts::check(&facts)?;
        // The loop ends only with the program.
        let _ = self.orders.send(Order::Facts(facts)).await;
        Ok(())
    }

    /// More addresses to ask.
    pub async fn add_seeds(&self, seeds: Vec<SocketAddr>) {
        let _ = self.orders.send(Order::Seeds(seeds)).await;
    }

    /// Replaces the keys that seal and open packets.
    pub async fn set_keys(&self, keys: PoolKeys) {
        let _ = self.orders.send(Order::Keys(keys)).await;
    }

    /// Says goodbye: the others see this node as left, not as dead.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.orders.send(Order::Leave(done)).await.is_ok() {
            let _ = left.await;
        }
    }
}

/// The thin loop.
struct Loop {
    core: Core<StdRng>,
    socket: UdpSocket,
    told: watch::Sender<View>,
    began: Instant,
    timers: DelayQueue<Event>,
}

impl Loop {
    async fn run(mut self, seeds: Vec<SocketAddr>, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        let begin = self.core.begin(seeds);
        self.carry_out(begin).await;
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let effects = tokio::select! {
                () = stop.cancelled() => return,
                received = self.socket.recv_from(&mut datagram) => match received {
                    Ok((length, from)) => self.core.packet(self.began.elapsed(), from, &datagram[..length]),
                    // An answer that a port is closed; the next packet is another one's.
                    Err(error) => {
                        tracing::debug!(%error, "cannot receive gossip");
                        Effects::default()
                    }
                },
                event = std::future::poll_fn(|cx| self.timers.poll_expired(cx)), if !self.timers.is_empty() => match event {
                    Some(event) => self.core.event(self.began.elapsed(), event.into_inner()),
                    None => Effects::default(),
                },
                order = orders.recv() => match order {
                    Some(Order::Facts(facts)) => self.core.set_facts(facts),
                    Some(Order::Seeds(seeds)) => self.core.add_seeds(seeds),
                    Some(Order::Keys(keys)) => {
                        self.core.set_keys(&keys);
                        Effects::default()
                    }
                    Some(Order::Leave(done)) => {
                        let goodbye = self.core.leave();
                        self.carry_out(goodbye).await;
                        self.linger().await;
                        // The address is free from here on. Followers of the view see its end only with that of the node.
                        let Loop { told, .. } = self;
                        let _ = done.send(());
                        stop.cancelled().await;
                        drop(told);
                        return;
                    }
                    None => return,
                },
            };
            self.carry_out(effects).await;
        }
    }

    async fn carry_out(&mut self, effects: Effects) {
        for (to, packet) in effects.packets {
            // A packet that cannot be sent is a packet that was lost; SWIM lives with that.
            if let Err(error) = self.socket.send_to(&packet, to).await {
                tracing::trace!(%to, %error, "cannot send gossip");
            }
        }
        for (after, event) in effects.timers {
            self.timers.insert(event, after);
        }
        if effects.changed {
            self.told.send_replace(self.core.view());
        }
    }

    /// Repeats the goodbye: a packet may be lost.
    async fn linger(&mut self) {
        let end = Instant::now() + LEAVE_TIME;
        while Instant::now() < end {
            sleep_until(Instant::now() + LEAVE_TIME / 3).await;
            let again = self.core.leave_again();
            self.carry_out(again).await;
        }
    }
}
