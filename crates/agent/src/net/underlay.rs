//! The physical network of this node, as managers are told of it.

use std::net::IpAddr;

use herder_decide::net::{Routes, routes};
use herder_model::swarm::Underlay;
use herder_net::data_path_mtu;
use tracing::debug;

/// Reads the MTU of the data path with this address, and the subnets that the node has routes to. Other nodes must not use them for overlay
/// networks.
pub async fn underlay(data_path: IpAddr) -> Underlay {
    let mtu = tokio::task::spawn_blocking(move || data_path_mtu(data_path)).await;
    let mtu = match mtu {
        Ok(Ok(mtu)) => mtu.unwrap_or_default(),
        Ok(Err(error)) => {
            debug!(%error, "the MTU of the data path is not known");
            0
        }
        Err(_) => 0,
    };
    let text = tokio::fs::read_to_string("/proc/net/route").await.unwrap_or_default();
    let Routes { host, engine } = routes(&text);
    Underlay { mtu, routes: host, engine_subnets: engine, ..Underlay::default() }
}
