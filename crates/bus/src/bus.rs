//! The bus of one node.

mod peers;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::BusError;
use crate::frame::{Frame, FrameError, Post};
use crate::inbox::{Consumer, Inbox, Queue};
use crate::message::{self, Headers, Message, ReplyTo};
use crate::pending::{ANSWERS_WAITING_MAX, Gathered, Outcome, Pending};
use crate::table::{Hop, Table};

/// Carries frames to peers.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Queues one frame for a peer, behind those queued before. False if the queue is full or the peer is gone. Must
    /// neither block nor call the bus.
    fn send(&self, node: &str, frame: Bytes) -> bool;
}

/// Settings of a bus.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Messages that may wait for one receiver.
    pub queue_length: usize,
    /// Maximum memory of one receiver's waiting messages, in bytes.
    pub queue_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        // 4096 messages are 80 ms of the fastest stream two nodes were measured at; 8 MiB bound the memory that 1000 stuck
        // clients with large messages can take.
        Settings { queue_length: 4096, queue_bytes: 8 << 20 }
    }
}

/// Receivers of a published message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Receivers of this node that have it in their queue.
    pub receivers: usize,
    /// Number of peers that the message was sent to.
    pub nodes: usize,
    /// Receivers and peers whose queue was full.
    pub dropped: usize,
}

/// One of the answers that were gathered.
#[derive(Debug)]
pub struct Answer {
    /// The node of the receiver.
    pub node: String,
    pub outcome: Result<Message, BusError>,
}

/// Counters of the bus, shown to operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Addresses with receivers of this node.
    pub addresses_here: usize,
    /// Addresses with receivers anywhere.
    pub addresses: usize,
    /// Requests that wait for an answer.
    pub requests: usize,
    /// Messages put into the queues of receivers of this node.
    pub delivered: u64,
    /// Messages that a full queue had no room for.
    pub dropped: u64,
    /// Frames of peers that could not be read.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

/// The bus of one node.
#[derive(Debug)]
pub struct Bus {
    me: Weak<Bus>,
    node: Arc<str>,
    settings: Settings,
    transport: Arc<dyn Transport>,
    table: Mutex<Table>,
    pending: Pending,
    /// Ids of receivers and requests.
    next: AtomicU64,
    counts: Counts,
    /// The address of answers, which have none.
    answer_address: Arc<str>,
}

impl Bus {
    /// A bus that knows no peers yet. `node` is its name among them.
    pub fn new(node: &str, settings: Settings, transport: Arc<dyn Transport>) -> Arc<Bus> {
        Arc::new_cyclic(|me| Bus {
            me: me.clone(),
            node: node.into(),
            settings,
            transport,
            table: Mutex::default(),
            pending: Pending::default(),
            // Another start in every process: answers to requests of an earlier one fit none of this.
            next: AtomicU64::new(rand::random::<u64>() >> 1),
            counts: Counts::default(),
            answer_address: "answer".into(),
        })
    }

    /// The name of this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A receiver at an address, until it is dropped. Fails if that is no address.
    pub fn register(&self, address: &str) -> Result<Consumer, BusError> {
        Consumer::new(self.arc(), address)
    }

    /// A queue for several addresses.
    pub fn inbox(&self) -> Inbox {
        Inbox::new(self.arc())
    }

    /// Sends to one receiver, in turn over nodes, then over the receivers of the node. `Ok` says that it is under way, not
    /// that it was read.
    pub fn send(&self, address: &str, headers: Headers, body: Value) -> Result<(), BusError> {
        message::check_address(address)?;
        let next = self.table.lock().next(address);
        let (address, hop) = next.ok_or_else(|| BusError::no_handlers(address))?;
        match hop {
            Hop::Here(queue) => self.offer(&queue, self.message(address, headers, body, false, None)),
            Hop::There(node) => self.post(&node, &address, None, &headers, &body),
        }
    }

    /// Sends to all receivers of all nodes. Nobody there is no error.
    pub fn publish(&self, address: &str, headers: Headers, body: Value) -> Result<Published, BusError> {
        message::check_address(address)?;
        let (here, nodes) = {
            let table = self.table.lock();
            (table.all_here(address), table.nodes(address))
        };
        let mut published = Published::default();
        if !nodes.is_empty() {
            let text = body.to_string();
            let frame = Frame::Publish(Post::new(address, None, &headers, &text)).encode().map_err(unfit)?;
            for node in nodes {
                let sent = self.transport.send(&node, frame.clone());
                *(if sent { &mut published.nodes } else { &mut published.dropped }) += 1;
                self.count_dropped(u64::from(!sent));
            }
        }
        if let Some((address, queues)) = here {
            let delivered = self.deliver_all(None, &address, queues.iter(), headers, body);
            published.receivers = delivered;
            published.dropped += queues.len() - delivered;
        }
        Ok(published)
    }

    /// Sends to one receiver and waits for its answer. Safe to cancel.
    pub async fn request(
        &self,
        address: &str,
        headers: Headers,
        body: Value,
        limit: Duration,
    ) -> Result<Message, BusError> {
        message::check_address(address)?;
        let next = self.table.lock().next(address);
        let (address, hop) = next.ok_or_else(|| BusError::no_handlers(address))?;
        let asked = match &hop {
            Hop::Here(_) => self.node.clone(),
            Hop::There(node) => node.clone(),
        };
        let waiting = Waiting::new(self);
        let answer = self.pending.one(waiting.id, asked)?;
        match hop {
            Hop::Here(queue) => {
                let reply = self.reply_to(&self.node, waiting.id);
                self.offer(&queue, self.message(address.clone(), headers, body, false, Some(reply)))?;
            }
            Hop::There(node) => self.post(&node, &address, Some(waiting.id), &headers, &body)?,
        }
        match timeout(limit, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(BusError::unanswered()),
            Err(_) => Err(BusError::timeout(&address, limit)),
        }
    }

    /// Asks all receivers of all nodes; the answers until all are there or the time is over. A receiver that did not
    /// answer is there as an error, once for each node that did not say how many it has.
    pub async fn gather(
        &self,
        address: &str,
        headers: Headers,
        body: Value,
        limit: Duration,
    ) -> Result<Vec<Answer>, BusError> {
        message::check_address(address)?;
        let deadline = Instant::now() + limit;
        let (here, nodes) = {
            let table = self.table.lock();
            (table.all_here(address).filter(|(_, queues)| !queues.is_empty()), table.nodes(address))
        };
        if here.is_none() && nodes.is_empty() {
            return Err(BusError::no_handlers(address));
        }
        let (sender, mut answers) = mpsc::channel(ANSWERS_WAITING_MAX as usize);
        let mut asked: Vec<(Arc<str>, Waiting<'_>)> = Vec::new();
        let mut gathered = Vec::new();
        let text = body.to_string();
        for node in nodes {
            let waiting = Waiting::new(self);
            self.pending.many(waiting.id, node.clone(), sender.clone())?;
            let frame = Frame::Ask(Post::new(address, Some(waiting.id), &headers, &text)).encode().map_err(unfit)?;
            if self.transport.send(&node, frame) {
                asked.push((node, waiting));
            } else {
                let outcome = Err(BusError::link_full(&node));
                gathered.push(Answer { node: node.to_string(), outcome });
            }
        }
        if let Some((address, queues)) = here {
            let waiting = Waiting::new(self);
            self.pending.many(waiting.id, self.node.clone(), sender.clone())?;
            self.ask_all(&self.node, waiting.id, &address, &queues, headers, body);
            asked.push((self.node.clone(), waiting));
        }
        drop(sender);
        let mut open = asked.len();
        while open > 0 {
            match timeout_at(deadline, answers.recv()).await {
                Ok(Some((node, Gathered::Answer(outcome)))) => {
                    gathered.push(Answer { node: node.to_string(), outcome })
                }
                Ok(Some((_, Gathered::Done))) => open -= 1,
                Ok(None) | Err(_) => break,
            }
        }
        for (node, waiting) in asked {
            for _ in 0..self.pending.give_up(waiting.id).unwrap_or(0) {
                gathered.push(Answer { node: node.to_string(), outcome: Err(BusError::timeout(address, limit)) });
            }
        }
        Ok(gathered)
    }

    pub fn stats(&self) -> Stats {
        let (addresses_here, addresses) = self.table.lock().counts();
        Stats {
            addresses_here,
            addresses,
            requests: self.pending.len(),
            delivered: self.counts.delivered.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
        }
    }

    /// Asks receivers of this node on behalf of `asker`.
    fn ask_all(
        &self,
        asker: &Arc<str>,
        id: u64,
        address: &Arc<str>,
        queues: &[Arc<Queue>],
        headers: Headers,
        body: Value,
    ) {
        let receivers = u32::try_from(queues.len()).unwrap_or(u32::MAX);
        if **asker == *self.node {
            self.pending.expect(asker, id, receivers);
        } else {
            let _ = self.tell(asker, &Frame::Asked { to: id, receivers });
        }
        let weight = message::weight(&headers, &body);
        let (headers, body) = (Arc::new(headers), Arc::new(body));
        for queue in queues {
            let reply = Some(self.reply_to(asker, id));
            let message = Message {
                address: address.clone(),
                headers: headers.clone(),
                body: body.clone(),
                published: false,
                from: (**asker != *self.node).then(|| asker.clone()),
                reply,
                weight,
            };
            let _ = self.offer(queue, message);
        }
    }

    fn deliver_all<'q>(
        &self,
        from: Option<&str>,
        address: &Arc<str>,
        queues: impl Iterator<Item = &'q Arc<Queue>>,
        headers: Headers,
        body: Value,
    ) -> usize {
        let weight = message::weight(&headers, &body);
        let (headers, body) = (Arc::new(headers), Arc::new(body));
        let from = from.map(Arc::<str>::from);
        let message = || Message {
            address: address.clone(),
            headers: headers.clone(),
            body: body.clone(),
            published: true,
            from: from.clone(),
            reply: None,
            weight,
        };
        queues.filter(|queue| self.offer(queue, message()).is_ok()).count()
    }

    /// Puts a message into a queue of this node. If there is no room, the asker is told, too.
    fn offer(&self, queue: &Queue, message: Message) -> Result<(), BusError> {
        match queue.offer(message) {
            Ok(()) => {
                self.counts.delivered.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(mut message) => {
                self.count_dropped(1);
                let error = BusError::overflow(&message.address);
                if let Some(reply) = message.take_reply() {
                    reply.fail(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Sends to one receiver of a peer.
    fn post(
        &self,
        node: &str,
        address: &str,
        reply: Option<u64>,
        headers: &Headers,
        body: &Value,
    ) -> Result<(), BusError> {
        let text = body.to_string();
        let frame = Frame::Send(Post::new(address, reply, headers, &text)).encode().map_err(unfit)?;
        if self.transport.send(node, frame) {
            return Ok(());
        }
        self.count_dropped(1);
        Err(BusError::link_full(node))
    }

    /// Sends an answer to the node that asked.
    pub(crate) fn answer(&self, node: &Arc<str>, id: u64, outcome: Result<(Headers, Value, Option<u64>), BusError>) {
        if **node == *self.node {
            let outcome = outcome.map(|(headers, body, reply)| {
                let reply = reply.map(|id| self.reply_to(node, id));
                self.message(self.answer_address.clone(), headers, body, false, reply)
            });
            return self.settle(node, id, outcome);
        }
        match outcome {
            Ok((headers, body, reply)) => {
                let text = body.to_string();
                let frame = Frame::Reply { to: id, post: Post::new("", reply, &headers, &text) };
                if let Err(FrameError::TooLarge(bytes)) = self.tell(node, &frame) {
                    let error = unfit(FrameError::TooLarge(bytes));
                    let _ = self.tell(
                        node,
                        &Frame::Failure { to: id, kind: error.kind, code: error.code, message: &error.message },
                    );
                }
            }
            Err(BusError { kind, code, message }) => {
                let _ = self.tell(node, &Frame::Failure { to: id, kind, code, message: &message });
            }
        }
    }

    /// Answers with a question, and waits for the answer to that.
    pub(crate) async fn answer_and_ask(
        &self,
        node: &Arc<str>,
        id: u64,
        headers: Headers,
        body: Value,
        limit: Duration,
    ) -> Result<Message, BusError> {
        let waiting = Waiting::new(self);
        let answer = self.pending.one(waiting.id, node.clone())?;
        self.answer(node, id, Ok((headers, body, Some(waiting.id))));
        match timeout(limit, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(BusError::unanswered()),
            Err(_) => Err(BusError::timeout(&self.answer_address, limit)),
        }
    }

    fn settle(&self, from: &str, id: u64, outcome: Outcome) {
        if !self.pending.settle(from, id, outcome) {
            tracing::debug!(from, "dropping a late answer");
        }
    }

    pub(crate) fn add(&self, address: &str, queue: &Arc<Queue>) -> Result<(Arc<str>, u64), BusError> {
        message::check_address(address)?;
        let (address, id) = (Arc::<str>::from(address), self.next_id());
        let mut table = self.table.lock();
        if table.add(&address, id, queue.clone()) {
            // Within the lock, so that peers hear of changes in the order in which they happen.
            self.tell_change(&mut table, &Frame::Registered(&address));
        }
        Ok((address, id))
    }

    pub(crate) fn remove(&self, address: &str, id: u64) {
        let mut table = self.table.lock();
        if table.remove(address, id) {
            self.tell_change(&mut table, &Frame::Unregistered(address));
        }
    }

    fn message(
        &self,
        address: Arc<str>,
        headers: Headers,
        body: Value,
        published: bool,
        reply: Option<ReplyTo>,
    ) -> Message {
        let weight = message::weight(&headers, &body);
        Message { address, headers: Arc::new(headers), body: Arc::new(body), published, from: None, reply, weight }
    }

    fn reply_to(&self, node: &Arc<str>, id: u64) -> ReplyTo {
        ReplyTo { bus: self.me.clone(), node: node.clone(), id, used: false }
    }

    fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn count_dropped(&self, count: u64) {
        self.counts.dropped.fetch_add(count, Ordering::Relaxed);
    }

    fn arc(&self) -> Arc<Bus> {
        // The bus is only ever handed out in an `Arc`, and a reference to it keeps that alive.
        self.me.upgrade().expect("a bus lives in an Arc")
    }
}

/// Maps an invalid frame to an error.
fn unfit(error: FrameError) -> BusError {
    BusError::invalid(format!("the message cannot be sent to another node: {error}"))
}

/// A pending request, which is dropped with its caller.
#[derive(Debug)]
struct Waiting<'b> {
    bus: &'b Bus,
    id: u64,
}

impl<'b> Waiting<'b> {
    fn new(bus: &'b Bus) -> Waiting<'b> {
        Waiting { bus, id: bus.next_id() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.bus.pending.give_up(self.id);
    }
}
