//! Overlay networks on one node: what belongs into its kernel and what its DNS server answers, as functions of data.
//!
//! [`table`] computes everything that a node's kernel has to contain from the states that the leader sent; [`plan`] compares that with
//! what is there. First set-up, every change and every repair are the same comparison. See ADR 12 and docs/networks.md.

mod answer;
mod backends;
mod flows;
mod item;
mod names;
mod nft;
mod plan;
mod scope;
mod table;
#[cfg(test)]
mod tests;
mod tunnel;
mod underlay;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herder_model::swarm::NetState;

pub use answer::{Answer, Question, Record, RecordData, RecordType};
pub use flows::{Flows, ended};
pub use item::Part;
pub use item::{Family, Field, Item, Mac, Set, Value, VxlanDevice};
pub use names::Names;
pub use nft::{BASE_SIZES, STAMP_PREFIX, chain_rule};
pub use plan::{Op, carry_out, plan};
pub use table::{Table, bridge_name, mtu, table, vxlan_name};
pub use tunnel::{TUNNEL, Tunnel, TunnelPeer, lacks_tunnel, tunnel, tunnel_address};
pub(crate) use tunnel::{TUNNEL_OVERHEAD_V4, TUNNEL_OVERHEAD_V6};
pub use underlay::{Routes, routes};

/// States of networks, by network id.
pub type States = BTreeMap<String, Arc<NetState>>;

/// The node that a table is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Id of the node.
    pub node: String,
    /// MTU of the interface that carries the data path.
    pub underlay_mtu: u32,
    /// Port of the node's DNS server; port 53 of gateway addresses is redirected to it.
    pub dns_port: u16,
    /// Nodes that gossip suspects to be lost.
    pub suspects: BTreeSet<String>,
    /// Endpoints of this node whose containers have ended, before the leader knows.
    pub ended: BTreeSet<String>,
    /// Published ports (`8080/tcp`) that another program of this host listens on; the mesh leaves them alone.
    pub taken: BTreeSet<String>,
}
