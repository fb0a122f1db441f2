//! Subnets of networks, and their VXLAN network identifiers.

use std::net::Ipv4Addr;

use herder_model::swarm::{FIRST_VNI, IpamConfig, NetworkRecord, View};
use ipnet::{IpNet, Ipv4Net};

/// The pool of a swarm that names none.
const DEFAULT_POOL: &str = "10.0.0.0/8";
/// Prefix length of the subnets that a pool is cut into, if the swarm does not say.
const DEFAULT_SIZE: u8 = 24;
/// The ingress network gets a larger subnet: each node needs an address there.
const INGRESS_SIZE: u8 = 20;
/// Minimum number of such subnets in the pool; with less room, smaller ones are used.
const INGRESS_SHARES_MIN: u32 = 16;

/// An IPv4 subnet of a network, with the part of it that addresses are given from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub net: Ipv4Net,
    pub gateway: Ipv4Addr,
    /// First and last address that may be given.
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
}

impl Subnet {
    /// Returns the number of assignable addresses.
    pub fn size(&self) -> usize {
        usize::try_from(u32::from(self.last) - u32::from(self.first)).unwrap_or(usize::MAX) + 1
    }
}

/// The IPv4 subnet that addresses of this network come from. Nothing for a network that is local to each node.
pub fn subnet_of(network: &NetworkRecord) -> Option<Subnet> {
    let ipv4 = |it: &&IpamConfig| it.subnet.parse::<Ipv4Net>().is_ok();
    let config = network.subnets().iter().find(ipv4)?;
    let net: Ipv4Net = config.subnet.parse().ok()?;
    let range = config.range.parse().unwrap_or(net);
    // The first address names the subnet, the last one is for broadcasts.
    let first = u32::from(range.network()).max(u32::from(net.network()).saturating_add(1));
    let last = u32::from(range.broadcast()).min(u32::from(net.broadcast()).saturating_sub(1));
    let gateway = config.gateway.parse().unwrap_or_else(|_| first_host(net));
    (first <= last).then(|| Subnet { net, gateway, first: first.into(), last: last.into() })
}

/// The first address of a subnet that a host may have.
pub(super) fn first_host(net: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()).saturating_add(1))
}

/// The smallest VXLAN network identifier that no network has.
pub fn free_vni(view: &View) -> u32 {
    let mut vni = FIRST_VNI;
    while view.network_of_vni(vni).is_some() {
        vni += 1;
    }
    vni
}

/// Returns a sentence with the overlap of a subnet, for the refusal.
pub fn overlap(view: &View, net: IpNet, with_hosts: bool) -> Option<String> {
    let networks = view.networks.values().flat_map(|it| it.subnets().iter().map(move |config| (it, config)));
    for (network, config) in networks {
        if config.subnet.parse::<IpNet>().is_ok_and(|it| overlaps(it, net)) {
            return Some(format!("network {} has {}", network.spec.name, config.subnet));
        }
    }
    if !with_hosts {
        return None;
    }
    view.nodes.values().find_map(|node| {
        let underlay = &node.description().underlay;
        let found = |list: &Vec<String>| list.iter().find(|it| route(it).is_some_and(|it| overlaps(it, net))).cloned();
        let hostname = &node.description().hostname;
        found(&underlay.routes).map(|it| format!("node {hostname} has a route to {it}")).or_else(|| {
            found(&underlay.engine_subnets).map(|it| format!("the engine of node {hostname} has a network with {it}"))
        })
    })
}

/// A route as a node reports it. The default route is in no one's way.
fn route(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().filter(|it| it.prefix_len() > 0)
}

fn overlaps(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// Returns the subnets of a new network: the requested ones, else the first free block of the swarm's pools. `None` if
/// no block is left.
pub fn subnets(view: &View, asked: &[IpamConfig], is_ingress: bool) -> Option<Vec<IpamConfig>> {
    let mut configs = asked.to_vec();
    let is_v4 = |it: &IpamConfig| it.subnet.parse::<IpNet>().map_or(it.subnet.is_empty(), |it| it.addr().is_ipv4());
    if !configs.iter().any(is_v4) {
        configs.insert(0, IpamConfig::default());
    }
    for config in &mut configs {
        if config.subnet.is_empty() {
            config.subnet = free_block(view, is_ingress)?.to_string();
        }
        if config.gateway.is_empty() {
            let net: IpNet = config.subnet.parse().ok()?;
            config.gateway = match net {
                IpNet::V4(net) => first_host(net).to_string(),
                IpNet::V6(net) => std::net::Ipv6Addr::from(u128::from(net.network()) + 1).to_string(),
            };
        }
    }
    Some(configs)
}

fn free_block(view: &View, is_ingress: bool) -> Option<Ipv4Net> {
    let cluster = view.cluster.as_ref().map(|it| &it.cluster);
    let size = cluster.map(|it| it.subnet_size).filter(|it| *it != 0);
    let size = size.and_then(|it| u8::try_from(it).ok()).unwrap_or(DEFAULT_SIZE);
    let said = cluster.and_then(|it| it.default_addr_pool.as_ref()).filter(|it| !it.is_empty());
    let pools: Vec<Ipv4Net> = match said {
        Some(pools) => pools.iter().filter_map(|it| it.parse().ok()).collect(),
        None => DEFAULT_POOL.parse().into_iter().collect(),
    };
    let taken = taken(view);
    pools.into_iter().find_map(|pool: Ipv4Net| {
        let has_room = INGRESS_SIZE >= pool.prefix_len()
            && 1_u32.checked_shl(u32::from(INGRESS_SIZE - pool.prefix_len())).is_none_or(|it| it >= INGRESS_SHARES_MIN);
        let size = if is_ingress && has_room { size.min(INGRESS_SIZE) } else { size };
        first_free(pool, size, &taken)
    })
}

/// First and last addresses that are in use somewhere, in their order.
fn taken(view: &View) -> Vec<(u32, u32)> {
    let networks = view.networks.values().flat_map(|it| it.subnets()).map(|it| it.subnet.as_str());
    let underlays = view.nodes.values().map(|it| &it.description().underlay);
    let routes = underlays.flat_map(|it| it.routes.iter().chain(&it.engine_subnets)).map(String::as_str);
    let nets = networks.chain(routes).filter_map(route).filter_map(|it| match it {
        IpNet::V4(net) => Some((u32::from(net.network()), u32::from(net.broadcast()))),
        IpNet::V6(_) => None,
    });
    let mut taken: Vec<(u32, u32)> = nets.collect();
    taken.sort_unstable();
    taken
}

fn first_free(pool: Ipv4Net, size: u8, taken: &[(u32, u32)]) -> Option<Ipv4Net> {
    if size < pool.prefix_len() {
        return None;
    }
    let (step, end) = (1_u64 << (32 - size), u64::from(u32::from(pool.broadcast())));
    let mut at = u64::from(u32::from(pool.network()));
    for &(first, last) in taken {
        let (first, last) = (u64::from(first), u64::from(last));
        if last >= at && first < at + step {
            // The next multiple of the block's size.
            at = (last / step + 1) * step;
        }
    }
    if at + step - 1 > end {
        return None;
    }
    Ipv4Net::new(u32::try_from(at).ok()?.into(), size).ok()
}

/// Derives the last part of an IPv6 address from the IPv4 address. So it needs no table of its own.
pub(crate) fn v6_of(network: &NetworkRecord, subnet: &Subnet, address: Ipv4Addr) -> Option<std::net::Ipv6Addr> {
    let nets = network.subnets().iter().filter_map(|it| it.subnet.parse::<IpNet>().ok());
    let net = nets.filter_map(|it| if let IpNet::V6(net) = it { Some(net) } else { None }).next()?;
    let offset = u32::from(address) - u32::from(subnet.net.network());
    let v6 = std::net::Ipv6Addr::from(u128::from(net.network()) + 0x1_0000 + u128::from(offset));
    net.contains(&v6).then_some(v6)
}
