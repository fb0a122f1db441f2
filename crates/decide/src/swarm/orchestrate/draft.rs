//! The tasks of one service while it is decided what becomes of them.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use herder_model::swarm::{
    Availability, Change, Kind, NodeRecord, ServiceRecord, SwarmNodeState, Task, TaskRecord, TaskSpec, TaskState,
    TaskStatus, Time, Version, View,
};

use super::lost::{self, Releases};
use super::reconcile::{Key, Mode, Plan, ServiceChange, iteration};
use super::{reap, restart, update};
use crate::swarm::Ids;

/// Message of a new task.
pub(crate) const MESSAGE_PENDING: &str = "pending task scheduling";

/// Clocks of two managers may differ by so much without anything being written anew.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

pub(super) struct Draft<'a> {
    pub(super) view: &'a View,
    pub(super) now: Time,
    ids: &'a mut dyn Ids,
    tasks: BTreeMap<String, Arc<TaskRecord>>,
    /// Tasks in the order in which they were created, changed or removed.
    touched: Vec<String>,
    again: Option<Time>,
    releases: OnceCell<Releases>,
    /// Shared by all tasks that are made.
    spec: OnceCell<Arc<TaskSpec>>,
    /// Creation time of the last task of each slot, once one is created.
    latest: BTreeMap<Key, Time>,
}

/// Fitness of a task's present place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Fine,
    /// Its node is gone, or down, and it is its turn to be replaced.
    Lost,
    /// Its node gives its tasks away.
    Drained,
}

impl<'a> Draft<'a> {
    pub(super) fn new(view: &'a View, service_id: &str, now: Time, ids: &'a mut dyn Ids) -> Draft<'a> {
        let tasks = view.tasks_of_service(service_id).map(|it| (it.task.id.clone(), Arc::clone(it))).collect();
        let (releases, spec) = (OnceCell::new(), OnceCell::new());
        Draft { view, now, ids, tasks, touched: Vec::new(), again: None, releases, spec, latest: BTreeMap::new() }
    }

    pub(super) fn tasks(&self) -> impl Iterator<Item = &Arc<TaskRecord>> {
        self.tasks.values()
    }

    pub(super) fn task(&self, id: &str) -> Option<&Arc<TaskRecord>> {
        self.tasks.get(id)
    }

    pub(super) fn ids_where(&self, mut holds: impl FnMut(&TaskRecord) -> bool) -> Vec<String> {
        self.tasks.values().filter(|it| holds(it)).map(|it| it.task.id.clone()).collect()
    }

    /// Tasks by what they belong to, in the order in which they were made.
    pub(super) fn by_key(&self, mode: Mode) -> BTreeMap<Key, Vec<Arc<TaskRecord>>> {
        let mut keys: BTreeMap<Key, Vec<Arc<TaskRecord>>> = BTreeMap::new();
        for task in self.tasks.values() {
            keys.entry(key(mode, task)).or_default().push(Arc::clone(task));
        }
        for tasks in keys.values_mut() {
            tasks.sort_by(|a, b| (a.made_at, &a.task.id).cmp(&(b.made_at, &b.task.id)));
        }
        keys
    }

    pub(super) fn node(&self, id: &str) -> Option<&'a Arc<NodeRecord>> {
        self.view.nodes.get(id)
    }

    /// A node that is down or gone does nothing that one could wait for.
    pub(super) fn answers(&self, node: &str) -> bool {
        self.node(node).is_some_and(|it| it.node.status.state != SwarmNodeState::Down)
    }

    /// A node that may still run what it is not asked for any more. One that is down may for a while: its own tasks are then
    /// replaced already, save those that must never run twice.
    pub(super) fn may_run(&mut self, node: &str) -> bool {
        let Some(node) = self.node(node) else { return false };
        let is_down = node.node.status.state == SwarmNodeState::Down;
        !is_down || !node.fenced_off && !self.due(node.state_since + reap::NODE_DOWN_MAX)
    }

    pub(super) fn place(&mut self, task: &TaskRecord) -> Place {
        let id = &task.task.node_id;
        if id.is_empty() {
            return Place::Fine;
        }
        let Some(node) = self.node(id) else { return Place::Lost };
        if node.node.spec.availability == Availability::Drain {
            return Place::Drained;
        }
        if node.node.status.state != SwarmNodeState::Down {
            return Place::Fine;
        }
        let at = self.releases.get_or_init(|| lost::releases(self.view, self.now)).get(id).copied().unwrap_or(self.now);
        if self.due(at) { Place::Lost } else { Place::Fine }
    }

    /// True if the time has come; if not, it is looked at again then.
    pub(super) fn due(&mut self, at: Time) -> bool {
        if at > self.now {
            self.again = Some(self.again.map_or(at, |again| again.min(at)));
        }
        at <= self.now
    }

    pub(super) fn edit(&mut self, id: &str, edit: impl FnOnce(&mut TaskRecord)) {
        if let Some(task) = self.tasks.get_mut(id) {
            edit(Arc::make_mut(task));
            self.touched.push(id.to_owned());
        }
    }

    /// Limits times that a leader with another clock wrote, or that were written before a clock went back. Whatever
    /// clocks do, no wait is longer than declared.
    pub(super) fn settle_times(&mut self, service: &ServiceRecord) {
        let (now, late) = (self.now, self.now + CLOCK_TOLERANCE);
        let is_rolling = update::is_active(service);
        for id in self.ids_where(|it| {
            it.made_at > late || it.not_before > Some(late) || it.running_since > Some(late) || it.applied_at > late
        }) {
            let Some(task) = self.task(&id).cloned() else { continue };
            let wait_max = restart::wait_max(&task);
            let begins = task.not_before.unwrap_or(task.made_at);
            if is_wanted(&task) && !is_running(&task) && begins > late + wait_max {
                self.edit(&id, |it| it.not_before = Some(now + wait_max));
            }
            if is_rolling && update::is_watched(&task, service) {
                self.edit(&id, |it| {
                    it.running_since = it.running_since.map(|at| at.min(now));
                    it.applied_at = it.applied_at.min(now);
                });
            }
        }
    }

    /// A desired state only goes forward.
    pub(super) fn want(&mut self, id: &str, desired: TaskState) {
        if self.task(id).is_some_and(|it| it.task.desired_state < desired) {
            self.edit(id, |it| it.task.desired_state = desired);
        }
    }

    pub(super) fn forget(&mut self, id: &str) {
        if self.tasks.remove(id).is_some() {
            self.touched.push(id.to_owned());
        }
    }

    /// Makes a task that is later than all others of its slot.
    pub(super) fn make(&mut self, service: &ServiceRecord, key: &Key, desired: TaskState) -> String {
        let mode = Mode::of(&service.service.spec.mode);
        let made_at = self.next_time(mode, key);
        let (slot, node_id) = match key {
            Key::Slot(number) => (*number, String::new()),
            Key::Node(id) => (0, id.clone()),
        };
        let task = Task {
            id: self.ids.id(),
            labels: Some(BTreeMap::new()),
            spec: self.spec(service),
            service_id: service.service.id.clone(),
            slot,
            node_id,
            status: TaskStatus {
                timestamp: self.now.to_string(),
                state: TaskState::Pending,
                message: MESSAGE_PENDING.into(),
                ..TaskStatus::default()
            },
            desired_state: desired,
            job_iteration: mode.is_job().then(|| Version { index: iteration(service) }),
            ..Task::default()
        };
        let id = task.id.clone();
        let defaults = self.view.cluster.as_ref().map(|it| &it.cluster.spec.task_defaults);
        let record = TaskRecord {
            task,
            service_name: service.service.spec.name.clone(),
            spec_version: service.spec_version,
            ports: service.service.spec.endpoint_spec.as_ref().map(|it| it.ports.clone()).unwrap_or_default(),
            endpoint_mode: endpoint_mode(service).into(),
            applied_at: self.now,
            made_at,
            log_driver: defaults.and_then(|it| it.log_driver.clone()),
            ..TaskRecord::default()
        };
        self.tasks.insert(id.clone(), Arc::new(record));
        self.touched.push(id.clone());
        id
    }

    fn next_time(&mut self, mode: Mode, key: &Key) -> Time {
        if self.latest.is_empty() {
            for task in self.tasks.values() {
                let latest = self.latest.entry(self::key(mode, task)).or_default();
                *latest = task.made_at.max(*latest);
            }
        }
        let time = self.latest.get(key).map_or(self.now, |last| self.now.max(Time(last.0 + 1)));
        self.latest.insert(key.clone(), time);
        time
    }

    /// The specification as tasks show it. One that is there already is shared.
    fn spec(&self, service: &ServiceRecord) -> Arc<TaskSpec> {
        let shared = || self.tasks.values().find(|it| it.spec_version == service.spec_version);
        let spec = self.spec.get_or_init(|| match shared() {
            Some(task) => Arc::clone(&task.task.spec),
            None => Arc::new(task_spec(&service.service.spec.task_template)),
        });
        Arc::clone(spec)
    }

    pub(super) fn plan(self, service: Option<ServiceChange>) -> Plan {
        let mut changes: Vec<Change> = Vec::new();
        let mut seen = BTreeSet::new();
        for id in &self.touched {
            if !seen.insert(id) {
                continue;
            }
            match (self.view.tasks.get(id), self.tasks.get(id)) {
                (Some(before), Some(after)) if before == after => {}
                (_, Some(after)) => changes.push(TaskRecord::clone(after).into()),
                (Some(_), None) => changes.push(Change::Remove(Kind::Task, id.clone())),
                (None, None) => {}
            }
        }
        changes.extend(service.map(|it| match it {
            ServiceChange::Status(record) => record.into(),
            ServiceChange::Spec(record) => Change::PutSpec(Arc::new(record)),
        }));
        Plan { changes, again: self.again }
    }
}

pub(crate) fn key(mode: Mode, task: &TaskRecord) -> Key {
    if mode.is_global() { Key::Node(task.task.node_id.clone()) } else { Key::Slot(task.task.slot) }
}

/// Returns the resolution mode of the service's name; empty for the usual one, a virtual IP.
pub(super) fn endpoint_mode(service: &ServiceRecord) -> &str {
    match service.service.spec.endpoint_spec.as_ref().map_or("", |it| &it.mode) {
        "vip" => "",
        other => other,
    }
}

/// Swarm mode's tasks do not name the runtime that their service names.
fn task_spec(template: &TaskSpec) -> TaskSpec {
    let runtime = if template.runtime == "container" { String::new() } else { template.runtime.clone() };
    TaskSpec { runtime, ..template.clone() }
}

/// Wanted: to run, to wait for its turn or, in a job, to complete.
pub(crate) fn is_wanted(task: &TaskRecord) -> bool {
    task.task.desired_state <= TaskState::Complete
}

/// True if the task has ended in any way.
pub(crate) fn is_dead(task: &TaskRecord) -> bool {
    task.task.status.state > TaskState::Running
}

/// True if the task ended by itself: not by an order, and not with its node.
pub(crate) fn ended_by_itself(task: &TaskRecord) -> bool {
    matches!(task.task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

/// Its node has it, or had it last.
pub(super) fn is_on_node(task: &TaskRecord) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&task.task.status.state)
}

pub(crate) fn is_running(task: &TaskRecord) -> bool {
    task.task.status.state == TaskState::Running
}
