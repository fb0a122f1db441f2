//! Messages between the buses of nodes: addresses, messages, answers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::Bus;
use crate::error::BusError;
use crate::frame::{Frame, FrameError, Post};
use crate::message;
use crate::table::{PEER_ADDRESSES_MAX, Table};

/// Addresses in one frame when a peer gets all of them: 50 KiB at most.
const ADDRESSES_PER_FRAME: usize = 256;

/// Pause before a peer whose queue was too full gets all addresses again. The transport does not report when there is
/// room.
const RESYNC_PAUSE: Duration = Duration::from_millis(50);

impl Bus {
    /// A link to a peer is there: both sides tell each other their addresses. To be called before the first
    /// [`Bus::receive`] of the link, and after [`Bus::peer_down`] of the link before.
    pub fn peer_up(&self, node: &str) {
        if node == &*self.node {
            return tracing::error!(node, "a peer has the name of this node; the bus does not talk to it");
        }
        self.table.lock().peer_up(node);
        self.tell_all(node);
    }

    /// The link to a peer is gone: its addresses are forgotten, and requests to it fail.
    pub fn peer_down(&self, node: &str) {
        self.table.lock().peer_down(node);
        self.pending.lost(node);
    }

    /// Takes a frame from a peer. Frames that cannot be read are counted, logged and harmless.
    pub fn receive(&self, node: &str, frame: Bytes) {
        if let Err(error) = Frame::decode(&frame).and_then(|frame| self.take(node, frame)) {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(node, %error, "a frame of the bus is refused");
        }
    }

    fn take(&self, from: &str, frame: Frame<'_>) -> Result<(), FrameError> {
        if !self.table.lock().is_peer(from) {
            tracing::debug!(from, "a frame of the bus arrived without a link");
            return Ok(());
        }
        match frame {
            Frame::Registrations { fresh, addresses } => self.learn(from, fresh, &addresses),
            Frame::Registered(address) => self.learn(from, false, &[address]),
            Frame::Unregistered(address) => self.table.lock().unlearn(from, address),
            Frame::Send(post) => self.take_sent(from, &post)?,
            Frame::Publish(post) => {
                let (headers, body) = post.open()?;
                let here = self.table.lock().all_here(post.address);
                if let Some((address, queues)) = here {
                    self.deliver_all(Some(from), &address, queues.iter(), headers, body);
                }
            }
            Frame::Ask(post) => {
                let (headers, body) = post.open()?;
                let here = self.table.lock().all_here(post.address);
                let id = post.reply.ok_or_else(|| FrameError::Damaged("a question without a way back".to_owned()))?;
                let (address, queues) = here.unwrap_or_default();
                self.ask_all(&from.into(), id, &address, &queues, headers, body);
            }
            Frame::Asked { to, receivers } => self.pending.expect(from, to, receivers),
            Frame::Reply { to, post } => {
                let (headers, body) = post.open()?;
                let reply = post.reply.map(|id| self.reply_to(&from.into(), id));
                let mut message = self.message(self.answer_address.clone(), headers, body, false, reply);
                message.from = Some(from.into());
                self.settle(from, to, Ok(message));
            }
            Frame::Failure { to, kind, code, message } => {
                self.settle(from, to, Err(BusError { kind, code, message: message.to_owned() }));
            }
        }
        Ok(())
    }

    fn take_sent(&self, from: &str, post: &Post<'_>) -> Result<(), FrameError> {
        let (headers, body) = post.open()?;
        let reply = post.reply.map(|id| self.reply_to(&from.into(), id));
        let here = self.table.lock().next_here(post.address);
        match (here, reply) {
            (Some((address, queue)), reply) => {
                // The asker was told already, if there was no room.
                let mut message = self.message(address, headers, body, false, reply);
                message.from = Some(from.into());
                let _ = self.offer(&queue, message);
            }
            // The receiver went away while the message was under way.
            (None, Some(reply)) => reply.fail(BusError::no_handlers(post.address)),
            (None, None) => self.count_dropped(1),
        }
        Ok(())
    }

    fn learn(&self, from: &str, fresh: bool, addresses: &[&str]) {
        let mut table = self.table.lock();
        if fresh {
            table.forget(from);
        }
        let mut refused = 0;
        for address in addresses {
            if message::check_address(address).is_err() || !table.learn(from, address) {
                refused += 1;
            }
        }
        drop(table);
        if refused > 0 {
            tracing::warn!(from, refused, max = PEER_ADDRESSES_MAX, "addresses of a peer are invalid or too many");
        }
    }

    /// Sends a frame without waiting. Dropped frames are counted.
    pub(super) fn tell(&self, node: &str, frame: &Frame<'_>) -> Result<(), FrameError> {
        if !self.transport.send(node, frame.encode()?) {
            self.count_dropped(1);
        }
        Ok(())
    }

    pub(super) fn tell_change(&self, table: &mut Table, change: &Frame<'_>) {
        let Ok(frame) = change.encode() else { return };
        for node in table.peers() {
            // A stale peer will be told everything anyhow.
            if !table.is_stale(&node) && !self.transport.send(&node, frame.clone()) {
                self.mark_stale(table, &node);
            }
        }
    }

    /// Sends a peer all addresses of this node. Returns false if there was no room for all of them.
    fn tell_all(&self, node: &str) -> bool {
        let mut table = self.table.lock();
        if !table.is_peer(node) {
            return true;
        }
        let addresses: Vec<&str> = table.local().map(|address| &**address).collect();
        let mut parts: Vec<&[&str]> = addresses.chunks(ADDRESSES_PER_FRAME).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let told = parts.into_iter().enumerate().all(|(index, part)| {
            let frame = Frame::Registrations { fresh: index == 0, addresses: part.to_vec() };
            frame.encode().is_ok_and(|frame| self.transport.send(node, frame))
        });
        if told {
            table.set_stale(node, false);
        } else {
            self.mark_stale(&mut table, node);
        }
        told
    }

    /// Remembers that a peer lacks addresses, and sees to it that it gets them.
    fn mark_stale(&self, table: &mut Table, node: &str) {
        if !table.set_stale(node, true) {
            return;
        }
        let (bus, node) = (self.me.clone(), node.to_owned());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return tracing::warn!(node, "a peer lacks addresses, and no task is left to send them again");
        };
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(RESYNC_PAUSE).await;
                if bus.upgrade().is_none_or(|bus| bus.tell_all(&node)) {
                    return;
                }
            }
        });
    }
}
