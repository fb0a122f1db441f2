//! Tracking of tasks that serve requests through the ingress, until leaving ones have no more.

use std::collections::{BTreeMap, BTreeSet};

use herder_model::swarm::{BackendState, IngressApplied, IngressServed, IngressState, ServedTask};

/// All tasks that ingress nodes send requests to, or did until a version that they have not all applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    tasks: BTreeMap<String, Task>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Task {
    node: String,
    is: ServedTask,
    /// The version since which it takes no new requests.
    leaves: Option<u64>,
}

impl Serving {
    /// Takes in a version of the table. `runs` says whether a task has not ended yet.
    pub fn update(&mut self, version: u64, state: &IngressState, runs: impl Fn(&str) -> bool) {
        let mut serving: BTreeMap<&str, (&str, ServedTask)> = BTreeMap::new();
        let mut draining: BTreeMap<&str, (&str, ServedTask)> = BTreeMap::new();
        for upstream in state.services.values() {
            for (id, backend) in upstream.backends.iter().filter(|(_, it)| !it.node.is_empty()) {
                let of = match backend.state {
                    BackendState::Serving => &mut serving,
                    BackendState::Draining => &mut draining,
                    BackendState::Down => continue,
                };
                let (_, task) = of.entry(id).or_insert((&backend.node, ServedTask::default()));
                task.drain_ms = task.drain_ms.max(upstream.drain_ms);
                task.ports.insert(upstream.port);
                task.ports.extend(upstream.health.as_ref().map(|it| it.port).filter(|it| *it != 0));
            }
        }
        self.tasks.retain(|id, task| {
            if !serving.contains_key(id.as_str()) {
                task.leaves.get_or_insert(version);
            }
            serving.contains_key(id.as_str()) || runs(id)
        });
        // Another leader sees only that they leave. Ingress nodes may have requests to them still.
        for (id, (node, is)) in draining.into_iter().filter(|(id, _)| !serving.contains_key(id) && runs(id)) {
            let task = || Task { node: node.to_owned(), is, leaves: Some(version) };
            self.tasks.entry(id.to_owned()).or_insert_with(task);
        }
        for (id, (node, is)) in serving {
            let task = Task { node: node.to_owned(), is, leaves: None };
            self.tasks.insert(id.to_owned(), task);
        }
    }

    /// Forgets the tasks that have left: every live ingress node routes without them, and none has requests to them.
    pub fn settle<'a>(&mut self, applied: impl Iterator<Item = &'a IngressApplied> + Clone) {
        self.tasks.retain(|id, task| {
            task.leaves.is_none_or(|since| applied.clone().any(|it| it.version < since || it.busy.contains(id)))
        });
    }

    /// The tasks of each node that get requests, for nodes that have any.
    pub fn by_node(&self, from: &BTreeSet<String>) -> BTreeMap<String, IngressServed> {
        let mut told: BTreeMap<String, IngressServed> = BTreeMap::new();
        for (id, task) in &self.tasks {
            let of_node = told.entry(task.node.clone()).or_default();
            of_node.tasks.insert(id.clone(), task.is.clone());
        }
        for of_node in told.values_mut() {
            of_node.from.clone_from(from);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{Backend, Upstream};
    use imbl::OrdMap;

    use super::*;

    /// `a=serving b=draining`
    fn state(text: &str) -> IngressState {
        let backends = text.split_whitespace().filter_map(|it| it.split_once('=')).map(|(id, state)| {
            let state = match state {
                "serving" => BackendState::Serving,
                "draining" => BackendState::Draining,
                _ => BackendState::Down,
            };
            (id.to_owned(), Backend { node: "n".into(), state, ..Backend::default() })
        });
        let upstream = Upstream { port: 80, drain_ms: 5, backends: backends.collect(), ..Upstream::default() };
        IngressState { services: OrdMap::unit("s".to_owned(), upstream), ..IngressState::default() }
    }

    fn applied(version: u64, busy: &[&str]) -> IngressApplied {
        IngressApplied { version, busy: busy.iter().map(|it| (*it).to_owned()).collect(), ..IngressApplied::default() }
    }

    fn shown(serving: &Serving) -> String {
        let told = serving.by_node(&BTreeSet::new());
        told.get("n").map(|it| it.tasks.keys().cloned().collect::<Vec<_>>().join(" ")).unwrap_or_default()
    }

    #[test]
    fn a_task_leaves_when_all_ingress_nodes_have_let_go_of_it() {
        let mut serving = Serving::default();
        let update =
            |serving: &mut Serving, version: u64, text: &str| serving.update(version, &state(text), |it| it != "dead");
        update(&mut serving, 1, "a=serving b=serving c=down");
        assert_eq!(shown(&serving), "a b");
        update(&mut serving, 2, "a=draining b=serving");
        let settled = |serving: &mut Serving, nodes: &[IngressApplied]| {
            serving.settle(nodes.iter());
            shown(serving)
        };
        assert_eq!(settled(&mut serving, &[applied(2, &[]), applied(1, &[])]), "a b", "one node is behind");
        assert_eq!(settled(&mut serving, &[applied(2, &["a"]), applied(2, &[])]), "a b", "one has a request");
        update(&mut serving, 3, "a=draining b=serving");
        assert_eq!(
            settled(&mut serving, &[applied(2, &[]), applied(2, &[])]),
            "b",
            "the version of its leaving counts"
        );
        // The service is gone, and with it all routes.
        update(&mut serving, 4, "");
        assert_eq!(shown(&serving), "b");
        assert_eq!(settled(&mut serving, &[]), "", "no ingress node is left");
        // A leader that is new has not seen it serve.
        let mut serving = Serving::default();
        update(&mut serving, 5, "a=draining b=serving dead=draining");
        assert_eq!(shown(&serving), "a b");
        assert_eq!(settled(&mut serving, &[applied(5, &["a"]), applied(0, &[])]), "a b", "one has not come yet");
        assert_eq!(settled(&mut serving, &[applied(5, &["a"]), applied(5, &[])]), "a b");
        assert_eq!(settled(&mut serving, &[applied(5, &[]), applied(5, &[])]), "b");
        update(&mut serving, 5, "dead=serving");
        update(&mut serving, 6, "");
        assert_eq!(shown(&serving), "b", "what has ended has left, and the other one drains");
    }
}
