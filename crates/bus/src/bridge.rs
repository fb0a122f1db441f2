//! Bridges: clients of Vert.x talk to the bus, within what rules allow.
//!
//! A [`Session`] is one client without its connection: frames in, frames out. [`tcp`] puts it on a socket with length-prefixed
//! frames; [`sockjs`] below HTTP, whose routes are in the front. Clients are strangers: everything they say is bounded.

mod rules;
mod session;
pub mod sockjs;
pub mod tcp;

use std::sync::Arc;
use std::time::Duration;

pub use rules::{Rule, Rules, RulesError};
pub use session::{Dialect, Session};

use crate::bus::Bus;

/// Addresses on which herder itself publishes; docs/bus.md says what.
pub const EVENT_ADDRESSES: [&str; 3] = ["herder.events.container", "herder.events.node", "herder.events.membership"];

/// Limits of one client. Those of Vert.x.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one frame.
    pub frame_bytes: usize,
    /// Registrations and requests that wait, together.
    pub handlers: usize,
    /// Maximum time of a client's request, unless its `timeout` header is shorter.
    pub reply_time: Duration,
    /// A SockJS or WebSocket client that says nothing for this long is gone.
    pub ping_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // Half of what nodes carry, so that what a client may send always fits into one of their frames.
            frame_bytes: crate::FRAME_BYTES_MAX / 2,
            handlers: 1000,
            reply_time: Duration::from_secs(30),
            ping_time: Duration::from_secs(10),
        }
    }
}

/// State that all clients share: the bus, and the rules.
#[derive(Debug)]
pub struct Bridge {
    pub bus: Arc<Bus>,
    pub rules: Rules,
    pub limits: Limits,
}

impl Bridge {
    pub fn new(bus: Arc<Bus>, rules: Rules, limits: Limits) -> Arc<Bridge> {
        Arc::new(Bridge { bus, rules, limits })
    }
}
