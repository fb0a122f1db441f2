//! Addresses, neighbours, forwarding entries, routes and rules.

use std::net::IpAddr;

use herder_decide::net::{Family, Item, Mac, Value};
use ipnet::IpNet;

use crate::NetError;
use crate::links::{ADDRESS, LOCAL, Links, addresses, is_ours};
use crate::netlink::{ACK, Attrs, CREATE, DUMP, Message, REPLACE, Received, Socket, u16_at, u32_at};

const NEW_ADDRESS: u16 = 20;
pub(crate) const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
pub(crate) const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;
pub(crate) const DELETE_NEIGHBOUR: u16 = 29;
const GET_NEIGHBOUR: u16 = 30;
const NEW_RULE: u16 = 32;
pub(crate) const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;

const AF_BRIDGE: u8 = 7;
const SELF: u8 = 0x02;
const OF_MASTER: u8 = 0x04;
const NOARP: u16 = 0x40;
const PERMANENT: u16 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_MASTER: u16 = 9;
const IFA_FLAGS: u16 = 8;
const NODAD: u32 = 0x02;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const TABLE_LOCAL: u8 = 255;
const SCOPE_HOST: u8 = 254;
const LOCAL_ROUTE: u8 = 2;
const UNICAST: u8 = 1;
const ONLINK: u32 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const TO_TABLE: u8 = 1;

/// Origin of a route, as `ip route` shows it (`proto 72`). Numbers up to 16 and some of 42 and above are taken by other
/// programs.
const PROTOCOL: u8 = 72;

/// Routing table and priority of the rule for the way back to entry nodes.
const EXIT_TABLE: u32 = 20_100;
const KEPT: (u32, u32) = (0x4800_0000, 0xff00_0000);

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

fn family_number(of: Family) -> u8 {
    if of == Family::Ip6 { 10 } else { 2 }
}

/// True if a virtual IP is an address of its bridge. With IPv6 a local route does not answer neighbour solicitations.
fn is_address(address: IpAddr) -> bool {
    address.is_ipv6()
}

/// The message that adds an item, or nothing if it is of another kind.
pub(crate) fn put(
    mut index: impl FnMut(&str) -> Result<u32, NetError>,
    item: &Item,
    value: &Value,
) -> Result<Option<Message>, NetError> {
    let message = |kind| Message::new(kind, ACK | CREATE | REPLACE);
    Ok(Some(match (item, value) {
        (Item::Address { dev, address }, _) => host_address(message(NEW_ADDRESS), index(dev)?, *address),
        (Item::LocalRoute { dev, address }, _) if is_address(*address) => {
            host_address(message(NEW_ADDRESS), index(dev)?, IpNet::from(*address))
        }
        (Item::LocalRoute { dev, address }, _) => local_route(message(NEW_ROUTE), index(dev)?, *address),
        (Item::Fdb { dev, mac }, Value::Addr(vtep)) => {
            entry(message(NEW_NEIGHBOUR), index(dev)?, PERMANENT, SELF, *mac).addr(NDA_DST, *vtep)
        }
        (Item::BridgeFdb { dev, mac }, _) => entry(message(NEW_NEIGHBOUR), index(dev)?, NOARP, OF_MASTER, *mac),
        (Item::Neighbour { dev, address }, Value::Mac(mac)) => {
            neighbour(message(NEW_NEIGHBOUR), index(dev)?, *address).attr(NDA_LLADDR, &mac.0)
        }
        (Item::ExitRoute(family), Value::Text(way)) => {
            let Some((via, dev)) = way.strip_prefix("via ").and_then(|way| way.split_once(" dev ")) else {
                return Ok(None);
            };
            let Ok(via) = via.parse() else { return Ok(None) };
            exit_route(message(NEW_ROUTE), *family, Some((index(dev)?, via)))
        }
        (Item::ExitRule(family), _) => exit_rule(Message::new(NEW_RULE, ACK | CREATE), *family),
        _ => return Ok(None),
    }))
}

/// The message that removes an item.
pub(crate) fn remove(
    mut index: impl FnMut(&str) -> Result<u32, NetError>,
    item: &Item,
) -> Result<Option<Message>, NetError> {
    let message = |kind| Message::new(kind, ACK);
    Ok(Some(match item {
        Item::Address { dev, address } => host_address(message(DELETE_ADDRESS), index(dev)?, *address),
        Item::LocalRoute { dev, address } if is_address(*address) => {
            host_address(message(DELETE_ADDRESS), index(dev)?, IpNet::from(*address))
        }
        Item::LocalRoute { dev, address } => local_route(message(DELETE_ROUTE), index(dev)?, *address),
        Item::Fdb { dev, mac } => entry(message(DELETE_NEIGHBOUR), index(dev)?, PERMANENT, SELF, *mac),
        Item::BridgeFdb { dev, mac } => entry(message(DELETE_NEIGHBOUR), index(dev)?, NOARP, OF_MASTER, *mac),
        Item::Neighbour { dev, address } => neighbour(message(DELETE_NEIGHBOUR), index(dev)?, *address),
        Item::ExitRoute(family) => exit_route(message(DELETE_ROUTE), *family, None),
        Item::ExitRule(family) => exit_rule(message(DELETE_RULE), *family),
        _ => return Ok(None),
    }))
}

fn host_address(message: Message, index: u32, address: IpNet) -> Message {
    let head = [&[family(address.addr()), address.prefix_len(), 0, 0][..], &index.to_ne_bytes()].concat();
    let message = message.head(&head).addr(LOCAL, address.addr()).addr(ADDRESS, address.addr());
    if address.addr().is_ipv6() { message.u32(IFA_FLAGS, NODAD) } else { message }
}

fn route_head(family: u8, length: u8, table: u8, scope: u8, kind: u8, flags: u32) -> Vec<u8> {
    [&[family, length, 0, 0, table, PROTOCOL, scope, kind][..], &flags.to_ne_bytes()].concat()
}

fn local_route(message: Message, index: u32, address: IpAddr) -> Message {
    let length = if address.is_ipv4() { 32 } else { 128 };
    let head = route_head(family(address), length, TABLE_LOCAL, SCOPE_HOST, LOCAL_ROUTE, 0);
    message.head(&head).addr(RTA_DST, address).u32(RTA_OIF, index)
}

fn exit_route(message: Message, of: Family, way: Option<(u32, IpAddr)>) -> Message {
    let head = route_head(family_number(of), 0, 0, 0, UNICAST, ONLINK);
    let message = message.head(&head).u32(RTA_TABLE, EXIT_TABLE);
    match way {
        Some((index, via)) => message.addr(RTA_GATEWAY, via).u32(RTA_OIF, index),
        None => message,
    }
}

fn exit_rule(message: Message, of: Family) -> Message {
    let head = [&[family_number(of), 0, 0, 0, 0, 0, 0, TO_TABLE][..], &[0; 4]].concat();
    let message = message.head(&head).u32(FRA_PRIORITY, EXIT_TABLE).u32(FRA_TABLE, EXIT_TABLE);
    message.u32(FRA_FWMARK, KEPT.0).u32(FRA_FWMASK, KEPT.1)
}

fn neighbour_head(family: u8, index: u32, state: u16, flags: u8) -> Vec<u8> {
    [&[family, 0, 0, 0][..], &index.to_ne_bytes(), &state.to_ne_bytes(), &[flags, 0]].concat()
}

fn entry(message: Message, index: u32, state: u16, flags: u8, mac: Mac) -> Message {
    message.head(&neighbour_head(AF_BRIDGE, index, state, flags)).attr(NDA_LLADDR, &mac.0)
}

fn neighbour(message: Message, index: u32, address: IpAddr) -> Message {
    message.head(&neighbour_head(family(address), index, PERMANENT, 0)).addr(NDA_DST, address)
}

/// Returns the kernel's items on bridges and devices of herder.
pub(crate) fn items(socket: &mut Socket, links: &Links) -> Result<Vec<(Item, Value)>, NetError> {
    let bridge = |index: u32| links.name(index).filter(|name| is_ours(name, 'v')).map(str::to_owned);
    let vxlan = |index: u32| links.name(index).filter(|name| is_ours(name, 'x')).map(str::to_owned);
    let mut items = Vec::new();
    let with_addresses = |index: u32| links.name(index).filter(|name| is_ours(name, 'v') || is_ours(name, 'w'));
    for (index, address) in addresses(socket)? {
        let Some(dev) = with_addresses(index).map(str::to_owned) else { continue };
        match address.addr() {
            it if is_address(it) && address.prefix_len() == 128 => {
                items.push((Item::LocalRoute { dev, address: it }, Value::Set));
            }
            _ => items.push((Item::Address { dev, address }, Value::Set)),
        }
    }
    // The kernel wants the head of a message about links here.
    let dump = Message::new(GET_NEIGHBOUR, DUMP).head(&[&[AF_BRIDGE][..], &[0; 15]].concat());
    socket.dump_each("list of forwarding entries", dump, |received| items.extend(parse_entry(&received, vxlan)))?;
    for family in [2, 10] {
        let dump = Message::new(GET_NEIGHBOUR, DUMP).head(&neighbour_head(family, 0, 0, 0));
        socket.dump_each("list of neighbours", dump, |received| items.extend(parse_neighbour(&received, bridge)))?;
        let dump = Message::new(GET_ROUTE, DUMP).head(&[&[family][..], &[0; 11]].concat());
        socket.dump_each("list of routes", dump, |received| {
            items.extend(parse_route(&received, |index| links.name(index).map(str::to_owned)))
        })?;
        let dump = Message::new(GET_RULE, DUMP).head(&[&[family][..], &[0; 11]].concat());
        socket.dump_each("list of rules", dump, |received| items.extend(parse_rule(&received)))?;
    }
    Ok(items)
}

/// The item that a notice about a forwarding entry or a neighbour is about. One that goes has lost its state by then.
pub(crate) fn entry_item(received: &Received, name: impl Fn(u32) -> Option<String>) -> Option<Item> {
    let body = &received.body;
    let dev = name(u32_at(body, 4)?)?;
    let attrs = Attrs::new(body.get(12..)?);
    if *body.first()? != AF_BRIDGE {
        return is_ours(&dev, 'v')
            .then(|| attrs.addr(NDA_DST))
            .flatten()
            .map(|address| Item::Neighbour { dev, address });
    }
    let mac = Mac(attrs.get(NDA_LLADDR)?.try_into().ok()?);
    let is_bridges = attrs.get(NDA_MASTER).is_some();
    is_ours(&dev, 'x').then_some(if is_bridges { Item::BridgeFdb { dev, mac } } else { Item::Fdb { dev, mac } })
}

/// True if a notice is about a route of herder's.
pub(crate) fn is_our_route(received: &Received) -> bool {
    received.body.get(5) == Some(&PROTOCOL)
}

fn parse_entry(received: &Received, vxlan: impl Fn(u32) -> Option<String>) -> Option<(Item, Value)> {
    let body = &received.body;
    let (dev, state, flags) = (vxlan(u32_at(body, 4)?)?, u16_at(body, 8)?, *body.get(10)?);
    let attrs = Attrs::new(body.get(12..)?);
    let mac = Mac(attrs.get(NDA_LLADDR)?.try_into().ok()?);
    if flags & SELF != 0 {
        return Some((Item::Fdb { dev, mac }, Value::Addr(attrs.addr(NDA_DST)?)));
    }
    // Permanent is the device's own address.
    let is_static = attrs.get(NDA_MASTER).is_some() && state & NOARP != 0 && state & PERMANENT == 0;
    is_static.then_some((Item::BridgeFdb { dev, mac }, Value::Set))
}

fn parse_neighbour(received: &Received, bridge: impl Fn(u32) -> Option<String>) -> Option<(Item, Value)> {
    let body = &received.body;
    let (dev, state) = (bridge(u32_at(body, 4)?)?, u16_at(body, 8)?);
    let attrs = Attrs::new(body.get(12..)?);
    let mac = Mac(attrs.get(NDA_LLADDR)?.try_into().ok()?);
    let address = attrs.addr(NDA_DST)?;
    (state & PERMANENT != 0).then_some((Item::Neighbour { dev, address }, Value::Mac(mac)))
}

fn parse_route(received: &Received, name: impl Fn(u32) -> Option<String>) -> Option<(Item, Value)> {
    let body = &received.body;
    let (family, table, protocol, kind) = (*body.first()?, *body.get(4)?, *body.get(5)?, *body.get(7)?);
    if protocol != PROTOCOL {
        return None;
    }
    let attrs = Attrs::new(body.get(12..)?);
    let dev = name(attrs.u32(RTA_OIF)?)?;
    if kind == LOCAL_ROUTE && table == TABLE_LOCAL {
        return Some((Item::LocalRoute { dev, address: attrs.addr(RTA_DST)? }, Value::Set));
    }
    let is_exit = attrs.u32(RTA_TABLE) == Some(EXIT_TABLE);
    let value = Value::Text(format!("via {} dev {dev}", attrs.addr(RTA_GATEWAY)?));
    is_exit.then_some((Item::ExitRoute(if family == 10 { Family::Ip6 } else { Family::Ip }), value))
}

fn parse_rule(received: &Received) -> Option<(Item, Value)> {
    let body = &received.body;
    let attrs = Attrs::new(body.get(12..)?);
    let is_exit = attrs.u32(FRA_TABLE) == Some(EXIT_TABLE) && attrs.u32(FRA_FWMARK) == Some(KEPT.0);
    let family = if *body.first()? == 10 { Family::Ip6 } else { Family::Ip };
    is_exit.then_some((Item::ExitRule(family), Value::Set))
}
