//! Services as this node sees them: which task gets the next request, which has failed lately, which still has requests.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use herder_model::swarm::{Backend, BackendState, IngressApplied, IngressChanges, IngressState, Patch, Upstream};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Tasks;

/// Time for which a task that cannot be reached gets no requests, doubled with each failure up to the maximum.
const EJECTED_MIN: Duration = Duration::from_secs(1);
const EJECTED_MAX: Duration = Duration::from_secs(30);
/// Number of requests for each retry, besides an initial allowance.
const REQUESTS_PER_RETRY: u64 = 5;
const RETRIES_FREE: u64 = 10;
/// Streams of a task that drains end so long before it is stopped.
const FAREWELL: Duration = Duration::from_secs(1);
/// A node that may be lost for so long is lost: what its tasks have under way ends.
const LOST_TIME: Duration = Duration::from_secs(10);
/// Weight of a new answer in the average response time of a task.
const TIME_SHARE: u64 = 8;

/// All services, over all versions of the table.
#[derive(Debug)]
pub(crate) struct Services {
    services: RwLock<HashMap<String, Arc<Service>>>,
    /// Every task of them, by id.
    tasks: Mutex<HashMap<String, Weak<Task>>>,
    /// Nodes that may be lost.
    suspects: Mutex<BTreeSet<String>>,
    /// Names of services that are not in the table any more, and whose tasks have requests.
    left: Mutex<BTreeSet<String>>,
    applied: watch::Sender<IngressApplied>,
}

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) is: RwLock<Arc<Upstream>>,
    tasks: RwLock<Arc<Vec<Arc<Task>>>>,
    turn: AtomicUsize,
    requests: AtomicU64,
    retries: AtomicU64,
}

/// One task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) backend: RwLock<Backend>,
    draining: AtomicBool,
    serving: AtomicBool,
    /// The checks of this node say that it answers. True without checks.
    pub(crate) healthy: AtomicBool,
    pub(crate) in_flight: AtomicUsize,
    failures: AtomicU32,
    ejected_until: Mutex<Option<Instant>>,
    /// Average microseconds until a head came.
    micros: AtomicU64,
    /// The time at which its last connections are cut, if it drains.
    leaves: watch::Sender<Option<Instant>>,
    /// Its node may be lost.
    suspect: watch::Sender<bool>,
}

/// A request or connection that a task has. Dropped, it has ended.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) task: Arc<Task>,
    applied: watch::Sender<IngressApplied>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.task.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.task.draining.load(Ordering::SeqCst) {
            self.applied.send_if_modified(|applied| applied.busy.remove(&self.task.id));
        }
    }
}

impl Services {
    pub(crate) fn new(applied: watch::Sender<IngressApplied>) -> Services {
        Services {
            services: RwLock::default(),
            tasks: Mutex::default(),
            suspects: Mutex::default(),
            left: Mutex::default(),
            applied,
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Service>> {
        self.services.read().get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Service>> {
        self.services.read().values().cloned().collect()
    }

    /// Tells nodes that may be lost.
    pub(crate) fn suspect(&self, nodes: BTreeSet<String>) {
        let services = self.services.read();
        let mut suspects = self.suspects.lock();
        if *suspects == nodes {
            return;
        }
        for task in services.values().flat_map(|it| it.tasks().iter().cloned().collect::<Vec<_>>()) {
            task.set_suspect(nodes.contains(&task.backend.read().node));
        }
        *suspects = nodes;
    }

    /// Takes over a state that differs from the one before in these changes. A task that two services share is one task. Returns the
    /// names of services that have come or gone.
    pub(crate) fn update(&self, state: &IngressState, changes: &IngressChanges) -> BTreeSet<String> {
        let mut services = self.services.write();
        let suspects = self.suspects.lock();
        let mut known = self.tasks.lock();
        let mut left = self.left.lock();
        let mut moved = BTreeSet::new();
        let Patch { put, removed } = &changes.services;
        left.extend(removed.iter().cloned());
        left.retain(|it| !put.contains_key(it));
        // Tasks of services that are not in the table any more. Another service may still have them.
        let mut leaving: BTreeSet<String> = BTreeSet::new();
        left.retain(|name| {
            let Some(service) = services.get(name) else { return false };
            // What is not in the table any more takes no requests either.
            let drain_ms = service.is.read().drain_ms;
            let tasks = service.tasks();
            for task in tasks.iter() {
                task.set(BackendState::Draining, drain_ms);
                leaving.insert(task.id.clone());
            }
            // Nothing of it is checked any more.
            *service.is.write() = Arc::new(Upstream { drain_ms, ..Upstream::default() });
            let is_busy = tasks.iter().any(|it| it.in_flight.load(Ordering::SeqCst) > 0);
            if !is_busy {
                services.remove(name);
                moved.insert(name.clone());
            }
            is_busy
        });
        let shares = |it: &Upstream| it.backends.keys().any(|it| leaving.contains(it));
        let sharing = state.services.iter().filter(|(name, it)| !put.contains_key(*name) && shares(it));
        let sharing = (!leaving.is_empty()).then_some(sharing).into_iter().flatten();
        for (name, upstream) in put.iter().chain(sharing) {
            let tasks = upstream.backends.iter().map(|(id, backend)| {
                let task = known.get(id).and_then(Weak::upgrade).unwrap_or_else(|| {
                    let task = Arc::new(Task::new(id));
                    known.insert(id.clone(), Arc::downgrade(&task));
                    task
                });
                *task.backend.write() = backend.clone();
                task.set_suspect(suspects.contains(&backend.node));
                task.set(backend.state, upstream.drain_ms);
                if upstream.health.is_none() {
                    task.healthy.store(true, Ordering::Relaxed);
                }
                task
            });
            let tasks: Vec<Arc<Task>> = tasks.collect();
            let service = services.entry(name.clone()).or_insert_with(|| {
                moved.insert(name.clone());
                Arc::new(Service::new(name))
            });
            *service.is.write() = Arc::new(upstream.clone());
            *service.tasks.write() = Arc::new(tasks);
        }
        known.retain(|_, it| it.strong_count() > 0);
        moved
    }

    /// Tasks that drain, and still have requests.
    pub(crate) fn busy(&self) -> Tasks {
        let mut busy = Tasks::new();
        for service in self.services.read().values() {
            let tasks = service.tasks.read();
            let of_service =
                tasks.iter().filter(|it| it.draining.load(Ordering::SeqCst) && it.in_flight.load(Ordering::SeqCst) > 0);
            busy.extend(of_service.map(|it| it.id.clone()));
        }
        busy
    }

    /// Gives a request to a task. None, if no task takes one.
    pub(crate) fn hold(&self, task: &Arc<Task>) -> Option<Held> {
        task.in_flight.fetch_add(1, Ordering::SeqCst);
        let held = Held { task: task.clone(), applied: self.applied.clone() };
        // Looked at after it is counted: a call that marks the task as draining afterwards sees this request.
        (!task.draining.load(Ordering::SeqCst)).then_some(held)
    }
}

impl Task {
    fn new(id: &str) -> Task {
        Task {
            id: id.to_owned(),
            backend: RwLock::default(),
            draining: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            healthy: AtomicBool::new(true),
            in_flight: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            ejected_until: Mutex::new(None),
            micros: AtomicU64::new(0),
            leaves: watch::Sender::new(None),
            suspect: watch::Sender::new(false),
        }
    }

    fn set(&self, state: BackendState, drain_ms: u64) {
        self.leaves.send_if_modified(|leaves| match state {
            BackendState::Serving => leaves.take().is_some(),
            BackendState::Draining | BackendState::Down if leaves.is_some() => false,
            BackendState::Draining | BackendState::Down => {
                let drain = Duration::from_millis(drain_ms);
                *leaves = Some(Instant::now() + drain.saturating_sub(FAREWELL.min(drain / 4)));
                true
            }
        });
        self.serving.store(state == BackendState::Serving, Ordering::SeqCst);
        self.draining.store(state != BackendState::Serving, Ordering::SeqCst);
    }

    /// Waits until the task drains, and its time is nearly up.
    pub(crate) async fn time_is_up(self: Arc<Task>) {
        let mut leaves = self.leaves.subscribe();
        loop {
            let until = *leaves.borrow_and_update();
            let is_up = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = is_up => return,
                // The sender lives as long as `self`.
                _ = leaves.changed() => {}
            }
        }
    }

    fn set_suspect(&self, suspect: bool) {
        self.suspect.send_if_modified(|it| std::mem::replace(it, suspect) != suspect);
    }

    /// Waits until the task's node may be lost.
    pub(crate) async fn suspected(&self) {
        // The sender lives as long as `self`.
        let _ = self.suspect.subscribe().wait_for(|it| *it).await;
    }

    /// Waits until the task's node is lost.
    pub(crate) async fn lost(&self) {
        let mut suspect = self.suspect.subscribe();
        loop {
            let _ = suspect.wait_for(|it| *it).await;
            if tokio::time::timeout(LOST_TIME, suspect.wait_for(|it| !*it)).await.is_err() {
                return;
            }
        }
    }

    fn serves(&self) -> bool {
        self.serving.load(Ordering::SeqCst) && self.healthy.load(Ordering::Relaxed)
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.lock().is_some_and(|it| it > now)
    }

    /// Records that the task could not be reached.
    pub(crate) fn failed(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(8);
        let time = EJECTED_MIN.saturating_mul(1 << failures).min(EJECTED_MAX);
        *self.ejected_until.lock() = Some(Instant::now() + time);
    }

    /// Records an answer and its time.
    pub(crate) fn answered(&self, time: Duration) {
        if self.failures.swap(0, Ordering::Relaxed) > 0 {
            *self.ejected_until.lock() = None;
        }
        let now = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let before = self.micros.load(Ordering::Relaxed);
        let average = if before == 0 { now } else { before - before / TIME_SHARE + now / TIME_SHARE };
        self.micros.store(average, Ordering::Relaxed);
    }

    fn weight(&self) -> usize {
        usize::try_from(self.backend.read().weight).unwrap_or(1)
    }
}

impl Service {
    fn new(name: &str) -> Service {
        Service {
            name: name.to_owned(),
            is: RwLock::default(),
            tasks: RwLock::default(),
            turn: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }

    pub(crate) fn tasks(&self) -> Arc<Vec<Arc<Task>>> {
        self.tasks.read().clone()
    }

    /// Shows whether a task serves and drains, for tests.
    #[cfg(test)]
    pub(crate) fn shown(task: &Task) -> String {
        format!("{} {}", task.serves(), task.draining.load(Ordering::SeqCst))
    }

    pub(crate) fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether one more retry is within the budget. A service that fails as a whole gets no storm of retries.
    pub(crate) fn may_retry(&self) -> bool {
        let most = self.requests.load(Ordering::Relaxed) / REQUESTS_PER_RETRY + RETRIES_FREE;
        self.retries.fetch_add(1, Ordering::Relaxed) < most
    }

    /// Returns whether a task takes requests whose node is there.
    pub(crate) fn has_well(&self) -> bool {
        self.tasks().iter().any(|it| it.serves() && !*it.suspect.borrow())
    }

    /// Chooses a task. Those in `tried` only if there is no other one.
    pub(crate) fn choose(&self, client: IpAddr, wanted: Option<&str>, tried: &[String]) -> Option<Arc<Task>> {
        let tasks = self.tasks();
        let serving: Vec<&Arc<Task>> = tasks.iter().filter(|it| it.serves()).collect();
        if let Some(wanted) = wanted
            && let Some(task) = serving.iter().find(|it| it.id == wanted && !tried.contains(&it.id))
        {
            return Some((*task).clone());
        }
        let now = Instant::now();
        let untried: Vec<&Arc<Task>> = serving.iter().copied().filter(|it| !tried.contains(&it.id)).collect();
        let well: Vec<&Arc<Task>> =
            untried.iter().copied().filter(|it| !it.is_ejected(now) && !*it.suspect.borrow()).collect();
        // The last task is never ejected.
        let all = [well, untried, serving].into_iter().find(|it| !it.is_empty())?;
        let strategy = self.is.read().strategy.clone();
        let chosen = match strategy.as_str() {
            "p2c" => {
                let (a, b) = (rand::random_range(0..all.len()), rand::random_range(0..all.len()));
                let load = |at: usize| all[at].in_flight.load(Ordering::Relaxed);
                if load(a) <= load(b) { a } else { b }
            }
            "hrw" => {
                let score = |task: &Task| {
                    let mut hasher = DefaultHasher::new();
                    (client, &task.id).hash(&mut hasher);
                    hasher.finish()
                };
                (0..all.len()).max_by_key(|at| score(all[*at]))?
            }
            "leasttime" => {
                let cost = |task: &Task| {
                    let load = task.in_flight.load(Ordering::Relaxed) as u64 + 1;
                    task.micros.load(Ordering::Relaxed).saturating_mul(load)
                };
                (0..all.len()).min_by_key(|at| cost(all[*at]))?
            }
            _ => self.in_turn(&all),
        };
        all.get(chosen).map(|it| (*it).clone())
    }

    fn in_turn(&self, all: &[&Arc<Task>]) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let weights: Vec<usize> = all.iter().map(|it| it.weight()).collect();
        let total: usize = weights.iter().sum();
        if total == 0 || weights.iter().all(|it| *it == weights[0]) {
            return turn % all.len();
        }
        let mut place = turn % total;
        for (at, weight) in weights.iter().enumerate() {
            if place < *weight {
                return at;
            }
            place -= weight;
        }
        0
    }
}

/// Tasks by the value of a sticky cookie.
pub(crate) fn sticky_value(service: &str, task: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{service}\0{task}").as_bytes());
    digest.as_ref().iter().take(8).map(|it| format!("{it:02x}")).collect()
}

/// Name of a service's cookie, unless its labels give one.
pub(crate) fn cookie_name(service: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, service.as_bytes());
    let hash: String = digest.as_ref().iter().take(4).map(|it| format!("{it:02x}")).collect();
    format!("herder_{hash}")
}

/// The present backends, for tests.
#[cfg(test)]
pub(crate) type Backends = std::collections::BTreeMap<String, Backend>;

#[cfg(test)]
mod tests {
    use imbl::OrdMap;

    use super::*;

    fn state(states: &[(&str, BackendState, u32)]) -> IngressState {
        let backends: Backends = states
            .iter()
            .map(|(id, state, weight)| {
                ((*id).to_owned(), Backend { state: *state, weight: *weight, ..Backend::default() })
            })
            .collect();
        let upstream = Upstream { backends, ..Upstream::default() };
        IngressState { services: OrdMap::unit("s".to_owned(), upstream), ..IngressState::default() }
    }

    /// Gives one state after the other to the services.
    fn updates(services: &Services) -> impl FnMut(IngressState) -> BTreeSet<String> {
        let mut before = IngressState::default();
        move |state| {
            let changes = IngressChanges::between(&before, &state);
            before = state;
            services.update(&before, &changes)
        }
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test(start_paused = true)]
    async fn tasks_take_turns_by_weight_and_failed_ones_rest() {
        use BackendState::{Draining, Serving};
        let services = Services::new(watch::Sender::default());
        let mut update = updates(&services);
        update(state(&[("a", Serving, 1), ("b", Serving, 2), ("c", Draining, 1)]));
        let service = services.get("s").expect("a service");
        let chosen = |count: usize| {
            (0..count).filter_map(|_| service.choose(CLIENT, None, &[])).map(|it| it.id.clone()).collect::<String>()
        };
        assert_eq!(chosen(6), "abbabb");
        assert_eq!(service.choose(CLIENT, Some("b"), &[]).map(|it| it.id.clone()).as_deref(), Some("b"));
        assert_eq!(service.choose(CLIENT, Some("c"), &["b".into()]).map(|it| it.id.clone()).as_deref(), Some("a"));
        let b = service.choose(CLIENT, Some("b"), &[]).expect("b");
        b.failed();
        assert_eq!(chosen(3), "aaa");
        tokio::time::advance(EJECTED_MIN).await;
        assert!(chosen(6).contains('b'));
        // The last one is taken all the same.
        b.failed();
        update(state(&[("a", Draining, 1), ("b", Serving, 2)]));
        assert_eq!(chosen(2), "bb");
    }

    #[tokio::test]
    async fn tasks_of_a_suspected_node_rest_as_long_as_there_are_others() {
        let mut state = state(&[("a", BackendState::Serving, 1), ("b", BackendState::Serving, 1)]);
        let upstream = state.services.get_mut("s").expect("a service");
        upstream.backends.iter_mut().for_each(|(id, it)| it.node = format!("node-{id}"));
        let services = Services::new(watch::Sender::default());
        let chosen = |services: &Services| {
            let service = services.get("s").expect("a service");
            let mut all: Vec<String> =
                (0..4).filter_map(|_| Some(service.choose(CLIENT, None, &[])?.id.clone())).collect();
            all.sort_unstable();
            (all.concat(), service.has_well())
        };
        let suspect = |nodes: &[&str]| services.suspect(nodes.iter().map(|it| (*it).to_owned()).collect());
        // Before its tasks are known, and after.
        suspect(&["node-a"]);
        updates(&services)(state);
        assert_eq!(chosen(&services), ("bbbb".to_owned(), true));
        suspect(&["node-a", "node-b"]);
        assert_eq!(chosen(&services), ("aabb".to_owned(), false));
        suspect(&[]);
        assert_eq!(chosen(&services), ("aabb".to_owned(), true));
    }

    #[tokio::test]
    async fn a_draining_task_is_busy_until_its_last_request_ends() {
        use BackendState::{Draining, Serving};
        let applied = watch::Sender::<IngressApplied>::default();
        let services = Services::new(applied.clone());
        let mut update = updates(&services);
        update(state(&[("a", Serving, 1)]));
        let task = services.get("s").expect("a service").choose(CLIENT, None, &[]).expect("a");
        let held = services.hold(&task).expect("it serves");
        update(state(&[("a", Draining, 1)]));
        assert!(services.hold(&task).is_none(), "no new request");
        assert_eq!(services.busy(), Tasks::from(["a".to_owned()]));
        applied.send_modify(|it| it.busy = services.busy());
        drop(held);
        assert_eq!(applied.borrow().busy, Tasks::new());
        assert_eq!(services.busy(), Tasks::new());
    }

    #[tokio::test]
    async fn a_service_that_left_stays_until_its_last_request_ends() {
        let services = Services::new(watch::Sender::default());
        let serving = || state(&[("a", BackendState::Serving, 1)]);
        let names = |moved: BTreeSet<String>| moved.into_iter().collect::<String>();
        let mut update = updates(&services);
        assert_eq!(names(update(serving())), "s");
        let task = services.get("s").expect("a service").choose(CLIENT, None, &[]).expect("a");
        let held = services.hold(&task).expect("it serves");
        assert_eq!(names(update(IngressState::default())), "");
        assert!(services.hold(&task).is_none(), "no new request");
        // It comes back, and is the same.
        assert_eq!(names(update(serving())), "");
        assert!(services.hold(&task).is_some());
        update(IngressState::default());
        drop(held);
        // Any later change finds that it is idle.
        assert_eq!(names(update(IngressState::default())), "s");
        assert!(services.get("s").is_none());
    }
}
