//! A simulated cluster: a store, a scheduler that takes any node, obedient nodes, and time.

use std::collections::BTreeSet;

use herder_model::swarm::{
    Availability, Change, Command, Kind, NodeRecord, Object, ServiceRecord, ServiceSpec, SwarmNodeState, TaskRecord,
    TaskState, TaskStatus, Time, Version, View,
};

use super::notation::{SECOND, write};
use crate::swarm::orchestrate::draft::{Draft, is_dead, is_on_node, is_wanted, key};
use crate::swarm::orchestrate::reconcile::{Key, Mode, iteration, reconcile};
use crate::swarm::orchestrate::update;
use crate::swarm::{is_dirty, matters, on_task_report};

/// Twice as many plans at one time are a service that does not come to rest.
const STEPS_MAX: usize = 3;

/// An image whose containers end as soon as they are started.
pub(super) const BROKEN: &str = "broken";

#[derive(Debug)]
pub(super) struct World {
    pub(super) view: View,
    pub(super) now: Time,
    pub(super) again: Option<Time>,
    ids: u64,
    /// Something was written that may have something follow, since all was done that was to be done.
    mattered: bool,
    /// Log of events, to be shown with a failure.
    pub(super) story: Vec<String>,
}

impl World {
    pub(super) fn new(nodes: usize) -> World {
        let (view, now) = (View::default(), Time(1000 * SECOND));
        let mut world = World { view, now, again: None, ids: 1_000_000, mattered: true, story: Vec::new() };
        (0..nodes).for_each(|number| world.add_node(number));
        world
    }

    fn write(&mut self, changes: Vec<Change>) {
        let before = self.view.clone();
        let command = Command { at: self.now, changes };
        let written = self.view.apply(self.view.index + 1, &command).expect("nobody else writes");
        for it in &written {
            forward(&before, it.before.as_ref(), it.after.as_ref(), &self.story);
            self.mattered |= match (&it.before, &it.after) {
                (Some(Object::Task(before)), Some(Object::Task(after))) => {
                    matters(&self.view, Some(before), Some(after))
                }
                _ => true,
            };
        }
    }

    pub(super) fn add_node(&mut self, number: usize) {
        let mut record = NodeRecord::default();
        record.node.id = format!("node{number}");
        if !self.view.nodes.contains_key(&record.node.id) {
            record.node.status.state = SwarmNodeState::Ready;
            self.write(vec![record.into()]);
        }
    }

    pub(super) fn node(&mut self, number: usize, edit: impl FnOnce(&mut NodeRecord)) {
        let Some(node) = self.view.nodes.get(&format!("node{number}")) else { return };
        let mut record = NodeRecord::clone(node);
        let state = record.node.status.state;
        edit(&mut record);
        if record.node.status.state != state {
            record.state_since = self.now;
        }
        self.write(vec![record.into()]);
    }

    pub(super) fn is_off(&self, number: usize) -> bool {
        self.view.nodes.get(&format!("node{number}")).is_some_and(|it| it.fenced_off)
    }

    /// All tasks of the node have ended.
    pub(super) fn fail_all(&mut self, number: usize) {
        let view = self.view.clone();
        for task in view.tasks_of_node(&format!("node{number}")) {
            self.report(task, TaskState::Failed);
        }
    }

    /// Checks that no slot runs twice, on nodes that may not have stopped it.
    pub(super) fn no_slot_runs_twice(&self) {
        let runs = |it: &TaskRecord| (TaskState::Starting..=TaskState::Running).contains(&it.task.status.state);
        let may = |id: &str| self.view.nodes.get(id).is_some_and(|it| !it.fenced_off);
        let mut slots = BTreeSet::new();
        for task in self.view.tasks.values().filter(|it| runs(it) && may(&it.task.node_id)) {
            assert!(slots.insert(task.task.slot), "slot {} runs twice: {:#?}", task.task.slot, self.story);
        }
    }

    pub(super) fn remove(&mut self, kind: Kind, id: &str) {
        self.write(vec![Change::Remove(kind, id.into())]);
    }

    pub(super) fn service(&self) -> Option<&ServiceRecord> {
        self.view.services.get("web").map(AsRef::as_ref)
    }

    pub(super) fn mode(&self) -> Option<Mode> {
        self.service().map(|it| Mode::of(&it.service.spec.mode))
    }

    /// Declares a service, or declares it again, as the control API does.
    pub(super) fn declare(&mut self, spec: ServiceSpec) {
        let mut record = self.service().cloned().unwrap_or_default();
        if !record.service.id.is_empty() {
            record.service.previous_spec = Some(record.service.spec.clone());
        }
        record.service.id = "web".into();
        record.service.spec = spec;
        record.service.update_status = None;
        if Mode::of(&record.service.spec.mode).is_job() {
            let status = record.service.job_status.get_or_insert_default();
            status.job_iteration = Version { index: status.job_iteration.index + 1 };
        }
        self.write(vec![Change::PutSpec(record.into())]);
    }

    /// Plans and applies the plan until nothing is left to do at this time, as the leader does. Mostly nothing is left
    /// after the first time.
    pub(super) fn settle(&mut self) {
        let before = self.again;
        let quiet = !self.mattered && before.is_none_or(|at| at > self.now);
        let first = self.plan();
        assert!(!quiet || first.is_empty(), "what did not matter has something follow: {:#?}", self.story);
        let late = self.again.is_some_and(|needed| before.is_none_or(|at| at > needed));
        assert!(!quiet || !late, "what did not matter is due earlier: {:#?}", self.story);
        let mut again = None;
        let is_settled = (0..STEPS_MAX).any(|_| {
            again = self.again;
            self.plan().is_empty()
        });
        assert!(is_settled, "there is more to do: {:#?}", self.story);
        assert!(self.again.is_none_or(|needed| again.is_some_and(|at| at <= needed)), "too late: {:#?}", self.story);
        self.mattered = false;
        self.hold();
    }

    fn plan(&mut self) -> Vec<Change> {
        let (view, now) = (self.view.clone(), self.now);
        let plan = reconcile(&view, "web", now, &mut || {
            // The order of ids says nothing.
            self.ids -= 1;
            format!("t{:06}", self.ids)
        });
        assert!(plan.again.is_none_or(|at| at > now), "again is later: {:#?}", self.story);
        self.story.extend(write(&view, &plan).into_iter().map(|line| format!("    {line}")));
        self.again = plan.again;
        if !plan.changes.is_empty() {
            self.write(plan.changes.clone());
        }
        plan.changes
    }

    /// Checks the invariants after planning.
    fn hold(&self) {
        let Some(mode) = self.mode() else { return };
        let mut ids = || String::new();
        let draft = Draft::new(&self.view, "web", self.now, &mut ids);
        let keys = draft.by_key(mode);
        let mut slots = 0;
        for (key, tasks) in &keys {
            let wanted: Vec<_> = tasks.iter().filter(|it| is_wanted(it)).collect();
            let running = wanted.iter().filter(|it| it.task.status.state == TaskState::Running).count();
            assert!(running <= 1, "{running} run in slot {key}: {:#?}", self.story);
            assert!(wanted.len() <= 2, "{} are wanted in slot {key}: {:#?}", wanted.len(), self.story);
            let ahead = tasks.iter().filter(|it| it.ahead && !is_dead(it));
            assert!(ahead.clone().count() <= 1, "{key} is prepared for twice: {:#?}", self.story);
            let begun = ahead.filter(|it| it.task.status.state > TaskState::Ready).count();
            assert!(begun == 0, "a task begins before its turn in slot {key}: {:#?}", self.story);
            slots += u64::from(!wanted.is_empty());
        }
        if let Mode::Replicated(replicas) = mode {
            assert!(slots <= replicas, "{slots} slots of {replicas} are in use: {:#?}", self.story);
        }
    }

    /// Gives each task that waits for a node the next one that takes tasks.
    pub(super) fn schedule(&mut self) {
        let takes = |it: &NodeRecord| {
            it.node.status.state == SwarmNodeState::Ready && it.node.spec.availability == Availability::Active
        };
        let nodes: Vec<String> = self.view.nodes.values().filter(|it| takes(it)).map(|it| it.node.id.clone()).collect();
        let pending = self.view.tasks.values().filter(|it| it.task.status.state == TaskState::Pending && is_wanted(it));
        let mut changes = vec![];
        for (at, task) in pending.enumerate() {
            let mut task = TaskRecord::clone(task);
            if task.task.node_id.is_empty() && !nodes.is_empty() {
                task.task.node_id.clone_from(&nodes[(at + self.view.tasks.len()) % nodes.len()]);
            }
            if nodes.contains(&task.task.node_id) {
                task.task.status = status(TaskState::Assigned);
                task.applied_at = self.now;
                changes.push(task.into());
            }
        }
        self.write(changes);
    }

    /// The node of a task goes one step on with it. Whether there was one to go.
    pub(super) fn step(&mut self, id: &str) -> bool {
        let Some(task) = self.view.tasks.get(id).cloned() else { return false };
        let image = task.task.spec.container_spec.as_ref().map_or("", |it| &it.image);
        let job = self.mode().is_some_and(Mode::is_job);
        let next = match (task.task.status.state, task.task.desired_state) {
            (state, desired) if is_on_node(&task) && !is_wanted(&task) && state <= desired => TaskState::Shutdown,
            (TaskState::Assigned, _) => TaskState::Preparing,
            (TaskState::Preparing, _) => TaskState::Ready,
            (TaskState::Ready, TaskState::Running | TaskState::Complete) => TaskState::Starting,
            (TaskState::Starting, _) if image == BROKEN => TaskState::Failed,
            (TaskState::Starting, _) => TaskState::Running,
            (TaskState::Running, _) if job => TaskState::Complete,
            _ => return false,
        };
        self.report(&task, next)
    }

    pub(super) fn report(&mut self, task: &TaskRecord, state: TaskState) -> bool {
        let node = &task.task.node_id;
        let answers = self.view.nodes.get(node).is_some_and(|it| it.node.status.state == SwarmNodeState::Ready);
        let change = on_task_report(&self.view, &task.task.id, status(state), node, self.now);
        let Some(change) = change.filter(|_| answers) else { return false };
        self.story.push(format!("{} on {node} is {state:?}", task.task.id));
        self.write(vec![change]);
        true
    }

    pub(super) fn tasks(&self) -> Vec<String> {
        self.view.tasks.keys().map(ToString::to_string).collect()
    }

    pub(super) fn advance(&mut self, seconds: u64) {
        self.now = Time(self.now.0 + seconds * SECOND);
        self.story.push(format!("{}", self.now.0 / SECOND));
    }

    /// Lets all nodes work, and time go on to whatever is due, until nothing is left.
    pub(super) fn run_down(&mut self) {
        const ROUNDS: usize = 400;
        for _ in 0..ROUNDS {
            self.settle();
            self.schedule();
            let ids = self.tasks();
            if ids.iter().filter(|id| self.step(id)).count() > 0 {
                self.settle();
                continue;
            }
            // What is due in a day is not waited for.
            match self.again.filter(|at| at.since(self.now).as_secs() < 3600) {
                Some(again) => {
                    self.now = again;
                    self.story.push(format!("{}", again.0 / SECOND));
                }
                None => return,
            }
        }
        panic!("it never ends: {:#?}", self.story);
    }

    /// Slots of tasks that are wanted and are where they shall be.
    pub(super) fn good(&self) -> Vec<Key> {
        let Some((service, mode)) = self.service().zip(self.mode()) else { return vec![] };
        let this_run = |it: &TaskRecord| it.task.job_iteration.map_or(0, |it| it.index) == iteration(service);
        let good = |it: &TaskRecord| is_wanted(it) && this_run(it) && it.task.status.state == mode.target();
        let mut keys: Vec<Key> = self.view.tasks.values().filter(|it| good(it)).map(|it| key(mode, it)).collect();
        keys.sort();
        keys
    }

    /// Checks the invariants of a settled cluster. No update is left, nothing is to be removed, and all is as declared.
    pub(super) fn converged(&self) -> Vec<Key> {
        let service = self.service().expect("a service");
        assert!(!update::is_active(service), "the update has not ended: {:#?}", self.story);
        for task in self.view.tasks.values() {
            let id = &task.task.id;
            assert!(task.task.desired_state != TaskState::Remove, "{id} is still there: {:#?}", self.story);
            let node = self.view.nodes.get(&task.task.node_id).map(AsRef::as_ref);
            assert!(!is_wanted(task) || !is_dirty(service, task, node), "{id} is out of date: {:#?}", self.story);
        }
        self.good()
    }
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus { state, ..TaskStatus::default() }
}

/// A task never goes back, and is not forgotten while its node has it.
fn forward(
    view: &View,
    before: Option<&herder_model::swarm::Object>,
    after: Option<&herder_model::swarm::Object>,
    story: &[String],
) {
    use herder_model::swarm::Object::Task;
    match (before, after) {
        (Some(Task(before)), Some(Task(after))) => {
            let id = &before.task.id;
            assert!(before.task.desired_state <= after.task.desired_state, "{id} is wanted again: {story:#?}");
            assert!(before.task.status.state <= after.task.status.state, "{id} goes back: {story:#?}");
        }
        (Some(Task(before)), None) => {
            let node = view.nodes.get(&before.task.node_id);
            let answers = node.is_some_and(|it| it.node.status.state != SwarmNodeState::Down);
            assert!(!(is_on_node(before) && answers), "{} is forgotten too early: {story:#?}", before.task.id);
        }
        _ => {}
    }
}
