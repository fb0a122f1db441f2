//! Makes, replaces and removes the containers of a service on one engine.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use herder_deploy::logs::Splitter;
use herder_deploy::{Answer, Fault, Pieces, escape};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::shape::{self, Start};
use super::{OneEngine, Raw, former, good};

/// The pause between two looks at a container that was started.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// The time in which a container must start.
const START_TIME_MAX: Duration = Duration::from_secs(120);
/// The watch over a container after its start, where the service names none.
const MONITOR: Duration = Duration::from_secs(2);
/// Starts that may fail one after the other, if the restart policy allows as many: a dependency may be late. A swarm gives a
/// new service up after as many.
const FAILED_STARTS_MAX: u64 = 4;

impl<A: Raw> OneEngine<A> {
    pub(super) async fn create_service(&self, spec: &Value) -> Result<Answer, Fault> {
        let name = spec["Name"].as_str().unwrap_or_default();
        if !self.of_service(name).await?.is_empty() {
            let message = format!("name conflicts with an existing object: service {name} already exists");
            return Ok(Answer { status: 409, body: json!({"message": message}) });
        }
        let count = shape::wanted(spec);
        // Of a service without containers one that is never started keeps the declaration.
        let slots = if count == 0 { 0..=0 } else { 1..=count };
        for slot in slots {
            if let Err(fault) = self.make(spec, slot).await {
                self.remove_service(name).await?;
                return Err(fault);
            }
        }
        let names: Vec<String> = (1..=count).map(|slot| shape::container_name(name, slot)).collect();
        try_join_all(names.iter().map(|name| self.watch(name, spec))).await?;
        Ok(Answer { status: 201, body: json!({"ID": name}) })
    }

    pub(super) async fn update_service(&self, name: &str, spec: &Value) -> Result<Answer, Fault> {
        let present = self.of_service(name).await?;
        let count = shape::wanted(spec);
        let slots = if count == 0 { 0..=0 } else { 1..=count };
        let wanted = shape::template(spec);
        for slot in slots.clone() {
            let there = present.iter().find(|it| shape::slot(it) == slot);
            if there.is_some_and(|it| shape::template(&shape::spec(it)) == wanted && it["State"] == "running") {
                continue;
            }
            self.replace(there, spec, slot).await?;
            if slot > 0 {
                self.watch(&shape::container_name(name, slot), spec).await?;
            }
        }
        for surplus in present.iter().filter(|it| !slots.contains(&shape::slot(it))) {
            self.put_aside(surplus).await?;
        }
        Ok(Answer { status: 200, body: json!({}) })
    }

    pub(super) async fn remove_service(&self, name: &str) -> Result<Answer, Fault> {
        let all = self.labelled(&format!("{}={name}", shape::SERVICE_LABEL)).await?;
        if all.is_empty() {
            return Ok(super::missing(&format!("service {name} not found")));
        }
        for container in all {
            self.remove(container["Id"].as_str().unwrap_or_default()).await?;
        }
        Ok(Answer { status: 200, body: Value::Null })
    }

    /// Puts the container of a slot aside and makes another one; the one before comes back if that fails.
    async fn replace(&self, there: Option<&Value>, spec: &Value, slot: u64) -> Result<(), Fault> {
        let service = spec["Name"].as_str().unwrap_or_default();
        let name = shape::container_name(service, slot);
        let kept = self.named(&former(&name)).await?;
        let is_wanted = |it: &Value| shape::template(&shape::spec(it)) == shape::template(spec);
        if let Some(kept) = kept.filter(is_wanted) {
            // The deployment goes back: the container of then is still there.
            if let Some(there) = there {
                self.remove(id(there)).await?;
            }
            self.rename(id(&kept), &name).await?;
            return self.start(id(&kept), &name).await;
        }
        if let Some(there) = there {
            self.put_aside(there).await?;
        }
        let Err(fault) = self.make(spec, slot).await else { return Ok(()) };
        if let Some(failed) = self.named(&name).await? {
            self.remove(id(&failed)).await?;
        }
        if let Some(there) = there {
            self.rename(id(there), &name).await?;
            self.start(id(there), &name).await?;
        }
        Err(fault)
    }

    /// Stops a container and keeps it under another name.
    async fn put_aside(&self, container: &Value) -> Result<(), Fault> {
        let name = shape::name(container);
        let aside = former(name);
        if let Some(older) = self.named(&aside).await? {
            self.remove(id(&older)).await?;
        }
        self.post(&format!("/containers/{}/stop", id(container)), None, name).await?;
        self.rename(id(container), &aside).await
    }

    async fn rename(&self, id: &str, name: &str) -> Result<(), Fault> {
        self.post(&format!("/containers/{id}/rename?name={}", escape(name)), None, name).await.map(drop)
    }

    async fn start(&self, id: &str, name: &str) -> Result<(), Fault> {
        self.post(&format!("/containers/{id}/start"), None, name).await.map(drop)
    }

    async fn post(&self, path: &str, body: Option<&Value>, name: &str) -> Result<Value, Fault> {
        good(self.api.call(Method::POST, path, body).await?, &format!("container {name}"))
    }

    /// The container of exactly this name.
    async fn named(&self, name: &str) -> Result<Option<Value>, Fault> {
        let filters = escape(&json!({"name": [format!("^/{name}$")]}).to_string());
        let answer = self.api.call(Method::GET, &format!("/containers/json?all=1&filters={filters}"), None).await?;
        let all = good(answer, "containers")?;
        Ok(all.as_array().into_iter().flatten().find(|it| shape::name(it) == name).cloned())
    }

    /// Makes the container of a slot and starts it; slot 0 stays as it is made.
    async fn make(&self, spec: &Value, slot: u64) -> Result<(), Fault> {
        let info = good(self.api.call(Method::GET, "/info", None).await?, "info")?;
        let made = {
            let files = self.files.lock();
            shape::made(spec, slot, &files, &info)
        };
        let service = spec["Name"].as_str().unwrap_or_default();
        let made = made.map_err(|reason| Fault::Failed { service: service.to_owned(), reason })?;
        let create = made.create;
        for volume in &create.volumes {
            good(self.api.call(Method::POST, "/volumes/create", Some(volume)).await?, "volume")?;
        }
        let path = format!("/containers/create?name={}", escape(&create.name));
        let mut answer = self.api.call(Method::POST, &path, Some(&create.body)).await?;
        let message = answer.body["message"].as_str().unwrap_or_default();
        if answer.status == 404 && message.to_lowercase().contains("no such image") {
            self.pull(&create.image).await?;
            answer = self.api.call(Method::POST, &path, Some(&create.body)).await?;
        }
        let created = good(answer, &format!("container {}", create.name))?;
        let id = created["Id"].as_str().unwrap_or_default();
        for (network, endpoint) in &create.networks {
            let body = json!({"Container": id, "EndpointConfig": endpoint});
            self.post(&format!("/networks/{}/connect", escape(network)), Some(&body), &create.name).await?;
        }
        if !made.files.is_empty() {
            let path = format!("/containers/{id}/archive?path=%2F&copyUIDGID=1");
            let archive = shape::archive(&made.files).map_err(|error| Fault::Failed {
                service: service.to_owned(),
                reason: format!("its secrets and configs cannot be copied: {error}"),
            })?;
            let (status, answer) = self.api.raw(Method::PUT, &path, "application/x-tar", archive).await?;
            let body = serde_json::from_slice(&answer).unwrap_or_default();
            good(Answer { status, body }, &format!("files of container {}", create.name))?;
        }
        if slot == 0 { Ok(()) } else { self.start(id, &create.name).await }
    }

    /// Lets the engine get an image.
    async fn pull(&self, image: &str) -> Result<(), Fault> {
        let path = format!("/images/create?fromImage={}", escape(image));
        let (status, answer) = self.api.raw(Method::POST, &path, "application/json", Vec::new()).await?;
        let text = String::from_utf8_lossy(&answer);
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let error =
            lines.filter_map(|it| it["error"].as_str().or(it["message"].as_str()).map(str::to_owned)).next_back();
        match error {
            None if status < 300 => Ok(()),
            error => {
                let message = error.unwrap_or_else(|| "no reason is given".into());
                Err(Fault::Refused { what: format!("image {image}"), status, message })
            }
        }
    }

    /// Waits until a container has run for a while, healthy or not yet checked. The engine may start it again after a failure,
    /// as its restart policy says; an error if it ends for good, or fails too often.
    async fn watch(&self, name: &str, spec: &Value) -> Result<(), Fault> {
        let nanos = spec["UpdateConfig"]["Monitor"].as_u64().filter(|it| *it > 0);
        let monitor = nanos.map_or(MONITOR, Duration::from_nanos).min(START_TIME_MAX);
        let service = spec["Name"].as_str().unwrap_or_default();
        let failed = |reason: String| Fault::Failed { service: service.to_owned(), reason };
        let deadline = Instant::now() + START_TIME_MAX;
        let (mut before, mut runs) = (None, None);
        let mut reason = "it was started again".to_owned();
        loop {
            let answer = self.api.call(Method::GET, &format!("/containers/{name}/json"), None).await?;
            let (start, restarts, ended) = shape::start(&good(answer, &format!("container {name}"))?);
            if start != Start::Running {
                reason = ended;
            }
            // A container that went back has those of its former life.
            let failures = restarts.saturating_sub(*before.get_or_insert(restarts));
            match start {
                Start::Complete => return Ok(()),
                Start::Failed if failures == 0 => return Err(failed(format!("a task failed: {reason}"))),
                Start::Failed => return Err(failed(format!("a task failed {} times: {reason}", failures + 1))),
                _ if failures >= FAILED_STARTS_MAX => {
                    return Err(failed(format!("a task failed {failures} times: {reason}")));
                }
                Start::Running => {
                    let (since, of) = *runs.get_or_insert((Instant::now(), restarts));
                    if of != restarts {
                        runs = Some((Instant::now(), restarts));
                    } else if since.elapsed() >= monitor {
                        return Ok(());
                    }
                }
                Start::Waiting => runs = None,
            }
            if Instant::now() > deadline {
                return Err(failed(format!("container {name} does not run within {} s", START_TIME_MAX.as_secs())));
            }
            sleep(LOOK_PERIOD).await;
        }
    }

    /// Stops and removes a container with its nameless volumes.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Fault> {
        let gone = |answer: Answer| if answer.status == 404 { Ok(Value::Null) } else { good(answer, "container") };
        gone(self.api.call(Method::POST, &format!("/containers/{id}/stop"), None).await?)?;
        gone(self.api.call(Method::DELETE, &format!("/containers/{id}?force=1&v=1"), None).await?).map(drop)
    }

    /// The logs of a service: those of its containers, each line with its task as a swarm tells it.
    pub(super) async fn logs(&self, service: &str, path: &str) -> Result<Pieces, Fault> {
        let query = path.split_once('?').map_or("", |(_, query)| query).replace("details=1", "details=0");
        let mut parts = Vec::new();
        for container in self.of_service(service).await?.iter().filter(|it| shape::slot(it) > 0) {
            let id = id(container).to_owned();
            let has_terminal = shape::spec(container)["TaskTemplate"]["ContainerSpec"]["TTY"] == true;
            let pieces = self.api.pieces(&format!("/containers/{id}/logs?{query}")).await?;
            let short = id.get(..25).unwrap_or(&id);
            let details = format!("com.docker.swarm.node.id=engine,com.docker.swarm.task.id={short}");
            let mut splitter = Splitter::new(!has_terminal);
            parts.push(
                pieces.map(move |piece| Ok(detailed(&mut splitter, &piece?, &details, !has_terminal).into())).boxed(),
            );
        }
        Ok(Box::pin(futures_util::stream::select_all(parts)))
    }
}

fn id(container: &Value) -> &str {
    container["Id"].as_str().unwrap_or_default()
}

/// Lines with details behind their times, as frames or as they are.
fn detailed(splitter: &mut Splitter, piece: &[u8], details: &str, is_framed: bool) -> Vec<u8> {
    splitter.take(piece);
    let mut out = Vec::new();
    while let Some((is_error, line)) = splitter.line() {
        let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let text = [&line[..end], b" ", details.as_bytes(), &line[end..]].concat();
        if is_framed {
            out.extend_from_slice(&[if is_error { 2 } else { 1 }, 0, 0, 0]);
            out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
        }
        out.extend_from_slice(&text);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_say_who_they_are() {
        let mut splitter = Splitter::new(false);
        let out = detailed(&mut splitter, b"T one two\nT ", "task=1", false);
        assert_eq!(String::from_utf8_lossy(&out), "T task=1 one two\n");
        assert_eq!(super::super::former("shop-web-1"), "shop-web-1.former");
    }
}
