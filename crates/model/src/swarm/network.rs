//! Networks of the swarm: what a client declares, what managers decided about it, and the addresses that tasks have there.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Driver, Meta, Rest, is_default, keeps_rest};

/// The first VXLAN network identifier that is given to a network (swarmkit `DefaultVNI` range).
pub const FIRST_VNI: u32 = 4096;
/// Name of the network that published ports travel through, unless it was made anew under another name.
pub const INGRESS: &str = "ingress";
/// The driver of networks that reach over hosts.
pub const OVERLAY: &str = "overlay";
/// The option under which an overlay network shows its VXLAN network identifier, and under which a client may choose it.
pub const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// The option of an encrypted network. Its mere presence counts, as with Docker Engines; `false` does not.
pub const ENCRYPTED_OPTION: &str = "encrypted";

/// A network as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct NetworkSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub driver_configuration: Option<Driver>,
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "is_default")]
    pub ipv6_enabled: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub attachable: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub ingress: bool,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "is_default")]
    pub ipam_options: Option<IpamOptions>,
    #[serde(skip_serializing_if = "is_default")]
    pub config_from: Option<ConfigFrom>,
    /// `swarm`.
    #[serde(skip_serializing_if = "is_default")]
    pub scope: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// The config-only network of each engine that holds the settings of a node-local network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ConfigFrom {
    pub network: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Address management of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct IpamOptions {
    pub driver: Driver,
    #[serde(skip_serializing_if = "is_default")]
    pub configs: Vec<IpamConfig>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// One subnet of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct IpamConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub subnet: String,
    /// The part of the subnet that addresses are given from; empty: all of it.
    #[serde(skip_serializing_if = "is_default")]
    pub range: String,
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// A network as tasks show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SwarmNetwork {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: NetworkSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub driver_state: Option<Driver>,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "is_default")]
    pub ipam_options: Option<IpamOptions>,
}

/// A network, with what only managers need to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkRecord {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    /// The name, while the network can be found by it. Empty after its removal, while containers still end there: the name is
    /// free then, and clients do not see the network.
    pub name: String,
    pub spec: NetworkSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub driver_state: Option<Driver>,
    /// The subnets with their gateways, as they were decided.
    #[serde(rename = "IPAMOptions", skip_serializing_if = "is_default")]
    pub ipam_options: Option<IpamOptions>,
    /// VXLAN network identifier; 0 for a network that is local to each node.
    #[serde(skip_serializing_if = "is_default")]
    pub vni: u32,
    /// Addresses that are in use outside of the swarm, by name (`--aux-address`).
    #[serde(skip_serializing_if = "is_default")]
    pub auxiliary: BTreeMap<String, String>,
    #[serde(flatten)]
    pub rest: Rest,
}

impl NetworkRecord {
    /// True if it was removed, and only its last containers are waited for.
    pub fn is_removing(&self) -> bool {
        self.name.is_empty()
    }

    /// True if the managers give out the addresses of this network. Node-local networks have none.
    pub fn is_overlay(&self) -> bool {
        self.vni != 0
    }

    pub fn subnets(&self) -> &[IpamConfig] {
        self.ipam_options.as_ref().map_or(&[], |it| &it.configs)
    }

    /// An option of the driver.
    pub fn option(&self, key: &str) -> Option<&str> {
        let options = &self.spec.driver_configuration.as_ref()?.options;
        options.get(key).map(String::as_str)
    }

    /// True if packets of this network are encrypted between nodes.
    pub fn is_encrypted(&self) -> bool {
        self.option(ENCRYPTED_OPTION).is_some_and(|it| it != "false")
    }

    /// Returns the network in the form that tasks show.
    pub fn shown(&self) -> SwarmNetwork {
        SwarmNetwork {
            id: self.id.clone(),
            meta: self.meta.clone(),
            spec: self.spec.clone(),
            driver_state: self.driver_state.clone(),
            ipam_options: self.ipam_options.clone(),
        }
    }
}

/// The place of a task in one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct TaskNetwork {
    /// Id of the network, or the name of one that every node has (`bridge`, `host`, `none`).
    pub network_id: String,
    #[serde(skip_serializing_if = "is_default")]
    pub v4: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "is_default")]
    pub v6: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// A plain container's wish to be on a network. It is the specification of a task of runtime `attachment`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct NetworkAttachmentSpec {
    #[serde(rename = "ContainerID", skip_serializing_if = "is_default")]
    pub container_id: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// Entry of [`Underlay::lacks`] of a node whose kernel cannot publish ports of SCTP.
pub const SCTP: &str = "sctp";

/// Place of a node in the physical network, as the node reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct Underlay {
    /// The address that other nodes send encapsulated packets to; empty: the address of the node.
    #[serde(skip_serializing_if = "is_default")]
    pub data_path_addr: String,
    /// MTU of the interface with that address, in bytes; 0: not known.
    #[serde(skip_serializing_if = "is_default")]
    pub mtu: u32,
    /// Subnets that the node has routes to, in CIDR notation, without those of herder's own networks.
    #[serde(skip_serializing_if = "is_default")]
    pub routes: Vec<String>,
    /// Subnets of the engine's own networks.
    #[serde(skip_serializing_if = "is_default")]
    pub engine_subnets: Vec<String>,
    /// Capabilities of the node's kernel and tools.
    #[serde(skip_serializing_if = "is_default")]
    pub can: Capabilities,
    /// Programs that overlay networks need and the node does not have; and [`SCTP`], if its kernel does not track that.
    #[serde(skip_serializing_if = "is_default")]
    pub lacks: Vec<String>,
    /// Its end of encrypted tunnels; none: the node cannot carry encrypted networks.
    #[serde(skip_serializing_if = "is_default")]
    pub tunnel: Option<TunnelEnd>,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

/// A node's end of the encrypted tunnels to other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TunnelEnd {
    /// Public key of WireGuard, in base64. The private key stays on the node.
    pub key: String,
    pub way: TunnelWay,
    #[serde(flatten)]
    pub rest: Rest,
}

/// Implementation of WireGuard that a node uses. Both understand each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelWay {
    /// WireGuard of the kernel.
    Wireguard,
    /// WireGuard in a process of herder. Ways of later releases are shown as this one.
    #[default]
    #[serde(other)]
    Userspace,
}

impl TunnelWay {
    pub fn name(self) -> &'static str {
        match self {
            TunnelWay::Wireguard => "wireguard",
            TunnelWay::Userspace => "userspace",
        }
    }
}

/// The capabilities that a node needs for overlay networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    #[serde(skip_serializing_if = "is_default")]
    pub vxlan: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub nft: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub br_netfilter: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6: bool,
}

impl Capabilities {
    /// True if the node can carry overlay networks.
    pub fn overlay(self) -> bool {
        self.vxlan && self.nft && self.br_netfilter
    }
}

keeps_rest!(NetworkSpec, ConfigFrom, IpamOptions, IpamConfig, TaskNetwork, NetworkAttachmentSpec, Underlay);
