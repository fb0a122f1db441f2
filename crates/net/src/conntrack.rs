//! Deletion of tracked connections.

use std::net::IpAddr;

use herder_decide::net::Flows;

use crate::NetError;
use crate::element::head;
use crate::netlink::{ACK, Attrs, Bus, DUMP, Message, Socket, is};

const CONNTRACK: u16 = 1 << 8;
const GET: u16 = CONNTRACK | 1;
const DELETE: u16 = CONNTRACK | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PORT_TO: u16 = 3;
const SEEN_REPLY: u32 = 2;
const TCP: u8 = 6;
const NO_ENTRY: i32 = 2;

/// Source and destination of one direction.
struct Tuple {
    source: IpAddr,
    to: IpAddr,
    protocol: u8,
    port: u16,
}

impl Tuple {
    fn parse(attrs: Attrs<'_>) -> Option<Tuple> {
        let (ip, protocol) = (attrs.nested(TUPLE_IP), attrs.nested(TUPLE_PROTOCOL));
        let port = protocol.get(PORT_TO).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok());
        Some(Tuple {
            source: ip.addr(1).or_else(|| ip.addr(3))?,
            to: ip.addr(2).or_else(|| ip.addr(4))?,
            protocol: *protocol.get(PROTOCOL_NUMBER)?.first()?,
            port: port.map(u16::from_be_bytes).unwrap_or_default(),
        })
    }
}

/// Deletes flows that would keep their clients at a backend that left, or at none. Returns how many.
pub(crate) fn delete(flows: &Flows) -> Result<usize, NetError> {
    let mut socket = Socket::open(Bus::Netfilter)?;
    let mut deletions = Vec::new();
    for family in families(flows) {
        // The kernel goes through its whole table for each family, however few connections there are.
        let message = Message::new(GET, DUMP).head(&head(family));
        socket.dump_each("list of connections", message, |received| {
            let attrs = Attrs::new(received.body.get(4..).unwrap_or_default());
            if is_ended(flows, attrs) == Some(true) {
                let tuple = attrs.get(TUPLE_ORIGINAL).unwrap_or_default();
                deletions.push(Message::new(DELETE, ACK).head(&head(family)).attr(TUPLE_ORIGINAL | 0x8000, tuple));
            }
        })?;
    }
    let mut count = 0;
    for outcome in socket.each("deletion of a connection", deletions) {
        // It may have ended meanwhile.
        if !is(&outcome, &[NO_ENTRY]) {
            outcome?;
            count += 1;
        }
    }
    Ok(count)
}

/// Families that the flows may be of. A published port may be one of both.
fn families(flows: &Flows) -> impl Iterator<Item = u8> {
    let mut addresses = [&flows.backends, &flows.lost, &flows.gone, &flows.vips].into_iter().flatten();
    let (is_v4, is_v6) = match flows.ports.is_empty() {
        true => (addresses.clone().any(IpAddr::is_ipv4), addresses.any(IpAddr::is_ipv6)),
        false => (true, true),
    };
    [(2, is_v4), (10, is_v6)].into_iter().filter(|(_, is_meant)| *is_meant).map(|(family, _)| family)
}

/// True if a connection is one of the flows.
fn is_ended(flows: &Flows, attrs: Attrs<'_>) -> Option<bool> {
    let (first, back) = (Tuple::parse(attrs.nested(TUPLE_ORIGINAL))?, Tuple::parse(attrs.nested(TUPLE_REPLY))?);
    let status = attrs.get(STATUS).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let is_answered = status.map(u32::from_be_bytes).unwrap_or_default() & SEEN_REPLY != 0;
    let is_left = flows.backends.contains(&back.source) && back.source != first.to;
    let is_open = flows.vips.contains(&first.to) || flows.ports.contains(&(first.protocol, first.port));
    let is_gone = flows.gone.contains(&back.source) || flows.gone.contains(&first.source);
    let is_lost = !is_answered && flows.lost.contains(&back.source);
    Some(is_gone || is_lost || first.protocol != TCP && (is_left || is_open && !is_answered))
}
