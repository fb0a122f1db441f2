//! The fleet: resources of the swarm's nodes as sums, and the tasks that wait for a node.
//!
//! Updated from writes, so that a run of the scheduler walks neither all tasks nor what they take. Everything but the
//! memory of failures is a sum over the objects of a view, in whatever order they came. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use herder_model::swarm::{NetworkRecord, NodeRecord, Object, TaskRecord, TaskState, Time, View, Written};

use super::Placed;
use super::demand::{HostPort, host_ports, is_available};
use super::generic::Claims;

/// Clocks of two managers may differ by so much.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// Time for which a node counts as having failed with a service (swarmkit `monitorFailures`).
pub(super) const FAILURE_MEMORY: Duration = Duration::from_secs(5 * 60);
/// Number of failures from which a service's tasks prefer other nodes (swarmkit `maxFailures`).
pub(super) const FAILURES_MIN: u32 = 5;
/// Failures that are remembered of one service; more would only say the same again.
const FAILURES_MAX: usize = 100_000;

/// Index of a host in a [`Fleet`]. It is reused after the host is removed.
pub(super) type HostNo = u32;
/// Number of a service in a [`Fleet`].
pub(super) type ServiceNo = u32;
/// Tasks without a service.
pub(super) const NO_SERVICE: ServiceNo = 0;

/// All nodes with what is left of them, and the tasks that wait. `see` keeps it at what a store holds; `schedule` changes
/// nothing in it, so what a run decided counts when it is written.
#[derive(Debug, Default)]
pub struct Fleet {
    hosts: Vec<Host>,
    numbers: HashMap<String, HostNo>,
    /// Hosts that have a node, in the order of its id.
    order: Vec<HostNo>,
    /// Services with their number of tasks here, counted or waiting.
    services: HashMap<String, (ServiceNo, u32)>,
    /// Numbers that may be given again.
    free_hosts: Vec<HostNo>,
    free_services: Vec<ServiceNo>,
    /// Active tasks. No entry is 0.
    counts: BTreeMap<(ServiceNo, HostNo), u32>,
    waiting: BTreeSet<Waiting>,
    /// Tasks that have a node, and must be checked to fit there. By id.
    preassigned: BTreeMap<String, Arc<TaskRecord>>,
    failures: HashMap<String, VecDeque<Failure>>,
    /// Ids of the encrypted networks.
    encrypted: BTreeSet<String>,
}

/// A node id with its node, if there is one, and what tasks take of it.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub record: Option<Arc<NodeRecord>>,
    /// The node takes new tasks. Cached here, as what follows: a run asks it of all nodes, and records lie all over the memory.
    pub available: bool,
    /// Billionths of a processor.
    nano_cpus: i64,
    memory_bytes: i64,
    pub taken: Taken,
}

impl Host {
    /// Returns free processors (billionths) and memory (bytes). Negative where the node has shrunk.
    pub(super) fn left(&self) -> (i64, i64) {
        let taken = &self.taken;
        (self.nano_cpus.saturating_sub(taken.nano_cpus), self.memory_bytes.saturating_sub(taken.memory_bytes))
    }

    /// Sets the node; says whether there was none.
    fn put(&mut self, record: &Arc<NodeRecord>) -> bool {
        let has = &record.description().resources;
        (self.available, self.nano_cpus, self.memory_bytes) = (is_available(record), has.nano_cpus, has.memory_bytes);
        self.record.replace(record.clone()).is_none()
    }

    fn remove(&mut self) {
        self.record = None;
        (self.available, self.nano_cpus, self.memory_bytes) = (false, 0, 0);
    }
}

/// Resources of a node that tasks hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Tasks that take anything.
    pub tasks: u32,
    /// Tasks that should go on: the load by which nodes are ranked.
    pub active: u32,
    pub nano_cpus: i64,
    pub memory_bytes: i64,
    pub ports: BTreeMap<HostPort, u32>,
    pub claims: Claims,
}

/// A task without a node. The oldest version comes first; tasks of one service and version stand together, in the order of
/// their slots.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub version: u64,
    pub service: ServiceNo,
    slot: u64,
    pub record: Arc<TaskRecord>,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        let [one, two] = [&self.record.task, &other.record.task];
        // Numbers depend on the order in which services came, so they say only whether it is the same one.
        let services =
            || if self.service == other.service { Ordering::Equal } else { one.service_id.cmp(&two.service_id) };
        let versions = self.version.cmp(&other.version).then_with(services);
        versions.then_with(|| self.slot.cmp(&other.slot)).then_with(|| one.id.cmp(&two.id))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    version: u64,
    node: String,
    at: Time,
}

/// Role of a task for the scheduler.
enum Stage {
    Waits,
    Preassigned,
    /// The task holds resources of its node; true if it should go on. True if it should go on.
    Takes(bool),
    Nothing,
}

fn stage(record: &TaskRecord) -> Stage {
    let task = &record.task;
    let wanted = task.desired_state <= TaskState::Complete;
    match (task.status.state, task.node_id.is_empty()) {
        (TaskState::Pending, true) if wanted => Stage::Waits,
        (TaskState::Pending, false) if wanted => Stage::Preassigned,
        (state, false) if (TaskState::Assigned..=TaskState::Running).contains(&state) => {
            Stage::Takes(wanted && !record.succeeded)
        }
        _ => Stage::Nothing,
    }
}

impl Fleet {
    /// Builds the fleet from all objects in a store.
    pub fn of(view: &View) -> Fleet {
        let mut fleet = Fleet::default();
        for record in view.nodes.values() {
            let number = fleet.host(&record.node.id);
            fleet.order.push(number);
            fleet.hosts[number as usize].put(record);
        }
        view.networks.values().for_each(|it| fleet.put_network(it));
        let mut waiting = Vec::new();
        for record in view.tasks.values() {
            match stage(record) {
                Stage::Waits => {
                    let service = fleet.use_service(&record.task.service_id);
                    waiting.push(waiting_of(service, record));
                }
                _ => fleet.count(record),
            }
            fleet.remember(None, record);
        }
        fleet.waiting = waiting.into_iter().collect();
        for failures in fleet.failures.values_mut() {
            failures.make_contiguous().sort_by_key(|failure| failure.at);
        }
        fleet
    }

    /// Takes in what commands did, each once and in their order.
    pub fn see(&mut self, written: &[Written]) {
        for Written { before, after } in written {
            match (before, after) {
                (Some(Object::Task(_)), _) | (_, Some(Object::Task(_))) => {
                    let [before, after] = [before, after].map(|it| match it {
                        Some(Object::Task(record)) => Some(record),
                        _ => None,
                    });
                    if let Some(before) = before {
                        self.uncount(before);
                    }
                    if let Some(after) = after {
                        self.count(after);
                        self.remember(before.map(|it| &**it), after);
                    }
                }
                (_, Some(Object::Network(record))) => self.put_network(record),
                (Some(Object::Network(record)), None) => drop(self.encrypted.remove(&record.id)),
                (_, Some(Object::Node(record))) => self.put_node(record),
                (Some(Object::Node(record)), None) => self.remove_node(&record.node.id),
                (Some(Object::Service(record)), None) => drop(self.failures.remove(&record.service.id)),
                _ => {}
            }
        }
    }

    /// Takes back what [`Fleet::see`] took in last. Of a service that was removed, it is not known any more where it failed.
    fn unsee(&mut self, written: &[Written]) {
        for Written { before, after } in written.iter().rev() {
            match (before, after) {
                (Some(Object::Task(_)), _) | (_, Some(Object::Task(_))) => {
                    if let Some(Object::Task(after)) = after {
                        let was = before.as_ref().is_some_and(|it| matches!(it, Object::Task(it) if is_failure(it)));
                        self.uncount(after);
                        if is_failure(after) && !was {
                            self.forget_failure(&after.task.service_id);
                        }
                    }
                    if let Some(Object::Task(before)) = before {
                        self.count(before);
                    }
                }
                (Some(Object::Network(record)), _) => self.put_network(record),
                (None, Some(Object::Network(record))) => drop(self.encrypted.remove(&record.id)),
                (Some(Object::Node(record)), _) => self.put_node(record),
                (None, Some(Object::Node(record))) => self.remove_node(&record.node.id),
                _ => {}
            }
        }
    }

    fn forget_failure(&mut self, service: &str) {
        if let Some(failures) = self.failures.get_mut(service) {
            failures.pop_back();
            if failures.is_empty() {
                self.failures.remove(service);
            }
        }
    }

    /// Places waiting tasks as if these writes, which the fleet has not seen, were applied. Decisions made together can
    /// be written together.
    pub fn schedule_after(&mut self, written: &[Written], now: Time, limit: usize) -> Placed {
        self.see(written);
        let placed = self.schedule_up_to(now, limit);
        self.unsee(written);
        placed
    }

    /// True if one of these waits for a node.
    pub fn is_waited_for_in(written: &[Written]) -> bool {
        let waits =
            |it: &Object| matches!(it, Object::Task(it) if matches!(stage(it), Stage::Waits | Stage::Preassigned));
        written.iter().filter_map(|it| it.after.as_ref()).any(waits)
    }

    /// Removes the task from the fleet.
    pub(super) fn without(&mut self, record: &TaskRecord) {
        self.uncount(&Arc::new(record.clone()));
    }

    /// Returns the number of tasks that wait for a node.
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// True if a run of the scheduler may find something to do.
    pub fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty() || !self.preassigned.is_empty()
    }

    pub(super) fn waiting(&self) -> &BTreeSet<Waiting> {
        &self.waiting
    }

    pub(super) fn preassigned(&self) -> impl Iterator<Item = &Arc<TaskRecord>> {
        self.preassigned.values()
    }

    /// Numbers of the hosts that have a node, in the order of its id.
    pub(super) fn order(&self) -> &[HostNo] {
        &self.order
    }

    pub(super) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    pub(super) fn number_of(&self, node: &str) -> Option<HostNo> {
        self.numbers.get(node).copied()
    }

    pub(super) fn service_no(&self, service: &str) -> ServiceNo {
        self.services.get(service).map_or(NO_SERVICE, |(number, _)| *number)
    }

    /// Hosts with active tasks of the service.
    pub(super) fn counts_of(&self, service: ServiceNo) -> impl Iterator<Item = (HostNo, u32)> {
        let range = (service != NO_SERVICE).then(|| self.counts.range((service, 0)..=(service, HostNo::MAX)));
        range.into_iter().flatten().map(|((_, host), count)| (*host, *count))
    }

    pub(super) fn count_of(&self, service: ServiceNo, host: HostNo) -> u32 {
        self.counts.get(&(service, host)).copied().unwrap_or_default()
    }

    /// Nodes that failed with this version of the service so lately and so often that it counts.
    pub(super) fn failures_of(&self, service: &str, version: u64, now: Time) -> Vec<(HostNo, u32)> {
        let Some(failures) = self.failures.get(service) else { return Vec::new() };
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for failure in failures {
            // One that the clock of an earlier leader put into the future would count until then.
            let is_past = failure.at <= now + CLOCK_TOLERANCE;
            if failure.version == version && is_past && now.since(failure.at) < FAILURE_MEMORY {
                *counts.entry(&failure.node).or_default() += 1;
            }
        }
        let often = counts.into_iter().filter(|(_, count)| *count >= FAILURES_MIN);
        often.filter_map(|(node, count)| Some((self.number_of(node)?, count))).collect()
    }

    /// Ids of the encrypted networks.
    pub(super) fn encrypted(&self) -> &BTreeSet<String> {
        &self.encrypted
    }

    fn put_network(&mut self, record: &NetworkRecord) {
        if record.is_encrypted() {
            self.encrypted.insert(record.id.clone());
        } else {
            self.encrypted.remove(&record.id);
        }
    }

    fn put_node(&mut self, record: &Arc<NodeRecord>) {
        let number = self.host(&record.node.id);
        if self.hosts[number as usize].put(record) {
            let at = self.place_in_order(&record.node.id);
            self.order.insert(at, number);
        }
    }

    fn remove_node(&mut self, id: &str) {
        let Some(number) = self.number_of(id) else { return };
        let at = self.place_in_order(id);
        if self.order.get(at) == Some(&number) {
            self.order.remove(at);
        }
        self.hosts[number as usize].remove();
        self.forget_host(id, number);
    }

    /// Returns the rank of a node with this id, or its place of insertion.
    fn place_in_order(&self, id: &str) -> usize {
        self.order.partition_point(|number| {
            self.hosts[*number as usize].record.as_ref().is_some_and(|record| *record.node.id < *id)
        })
    }

    fn count(&mut self, record: &Arc<TaskRecord>) {
        let task = &record.task;
        match stage(record) {
            Stage::Waits => {
                let service = self.use_service(&task.service_id);
                self.waiting.insert(waiting_of(service, record));
            }
            Stage::Preassigned => drop(self.preassigned.insert(task.id.clone(), record.clone())),
            Stage::Takes(active) => {
                let number = self.host(&task.node_id);
                self.hosts[number as usize].taken.change(record, active, 1);
                if active {
                    let service = self.use_service(&task.service_id);
                    if service != NO_SERVICE {
                        *self.counts.entry((service, number)).or_default() += 1;
                    }
                }
            }
            Stage::Nothing => {}
        }
    }

    fn uncount(&mut self, record: &Arc<TaskRecord>) {
        let task = &record.task;
        match stage(record) {
            Stage::Waits => {
                let service = self.service_no(&task.service_id);
                self.waiting.remove(&waiting_of(service, record));
                self.leave_service(&task.service_id);
            }
            Stage::Preassigned => drop(self.preassigned.remove(&task.id)),
            Stage::Takes(active) => {
                let Some(number) = self.number_of(&task.node_id) else { return };
                self.hosts[number as usize].taken.change(record, active, -1);
                if active {
                    let key = (self.service_no(&task.service_id), number);
                    if let Some(count) = self.counts.get_mut(&key) {
                        *count -= 1;
                        if *count == 0 {
                            self.counts.remove(&key);
                        }
                    }
                    self.leave_service(&task.service_id);
                }
                self.forget_host(&task.node_id, number);
            }
            Stage::Nothing => {}
        }
    }

    /// Notes a task that has failed since it was `before`.
    fn remember(&mut self, before: Option<&TaskRecord>, after: &TaskRecord) {
        if !is_failure(after) || before.is_some_and(is_failure) {
            return;
        }
        let task = &after.task;
        let (at, version) = (after.applied_at, after.spec_version.index);
        let failures = self.failures.entry(task.service_id.clone()).or_default();
        while failures.front().is_some_and(|it| at.since(it.at) >= FAILURE_MEMORY) || failures.len() >= FAILURES_MAX {
            failures.pop_front();
        }
        failures.push_back(Failure { version, node: task.node_id.clone(), at });
    }

    fn host(&mut self, id: &str) -> HostNo {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = self.free_hosts.pop().unwrap_or_else(|| {
            self.hosts.push(Host::default());
            number_of(self.hosts.len() - 1)
        });
        self.numbers.insert(id.to_owned(), number);
        number
    }

    /// A host without a node and without tasks is nothing.
    fn forget_host(&mut self, id: &str, number: HostNo) {
        let host = &self.hosts[number as usize];
        if host.record.is_none() && host.taken.tasks == 0 && self.numbers.remove(id).is_some() {
            self.free_hosts.push(number);
        }
    }

    fn use_service(&mut self, id: &str) -> ServiceNo {
        if id.is_empty() {
            return NO_SERVICE;
        }
        if let Some((number, tasks)) = self.services.get_mut(id) {
            *tasks += 1;
            return *number;
        }
        let number = self.free_services.pop().unwrap_or_else(|| number_of(self.services.len() + 1));
        self.services.insert(id.to_owned(), (number, 1));
        number
    }

    fn leave_service(&mut self, id: &str) {
        let Some((number, tasks)) = self.services.get_mut(id) else { return };
        *tasks -= 1;
        if *tasks == 0 {
            self.free_services.push(*number);
            self.services.remove(id);
        }
    }
}

/// The task of a service failed on a node.
fn is_failure(record: &TaskRecord) -> bool {
    let task = &record.task;
    matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
        && !task.node_id.is_empty()
        && !task.service_id.is_empty()
}

/// Converts a length to `u32`; larger lengths do not fit into memory.
fn number_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn waiting_of(service: ServiceNo, record: &Arc<TaskRecord>) -> Waiting {
    Waiting { service, version: record.spec_version.index, slot: record.task.slot, record: record.clone() }
}

impl Taken {
    /// Adds the task (`sign` is 1), or takes it away (-1).
    fn change(&mut self, record: &TaskRecord, active: bool, sign: i32) {
        self.tasks = self.tasks.saturating_add_signed(sign);
        if active {
            self.active = self.active.saturating_add_signed(sign);
        }
        let task = &record.task;
        if let Some(reserved) = task.spec.resources.as_ref().and_then(|it| it.reservations.as_ref()) {
            self.nano_cpus += i64::from(sign) * reserved.nano_cpus;
            self.memory_bytes += i64::from(sign) * reserved.memory_bytes;
        }
        if sign > 0 {
            self.claims.add(&task.generic_resources)
        } else {
            self.claims.remove(&task.generic_resources)
        }
        for port in host_ports(record) {
            let users = self.ports.entry(port).or_default();
            *users = users.saturating_add_signed(sign);
            if *users == 0 {
                self.ports.remove(&port);
            }
        }
    }
}

#[cfg(test)]
mod tests;
