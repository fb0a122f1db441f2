//! DNS server of overlay networks on one host.
//!
//! It runs as a process of its own (`herder net-dns`), so names resolve while herder restarts: engines of release 20.10 leave a lookup
//! without any answer while their upstream server is away. herder feeds it over a Unix socket; the last feed stays on disk. Names are
//! decided in `decide::net::Names`; packets are read and written by `hickory-proto`.

mod feed;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod packet;
mod relay;
mod server;

pub use feed::{CHANGES, Feed};
pub use packet::{Reply, reply};
pub use server::{KEPT, serve};

/// Port of the server. Port 53 of gateway addresses is redirected here, so a name server of the host keeps its own.
pub const DNS_PORT: u16 = 5399;
