//! Changes that are thought of one after the other, each knowing those before it, and written as one command.

use std::collections::HashMap;

use herder_model::swarm::{Change, Command, Conflict, Kind, Object, Time, View, Written};

/// Accumulates changes into one command; each change sees the effect of the earlier ones.
#[derive(Clone, Debug)]
pub struct Proposal {
    view: View,
    at: Time,
    /// Changes in the order in which objects were first changed.
    changes: Vec<Change>,
    /// Object → its place in `changes` and the version that is replaced.
    places: HashMap<(Kind, String), (usize, u64)>,
    written: Vec<Written>,
    concluded: bool,
}

impl Proposal {
    pub fn new(view: &View, at: Time) -> Proposal {
        Proposal {
            view: view.clone(),
            at,
            changes: Vec::new(),
            places: HashMap::new(),
            written: Vec::new(),
            concluded: false,
        }
    }

    /// Returns the view with all changes so far.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Returns the number of changes so far.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// True if something else was thought of what this change is about.
    pub fn has(&self, change: &Change) -> bool {
        self.places.contains_key(&key(change))
    }

    /// Thinks of these changes, all or none of them.
    pub fn add(&mut self, changes: Vec<Change>) -> Result<(), Conflict> {
        let command = Command { at: self.at, changes };
        // The versions that the store has: what is thought of here has others.
        let known = |change: &Change| {
            let (kind, id) = key(change);
            self.view.get(kind, &id).map_or(0, |it| it.meta().version.index)
        };
        let bases: Vec<u64> = command.changes.iter().map(known).collect();
        self.written.extend(self.view.apply(self.view.index + 1, &command)?);
        for (change, base) in command.changes.into_iter().zip(bases) {
            self.merge(base, change);
        }
        Ok(())
    }

    /// Returns the writes so far, step by step. Empty if some of them are not known in this form.
    pub fn written(&self) -> &[Written] {
        if self.concluded { &[] } else { &self.written }
    }

    /// Returns the changes to write. Empty, if nothing was thought of.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Adds the last changes of some objects. They were decided on [`Proposal::view`], which stays as it is, and no
    /// other decision is made about the same objects. It costs nothing of what a view costs.
    pub fn conclude(&mut self, changes: Vec<Change>) {
        self.concluded |= !changes.is_empty();
        for change in changes {
            let base = match &change {
                Change::Put(object) => object.meta().version.index,
                Change::PutSpec(service) => service.service.meta.version.index,
                Change::Remove(..) | Change::Expect(..) => 0,
            };
            self.merge(base, change);
        }
    }

    fn merge(&mut self, base: u64, change: Change) {
        let key = key(&change);
        // It holds on the proposal; what it expects was either there before, and is looked at again, or is of this command.
        if matches!(change, Change::Expect(..)) {
            if !self.places.contains_key(&key) {
                self.changes.push(change);
            }
            return;
        }
        let Some((place, base)) = self.places.get(&key).copied() else {
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

/// Returns the object of a change.
fn key(change: &Change) -> (Kind, String) {
    match change {
        Change::Put(object) => (object.kind(), object.id().to_owned()),
        Change::PutSpec(service) => (Kind::Service, service.service.id.clone()),
        Change::Remove(kind, id) | Change::Expect(kind, id, _) => (*kind, id.clone()),
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
        let old =
            Command { at: Time(1), changes: ["old", "idle"].map(|it| task(&view, it, TaskState::Running)).to_vec() };
        view.apply(5, &old).expect("new");
        let mut proposal = Proposal::new(&view, Time(2));
        for state in [TaskState::Pending, TaskState::Assigned] {
            let changes = vec![task(proposal.view(), "new", state), task(proposal.view(), "old", TaskState::Failed)];
            proposal.add(changes).expect("fits");
        }
        proposal.add(vec![Change::Expect(Kind::Task, "new".into(), 0)]).expect("is there");
        let last = [("new", TaskState::Accepted), ("old", TaskState::Rejected), ("idle", TaskState::Ready)];
        proposal.conclude(last.map(|(id, state)| task(proposal.view(), id, state)).to_vec());
        assert_eq!(proposal.view().tasks["new"].task.status.state, TaskState::Assigned);
        proposal.add(vec![Change::Remove(Kind::Task, "gone".into())]).expect("is as good");
        assert!(proposal.add(vec![Change::Expect(Kind::Task, "other".into(), 0)]).is_err());
        let changes = proposal.into_changes();
        assert_eq!(changes.len(), 4);
        view.apply(9, &Command { at: Time(2), changes }).expect("fits the store as well");
        let states: Vec<_> = view.tasks.values().map(|it| (it.task.id.as_str(), it.task.status.state)).collect();
        let expected = [("idle", TaskState::Ready), ("new", TaskState::Accepted), ("old", TaskState::Rejected)];
        assert_eq!(states, expected);
    }
}
