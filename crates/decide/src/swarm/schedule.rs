//! The scheduler of services: which node gets a task.
//!
//! Filters refuse the nodes that cannot take a task; of the others the one comes first that has not just failed with the
//! service, then the one with the fewest tasks of the service, then the one with the fewest tasks. Load is counted in tasks,
//! never in processors or memory. Nothing is taken away from anybody to make room, and nothing moves later.
//!
//! Tasks that ask for the same are placed one after the other from one heap of the nodes that fit, so that a task costs a
//! step in a heap and not a walk over all nodes: within a run nodes only get fuller, so a node that was too full once is so
//! for good. Pure; ties are settled by the id of the node, so that the order in which nodes came does not matter.

pub mod constraint;
pub(crate) mod demand;
mod explain;
pub(crate) mod fleet;
pub(crate) mod generic;
mod group;
mod pool;
mod why;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use herder_model::swarm::{Change, GenericResource, TaskRecord, TaskState, Time, View};

use demand::{Conditions, Demand, HostPort, host_ports};
use fleet::{Host, HostNo, NO_SERVICE, ServiceNo, Waiting};
use generic::Claims;
use group::Placing;
use pool::Pool;

pub use constraint::Constraint;
pub use demand::{Filter, eligible};
pub use fleet::Fleet;
pub use why::{NodeWhy, Refused, Why, why};

/// Result of a run of the scheduler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placed {
    /// Tasks that got a node, and tasks that still have none for another reason than before.
    pub changes: Vec<Change>,
    /// The limit was reached: there may be more to do once this is written.
    pub more: bool,
}

/// Places the tasks of a view that wait for a node.
pub fn schedule(view: &View, now: Time) -> Placed {
    Fleet::of(view).schedule(now)
}

impl Fleet {
    /// Places all tasks that wait for a node.
    pub fn schedule(&self, now: Time) -> Placed {
        self.schedule_up_to(now, usize::MAX)
    }

    /// Places at most `limit` tasks. A command of the store has a maximum size, and the first can be on their way
    /// meanwhile. Tasks without a fitting node do not count.
    pub fn schedule_up_to(&self, now: Time, limit: usize) -> Placed {
        if !self.is_waited_for() {
            return Placed::default();
        }
        let mut run = Run::new(self, now, limit);
        run.confirm_preassigned();
        run.place_waiting();
        let more = run.left == 0;
        Placed { changes: run.changes, more }
    }
}

/// Position of a node in the order of ids.
type Rank = u32;
const NO_RANK: Rank = Rank::MAX;

/// Tasks that are looked at together at least: the nodes are looked through for each such lot.
const WINDOW_MIN: usize = 1_000;

/// The fleet as it becomes while tasks are placed. What is counted for each node is apart from the node, so that the little
/// that is read for each task lies close together.
struct Run<'f> {
    fleet: &'f Fleet,
    now: Time,
    at: String,
    /// Tasks that may still be placed.
    left: usize,
    hosts: Vec<&'f Host>,
    /// Ranks by [`HostNo`].
    ranks: Vec<Rank>,
    load: Vec<u32>,
    nano_cpus: Vec<i64>,
    memory_bytes: Vec<i64>,
    /// Ports assigned in this run.
    ports: HashMap<Rank, Vec<HostPort>>,
    /// Claimed resources of nodes where some were assigned in this run.
    claims: HashMap<Rank, Claims>,
    /// Nodes of the tasks placed in this run, by service.
    placed: HashMap<ServiceNo, Vec<Rank>>,
    changes: Vec<Change>,
}

/// Tasks that fit on the same nodes.
struct Class<'f> {
    conditions: Conditions,
    groups: Vec<Group<'f>>,
}

/// Tasks of one service and version, or tasks without a service that ask for the same.
struct Group<'f> {
    service: ServiceNo,
    version: u64,
    ports: Vec<HostPort>,
    tasks: Vec<&'f Arc<TaskRecord>>,
}

impl<'f> Group<'f> {
    fn service_id(&self) -> &'f str {
        self.tasks.first().map_or("", |record| &record.task.service_id)
    }
}

/// The message of a task that got its node from the scheduler.
const ASSIGNED: &str = "scheduler assigned task to node";
/// The message of a task that had its node before.
const CONFIRMED: &str = "scheduler confirmed task can run on preassigned node";

impl<'f> Run<'f> {
    fn new(fleet: &'f Fleet, now: Time, limit: usize) -> Run<'f> {
        let hosts: Vec<&'f Host> = fleet.order().iter().map(|number| &fleet.hosts()[*number as usize]).collect();
        let mut ranks = vec![NO_RANK; fleet.hosts().len()];
        for (rank, number) in (0..).zip(fleet.order()) {
            ranks[*number as usize] = rank;
        }
        Run {
            fleet,
            now,
            at: now.to_string(),
            left: limit,
            load: hosts.iter().map(|host| host.taken.active).collect(),
            nano_cpus: hosts.iter().map(|host| host.left().0).collect(),
            memory_bytes: hosts.iter().map(|host| host.left().1).collect(),
            hosts,
            ranks,
            ports: HashMap::new(),
            claims: HashMap::new(),
            placed: HashMap::new(),
            changes: Vec::new(),
        }
    }

    /// Tasks of global services have their nodes; it is only seen whether they fit there.
    fn confirm_preassigned(&mut self) {
        let mut known: HashMap<Demand<'f>, Conditions> = HashMap::new();
        let mut confirmed: HashMap<(ServiceNo, Rank), u32> = HashMap::new();
        for record in self.fleet.preassigned() {
            if self.left == 0 {
                return;
            }
            let task = &record.task;
            let rank = self.fleet.number_of(&task.node_id).map(|number| self.ranks[number as usize]);
            let Some(rank) = rank.filter(|rank| *rank != NO_RANK) else { continue };
            let demand = Demand::of(record, self.fleet.encrypted());
            let conditions = known.entry(demand).or_insert_with_key(Conditions::of);
            let (service, ports) = (self.fleet.service_no(&task.service_id), host_ports(record));
            let count = || {
                let number = self.fleet.order()[rank as usize];
                self.fleet.count_of(service, number) + confirmed.get(&(service, rank)).copied().unwrap_or_default()
            };
            if let Some(filter) = self.refused(conditions, &ports, rank, count) {
                self.still_waiting(record, &filter.sentence(1).to_string());
            } else if let Some(claimed) = self.take(conditions, &ports, rank) {
                if conditions.max_replicas > 0 {
                    *confirmed.entry((service, rank)).or_default() += 1;
                }
                self.placed.entry(service).or_default().push(rank);
                self.assign(record, rank, claimed, CONFIRMED);
            }
        }
    }

    /// Looks at no more of what waits than it may place, as long as there are nodes for it.
    fn place_waiting(&mut self) {
        let mut waiting = self.fleet.waiting().iter();
        while self.left > 0 {
            let window: Vec<&Waiting> = waiting.by_ref().take(self.left.max(WINDOW_MIN)).collect();
            if window.is_empty() {
                return;
            }
            self.place_window(&window);
        }
    }

    fn place_window(&mut self, window: &[&'f Waiting]) {
        let classes = classes(window, self.fleet.encrypted());
        let mut refused: Vec<(usize, usize, usize)> = Vec::new();
        for (class_no, class) in classes.iter().enumerate() {
            let mut pool = Pool::new(self, &class.conditions);
            for (group_no, group) in class.groups.iter().enumerate() {
                let placed = Placing::new(self, &mut pool, &class.conditions, group).place();
                if self.left == 0 {
                    return;
                }
                if placed < group.tasks.len() {
                    refused.push((class_no, group_no, placed));
                }
            }
        }
        self.explain(&classes, &refused);
    }

    /// The first filter that refuses the node now. `count` says how many tasks of the service the node has.
    fn refused(
        &self,
        conditions: &Conditions,
        ports: &[HostPort],
        rank: Rank,
        count: impl FnOnce() -> u32,
    ) -> Option<Filter> {
        let host = self.hosts[rank as usize];
        let refused = conditions.refused(host.record.as_ref()?, host.available, || self.has_room(conditions, rank));
        if refused.is_some() {
            refused
        } else if self.is_taken(ports, rank) {
            Some(Filter::HostPorts)
        } else if conditions.max_replicas > 0 && u64::from(count()) >= conditions.max_replicas {
            Some(Filter::MaxReplicas)
        } else {
            None
        }
    }

    fn has_room(&self, conditions: &Conditions, rank: Rank) -> bool {
        let (asked, at) = (&conditions.reserved, rank as usize);
        let fits = |asked: i64, left: i64| asked <= 0 || asked <= left;
        fits(asked.nano_cpus, self.nano_cpus[at])
            && fits(asked.memory_bytes, self.memory_bytes[at])
            && (conditions.generics().is_empty() || self.claim(conditions, rank).is_some())
    }

    fn claim(&self, conditions: &Conditions, rank: Rank) -> Option<Vec<GenericResource>> {
        if conditions.generics().is_empty() {
            return Some(Vec::new());
        }
        let host = self.hosts[rank as usize];
        let has = &host.record.as_ref()?.description().resources.generic_resources;
        let held = self.claims.get(&rank).unwrap_or(&host.taken.claims);
        generic::claim(has, held, conditions.generics())
    }

    fn is_taken(&self, ports: &[HostPort], rank: Rank) -> bool {
        if ports.is_empty() {
            return false;
        }
        let before = &self.hosts[rank as usize].taken.ports;
        let now = self.ports.get(&rank);
        ports.iter().any(|port| before.contains_key(port) || now.is_some_and(|now| now.contains(port)))
    }

    /// Nodes with active tasks of the service; one may come several times.
    fn counts_of(&self, service: ServiceNo) -> impl Iterator<Item = (Rank, u32)> {
        let rank = |number: HostNo| self.ranks[number as usize];
        let before = self.fleet.counts_of(service).map(move |(number, count)| (rank(number), count));
        let now = self.placed.get(&service).filter(|_| service != NO_SERVICE);
        let now = now.into_iter().flatten().map(|rank| (*rank, 1));
        before.filter(|(rank, _)| *rank != NO_RANK).chain(now)
    }

    /// Takes what the task asks for from the node, and says which generic resources it got.
    fn take(&mut self, conditions: &Conditions, ports: &[HostPort], rank: Rank) -> Option<Vec<GenericResource>> {
        let claimed = self.claim(conditions, rank)?;
        let at = rank as usize;
        if !claimed.is_empty() {
            let host = self.hosts[at];
            self.claims.entry(rank).or_insert_with(|| host.taken.claims.clone()).add(&claimed);
        }
        if !ports.is_empty() {
            self.ports.entry(rank).or_default().extend(ports);
        }
        self.load[at] += 1;
        self.nano_cpus[at] -= conditions.reserved.nano_cpus;
        self.memory_bytes[at] -= conditions.reserved.memory_bytes;
        self.left -= 1;
        Some(claimed)
    }

    fn assign(&mut self, record: &TaskRecord, rank: Rank, claimed: Vec<GenericResource>, message: &str) {
        let Some(node) = &self.hosts[rank as usize].record else { return };
        let mut record = record.clone();
        let task = &mut record.task;
        task.node_id.clone_from(&node.node.id);
        task.generic_resources = claimed;
        task.status.state = TaskState::Assigned;
        task.status.timestamp.clone_from(&self.at);
        message.clone_into(&mut task.status.message);
        task.status.err.clear();
        record.applied_at = self.now;
        self.changes.push(record.into());
    }

    /// The task goes on waiting. Nothing is written if it is known why.
    fn still_waiting(&mut self, record: &TaskRecord, why: &str) {
        if record.task.status.err == why {
            return;
        }
        let mut record = record.clone();
        let status = &mut record.task.status;
        status.timestamp.clone_from(&self.at);
        why.clone_into(&mut status.err);
        self.changes.push(record.into());
    }
}

/// Classes in the order of their first groups. Tasks of one service and version ask for the same; others are asked one by one.
fn classes<'f>(window: &[&'f Waiting], encrypted: &BTreeSet<String>) -> Vec<Class<'f>> {
    let mut classes: Vec<Class<'f>> = Vec::new();
    let mut numbers: HashMap<Demand<'f>, usize> = HashMap::new();
    let mut last_class = 0;
    for waiting in window {
        let (service, version, record) = (waiting.service, waiting.version, &waiting.record);
        let last = classes.get_mut(last_class).and_then(|class| class.groups.last_mut());
        let alike = |last: &Group<'_>| {
            service != NO_SERVICE && version != 0 && (last.service, last.version) == (service, version)
        };
        if let Some(last) = last
            && alike(last)
        {
            last.tasks.push(record);
            continue;
        }
        let class_no = *numbers.entry(Demand::of(record, encrypted)).or_insert_with_key(|demand| {
            classes.push(Class { conditions: Conditions::of(demand), groups: Vec::new() });
            classes.len() - 1
        });
        let (ports, groups) = (host_ports(record), &mut classes[class_no].groups);
        last_class = class_no;
        match groups.last_mut() {
            Some(last) if service == NO_SERVICE && last.service == service && last.ports == ports => {
                last.tasks.push(record);
            }
            _ => groups.push(Group { service, version, ports, tasks: vec![record] }),
        }
    }
    classes
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
