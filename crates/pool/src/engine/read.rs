//! Reading an engine: everything, or what an event named.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use herder_model::{Container, LABEL_OVERLAY, Node};
use http::Method;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tracing::warn;

use herder_docker::EngineError;
use herder_docker::path::encode_query;

use super::Engine;
use crate::{Part, ingest};

/// Inspections of one engine at the same time. More make an engine hardly faster, and each needs a connection.
const INSPECTIONS_MAX: usize = 4;

/// Maximum time of an engine for a list or inspection. A list of 10,000 containers takes an engine about 2 s.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// Number of a read that is later than every other.
const SUPERSEDED: u64 = u64::MAX;

/// Number of a read that saw a container go, where another node reports it. News on its way still has the container.
const GONE: u64 = u64::MAX - 1;

/// Depth of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// All lists, and each container inspected. Used after a lost event stream or a reconnect.
    Everything,
    /// All lists, and those containers inspected whose entries show a change. For a look without doubt.
    Changes,
}

impl Engine {
    /// Re-reads one container (list entry and inspect); a container that is gone is taken out.
    /// When this returns, `node()` shows it.
    pub async fn refresh_container(&self, id: &str) -> Result<(), EngineError> {
        if let Some(source) = &self.source {
            return self.reread_there(&**source, Part::Container(id.to_owned())).await;
        }
        let read = self.next_read();
        let _under_way = self.readings.begin(id, read);
        let filters = encode_query(&[r#"{"id":[""#, id, r#""]}"#].concat());
        let path = format!("/containers/json?all=1&filters={filters}");
        let (entries, inspect) = tokio::join!(self.read::<Vec<Box<RawValue>>>(&path), self.inspect(id));
        let Some(entry) = entries?.into_iter().next() else {
            self.forget(read, id);
            return Ok(());
        };
        match self.container(id, &entry, inspect)? {
            Some(container) => self.put(read, container),
            None => self.forget(read, id),
        }
        Ok(())
    }

    /// Same as [`Engine::refresh_container`], unless a read after number `mark` has covered the container or is under
    /// way. A change is followed by a read at once, so that its event needs no second one.
    pub(crate) async fn refresh_container_since(&self, id: &str, mark: u64) -> Result<(), EngineError> {
        while let Some(mut ends) = self.readings.later_than(id, mark) {
            // An error: it has ended.
            let _ = ends.changed().await;
        }
        if self.told.lock().has_told(id, mark) {
            return Ok(());
        }
        self.refresh_container(id).await
    }

    /// Takes a container out that is known to be gone.
    pub fn forget_container(&self, id: &str) {
        let read = if self.source.is_some() { GONE } else { self.next_read() };
        self.forget(read, id);
    }

    /// Removes a container for good: it runs elsewhere, and no read restores it, even when the engine returns. The
    /// caller removes it from the engine (see [`Engine::superseded`]).
    pub fn supersede_container(&self, id: &str) {
        self.forget(SUPERSEDED, id);
    }

    /// The containers that were superseded and are not known to be gone from the engine.
    pub fn superseded(&self) -> Vec<String> {
        let told = self.told.lock();
        told.by_id.iter().filter(|(_, read)| **read == SUPERSEDED).map(|(id, _)| id.clone()).collect()
    }

    /// A superseded container is gone from the engine.
    pub fn forget_superseded(&self, id: &str) {
        self.told.lock().by_id.remove(id);
    }

    /// Re-reads the images of the engine.
    pub async fn refresh_images(&self) -> Result<(), EngineError> {
        if let Some(source) = &self.source {
            return self.reread_there(&**source, Part::Images).await;
        }
        let read = self.next_read();
        let entries: Vec<Value> = self.read("/images/json?all=1").await?;
        let shift = self.shift.load(Ordering::Relaxed);
        let images: Vec<_> = entries.into_iter().map(|entry| Arc::new(ingest::image(entry, shift))).collect();
        let same = |node: &Node| same_list(&node.images, &images, |image| (&image.summary, image.created));
        let mut told = self.lists_told.images.lock();
        if is_news(&mut told, read) && !same(&self.node()) {
            self.update(|node| node.images = images);
        }
        Ok(())
    }

    /// Re-reads the networks of the engine.
    pub async fn refresh_networks(&self) -> Result<(), EngineError> {
        if let Some(source) = &self.source {
            return self.reread_there(&**source, Part::Networks).await;
        }
        let read = self.next_read();
        let entries: Vec<Value> = self.read("/networks").await?;
        // Bridges of overlay networks are the swarm's: clients see the networks, not what carries them.
        let (bridges, entries): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| !entry["Labels"][LABEL_OVERLAY].is_null());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let bridges = bridges.iter().filter_map(|it| Some((text(&it["Id"])?, text(&it["Labels"][LABEL_OVERLAY])?)));
        let overlays: BTreeMap<String, String> = bridges.collect();
        let mut networks: Vec<_> = entries.into_iter().map(|entry| Arc::new(ingest::network(entry))).collect();
        // Engines list networks and volumes in no order; ours has one, so that equal lists are equal.
        networks.sort_by(|a, b| a.id.cmp(&b.id));
        let same =
            |node: &Node| node.overlays == overlays && same_list(&node.networks, &networks, |network| &network.summary);
        let mut told = self.lists_told.networks.lock();
        if is_news(&mut told, read) && !same(&self.node()) {
            self.update(|node| (node.networks, node.overlays) = (networks, overlays));
        }
        Ok(())
    }

    /// Re-reads the volumes of the engine.
    pub async fn refresh_volumes(&self) -> Result<(), EngineError> {
        if let Some(source) = &self.source {
            return self.reread_there(&**source, Part::Volumes).await;
        }
        let read = self.next_read();
        let mut answer: Value = self.read("/volumes").await?;
        let entries = match answer["Volumes"].take() {
            Value::Array(entries) => entries,
            _ => Vec::new(),
        };
        let mut volumes: Vec<_> = entries.into_iter().map(|entry| Arc::new(ingest::volume(entry))).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        let same = |node: &Node| same_list(&node.volumes, &volumes, |volume| &volume.summary);
        let mut told = self.lists_told.volumes.lock();
        if is_news(&mut told, read) && !same(&self.node()) {
            self.update(|node| node.volumes = volumes);
        }
        Ok(())
    }

    /// Re-reads everything, every container's inspection included.
    pub async fn refresh_all(&self) -> Result<(), EngineError> {
        if let Some(source) = &self.source {
            return self.reread_there(&**source, Part::All).await;
        }
        self.refresh(Depth::Everything).await
    }

    pub(crate) async fn refresh(&self, depth: Depth) -> Result<(), EngineError> {
        // Never closed.
        let _turn = self.board.full_reads.acquire().await;
        let objects = async {
            tokio::try_join!(
                self.tolerate("images", self.refresh_images()),
                self.tolerate("networks", self.refresh_networks()),
                self.tolerate("volumes", self.refresh_volumes()),
            )
        };
        tokio::try_join!(self.refresh_containers(depth), objects).map(drop)
    }

    /// Tolerates an engine's error about one kind of object (a broken volume plugin, say): it is still a node.
    async fn tolerate(
        &self,
        what: &str,
        read: impl Future<Output = Result<(), EngineError>>,
    ) -> Result<(), EngineError> {
        match read.await {
            Err(EngineError::Answer { status, message }) => {
                warn!(addr = self.addr, status, message, "the engine cannot list its {what}");
                Ok(())
            }
            read => read,
        }
    }

    async fn refresh_containers(&self, depth: Depth) -> Result<(), EngineError> {
        let read = self.next_read();
        let entries: Vec<Box<RawValue>> = self.read("/containers/json?all=1").await?;
        let known = self.node();
        let containers: Vec<Option<Arc<Container>>> = stream::iter(entries)
            .map(async |entry| {
                let id = self.id_of(&entry)?;
                match known.containers.get(&id) {
                    Some(old) if depth == Depth::Changes && old.entry_mark == ingest::entry_mark(entry.get()) => {
                        Ok::<_, EngineError>(Some(old.clone()))
                    }
                    _ => {
                        let container = self.container(&id, &entry, self.inspect(&id).await)?;
                        Ok(container.map(Arc::new))
                    }
                }
            })
            .buffer_unordered(INSPECTIONS_MAX)
            .try_collect()
            .await?;
        self.replace(read, containers.into_iter().flatten().collect());
        Ok(())
    }

    fn id_of(&self, entry: &RawValue) -> Result<String, EngineError> {
        #[derive(serde::Deserialize)]
        struct Id {
            #[serde(rename = "Id")]
            id: String,
        }
        let entry: Result<Id, _> = serde_json::from_str(entry.get());
        entry.map(|entry| entry.id).map_err(|error| self.unreadable("/containers/json", error.to_string()))
    }

    async fn inspect(&self, id: &str) -> Result<Value, EngineError> {
        self.read(&format!("/containers/{id}/json")).await
    }

    /// The container of a list entry and its inspection. None if it is gone meanwhile.
    fn container(
        &self,
        id: &str,
        entry: &RawValue,
        inspect: Result<Value, EngineError>,
    ) -> Result<Option<Container>, EngineError> {
        let unreadable = |error: serde_json::Error| self.unreadable("/containers/json", error.to_string());
        let inspect = match inspect {
            Err(EngineError::Answer { status: 404, .. }) => return Ok(None),
            Err(EngineError::Answer { status, message }) => {
                warn!(addr = self.addr, container = id, status, message, "the engine cannot inspect a container");
                ingest::inspect_of_entry(&serde_json::from_str(entry.get()).map_err(unreadable)?)
            }
            inspect => inspect?,
        };
        let shift = self.shift.load(Ordering::Relaxed);
        ingest::container(entry.get(), &inspect, shift, self.settings.naming).map(Some).map_err(unreadable)
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        let bytes = self.fetch(Method::GET, path, None, READ_TIME_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.unreadable(path, error.to_string()))
    }

    /// Adds a container of read number `read`, unless a later read has covered it.
    fn put(&self, read: u64, container: Container) {
        let mut told = self.told.lock();
        if told.is_news(&container.id, read) && is_change(&self.node(), &container) {
            self.update(|node| node.put_container(Arc::new(container)));
        }
    }

    fn forget(&self, read: u64, id: &str) {
        let mut told = self.told.lock();
        if told.is_news(id, read) && self.node().containers.contains_key(id) {
            self.update(|node| node.remove_container(id));
        }
    }

    /// Replaces the containers by those of read number `read`, except those that a later read has covered.
    fn replace(&self, read: u64, containers: Vec<Arc<Container>>) {
        let mut told = self.told.lock();
        if read < told.all {
            return;
        }
        let node = self.node();
        let newer = |id: &str| told.by_id.get(id).is_some_and(|last| *last > read);
        let seen: HashSet<String> = containers.iter().map(|container| container.id.clone()).collect();
        let gone = node.containers.keys().filter(|id| !seen.contains(*id) && !newer(id));
        let gone: Vec<String> = gone.cloned().collect();
        let changed = containers.into_iter().filter(|container| !newer(&container.id) && is_change(&node, container));
        let changed: Vec<Arc<Container>> = changed.collect();
        if !gone.is_empty() || !changed.is_empty() {
            self.update(|node| {
                for id in gone {
                    node.remove_container(&id);
                }
                for container in changed {
                    node.put_container(container);
                }
            });
        }
        told.all = read;
        told.by_id.retain(|_, last| *last > read);
    }
}

/// Numbers of the latest reads of containers: an older read never replaces a newer one.
#[derive(Debug, Default)]
pub(crate) struct LatestReads {
    /// Number of the last read of all containers.
    all: u64,
    /// Container id → number of a read that covered it later.
    by_id: HashMap<String, u64>,
}

impl LatestReads {
    /// True if the container is out for good, whatever another node tells.
    pub(crate) fn is_over(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|read| *read >= GONE)
    }

    /// Forgets removed containers that the other node has removed, too.
    pub(crate) fn forget_gone(&mut self, gone: impl Fn(&str) -> bool) {
        self.by_id.retain(|id, read| *read != GONE || !gone(id));
    }

    /// True if a read after number `mark` has covered the container.
    fn has_told(&self, id: &str, mark: u64) -> bool {
        self.all > mark || self.by_id.get(id).is_some_and(|read| *read > mark)
    }

    /// Notes that read number `read` tells about a container. False if a later read has told already.
    fn is_news(&mut self, id: &str, read: u64) -> bool {
        if read < self.all || self.by_id.get(id).is_some_and(|last| *last > read) {
            return false;
        }
        self.by_id.insert(id.to_owned(), read);
        true
    }
}

/// Reads of single containers under way: id → the newest one's number, and when it ends.
#[derive(Debug, Default)]
pub(super) struct Readings(Mutex<HashMap<String, (u64, watch::Receiver<()>)>>);

impl Readings {
    /// Notes a read, until the answer is dropped.
    fn begin<'r>(&'r self, id: &'r str, read: u64) -> Reading<'r> {
        let (end, ends) = watch::channel(());
        self.0.lock().insert(id.to_owned(), (read, ends));
        Reading { readings: self, id, read, _end: end }
    }

    fn later_than(&self, id: &str, mark: u64) -> Option<watch::Receiver<()>> {
        self.0.lock().get(id).filter(|(read, _)| *read > mark).map(|(_, ends)| ends.clone())
    }
}

/// A read under way.
struct Reading<'r> {
    readings: &'r Readings,
    id: &'r str,
    read: u64,
    /// Dropped at the end.
    _end: watch::Sender<()>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut readings = self.readings.0.lock();
        if readings.get(self.id).is_some_and(|(read, _)| *read == self.read) {
            readings.remove(self.id);
        }
    }
}

/// Number of the latest read of each list. Held while the list is replaced: a reader that finds a later read also finds
/// its result in the picture.
#[derive(Debug, Default)]
pub(super) struct ListsTold {
    images: Mutex<u64>,
    networks: Mutex<u64>,
    volumes: Mutex<u64>,
}

/// Notes that read number `read` tells about a list. False if a later read has told already.
fn is_news(told: &mut u64, read: u64) -> bool {
    let news = *told <= read;
    *told = read.max(*told);
    news
}

fn same_list<'a, T, K: PartialEq>(old: &'a [Arc<T>], new: &'a [Arc<T>], key: impl Fn(&'a T) -> K) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| key(old) == key(new))
}

fn is_change(node: &Node, container: &Container) -> bool {
    let same = |old: &Container| std::ptr::eq(old, container) || ingest::same_container(old, container);
    node.containers.get(&container.id).is_none_or(|old| !same(old))
}
