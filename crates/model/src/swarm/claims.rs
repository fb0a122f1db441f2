//! Index of addresses by holder, kept beside the objects, so that no two objects can have the same address.

use std::net::Ipv4Addr;

use imbl::OrdMap;

use super::{Id, NodeRecord, Object, ServiceRecord, TaskRecord, TaskState};

/// Network → address → id of the task, service or node that holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(OrdMap<Id, OrdMap<u32, Id>>);

/// The addresses of one network that are held, in their order.
#[derive(Clone, Copy, Debug)]
pub struct Held<'v>(Option<&'v OrdMap<u32, Id>>);

impl<'v> Held<'v> {
    pub fn has(self, address: Ipv4Addr) -> bool {
        self.owner(address).is_some()
    }

    /// Id of the task, service or node.
    pub fn owner(self, address: Ipv4Addr) -> Option<&'v str> {
        self.0?.get(&u32::from(address)).map(Id::as_str)
    }

    /// The highest one.
    pub fn last(self) -> Option<Ipv4Addr> {
        self.0?.get_max().map(|(address, _)| (*address).into())
    }

    pub fn len(self) -> usize {
        self.0.map_or(0, OrdMap::len)
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl Claims {
    pub(super) fn held(&self, network: &str) -> Held<'_> {
        Held(self.0.get(network))
    }

    /// The first network in which this object claims an address that another one holds.
    pub(super) fn conflict<'o>(&self, object: &'o Object) -> Option<&'o str> {
        let mut taken = None;
        object.addresses(&mut |network, address| {
            if self.held(network).owner(address).is_some_and(|it| it != object.id()) {
                taken.get_or_insert(network);
            }
        });
        taken
    }

    pub(super) fn put(&mut self, object: &Object) {
        object.addresses(&mut |network, address| match self.0.get_mut(network) {
            Some(held) => drop(held.insert(u32::from(address), Id::from(object.id()))),
            None => drop(self.0.insert(Id::from(network), OrdMap::unit(u32::from(address), Id::from(object.id())))),
        });
    }

    pub(super) fn remove(&mut self, object: &Object) {
        object.addresses(&mut |network, address| {
            let Some(held) = self.0.get_mut(network) else { return };
            held.remove(&u32::from(address));
            if held.is_empty() {
                self.0.remove(network);
            }
        });
    }
}

impl Object {
    /// Calls `visit` with each address that the object holds, and its network. A task holds its addresses until it has ended.
    pub fn addresses<'o>(&'o self, visit: &mut dyn FnMut(&'o str, Ipv4Addr)) {
        match self {
            Object::Task(record) => of_task(record, visit),
            Object::Service(record) => of_service(record, visit),
            Object::Node(record) => of_node(record, visit),
            Object::Cluster(_) | Object::Secret(_) | Object::Config(_) | Object::Network(_) | Object::Resource(_) => {}
        }
    }
}

fn of_task<'o>(record: &'o TaskRecord, visit: &mut dyn FnMut(&'o str, Ipv4Addr)) {
    if record.task.status.state > TaskState::Running {
        return;
    }
    for network in &record.networks {
        if let Some(address) = network.v4 {
            visit(&network.network_id, address);
        }
    }
}

fn of_service<'o>(record: &'o ServiceRecord, visit: &mut dyn FnMut(&'o str, Ipv4Addr)) {
    for vip in &record.service.endpoint.virtual_ips {
        if let Some(address) = vip.address() {
            visit(&vip.network_id, address);
        }
    }
}

fn of_node<'o>(record: &'o NodeRecord, visit: &mut dyn FnMut(&'o str, Ipv4Addr)) {
    for (network, address) in &record.addresses {
        visit(network, *address);
    }
}
