//! ZooKeeper: ephemeral nodes that live as long as their session, watches for news.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::timeout;
use zookeeper_client::{
    Acls, AddWatchMode, Client, CreateMode, CreateOptions, Error, EventType, OneshotWatcher, PersistentWatcher,
    SessionState, Stat, StateWatcher, WatchedEvent,
};

use super::{Entries, OPERATION_TIME_MAX, Target, Trouble, in_time};

/// Session of those that only read.
const READER_SESSION: Duration = Duration::from_secs(10);

const EPHEMERAL: CreateOptions<'static> = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
const PERSISTENT: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());

#[derive(Debug)]
pub(super) struct Zookeeper {
    cluster: String,
    /// Keyed by the time asked for: one for readers, one per time that keys are written with (one in practice).
    sessions: Mutex<BTreeMap<Duration, Client>>,
}

impl Zookeeper {
    pub(super) fn new(hosts: &[String]) -> Zookeeper {
        Zookeeper { cluster: hosts.join(","), sessions: Mutex::default() }
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<String>, Trouble> {
        let client = self.session(READER_SESSION).await?;
        Ok(read(&client, &path(key)).await?.map(|(value, _)| value))
    }

    pub(super) async fn put(&self, key: &str, value: &str, ttl: Duration) -> Result<(), Trouble> {
        let client = self.session(ttl).await?;
        let path = path(key);
        match read(&client, &path).await? {
            Some((there, stat)) if stat.ephemeral_owner == client.session_id().0 => {
                if there != value {
                    client.set_data(&path, value.as_bytes(), None).await.map_err(trouble)?;
                }
                return Ok(());
            }
            // Of an earlier run: taken over in one step, so that nobody sees it gone.
            Some((_, stat)) => {
                let mut writer = client.new_multi_writer();
                writer.add_delete(&path, Some(stat.version)).map_err(trouble)?;
                writer.add_create(&path, value.as_bytes(), &EPHEMERAL).map_err(trouble)?;
                return writer.commit().await.map(drop).map_err(|error| Trouble::away(&error));
            }
            None => {}
        }
        make_parents(&client, &path).await?;
        client.create(&path, value.as_bytes(), &EPHEMERAL).await.map(drop).map_err(trouble)
    }

    pub(super) async fn put_lasting(&self, key: &str, value: &str) -> Result<(), Trouble> {
        let client = self.session(READER_SESSION).await?;
        let path = path(key);
        match client.set_data(&path, value.as_bytes(), None).await {
            Ok(_) => return Ok(()),
            Err(Error::NoNode) => {}
            Err(error) => return Err(trouble(error)),
        }
        make_parents(&client, &path).await?;
        client.create(&path, value.as_bytes(), &PERSISTENT).await.map(drop).map_err(trouble)
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Trouble> {
        let client = self.session(READER_SESSION).await?;
        match client.delete(&path(key), None).await {
            Ok(()) | Err(Error::NoNode) => Ok(()),
            Err(error) => Err(trouble(error)),
        }
    }

    /// Takes the lock in a session of its own, whose end releases the lock.
    pub(super) async fn try_lock(&self, key: &str, value: &str, ttl: Duration) -> Result<Option<Held>, Trouble> {
        let client = self.connect(ttl).await?;
        let path = path(key);
        make_parents(&client, &path).await?;
        match client.create(&path, value.as_bytes(), &EPHEMERAL).await {
            Ok(_) => Ok(Some(Held { client, path })),
            Err(Error::NodeExists) => Ok(None),
            Err(error) => Err(trouble(error)),
        }
    }

    /// The session with this time, or a new one if it has ended. Of several that are opened at once, the first one is kept.
    async fn session(&self, time: Duration) -> Result<Client, Trouble> {
        if let Some(client) = self.open_session(time) {
            return Ok(client);
        }
        // Not under the lock: a server that is away would make each caller wait for all those before it.
        let client = self.connect(time).await?;
        let mut sessions = self.sessions.lock();
        let open = sessions.get(&time).filter(|client| !client.state().is_terminated());
        let client = open.cloned().unwrap_or(client);
        sessions.insert(time, client.clone());
        Ok(client)
    }

    fn open_session(&self, time: Duration) -> Option<Client> {
        self.sessions.lock().get(&time).filter(|client| !client.state().is_terminated()).cloned()
    }

    async fn connect(&self, time: Duration) -> Result<Client, Trouble> {
        let connector = Client::connector().with_session_timeout(time).with_fail_eagerly();
        in_time(connector.connect(&self.cluster).map(|result| result.map_err(trouble))).await
    }
}

async fn read(client: &Client, path: &str) -> Result<Option<(String, Stat)>, Trouble> {
    match client.get_data(path).await {
        Ok((bytes, stat)) => Ok(Some((text(&bytes), stat))),
        Err(Error::NoNode) => Ok(None),
        Err(error) => Err(trouble(error)),
    }
}

async fn make_parents(client: &Client, path: &str) -> Result<(), Trouble> {
    match path.rsplit_once('/') {
        Some((parent, _)) if !parent.is_empty() => client.mkdir(parent, &PERSISTENT).await.map_err(trouble),
        _ => Ok(()),
    }
}

fn path(key: &str) -> String {
    format!("/{key}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn trouble(error: Error) -> Trouble {
    match error {
        Error::NoAuth
        | Error::AuthFailed
        | Error::InvalidAcl
        | Error::BadArguments(_)
        | Error::NoChildrenForEphemerals
        | Error::QuotaExceeded
        | Error::Unimplemented => Trouble::Refused(error.to_string()),
        error => Trouble::away(&error),
    }
}

/// Follows keys by watches, each good for one change.
pub(super) struct Source {
    zookeeper: Arc<Zookeeper>,
    target: Target,
    /// Entries read so far, so that only new znodes are read.
    entries: Entries,
    news: Option<(StateWatcher, BoxFuture<'static, WatchedEvent>)>,
    /// Watch of a whole tree, which stays.
    tree: Option<(StateWatcher, PersistentWatcher)>,
}

/// A tree with more nodes than this is none of services or settings.
const TREE_NODES_MAX: usize = 100_000;

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("target", &self.target).field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn new(zookeeper: Arc<Zookeeper>, target: Target) -> Source {
        Source { zookeeper, target, entries: Entries::new(), news: None, tree: None }
    }

    pub(super) async fn next(&mut self) -> Result<Entries, Trouble> {
        if let Target::Tree(dir) = &self.target {
            let dir = path(dir);
            return self.next_of_tree(&dir).await;
        }
        if let Some((state, changed)) = &mut self.news {
            let over = tokio::select! {
                event = changed => event.event_type == EventType::Session,
                () = disconnected(state) => true,
            };
            self.news = None;
            if over {
                self.entries.clear();
                return Err(Trouble::Away("the connection is lost".to_owned()));
            }
        }
        let (entries, client, watcher) = in_time(look(&self.zookeeper, &self.target, &self.entries)).await?;
        self.entries.clone_from(&entries);
        self.news = Some((client.state_watcher(), watcher.changed().boxed()));
        Ok(entries)
    }
}

impl Source {
    /// The whole tree again after each change in it.
    async fn next_of_tree(&mut self, dir: &str) -> Result<Entries, Trouble> {
        let lost = || Trouble::Away("the connection is lost".to_owned());
        if let Some((state, watcher)) = &mut self.tree {
            let over = tokio::select! {
                event = watcher.changed() => event.event_type == EventType::Session,
                () = disconnected(state) => true,
            };
            if over {
                self.tree = None;
                return Err(lost());
            }
        } else {
            let client = in_time(self.zookeeper.session(READER_SESSION)).await?;
            let watch = client.watch(dir, AddWatchMode::PersistentRecursive);
            let watcher = in_time(watch.map(|result| result.map_err(trouble))).await?;
            self.tree = Some((client.state_watcher(), watcher));
        }
        let client = in_time(self.zookeeper.session(READER_SESSION)).await?;
        in_time(read_tree(&client, dir)).await
    }
}

/// All nodes below `dir` that have a value.
async fn read_tree(client: &Client, dir: &str) -> Result<Entries, Trouble> {
    let mut entries = Entries::new();
    let mut open = vec![dir.trim_end_matches('/').to_owned()];
    let mut nodes = 0;
    while let Some(at) = open.pop() {
        let names = match client.list_children(if at.is_empty() { "/" } else { &at }).await {
            Ok(names) => names,
            // Gone since it was listed, or never there.
            Err(Error::NoNode) => continue,
            Err(error) => return Err(trouble(error)),
        };
        for name in names {
            nodes += 1;
            if nodes > TREE_NODES_MAX {
                return Err(Trouble::Refused(format!("there are more than {TREE_NODES_MAX} nodes below {dir}")));
            }
            let child = format!("{at}/{name}");
            let Some((value, stat)) = read(client, &child).await? else { continue };
            if stat.num_children > 0 {
                open.push(child.clone());
            }
            if !value.is_empty() {
                entries.insert(child[dir.trim_end_matches('/').len() + 1..].to_owned(), value);
            }
        }
    }
    Ok(entries)
}

/// Returns the present entries, and a watch for the next change. Values in `known` are not read again.
async fn look(
    zookeeper: &Zookeeper,
    target: &Target,
    known: &Entries,
) -> Result<(Entries, Client, OneshotWatcher), Trouble> {
    let client = zookeeper.session(READER_SESSION).await?;
    match target {
        Target::Key(key) => {
            let path = path(key);
            let (_, watcher) = client.check_and_watch_stat(&path).await.map_err(trouble)?;
            let value = read(&client, &path).await?.map(|(value, _)| (String::new(), value));
            Ok((value.into_iter().collect(), client, watcher))
        }
        Target::Dir(dir) | Target::Tree(dir) => {
            let dir = path(dir);
            client.mkdir(&dir, &PERSISTENT).await.map_err(trouble)?;
            let (names, watcher) = client.list_and_watch_children(&dir).await.map_err(trouble)?;
            let mut entries = Entries::new();
            for name in names {
                let value = match known.get(&name) {
                    Some(value) => Some(value.clone()),
                    None => read(&client, &format!("{dir}/{name}")).await?.map(|(value, _)| value),
                };
                // A node that went between the list and the read fires the watch.
                entries.extend(value.map(|value| (name, value)));
            }
            Ok((entries, client, watcher))
        }
    }
}

/// Ends when the session has no connection.
async fn disconnected(state: &mut StateWatcher) {
    loop {
        if !is_connected(state.changed().await) {
            return;
        }
    }
}

fn is_connected(state: SessionState) -> bool {
    matches!(state, SessionState::SyncConnected | SessionState::ConnectedReadOnly)
}

/// A session that holds a node.
#[derive(Debug)]
pub(super) struct Held {
    client: Client,
    path: String,
}

impl Held {
    /// The session renews itself. A connection counts as lost after two fifths of the session's time without a word, so
    /// after another half of it the server may soon give the node to somebody else.
    pub(super) async fn keep(&mut self) -> String {
        let patience = self.client.session_timeout() / 2;
        let mut state = self.client.state_watcher();
        let mut now = self.client.state();
        loop {
            if now.is_terminated() {
                return format!("the session is {now}");
            }
            now = if is_connected(now) {
                state.changed().await
            } else {
                match timeout(patience, state.changed()).await {
                    Ok(state) => state,
                    Err(_) => return format!("the store was not reached for {patience:?}"),
                }
            };
        }
    }

    pub(super) async fn release(self) -> Result<(), Trouble> {
        // Ending the session removes the node as well; this only says so at once.
        let gone = timeout(OPERATION_TIME_MAX, self.client.delete(&self.path, None)).await;
        match gone {
            Ok(Ok(()) | Err(Error::NoNode)) => Ok(()),
            Ok(Err(error)) => Err(trouble(error)),
            Err(_) => Err(Trouble::Away("no answer".to_owned())),
        }
    }
}
