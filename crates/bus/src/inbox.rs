//! Receivers: a bounded queue with one address ([`Consumer`]) or with many ([`Inbox`]).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::bus::Bus;
use crate::error::BusError;
use crate::message::Message;

/// The end of a receiver's queue into which the bus puts messages.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Message>,
    /// Weight of the waiting messages, by [`Message::weight`].
    bytes: AtomicUsize,
    bytes_max: usize,
    dropped: AtomicU64,
}

impl Queue {
    pub(crate) fn new(length: usize, bytes_max: usize) -> (Arc<Queue>, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(length);
        let queue = Queue { sender, bytes: AtomicUsize::new(0), bytes_max, dropped: AtomicU64::new(0) };
        (Arc::new(queue), receiver)
    }

    /// Adds a message, or returns it if there is no room: the newest one is dropped, waiting ones stay.
    pub(crate) fn offer(&self, message: Message) -> Result<(), Message> {
        let weight = message.weight;
        let before = self.bytes.fetch_add(weight, Ordering::Relaxed);
        // One message is taken whatever its size, so that none can block a queue for ever.
        let refused = if before > 0 && before + weight > self.bytes_max {
            Some(message)
        } else {
            self.sender.try_send(message).err().map(|error| match error {
                mpsc::error::TrySendError::Full(message) | mpsc::error::TrySendError::Closed(message) => message,
            })
        };
        let Some(message) = refused else { return Ok(()) };
        self.bytes.fetch_sub(weight, Ordering::Relaxed);
        self.dropped.fetch_add(1, Ordering::Relaxed);
        Err(message)
    }

    fn taken(&self, message: &Message) {
        self.bytes.fetch_sub(message.weight, Ordering::Relaxed);
    }
}

/// One bounded queue for the messages of many addresses, such as those of one client.
#[derive(Debug)]
pub struct Inbox {
    bus: Arc<Bus>,
    queue: Arc<Queue>,
    messages: mpsc::Receiver<Message>,
    addresses: HashMap<Arc<str>, u64>,
}

impl Inbox {
    pub(crate) fn new(bus: Arc<Bus>) -> Inbox {
        let settings = bus.settings();
        let (queue, messages) = Queue::new(settings.queue_length, settings.queue_bytes);
        Inbox { bus, queue, messages, addresses: HashMap::new() }
    }

    /// Takes the messages to `address` from now on. Nothing changes if it did already.
    pub fn register(&mut self, address: &str) -> Result<(), BusError> {
        if self.addresses.contains_key(address) {
            return Ok(());
        }
        let (address, id) = self.bus.add(address, &self.queue)?;
        self.addresses.insert(address, id);
        Ok(())
    }

    /// Unregisters from `address`. Queued messages are still delivered. Returns false if it was not registered.
    pub fn unregister(&mut self, address: &str) -> bool {
        let Some((address, id)) = self.addresses.remove_entry(address) else { return false };
        self.bus.remove(&address, id);
        true
    }

    /// The addresses it takes messages of.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.addresses.keys().map(|address| &**address)
    }

    pub fn is_registered(&self, address: &str) -> bool {
        self.addresses.contains_key(address)
    }

    /// The next message. Safe to cancel. Never ends by itself.
    pub async fn recv(&mut self) -> Message {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// A message that waits already.
    pub fn try_recv(&mut self) -> Option<Message> {
        let message = self.messages.try_recv().ok()?;
        self.queue.taken(&message);
        Some(message)
    }

    /// Messages that were dropped because this queue was full.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Message> {
        match self.messages.poll_recv(cx) {
            Poll::Ready(Some(message)) => {
                self.queue.taken(&message);
                Poll::Ready(message)
            }
            // This inbox holds a sender itself, so that the channel does not end before it.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        for (address, id) in std::mem::take(&mut self.addresses) {
            self.bus.remove(&address, id);
        }
        // Messages that nobody will read tell their askers so as they are dropped, outside of any lock.
        self.messages.close();
        while self.messages.try_recv().is_ok() {}
    }
}

/// One receiver at one address, until it is dropped. A stream of messages.
#[derive(Debug)]
pub struct Consumer {
    inbox: Inbox,
    address: Arc<str>,
}

impl Consumer {
    pub(crate) fn new(bus: Arc<Bus>, address: &str) -> Result<Consumer, BusError> {
        let mut inbox = Inbox::new(bus);
        inbox.register(address)?;
        Ok(Consumer { inbox, address: address.into() })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next message. Safe to cancel. Never ends by itself.
    pub async fn recv(&mut self) -> Message {
        self.inbox.recv().await
    }

    /// A message that waits already.
    pub fn try_recv(&mut self) -> Option<Message> {
        self.inbox.try_recv()
    }

    /// Messages that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.inbox.dropped()
    }
}

impl Stream for Consumer {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.inbox.poll_recv(cx).map(Some)
    }
}
