//! Chaos test: managers are killed, cut off and asked to hand over while others write. Every acknowledged write must be
//! there in the end.
//!
//! `HERDER_SEED` repeats a run, as far as its choices go.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Swarm, has, secret, until};
use herder_model::swarm::{Change, Kind, Object, Secret, Time};
use herder_store::{Store, StoreError};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;

const WRITERS: u64 = 6;
const STEPS: usize = 14;
/// Writes between two steps.
const WRITES_A_STEP: usize = 25;

/// Record of all writes and their outcomes.
#[derive(Default)]
struct Ledger {
    written: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
    unknown: Mutex<Vec<String>>,
    /// Number of increments of the counter that each writer reads and writes.
    counted: AtomicUsize,
    lost_counts: AtomicUsize,
    done: AtomicUsize,
    over: AtomicBool,
}

/// Writes that managers delivered to watchers.
#[derive(Clone, Default)]
struct Delivered {
    /// Each command with its writes, as every manager delivered them.
    commands: Arc<Mutex<BTreeMap<u64, String>>>,
    watches: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Delivered {
    fn watch(&self, store: Arc<Store>) {
        let watch = tokio::spawn(follow(store, Arc::clone(&self.commands)));
        self.watches.lock().expect("fine").push(watch);
    }
}

fn any_store(swarm: &Swarm, rng: &mut StdRng) -> Arc<Store> {
    swarm.stores().choose(rng).cloned().expect("some run")
}

async fn write(swarm: Arc<Swarm>, ledger: Arc<Ledger>, mut rng: StdRng, writer: u64) {
    for number in 0.. {
        if ledger.over.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("w{writer}-{number}");
        let store = any_store(&swarm, &mut rng);
        match store.commit(vec![secret(&id, "")], Time(number)).await {
            Ok(view) => {
                assert!(has(&view, &id), "it does not see its own write");
                ledger.written.lock().expect("fine").push(id);
                ledger.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(StoreError::Lost { .. }) => ledger.unknown.lock().expect("fine").push(id),
            Err(StoreError::NoLeader | StoreError::Stopped { .. }) => ledger.refused.lock().expect("fine").push(id),
            Err(error) => panic!("{id}: {error}"),
        }
        count(&any_store(&swarm, &mut rng), &ledger, number).await;
    }
}

/// Reads the counter and writes it plus one if no other writer did. A write that counts twice, or a stale read, shows.
async fn count(store: &Store, ledger: &Ledger, at: u64) {
    let Ok(view) = store.read().await else { return };
    let Some(Object::Secret(counter)) = view.get(Kind::Secret, "counter") else { panic!("the counter is gone") };
    let mut counter = Secret::clone(&counter);
    counter.spec.data = (number(&counter) + 1).to_string();
    match store.commit(vec![Change::from(counter)], Time(at)).await {
        Ok(_) => drop(ledger.counted.fetch_add(1, Ordering::Relaxed)),
        Err(StoreError::Lost { .. }) => drop(ledger.lost_counts.fetch_add(1, Ordering::Relaxed)),
        Err(_) => {}
    }
}

fn number(counter: &Secret) -> usize {
    counter.spec.data.parse().unwrap_or(0)
}

/// Compares this manager's watch with those of others.
async fn follow(store: Arc<Store>, told: Arc<Mutex<BTreeMap<u64, String>>>) {
    let (_, mut watch) = store.watch();
    loop {
        let seen = watch.next().await;
        if seen.resync {
            continue;
        }
        let text = format!("{:?}", seen.written);
        let mut told = told.lock().expect("fine");
        let before = told.entry(seen.view.index).or_insert_with(|| text.clone());
        assert_eq!(*before, text, "{store:?} has another command {}", seen.view.index);
    }
}

async fn step(swarm: &Swarm, rng: &mut StdRng, down: &mut Vec<String>, told: &Delivered, size: usize) -> String {
    let minority = (size - 1) / 2;
    let names = swarm.names();
    let victim = names.choose(rng).expect("some run").clone();
    match rng.random_range(0..6) {
        0 | 1 if down.len() < minority => {
            swarm.kill(&victim).await;
            down.push(victim.clone());
            format!("kill {victim}")
        }
        2 if down.is_empty() => {
            swarm.cut(&victim);
            format!("cut {victim}")
        }
        3 if down.is_empty() => {
            let other = swarm.other(&victim);
            swarm.cut_way(&victim, &other);
            format!("cut {victim} → {other}")
        }
        4 => {
            let transferred = swarm.store(&victim).transfer().await.is_ok();
            format!("transfer: {transferred}")
        }
        _ => {
            swarm.heal();
            for node in down.drain(..) {
                let store = swarm.open(&node).await.expect("opens");
                told.watch(store);
            }
            "heal".to_owned()
        }
    }
}

async fn run(size: usize, seed: u64) {
    let seed = std::env::var("HERDER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let swarm = Swarm::with(size, |settings| {
        settings.snapshot_interval = 100;
        settings.keep = 20;
    });
    let swarm = Arc::new(swarm.await);
    let mut counter = Secret { id: "counter".to_owned(), ..Secret::default() };
    counter.spec.name = "counter".to_owned();
    swarm.store("n1").commit(vec![Change::from(counter)], Time(1)).await.expect("written");
    let (ledger, told) = (Arc::new(Ledger::default()), Delivered::default());
    for store in swarm.stores() {
        told.watch(store);
    }
    let writers = (0..WRITERS).map(|writer| {
        let rng = StdRng::seed_from_u64(seed ^ (writer + 1) << 32);
        tokio::spawn(write(Arc::clone(&swarm), Arc::clone(&ledger), rng, writer))
    });
    let writers: Vec<_> = writers.collect();
    let (mut down, mut steps) = (Vec::new(), Vec::new());
    for _ in 0..STEPS {
        let done = ledger.done.load(Ordering::Relaxed);
        steps.push(step(&swarm, &mut rng, &mut down, &told, size).await);
        // Writers that wait for one that is cut off write nothing: it is not waited for long.
        for _ in 0..150 {
            if ledger.done.load(Ordering::Relaxed) >= done + WRITES_A_STEP {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    swarm.heal();
    for node in down {
        swarm.open(&node).await.expect("opens");
    }
    ledger.over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap_or_else(|error| panic!("seed {seed}, {steps:?}: {error}"));
    }
    check(&swarm, &ledger, &format!("seed {seed}, {steps:?}")).await;
    assert!(told.commands.lock().expect("no watch failed").len() > 100);
    let ended = told.watches.lock().expect("fine").iter().filter(|watch| watch.is_finished()).count();
    assert_eq!(ended, 0, "seed {seed}, {steps:?}: a watch failed");
}

async fn check(swarm: &Swarm, ledger: &Ledger, what: &str) {
    let view = swarm.agree().await;
    let all = |list: &Mutex<Vec<String>>| list.lock().expect("fine").clone();
    let (written, refused) = (all(&ledger.written), all(&ledger.refused));
    assert!(written.len() > 100, "{what}: only {} writes", written.len());
    for store in swarm.stores() {
        let mine = until(&store, |mine| mine.index >= view.index).await;
        for id in &written {
            assert!(has(&mine, id), "{what}: {id} was acknowledged and is not in {store:?}");
        }
        for id in &refused {
            assert!(!has(&mine, id), "{what}: {id} was refused and is in {store:?}");
        }
    }
    let Some(Object::Secret(counter)) = view.get(Kind::Secret, "counter") else { panic!("{what}: no counter") };
    let (counted, lost) = (ledger.counted.load(Ordering::Relaxed), ledger.lost_counts.load(Ordering::Relaxed));
    let is = number(&counter);
    assert!((counted..=counted + lost).contains(&is), "{what}: counted {counted} (and {lost} unknown), is {is}");
    let unknown = ledger.unknown.lock().expect("fine").len();
    eprintln!("{what}: {} written, {} refused, {unknown} unknown; counter {is}", written.len(), refused.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_managers_none_loses_what_was_acknowledged() {
    run(3, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_managers_none_loses_what_was_acknowledged() {
    run(5, 2).await;
}
