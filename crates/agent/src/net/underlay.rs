//! The physical network of this node, as managers are told of it.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use herder_decide::net::{Routes, routes};
use herder_model::swarm::{SCTP, Underlay};
use herder_net::{data_path_mtu, interface_address};
use tracing::debug;

use super::tunnels;

/// Programs that overlay networks are set up with.
const PROGRAMS: [&str; 2] = ["nft", "iptables"];

/// Reason why an address cannot be the end of VXLAN tunnels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataPathError {
    /// In the words of Docker's engine.
    #[error("data path address must be a non-zero IP address or network interface (without a port number)")]
    Malformed,
    #[error("data path address {0} is no address of this host")]
    Elsewhere(IpAddr),
    #[error("interface {0} has no address for the data path")]
    Bare(String),
}

/// Resolves the data path address that a client asks for. It is an address of this host, or the name of an
/// interface.
///
/// # Errors
///
/// If it is neither, or the interface has no address.
pub async fn data_path(text: &str) -> Result<IpAddr, DataPathError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return match address.is_unspecified() {
            true => Err(DataPathError::Malformed),
            // Only an address of this host can be bound.
            false => UdpSocket::bind((address, 0)).map(|_| address).map_err(|_| DataPathError::Elsewhere(address)),
        };
    }
    let name = text.to_owned();
    let is_there =
        !name.is_empty() && !name.contains('/') && std::path::Path::new("/sys/class/net").join(&name).exists();
    if !is_there {
        return Err(DataPathError::Malformed);
    }
    let address = tokio::task::spawn_blocking(move || interface_address(&name)).await;
    address.ok().and_then(Result::ok).flatten().ok_or_else(|| DataPathError::Bare(text.to_owned()))
}

/// Reads the MTU of the data path with this address, and the subnets that the node has routes to. Other nodes must not use them for overlay
/// networks. The key of its tunnels is made in `folder` where there is none.
pub async fn underlay(data_path: IpAddr, folder: &Path) -> Underlay {
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
    let tunnel = tunnels::end(folder);
    Underlay { mtu, routes: host, engine_subnets: engine, lacks: lacking(), tunnel, ..Underlay::default() }
}

/// Programs that overlay networks need and this host does not have; and whether its kernel cannot track connections of SCTP.
fn lacking() -> Vec<String> {
    let folders: Vec<_> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let is_there = |program: &&str| folders.iter().any(|folder| folder.join(program).exists());
    let tracking = std::path::Path::new("/proc/sys/net/netfilter");
    let has_sctp = !tracking.exists() || tracking.join("nf_conntrack_sctp_timeout_established").exists();
    let programs = PROGRAMS.into_iter().filter(|program| !is_there(program));
    programs.chain((!has_sctp).then_some(SCTP)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_data_path_is_an_address_of_this_host_or_an_interface() {
        let said = async |text: &str| match data_path(text).await {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        };
        let malformed = DataPathError::Malformed.to_string();
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            // Its addresses lead to no other node.
            ("lo", "interface lo has no address for the data path"),
            ("0.0.0.0", malformed.as_str()),
            ("127.0.0.1:80", &malformed),
            ("nosuch0", &malformed),
            ("../net", &malformed),
            ("192.0.2.7", "data path address 192.0.2.7 is no address of this host"),
        ] {
            assert_eq!(said(text).await, expected, "{text}");
        }
    }
}
