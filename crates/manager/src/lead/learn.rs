//! Updates the leader's indexes after a write, whichever manager made it.

use std::sync::Arc;

use herder_decide::swarm::members::HeartbeatScale;
use herder_decide::swarm::nets::Nets;
use herder_decide::swarm::{Fleet, frees, matters, touch, touch_service};
use herder_model::swarm::{NodeRecord, Object, TaskRecord, View, Written};

use super::Lead;

impl Lead<'_> {
    /// Applies the writes, and notes services to reconcile and nodes to inform.
    pub(super) fn learn(&mut self, view: &View, written: &[Written], resync: bool) {
        self.view = view.clone();
        let now = self.settings.clock.now();
        if resync {
            self.addresses.recall(view, now);
            self.fleet = Fleet::of(view);
            self.nets = Nets::of(view);
            self.ingress.changed();
            self.sessions.values_mut().for_each(|it| it.nets = None);
            self.net_whole = true;
            self.everything();
        }
        self.fleet.see(written);
        if !resync {
            self.nets.see(view, written);
        }
        self.ingress.see(view, written);
        let waiting = self.addresses.see(written, now);
        self.work_queue.add_all(waiting);
        for written in written {
            match (&written.before, &written.after) {
                (Some(Object::Task(before)), Some(Object::Task(after))) => {
                    self.learn_task(view, Some(before), Some(after));
                }
                (Some(Object::Task(before)), None) => self.learn_task(view, Some(before), None),
                (None, Some(Object::Task(after))) => self.learn_task(view, None, Some(after)),
                (before, after) => {
                    for object in [before, after].into_iter().flatten() {
                        self.learn_object(view, object);
                    }
                    match (before, after) {
                        (Some(Object::Service(before)), Some(Object::Service(after))) => {
                            touch_service(&mut self.touched, view, before, after);
                        }
                        (_, Some(Object::Node(node))) | (Some(Object::Node(node)), None) => {
                            self.learn_node(view, &node.node.id, written);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn learn_task(&mut self, view: &View, before: Option<&Arc<TaskRecord>>, after: Option<&Arc<TaskRecord>>) {
        let (before, after) = (before.map(AsRef::as_ref), after.map(AsRef::as_ref));
        touch(&mut self.touched, before, after);
        // It may be the first or the last of its node in a network.
        let moves = |task: &&TaskRecord| !task.networks.is_empty() && !task.task.node_id.is_empty();
        self.net_nodes.extend([before, after].into_iter().flatten().filter(moves).map(|it| it.task.node_id.clone()));
        self.place |= frees(before, after);
        if matters(view, before, after)
            && let Some(task) = after.or(before)
        {
            self.work_queue.add(&task.task.service_id);
        }
    }

    fn learn_object(&mut self, view: &View, object: &Object) {
        match object {
            Object::Service(it) => self.work_queue.add(&it.service.id),
            Object::Node(it) => {
                self.place = true;
                self.networks = true;
                self.managers = None;
                self.touched.entry(it.node.id.clone()).or_default();
                let scale = HeartbeatScale::of(view.nodes.len());
                if std::mem::replace(&mut self.scale, scale) != scale {
                    self.welcome_everybody(view);
                }
            }
            // What containers get by default is in the whole only.
            Object::Cluster(_) => {
                self.networks = true;
                self.tell_everything(view);
            }
            Object::Network(network) => {
                self.net_records.insert(network.id.clone());
                self.networks = true;
                // All nodes are on the ingress network.
                if network.spec.ingress {
                    self.net_nodes.extend(view.nodes.keys().map(ToString::to_string));
                }
            }
            Object::Task(_) | Object::Secret(_) | Object::Config(_) | Object::Resource(_) => {}
        }
    }

    /// A node that came, went or became another one: services that may be on it are looked at.
    fn learn_node(&mut self, view: &View, id: &str, written: &Written) {
        let nodes = (&written.before, &written.after);
        let as_it_counts = |it: &NodeRecord| {
            let state = (it.node.status.state, it.state_since, it.fenced_off);
            (it.node.spec.clone(), state, it.role, it.node.description.clone())
        };
        match nodes {
            (Some(Object::Node(before)), Some(Object::Node(after))) => {
                if as_it_counts(before) == as_it_counts(after) {
                    return;
                }
                if (before.role, &before.addr) != (after.role, &after.addr) {
                    self.welcome_everybody(view);
                }
                self.changed.insert(id.to_owned());
            }
            // How soon tasks of lost nodes are replaced depends on how many nodes there are.
            _ => self.work_queue.add_due(),
        }
        self.work_queue.add_all(view.tasks_of_node(id).map(|it| it.task.service_id.clone()));
        let wide = |mode: &herder_model::swarm::ServiceMode| mode.global.is_some() || mode.global_job.is_some();
        let global = view.services.values().filter(|it| wide(&it.service.spec.mode));
        self.work_queue.add_all(global.map(|it| it.service.id.clone()));
    }
}
