//! Kernel and DNS server of a host, as maps that `decide::net` is applied to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use herder_agent::net::Networks;
use herder_decide::net::{
    Answer, Family, Field, Host, Item, Names, Question, RecordData, RecordType, Set, States, Table, Value, bridge_name,
    carry_out, plan, table, vxlan_name,
};
use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::trace::Trace;

const MTU: u32 = 1500;
const DNS_PORT: u16 = 53;
/// Time that a change of tables or of names takes, in milliseconds.
const CHANGE_TIME: std::ops::Range<u64> = 0..30;
/// Same as in the program: the pause between a notice of the kernel and the comparison.
const NOTICE_PAUSE: Duration = Duration::from_millis(300);

/// The states that tables and names are computed from.
type Done = (States, Host);

/// The next hop of a packet to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// The container is on this host.
    Here,
    /// Data path address of another host.
    Node(IpAddr),
    /// A container of this host has the address, and one of another host.
    Both,
}

/// The kernel of one host, and its DNS server, which outlives the program. Copies are the same kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: String,
    trace: Trace,
    tables: Mutex<Tables>,
    /// Items are removed by others.
    notices: Notify,
}

#[derive(Debug)]
struct Tables {
    rng: StdRng,
    items: BTreeMap<Item, Value>,
    /// Items were removed by others since the last comparison.
    is_disturbed: bool,
    names: Names,
    named: Done,
}

impl Kernel {
    pub(crate) fn new(host: &str, rng: StdRng, trace: Trace) -> Kernel {
        let (items, names, named) = (BTreeMap::new(), Names::default(), Done::default());
        let tables = Mutex::new(Tables { rng, items, is_disturbed: false, names, named });
        Kernel(Arc::new(Inner { host: host.to_owned(), trace, tables, notices: Notify::new() }))
    }

    /// The host loses power, and its DNS server ends. The worker may take one more step before it ends.
    pub(crate) fn turn_off(&self) {
        let mut tables = self.0.tables.lock();
        tables.items.clear();
        tables.is_disturbed = true;
        (tables.names, tables.named) = (Names::default(), Done::default());
    }

    /// Removes one nft table, or any items, as another program would.
    pub(crate) fn disturb(&self, a_table: bool) {
        self.0.trace.tell(format_args!("{}: somebody removes network state", self.0.host));
        let mut tables = self.0.tables.lock();
        let Tables { rng, items, is_disturbed, .. } = &mut *tables;
        items.retain(|item, _| if a_table { item.family() != Some(Family::Ip) } else { rng.random() });
        *is_disturbed = true;
        self.0.notices.notify_one();
    }

    async fn change_takes_time(&self) {
        let took = self.0.tables.lock().rng.random_range(CHANGE_TIME);
        sleep(Duration::from_millis(took)).await;
    }

    /// Brings tables and names to the states of the node's networks, as the worker of an agent does.
    pub(crate) async fn run(self, networks: Networks) {
        let mut inputs = networks.inputs();
        // Until a leader has sent everything, the host stays as it was. The sender lives as long as the networks.
        if inputs.heard.wait_for(|heard| *heard).await.is_err() {
            return;
        }
        let (mut table, mut done) = (Table::default(), None);
        loop {
            let known = inputs.states.borrow_and_update().clone();
            let ended = inputs.ended.borrow_and_update().clone();
            let states = known.iter().map(|(id, known)| (id.clone(), known.state.clone())).collect();
            let node = self.0.host.clone();
            let next = (states, Host { node, underlay_mtu: MTU, dns_port: DNS_PORT, ended, ..Host::default() });
            self.change_takes_time().await;
            if !self.load(&mut table, done.as_ref(), &next) {
                done = None;
                continue;
            }
            self.change_takes_time().await;
            self.name(&next);
            done = Some(next);
            networks.publish(&known);
            tokio::select! {
                changed = inputs.states.changed() => if changed.is_err() { return },
                _ = inputs.ended.changed() => {}
                () = self.0.notices.notified() => {
                    sleep(NOTICE_PAUSE).await;
                    done = None;
                }
            }
        }
    }

    /// Brings the kernel from one version to the next. Without `before`, all of it is compared. False if a step was refused, since
    /// somebody has removed items.
    fn load(&self, table: &mut Table, before: Option<&Done>, next: &Done) -> bool {
        let after = (&next.0, &next.1);
        let ops = before.and_then(|(states, host)| table.advance((states, host), after));
        let mut tables = self.0.tables.lock();
        let ops = match ops {
            Some((ops, _)) => ops,
            None => {
                // As in the program: the kernel is only read where nothing is known of it, or somebody has changed it.
                let old = std::mem::replace(table, self::table(after.0, after.1));
                plan(table, if before.is_some() { &old.items } else { &tables.items })
            }
        };
        let carried_out = carry_out(&ops, table, &mut tables.items);
        if before.is_none() {
            tables.is_disturbed = false;
        }
        match carried_out {
            Ok(()) => true,
            Err(error) => {
                if !tables.is_disturbed {
                    self.0.trace.fail(format_args!("{}: the kernel refuses a step: {error}", self.0.host));
                }
                false
            }
        }
    }

    fn name(&self, next: &Done) {
        let mut tables = self.0.tables.lock();
        let (states, host) = std::mem::replace(&mut tables.named, next.clone());
        tables.names = tables.names.advance((&states, &host), (&next.0, &next.1));
    }

    /// Returns the reason why tables and names are not those of the states that they were brought to.
    pub(crate) fn differs(&self) -> Option<String> {
        let tables = self.0.tables.lock();
        let (states, host) = &tables.named;
        let ops = plan(&table(states, host), &tables.items);
        if !ops.is_empty() {
            return Some(format!("its kernel lacks {ops:?}"));
        }
        (tables.names != Names::of(states, host)).then(|| "its names are not those of its networks".to_owned())
    }

    /// Numbers of the networks that the kernel has devices of.
    pub(crate) fn networks(&self) -> BTreeSet<u32> {
        let tables = self.0.tables.lock();
        let dev = |item: &Item| match item {
            Item::BridgeCalls(dev) | Item::Vxlan(dev) => Some(dev.clone()),
            Item::Address { dev, .. }
            | Item::Fdb { dev, .. }
            | Item::BridgeFdb { dev, .. }
            | Item::Neighbour { dev, .. }
            | Item::LocalRoute { dev, .. } => Some(dev.clone()),
            Item::Element(_, _, key) => match key.first() {
                Some(Field::Ifname(dev)) => Some(dev.clone()),
                _ => None,
            },
            _ => None,
        };
        let number = |dev: String| dev.trim_start_matches(char::is_alphabetic).parse().ok();
        tables.items.keys().filter_map(dev).filter_map(number).collect()
    }

    /// Addresses that new connections to a virtual IP lead to.
    pub(crate) fn behind(&self, vni: u32, vip: Ipv4Addr) -> BTreeSet<Ipv4Addr> {
        let tables = self.0.tables.lock();
        let chain = element(Set::Vips, vec![Field::Ifname(bridge_name(vni)), Field::V4(vip)]);
        let slot = |at| element(Set::VipSlots, vec![Field::V4(vip), Field::Index(at)]);
        tables.slots(&chain, slot).iter().filter_map(|it| address(it.first()?)).collect()
    }

    /// Addresses and ports that new connections to a published port of TCP lead to.
    pub(crate) fn published(&self, port: u16) -> BTreeSet<(Ipv4Addr, u16)> {
        let tables = self.0.tables.lock();
        let key = vec![Field::Proto(6), Field::Port(port)];
        let slot = |at| element(Set::PortSlots, [key.clone(), vec![Field::Index(at)]].concat());
        let slots = tables.slots(&element(Set::Ports, key.clone()), slot);
        let target = |it: &Vec<Field>| match it.as_slice() {
            [Field::V4(address), Field::Port(port)] => Some((*address, *port)),
            _ => None,
        };
        slots.iter().filter_map(target).collect()
    }

    /// Published ports of TCP that lead somewhere.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        let tables = self.0.tables.lock();
        let port = |item: &Item| match item {
            Item::Element(Family::Ip, Set::Ports, key) => match key.as_slice() {
                [Field::Proto(6), Field::Port(port)] => Some(*port),
                _ => None,
            },
            _ => None,
        };
        tables.items.keys().filter_map(port).collect()
    }

    /// Names of the services that the DNS server knows on a network.
    pub(crate) fn services(&self, network: &str) -> BTreeSet<String> {
        let tables = self.0.tables.lock();
        let state = tables.named.0.get(network);
        state.into_iter().flat_map(|it| it.services.values()).map(|it| it.name.clone()).collect()
    }

    /// All addresses that new connections may lead to.
    pub(crate) fn balanced(&self) -> BTreeSet<Ipv4Addr> {
        let tables = self.0.tables.lock();
        let slot = |(item, value): (&Item, &Value)| match (item, value) {
            (Item::Element(_, Set::VipSlots | Set::PortSlots, _), Value::Fields(data)) => address(data.first()?),
            _ => None,
        };
        tables.items.iter().filter_map(slot).collect()
    }

    /// The way of packets to a container of a network.
    pub(crate) fn hop(&self, vni: u32, to: Ipv4Addr) -> Option<Hop> {
        let tables = self.0.tables.lock();
        let (bridge, vxlan) = (bridge_name(vni), vxlan_name(vni));
        let own = element(Set::Hairpin, vec![Field::Ifname(bridge.clone()), Field::V4(to), Field::V4(to)]);
        let neighbour = Item::Neighbour { dev: bridge, address: to.into() };
        if tables.items.contains_key(&own) {
            return Some(if tables.items.contains_key(&neighbour) { Hop::Both } else { Hop::Here });
        }
        let Some(Value::Mac(mac)) = tables.items.get(&neighbour) else { return None };
        let device = tables.items.contains_key(&Item::Vxlan(vxlan.clone()));
        let learned = tables.items.contains_key(&Item::BridgeFdb { dev: vxlan.clone(), mac: *mac });
        match tables.items.get(&Item::Fdb { dev: vxlan, mac: *mac }) {
            Some(Value::Addr(node)) if device && learned => Some(Hop::Node(*node)),
            _ => None,
        }
    }

    /// Addresses of a name, for a container that asks. `None` if the server does not answer it from the network.
    pub(crate) fn resolve(&self, network: &str, asker: Ipv4Addr, name: &str) -> Option<BTreeSet<Ipv4Addr>> {
        let mut tables = self.0.tables.lock();
        let Tables { rng, names, .. } = &mut *tables;
        let question = Question { name: name.to_owned(), kind: RecordType::A };
        let Answer::Records(records) = names.answer(network, asker.into(), &question, rng) else { return None };
        let address = |data: &RecordData| match data {
            RecordData::Address(IpAddr::V4(address)) => Some(*address),
            RecordData::Address(IpAddr::V6(_)) | RecordData::Name(_) => None,
        };
        Some(records.iter().filter_map(|it| address(&it.data)).collect())
    }

    /// True if the DNS server gives out the address of this task of a service. `None` if something else has it meanwhile: another
    /// endpoint, or a service as its virtual IP.
    pub(crate) fn names(&self, network: &str, endpoint: &str, address: Ipv4Addr) -> Option<bool> {
        let (services, asker) = {
            let tables = self.0.tables.lock();
            let Some(state) = tables.named.0.get(network) else { return Some(false) };
            let others = state.endpoints.iter().filter(|(id, _)| *id != endpoint).map(|(_, it)| it.v4);
            let virtual_ips = state.services.values().filter_map(|it| it.vip4);
            if others.chain(virtual_ips).any(|it| it == address) {
                return None;
            }
            let asker = state.endpoints.values().find(|it| it.node == self.0.host).map(|it| it.v4);
            (state.services.values().map(|it| it.name.clone()).collect::<Vec<_>>(), asker)
        };
        let Some(asker) = asker else { return Some(false) };
        let names = services.into_iter().flat_map(|name| [format!("tasks.{name}"), name]);
        let gives = |name: String| self.resolve(network, asker, &name).is_some_and(|all| all.contains(&address));
        Some(names.into_iter().any(gives))
    }
}

impl Tables {
    /// Contents of the slots that a chain for a number of backends chooses from.
    fn slots(&self, chain: &Item, slot: impl Fn(u32) -> Item) -> Vec<Vec<Field>> {
        let count = match self.items.get(chain) {
            Some(Value::Fields(data)) => match data.first() {
                Some(Field::Goto(name)) => name.trim_start_matches(char::is_alphabetic).parse().unwrap_or_default(),
                _ => 0,
            },
            _ => 0,
        };
        let fields = |at| match self.items.get(&slot(at)) {
            Some(Value::Fields(data)) => data.clone(),
            _ => Vec::new(),
        };
        (0..count).map(fields).collect()
    }
}

fn element(set: Set, key: Vec<Field>) -> Item {
    Item::Element(Family::Ip, set, key)
}

fn address(field: &Field) -> Option<Ipv4Addr> {
    if let Field::V4(address) = field { Some(*address) } else { None }
}

#[cfg(test)]
pub(crate) mod tests;
