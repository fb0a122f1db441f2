//! A story of stores alone: some managers, faults of all kinds, and clients that write down what they saw.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herder_model::swarm::{Change, Kind, Object, Secret, Time, View};
use herder_store::{Settings, Store, StoreError};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::disk::{Disk, End, Mount, QUICK};
use crate::history::{Call, Did, is_linearizable};
use crate::net::Net;
use crate::play::Shared;
use crate::trace::Trace;

const CLIENTS: u64 = 3;
const KEYS: u64 = 5;
/// Time in which faults happen.
const TROUBLE: Duration = Duration::from_secs(12);
/// Maximum time to recover after the last fault. Candidates wait for less than a second, a request for three, and a
/// lost snapshot is sent again after ten.
const PEACE: Duration = Duration::from_secs(25);
/// Calls of one object; the check of histories takes no more.
const CALLS_MAX: usize = 100;

/// A manager, running or not.
struct Host {
    disk: Disk,
    starts: u64,
    up: Option<(Mount, Arc<Store>)>,
}

/// Managers, and what is between and below them.
pub(crate) struct Managers {
    folder: PathBuf,
    trace: Trace,
    pub(crate) net: Net,
    hosts: Mutex<BTreeMap<String, Host>>,
    pub(crate) told: Shared<Delivered>,
    follows: Mutex<Vec<JoinHandle<()>>>,
}

/// Writes that all managers delivered.
#[derive(Default)]
pub(crate) struct Delivered {
    /// Command → what it wrote.
    commands: BTreeMap<u64, String>,
    /// Term → who led in it, in this order.
    pub(crate) terms: BTreeMap<u64, Vec<String>>,
    leads: BTreeSet<String>,
}

pub(crate) fn rng(seed: u64, what: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ (what + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

pub(crate) fn addr(node: &str) -> String {
    format!("{node}:2377")
}

impl Managers {
    pub(crate) fn new(seed: u64, count: usize, folder: PathBuf, trace: Trace) -> Managers {
        let host = |number: u64| Host { disk: Disk::new(rng(seed, 100 + number)), starts: 0, up: None };
        let hosts = (1..).take(count).map(|number| (format!("n{number}"), host(number)));
        Managers {
            folder,
            net: Net::new(rng(seed, 1), trace.clone()),
            trace,
            hosts: Mutex::new(hosts.collect()),
            told: Shared::default(),
            follows: Mutex::default(),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.hosts.lock().keys().cloned().collect()
    }

    /// Managers that run.
    pub(crate) fn up(&self) -> Vec<String> {
        self.hosts.lock().iter().filter(|(_, host)| host.up.is_some()).map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn store(&self, node: &str) -> Option<Arc<Store>> {
        self.hosts.lock().get(node)?.up.as_ref().map(|it| it.1.clone())
    }

    /// The number of its last start.
    pub(crate) fn start_of(&self, node: &str) -> u64 {
        self.hosts.lock().get(node).map_or(0, |it| it.starts)
    }

    pub(crate) async fn open(&self, node: &str) -> Result<Arc<Store>, StoreError> {
        let (mount, start) = {
            let mut hosts = self.hosts.lock();
            let Some(host) = hosts.get_mut(node) else { return Err(StoreError::NotBegun) };
            host.starts += 1;
            (host.disk.mount(), host.starts)
        };
        let mut settings = Settings::new(self.folder.join(node), node);
        settings.backend = Some(Arc::new(mount.clone()));
        settings.wait = Duration::from_secs(3);
        (settings.snapshot_interval, settings.keep) = (40, 5);
        let port = self.net.port(node, start);
        let store = Store::open(settings, Arc::new(port)).await?;
        self.net.plug(node, start, store.clone());
        self.follow(node, &store);
        if let Some(host) = self.hosts.lock().get_mut(node) {
            host.up = Some((mount, store.clone()));
        }
        self.trace.tell(format_args!("{node} runs"));
        Ok(store)
    }

    fn follow(&self, node: &str, store: &Arc<Store>) {
        let writes = follow_writes(node.to_owned(), store.clone(), self.told.clone(), self.trace.clone());
        let leads = follow_leads(node.to_owned(), store.clone(), self.told.clone(), self.trace.clone());
        self.follows.lock().extend([tokio::spawn(writes), tokio::spawn(leads)]);
    }

    /// Ends a node without notice, as SIGKILL does, or worse.
    pub(crate) async fn end(&self, node: &str, how: End) {
        let up = self.hosts.lock().get_mut(node).and_then(|it| it.up.take());
        let Some((mount, store)) = up else { return };
        self.trace.tell(format_args!("{node} ends, {how:?}"));
        self.net.unplug(node);
        mount.end(how).await;
        store.abandon().await;
        self.told.lock().leads.remove(node);
    }

    /// Stops in good order.
    pub(crate) async fn stop(&self, node: &str) {
        let up = self.hosts.lock().get_mut(node).and_then(|it| it.up.take());
        let Some((mount, store)) = up else { return };
        store.shutdown().await;
        self.net.unplug(node);
        mount.end(End::Killed).await;
        self.told.lock().leads.remove(node);
        self.trace.tell(format_args!("{node} has stopped"));
    }

    pub(crate) fn pace(&self, node: &str, millis: std::ops::Range<u64>) {
        if let Some(host) = self.hosts.lock().get(node) {
            host.disk.pace(millis);
        }
    }

    /// Cuts all traffic between this node and others.
    pub(crate) fn cut(&self, node: &str) {
        for other in self.names().iter().filter(|it| *it != node) {
            self.net.cut(node, other);
            self.net.cut(other, node);
        }
    }

    /// The first begins, the others join.
    pub(crate) async fn begin(&self) -> Result<(), StoreError> {
        let names = self.names();
        let mut first: Option<Arc<Store>> = None;
        for node in &names {
            let store = self.open(node).await?;
            match &first {
                None => {
                    store.begin(&addr(node)).await?;
                    first = Some(store);
                }
                Some(first) => first.add_manager(node, &addr(node)).await?,
            }
        }
        Ok(())
    }

    /// Everybody runs, and everything passes.
    pub(crate) async fn heal(&self) {
        self.net.heal();
        for node in self.names() {
            self.pace(&node, QUICK);
            if self.store(&node).is_none() {
                self.reopen(&node).await;
            }
        }
    }

    pub(crate) async fn reopen(&self, node: &str) {
        if let Err(error) = self.open(node).await {
            self.trace.fail(format_args!("{node} does not open: {error}"));
        }
    }

    /// Waits until all managers are at the same command and one leads. They must have the same objects then.
    pub(crate) async fn agree(&self) -> Option<View> {
        let until = Instant::now() + PEACE;
        while Instant::now() < until {
            let stores: Vec<Arc<Store>> = self.up().iter().filter_map(|node| self.store(node)).collect();
            let views: Vec<View> = stores.iter().map(|it| it.view()).collect();
            let led = stores.iter().filter(|it| it.leadership().borrow().me).count();
            if led == 1 && views.iter().all(|it| it.index == views[0].index) {
                self.compare(&views);
                return views.first().cloned();
            }
            sleep(Duration::from_millis(50)).await;
        }
        None
    }

    /// The story is over.
    pub(crate) async fn finish(&self) {
        for node in self.names() {
            self.end(&node, End::Killed).await;
        }
        for follow in self.follows.lock().drain(..) {
            follow.abort();
        }
    }

    /// Objects of the same command are the same. Views are handed in: a write may come between two looks at the stores.
    fn compare(&self, views: &[View]) {
        let texts = |view: &View| -> Vec<String> { view.objects().map(|it| format!("{it:?}")).collect() };
        let views: Vec<Vec<String>> = views.iter().map(texts).collect();
        let differs = |of: &[String], than: &[String]| of.iter().find(|it| !than.contains(it)).cloned();
        for (place, view) in views.iter().enumerate() {
            let (here, there) = (differs(view, &views[0]), differs(&views[0], view));
            if here.is_some() || there.is_some() {
                self.trace.fail(format_args!("manager {place} has another state than the first: {here:?}, {there:?}"));
            }
        }
    }
}

/// Compares this manager's watch with those of others.
async fn follow_writes(node: String, store: Arc<Store>, told: Shared<Delivered>, trace: Trace) {
    let (_, mut watch) = store.watch();
    loop {
        let seen = watch.next().await;
        if seen.resync {
            continue;
        }
        let text = format!("{:?}", seen.written);
        let mut told = told.lock();
        let before = told.commands.entry(seen.view.index).or_insert_with(|| text.clone());
        if *before != text {
            trace.fail(format_args!("{node} has another command {}", seen.view.index));
        }
    }
}

/// Checks that each term has one leader at most.
async fn follow_leads(node: String, store: Arc<Store>, told: Shared<Delivered>, trace: Trace) {
    let mut leadership = store.leadership();
    loop {
        let now = leadership.borrow_and_update().clone();
        {
            let mut told = told.lock();
            if now.me && told.leads.insert(node.clone()) {
                trace.tell(format_args!("{node} leads in term {}", now.term));
                let before = told.terms.entry(now.term).or_default();
                if before.last() != Some(&node) {
                    if before.contains(&node) {
                        trace.fail(format_args!("{node} leads again in term {}, after {before:?}", now.term));
                    }
                    before.push(node.clone());
                }
                if told.leads.len() > 1 {
                    trace.fail(format_args!("{:?} lead at the same time", told.leads));
                }
            } else if !now.me {
                told.leads.remove(&node);
            }
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Results that clients have seen.
#[derive(Default)]
struct History {
    moments: u64,
    calls: BTreeMap<String, Vec<Call>>,
    counts: BTreeMap<&'static str, u64>,
}

impl History {
    fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }

    fn is_full(&self, key: &str) -> bool {
        self.calls.get(key).is_some_and(|it| it.len() >= CALLS_MAX)
    }

    fn heard(&mut self, key: &str, asked: u64, did: Did, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
        let moment = self.moment();
        let heard = (!matches!(did, Did::MayHaveReplaced { .. } | Did::MayHaveRemoved)).then_some(moment);
        self.calls.entry(key.to_owned()).or_default().push(Call { asked, heard, did });
    }
}

struct Client {
    number: u64,
    rng: StdRng,
    managers: Arc<Managers>,
    history: Shared<History>,
    /// Last results: key → value and version.
    known: BTreeMap<String, Option<(u64, u64)>>,
    written: u64,
}

impl Client {
    async fn run(mut self, until: Instant) {
        while Instant::now() < until {
            let up = self.managers.up();
            if let Some(node) = up.choose(&mut self.rng).cloned() {
                self.call(&node).await;
            }
            let pause = self.rng.random_range(0..120);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn call(&mut self, node: &str) {
        let key = format!("key-{}", self.rng.random_range(0..KEYS));
        let Some(store) = self.managers.store(node) else { return };
        if self.history.lock().is_full(&key) {
            return;
        }
        let start = self.managers.start_of(node);
        let asked = self.history.lock().moment();
        // Who asked a manager that crashed heard nothing.
        let lives = |managers: &Managers| managers.net.lives(node, start);
        match self.rng.random_range(0..10) {
            0..4 => {
                let Ok(view) = store.read().await else { return };
                if lives(&self.managers) {
                    let seen = value(&view, &key);
                    self.history.lock().heard(&key, asked, Did::Read(seen.map(|it| it.0)), "read");
                    self.known.insert(key, seen);
                }
            }
            4..9 => {
                let old = self.known.get(&key).copied().flatten();
                self.written += 1;
                let new = self.number * 1000 + self.written;
                let at = Time(new);
                let outcome = store.commit(vec![secret(&key, new, old.map_or(0, |it| it.1))], at).await;
                let old = old.map(|it| it.0);
                let (did, what) = match outcome {
                    _ if !lives(&self.managers) => (Did::MayHaveReplaced { old, new }, "unknown"),
                    Ok(view) => {
                        self.known.insert(key.clone(), value(&view, &key));
                        (Did::Replaced { old, new }, "written")
                    }
                    Err(StoreError::Conflict(_)) => (Did::Refused { old }, "refused"),
                    Err(StoreError::Lost { .. }) => (Did::MayHaveReplaced { old, new }, "unknown"),
                    // Nothing was written: should it be seen, there is no order.
                    Err(error) => {
                        self.managers.trace.tell(format_args!("{node} does not write {new} to {key}: {error}"));
                        return;
                    }
                };
                self.history.lock().heard(&key, asked, did, what);
            }
            _ => {
                let outcome = store.commit(vec![Change::Remove(Kind::Secret, key.clone())], Time(1)).await;
                let (did, what) = match outcome {
                    _ if !lives(&self.managers) => (Did::MayHaveRemoved, "unknown"),
                    Ok(_) => (Did::Removed, "removed"),
                    Err(StoreError::Lost { .. }) => (Did::MayHaveRemoved, "unknown"),
                    Err(_) => return,
                };
                self.history.lock().heard(&key, asked, did, what);
            }
        }
    }
}

fn secret(key: &str, value: u64, version: u64) -> Change {
    let mut secret = Secret { id: key.to_owned(), ..Secret::default() };
    secret.spec.name = key.to_owned();
    secret.spec.data = value.to_string();
    secret.meta.version.index = version;
    secret.into()
}

/// Value and version.
fn value(view: &View, key: &str) -> Option<(u64, u64)> {
    match view.get(Kind::Secret, key) {
        Some(Object::Secret(secret)) => Some((secret.spec.data.parse().ok()?, secret.meta.version.index)),
        _ => None,
    }
}

/// One fault, or the end of some.
async fn fault(managers: &Managers, rng: &mut StdRng) {
    let (names, up) = (managers.names(), managers.up());
    let any = names.choose(rng).cloned().unwrap_or_default();
    let down: Vec<String> = names.iter().filter(|it| !up.contains(it)).cloned().collect();
    match rng.random_range(0..14) {
        0 | 1 => {
            let how = *[End::Killed, End::Dark, End::Torn, End::Torn].choose(rng).unwrap_or(&End::Torn);
            managers.end(&any, how).await;
        }
        2..5 => {
            if let Some(node) = down.choose(rng) {
                managers.reopen(node).await;
            }
        }
        5 => managers.cut(&any),
        6 => {
            if let Some(other) = names.choose(rng) {
                managers.net.cut(&any, other);
            }
        }
        7 | 8 => managers.net.heal(),
        9 => managers.pace(&any, 20..rng.random_range(30..500)),
        10 => managers.pace(&any, QUICK),
        11 => managers.net.weather(rng.random_range(0..200), 0..rng.random_range(3..150)),
        12 => {
            if let Some(store) = managers.store(&any) {
                // It need not work out.
                let _ = timeout(Duration::from_secs(1), store.transfer()).await;
            }
        }
        _ => {
            // A new version is brought to all of them.
            for node in up {
                managers.stop(&node).await;
                managers.reopen(&node).await;
                sleep(Duration::from_millis(rng.random_range(0..500))).await;
            }
        }
    }
    managers.trace.tell("after a fault");
}

pub(crate) async fn story(seed: u64, folder: PathBuf, trace: Trace) -> String {
    let mut faults = rng(seed, 0);
    let count = if faults.random_range(0..3) == 0 { 5 } else { 3 };
    let managers = Arc::new(Managers::new(seed, count, folder, trace.clone()));
    if let Err(error) = managers.begin().await {
        trace.fail(format_args!("the managers do not begin: {error}"));
        return String::new();
    }
    let history = Shared::<History>::default();
    let until = Instant::now() + TROUBLE;
    let clients = (0..CLIENTS).map(|number| {
        let client = Client {
            number: number + 1,
            rng: rng(seed, 10 + number),
            managers: managers.clone(),
            history: history.clone(),
            known: BTreeMap::new(),
            written: 0,
        };
        tokio::spawn(client.run(until + Duration::from_secs(1)))
    });
    let clients: Vec<_> = clients.collect();
    while Instant::now() < until && !trace.failed() {
        sleep(Duration::from_millis(faults.random_range(50..1200))).await;
        fault(&managers, &mut faults).await;
    }
    managers.heal().await;
    for client in clients {
        // A panic is told elsewhere.
        let _ = client.await;
    }
    if managers.agree().await.is_none() && !trace.failed() {
        trace.fail("the managers do not agree, though all is well");
    }
    last_reads(&managers, &history).await;
    let terms = managers.told.lock().terms.len();
    managers.finish().await;
    let history = history.lock();
    for (key, calls) in &history.calls {
        if !is_linearizable(calls) {
            trace.fail(format_args!("what clients saw of {key} fits no order: {calls:?}"));
        }
    }
    trace.tell(format_args!("{:?}", history.counts));
    format!("{count} managers, {terms} terms, {:?}", history.counts)
}

/// Reads the final state at every manager, as part of the history.
async fn last_reads(managers: &Managers, history: &Shared<History>) {
    for node in managers.up() {
        let Some(store) = managers.store(&node) else { continue };
        let asked = history.lock().moment();
        match store.read().await {
            Ok(view) => {
                for key in (0..KEYS).map(|number| format!("key-{number}")) {
                    let seen = value(&view, &key).map(|it| it.0);
                    history.lock().heard(&key, asked, Did::Read(seen), "last read");
                }
            }
            Err(error) => managers.trace.fail(format_args!("{node} does not answer in the end: {error}")),
        }
    }
}
