//! Messages of the leader on the ingress: routes for nodes that listen, served tasks for the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herder_decide::endpoints::ServiceEndpoints;
use herder_decide::ingress::{self, LeaderTable, Serving, Touched};
use herder_model::swarm::{
    IngressApplied, IngressChanges, IngressNews, IngressServed, IngressState, Object, SwarmNodeState, TaskState,
    ToNode, View, Written,
};

use super::Lead;

/// States of the table that are kept to tell the changes since. A node that is further behind is told all of it.
const KEPT_MAX: usize = 8;

/// The ingress as the leader knows it.
#[derive(Debug, Default)]
pub(super) struct IngressLead {
    /// Something was written that may change the table.
    is_changed: bool,
    touched: Touched,
    table: LeaderTable,
    /// True if nodes may need a message or may have reported.
    is_heard: bool,
    version: u64,
    state: Arc<IngressState>,
    kept: BTreeMap<u64, Arc<IngressState>>,
    serving: Serving,
    enabled: bool,
}

impl IngressLead {
    pub(super) fn changed(&mut self) {
        self.is_changed = true;
        self.touched.everything = true;
    }

    pub(super) fn heard(&mut self) {
        self.is_heard = true;
    }

    /// Notes that plain containers have come, gone or changed.
    pub(super) fn see_plain(&mut self) {
        self.is_changed |= self.enabled;
    }

    /// Notes what was written. Without the ingress nothing of it counts.
    pub(super) fn see(&mut self, view: &View, written: &[Written]) {
        if self.enabled && view.index == 0 {
            self.changed();
        }
        let objects = written.iter().flat_map(|it| it.before.iter().chain(&it.after));
        for object in objects.filter(|it| self.enabled || matches!(it, Object::Resource(_))) {
            self.is_changed |= self.touched.see(object);
        }
    }

    /// Computes what changed of the table, if something was written that it depends on.
    fn update(&mut self, view: &View, plain: &[ServiceEndpoints]) {
        // A leader that is new has no version that nodes know.
        let is_first = self.version == 0;
        if !std::mem::take(&mut self.is_changed) && !is_first {
            return;
        }
        let state = self.table.update(view, plain, &std::mem::take(&mut self.touched));
        self.enabled = state.is_some();
        let state = state.unwrap_or_default();
        if state == *self.state && !is_first {
            return;
        }
        self.is_heard = true;
        self.version = (self.version + 1).max(view.index);
        let runs = |id: &str| {
            let task = view.tasks.get(id);
            task.is_some_and(|it| it.task.status.state <= TaskState::Running)
        };
        self.serving.update(self.version, &state, runs);
        self.state = Arc::new(state);
        self.kept.insert(self.version, self.state.clone());
        while self.kept.len() > KEPT_MAX {
            self.kept.pop_first();
        }
    }

    /// Returns the tokens that all of these nodes answer for.
    fn challenges<'a>(&self, applied: impl Iterator<Item = &'a IngressApplied>) -> BTreeSet<String> {
        let least = applied.map(|it| it.version).min();
        let state = least.and_then(|it| self.kept.range(..=it).next_back());
        state.map(|(_, it)| ingress::challenges(it)).unwrap_or_default()
    }

    /// Returns the changes for a node that knows this version.
    fn news(&self, known: Option<u64>) -> IngressNews {
        let before = known.and_then(|it| self.kept.get(&it));
        let changes = IngressChanges::between(before.map_or(&IngressState::default(), |it| it), &self.state);
        IngressNews {
            whole: before.is_none(),
            applies_to: known.filter(|_| before.is_some()).unwrap_or_default(),
            results_in: self.version,
            listens: true,
            changes,
        }
    }
}

impl Lead<'_> {
    /// Forgets the versions that a node applied before its session.
    pub(super) fn forget_networks(&mut self, node: &str) {
        self.nets.forget(node);
        self.ingress.heard();
    }

    /// Handles a report of a node's ingress; `None` asks for the whole state.
    pub(super) fn hear_ingress(&mut self, node: &str, applied: Option<&IngressApplied>) {
        let Some(session) = self.sessions.get_mut(node) else { return };
        match applied {
            Some(applied) => session.ingress_applied = applied.clone(),
            None => session.ingress = None,
        }
        self.ingress.heard();
    }

    /// Sends changes to ingress nodes, and to the nodes of tasks which of them get requests.
    pub(super) fn tell_ingress(&mut self, view: &View) {
        let plain = self.settings.plain.borrow().clone();
        self.ingress.update(view, &plain);
        if !std::mem::take(&mut self.ingress.is_heard) {
            return;
        }
        let settings = ingress::settings(view);
        let listens = |node: &str| {
            let record = view.nodes.get(node);
            settings.as_ref().zip(record).is_some_and(|(settings, node)| ingress::listens(settings, node))
        };
        let is_there = |id: &str| view.nodes.get(id).is_some_and(|it| it.node.status.state != SwarmNodeState::Down);
        // After a change of leaders nodes come one after the other: one that has not come yet has applied nothing.
        let listening: BTreeSet<String> =
            view.nodes.keys().map(ToString::to_string).filter(|it| listens(it) && is_there(it)).collect();
        let nothing = IngressApplied::default();
        let applied = listening.iter().map(|it| self.sessions.get(it).map_or(&nothing, |it| &it.ingress_applied));
        self.ingress.serving.settle(applied.clone());
        let served = self.ingress.challenges(applied);
        self.challenges.send_if_modified(|known| std::mem::replace(known, served.clone()) != served);
        let mut served = self.ingress.serving.by_node(&listening);
        let mut deaf = Vec::new();
        for (node, session) in &mut self.sessions {
            if !session.is_welcome {
                // It is told when it is known to be one of the swarm.
                self.ingress.is_heard = true;
                continue;
            }
            let mut hears = true;
            let served: IngressServed = served.remove(node).unwrap_or_default();
            if session.served != served {
                session.served = served.clone();
                hears &= session.say.say(&ToNode::Served(Box::new(served)));
            }
            let news = match (listening.contains(node), session.ingress) {
                (true, Some(known)) if known == self.ingress.version => None,
                (true, known) => Some(self.ingress.news(known)),
                (false, Some(_)) => Some(IngressNews { whole: true, listens: false, ..IngressNews::default() }),
                (false, None) => None,
            };
            if let Some(news) = news {
                session.ingress = news.listens.then_some(news.results_in);
                hears &= session.say.say(&ToNode::Ingress(Box::new(news)));
            }
            if !hears {
                deaf.push(node.clone());
            }
        }
        for node in deaf {
            tracing::warn!(node, "closing session: the node does not take messages");
            self.close(&node);
        }
    }
}
