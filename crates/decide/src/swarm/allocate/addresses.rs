//! The order in which addresses are given, and the leader's part of it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use herder_model::swarm::{
    Change, NetworkRecord, Object, ServiceRecord, TaskNetwork, TaskRecord, TaskState, Time, View, Written,
};

use super::attach::{Attached, attached, is_everywhere};
use super::pool::{Subnet, subnet_of, v6_of};
use super::{REST, complete_endpoint};
use crate::swarm::orchestrate::draft::MESSAGE_PENDING;

/// State of a task that has no addresses yet.
const MESSAGE_NEW: &str = "waiting for an address";

/// A leader's knowledge of addresses beyond the view: its position, resting addresses, and services that wait for one.
#[derive(Debug, Default)]
pub struct Addresses {
    networks: HashMap<String, Order>,
    /// Services with tasks that wait for an address.
    waiting: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Order {
    /// The last one that was given; 0: none yet.
    last: u32,
    /// Freed addresses, and from when on they may be given again.
    resting: VecDeque<(Time, u32)>,
    /// Given in the step that is made, and not in the view that it is made on.
    given: BTreeSet<u32>,
}

impl Addresses {
    /// Forgets the assignments of earlier steps: they are in the view, or were not written.
    pub fn begin_step(&mut self) {
        self.networks.values_mut().for_each(|it| it.given.clear());
    }

    /// Lets the addresses of tasks rest that ended a short time ago.
    ///
    /// For a manager that did not see them freed: its program has just started, or it got the whole state at once.
    pub fn recall(&mut self, view: &View, now: Time) {
        let has_ended = |it: &&Arc<TaskRecord>| it.task.status.state > TaskState::Running && it.applied_at + REST > now;
        for record in view.tasks.values().filter(has_ended) {
            for network in &record.networks {
                if let Some(address) = network.v4 {
                    let order = self.networks.entry(network.network_id.clone()).or_default();
                    order.resting.push_back((record.applied_at + REST, address.into()));
                }
            }
        }
        self.networks.values_mut().for_each(|it| it.resting.make_contiguous().sort_unstable());
    }

    /// Takes in what was written. The services that wait for an address, if one was freed.
    pub fn see(&mut self, written: &[Written], now: Time) -> Vec<String> {
        let mut freed = false;
        for Written { before, after } in written {
            match (before, after) {
                (Some(Object::Network(before)), None) => drop(self.networks.remove(&before.id)),
                (Some(before), after) => {
                    let held = |object: &Object| {
                        let mut held = BTreeSet::new();
                        object.addresses(&mut |network, address| {
                            held.insert((network.to_owned(), u32::from(address)));
                        });
                        held
                    };
                    if !has_addresses(before) {
                        continue;
                    }
                    let kept = after.as_ref().map(held).unwrap_or_default();
                    for (network, address) in held(before).difference(&kept) {
                        freed = true;
                        self.networks.entry(network.clone()).or_default().resting.push_back((now + REST, *address));
                    }
                }
                (None, _) => {}
            }
        }
        for order in self.networks.values_mut() {
            while order.resting.front().is_some_and(|(until, _)| *until <= now) {
                order.resting.pop_front();
            }
        }
        if freed { std::mem::take(&mut self.waiting).into_iter().collect() } else { Vec::new() }
    }

    /// Gives the tasks in these changes their networks and addresses, and those of the service that wait for some. Tasks for
    /// which no address is left wait in state new, with the reason.
    pub fn give(&mut self, view: &View, service: &ServiceRecord, changes: Vec<Change>) -> Vec<Change> {
        let attached = attached(view, service);
        let mut changed = BTreeSet::new();
        let mut given: Vec<Change> = Vec::with_capacity(changes.len());
        for change in changes {
            given.push(match change {
                Change::Put(Object::Task(record)) => {
                    changed.insert(record.task.id.clone());
                    Change::Put(Object::Task(self.give_one(view, &attached, service, record)))
                }
                Change::Remove(kind, id) => {
                    changed.insert(id.clone());
                    Change::Remove(kind, id)
                }
                other => other,
            });
        }
        let waits = |it: &&Arc<TaskRecord>| {
            it.task.status.state == TaskState::New && it.task.desired_state <= TaskState::Complete
        };
        let waiting =
            view.tasks_of_service(&service.service.id).filter(waits).filter(|it| !changed.contains(&it.task.id));
        for record in waiting.cloned().collect::<Vec<_>>() {
            let after = self.give_one(view, &attached, service, record.clone());
            if after != record {
                given.push(Change::Put(Object::Task(after)));
            }
        }
        given
    }

    fn give_one(
        &mut self,
        view: &View,
        attached: &[Attached<'_>],
        service: &ServiceRecord,
        mut record: Arc<TaskRecord>,
    ) -> Arc<TaskRecord> {
        let is_new = !view.tasks.contains_key(&record.task.id) || record.task.status.state == TaskState::New;
        if !is_new || record.task.status.state > TaskState::Pending || attached.is_empty() {
            return record;
        }
        let networks = match self.places(view, attached, record.task.slot) {
            Ok(networks) => networks,
            Err(reason) => {
                self.waiting.insert(service.service.id.clone());
                let task = &mut Arc::make_mut(&mut record).task;
                task.status.state = TaskState::New;
                task.status.message = MESSAGE_NEW.into();
                task.status.err = reason;
                return record;
            }
        };
        let task = Arc::make_mut(&mut record);
        task.networks = networks;
        if task.task.status.state == TaskState::New {
            task.task.status.state = TaskState::Pending;
            task.task.status.message = MESSAGE_PENDING.into();
            task.task.status.err.clear();
        }
        record
    }

    /// A place in each of the networks, or in none of them.
    fn places(&mut self, view: &View, attached: &[Attached<'_>], slot: u64) -> Result<Vec<TaskNetwork>, String> {
        let mut taken: Vec<(String, Ipv4Addr)> = Vec::new();
        let mut networks = Vec::with_capacity(attached.len());
        for place in attached {
            match self.place(view, place, slot) {
                Ok(network) => {
                    taken.extend(network.v4.map(|it| (network.network_id.clone(), it)));
                    networks.push(network);
                }
                Err(reason) => {
                    for (network, address) in taken {
                        self.take_back(&network, address);
                    }
                    return Err(reason);
                }
            }
        }
        Ok(networks)
    }

    fn place(&mut self, view: &View, place: &Attached<'_>, slot: u64) -> Result<TaskNetwork, String> {
        let mut network =
            TaskNetwork { network_id: place.id.to_owned(), aliases: place.aliases.to_vec(), ..TaskNetwork::default() };
        let Some(of) = place.network else {
            let is_there = is_everywhere(place.id);
            return if is_there { Ok(network) } else { Err(format!("network {} is gone", place.id)) };
        };
        if let Some(subnet) = subnet_of(of) {
            let wanted = place.address_of_slot(slot)?;
            let address = self.next(view, of, &subnet, wanted).ok_or_else(|| match wanted {
                Some(wanted) => {
                    format!("address {wanted} of network {} is in use, or not one of its own", of.spec.name)
                }
                None => self.exhausted(view, of, &subnet),
            })?;
            network.v4 = Some(address);
            network.v6 = v6_of(of, &subnet, address);
        }
        Ok(network)
    }

    /// The service with what its endpoint needs. Nothing, if it has all that can be had.
    pub fn complete(&mut self, view: &View, service: &Arc<ServiceRecord>) -> Option<ServiceRecord> {
        let mut record = ServiceRecord::clone(service);
        complete_endpoint(view, &mut record, &mut |network, subnet| self.next(view, network, subnet, None));
        (record != **service).then_some(record)
    }

    /// An address for a node of the ingress network.
    pub(super) fn of_node(&mut self, view: &View, network: &NetworkRecord) -> Option<Ipv4Addr> {
        self.next(view, network, &subnet_of(network)?, None)
    }

    /// An address for a plain container: the wanted one, if it is free, else the next one.
    pub fn one(&mut self, view: &View, network: &NetworkRecord, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        self.next(view, network, &subnet_of(network)?, wanted)
    }

    /// Returns the wanted address if it is free, else the next free one of the network.
    fn next(
        &mut self,
        view: &View,
        network: &NetworkRecord,
        subnet: &Subnet,
        wanted: Option<Ipv4Addr>,
    ) -> Option<Ipv4Addr> {
        let order = self.networks.entry(network.id.clone()).or_default();
        if let Some(wanted) = wanted {
            let free = is_free(view, network, subnet, wanted) && order.given.insert(wanted.into());
            return free.then_some(wanted);
        }
        let held = view.held(&network.id).len() + order.given.len();
        let resting: BTreeSet<u32> = order.resting.iter().map(|(_, it)| *it).collect();
        let is_free = |it: u32| !order.given.contains(&it) && is_free(view, network, subnet, it.into());
        let after = if order.last == 0 { last_held(view, network, subnet) } else { order.last };
        let found = (held < subnet.size())
            .then(|| walk(subnet, after, |it| is_free(it) && !resting.contains(&it)))
            .flatten()
            // One that rests is better than none. The longest rested comes first.
            .or_else(|| order.resting.iter().map(|(_, it)| *it).find(|it| is_free(*it)))?;
        order.given.insert(found);
        order.last = found;
        Some(found.into())
    }

    /// Returns the reason why no address is left, with a remedy.
    pub(in crate::swarm) fn exhausted(&self, view: &View, network: &NetworkRecord, subnet: &Subnet) -> String {
        let given = self.networks.get(&network.id).map_or(0, |it| it.given.len());
        // The gateway has one.
        let (used, all) = (view.held(&network.id).len() + given + 1, subnet.size());
        format!(
            "no address is left in network {} ({}: {} of {all} in use); scale services down, or move them to a network with a \
             larger subnet (docker network create -d overlay --subnet …)",
            network.spec.name,
            subnet.net,
            used.min(all)
        )
    }

    fn take_back(&mut self, network: &str, address: Ipv4Addr) {
        if let Some(order) = self.networks.get_mut(network) {
            order.given.remove(&address.into());
        }
    }
}

/// The first address after `after` that `is_free`, from the beginning again after the last one.
pub(super) fn walk(subnet: &Subnet, after: u32, is_free: impl Fn(u32) -> bool) -> Option<u32> {
    let (first, last) = (u32::from(subnet.first), u32::from(subnet.last));
    let start = if (first..last).contains(&after) { after + 1 } else { first };
    (start..=last).chain(first..start).find(|it| is_free(*it))
}

/// True if an address may be given: inside, not held, and not set aside.
pub(super) fn is_free(view: &View, network: &NetworkRecord, subnet: &Subnet, address: Ipv4Addr) -> bool {
    (subnet.first..=subnet.last).contains(&address)
        && address != subnet.gateway
        && !view.held(&network.id).has(address)
        && !network.auxiliary.values().any(|it| it.parse() == Ok(address))
}

/// The highest address that is held: a leader that does not know which one was given last goes on there.
pub(super) fn last_held(view: &View, network: &NetworkRecord, subnet: &Subnet) -> u32 {
    view.held(&network.id).last().map_or(0, u32::from).min(u32::from(subnet.last))
}

fn has_addresses(object: &Object) -> bool {
    match object {
        Object::Task(it) => !it.networks.is_empty() && it.task.status.state <= TaskState::Running,
        Object::Service(it) => !it.service.endpoint.virtual_ips.is_empty(),
        Object::Node(it) => !it.addresses.is_empty(),
        _ => false,
    }
}
