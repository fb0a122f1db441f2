//! Elements of nft sets in the kernel's form.
//!
//! Each part of a key is padded to four bytes. Addresses and ports are in network order, marks and indices in that of the host.

use herder_decide::net::{Family, Field, Item, Mac, Op, Part, Set, Value};

use crate::netlink::{Attrs, CREATE, Message, address};

const NFTABLES: u16 = 10 << 8;
pub(crate) const NEW_ELEMENT: u16 = NFTABLES | 12;
pub(crate) const GET_ELEMENT: u16 = NFTABLES | 13;
pub(crate) const DELETE_ELEMENT: u16 = NFTABLES | 14;

const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const GOTO: i32 = -4;

const IFNAME_BYTES: usize = 16;

/// Protocol family of netfilter.
pub(crate) fn number(family: Family) -> u8 {
    match family {
        Family::Ip => 2,
        Family::Ip6 => 10,
        Family::Bridge => 7,
    }
}

/// Head of nfnetlink messages.
pub(crate) fn head(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

fn encode(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        match field {
            Field::Ifname(name) => {
                bytes.extend_from_slice(name.as_bytes());
                bytes.resize(bytes.len() + IFNAME_BYTES.saturating_sub(name.len()), 0);
            }
            Field::V4(address) => bytes.extend(address.octets()),
            Field::V6(address) => bytes.extend(address.octets()),
            Field::Mac(Mac(mac)) => bytes.extend(mac),
            Field::Mark(number) | Field::Index(number) => bytes.extend(number.to_ne_bytes()),
            Field::Proto(number) => bytes.push(*number),
            Field::Port(number) => bytes.extend(number.to_be_bytes()),
            Field::Goto(_) => {}
        }
        if fields.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

fn decode(family: Family, parts: &[Part], mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    for part in parts {
        let length = match (part, family) {
            (Part::Ifname, _) => IFNAME_BYTES,
            (Part::Addr, Family::Ip6) => 16,
            (Part::Addr | Part::Mark | Part::Index, _) => 4,
            (Part::Mac, _) => 6,
            (Part::Proto, _) => 1,
            (Part::Port, _) => 2,
            (Part::Verdict, _) => return None,
        };
        let own = bytes.get(..length)?;
        fields.push(match part {
            Part::Ifname => {
                let end = own.iter().position(|byte| *byte == 0).unwrap_or(length);
                Field::Ifname(String::from_utf8_lossy(&own[..end]).into_owned())
            }
            Part::Addr => address(own)?.into(),
            Part::Mark => Field::Mark(u32::from_ne_bytes(own.try_into().ok()?)),
            Part::Index => Field::Index(u32::from_ne_bytes(own.try_into().ok()?)),
            Part::Mac => Field::Mac(Mac(own.try_into().ok()?)),
            Part::Proto => Field::Proto(*own.first()?),
            Part::Port => Field::Port(u16::from_be_bytes(own.try_into().ok()?)),
            Part::Verdict => return None,
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(fields)
}

/// The message that carries out a step of a batch.
pub(crate) fn message(op: &Op) -> Option<Message> {
    let (kind, flags, item, value) = match op {
        Op::Put(item, value) => (NEW_ELEMENT, CREATE, item, Some(value)),
        Op::Remove(item) => (DELETE_ELEMENT, 0, item, None),
        Op::Load(..) | Op::Batch(..) | Op::Drop(_) => return None,
    };
    let Item::Element(family, set, key) = item else { return None };
    let mut message = Message::new(kind, flags).head(&head(number(*family)));
    message = message.text(LIST_TABLE, "herder").text(LIST_SET, set.name());
    message = message.nest(LIST_ELEMENTS).nest(LIST_ELEMENT);
    message = message.nest(ELEMENT_KEY).attr(DATA_VALUE, &encode(key)).end();
    if let Some(Value::Fields(data)) = value {
        message = message.nest(ELEMENT_DATA);
        message = match data.as_slice() {
            [Field::Goto(chain)] => {
                let message = message.nest(DATA_VERDICT).attr(VERDICT_CODE, &GOTO.to_be_bytes());
                message.text(VERDICT_CHAIN, chain).end()
            }
            data => message.attr(DATA_VALUE, &encode(data)),
        };
        message = message.end();
    }
    Some(message.end().end())
}

pub(crate) fn query(family: Family, set: Set) -> Message {
    let message = Message::new(GET_ELEMENT, crate::netlink::DUMP).head(&head(number(family)));
    message.text(LIST_TABLE, "herder").text(LIST_SET, set.name())
}

/// Elements of one part of a dump.
pub(crate) fn elements(family: Family, set: Set, body: &[u8]) -> Vec<(Item, Value)> {
    let list = Attrs::new(body.get(4..).unwrap_or_default()).nested(LIST_ELEMENTS);
    let one = |(_, bytes): (u16, &[u8])| {
        let element = Attrs::new(bytes);
        let key = decode(family, set.key(), element.nested(ELEMENT_KEY).get(DATA_VALUE)?)?;
        let data = element.nested(ELEMENT_DATA);
        let value = match set.data() {
            [] => Value::Set,
            [Part::Verdict] => Value::Fields(vec![Field::Goto(data.nested(DATA_VERDICT).text(VERDICT_CHAIN)?)]),
            parts => Value::Fields(decode(family, parts, data.get(DATA_VALUE)?)?),
        };
        Some((Item::Element(family, set, key), value))
    };
    list.all().filter_map(one).collect()
}
