//! Assignments for nodes after writes: first all of them, then the changes, without a walk over their tasks.
//!
//! Noted is only which tasks to look at; what is said of them is read from the view when it is said. So nothing is lost when
//! writes come in between, and what is noted twice is said once.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use herder_model::swarm::{
    AssignmentChanges, Assignments, Kind, ServiceFacts, ServiceRecord, TaskRecord, View, is_told, needs,
};

/// Possible changes for a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// All of it, as at the start of a session.
    pub whole: bool,
    tasks: BTreeSet<String>,
    /// Services of which nodes know something else.
    services: BTreeSet<String>,
    /// A task needs nothing any more: what went with it may not be needed at all.
    ended: bool,
}

impl Touched {
    pub fn whole() -> Touched {
        Touched { whole: true, ..Touched::default() }
    }
}

/// Possible changes by node.
pub type TouchedNodes = BTreeMap<String, Touched>;

/// Notes what a write of a task means to the nodes that had it, or have it now.
pub fn touch(nodes: &mut TouchedNodes, before: Option<&TaskRecord>, after: Option<&TaskRecord>) {
    let theirs = |it: &&TaskRecord| is_told(it) && !it.task.node_id.is_empty();
    let (before, after) = (before.filter(theirs), after.filter(theirs));
    if let (Some(before), Some(after)) = (before, after)
        && before.task.node_id == after.task.node_id
    {
        let runs = |it: &TaskRecord| needs(&it.task).next().is_some();
        if before.task.desired_state != after.task.desired_state
            || before.attached != after.attached
            || !runs(before) && runs(after)
        {
            nodes.entry(after.task.node_id.clone()).or_default().tasks.insert(after.task.id.clone());
        } else if runs(before) && !runs(after) {
            nodes.entry(after.task.node_id.clone()).or_default().ended = true;
        }
        return;
    }
    for task in [before, after].into_iter().flatten().map(|it| &it.task) {
        nodes.entry(task.node_id.clone()).or_default().tasks.insert(task.id.clone());
    }
}

/// Notes what a write of a service means to the nodes of its tasks.
pub fn touch_service(nodes: &mut TouchedNodes, view: &View, before: &ServiceRecord, after: &ServiceRecord) {
    if ServiceFacts::of(before) == ServiceFacts::of(after) {
        return;
    }
    let id = &after.service.id;
    for task in view.tasks_of_service(id).filter(|it| is_told(it) && !it.task.node_id.is_empty()) {
        nodes.entry(task.task.node_id.clone()).or_default().services.insert(id.clone());
    }
}

/// Content already sent to a node in a session, as far as later messages depend on it.
#[derive(Debug, Default)]
pub struct SentAssignments {
    sequence: u64,
    /// Objects that its tasks need.
    needs: BTreeMap<Kind, BTreeSet<Box<str>>>,
}

impl SentAssignments {
    fn has(&self, kind: Kind, id: &str) -> bool {
        self.needs.get(&kind).is_some_and(|ids| ids.contains(id))
    }

    fn add(&mut self, kind: Kind, id: &str) {
        self.needs.entry(kind).or_default().insert(id.into());
    }

    /// All that `node` shall know, as the next state of its session.
    pub fn whole(&mut self, view: &View, node: &str) -> Assignments {
        self.sequence += 1;
        self.needs.clear();
        for task in view.tasks_of_node(node).filter(|it| is_told(it)) {
            needs(&task.task).for_each(|(kind, id)| self.add(kind, id));
        }
        Assignments { sequence: self.sequence, ..Assignments::of(view, node) }
    }

    /// Returns the changes for `node` among the touched objects. `None` if it has all of them.
    pub fn changes(&mut self, view: &View, node: &str, touched: &Touched) -> Option<AssignmentChanges> {
        let mut changes = AssignmentChanges { applies_to: self.sequence, ..AssignmentChanges::default() };
        let mut ended = touched.ended;
        for id in &touched.tasks {
            match view.tasks.get(id).filter(|it| it.task.node_id == node && is_told(it)) {
                Some(record) => {
                    let mut runs = false;
                    for (kind, id) in needs(&record.task) {
                        runs = true;
                        // What is known of a service may be of another time, if no task of it was here when that changed.
                        if kind == Kind::Service || !self.has(kind, id) {
                            self.add(kind, id);
                            bring(&mut changes, view, kind, id);
                        }
                    }
                    ended |= !runs;
                    changes.tasks.push(record.clone());
                }
                None => {
                    ended = true;
                    changes.removed.push((Kind::Task, id.clone()));
                }
            }
        }
        if ended {
            self.let_go(&mut changes, view, node);
        }
        for id in touched.services.iter().filter(|id| self.has(Kind::Service, id)) {
            bring(&mut changes, view, Kind::Service, id);
        }
        if changes.is_empty() {
            return None;
        }
        self.sequence += 1;
        changes.results_in = self.sequence;
        Some(changes)
    }

    /// Takes away what no task of the node needs any more.
    fn let_go(&mut self, changes: &mut AssignmentChanges, view: &View, node: &str) {
        let tasks = view.tasks_of_node(node).filter(|it| is_told(it));
        let needed: HashSet<(Kind, &str)> = tasks.flat_map(|it| needs(&it.task)).collect();
        for (kind, ids) in &mut self.needs {
            let gone = ids.extract_if(.., |id| !needed.contains(&(*kind, &**id)));
            changes.removed.extend(gone.map(|id| (*kind, id.into_string())));
        }
    }
}

fn bring(changes: &mut AssignmentChanges, view: &View, kind: Kind, id: &str) {
    match kind {
        Kind::Secret => changes.secrets.extend(view.secrets.get(id).cloned()),
        Kind::Config => changes.configs.extend(view.configs.get(id).cloned()),
        Kind::Service => {
            changes.services.extend(view.services.get(id).map(|it| (id.to_owned(), ServiceFacts::of(it))));
        }
        // No task needs such an object at its node.
        Kind::Cluster | Kind::Node | Kind::Task | Kind::Network | Kind::Resource(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use herder_model::swarm::{
        Change, Command, Config, ConfigRef, ContainerSpec, Object, Secret, SecretRef, TaskSpec, TaskState, Time,
        Written,
    };
    use proptest::prelude::*;

    use super::*;

    const NODES: [&str; 3] = ["", "a", "b"];
    const STATES: [TaskState; 4] = [TaskState::Pending, TaskState::Assigned, TaskState::Running, TaskState::Failed];
    const DESIRED: [TaskState; 3] = [TaskState::Running, TaskState::Shutdown, TaskState::Remove];

    /// A change of a task, or a message to a node.
    #[derive(Clone, Debug)]
    enum Event {
        Task {
            id: usize,
            node: usize,
            state: usize,
            desired: usize,
        },
        Forget(usize),
        /// A service gets another label.
        Label(usize, u8),
        Tell(usize),
        /// A message is lost on its way to this node.
        Lose(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        let task = (0..6_usize, 0..3_usize, 0..4_usize, 0..3_usize);
        prop_oneof![
            6 => task.prop_map(|(id, node, state, desired)| Event::Task { id, node, state, desired }),
            1 => (0..6_usize).prop_map(Event::Forget),
            1 => (0..2_usize, 0..3_u8).prop_map(|(id, value)| Event::Label(id, value)),
            3 => (1..3_usize).prop_map(Event::Tell),
            1 => (1..3_usize).prop_map(Event::Lose),
        ]
    }

    /// Task `n` uses secret `n % 3`, config `n % 2`, and is of service `n % 2`.
    fn task(view: &View, id: usize) -> TaskRecord {
        let name = format!("t{id}");
        if let Some(record) = view.tasks.get(&name) {
            return TaskRecord::clone(record);
        }
        let secrets = vec![SecretRef { secret_id: format!("s{}", id % 3), ..SecretRef::default() }];
        let configs = vec![ConfigRef { config_id: format!("c{}", id % 2), ..ConfigRef::default() }];
        let container = ContainerSpec { secrets, configs, ..ContainerSpec::default() };
        let mut record = TaskRecord::default();
        record.task.id = name;
        record.task.service_id = format!("web{}", id % 2);
        record.task.spec = Arc::new(TaskSpec { container_spec: Some(container), ..TaskSpec::default() });
        record
    }

    fn world() -> View {
        let secret = |id: usize| Object::Secret(Arc::new(Secret { id: format!("s{id}"), ..Secret::default() }));
        let config = |id: usize| Object::Config(Arc::new(Config { id: format!("c{id}"), ..Config::default() }));
        let service = |id: usize| {
            let mut record = ServiceRecord { registry_auth: format!("auth {id}"), ..ServiceRecord::default() };
            record.service.id = format!("web{id}");
            record.service.spec.name = format!("web{id}");
            Object::Service(Arc::new(record))
        };
        View::of(1, (0..3).map(secret).chain((0..2).map(config)).chain((0..2).map(service)))
    }

    fn write(view: &mut View, nodes: &mut [(Touched, &str)], change: Change) {
        let command = Command { at: Time(1), changes: vec![change] };
        for Written { before, after } in view.apply(view.index + 1, &command).expect("nobody else writes") {
            let mut touched = TouchedNodes::new();
            if let (Some(Object::Service(before)), Some(Object::Service(after))) = (&before, &after) {
                touch_service(&mut touched, view, before, after);
            }
            let [before, after] = [before, after].map(|it| match it {
                Some(Object::Task(it)) => Some(it),
                _ => None,
            });
            if before.is_some() || after.is_some() {
                touch(&mut touched, before.as_deref(), after.as_deref());
            }
            for (known, node) in nodes.iter_mut() {
                let Some(new) = touched.remove(*node) else { continue };
                known.tasks.extend(new.tasks);
                known.services.extend(new.services);
                known.ended |= new.ended;
            }
            assert!(touched.is_empty(), "{touched:?}");
        }
    }

    /// Returns the assignments without the present states of tasks, which nodes do not receive.
    fn as_known(assignments: &Assignments) -> Assignments {
        let mut known = Assignments { sequence: 0, ..assignments.clone() };
        for record in &mut known.tasks {
            let record = Arc::make_mut(record);
            record.task.status = Default::default();
            record.task.meta = Default::default();
        }
        known
    }

    proptest! {
        #[test]
        fn changes_one_after_the_other_are_the_whole(events in prop::collection::vec(event(), 1..80)) {
            let mut view = world();
            let mut nodes = NODES.map(|node| (Touched::default(), node));
            let mut told: [SentAssignments; 3] = Default::default();
            let mut known: [Assignments; 3] = Default::default();
            for at in 1..3 {
                known[at] = told[at].whole(&view, NODES[at]);
            }
            for event in events.into_iter().chain([Event::Tell(1), Event::Tell(2)]) {
                match event {
                    Event::Task { id, node, state, desired } => {
                        let mut record = task(&view, id);
                        record.task.node_id = NODES[node].to_owned();
                        record.task.status.state = STATES[state];
                        record.task.desired_state = DESIRED[desired];
                        write(&mut view, &mut nodes, record.into());
                    }
                    Event::Forget(id) => write(&mut view, &mut nodes, Change::Remove(Kind::Task, format!("t{id}"))),
                    Event::Label(id, value) => {
                        let mut record = ServiceRecord::clone(&view.services[format!("web{id}").as_str()]);
                        record.service.spec.labels = Some([("value".to_owned(), value.to_string())].into());
                        write(&mut view, &mut nodes, record.into());
                    }
                    Event::Lose(at) => {
                        let touched = std::mem::take(&mut nodes[at].0);
                        drop(told[at].changes(&view, NODES[at], &touched));
                    }
                    Event::Tell(at) => {
                        let touched = std::mem::take(&mut nodes[at].0);
                        let said = told[at].changes(&view, NODES[at], &touched);
                        // What was lost is found when the next thing is said.
                        if said.is_some_and(|said| !known[at].apply(said)) || known[at].sequence != told[at].sequence {
                            known[at] = told[at].whole(&view, NODES[at]);
                        }
                        prop_assert_eq!(as_known(&known[at]), as_known(&Assignments::of(&view, NODES[at])));
                    }
                }
            }
        }
    }
}
