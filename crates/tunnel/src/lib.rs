//! Encrypted tunnels between nodes: WireGuard in a process of its own, for kernels without it.
//!
//! It runs as `herder net-tunnel`, so tunnels stay while herder restarts. herder feeds it the wanted tunnels over a Unix socket. The tunnel
//! device goes with the process, and the VXLAN devices that are bound to it go with that: without a tunnel nothing leaves the host.

mod core;
mod key;
mod process;

pub use key::{KEY_FILE, decoded, private_key, public_key};
pub use process::{Feed, PEERS_FILE, serve};

/// Reason why tunnels cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    #[error("{path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("{0} holds no key of WireGuard: remove it, and the node gets a new one")]
    Key(String),
    #[error(transparent)]
    Feed(#[from] herder_parts::aside::AsideError),
}
