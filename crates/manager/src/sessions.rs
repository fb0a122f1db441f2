//! Sessions of nodes, as events for the leader's loop.
//!
//! That a node lives is noted here, and answered here, beside the loop: a loop that is busy with much to write makes no node
//! believe that its leader is gone, and itself not that a node is.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use herder_model::swarm::{Hello, ManagerAddr, ToLeader, ToNode, decode, encode};
use herder_store::Store;
use tokio::sync::mpsc::WeakSender;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Duration, Instant};

/// Events that wait for the loop. When it is behind, nodes wait: what they say is taken up later, in order.
pub(crate) const EVENTS_WAITING_MAX: usize = 4096;
/// Maximum number of messages of one node that wait for the loop. Beyond that the node's stream is not read.
const HEARD_WAITING_MAX: usize = 64;
/// Messages that wait for one node. A node that takes none for so long loses its session.
const SAID_WAITING_MAX: usize = 256;

/// Inbound messages of a node, until it goes away.
pub type Heard = Pin<Box<dyn Stream<Item = Bytes> + Send>>;
/// Outbound messages to a node.
pub type Said = mpsc::Receiver<Bytes>;

/// Event of a session.
#[derive(Debug)]
pub(crate) enum Event {
    Opened {
        node: String,
        session: u64,
        hello: Box<Hello>,
        say: SessionSender,
        last_heartbeat: Arc<LastHeartbeat>,
    },
    Heard {
        node: String,
        session: u64,
        said: ToLeader,
    },
    Closed {
        node: String,
        session: u64,
    },
    /// The swarm ends.
    Dissolve(Arc<Notify>),
    /// A change of the managers' number was carried out, or not.
    Managers {
        node: String,
        is_manager: bool,
        outcome: Result<(), String>,
    },
}

/// The leader's end of one session.
#[derive(Clone, Debug)]
pub(crate) struct SessionSender(mpsc::Sender<Bytes>);

impl SessionSender {
    /// False, if the session is of no use any more.
    pub(crate) fn say(&self, message: &ToNode) -> bool {
        match encode(message) {
            Ok(text) => self.0.try_send(text.into()).is_ok(),
            Err(error) => {
                tracing::error!(%error, "closing session: cannot encode a message to the node");
                false
            }
        }
    }
}

/// Time of a node's last heartbeat. Marking the node as down is a compare-and-swap on it: a heartbeat that is answered
/// later belongs to no live node.
#[derive(Debug)]
pub(crate) struct LastHeartbeat {
    /// Milliseconds since `epoch`, and one; 0 while the leader does not know the session.
    at: AtomicU64,
    epoch: Instant,
}

impl LastHeartbeat {
    fn new() -> Arc<LastHeartbeat> {
        Arc::new(LastHeartbeat { at: AtomicU64::new(0), epoch: Instant::now() })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Allows answers to the node.
    pub(crate) fn open(&self) {
        self.at.store(self.now(), Ordering::Release);
    }

    /// The node says something. False, if the leader does not know it.
    fn beat(&self) -> bool {
        let now = self.now();
        let beaten = |at: u64| (at != 0).then_some(now);
        self.at.fetch_update(Ordering::AcqRel, Ordering::Acquire, beaten).is_ok()
    }

    /// Returns the time of the last heartbeat and its mark.
    pub(crate) fn heard(&self) -> Option<(Instant, u64)> {
        let at = self.at.load(Ordering::Acquire);
        (at != 0).then(|| (self.epoch + Duration::from_millis(at - 1), at))
    }

    /// Forbids answers to the node. Returns false if a heartbeat came since this mark.
    pub(crate) fn close(&self, sign: u64) -> bool {
        self.at.compare_exchange(sign, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

pub(crate) fn open(store: Arc<Store>, events: mpsc::Sender<Event>, node: String, mut heard: Heard) -> Said {
    static SESSIONS: AtomicU64 = AtomicU64::new(0);
    let session = SESSIONS.fetch_add(1, Ordering::Relaxed);
    let (say, said) = mpsc::channel(SAID_WAITING_MAX);
    tokio::spawn(async move {
        let Some(ToLeader::Hello(hello)) = next(&node, &mut heard).await else {
            tracing::warn!(node, "closing session: expected Hello as first message");
            return;
        };
        // The session ends when the leader drops its end of it.
        let (sender, weak) = (SessionSender(say.clone()), say.downgrade());
        drop(say);
        if !store.leadership().borrow().me {
            sender.say(&ToNode::Elsewhere(leader(&store)));
            return;
        }
        let last_heartbeat = LastHeartbeat::new();
        let opened =
            Event::Opened { node: node.clone(), session, hello, say: sender, last_heartbeat: last_heartbeat.clone() };
        let listener =
            Listener { store, node, session, last_heartbeat, sender: weak, waiting: VecDeque::from([opened]) };
        listener.listen(&events, heard).await;
    });
    said
}

/// Listens to one node.
struct Listener {
    store: Arc<Store>,
    node: String,
    session: u64,
    last_heartbeat: Arc<LastHeartbeat>,
    sender: WeakSender<Bytes>,
    /// Events for the loop.
    waiting: VecDeque<Event>,
}

impl Listener {
    async fn listen(mut self, events: &mpsc::Sender<Event>, mut heard: Heard) {
        let mut ended = false;
        while !ended || !self.waiting.is_empty() {
            tokio::select! {
                permit = events.reserve(), if !self.waiting.is_empty() => {
                    let Ok(permit) = permit else { return };
                    if let Some(event) = self.waiting.pop_front() {
                        permit.send(event);
                    }
                }
                said = next(&self.node, &mut heard), if !ended && self.waiting.len() < HEARD_WAITING_MAX => {
                    let (node, session) = (self.node.clone(), self.session);
                    let is_alive = said.is_some() && self.last_heartbeat.beat();
                    match said {
                        Some(ToLeader::Alive) if is_alive && self.is_answered() => {}
                        Some(said) => self.waiting.push_back(Event::Heard { node, session, said }),
                        None => {
                            ended = true;
                            self.waiting.push_back(Event::Closed { node, session });
                        }
                    }
                }
            }
        }
    }

    /// Acknowledges a heartbeat if the node counts as alive and this manager still leads.
    fn is_answered(&self) -> bool {
        let say = self.sender.upgrade().filter(|_| self.store.leadership().borrow().me);
        say.is_some_and(|say| SessionSender(say).say(&ToNode::Heard))
    }
}

async fn next(node: &str, heard: &mut Heard) -> Option<ToLeader> {
    let message = heard.next().await?;
    match decode(&message) {
        Ok(Some(said)) => Some(said),
        // It still counts as a sign of life, and is answered as one: the node waits for an answer to each message.
        Ok(None) => {
            tracing::debug!(node, "skipping a message of the node that belongs to a later release");
            Some(ToLeader::Alive)
        }
        Err(error) => {
            tracing::warn!(node, %error, "closing session: cannot decode a message of the node");
            None
        }
    }
}

/// Returns the address of the leader, as far as this manager knows it.
pub(crate) fn leader(store: &Store) -> Option<ManagerAddr> {
    let leader = store.leadership().borrow().leader.clone()?;
    let view = store.view();
    let addr = view.nodes.get(&leader)?.addr.clone();
    Some(ManagerAddr { id: leader, addr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_given_up_or_answered_and_never_both() {
        let last_heartbeat = LastHeartbeat::new();
        assert!(!last_heartbeat.beat(), "nobody knows it yet");
        last_heartbeat.open();
        // At another time than it will be in a moment.
        last_heartbeat.at.store(1_000_000, Ordering::Release);
        let (_, sign) = last_heartbeat.heard().expect("it is known");
        assert!(last_heartbeat.beat());
        assert!(!last_heartbeat.close(sign), "it was heard meanwhile");
        let (_, sign) = last_heartbeat.heard().expect("it is known");
        assert!(last_heartbeat.close(sign));
        assert!(!last_heartbeat.beat() && last_heartbeat.heard().is_none());
    }
}
