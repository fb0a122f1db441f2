//! Parts of networks in which two versions of their states differ.

use std::collections::{BTreeMap, BTreeSet};

use herder_model::swarm::{NetEndpoint, NetState};
use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};

use super::{Host, States};

/// Endpoints and services of one network, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) endpoints: BTreeSet<String>,
    pub(super) services: BTreeSet<String>,
}

/// Endpoints of each service of one network. Copies share what is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members(OrdMap<String, OrdSet<String>>);

impl Members {
    pub(super) fn of(state: &NetState) -> Members {
        let mut members = Members::default();
        for (id, endpoint) in &state.endpoints {
            members.change(id, None, Some(endpoint));
        }
        members
    }

    pub(super) fn service(&self, service: &str) -> impl Iterator<Item = &String> {
        self.0.get(service).into_iter().flatten()
    }

    fn change(&mut self, id: &str, before: Option<&NetEndpoint>, after: Option<&NetEndpoint>) {
        let service = |it: Option<&NetEndpoint>| it.and_then(|it| it.service.clone());
        let (before, after) = (service(before), service(after));
        if before == after {
            return;
        }
        if let Some(before) = before
            && let Some(ids) = self.0.get_mut(&before)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.0.remove(&before);
            }
        }
        if let Some(after) = after {
            self.0.entry(after).or_default().insert(id.to_owned());
        }
    }

    /// Follows a change of these endpoints.
    pub(super) fn follow(&mut self, scope: &Scope, before: &NetState, after: &NetState) {
        for id in &scope.endpoints {
            self.change(id, before.endpoints.get(id), after.endpoints.get(id));
        }
    }
}

/// Finds what differs, by network. Nothing if more than endpoints, services and ports does, or an endpoint that has places outside of its
/// networks: what follows from those is not kept apart.
pub(super) fn differences(
    (before, before_host): (&States, &Host),
    (after, after_host): (&States, &Host),
) -> Option<BTreeMap<String, Scope>> {
    let is_same_host =
        Host { ended: BTreeSet::new(), ..before_host.clone() } == Host { ended: BTreeSet::new(), ..after_host.clone() };
    if !is_same_host || !before.keys().eq(after.keys()) {
        return None;
    }
    let ended: Vec<&String> = before_host.ended.symmetric_difference(&after_host.ended).collect();
    let mut scopes = BTreeMap::new();
    for ((id, before), after) in before.iter().zip(after.values()) {
        let mut scope = Scope::default();
        scope.endpoints.extend(ended.iter().filter(|it| before.endpoints.contains_key(**it)).map(|it| (*it).clone()));
        if !std::sync::Arc::ptr_eq(before, after) {
            if before.facts != after.facts || !before.nodes.ptr_eq(&after.nodes) && before.nodes != after.nodes {
                return None;
            }
            scope.differ(before, after)?;
        }
        for endpoint in scope.endpoints.iter().flat_map(|id| [before.endpoints.get(id), after.endpoints.get(id)]) {
            scope.services.extend(endpoint.and_then(|it| it.service.clone()));
        }
        if scope != Scope::default() {
            scopes.insert(id.clone(), scope);
        }
    }
    Some(scopes)
}

impl Scope {
    fn differ(&mut self, before: &NetState, after: &NetState) -> Option<()> {
        for item in before.endpoints.diff(&after.endpoints) {
            let (id, old, new) = match item {
                DiffItem::Add(id, new) => (id, None, Some(new)),
                DiffItem::Update { old: (id, old), new: (_, new) } => (id, Some(old), Some(new)),
                DiffItem::Remove(id, old) => (id, Some(old), None),
            };
            if [old, new].into_iter().flatten().any(|it| !it.others.is_empty()) {
                return None;
            }
            self.endpoints.insert(id.clone());
        }
        for item in before.services.diff(&after.services) {
            let (DiffItem::Add(id, _) | DiffItem::Update { new: (id, _), .. } | DiffItem::Remove(id, _)) = item;
            self.services.insert(id.clone());
        }
        for item in before.ports.diff(&after.ports) {
            let ports = match item {
                DiffItem::Add(_, port) | DiffItem::Remove(_, port) => [Some(port), None],
                DiffItem::Update { old: (_, old), new: (_, new) } => [Some(old), Some(new)],
            };
            self.services.extend(ports.into_iter().flatten().map(|it| it.service.clone()));
        }
        Some(())
    }
}
