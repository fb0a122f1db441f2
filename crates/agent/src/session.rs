//! This node's side of its session with the leader.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt as _};
use herder_model::swarm::{
    Assignments, Hello, IngressApplied, IngressNews, IngressServed, ManagerAddr, NetNews, NodeDescription, Report,
    ToLeader, ToNode, Welcome, decode, encode,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::health::EngineHealth;
use crate::net::AttachmentRequests;

/// Number of heartbeat intervals without an answer after which the leader is given up. Two messages in a row had none.
/// Another one must be found before the lease is over (five times as long), else tasks that must never run twice end on
/// nodes that nothing happened to.
const SILENT_BEATS_MAX: f64 = 2.5;
/// Interval of heartbeats until the leader names another.
const HEARTBEAT: Duration = Duration::from_millis(400);
/// Maximum time until a manager opens a session. One that is cut off does not answer at all.
const OPEN_TIME_MAX: Duration = Duration::from_secs(1);
/// Maximum time until a leader has written that the node leaves.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(3);
/// Reports that are sent in one message.
const REPORTS_MAX: usize = 512;

/// Messages of one session that wait to be sent. When a leader takes none for so long that it is full, the session ends.
pub const SESSION_WAITING_MAX: usize = 1024;

/// Inbound messages of the leader, until it goes away or the connection breaks.
pub type Heard = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// The way to managers.
pub trait Lines: Send + Sync {
    /// Opens a session; what is put into `said` is sent, until it is closed.
    fn session<'l>(
        &'l self,
        manager: &'l ManagerAddr,
        said: mpsc::Receiver<Bytes>,
    ) -> BoxFuture<'l, Result<Heard, String>>;
}

/// Reason why a session ended.
#[derive(Debug)]
pub enum Ended {
    /// Another manager leads.
    Elsewhere(Option<ManagerAddr>),
    /// The swarm does not want this node.
    Refused(String),
    /// The swarm has ended.
    Dissolved,
    /// The engine went or came back: the next session begins with that.
    Again,
    /// The connection broke, or could not be opened.
    Broken(String),
}

/// Receives the leader's messages for the rest of the node.
pub trait Listener: Send + Sync {
    fn welcome(&self, welcome: Welcome);
    fn assign(&self, assignments: Assignments);
    /// Applies changes in the networks of this node. Returns false if they do not follow the last ones.
    fn networks(&self, news: NetNews) -> bool;
    /// Takes changes of the ingress. False, if they do not follow the version that is known.
    fn ingress(&self, news: IngressNews) -> bool {
        let _ = news;
        true
    }
    /// The tasks of this node that get requests from ingress nodes.
    fn served(&self, served: IngressServed) {
        let _ = served;
    }
    /// Records an answer of the leader to the message that was sent at `said_at`.
    fn heard(&self, said_at: Instant, lease: Duration);
}

/// Inputs of a session from the rest of the node.
#[derive(Debug)]
pub struct NodeInputs {
    /// The newest state of every task, and whatever changes.
    pub reports: mpsc::Receiver<Report>,
    pub description: watch::Receiver<NodeDescription>,
    pub engine: watch::Receiver<EngineHealth>,
    /// True once this manager's store is open.
    pub ready: watch::Receiver<bool>,
    pub leaving: watch::Receiver<bool>,
    /// The version of each network that kernel and DNS server have reached.
    pub applied: watch::Receiver<BTreeMap<String, u64>>,
    /// Plain containers that the managers have not answered for.
    pub wishes: watch::Receiver<AttachmentRequests>,
    /// The version that the ingress of this node has applied.
    pub ingress: watch::Receiver<IngressApplied>,
}

/// Holds a session with one manager until it ends.
pub async fn hold(
    lines: &dyn Lines,
    manager: &ManagerAddr,
    mut hello: Hello,
    mut inputs: NodeInputs,
    listener: &dyn Listener,
) -> Ended {
    let (say, said) = mpsc::channel(SESSION_WAITING_MAX);
    hello.description = inputs.description.borrow_and_update().clone();
    hello.ready = *inputs.ready.borrow_and_update();
    // A node that is not heard as one without an engine is given tasks.
    if !changes(&mut inputs.engine, &EngineHealth::Unknown).await {
        return Ended::Broken("this node is stopping".into());
    }
    let engine = inputs.engine.borrow_and_update().clone();
    hello.engine_error = engine.error().to_owned();
    let mut speaker = Speaker { say, last: Instant::now(), unheard: Vec::new(), failed: None };
    speaker.say(&ToLeader::Hello(Box::new(hello)));
    let opened = timeout(OPEN_TIME_MAX, lines.session(manager, said)).await;
    let mut heard = match opened {
        Ok(Ok(heard)) => heard,
        Ok(Err(why)) => return Ended::Broken(why),
        Err(_) => return Ended::Broken("it does not answer".into()),
    };
    let mut session = Welcome { heartbeat_ms: millis(HEARTBEAT), ..Welcome::default() };
    let mut assigned = Assignments::default();
    let mut leader_heard = Instant::now();
    loop {
        let mut batch = Vec::new();
        let heartbeat = Duration::from_millis(session.heartbeat_ms);
        let next_beat = speaker.last + heartbeat;
        tokio::select! {
            message = heard.next() => match message {
                None => return Ended::Broken("it closed the session".into()),
                Some(Err(why)) => return Ended::Broken(why),
                Some(Ok(message)) => {
                    leader_heard = Instant::now();
                    match decode::<ToNode>(&message) {
                        Ok(Some(ToNode::Welcome(welcome))) => {
                            // Its answer is a lease: the first one is wanted at once.
                            if session.cluster.is_empty() {
                                speaker.say(&ToLeader::Alive);
                                let applied = inputs.applied.borrow_and_update().clone();
                                speaker.say(&ToLeader::NetApplied(applied));
                                speaker.want(&mut inputs.wishes);
                            }
                            session = welcome.clone();
                            listener.welcome(welcome);
                        }
                        Ok(Some(ToNode::Assignments(whole))) => {
                            assigned = *whole;
                            take(listener, &inputs.leaving, &assigned);
                        }
                        Ok(Some(ToNode::Changes(changes))) => {
                            if assigned.apply(*changes) {
                                take(listener, &inputs.leaving, &assigned);
                            } else {
                                tracing::warn!("assignment sequence gap; requesting full resync");
                                speaker.say(&ToLeader::Whole);
                            }
                        }
                        Ok(Some(ToNode::Networks(news))) => {
                            if !listener.networks(*news) {
                                tracing::warn!("network version gap; requesting full resync");
                                speaker.say(&ToLeader::NetWhole);
                            }
                        }
                        Ok(Some(ToNode::Ingress(news))) => {
                            if !listener.ingress(*news) {
                                tracing::warn!("ingress version gap; requesting full resync");
                                speaker.say(&ToLeader::IngressWhole);
                            }
                        }
                        Ok(Some(ToNode::Served(served))) => listener.served(*served),
                        Ok(Some(ToNode::Heard)) => {
                            if let Some(said_at) = speaker.was_heard() {
                                listener.heard(said_at, Duration::from_millis(session.lease_ms));
                            }
                        }
                        Ok(Some(ToNode::Elsewhere(leader))) => return Ended::Elsewhere(leader),
                        Ok(Some(ToNode::Dissolved)) => return Ended::Dissolved,
                        Ok(Some(ToNode::Refused(reason))) => return Ended::Refused(reason),
                        Ok(None) => tracing::debug!("skipping a message of the leader that belongs to a later release"),
                        Err(error) => return Ended::Broken(format!("cannot decode a message of the leader: {error}")),
                    }
                }
            },
            count = inputs.reports.recv_many(&mut batch, REPORTS_MAX), if !session.cluster.is_empty() => {
                if count == 0 {
                    return Ended::Broken("this node is stopping".into());
                }
                speaker.say(&ToLeader::Reports(batch));
            }
            Ok(()) = inputs.description.changed() => {
                let description = inputs.description.borrow_and_update().clone();
                speaker.say(&ToLeader::Describe(Box::new(description)));
            }
            Ok(()) = inputs.ready.changed() => {
                if *inputs.ready.borrow_and_update() {
                    speaker.say(&ToLeader::Ready);
                }
            }
            // A leader that answers beside its loop must not take what it hears for a sign of the engine's life: as for a node that
            // was silent, a new session begins.
            is_there = changes(&mut inputs.engine, &engine) => return match is_there {
                true => Ended::Again,
                false => Ended::Broken("this node is stopping".into()),
            },
            Ok(()) = inputs.applied.changed(), if !session.cluster.is_empty() => {
                let applied = inputs.applied.borrow_and_update().clone();
                speaker.say(&ToLeader::NetApplied(applied));
            }
            Ok(()) = inputs.wishes.changed(), if !session.cluster.is_empty() => speaker.want(&mut inputs.wishes),
            Ok(()) = inputs.ingress.changed(), if !session.cluster.is_empty() => {
                let applied = inputs.ingress.borrow_and_update().clone();
                speaker.say(&ToLeader::IngressApplied(Box::new(applied)));
            }
            () = left(&mut inputs.leaving) => {
                speaker.say(&ToLeader::Leave);
                // Closed by the leader, once it has written that.
                let _ = timeout(LEAVE_TIME_MAX, async { while let Some(Ok(_)) = heard.next().await {} }).await;
                return Ended::Refused("this node leaves".into());
            }
            () = sleep_until(next_beat) => speaker.say(&ToLeader::Alive),
            () = sleep_until(leader_heard + heartbeat.mul_f64(SILENT_BEATS_MAX)) => return Ended::Broken("it is silent".into()),
        }
        if let Some(why) = speaker.failed.take() {
            return Ended::Broken(why);
        }
        if speaker.say.is_closed() {
            return Ended::Broken("it does not listen any more".into());
        }
    }
}

/// Passes assignments on, unless this node leaves: they would bring back tasks that are being removed.
fn take(listener: &dyn Listener, leaving: &watch::Receiver<bool>, assigned: &Assignments) {
    if !*leaving.borrow() {
        listener.assign(assigned.clone());
    }
}

/// Resolves when the engine's health changes; false if it is no longer watched.
async fn changes(health: &mut watch::Receiver<EngineHealth>, from: &EngineHealth) -> bool {
    health.wait_for(|it| it != from).await.is_ok()
}

/// Resolves when the node is to leave.
async fn left(leaving: &mut watch::Receiver<bool>) {
    if leaving.wait_for(|it| *it).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Sends messages, and knows the unanswered ones.
struct Speaker {
    say: mpsc::Sender<Bytes>,
    last: Instant,
    /// Send times of unanswered messages, oldest first.
    unheard: Vec<Instant>,
    /// Reason why a message could not be sent. The session must end then: what the leader knows has a gap.
    failed: Option<String>,
}

impl Speaker {
    fn say(&mut self, message: &ToLeader) {
        self.last = Instant::now();
        let text = match encode(message) {
            Ok(text) => text,
            Err(error) => {
                self.failed = Some(format!("cannot encode a message to the leader: {error}"));
                return;
            }
        };
        // A leader that takes nothing is silent soon.
        if self.say.try_send(text.into()).is_ok() && !matches!(message, ToLeader::Hello(_)) {
            self.unheard.push(self.last);
        }
    }

    /// Says what is wanted for plain containers, if anything is.
    fn want(&mut self, wishes: &mut watch::Receiver<AttachmentRequests>) {
        let wishes = wishes.borrow_and_update().clone();
        if !wishes.is_empty() {
            self.say(&ToLeader::Attach(wishes));
        }
    }

    /// Answers come in order. When was said what this one answers?
    fn was_heard(&mut self) -> Option<Instant> {
        (!self.unheard.is_empty()).then(|| self.unheard.remove(0))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
