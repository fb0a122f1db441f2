//! Text of the nft tables: chains, rules and empty sets, for `nft -f`.
//!
//! Rules depend on the ingress network only. Services, ports and endpoints are elements of maps, so a change of backends never
//! touches a rule. docs/networks.md tells what each rule is for.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use ipnet::IpNet;

use super::item::{Family, Field, Item, Mac, Part, Set, Value, write_fields};
use super::tunnel::TUNNEL;

/// Number of backends for which every base has chains. Chains for more are added when a service needs them.
pub const BASE_SIZES: u32 = 16;

/// Marks of connections, in the highest byte. `0x48…` and the number of the entry node: its client's address is kept.
pub(super) const MARK_KEPT: u32 = 0x4800_0000;
/// The source becomes the address of the entry node.
const MARK_NATED: u32 = 0x4900_0000;
const MARK_MASK: u32 = 0xff00_0000;

/// Placeholder for the MAC of the entry node, as the address of the way back. No interface has it.
pub(super) const EXIT_MAC: Mac = Mac([0x02, 0x48, 0, 0, 0, 1]);

/// The ingress network, as the rules of one family need it.
#[derive(Clone, Debug)]
pub(super) struct Ingress {
    pub(super) bridge: String,
    pub(super) subnet: IpNet,
    /// Address of this node on it.
    pub(super) own: IpAddr,
}

/// A table as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) text: String,
    pub(super) rules: usize,
}

impl Base {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "  {text}");
    }

    fn chain(&mut self, name: &str, hook: &str, rules: &[String]) {
        let _ = writeln!(self.text, "  chain {name} {{ {hook}");
        for rule in rules {
            let _ = writeln!(self.text, "    {rule}");
        }
        let _ = writeln!(self.text, "  }}");
        self.rules += rules.len();
    }

    pub(super) fn stamp(&self) -> Value {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        Value::Stamp(format!("{:016x}", hasher.finish()), self.rules)
    }
}

/// Name of the chain whose rules balance over `count` backends.
pub(super) fn chain_name(is_port: bool, by_source: bool, count: usize) -> String {
    let kind = match (is_port, by_source) {
        (false, false) => 'v',
        (false, true) => 'h',
        (true, false) => 'p',
        (true, true) => 'q',
    };
    format!("{kind}{count}")
}

/// The rule of such a chain, from its name.
pub fn chain_rule(family: Family, name: &str) -> String {
    let (ip, count) = (family.name(), name.get(1..).unwrap_or_default());
    let choice = match name.starts_with(['h', 'q']) {
        true => format!("jhash {ip} saddr mod {count}"),
        false => format!("numgen inc mod {count}"),
    };
    match name.starts_with(['v', 'h']) {
        true => format!("dnat {ip} to {ip} daddr . {choice} map @vslots"),
        false => format!("dnat {ip} to meta l4proto . th dport . {choice} map @pslots"),
    }
}

/// The declaration of a set.
fn declaration(family: Family, set: Set) -> String {
    let (ip, name) = (family.name(), set.name());
    match set {
        Set::VipSlots => return format!("map {name} {{ typeof {ip} daddr . numgen inc mod 65536 : {ip} daddr; }}"),
        Set::PortSlots => {
            let key = "meta l4proto . th dport . numgen inc mod 65536";
            return format!("map {name} {{ typeof {key} : {ip} daddr . th dport; }}");
        }
        _ => {}
    }
    let types = |parts: &[Part]| {
        let names = parts.iter().map(|part| match (part, family) {
            (Part::Ifname, _) => "ifname",
            (Part::Addr, Family::Ip6) => "ipv6_addr",
            (Part::Addr, _) => "ipv4_addr",
            (Part::Mac, _) => "ether_addr",
            (Part::Mark | Part::Index, _) => "mark",
            (Part::Proto, _) => "inet_proto",
            (Part::Port, _) => "inet_service",
            (Part::Verdict, _) => "verdict",
        });
        names.collect::<Vec<_>>().join(" . ")
    };
    match set.data() {
        [] => format!("set {name} {{ type {}; }}", types(set.key())),
        data => format!("map {name} {{ type {} : {}; }}", types(set.key()), types(data)),
    }
}

/// Table `ip herder` or `ip6 herder`. `inner` is the UDP port of VXLAN in tunnels, where there are any.
pub(super) fn inet(family: Family, ingress: Option<&Ingress>, inner: Option<u16>, dns_port: u16) -> Base {
    let ip = family.name();
    let mut base = Base::default();
    for set in Set::INET {
        base.line(&declaration(family, set));
    }
    for kind in ["v", "h", "p", "q"] {
        for size in 1..=BASE_SIZES {
            let name = format!("{kind}{size}");
            base.chain(&name, "", &[chain_rule(family, &name)]);
        }
    }
    let local = format!("fib daddr type local {ip} daddr != @vipaddrs");
    let (mut classify, mut post, mut iso) = (Vec::new(), Vec::new(), Vec::new());
    post.push(format!("ct status dnat oifname . {ip} saddr . {ip} daddr @hairpin snat {ip} to oifname map @gateways"));
    if let Some(Ingress { bridge, subnet, own }) = ingress {
        let is_nated = format!("ct mark set {MARK_NATED:#x}");
        let new = format!("ct state new {local}");
        classify.extend([
            format!("iifname \"{bridge}\" ct state new ct direction original {ip} saddr != {subnet} ct mark set ether saddr map @entry"),
            format!("ct direction reply ct mark & {MARK_MASK:#x} == {MARK_KEPT:#x} meta mark set ct mark"),
            format!("{new} meta l4proto udp th dport != @keepudp {is_nated}"),
            format!("{new} iifname {{ \"hv*\", \"br-*\", \"docker*\" }} {is_nated}"),
            format!("{new} {ip} saddr @nodes {is_nated}"),
        ]);
        let snat = format!("snat {ip} to {own}");
        post.extend([
            format!("oifname \"{bridge}\" ct status dnat fib saddr type local {snat}"),
            format!("oifname \"{bridge}\" ct status dnat ct mark & {MARK_MASK:#x} == {MARK_NATED:#x} {snat}"),
        ]);
        let within = format!("iifname \"{bridge}\" oifname \"{bridge}\"");
        let target = format!("{ip} daddr . meta l4proto . th dport @targets");
        iso.extend([
            format!("{within} ct state established,related accept"),
            format!("{within} ether saddr @nodesmac {target} accept"),
            // A container whose default route is ingress, by a port of its own node: bridged, with the container's MAC.
            format!("{within} {ip} saddr @entries {target} accept"),
            format!("oifname \"{bridge}\" ct status dnat accept"),
            format!("{within} drop"),
        ]);
    }
    base.chain("classify", "type filter hook prerouting priority -140; policy accept;", &classify);
    let ports = format!("{local} meta l4proto . th dport vmap @ports");
    let dns = |protocol: &str| format!("iifname . {ip} daddr @dns {protocol} dport 53 redirect to :{dns_port}");
    let vips = format!("meta l4proto {{ tcp, udp, sctp }} iifname . {ip} daddr vmap @vips");
    let late = |protocol: &str| format!("{protocol} dport 53 dnat {ip} to {ip} saddr map @late : {dns_port}");
    let key = "meta l4proto . th dport";
    let limited = format!("{local} {key} @limited {ip} daddr . {key} != @publishedon return");
    let pre = [dns("udp"), dns("tcp"), late("udp"), late("tcp"), vips, limited.clone(), ports.clone()];
    base.chain("pre", "type nat hook prerouting priority -111; policy accept;", &pre);
    base.chain("out", "type nat hook output priority -111; policy accept;", &[limited, ports]);
    base.chain("post", "type nat hook postrouting priority 89; policy accept;", &post);
    base.chain("iso", "type filter hook forward priority -5; policy accept;", &iso);
    let none = "meta l4proto . th dport @noports fib daddr type local";
    let mut input = vec![
        format!("{ip} daddr @vipaddrs meta l4proto tcp reject with tcp reset"),
        format!("{ip} daddr @vipaddrs meta l4proto {{ udp, sctp }} reject"),
        format!("{none} meta l4proto tcp reject with tcp reset"),
        format!("{none} reject"),
    ];
    if let Some(port) = inner {
        // Packets of encrypted networks outside of tunnels: forged, or about to leak.
        input.push(format!("iifname != \"{TUNNEL}\" udp dport {port} drop"));
        let leaving = format!("oifname != \"{TUNNEL}\" udp dport {port} drop");
        base.chain("sealed", "type filter hook output priority -5; policy accept;", &[leaving]);
    }
    base.chain("in", "type filter hook input priority -5; policy accept;", &input);
    base
}

/// Table `bridge herder`: the way back to entry nodes, and the MSS of connections on VXLAN devices (device, MTU).
pub(super) fn bridge(clamps: &[(String, u32)]) -> Base {
    let mut base = Base::default();
    base.line(&declaration(Family::Bridge, Set::Exits));
    let exit = format!(
        "meta mark & {MARK_MASK:#x} == {MARK_KEPT:#x} ether daddr {EXIT_MAC} ether daddr set meta mark map @exits meta mark set 0"
    );
    base.chain("exit", "type filter hook output priority 0; policy accept;", &[exit]);
    // Bytes of an IP header and a TCP header without options.
    let clamp = clamps.iter().flat_map(|(dev, mtu)| {
        [("ip protocol", 40), ("ip6 nexthdr", 60)].map(|(protocol, header)| {
            let size = mtu.saturating_sub(header);
            format!("oifname \"{dev}\" {protocol} tcp tcp flags & syn == syn tcp option maxseg size > {size} tcp option maxseg size set {size}")
        })
    });
    base.chain("clamp", "type filter hook forward priority 0; policy accept;", &clamp.collect::<Vec<_>>());
    base
}

/// Everything that replaces a table of the kernel by a base with its elements, in one transaction.
pub(super) fn script<'i>(family: Family, base: &Base, items: impl Iterator<Item = (&'i Item, &'i Value)>) -> String {
    let (name, mut text) = (family.name(), String::new());
    let _ = writeln!(text, "add table {name} herder\ndelete table {name} herder\ntable {name} herder {{");
    text.push_str(&base.text);
    if let Value::Stamp(hash, _) = base.stamp() {
        let _ = writeln!(text, "  chain {} {{ }}", stamp_chain(&hash));
    }
    let mut elements: Vec<(Set, Vec<String>)> = Vec::new();
    for (item, value) in items {
        match item {
            Item::Chain(_, chain) => {
                let _ = writeln!(text, "  chain {chain} {{ {}; }}", chain_rule(family, chain));
            }
            Item::Element(_, set, key) => {
                let line = Element(key, value).to_string();
                match elements.last_mut() {
                    Some((last, lines)) if last == set => lines.push(line),
                    _ => elements.push((*set, vec![line])),
                }
            }
            _ => {}
        }
    }
    text.push_str("}\n");
    for (set, lines) in elements {
        let _ = writeln!(text, "add element {name} herder {} {{ {} }}", set.name(), lines.join(", "));
    }
    text
}

/// Name of the empty chain that tells which text a table was made from.
fn stamp_chain(hash: &str) -> String {
    format!("{STAMP_PREFIX}{hash}")
}

/// Beginning of the name of such a chain.
pub const STAMP_PREFIX: &str = "base_";

struct Element<'e>(&'e [Field], &'e Value);

impl std::fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_fields(f, self.0)?;
        match self.1 {
            Value::Fields(data) => {
                f.write_str(" : ")?;
                write_fields(f, data)
            }
            _ => Ok(()),
        }
    }
}
