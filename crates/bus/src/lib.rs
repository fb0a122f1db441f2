//! The event bus: addresses, messages between nodes, bridges for existing clients.
//!
//! Messages go to addresses: [`Bus::send`] to one receiver in turn, [`Bus::publish`] to all, [`Bus::request`] to one that
//! answers, [`Bus::gather`] to all that answer. Delivery is at most once, in order for each sender and receiver. Every queue
//! is bounded; a receiver that does not keep up loses the newest messages for itself and harms nobody else. See docs/bus.md.
//!
//! Nothing here opens a connection between nodes: a [`Transport`] carries frames, such as [`Links`] over streams that others
//! opened, or [`memory::Mesh`] for tests.

pub mod bridge;
mod bus;
mod error;
mod frame;
mod inbox;
mod link;
pub mod memory;
mod message;
mod pending;
mod table;

pub use bus::{Answer, Bus, Published, Settings, Stats, Transport};
pub use error::{BusError, Kind};
pub use frame::{FRAME_BYTES_MAX, FrameError, fuzz_frame};
pub use inbox::{Consumer, Inbox};
pub use link::Links;
pub use message::{ADDRESS_BYTES_MAX, Headers, Message, ReplyTo};
