//! The kernel side of overlay networks on one host.
//!
//! [`Kernel`] reads what is there as the items of `decide::net` and carries out the steps of a plan. Calls block and belong on a
//! thread of their own. Elements of nft maps are changed by netlink; `nft` is started only to load a whole table. See ADR 12.

mod chain;
mod conntrack;
mod element;
mod hairpin;
mod iptables;
mod kernel;
mod links;
mod listeners;
mod netlink;
mod nft;
mod routes;
mod watch;
mod wireguard;

pub use iptables::lacks_rules;
pub use kernel::{Failed, Kernel, Steps};
pub use links::{data_path_mtu, interface_address, interface_addresses};
pub use listeners::listeners;
pub use watch::{Notice, Notices};
pub use wireguard::{Wireguard, has_wireguard};

/// Reason why the kernel cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("netlink {what}: {source}")]
    Netlink { what: &'static str, source: std::io::Error },
    #[error("{path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("cannot run {program}: {source}")]
    Program { program: &'static str, source: std::io::Error },
    #[error("{program}: {message}")]
    Refused { program: &'static str, message: String },
    #[error("there is no interface {0}")]
    NoInterface(String),
}
