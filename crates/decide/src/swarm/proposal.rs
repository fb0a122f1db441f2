//! Changes that are thought of one after the other, each knowing those before it, and written as one command.

use std::collections::BTreeMap;

use herder_model::swarm::{Change, Command, Conflict, Kind, Object, Time, View, Written};

/// What the store would hold if it was written.
#[derive(Clone, Debug)]
pub struct Proposal {
    view: View,
    at: Time,
    /// In the order in which objects were first changed.
    changes: Vec<Change>,
    /// Object → its place in `changes` and the version that is replaced.
    places: BTreeMap<(Kind, String), (usize, u64)>,
    written: Vec<Written>,
}

impl Proposal {
    pub fn new(view: &View, at: Time) -> Proposal {
        Proposal { view: view.clone(), at, changes: Vec::new(), places: BTreeMap::new(), written: Vec::new() }
    }

    /// As if all changes so far were written.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Thinks of these changes, all or none of them.
    pub fn add(&mut self, changes: Vec<Change>) -> Result<(), Conflict> {
        let command = Command { at: self.at, changes };
        let before = self.view.clone();
        self.written.extend(self.view.apply(before.index + 1, &command)?);
        for change in command.changes {
            self.merge(&before, change);
        }
        Ok(())
    }

    /// What was thought of so far, step by step.
    pub fn written(&self) -> &[Written] {
        &self.written
    }

    /// What is to be written. Empty, if nothing was thought of.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    fn merge(&mut self, before: &View, change: Change) {
        let key = match &change {
            Change::Put(object) => (object.kind(), object.id().to_owned()),
            Change::PutSpec(service) => (Kind::Service, service.service.id.clone()),
            Change::Remove(kind, id) => (*kind, id.clone()),
            // It holds on the proposal; what it expects was either there before, and is looked at again, or is of this command.
            Change::Expect(kind, id, version) => {
                if !self.places.contains_key(&(*kind, id.clone())) {
                    self.changes.push(Change::Expect(*kind, id.clone(), *version));
                }
                return;
            }
        };
        let Some((place, base)) = self.places.get(&key).copied() else {
            let base = before.get(key.0, &key.1).map_or(0, |it| it.meta().version.index);
            self.places.insert(key, (self.changes.len(), base));
            self.changes.push(change);
            return;
        };
        let was_spec = matches!(self.changes[place], Change::PutSpec(_));
        self.changes[place] = match change {
            Change::Put(object) => rebased(object, base, was_spec),
            Change::PutSpec(service) => rebased(Object::Service(service), base, true),
            other => other,
        };
    }
}

/// The same change, against the version that the store has.
fn rebased(mut object: Object, base: u64, is_spec: bool) -> Change {
    object.rebase(base);
    match object {
        Object::Service(service) if is_spec => Change::PutSpec(service),
        object => Change::Put(object),
    }
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{Task, TaskRecord, TaskState};

    use super::*;

    fn task(view: &View, id: &str, state: TaskState) -> Change {
        let mut record = view.tasks.get(id).map(|it| TaskRecord::clone(it)).unwrap_or_else(|| {
            let task = Task { id: id.to_owned(), ..Task::default() };
            TaskRecord { task, ..TaskRecord::default() }
        });
        record.task.status.state = state;
        record.into()
    }

    #[test]
    fn what_is_thought_of_step_by_step_is_written_at_once() {
        let mut view = View::default();
        let old = Command { at: Time(1), changes: vec![task(&view, "old", TaskState::Running)] };
        view.apply(5, &old).expect("new");
        let mut proposal = Proposal::new(&view, Time(2));
        for state in [TaskState::Pending, TaskState::Assigned] {
            let changes = vec![task(proposal.view(), "new", state), task(proposal.view(), "old", TaskState::Failed)];
            proposal.add(changes).expect("fits");
        }
        proposal.add(vec![Change::Expect(Kind::Task, "new".into(), 0)]).expect("is there");
        proposal.add(vec![Change::Remove(Kind::Task, "gone".into())]).expect("is as good");
        assert!(proposal.add(vec![Change::Expect(Kind::Task, "other".into(), 0)]).is_err());
        let changes = proposal.into_changes();
        assert_eq!(changes.len(), 3);
        view.apply(9, &Command { at: Time(2), changes }).expect("fits the store as well");
        let states: Vec<_> = view.tasks.values().map(|it| (it.task.id.as_str(), it.task.status.state)).collect();
        assert_eq!(states, [("new", TaskState::Assigned), ("old", TaskState::Failed)]);
    }
}
