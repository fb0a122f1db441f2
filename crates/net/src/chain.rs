//! Messages that add chains which balance over a number of backends.
//!
//! `nft` cannot add them to a table that is there: releases up to 1.0.6 refuse a rule with a map whose data is an address and a port, unless the
//! map is in the same script ("conflicting protocols specified: ip vs. th").

use herder_decide::net::{Family, Set};

use crate::element::{head, number};
use crate::netlink::{CREATE, Message};

const NFTABLES: u16 = 10 << 8;
const NEW_CHAIN: u16 = NFTABLES | 3;
const NEW_RULE: u16 = NFTABLES | 6;
const DELETE_RULE: u16 = NFTABLES | 8;
const APPEND: u16 = 0x800;

const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

/// Registers of 16 bytes, and of 4 bytes: the first four of those are the first one of these.
const FIRST: u32 = 1;
const FIRST_SMALL: u32 = 8;
const SECOND: u32 = 2;
/// Four bytes or sixteen from here on are free.
const SOURCE: u32 = 16;

const L4PROTO: u32 = 16;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const INCREMENTAL: u32 = 0;
const JENKINS: u32 = 0;
const DNAT: u32 = 1;

/// The chain and its rule, as [`herder_decide::net::chain_rule`] says it. Nothing for another name. The messages belong into one transaction.
pub(crate) fn messages(family: Family, name: &str) -> Option<[Message; 3]> {
    let count = name.strip_prefix(['v', 'h', 'p', 'q'])?.parse().ok()?;
    let (is_port, by_source) = (name.starts_with(['p', 'q']), name.starts_with(['h', 'q']));
    let message = |kind, flags| Message::new(kind, flags).head(&head(number(family))).text(TABLE, "herder");
    let chain = message(NEW_CHAIN, CREATE).text(CHAIN_NAME, name);
    let flush = message(DELETE_RULE, 0).text(RULE_CHAIN, name);
    let rule = message(NEW_RULE, CREATE | APPEND).text(RULE_CHAIN, name).nest(RULE_EXPRESSIONS);
    // Offset and size of addresses in the packet.
    let (source, to, bytes) = if family == Family::Ip6 { (8, 24, 16) } else { (12, 16, 4) };
    let payload = |base, offset, bytes, to| [(1, to), (2, base), (3, offset), (4, bytes)];
    let (rule, choice) = match is_port {
        true => {
            let rule = expression(rule, "meta", &[(1, FIRST), (2, L4PROTO)]);
            (expression(rule, "payload", &payload(TRANSPORT, 2, 2, FIRST_SMALL + 1)), FIRST_SMALL + 2)
        }
        false => (expression(rule, "payload", &payload(NETWORK, to, bytes, FIRST)), FIRST_SMALL + bytes / 4),
    };
    let rule = match by_source {
        true => {
            let rule = expression(rule, "payload", &payload(NETWORK, source, bytes, SOURCE));
            expression(rule, "hash", &[(1, SOURCE), (2, choice), (3, bytes), (4, count), (7, JENKINS)])
        }
        false => expression(rule, "numgen", &[(1, choice), (2, count), (3, INCREMENTAL)]),
    };
    let map = if is_port { Set::PortSlots } else { Set::VipSlots };
    let rule = begin(rule, "lookup").text(1, map.name());
    let rule = numbers(rule, &[(2, FIRST), (3, FIRST)]).end().end();
    // The port follows the address in what the map has given.
    let port = (5, if bytes == 16 { SECOND } else { FIRST_SMALL + 1 });
    let nat = [(1, DNAT), (2, number(family).into()), (3, FIRST), port];
    let rule = expression(rule, "nat", if is_port { &nat } else { &nat[..3] });
    Some([chain, flush, rule.end()])
}

fn begin(message: Message, name: &str) -> Message {
    message.nest(LIST_ELEMENT).text(EXPRESSION_NAME, name).nest(EXPRESSION_DATA)
}

fn numbers(message: Message, values: &[(u16, u32)]) -> Message {
    values.iter().fold(message, |message, (kind, value)| message.attr(*kind, &value.to_be_bytes()))
}

fn expression(message: Message, name: &str, values: &[(u16, u32)]) -> Message {
    numbers(begin(message, name), values).end().end()
}
