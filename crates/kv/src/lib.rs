//! Key-value stores that hold who is a member and who leads: Consul, etcd (v3), ZooKeeper.
//!
//! One shape over all three. Every wait on a store is bounded; what failed says which store, which key and what to do.

mod consul;
mod etcd;
mod http;
mod lock;
mod tls;
mod zookeeper;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

pub use http::{HttpAnswer, HttpApi};
pub use lock::Lock;
pub use tls::TlsFiles;

/// A single read or write, over all hosts of the store. A store in reach answers within milliseconds; an election in it
/// takes a second or two.
const OPERATION_TIME_MAX: Duration = Duration::from_secs(5);

/// Opening a connection to one host, so that a dead one leaves time for the next within [`OPERATION_TIME_MAX`].
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// Pause after a refusal that will pass (another client was faster, a lock is only just free).
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Entries of a directory, or of one key. A directory has an entry for each name below it; a key has one
/// with an empty name, or none.
pub type Entries = BTreeMap<String, String>;

/// Kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Consul,
    Etcd,
    Zookeeper,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Store::Consul => "Consul",
            Store::Etcd => "etcd",
            Store::Zookeeper => "ZooKeeper",
        })
    }
}

/// Reason why a store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// There is no answer, or the connection broke; worth another attempt.
    #[error(
        "no answer from {store} at {hosts} for key `{key}`: {reason}; check that {store} runs there and that the hosts in \
         the discovery URL are right"
    )]
    Away { store: Store, hosts: String, key: String, reason: String },
    /// The store answered, and does not want to.
    #[error("{store} at {hosts} refuses key `{key}`: {reason}; check what the store allows to this client")]
    Refused { store: Store, hosts: String, key: String, reason: String },
    #[error("no TLS to {store} with kv.cacertfile, kv.certfile and kv.keyfile: {source}")]
    Tls { store: Store, source: herder_tls::TlsError },
    #[error("{store} is not reached by TLS: leave the options kv.cacertfile, kv.certfile and kv.keyfile away")]
    NoTls { store: Store },
    #[error("{host:?} is no host of a {store}: {reason}; write host:port")]
    Host { store: Store, host: String, reason: String },
}

/// Trouble as a back end sees it; [`Kv`] adds which store and which key.
#[derive(Debug)]
enum Trouble {
    Away(String),
    Refused(String),
}

impl Trouble {
    /// Returns the error with all its causes, as the outer sentence of a client library is often only "transport
    /// error".
    fn away(error: &dyn std::error::Error) -> Trouble {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        Trouble::Away(causes.fold(error.to_string(), |text, cause| {
            let cause = cause.to_string();
            if text.contains(&cause) { text } else { format!("{text}: {cause}") }
        }))
    }
}

/// A store. Cheap to clone; opens connections when they are needed.
#[derive(Clone, Debug)]
pub struct Kv {
    store: Store,
    hosts: Arc<str>,
    back_end: BackEnd,
}

#[derive(Clone, Debug)]
enum BackEnd {
    Consul(Arc<consul::Consul>),
    Etcd(Arc<etcd::Etcd>),
    Zookeeper(Arc<zookeeper::Zookeeper>),
}

/// Does the same with any back end.
macro_rules! each {
    ($back_end:expr, $one:ident => $call:expr) => {
        match $back_end {
            BackEnd::Consul($one) => $call,
            BackEnd::Etcd($one) => $call,
            BackEnd::Zookeeper($one) => $call,
        }
    };
}

impl Kv {
    /// Takes the addresses; nothing is connected yet. Must be called inside a tokio runtime.
    pub fn new(store: Store, hosts: &[String], tls: Option<&TlsFiles>) -> Result<Kv, KvError> {
        let back_end = match store {
            Store::Consul => BackEnd::Consul(Arc::new(consul::Consul::new(hosts, tls)?)),
            Store::Etcd => BackEnd::Etcd(Arc::new(etcd::Etcd::new(hosts, tls)?)),
            Store::Zookeeper if tls.is_some() => return Err(KvError::NoTls { store }),
            Store::Zookeeper => BackEnd::Zookeeper(Arc::new(zookeeper::Zookeeper::new(hosts))),
        };
        Ok(Kv { store, hosts: hosts.join(",").into(), back_end })
    }

    pub fn store(&self) -> Store {
        self.store
    }

    /// Writes a key that goes when it is not written again within `ttl`. ZooKeeper: when this program is gone for its
    /// session's time, which the server bounds.
    pub async fn put(&self, key: &str, value: &str, ttl: Duration) -> Result<(), KvError> {
        self.bounded(key, each!(&self.back_end, one => Box::pin(one.put(key, value, ttl)) as Work<'_, _>)).await
    }

    /// Writes a key that stays until somebody removes it.
    pub async fn put_lasting(&self, key: &str, value: &str) -> Result<(), KvError> {
        self.bounded(key, each!(&self.back_end, one => Box::pin(one.put_lasting(key, value)) as Work<'_, _>)).await
    }

    /// All keys below `dir` now, at any depth.
    pub async fn list_tree(&self, dir: &str) -> Result<Entries, KvError> {
        self.watch_tree(dir).next().await
    }

    /// Removes a key. One that is not there is fine.
    pub async fn delete(&self, key: &str) -> Result<(), KvError> {
        self.bounded(key, each!(&self.back_end, one => Box::pin(one.delete(key)) as Work<'_, _>)).await
    }

    /// The value of a key.
    pub async fn get(&self, key: &str) -> Result<Option<String>, KvError> {
        self.bounded(key, each!(&self.back_end, one => Box::pin(one.get(key)) as Work<'_, _>)).await
    }

    /// Follows all keys below `dir`.
    pub fn watch_dir(&self, dir: &str) -> Watch {
        self.watch(Target::Dir(dir.trim_end_matches('/').to_owned()))
    }

    /// Follows all keys below `dir`, at any depth. In ZooKeeper, nodes without a value are folders.
    pub fn watch_tree(&self, dir: &str) -> Watch {
        self.watch(Target::Tree(dir.trim_end_matches('/').to_owned()))
    }

    /// Follows one key.
    pub fn watch_key(&self, key: &str) -> Watch {
        self.watch(Target::Key(key.to_owned()))
    }

    /// Waits until `key` is free, then holds it with `value`. Ends early only by an error or by being dropped. Keeps
    /// holding it while this program lives and the store answers within `ttl`.
    pub async fn lock(&self, key: &str, value: &str, ttl: Duration) -> Result<Lock, KvError> {
        let mut watch = self.watch_key(key);
        loop {
            while !watch.next().await?.is_empty() {}
            let attempt = async {
                Ok(match &self.back_end {
                    BackEnd::Consul(one) => one.try_lock(key, value, ttl).await?.map(lock::Held::Consul),
                    BackEnd::Etcd(one) => one.try_lock(key, value, ttl).await?.map(lock::Held::Etcd),
                    BackEnd::Zookeeper(one) => one.try_lock(key, value, ttl).await?.map(lock::Held::Zookeeper),
                })
            };
            if let Some(held) = self.bounded(key, Box::pin(attempt)).await? {
                return Ok(Lock::new(held, self.watch_key(key), value));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            watch = self.watch_key(key);
        }
    }

    fn watch(&self, target: Target) -> Watch {
        let source = match &self.back_end {
            BackEnd::Consul(one) => Source::Consul(consul::Source::new(one.clone(), target.clone())),
            BackEnd::Etcd(one) => Source::Etcd(etcd::Source::new(one.clone(), target.clone())),
            BackEnd::Zookeeper(one) => Source::Zookeeper(zookeeper::Source::new(one.clone(), target.clone())),
        };
        Watch { kv: self.clone(), target, source, last: None }
    }

    async fn bounded<T>(&self, key: &str, work: Work<'_, T>) -> Result<T, KvError> {
        let late = || Trouble::Away(format!("it took longer than {} s", OPERATION_TIME_MAX.as_secs()));
        let result = timeout(OPERATION_TIME_MAX, work).await.unwrap_or_else(|_| Err(late()));
        result.map_err(|trouble| self.error(key, trouble))
    }

    fn error(&self, key: &str, trouble: Trouble) -> KvError {
        let (store, hosts, key) = (self.store, self.hosts.to_string(), key.to_owned());
        match trouble {
            Trouble::Away(reason) => KvError::Away { store, hosts, key, reason },
            Trouble::Refused(reason) => KvError::Refused { store, hosts, key, reason },
        }
    }
}

type Work<'w, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, Trouble>> + Send + 'w>>;

/// Object of a watch.
#[derive(Clone, Debug)]
enum Target {
    /// Everything below, without the slash at the end. In ZooKeeper, one level of it.
    Dir(String),
    /// Everything below at any depth, without the slash at the end.
    Tree(String),
    Key(String),
}

impl Target {
    /// The prefix of all keys, or the key.
    fn start(&self) -> String {
        match self {
            Target::Dir(dir) | Target::Tree(dir) => format!("{dir}/"),
            Target::Key(key) => key.clone(),
        }
    }

    /// The name under which a key is in [`Entries`]; none for the directory's own key.
    fn name<'k>(&self, key: &'k str) -> Option<&'k str> {
        match self {
            Target::Dir(_) | Target::Tree(_) => key.strip_prefix(&self.start()).filter(|name| !name.is_empty()),
            Target::Key(own) => (key == own).then_some(""),
        }
    }
}

/// Follows a directory or a key.
#[derive(Debug)]
pub struct Watch {
    kv: Kv,
    target: Target,
    source: Source,
    last: Option<Entries>,
}

#[derive(Debug)]
enum Source {
    Consul(consul::Source),
    Etcd(etcd::Source),
    Zookeeper(zookeeper::Source),
}

impl Watch {
    /// Waits for the next state that differs from the last one. The first call, and the first after an error, return
    /// the present state. After an error call again, with a pause. May be dropped while it waits; nothing is lost.
    pub async fn next(&mut self) -> Result<Entries, KvError> {
        loop {
            let news = match &mut self.source {
                Source::Consul(source) => source.next().await,
                Source::Etcd(source) => source.next().await,
                Source::Zookeeper(source) => source.next().await,
            };
            let entries = match news {
                Ok(entries) => entries,
                Err(trouble) => {
                    self.last = None;
                    return Err(self.kv.error(&self.target.start(), trouble));
                }
            };
            if self.last.as_ref() != Some(&entries) {
                self.last = Some(entries.clone());
                return Ok(entries);
            }
        }
    }
}

/// A read that must end in time, within a watch.
async fn in_time<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let late = || Trouble::Away(format!("it took longer than {} s", OPERATION_TIME_MAX.as_secs()));
    timeout(OPERATION_TIME_MAX, work).await.unwrap_or_else(|_| Err(late()))
}
