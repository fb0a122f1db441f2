//! Reading an engine: everything, or what an event named.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use herder_model::Container;
use http::Method;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Engine, EngineError};
use crate::ingest;

/// Inspections of one engine at the same time. More do not make an engine faster.
const INSPECTIONS_MAX: usize = 8;

/// How long an engine may take to list or inspect. A list of 10,000 containers takes an engine about 2 s.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// Number of a read that is later than every other.
const SUPERSEDED: u64 = u64::MAX;

impl Engine {
    /// Re-reads one container (list entry and inspect); a container that is gone is taken out.
    /// When this returns, `node()` shows it.
    pub async fn refresh_container(&self, id: &str) -> Result<(), EngineError> {
        let read = self.next_read();
        let filters: String =
            [r#"{"id":[""#, id, r#""]}"#].concat().bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/containers/json?all=1&filters={filters}");
        let entries: Vec<Box<RawValue>> = self.read_list(&path).await?;
        for entry in entries {
            if let Some(container) = self.read_container(entry).await? {
                self.put(read, container);
                return Ok(());
            }
        }
        self.forget(read, id);
        Ok(())
    }

    /// Takes a container out that is known to be gone.
    pub fn forget_container(&self, id: &str) {
        self.forget(self.next_read(), id);
    }

    /// Takes a container out for good: it runs elsewhere now, and no read brings it back, even when the engine returns.
    /// Whoever superseded it removes it from the engine (see [`Engine::superseded`]).
    pub fn supersede_container(&self, id: &str) {
        self.forget(SUPERSEDED, id);
    }

    /// The containers that were superseded and are not known to be gone from the engine.
    pub fn superseded(&self) -> Vec<String> {
        let told = self.told.lock();
        told.iter().filter(|(_, read)| **read == SUPERSEDED).map(|(id, _)| id.clone()).collect()
    }

    /// A superseded container is gone from the engine.
    pub fn forget_superseded(&self, id: &str) {
        self.told.lock().remove(id);
    }

    /// Re-reads the images of the engine.
    pub async fn refresh_images(&self) -> Result<(), EngineError> {
        let entries: Vec<Value> = self.read_list("/images/json").await?;
        let shift = self.shift.load(Ordering::Relaxed);
        let images = entries.into_iter().map(|entry| Arc::new(ingest::image(entry, shift))).collect();
        self.update(|node| node.images = images);
        Ok(())
    }

    /// Re-reads the networks of the engine.
    pub async fn refresh_networks(&self) -> Result<(), EngineError> {
        let entries: Vec<Value> = self.read_list("/networks").await?;
        let networks = entries.into_iter().map(|entry| Arc::new(ingest::network(entry))).collect();
        self.update(|node| node.networks = networks);
        Ok(())
    }

    /// Re-reads the volumes of the engine.
    pub async fn refresh_volumes(&self) -> Result<(), EngineError> {
        let mut answer = self.read("/volumes").await?;
        let entries = match answer["Volumes"].take() {
            Value::Array(entries) => entries,
            _ => Vec::new(),
        };
        let volumes = entries.into_iter().map(|entry| Arc::new(ingest::volume(entry))).collect();
        self.update(|node| node.volumes = volumes);
        Ok(())
    }

    /// Re-reads everything.
    pub async fn refresh_all(&self) -> Result<(), EngineError> {
        let objects =
            async { tokio::try_join!(self.refresh_images(), self.refresh_networks(), self.refresh_volumes()) };
        tokio::try_join!(self.refresh_containers(), objects).map(drop)
    }

    async fn refresh_containers(&self) -> Result<(), EngineError> {
        let read = self.next_read();
        let entries: Vec<Box<RawValue>> = self.read_list("/containers/json?all=1").await?;
        let containers: Vec<Option<Container>> = stream::iter(entries)
            .map(|entry| self.read_container(entry))
            .buffer_unordered(INSPECTIONS_MAX)
            .try_collect()
            .await?;
        self.replace(read, containers.into_iter().flatten().collect());
        Ok(())
    }

    /// Inspects the container of a list entry. None if it is gone meanwhile.
    async fn read_container(&self, entry: Box<RawValue>) -> Result<Option<Container>, EngineError> {
        #[derive(serde::Deserialize)]
        struct Id {
            #[serde(rename = "Id")]
            id: String,
        }
        let unreadable = |error: serde_json::Error| self.unreadable("/containers/json", error.to_string());
        let Id { id } = serde_json::from_str(entry.get()).map_err(unreadable)?;
        let inspect = match self.read(&format!("/containers/{id}/json")).await {
            Err(EngineError::Answer { status: 404, .. }) => return Ok(None),
            inspect => inspect?,
        };
        let shift = self.shift.load(Ordering::Relaxed);
        ingest::container(entry.get(), &inspect, shift).map(Some).map_err(unreadable)
    }

    async fn read(&self, path: &str) -> Result<Value, EngineError> {
        self.read_list(path).await
    }

    async fn read_list<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        let bytes = self.fetch(Method::GET, path, None, READ_TIME_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.unreadable(path, error.to_string()))
    }

    /// Puts in what read number `read` saw, unless a later one has told about the container.
    fn put(&self, read: u64, container: Container) {
        let mut told = self.told.lock();
        let last = told.entry(container.id.clone()).or_default();
        if *last <= read {
            *last = read;
            self.update(|node| node.put_container(Arc::new(container)));
        }
    }

    fn forget(&self, read: u64, id: &str) {
        let mut told = self.told.lock();
        let last = told.entry(id.to_owned()).or_default();
        if *last <= read {
            *last = read;
            self.update(|node| node.remove_container(id));
        }
    }

    /// Makes the containers what read number `read` saw, save those that a later read has told about.
    fn replace(&self, read: u64, containers: Vec<Container>) {
        let mut told = self.told.lock();
        let seen: HashSet<&str> = containers.iter().map(|container| container.id.as_str()).collect();
        let newer = |id: &str| told.get(id).is_some_and(|last| *last > read);
        self.update(|node| {
            let gone: Vec<String> =
                node.containers.keys().filter(|id| !seen.contains(id.as_str()) && !newer(id)).cloned().collect();
            for id in gone {
                node.remove_container(&id);
            }
            for container in containers.iter().filter(|container| !newer(&container.id)) {
                node.put_container(Arc::new(container.clone()));
            }
        });
        // Older notes decide nothing any more: no read that is still under way started before them.
        told.retain(|_, last| *last > read);
    }
}
