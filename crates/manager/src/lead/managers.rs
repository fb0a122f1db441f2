//! Promotion and demotion of managers.

use herder_decide::swarm::{Proposal, members};
use herder_model::swarm::{NodeRecord, Role, Time, View};
use herder_store::StoreError;

use super::Lead;
use crate::sessions::Event;

impl Lead<'_> {
    /// Starts the next promotion or demotion: one at a time, so that the number of managers stays safe.
    pub(super) fn change_managers(&mut self, view: &View) {
        if !self.changing.is_empty() {
            return;
        }
        self.ready.retain(|it| self.sessions.contains_key(it));
        for id in self.ready.clone() {
            self.make_manager(view, &id);
        }
        let (mut stay, mut go) = (0, None);
        for record in view.nodes.values().filter(|it| it.role == Role::Manager) {
            match record.node.spec.role {
                Role::Manager => stay += 1,
                Role::Worker => go = Some(record),
                // What a later release wants of it is for a leader of that release to do.
                Role::Other(_) => {}
            }
        }
        // Of two that were demoted at the same moment, the last one stays what it is until somebody is promoted.
        let Some(record) = go.filter(|_| stay > 0) else { return };
        let id = record.node.id.clone();
        let (store, is_me) = (self.store.clone(), id == self.settings.me.id);
        self.begin(id.clone(), false, async move {
            // The next leader takes this one off.
            if is_me { store.transfer().await } else { store.remove_manager(&id).await }
        });
    }

    /// Adds a node to the raft group after it reported that its store is open.
    pub(super) fn make_manager(&mut self, view: &View, id: &str) {
        let Some(record) = view.nodes.get(id) else { return };
        if record.node.spec.role != Role::Manager {
            return;
        }
        // One that is a manager already may have lost its disk: then it is taken back with an empty one.
        let (store, manager, addr) = (self.store.clone(), id.to_owned(), record.addr.clone());
        self.begin(id.to_owned(), true, async move { store.add_manager(&manager, &addr).await });
    }

    fn begin(
        &mut self,
        node: String,
        is_manager: bool,
        change: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    ) {
        if !self.changing.insert(node.clone()) {
            return;
        }
        let events = self.own_events.clone();
        tokio::spawn(async move {
            let outcome = change.await.map_err(|error| error.to_string());
            let _ = events.send(Event::Managers { node, is_manager, outcome }).await;
        });
    }

    pub(super) fn managers_changed(&mut self, id: &str, is_manager: bool, proposal: &mut Proposal, now: Time) {
        // Who handed over the lead is still a manager, until the next leader takes it off.
        if !is_manager && id == self.settings.me.id {
            return;
        }
        let Some(known) = proposal.view().nodes.get(id) else { return };
        let mut record = NodeRecord::clone(known);
        let was_manager = record.role == Role::Manager;
        record.role = if is_manager { Role::Manager } else { Role::Worker };
        if **known != record {
            let mut changes = vec![record.into()];
            if was_manager && !is_manager {
                // Its certificate is valid for weeks, and counts no longer.
                changes.extend(members::demoted(proposal.view(), id, now));
            }
            self.add(proposal, changes);
        }
        self.touched.entry(id.to_owned()).or_default();
    }
}
