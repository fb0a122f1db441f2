//! The physical network of a node, from what its kernel shows.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::TUNNEL;

/// Beginnings of the names of bridges that herder makes for overlay networks, of their VXLAN devices, and of tunnels.
const OWN: [&str; 3] = ["hv", "hx", TUNNEL];
/// Beginnings of the names of bridges that engines make.
const ENGINES: [&str; 2] = ["docker", "br-"];

/// Subnets that a node has routes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    pub host: Vec<String>,
    /// Subnets of the engine's own networks.
    pub engine: Vec<String>,
}

/// Reads `/proc/net/route`. The default route, and routes of overlay networks, are left out.
pub fn routes(text: &str) -> Routes {
    let mut routes = Routes::default();
    for line in text.lines().skip(1) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [device, destination, _, _, _, _, _, mask, ..] = words[..] else { continue };
        let net = address(destination).zip(address(mask)).and_then(|(it, mask)| Ipv4Net::with_netmask(it, mask).ok());
        let Some(net) = net.filter(|it| it.prefix_len() > 0) else { continue };
        let begins = |names: &[&str]| names.iter().any(|it| device.starts_with(it));
        let to = match begins(&ENGINES) {
            _ if begins(&OWN) => continue,
            true => &mut routes.engine,
            false => &mut routes.host,
        };
        to.push(net.to_string());
    }
    for list in [&mut routes.host, &mut routes.engine] {
        list.sort();
        list.dedup();
    }
    routes
}

/// An address as the kernel prints it: eight digits in the order of the machine's bytes.
fn address(text: &str) -> Option<Ipv4Addr> {
    u32::from_str_radix(text, 16).ok().map(|it| Ipv4Addr::from(it.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_told_apart_by_their_devices() {
        let text = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t0001000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
hv4097\t0010000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
broken
";
        let Routes { host, engine } = routes(text);
        assert_eq!((host.join(" "), engine.join(" ")), ("10.0.1.0/24 192.168.0.0/24".into(), "172.17.0.0/16".into()));
    }
}
