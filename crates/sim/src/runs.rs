//! What really runs, on all engines together, however little anybody knows of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::trace::Trace;

const LABEL_SERVICE: &str = "com.docker.swarm.service.id";
const LABEL_TASK: &str = "com.docker.swarm.task.id";
const LABEL_FENCE: &str = "herder.fence";
/// A program that was started again needs some time to end fenced tasks without a lease.
const BACK: Duration = Duration::from_secs(1);

/// Copies are the same list.
#[derive(Clone, Debug)]
pub(crate) struct Runs(Arc<Mutex<Running>>);

#[derive(Debug)]
struct Running {
    trace: Trace,
    /// Service → (host, task).
    services: BTreeMap<String, Vec<(String, String)>>,
    /// Hosts whose program is not there, or is there again since. Nobody ends what has lost its lease there.
    headless: BTreeMap<String, Option<Instant>>,
}

impl Runs {
    pub(crate) fn new(trace: Trace) -> Runs {
        Runs(Arc::new(Mutex::new(Running { trace, services: BTreeMap::new(), headless: BTreeMap::new() })))
    }

    pub(crate) fn begins(&self, host: &str, labels: &BTreeMap<String, String>) {
        let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let (service, task, is_fenced) = (text(LABEL_SERVICE), text(LABEL_TASK), text(LABEL_FENCE) == "true");
        let mut running = self.0.lock();
        running.trace.tell(format_args!("{host} begins {task} of {service}"));
        let others = running.services.get(&service).cloned().unwrap_or_default();
        // Fenced services have one task in these stories.
        if is_fenced && others.iter().any(|(other, _)| !running.is_headless(other)) {
            running.trace.fail(format_args!("a fenced service runs twice: on {host} and {others:?}"));
        }
        running.services.entry(service).or_default().push((host.to_owned(), task));
    }

    pub(crate) fn ends(&self, host: &str, labels: &BTreeMap<String, String>) {
        let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let (service, task) = (text(LABEL_SERVICE), text(LABEL_TASK));
        let mut running = self.0.lock();
        running.trace.tell(format_args!("{host} ends {task} of {service}"));
        if let Some(there) = running.services.get_mut(&service) {
            there.retain(|it| *it != (host.to_owned(), task.clone()));
        }
    }

    /// The program of a host goes or comes.
    pub(crate) fn program(&self, host: &str, is_there: bool) {
        self.0.lock().headless.insert(host.to_owned(), is_there.then(Instant::now));
    }

    /// Tasks that run, of all services.
    pub(crate) fn tasks(&self) -> Vec<String> {
        let running = self.0.lock();
        let mut tasks: Vec<String> = running.services.values().flatten().map(|(_, task)| task.clone()).collect();
        tasks.sort();
        tasks
    }
}

impl Running {
    fn is_headless(&self, host: &str) -> bool {
        self.headless.get(host).is_some_and(|back| back.is_none_or(|back| back.elapsed() < BACK))
    }
}
