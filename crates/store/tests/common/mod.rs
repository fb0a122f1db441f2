//! A swarm's managers in one process: stores in folders of their own, and a network that can be cut.

#![expect(dead_code, reason = "each test program uses some of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use herder_model::swarm::{Change, Kind, Secret, Time, View};
use herder_store::{Key, Settings, Store, StoreError, Transport, TransportError};
use tempfile::TempDir;

/// Limit of every wait in these tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Wires {
    stores: BTreeMap<String, Arc<Store>>,
    /// Nodes that do not reach each other, in one direction.
    cut: BTreeSet<(String, String)>,
    messages: u64,
}

/// Carries requests between stores.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<Wires>>);

struct Port {
    net: Net,
    me: String,
}

impl Net {
    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().expect("nobody panics with it")
    }

    fn passes(&self, from: &str, to: &str) -> bool {
        !self.wires().cut.contains(&(from.to_owned(), to.to_owned()))
    }

    pub(crate) fn messages(&self) -> u64 {
        self.wires().messages
    }
}

impl Transport for Port {
    fn call<'a>(
        &'a self,
        node: &'a str,
        addr: &'a str,
        request: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(async move {
            assert_eq!(addr, format!("{node}:2377"));
            assert!(request.len() < 5 << 20, "a message of {} bytes", request.len());
            self.net.wires().messages += 1;
            if !self.net.passes(&self.me, node) {
                // As packets that are dropped: nothing comes back, not even an error.
                return std::future::pending().await;
            }
            let Some(store) = self.net.wires().stores.get(node).cloned() else {
                return Err(TransportError("connection refused".to_owned()));
            };
            let from = self.me.clone();
            // Who asked may go away; what was asked goes on.
            let answer = tokio::spawn(async move { store.handle(&from, request).await }).await;
            if !self.net.passes(node, &self.me) {
                return std::future::pending().await;
            }
            let answer = answer.map_err(|error| TransportError(error.to_string()))?;
            answer.map_err(|error| TransportError(error.to_string()))
        })
    }
}

/// Managers `n1`, `n2` …
pub(crate) struct Swarm {
    pub(crate) net: Net,
    pub(crate) folder: TempDir,
    pub(crate) key: Option<Key>,
    adjust: fn(&mut Settings),
}

pub(crate) fn addr(node: &str) -> String {
    format!("{node}:2377")
}

impl Swarm {
    /// Without any manager.
    pub(crate) fn empty(adjust: fn(&mut Settings)) -> Swarm {
        Swarm { net: Net::default(), folder: tempfile::tempdir().expect("a folder"), key: None, adjust }
    }

    /// Managers that elect within two seconds. The program's own 350 ms are too short for a machine that plays many tests at once:
    /// a leader that gets no time for so long loses its lead by right.
    pub(crate) async fn of(count: usize) -> Swarm {
        Swarm::with(count, |settings| settings.patience = Duration::from_secs(1)).await
    }

    /// Managers whose leader stays, however late a busy machine lets them answer.
    pub(crate) async fn steady(count: usize) -> Swarm {
        Swarm::with(count, |settings| settings.patience = Duration::from_secs(3)).await
    }

    pub(crate) async fn with(count: usize, adjust: fn(&mut Settings)) -> Swarm {
        let swarm = Swarm::empty(adjust);
        swarm.open("n1").await.expect("opens").begin(&addr("n1")).await.expect("begins");
        for number in 2..=count {
            swarm.join(&format!("n{number}")).await;
        }
        swarm
    }

    pub(crate) async fn join(&self, node: &str) {
        self.open(node).await.expect("opens");
        // Another change of the members may be under way still.
        let joined = async {
            while let Err(error) = self.store("n1").add_manager(node, &addr(node)).await {
                assert!(matches!(error, StoreError::Busy), "{node} does not join: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, joined).await.expect("joins in time");
    }

    pub(crate) fn path(&self, node: &str) -> PathBuf {
        self.folder.path().join(node)
    }

    pub(crate) async fn open(&self, node: &str) -> Result<Arc<Store>, StoreError> {
        let mut settings = Settings::new(self.path(node), node);
        settings.key.clone_from(&self.key);
        (self.adjust)(&mut settings);
        let port = Port { net: self.net.clone(), me: node.to_owned() };
        let store = Store::open(settings, Arc::new(port)).await?;
        self.net.wires().stores.insert(node.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    pub(crate) fn store(&self, node: &str) -> Arc<Store> {
        self.net.wires().stores.get(node).cloned().expect("it runs")
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.net.wires().stores.keys().cloned().collect()
    }

    pub(crate) fn stores(&self) -> Vec<Arc<Store>> {
        self.net.wires().stores.values().cloned().collect()
    }

    /// Kills a node without notice, as SIGKILL does.
    pub(crate) async fn kill(&self, node: &str) {
        let store = self.net.wires().stores.remove(node).expect("it runs");
        store.abandon().await;
    }

    /// Drops the store as it is.
    pub(crate) fn forget(&self, node: &str) {
        drop(self.net.wires().stores.remove(node));
    }

    /// Cuts all traffic between this node and others.
    pub(crate) fn cut(&self, node: &str) {
        let mut wires = self.net.wires();
        let others: Vec<String> = wires.stores.keys().filter(|it| *it != node).cloned().collect();
        for other in others {
            wires.cut.insert((node.to_owned(), other.clone()));
            wires.cut.insert((other, node.to_owned()));
        }
    }

    /// Cuts the traffic in this direction.
    pub(crate) fn cut_way(&self, from: &str, to: &str) {
        self.net.wires().cut.insert((from.to_owned(), to.to_owned()));
    }

    pub(crate) fn heal(&self) {
        self.net.wires().cut.clear();
    }

    /// The one that leads, for all that see one of these, once they agree.
    pub(crate) async fn leader(&self, among: &[&str]) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            for node in among {
                if self.store(node).leadership().borrow().me {
                    return (*node).to_owned();
                }
            }
            assert!(Instant::now() < deadline, "nobody of {among:?} leads");
            let mut leads: Vec<_> = among.iter().map(|node| self.store(node).leadership()).collect();
            let changes = leads.iter_mut().map(|it| Box::pin(it.changed()));
            let _ = tokio::time::timeout(Duration::from_millis(200), futures_util::future::select_all(changes)).await;
        }
    }

    /// Some other than this one.
    pub(crate) fn other(&self, than: &str) -> String {
        self.names().into_iter().find(|it| it != than).expect("another")
    }

    /// Every store that runs gets to the view of the one that is furthest, and has the same objects.
    pub(crate) async fn agree(&self) -> View {
        let read = self.stores()[0].read().await.expect("a majority");
        for store in self.stores() {
            let view = until(&store, |view| view.index >= read.index).await;
            let same = if view.index == read.index { view.objects().eq(read.objects()) } else { true };
            assert!(same, "{store:?} has something else at {}", view.index);
        }
        read
    }
}

/// Waits for the view of a store.
pub(crate) async fn until(store: &Store, is: impl Fn(&View) -> bool) -> View {
    let (mut view, mut watch) = store.watch();
    let reached = async {
        while !is(&view) {
            // What has no command in it changes no object, but the number.
            let next = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
            view = next.map_or_else(|_| store.view(), |seen| seen.view);
        }
        view
    };
    tokio::time::timeout(LIMIT, reached).await.expect("the view gets there")
}

/// A change that makes a secret.
pub(crate) fn secret(id: &str, text: &str) -> Change {
    let mut secret = Secret { id: id.to_owned(), ..Secret::default() };
    secret.spec.name = id.to_owned();
    secret.spec.labels = Some(BTreeMap::from([("text".to_owned(), text.to_owned())]));
    Change::from(secret)
}

pub(crate) async fn put(store: &Store, id: &str) -> Result<View, StoreError> {
    store.commit(vec![secret(id, "")], Time(1)).await
}

pub(crate) fn has(view: &View, id: &str) -> bool {
    view.get(Kind::Secret, id).is_some()
}
