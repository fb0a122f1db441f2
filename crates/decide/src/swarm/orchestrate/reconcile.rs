//! Reconciliation: the changes that give a service its declared tasks. Pure, and without memory: all that it knows is
//! in the view, so that any manager that becomes the leader goes on where the old one was.
//!
//! Steps work on a draft of the service's tasks, one after the other, each on what the ones before left: what was lost, what
//! ended, how many there should be, what is out of date, whose turn it is, what can be forgotten.

use std::fmt;

use herder_model::swarm::{Change, ServiceMode, ServiceRecord, TaskState, Time, View};

use super::draft::Draft;
use super::{global, jobs, reap, replicated};
use crate::swarm::Ids;

/// Changes to make, and the time of the next look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Changes in the order of writing, in one command if they fit. After any of them the rest is still right, at the
    /// price of a lost restart delay.
    pub changes: Vec<Change>,
    /// Time at which the service is due without an event.
    pub again: Option<Time>,
}

/// Returns the changes for this service, or for its tasks if the service is gone.
///
/// A plan without changes means that nothing is to be done before [`Plan::again`] or before something happens. An automatic
/// rollback only writes the specification; the rest follows when it is seen.
pub fn reconcile(view: &View, service_id: &str, now: Time, ids: &mut dyn Ids) -> Plan {
    let mut draft = Draft::new(view, service_id, now, ids);
    let Some(service) = view.services.get(service_id) else {
        remove_all(&mut draft);
        return draft.plan(None);
    };
    draft.settle_times(service);
    let written = match Mode::of(&service.service.spec.mode) {
        Mode::Replicated(replicas) => replicated::reconcile(&mut draft, service, replicas),
        Mode::Global => global::reconcile(&mut draft, service),
        Mode::ReplicatedJob { concurrent, total } => {
            jobs::replicated(&mut draft, service, concurrent, total);
            None
        }
        Mode::GlobalJob => {
            jobs::global(&mut draft, service);
            None
        }
    };
    reap::orphan(&mut draft);
    reap::history(&mut draft, written.as_ref().map_or(service, ServiceChange::record));
    reap::removed(&mut draft);
    draft.plan(written)
}

/// The service is gone at once, its tasks when their nodes say so.
fn remove_all(draft: &mut Draft<'_>) {
    for id in draft.ids_where(|it| it.task.desired_state < TaskState::Remove) {
        draft.want(&id, TaskState::Remove);
    }
    reap::removed(draft);
}

/// The mode of a service with its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Replicated(u64),
    Global,
    ReplicatedJob { concurrent: u64, total: u64 },
    GlobalJob,
}

impl Mode {
    pub(crate) fn of(mode: &ServiceMode) -> Mode {
        if mode.global.is_some() {
            Mode::Global
        } else if mode.global_job.is_some() {
            Mode::GlobalJob
        } else if let Some(job) = &mode.replicated_job {
            let concurrent = job.max_concurrent.unwrap_or(1);
            Mode::ReplicatedJob { concurrent, total: job.total_completions.unwrap_or(concurrent) }
        } else {
            Mode::Replicated(mode.replicated.as_ref().and_then(|it| it.replicas).unwrap_or(1))
        }
    }

    pub(crate) fn is_job(self) -> bool {
        matches!(self, Mode::ReplicatedJob { .. } | Mode::GlobalJob)
    }

    pub(crate) fn is_global(self) -> bool {
        matches!(self, Mode::Global | Mode::GlobalJob)
    }

    /// Returns the state that a task of the service should reach.
    pub(super) fn target(self) -> TaskState {
        if self.is_job() { TaskState::Complete } else { TaskState::Running }
    }
}

/// Returns the iteration of a job.
pub(crate) fn iteration(service: &ServiceRecord) -> u64 {
    service.service.job_status.as_ref().map_or(0, |it| it.job_iteration.index)
}

/// A change to the service itself.
#[derive(Debug)]
pub(super) enum ServiceChange {
    Status(ServiceRecord),
    Spec(ServiceRecord),
}

impl ServiceChange {
    fn record(&self) -> &ServiceRecord {
        match self {
            ServiceChange::Status(record) | ServiceChange::Spec(record) => record,
        }
    }
}

/// Slot of a task: a number, or a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Slot(u64),
    Node(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Slot(number) => write!(f, "{number}"),
            Key::Node(id) => f.write_str(id),
        }
    }
}

#[cfg(test)]
mod tests;
