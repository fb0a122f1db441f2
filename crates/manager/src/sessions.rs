//! Sessions of nodes, as events for the leader's loop.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use herder_model::swarm::{Hello, ManagerAddr, ToLeader, ToNode};
use herder_store::Store;
use tokio::sync::{Notify, mpsc};

/// Events that wait for the loop. When it is behind, nodes wait: what they say is taken up later, in order.
pub(crate) const EVENTS_WAITING_MAX: usize = 4096;
/// Messages that wait for one node. A node that takes none for so long loses its session.
const SAID_WAITING_MAX: usize = 256;

/// What a node says, until it goes away.
pub type Heard = Pin<Box<dyn Stream<Item = Bytes> + Send>>;
/// What is said to a node.
pub type Said = mpsc::Receiver<Bytes>;

/// What happens in sessions.
#[derive(Debug)]
pub(crate) enum Event {
    Opened {
        node: String,
        session: u64,
        hello: Box<Hello>,
        say: Mouth,
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
pub(crate) struct Mouth(mpsc::Sender<Bytes>);

impl Mouth {
    /// False, if the session is of no use any more.
    pub(crate) fn say(&self, message: &ToNode) -> bool {
        let text = serde_json::to_vec(message).unwrap_or_default();
        self.0.try_send(text.into()).is_ok()
    }
}

pub(crate) fn open(store: Arc<Store>, events: mpsc::Sender<Event>, node: String, mut heard: Heard) -> Said {
    static SESSIONS: AtomicU64 = AtomicU64::new(0);
    let session = SESSIONS.fetch_add(1, Ordering::Relaxed);
    let (say, said) = mpsc::channel(SAID_WAITING_MAX);
    let mouth = Mouth(say);
    tokio::spawn(async move {
        let Some(ToLeader::Hello(hello)) = next(&node, &mut heard).await else {
            tracing::warn!(node, "a session that does not begin with who the node is, is closed");
            return;
        };
        if !store.leadership().borrow().me {
            mouth.say(&ToNode::Elsewhere(leader(&store)));
            return;
        }
        let opened = Event::Opened { node: node.clone(), session, hello, say: mouth };
        if events.send(opened).await.is_err() {
            return;
        }
        while let Some(said) = next(&node, &mut heard).await {
            if events.send(Event::Heard { node: node.clone(), session, said }).await.is_err() {
                return;
            }
        }
        let _ = events.send(Event::Closed { node, session }).await;
    });
    said
}

async fn next(node: &str, heard: &mut Heard) -> Option<ToLeader> {
    let message = heard.next().await?;
    match serde_json::from_slice(&message) {
        Ok(said) => Some(said),
        Err(error) => {
            tracing::warn!(node, %error, "a session is closed: what the node says makes no sense");
            None
        }
    }
}

/// Where the leader is, as far as this manager knows.
pub(crate) fn leader(store: &Store) -> Option<ManagerAddr> {
    let leader = store.leadership().borrow().leader.clone()?;
    let view = store.view();
    let addr = view.nodes.get(&leader)?.addr.clone();
    Some(ManagerAddr { id: leader, addr })
}
