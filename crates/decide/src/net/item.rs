//! Entries of the kernel's tables.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Returns `02:42` and the four bytes of an IPv4 address, as Docker Engines do. An address that is reused keeps its
    /// MAC, so no neighbour cache can hold a stale entry.
    pub fn of(address: Ipv4Addr) -> Mac {
        let [a, b, c, d] = address.octets();
        Mac([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Family of an nft table named `herder`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ip,
    Ip6,
    Bridge,
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Bridge => "bridge",
        }
    }
}

/// A named set or map of the nft tables. [`Set::key`] and [`Set::data`] tell its types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// Gateway addresses whose port 53 leads to the DNS server, with the bridge.
    Dns,
    /// Address that a connection of an endpoint with itself by its VIP gets as its source.
    Gateways,
    /// Endpoints of this node: bridge, address, address.
    Hairpin,
    /// MAC of a node's ingress bridge → connection mark of that entry node.
    Entry,
    /// MACs of all ingress bridges.
    NodesMac,
    /// Addresses of all nodes.
    Nodes,
    /// Address of a container that was made with other name servers → gateway address whose DNS server it asks.
    Late,
    /// Addresses of all nodes on ingress.
    Entries,
    /// UDP ports whose tasks see the client's address.
    KeepUdp,
    /// Published ports of local endpoints: address, protocol, target port.
    Targets,
    /// Published ports without a backend: connections are refused.
    NoPorts,
    /// Ports that are published on some addresses of hosts only.
    Limited,
    /// Those addresses, with protocol and port.
    PublishedOn,
    /// All virtual IPs.
    VipAddrs,
    /// VIP and index → backend.
    VipSlots,
    /// Protocol, published port and index → backend and target port.
    PortSlots,
    /// Bridge and VIP → chain of its number of backends.
    Vips,
    /// Protocol and published port → chain of its number of backends.
    Ports,
    /// Connection mark of an entry node → MAC of its ingress bridge (family bridge).
    Exits,
}

/// Type of one part of a key or of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Ifname,
    /// An address of the table's family.
    Addr,
    Mac,
    Mark,
    Proto,
    Port,
    /// Result of `numgen` or `jhash`.
    Index,
    Verdict,
}

impl Set {
    /// Sets of the tables `ip` and `ip6`.
    pub const INET: [Set; 18] = [
        Set::Dns,
        Set::Late,
        Set::Gateways,
        Set::Hairpin,
        Set::Entry,
        Set::NodesMac,
        Set::Nodes,
        Set::Entries,
        Set::KeepUdp,
        Set::Targets,
        Set::NoPorts,
        Set::Limited,
        Set::PublishedOn,
        Set::VipAddrs,
        Set::VipSlots,
        Set::PortSlots,
        Set::Vips,
        Set::Ports,
    ];

    pub fn of(family: Family) -> &'static [Set] {
        match family {
            Family::Ip | Family::Ip6 => &Set::INET,
            Family::Bridge => &[Set::Exits],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Set::Dns => "dns",
            Set::Late => "late",
            Set::Gateways => "gateways",
            Set::Hairpin => "hairpin",
            Set::Entry => "entry",
            Set::NodesMac => "nodesmac",
            Set::Nodes => "nodes",
            Set::Entries => "entries",
            Set::KeepUdp => "keepudp",
            Set::Targets => "targets",
            Set::NoPorts => "noports",
            Set::Limited => "limited",
            Set::PublishedOn => "publishedon",
            Set::VipAddrs => "vipaddrs",
            Set::VipSlots => "vslots",
            Set::PortSlots => "pslots",
            Set::Vips => "vips",
            Set::Ports => "ports",
            Set::Exits => "exits",
        }
    }

    pub fn key(self) -> &'static [Part] {
        match self {
            Set::Dns | Set::Vips => &[Part::Ifname, Part::Addr],
            Set::Gateways => &[Part::Ifname],
            Set::Hairpin => &[Part::Ifname, Part::Addr, Part::Addr],
            Set::Entry | Set::NodesMac => &[Part::Mac],
            Set::Late | Set::Nodes | Set::Entries | Set::VipAddrs => &[Part::Addr],
            Set::KeepUdp => &[Part::Port],
            Set::Targets | Set::PublishedOn => &[Part::Addr, Part::Proto, Part::Port],
            Set::NoPorts | Set::Limited | Set::Ports => &[Part::Proto, Part::Port],
            Set::VipSlots => &[Part::Addr, Part::Index],
            Set::PortSlots => &[Part::Proto, Part::Port, Part::Index],
            Set::Exits => &[Part::Mark],
        }
    }

    /// Empty for sets that are no maps.
    pub fn data(self) -> &'static [Part] {
        match self {
            Set::Late | Set::Gateways | Set::VipSlots => &[Part::Addr],
            Set::Entry => &[Part::Mark],
            Set::PortSlots => &[Part::Addr, Part::Port],
            Set::Vips | Set::Ports => &[Part::Verdict],
            Set::Exits => &[Part::Mac],
            Set::Dns
            | Set::Hairpin
            | Set::NodesMac
            | Set::Nodes
            | Set::Entries
            | Set::KeepUdp
            | Set::Targets
            | Set::NoPorts
            | Set::Limited
            | Set::PublishedOn
            | Set::VipAddrs => &[],
        }
    }
}

/// A part of a key or of data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    Ifname(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Mac(Mac),
    Mark(u32),
    /// Protocol number.
    Proto(u8),
    Port(u16),
    Index(u32),
    /// Name of the chain that a verdict goes to.
    Goto(String),
}

impl From<IpAddr> for Field {
    fn from(address: IpAddr) -> Field {
        match address {
            IpAddr::V4(address) => Field::V4(address),
            IpAddr::V6(address) => Field::V6(address),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Ifname(name) => write!(f, "\"{name}\""),
            Field::V4(address) => address.fmt(f),
            Field::V6(address) => address.fmt(f),
            Field::Mac(mac) => mac.fmt(f),
            Field::Mark(mark) => write!(f, "{mark:#010x}"),
            Field::Proto(6) => f.write_str("tcp"),
            Field::Proto(17) => f.write_str("udp"),
            Field::Proto(132) => f.write_str("sctp"),
            Field::Proto(number) => number.fmt(f),
            Field::Port(number) => number.fmt(f),
            Field::Index(number) => number.fmt(f),
            Field::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

/// Identity of an entry. The order of variants is the order in which entries are put into the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// Below `/proc/sys`.
    Sysctl(String),
    /// A bridge whose frames pass through the IP tables of the host.
    BridgeCalls(String),
    /// The MAC of a bridge: on ingress other nodes tell by it which node a connection has entered by.
    BridgeMac(String),
    /// An address on a bridge.
    Address {
        dev: String,
        address: IpNet,
    },
    /// A VXLAN device, by name.
    Vxlan(String),
    /// An entry of a VXLAN device: MAC → node.
    Fdb {
        dev: String,
        mac: Mac,
    },
    /// An entry of a bridge: MAC → the VXLAN device `dev`.
    BridgeFdb {
        dev: String,
        mac: Mac,
    },
    /// A permanent neighbour.
    Neighbour {
        dev: String,
        address: IpAddr,
    },
    /// A virtual IP as an address of this host.
    LocalRoute {
        dev: String,
        address: IpAddr,
    },
    /// The way back to the entry node of a connection. It is the default route of a table of its own, and the rule
    /// that selects it.
    ExitRoute(Family),
    ExitRule(Family),
    /// A table with its chains and empty sets.
    Base(Family),
    /// A chain for one number of backends, beyond those that every base has.
    Chain(Family, String),
    Element(Family, Set, Vec<Field>),
    /// A rule of Docker's chain for users.
    DockerUser(String),
}

impl Item {
    /// The nft table that the item belongs to.
    pub fn family(&self) -> Option<Family> {
        match self {
            Item::Base(family) | Item::Chain(family, _) | Item::Element(family, ..) => Some(*family),
            _ => None,
        }
    }
}

/// A VXLAN device, which is a port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanDevice {
    pub vni: u32,
    pub local: IpAddr,
    pub port: u16,
    pub mtu: u32,
    pub bridge: String,
    /// The only device that its packets leave and come by; none: any.
    pub over: Option<String>,
}

/// Contents of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The entry is there.
    Set,
    Text(String),
    Mac(Mac),
    Addr(IpAddr),
    /// Boxed: there are many items, and few devices.
    Vxlan(Box<VxlanDevice>),
    Dev(String),
    /// Hash of the base's text and number of its rules.
    Stamp(String, usize),
    Fields(Vec<Field>),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Sysctl(path) => write!(f, "sysctl {path}"),
            Item::BridgeCalls(bridge) => write!(f, "bridge {bridge} nf_call"),
            Item::BridgeMac(bridge) => write!(f, "bridge {bridge} address"),
            Item::Address { dev, address } => write!(f, "address {address} dev {dev}"),
            Item::Vxlan(name) => write!(f, "vxlan {name}"),
            Item::Fdb { dev, mac } => write!(f, "fdb {mac} dev {dev}"),
            Item::BridgeFdb { dev, mac } => write!(f, "fdb {mac} dev {dev} master"),
            Item::Neighbour { dev, address } => write!(f, "neighbour {address} dev {dev}"),
            Item::LocalRoute { dev, address } => write!(f, "route local {address} dev {dev}"),
            Item::ExitRoute(family) => write!(f, "route exit {}", family.name()),
            Item::ExitRule(family) => write!(f, "rule exit {}", family.name()),
            Item::Base(family) => write!(f, "table {} herder", family.name()),
            Item::Chain(family, name) => write!(f, "chain {} {name}", family.name()),
            Item::Element(family, set, key) => {
                write!(f, "element {} {} ", family.name(), set.name())?;
                write_fields(f, key)
            }
            Item::DockerUser(rule) => write!(f, "DOCKER-USER {rule}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Set => Ok(()),
            Value::Text(text) | Value::Dev(text) => f.write_str(text),
            Value::Mac(mac) => mac.fmt(f),
            Value::Addr(address) => address.fmt(f),
            Value::Vxlan(device) => {
                let VxlanDevice { vni, local, port, mtu, bridge, over } = &**device;
                write!(f, "id {vni} local {local} dstport {port} mtu {mtu} master {bridge}")?;
                over.iter().try_for_each(|dev| write!(f, " dev {dev}"))
            }
            Value::Stamp(hash, rules) => write!(f, "{hash} {rules} rules"),
            Value::Fields(fields) => write_fields(f, fields),
        }
    }
}

pub(super) fn write_fields(f: &mut fmt::Formatter<'_>, fields: &[Field]) -> fmt::Result {
    for (n, field) in fields.iter().enumerate() {
        if n > 0 {
            f.write_str(" . ")?;
        }
        write!(f, "{field}")?;
    }
    Ok(())
}
