//! Registrations by address: receivers of this node, and nodes that have receivers. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::inbox::Queue;

/// A peer may register this many addresses; more are not remembered. Far above what a node needs (its containers and its
/// clients), and a bound for the memory that a peer gone mad can take.
pub(crate) const PEER_ADDRESSES_MAX: usize = 100_000;

/// Every registration that this node knows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<Arc<str>, Entry>,
    peers: HashMap<Arc<str>, Peer>,
    /// Addresses with receivers of this node.
    local: HashSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct Entry {
    receivers: Vec<(u64, Arc<Queue>)>,
    nodes: Vec<Arc<str>>,
    /// Turn of the round-robin: this node, if it has receivers, comes before the others.
    place_turn: usize,
    receiver_turn: usize,
}

#[derive(Debug, Default)]
struct Peer {
    addresses: HashSet<Arc<str>>,
    /// True if the node lacks some of this node's addresses, since its queue was full.
    stale: bool,
}

/// Next destination of a message.
#[derive(Debug)]
pub(crate) enum Hop {
    Here(Arc<Queue>),
    There(Arc<str>),
}

impl Table {
    /// The receiver whose turn it is: in turn over nodes, and within this node over receivers.
    pub(crate) fn next(&mut self, address: &str) -> Option<(Arc<str>, Hop)> {
        let name = self.entries.get_key_value(address)?.0.clone();
        let entry = self.entries.get_mut(address)?;
        let here = usize::from(!entry.receivers.is_empty());
        let places = here + entry.nodes.len();
        let place = entry.place_turn % places;
        entry.place_turn = (place + 1) % places;
        let hop = if place < here {
            Hop::Here(entry.next_receiver()?)
        } else {
            Hop::There(entry.nodes[place - here].clone())
        };
        Some((name, hop))
    }

    /// The receiver of this node whose turn it is.
    pub(crate) fn next_here(&mut self, address: &str) -> Option<(Arc<str>, Arc<Queue>)> {
        let name = self.entries.get_key_value(address)?.0.clone();
        let queue = self.entries.get_mut(address)?.next_receiver()?;
        Some((name, queue))
    }

    /// All receivers of this node.
    pub(crate) fn all_here(&self, address: &str) -> Option<(Arc<str>, Vec<Arc<Queue>>)> {
        let (name, entry) = self.entries.get_key_value(address)?;
        Some((name.clone(), entry.receivers.iter().map(|(_, queue)| queue.clone()).collect()))
    }

    /// The peers with receivers.
    pub(crate) fn nodes(&self, address: &str) -> Vec<Arc<str>> {
        self.entries.get(address).map(|entry| entry.nodes.clone()).unwrap_or_default()
    }

    /// Adds a receiver of this node. True if it is the first one at its address: peers must be told.
    pub(crate) fn add(&mut self, address: &Arc<str>, id: u64, queue: Arc<Queue>) -> bool {
        let entry = self.entries.entry(address.clone()).or_default();
        entry.receivers.push((id, queue));
        entry.receivers.len() == 1 && self.local.insert(address.clone())
    }

    /// Removes a receiver of this node. True if it was the last one at its address: peers must be told.
    pub(crate) fn remove(&mut self, address: &str, id: u64) -> bool {
        let Some(entry) = self.entries.get_mut(address) else { return false };
        entry.receivers.retain(|(known, _)| *known != id);
        let last = entry.receivers.is_empty() && self.local.remove(address);
        self.tidy(address);
        last
    }

    pub(crate) fn local(&self) -> impl Iterator<Item = &Arc<str>> {
        self.local.iter()
    }

    pub(crate) fn peer_up(&mut self, node: &str) {
        self.peers.entry(node.into()).or_default();
    }

    pub(crate) fn is_peer(&self, node: &str) -> bool {
        self.peers.contains_key(node)
    }

    pub(crate) fn peers(&self) -> Vec<Arc<str>> {
        self.peers.keys().cloned().collect()
    }

    pub(crate) fn peer_down(&mut self, node: &str) -> bool {
        self.forget(node);
        self.peers.remove(node).is_some()
    }

    /// Forgets the addresses of a peer.
    pub(crate) fn forget(&mut self, node: &str) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        for address in std::mem::take(&mut peer.addresses) {
            if let Some(entry) = self.entries.get_mut(&address) {
                entry.nodes.retain(|known| &**known != node);
            }
            self.tidy(&address);
        }
    }

    /// Notes that a peer has receivers at `address`. False if it has too many addresses already.
    pub(crate) fn learn(&mut self, node: &str, address: &str) -> bool {
        let Some((node, peer)) =
            self.peers.get_key_value(node).map(|(node, _)| node.clone()).zip(self.peers.get_mut(node))
        else {
            return true;
        };
        if peer.addresses.contains(address) {
            return true;
        }
        if peer.addresses.len() >= PEER_ADDRESSES_MAX {
            return false;
        }
        let name = self.entries.get_key_value(address).map_or_else(|| Arc::from(address), |(name, _)| name.clone());
        peer.addresses.insert(name.clone());
        self.entries.entry(name).or_default().nodes.push(node);
        true
    }

    /// Notes that a peer has no receivers at `address` any more.
    pub(crate) fn unlearn(&mut self, node: &str, address: &str) {
        let known = self.peers.get_mut(node).is_some_and(|peer| peer.addresses.remove(address));
        if known && let Some(entry) = self.entries.get_mut(address) {
            entry.nodes.retain(|other| &**other != node);
            self.tidy(address);
        }
    }

    /// Sets whether a peer lacks registrations of this node; true if that is a change.
    pub(crate) fn set_stale(&mut self, node: &str, stale: bool) -> bool {
        self.peers.get_mut(node).is_some_and(|peer| std::mem::replace(&mut peer.stale, stale) != stale)
    }

    pub(crate) fn is_stale(&self, node: &str) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.stale)
    }

    /// Addresses of this node, and of all nodes together.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.local.len(), self.entries.len())
    }

    fn tidy(&mut self, address: &str) {
        if self.entries.get(address).is_some_and(|entry| entry.receivers.is_empty() && entry.nodes.is_empty()) {
            self.entries.remove(address);
        }
    }
}

impl Entry {
    fn next_receiver(&mut self) -> Option<Arc<Queue>> {
        let place = self.receiver_turn.checked_rem(self.receivers.len())?;
        self.receiver_turn = (place + 1) % self.receivers.len();
        Some(self.receivers[place].1.clone())
    }
}
