//! Answers of the DNS server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::Rng;
use rand::seq::SliceRandom as _;

use super::Names;
use super::names::{Asker, Named, TTL_TASK, Zone};

/// Type of a query, as far as it makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordType {
    A,
    Aaaa,
    Ptr,
    Mx,
    Any,
    Other,
}

/// Question of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Without the dot at its end.
    pub name: String,
    pub kind: RecordType,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordData {
    Address(IpAddr),
    /// Without the dot at its end.
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub data: RecordData,
    /// Seconds.
    pub ttl: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name exists; without records there are none of this type.
    Records(Vec<Record>),
    /// An address of one of the networks that no container has.
    NoSuchName,
    /// The name is not in the container's networks: ask these servers, or those of the host.
    Forward { servers: Vec<IpAddr> },
    /// The name is not in its networks, and the container has no way out of them.
    Unreachable,
    /// The address that asks is no container's on that network.
    Refused,
}

impl Names {
    /// Answers a question that came from an address on a network. Records are shuffled, so that clients that take the first one
    /// spread over all.
    pub fn answer(&self, network: &str, source: IpAddr, question: &Question, chance: &mut impl Rng) -> Answer {
        let Some(asker) = self.askers.get(network).and_then(|it| it.get(&source)) else { return Answer::Refused };
        let name = question.name.to_lowercase();
        let outside = || match asker.is_internal {
            true => Answer::Unreachable,
            false => Answer::Forward { servers: asker.dns.clone() },
        };
        match question.kind {
            RecordType::Ptr => self.pointer(asker, &name).unwrap_or_else(outside),
            RecordType::Other => outside(),
            kind => match self.named(asker, &name) {
                Some(named) => records(named, kind, chance),
                None => outside(),
            },
        }
    }

    fn zones_of<'n, 'a: 'n>(&'n self, asker: &'a Asker) -> impl Iterator<Item = &'n Zone> + use<'n, 'a> {
        asker.networks.iter().filter_map(|id| self.zones.get(id))
    }

    fn named<'n>(&'n self, asker: &'n Asker, name: &str) -> Option<&'n Named> {
        let plain = self.zones_of(asker).find_map(|zone| zone.names.get(name));
        let named = plain.or_else(|| {
            self.zones_of(asker).find_map(|zone| {
                let name = name.strip_suffix(&zone.suffix)?.strip_suffix('.')?;
                zone.names.get(name)
            })
        });
        named.map(|it| &**it)
    }

    fn pointer(&self, asker: &Asker, name: &str) -> Option<Answer> {
        let address = reversed(name)?;
        if let Some(name) = self.zones_of(asker).find_map(|zone| zone.pointers.get(&address)) {
            return Some(Answer::Records(vec![Record { data: RecordData::Name(name.to_string()), ttl: TTL_TASK }]));
        }
        let is_ours = self.zones_of(asker).any(|zone| zone.contains.iter().any(|subnet| subnet.contains(&address)));
        is_ours.then_some(Answer::NoSuchName)
    }
}

fn records(named: &Named, kind: RecordType, chance: &mut impl Rng) -> Answer {
    let fits = |address: &IpAddr| match kind {
        RecordType::A => address.is_ipv4(),
        RecordType::Aaaa => address.is_ipv6(),
        RecordType::Any => true,
        RecordType::Ptr | RecordType::Mx | RecordType::Other => false,
    };
    let fitting = named.addresses().filter(|(address, _)| fits(address));
    let mut all: Vec<Record> =
        fitting.map(|(address, ttl)| Record { data: RecordData::Address(address), ttl }).collect();
    all.shuffle(chance);
    Answer::Records(all)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut bytes = labels.split('.').rev().map(str::parse);
        let mut address = [0; 4];
        for byte in &mut address {
            *byte = bytes.next()?.ok()?;
        }
        return bytes.next().is_none().then(|| Ipv4Addr::from(address).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut address = 0_u128;
    let mut count = 0;
    for label in labels.split('.').rev() {
        let digit = label.chars().next().filter(|_| label.len() == 1)?.to_digit(16)?;
        address = address.checked_shl(4)? | u128::from(digit);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(address).into())
}
