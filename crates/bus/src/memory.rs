//! Buses joined without sockets, for tests and simulation: frames wait until they are delivered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::bus::{Bus, Settings, Transport};

/// A network of buses in memory. Nothing moves before [`Mesh::deliver`], so tests decide what happens when.
#[derive(Debug, Default)]
pub struct Mesh {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    buses: BTreeMap<String, Weak<Bus>>,
    /// Frames in order, by sender and receiver.
    links: BTreeMap<(String, String), VecDeque<Bytes>>,
    link_length: usize,
}

/// One bus's way into a mesh.
#[derive(Debug)]
struct Port {
    node: String,
    mesh: Weak<Mesh>,
}

impl Transport for Port {
    fn send(&self, node: &str, frame: Bytes) -> bool {
        let Some(mesh) = self.mesh.upgrade() else { return false };
        let mut state = mesh.state.lock();
        let length = state.link_length;
        let Some(link) = state.links.get_mut(&(self.node.clone(), node.to_owned())) else { return false };
        if link.len() >= length {
            return false;
        }
        link.push_back(frame);
        true
    }
}

impl Mesh {
    /// A network in which `link_length` frames may wait on each link.
    pub fn new(link_length: usize) -> Arc<Mesh> {
        Arc::new(Mesh { state: Mutex::new(State { link_length, ..State::default() }) })
    }

    /// Returns a bus that is not connected to others yet.
    pub fn bus(self: &Arc<Self>, node: &str, settings: Settings) -> Arc<Bus> {
        let port = Port { node: node.to_owned(), mesh: Arc::downgrade(self) };
        let bus = Bus::new(node, settings, Arc::new(port));
        self.state.lock().buses.insert(node.to_owned(), Arc::downgrade(&bus));
        bus
    }

    /// Joins two buses.
    pub fn join(&self, one: &Arc<Bus>, other: &Arc<Bus>) {
        for (from, to) in [(one, other), (other, one)] {
            self.state.lock().links.insert((from.node().to_owned(), to.node().to_owned()), VecDeque::new());
        }
        one.peer_up(other.node());
        other.peer_up(one.node());
    }

    /// Parts two buses; what waits between them is lost.
    pub fn part(&self, one: &Arc<Bus>, other: &Arc<Bus>) {
        for (from, to) in [(one, other), (other, one)] {
            self.state.lock().links.remove(&(from.node().to_owned(), to.node().to_owned()));
        }
        one.peer_down(other.node());
        other.peer_down(one.node());
    }

    /// Delivers every frame that waits, and those that come of it. The number of frames.
    pub fn deliver(&self) -> usize {
        let mut delivered = 0;
        loop {
            let waiting: Vec<(String, Weak<Bus>, VecDeque<Bytes>)> = {
                let State { buses, links, .. } = &mut *self.state.lock();
                let busy = links.iter_mut().filter(|(_, frames)| !frames.is_empty());
                busy.filter_map(|((from, to), frames)| {
                    Some((from.clone(), buses.get(to)?.clone(), std::mem::take(frames)))
                })
                .collect()
            };
            if waiting.is_empty() {
                return delivered;
            }
            for (from, bus, frames) in waiting {
                for frame in frames {
                    delivered += 1;
                    if let Some(bus) = bus.upgrade() {
                        bus.receive(&from, frame);
                    }
                }
            }
        }
    }
}
