//! Tracked connections that a change of tables leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::item::{Field, Item, Set, Value};
use super::table::Table;

/// Connections that are to be deleted from the kernel's connection tracking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// UDP and SCTP flows that these backends answer: their clients would go on talking to an endpoint that left.
    pub backends: BTreeSet<IpAddr>,
    /// Backends on nodes that are lost. Connections that they have not accepted are opened anew, to others.
    pub lost: BTreeSet<IpAddr>,
    /// Addresses without a container now. Clients of their connections get a reset with their next packet, not silence.
    pub gone: BTreeSet<IpAddr>,
    /// Flows to these virtual IPs that no backend answered: there is one now.
    pub vips: BTreeSet<IpAddr>,
    /// Affected published ports: (protocol number, port).
    pub ports: BTreeSet<(u8, u16)>,
}

impl Flows {
    pub fn is_empty(&self) -> bool {
        *self == Flows::default()
    }

    /// Adds the connections that end with a later step to `now`. An address that has a container again is gone no more.
    pub fn extend(&mut self, later: Flows, now: &Table) {
        self.backends.extend(later.backends);
        self.lost.extend(later.lost);
        self.gone.extend(later.gone);
        self.vips.extend(later.vips);
        self.ports.extend(later.ports);
        self.gone.retain(|address| !now.has_container(*address));
    }
}

/// Returns the connections that end with the step from one table to the next.
pub fn ended(before: &Table, after: &Table) -> Flows {
    let lost = &after.lost;
    let (before, after) = (&before.items, &after.items);
    let slots = |items: &BTreeMap<Item, Value>| -> BTreeSet<(Vec<Field>, IpAddr)> {
        let slot = |item: &Item, value: &Value| match (item, value) {
            (Item::Element(_, Set::VipSlots | Set::PortSlots, key), Value::Fields(data)) => {
                Some((key[..key.len().saturating_sub(1)].to_vec(), address(data.first()?)?))
            }
            _ => None,
        };
        items.iter().filter_map(|(item, value)| slot(item, value)).collect()
    };
    let mut flows = Flows { gone: &endpoints(before) - &endpoints(after), ..Flows::default() };
    let (before, after) = (slots(before), slots(after));
    flows.backends.extend(before.difference(&after).map(|(_, backend)| *backend));
    flows.lost = &flows.backends & lost;
    let fronts = |slots: &BTreeSet<(Vec<Field>, IpAddr)>| -> BTreeSet<Vec<Field>> {
        slots.iter().map(|(front, _)| front.clone()).collect()
    };
    for front in fronts(&after).difference(&fronts(&before)) {
        match front.as_slice() {
            [Field::Proto(protocol), Field::Port(port)] => _ = flows.ports.insert((*protocol, *port)),
            [vip] => flows.vips.extend(address(vip)),
            _ => {}
        }
    }
    flows
}

/// Addresses of the containers of all nodes.
fn endpoints(items: &BTreeMap<Item, Value>) -> BTreeSet<IpAddr> {
    let endpoint = |item: &Item| match item {
        Item::Element(_, Set::Hairpin, key) => address(key.get(1)?),
        Item::Neighbour { address, .. } => Some(*address),
        _ => None,
    };
    items.keys().filter_map(endpoint).collect()
}

fn address(field: &Field) -> Option<IpAddr> {
    match field {
        Field::V4(address) => Some((*address).into()),
        Field::V6(address) => Some((*address).into()),
        _ => None,
    }
}
