//! State for every handler: the pool, and the settings of this door.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use herder_bus::bridge::Bridge;
use herder_decide::schedule::Scheduler;
use herder_decide::swarm::local::LocalState;
use herder_decide::versions::Version;
use herder_http::ListenerNames;
use herder_model::swarm::Role;
use herder_place::Placer;
use herder_pool::{Body, Engine, Pool};
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, header};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::actions::Actions;
use crate::audit::Audit;
use crate::bus::BusDoor;
use crate::containers::Lists;
use crate::exec::Execs;
use crate::layers::{self, Authorise, Everybody, Record};
use crate::path::{self, Target};
use crate::replica::Replica;
use crate::routes::{Handler, TABLE};
use crate::stacks::metrics::Metrics;
use crate::stacks::remote::Limits;
use crate::swarm::{Swarm, SwarmDoor};
use crate::{ApiError, Call, Peer, Reply, bus, guard, system};

/// `Server` header and the version that `docker version` shows.
pub(crate) const SERVER: &str = concat!("herder/", env!("CARGO_PKG_VERSION"));

/// The version of the API that is named while no engine is known; that of the oldest engine served (20.10).
const API_VERSION_WITHOUT_ENGINES: &str = "1.41";

/// Docker's own sentence for what needs swarm mode.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                        node to swarm and try again.";

/// Settings of a door. Flags of `herder manage` set it.
#[derive(Clone, Debug, Default)]
pub struct FrontSettings {
    /// True if pages of other origins may call (`--api-enable-cors`).
    pub cors: bool,
    /// Shown in `info` and `version` (`--experimental`).
    pub experimental: bool,
    /// A `node` filter on the container list re-reads that engine first (`--refresh-on-node-filter`).
    pub refresh_on_node_filter: bool,
    /// A `name` filter with this value re-reads all engines first (`--container-name-refresh-filter`).
    pub container_name_refresh_filter: Option<String>,
    /// More attempts after a create that failed (`--cluster-opt swarm.createretry`).
    pub create_retry: u32,
    /// Names besides the node's own under which clients may reach the door on TCP (`--allowed-host`).
    pub allowed_hosts: Vec<String>,
    /// Access rules; without them every caller may do everything.
    pub authorise: Option<Arc<dyn Authorise>>,
    /// Log of requests that change something (`--audit-log`).
    pub audit: Option<Arc<dyn Audit>>,
}

/// The Docker API over all nodes.
#[derive(Debug)]
pub struct Front {
    pub pool: Arc<Pool>,
    pub placer: Arc<Placer>,
    pub settings: FrontSettings,
    pub(crate) lists: Lists,
    pub(crate) execs: Execs,
    /// Only when there are several managers.
    pub(crate) replica: OnceLock<Replica>,
    pub(crate) actions: Actions,
    /// Only where there is an event bus.
    pub(crate) bus: OnceLock<BusDoor>,
    /// Only where there can be a swarm.
    pub(crate) swarm: SwarmDoor,
    /// Notified when an operation on a stack was written through this door.
    pub(crate) operations_begun: Notify,
    /// Remote targets that failed of late.
    pub(crate) limits: Limits,
    /// Figures of stacks and targets.
    pub(crate) metrics: Metrics,
    /// The answer of [`Front::api_version`] for a version of the pool.
    api_version: Mutex<(u64, String)>,
}

impl Front {
    pub fn new(pool: Arc<Pool>, scheduler: Scheduler, settings: FrontSettings) -> Arc<Front> {
        let placing = herder_place::Settings { create_retry: settings.create_retry };
        let placer = Placer::new(pool.clone(), scheduler, placing);
        let (lists, execs, replica, actions, bus, swarm, operations_begun, api_version) = Default::default();
        let (limits, metrics) = Default::default();
        Arc::new(Front {
            pool,
            placer,
            settings,
            lists,
            execs,
            replica,
            actions,
            bus,
            swarm,
            operations_begun,
            limits,
            metrics,
            api_version,
        })
    }

    /// Makes this manager one of several: while it does not lead, calls go on to the one that does. Only the first
    /// call counts.
    pub fn replicate(&self, replica: Replica) {
        if self.replica.set(replica).is_err() {
            tracing::error!("a manager is made a replica twice; the second time is ignored");
        }
    }

    /// Opens the event bus below `/eventbus` and `/events/stream`. Only the first call counts.
    pub fn open_bus(&self, bridge: Arc<Bridge>) {
        if self.bus.set(BusDoor::new(bridge)).is_err() {
            tracing::error!("the event bus is opened twice; the second time is ignored");
        }
    }

    /// The engines of all nodes that answer. A worker of a swarm has only its own.
    pub(crate) fn healthy_engines(&self) -> Vec<Arc<Engine>> {
        let nodes = self.pool.nodes();
        let reached = nodes.iter().filter(|node| node.is_healthy() && self.reaches(&node.addr));
        reached.filter_map(|node| self.pool.engine(&node.addr)).collect()
    }

    /// True if calls of this door are passed on to the engine of that node. Workers of a swarm do not reach other nodes' engines.
    pub(crate) fn reaches(&self, addr: &str) -> bool {
        let is_worker = |swarm: &Arc<dyn Swarm>| {
            let status = swarm.status();
            status.state == LocalState::Active && status.role == Role::Worker
        };
        let is_bound = self.swarm().is_some_and(is_worker);
        !is_bound || self.placer.peers().is_none_or(|peers| peers.here() == addr)
    }

    /// Sorts what several engines have. The one beside this door is first, and those that it does not reach are left
    /// out where others are left.
    pub(crate) fn nearest<T>(&self, found: &mut Vec<T>, engine: impl Fn(&T) -> &Arc<Engine>) {
        if found.iter().any(|it| self.reaches(engine(it).addr())) {
            found.retain(|it| self.reaches(engine(it).addr()));
        }
        let here = self.placer.peers().map(|it| it.here());
        found.sort_by_key(|it| Some(engine(it).addr()) != here);
    }

    /// The newest version of the API that every healthy engine speaks. A client that keeps to it can use whatever node
    /// its container lands on.
    pub fn api_version(&self) -> String {
        let version = self.pool.version();
        let mut known = self.api_version.lock();
        if known.0 != version || known.1.is_empty() {
            *known = (version, self.oldest_api_version());
        }
        known.1.clone()
    }

    fn oldest_api_version(&self) -> String {
        let nodes = self.pool.nodes();
        let versions = nodes.iter().filter(|node| node.is_healthy()).map(|node| node.api_version.as_str());
        let oldest = versions.filter_map(Version::parse).min();
        oldest.map_or_else(|| API_VERSION_WITHOUT_ENGINES.to_owned(), |version| version.to_string())
    }

    /// Answers one request. Never fails and never panics: trouble becomes an answer.
    pub async fn handle(self: &Arc<Self>, mut request: Request<Body>) -> Reply {
        let method = request.method().clone();
        let mut record = Record::begin(&mut request, self.settings.audit.clone());
        let answer = AssertUnwindSafe(self.answer(request, &mut record)).catch_unwind().await.unwrap_or_else(|panic| {
            let reason = panic_text(panic.as_ref());
            tracing::error!(reason, "a handler panicked");
            Err(ApiError::internal(format!("internal error of herder: {reason}")))
        });
        let mut reply = answer.unwrap_or_else(ApiError::into_reply);
        if method == Method::HEAD {
            *reply.body_mut() = herder_pool::empty();
        }
        self.stamp(&mut reply);
        record.finish(&mut reply).await;
        reply
    }

    async fn answer(self: &Arc<Self>, request: Request<Body>, record: &mut Record) -> Result<Reply, ApiError> {
        let is_allowed = self.is_from_no_stranger(&request, record);
        let (parts, body) = request.into_parts();
        // The event bus answers with the origin, since its clients send credentials.
        if is_allowed.is_ok()
            && parts.method == Method::OPTIONS
            && self.settings.cors
            && !parts.uri.path().starts_with("/eventbus")
        {
            return Ok(crate::call::no_content(StatusCode::OK));
        }
        is_allowed?;
        let Target { version, path } =
            path::split(parts.uri.path()).map_err(|error| ApiError::bad_request(error.to_string()))?;
        // The stack API is also below `/herder`, for doors behind a proxy that has a `/v2` of its own.
        let path = match path.strip_prefix("/herder/v2/") {
            Some(rest) => format!("/v2/{rest}"),
            None => path,
        };
        record.path.clone_from(&path);
        let (route, holes) = match TABLE.find(&parts.method, &path, version.as_deref()) {
            Ok(found) => found,
            Err(error) => return Ok(error.into_reply()),
        };
        record.action = Some(route.action);
        let rights = self.settings.authorise.as_deref().unwrap_or(&Everybody);
        layers::authorise(rights, &record.caller, route.action, route.callers, &path)
            .inspect_err(|_| record.denied = true)?;
        if let Some(replica) = self.replica.get()
            && let Some(primary) = replica.elsewhere(&parts, &path).await?
        {
            return replica.relay(parts, body, primary).await;
        }
        let query = path::query(parts.uri.query().unwrap_or(""));
        let call = Call { parts, body, version, path, query, holes, caller: record.caller.clone() };
        match route.handler {
            Handler::Front(handler) => handler(self, call).await,
            Handler::Swarm(handler) => handler(self.needs_swarm()?, call).await,
        }
    }

    /// The door's swarm, or the refusal of a door without one.
    pub(crate) fn needs_swarm(&self) -> Result<&Arc<dyn Swarm>, ApiError> {
        self.swarm().ok_or_else(|| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NO_SWARM))
    }

    /// Refuses what a web page of a stranger may have sent; see [`guard`].
    fn is_from_no_stranger(&self, request: &Request<Body>, record: &mut Record) -> Result<(), ApiError> {
        let (headers, path) = (request.headers(), request.uri().path());
        if record.caller.peer == Peer::Local {
            return Ok(());
        }
        guard::one_host(request.version(), request.uri(), headers)?;
        if matches!(record.caller.peer, Peer::Tcp(_)) {
            let names = request.extensions().get::<ListenerNames>();
            guard::own_name(headers, |name| self.is_own_name(name, names)).inspect_err(|_| record.denied = true)?;
        }
        // Actions and the event bus answer for themselves, each in its own form.
        if path == "/" || path.starts_with("/eventbus") || path == "/events/stream" {
            return Ok(());
        }
        bus::origin(self, headers, "this endpoint").map(drop).inspect_err(|_| record.denied = true)
    }

    /// True if `name` is a name of this node or one allowed by a flag. The names of its certificate and
    /// of the pool's nodes count, too.
    fn is_own_name(&self, name: &str, certificate: Option<&ListenerNames>) -> bool {
        let same = |it: &str| it.eq_ignore_ascii_case(name);
        let allowed = self.settings.allowed_hosts.iter().chain(certificate.iter().flat_map(|it| it.0.iter()));
        let machine = system::machine_name();
        let is_machine = same(machine) || machine.split_once('.').is_some_and(|(short, _)| same(short));
        let is_node = |node: &Arc<herder_model::Node>| same(&node.name) || same(herder_model::host_of(&node.addr));
        is_machine
            || allowed.map(String::as_str).any(|pattern| guard::allows(pattern, name))
            || self.pool.nodes().iter().any(is_node)
    }

    /// The headers that every answer of a Docker engine carries.
    fn stamp(&self, reply: &mut Response<Body>) {
        let headers = reply.headers_mut();
        if let Ok(version) = HeaderValue::from_str(&self.api_version()) {
            headers.insert(HeaderName::from_static("api-version"), version);
        }
        let experimental = if self.settings.experimental { "true" } else { "false" };
        headers.insert(HeaderName::from_static("docker-experimental"), HeaderValue::from_static(experimental));
        headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
        headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
        if self.settings.cors {
            // SockJS clients send credentials, and get a narrower answer.
            headers.entry(header::ACCESS_CONTROL_ALLOW_ORIGIN).or_insert(HeaderValue::from_static("*"));
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("Origin, X-Requested-With, Content-Type, Accept"),
            );
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static("GET, POST, DELETE, PUT, OPTIONS, HEAD"),
            );
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}
