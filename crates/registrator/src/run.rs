//! The loop: follow the engine, update the plan, write changes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use herder_docker::EngineLink;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::engine::{self, EngineFailed, Happened};
use crate::plan::{Books, SERVICES_MAX, Write, ended_well, rest};
use crate::service::{Rules, network_container, services};
use crate::sink::Sink;
use crate::tags::ForcedTags;
use herder_kv::KvError;

/// Events that wait to be worked on.
const EVENTS_WAITING_MAX: usize = 4096;

/// Interval at which Consul gets the health of containers; see [`crate::record::HEALTH_TTL`].
const FEED_PERIOD: Duration = Duration::from_secs(15);

/// Pause after a failed look at the engine.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The rule by which entries of ended containers go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deregister {
    #[default]
    Always,
    /// Those of failed containers stay until their TTL.
    OnSuccess,
}

/// Options of a registrator.
#[derive(Debug)]
pub struct Settings {
    pub rules: Rules,
    pub tags: ForcedTags,
    /// Interval at which entries with a TTL are renewed.
    pub ttl_refresh: Option<Duration>,
    /// Interval at which all services are registered again.
    pub resync: Option<Duration>,
    /// Names of hosts whose entries without a container are removed at the start.
    pub cleanup: Vec<String>,
    pub deregister: Deregister,
    /// The endpoint is one over many engines: each container is registered with the name and the address of its node.
    pub many_hosts: bool,
    /// Attempts at the store besides the first one; none is for ever.
    pub retry_attempts: Option<u64>,
    pub retry_interval: Duration,
}

/// Says why registration cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the store does not answer after {attempts} attempts: {source}")]
    Store { attempts: u64, source: KvError },
}

/// Registers the services of one engine until `stop` is cancelled.
///
/// # Errors
/// Only if the store is not there at the start. Later troubles are told and tried again.
pub async fn run(
    link: &EngineLink,
    sink: &Sink,
    settings: &Settings,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    if !wait_for_store(sink, settings, stop).await? {
        return Ok(());
    }
    let (send, mut happened) = mpsc::channel(EVENTS_WAITING_MAX);
    let following = engine::follow(link, send, stop);
    let keeping = keep(link, sink, settings, &mut happened);
    tokio::select! {
        () = following => {}
        () = keeping => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

/// Removes all entries of these hosts from a store, and returns their number.
///
/// # Errors
/// Says which entry stays, and why.
pub async fn withdraw(sink: &Sink, hosts: &[String]) -> Result<usize, KvError> {
    let own = sink.own(hosts).await?;
    for service in &own {
        sink.deregister(service).await?;
    }
    Ok(own.len())
}

/// Waits for the store; returns false if this program is stopped.
async fn wait_for_store(sink: &Sink, settings: &Settings, stop: &CancellationToken) -> Result<bool, RunError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let source = match sink.ping().await {
            Ok(()) => return Ok(true),
            Err(error) => error,
        };
        if settings.retry_attempts.is_some_and(|most| attempts > most) {
            return Err(RunError::Store { attempts, source });
        }
        warn!(error = %source, attempts, "the store does not answer");
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = sleep(settings.retry_interval) => {}
        }
    }
}

struct Registrar<'k> {
    link: &'k EngineLink,
    sink: &'k Sink,
    settings: &'k Settings,
    books: Books,
    /// Health of containers with a health check.
    health: BTreeMap<String, String>,
    failures: u32,
    next_write: Instant,
    /// Everything must be looked at again: events were lost, or a look failed.
    look: Option<Instant>,
    cleaned: bool,
}

async fn keep(link: &EngineLink, sink: &Sink, settings: &Settings, happened: &mut mpsc::Receiver<Happened>) {
    let now = Instant::now();
    let mut registrar = Registrar {
        link,
        sink,
        settings,
        books: Books::default(),
        health: BTreeMap::new(),
        failures: 0,
        next_write: now,
        look: None,
        cleaned: settings.cleanup.is_empty(),
    };
    let refresh = [settings.ttl_refresh, sink.refresh()].into_iter().flatten().min();
    let at = |period: Option<Duration>| period.map(|period| Instant::now() + period);
    let (mut next_refresh, mut next_resync) = (at(refresh), at(settings.resync));
    let mut next_feed = now + FEED_PERIOD;
    loop {
        let due = !registrar.books.due().is_empty();
        tokio::select! {
            biased;
            event = happened.recv() => match event {
                Some(event) => registrar.hear(event).await,
                None => return,
            },
            () = until(registrar.look) => registrar.look_at_all().await,
            () = sleep_until(registrar.next_write), if due => registrar.write().await,
            () = until(next_refresh) => {
                next_refresh = at(refresh);
                registrar.books.again();
            }
            () = until(next_resync) => {
                next_resync = at(settings.resync);
                registrar.books.again();
                registrar.look = Some(Instant::now());
            }
            () = sleep_until(next_feed) => {
                next_feed = Instant::now() + FEED_PERIOD;
                registrar.feed_all().await;
            }
        }
    }
}

/// Never, if there is no time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Registrar<'_> {
    async fn hear(&mut self, event: Happened) {
        debug!(?event, "event of the engine");
        let result = match event {
            Happened::Attached | Happened::Engines => {
                self.look_at_all().await;
                Ok(())
            }
            Happened::Started(id) | Happened::Renamed(id) => self.look_at(&id).await,
            Happened::Died(id) => self.died(&id).await,
            Happened::Health(id, status) => {
                self.health.insert(id.clone(), status);
                self.feed(&id).await;
                Ok(())
            }
        };
        if let Err(error) = result {
            self.doubt(&error);
        }
    }

    fn doubt(&mut self, error: &EngineFailed) {
        warn!(%error, "reading the engine again in {LOOK_AGAIN:?}");
        self.look = Some(Instant::now() + LOOK_AGAIN);
    }

    async fn look_at(&mut self, id: &str) -> Result<(), EngineFailed> {
        match engine::inspect(self.link, id).await? {
            Some(container) if container["State"]["Running"] == true => self.runs(&container).await?,
            // Its end is told by an event of its own.
            Some(_) => {}
            None => self.books.ended(id),
        }
        Ok(())
    }

    async fn runs(&mut self, container: &Value) -> Result<(), EngineFailed> {
        let id = container["Id"].as_str().unwrap_or_default().to_owned();
        let other = match network_container(container) {
            Some(other) => engine::inspect(self.link, other).await?,
            None => None,
        };
        let tags = self.settings.tags.of(container).unwrap_or_else(|error| {
            warn!(
                container = id,
                error, "the template of -tags does not run over this container; it gets no such tags"
            );
            String::new()
        });
        let rules = match node_of(container).filter(|_| self.settings.many_hosts) {
            Some((hostname, host_ip)) => Rules { hostname, host_ip, ..self.settings.rules.clone() },
            None => self.settings.rules.clone(),
        };
        let (found, ignored) = services(container, other.as_ref(), &tags, &rules);
        for why in ignored {
            debug!(why = why.0, "ignored");
        }
        if let Some(status) = container["State"]["Health"]["Status"].as_str() {
            self.health.insert(id.clone(), status.to_owned());
        }
        if !self.books.runs(&id, found) {
            warn!(container = id, "not registering a service: there are {SERVICES_MAX} already");
        }
        Ok(())
    }

    async fn died(&mut self, id: &str) -> Result<(), EngineFailed> {
        self.health.remove(id);
        if self.settings.deregister == Deregister::Always {
            self.books.ended(id);
            return Ok(());
        }
        match engine::inspect(self.link, id).await? {
            // Started again meanwhile.
            Some(container) if container["State"]["Running"] == true => {}
            Some(container) if !ended_well(container["State"]["ExitCode"].as_i64().unwrap_or(1)) => {
                self.books.failed(id);
            }
            _ => self.books.ended(id),
        }
        Ok(())
    }

    async fn look_at_all(&mut self) {
        self.look = None;
        if let Err(error) = self.try_look_at_all().await {
            self.doubt(&error);
        }
    }

    async fn try_look_at_all(&mut self) -> Result<(), EngineFailed> {
        let running = engine::running(self.link).await?;
        let ids: Vec<&str> = running.iter().filter_map(|container| container["Id"].as_str()).collect();
        let gone: Vec<String> = self.books.containers().into_iter().filter(|id| !ids.contains(&id.as_str())).collect();
        for id in gone {
            self.died(&id).await?;
        }
        for container in &running {
            self.runs(container).await?;
        }
        info!(containers = running.len(), "read the engine");
        if self.books.due().is_empty() {
            self.sink.settled();
        }
        if !self.cleaned {
            match self.sink.own(&self.settings.cleanup).await {
                Ok(own) => {
                    self.cleaned = true;
                    own.into_iter().for_each(|service| self.books.found(service));
                }
                Err(error) => warn!(%error, "entries of an earlier run cannot be looked for"),
            }
        }
        Ok(())
    }

    /// Writes what is due. After a failure the rest waits, since the store is away for all of it.
    async fn write(&mut self) {
        for write in self.books.due() {
            let (done, service) = match &write {
                Write::Register(service) => (self.sink.register(service).await, service),
                Write::Deregister(service) => (self.sink.deregister(service).await, service),
            };
            match done {
                Ok(()) => {
                    if self.failures > 0 {
                        // It may have lost what it had.
                        info!("the store accepts writes again");
                        self.failures = 0;
                        self.books.again();
                    }
                    let verb = if matches!(write, Write::Register(_)) { "registered" } else { "removed" };
                    debug!(id = service.id, name = service.name, "{verb}");
                    self.books.done(&write);
                }
                Err(error @ KvError::Refused { .. }) => {
                    warn!(id = service.id, %error, "the store refuses a service");
                    self.failed();
                }
                Err(error) => {
                    if self.failures == 0 {
                        warn!(id = service.id, %error, "the store is out of reach");
                    }
                    self.failed();
                    return;
                }
            }
        }
    }

    fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.next_write = Instant::now() + rest(self.failures);
    }

    async fn feed(&self, container: &str) {
        let Some(status) = self.health.get(container) else { return };
        for service in self.books.live().filter(|service| service.container == container) {
            if let Err(error) = self.sink.feed(service, status).await {
                debug!(%error, "cannot send the health of a service to Consul");
            }
        }
    }

    async fn feed_all(&self) {
        for container in self.health.keys() {
            self.feed(container).await;
        }
    }
}

/// The node of a container, as an endpoint over many engines tells it.
fn node_of(container: &Value) -> Option<(String, Option<IpAddr>)> {
    let node = container.get("Node")?;
    let name = node["Name"].as_str()?.to_owned();
    Some((name, node["IP"].as_str().and_then(|ip| ip.parse().ok())))
}
