//! The containers that really run on all engines together, independently of the managers' knowledge.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::trace::Trace;

const LABEL_SERVICE: &str = "com.docker.swarm.service.id";
const LABEL_TASK: &str = "com.docker.swarm.task.id";
const LABEL_FENCE: &str = "herder.fence";

/// Copies are the same list.
#[derive(Clone, Debug)]
pub(crate) struct Runs(Arc<Mutex<Running>>);

#[derive(Debug)]
struct Running {
    trace: Trace,
    /// Service → (host, task).
    services: BTreeMap<String, Vec<(String, String)>>,
    /// (Network, address there) → (host, task).
    addresses: BTreeMap<(String, String), (String, String)>,
    /// True from the first end of a manager's program on.
    ///
    /// A manager that starts anew does not know the addresses of removed tasks, whose containers may run on a lost node.
    managers_forgot: bool,
}

impl Runs {
    pub(crate) fn new(trace: Trace) -> Runs {
        let (services, addresses) = (BTreeMap::new(), BTreeMap::new());
        Runs(Arc::new(Mutex::new(Running { trace, services, addresses, managers_forgot: false })))
    }

    pub(crate) fn begins(&self, host: &str, labels: &BTreeMap<String, String>, addresses: &BTreeMap<String, String>) {
        let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let (service, task, is_fenced) = (text(LABEL_SERVICE), text(LABEL_TASK), text(LABEL_FENCE) == "true");
        let mut running = self.0.lock();
        running.trace.tell(format_args!("{host} begins {task} of {service}"));
        let others = running.services.get(&service).cloned().unwrap_or_default();
        // Fenced services have one task in these stories.
        if is_fenced && !others.is_empty() {
            running.trace.fail(format_args!("a fenced service runs twice: on {host} and {others:?}"));
        }
        for (network, address) in addresses {
            let owner = (host.to_owned(), task.clone());
            let other = running.addresses.insert((network.clone(), address.clone()), owner);
            if let Some(other) = other.filter(|_| !running.managers_forgot) {
                let text = format!("{task} on {host} has the address {address} of {other:?} on {network}, which runs");
                running.trace.fail(text);
            }
        }
        running.services.entry(service).or_default().push((host.to_owned(), task));
    }

    pub(crate) fn ends(&self, host: &str, labels: &BTreeMap<String, String>) {
        let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let (service, task) = (text(LABEL_SERVICE), text(LABEL_TASK));
        let mut running = self.0.lock();
        running.trace.tell(format_args!("{host} ends {task} of {service}"));
        running.addresses.retain(|_, owner| *owner != (host.to_owned(), task.clone()));
        if let Some(there) = running.services.get_mut(&service) {
            there.retain(|it| *it != (host.to_owned(), task.clone()));
        }
    }

    /// The program of a manager ends.
    pub(crate) fn manager_ends(&self) {
        self.0.lock().managers_forgot = true;
    }

    /// Tasks that run, of all services.
    pub(crate) fn tasks(&self) -> Vec<String> {
        let running = self.0.lock();
        let mut tasks: Vec<String> = running.services.values().flatten().map(|(_, task)| task.clone()).collect();
        tasks.sort();
        tasks
    }
}
