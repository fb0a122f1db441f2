//! An engine that is played: the part of the Docker API that agents use, over connections in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use herder_decide::swarm::members::FENCE;
use herder_docker::{Dial, Dialling, Duplex};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::broadcast;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::runs::Runs;

/// Bytes under way in one connection.
const PIPE_BYTES: usize = 64 << 10;
/// Events that somebody may be behind.
const EVENTS_BEHIND_MAX: usize = 1024;
/// Usual duration of a call, in milliseconds.
pub(crate) const QUICK: std::ops::Range<u64> = 1..10;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The engine of one host. Copies are the same engine.
#[derive(Clone, Debug)]
pub(crate) struct Engine(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    host: String,
    rng: StdRng,
    runs: Runs,
    containers: BTreeMap<String, Container>,
    events: broadcast::Sender<Bytes>,
    /// Cut when the host loses power. None: it has none.
    power: Option<CancellationToken>,
    pace: std::ops::Range<u64>,
    made: u64,
}

#[derive(Clone, Debug)]
struct Container {
    id: String,
    name: String,
    labels: BTreeMap<String, String>,
    /// Network → its address there.
    addresses: BTreeMap<String, String>,
    status: &'static str,
    exit_code: i64,
}

impl Engine {
    pub(crate) fn new(host: &str, rng: StdRng, runs: Runs) -> Engine {
        Engine(Arc::new(Mutex::new(State {
            host: host.to_owned(),
            rng,
            runs,
            containers: BTreeMap::new(),
            events: broadcast::channel(EVENTS_BEHIND_MAX).0,
            power: None,
            pace: QUICK,
            made: 0,
        })))
    }

    pub(crate) fn turn_on_if_off(&self) {
        self.0.lock().power.get_or_insert_with(CancellationToken::new);
    }

    /// Ends all containers without notice.
    pub(crate) fn turn_off(&self) {
        let mut state = self.0.lock();
        if let Some(power) = state.power.take() {
            power.cancel();
        }
        state.events = broadcast::channel(EVENTS_BEHIND_MAX).0;
        let running: Vec<String> =
            state.containers.values().filter(|it| it.status == "running").map(|it| it.id.clone()).collect();
        for id in running {
            state.end(&id, 137, false);
        }
    }

    /// The engine ends, its containers go on. It is turned on as after a loss of power.
    pub(crate) fn die(&self) {
        let mut state = self.0.lock();
        if let Some(power) = state.power.take() {
            power.cancel();
        }
        state.events = broadcast::channel(EVENTS_BEHIND_MAX).0;
    }

    /// Ends what may not run without a lease. The engine is not asked.
    pub(crate) fn end_fenced(&self) {
        let mut state = self.0.lock();
        let is_fenced = |it: &&Container| it.status == "running" && it.labels.get(FENCE).is_some_and(|it| it == "true");
        let fenced: Vec<String> = state.containers.values().filter(is_fenced).map(|it| it.id.clone()).collect();
        for id in fenced {
            state.end(&id, 137, true);
        }
    }

    pub(crate) fn pace(&self, millis: std::ops::Range<u64>) {
        self.0.lock().pace = millis;
    }

    /// A program in one of the containers ends by itself.
    pub(crate) fn break_one(&self, which: u64) {
        let mut state = self.0.lock();
        let running: Vec<String> =
            state.containers.values().filter(|it| it.status == "running").map(|it| it.id.clone()).collect();
        let count = u64::try_from(running.len()).unwrap_or(1).max(1);
        if let Some(id) = usize::try_from(which % count).ok().and_then(|at| running.get(at)) {
            state.end(id, 1, true);
        }
    }
}

impl State {
    fn tell(&self, action: &str, container: &Container) {
        let mut attributes = json!(container.labels);
        attributes["name"] = json!(container.name);
        attributes["exitCode"] = json!(container.exit_code.to_string());
        let event =
            json!({"Type": "container", "Action": action, "Actor": {"ID": container.id, "Attributes": attributes}});
        // That nobody listens is fine.
        let _ = self.events.send(Bytes::from(format!("{event}\n")));
    }

    fn end(&mut self, id: &str, exit_code: i64, is_told: bool) {
        let Some(container) = self.containers.get_mut(id) else { return };
        (container.status, container.exit_code) = ("exited", exit_code);
        let container = container.clone();
        self.runs.ends(&self.host, &container.labels);
        if is_told {
            self.tell("die", &container);
        }
    }

    fn find(&self, name: &str) -> Option<Container> {
        self.containers.values().find(|it| it.id == name || it.name == name).cloned()
    }

    /// Returns the duration of the next call.
    fn take(&mut self) -> Duration {
        let pace = self.pace.clone();
        Duration::from_millis(self.rng.random_range(pace))
    }

    fn info(&self) -> Value {
        json!({"Name": self.host, "NCPU": 8, "MemTotal": 16_u64 << 30, "OSType": "linux", "Architecture": "x86_64",
            "ServerVersion": "20.10.24", "Labels": [], "Plugins": {"Volume": ["local"], "Network": ["bridge"], "Log": []}})
    }

    fn create(&mut self, name: &str, body: &[u8]) -> Response<Body> {
        if self.find(name).is_some() {
            return refuse(409, "Conflict. The container name is already in use");
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        self.made += 1;
        let labels = body["Labels"].as_object().into_iter().flatten();
        let container = Container {
            id: format!("{}{:060x}", self.host, self.made),
            name: name.to_owned(),
            addresses: body["NetworkingConfig"]["EndpointsConfig"]
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(network, endpoint)| Some((network.clone(), address(endpoint)?)))
                .collect(),
            labels: labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect(),
            status: "created",
            exit_code: 0,
        };
        self.tell("create", &container);
        let answer = json!({"Id": container.id, "Warnings": []});
        self.containers.insert(container.id.clone(), container);
        reply(201, &answer)
    }

    fn connect(&mut self, network: &str, body: &[u8]) -> Response<Body> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let found = self.find(body["Container"].as_str().unwrap_or_default()).map(|it| it.id);
        let Some(container) = found.and_then(|id| self.containers.get_mut(&id)) else {
            return refuse(404, "No such container");
        };
        if container.addresses.contains_key(network) {
            let name = &container.name;
            return refuse(403, &format!("endpoint with name {name} already exists in network {network}"));
        }
        container.addresses.extend(address(&body["EndpointConfig"]).map(|it| (network.to_owned(), it)));
        reply(200, &Value::Null)
    }

    /// Answers calls about one container.
    fn container(&mut self, method: &Method, name: &str, action: Option<&str>) -> Response<Body> {
        let Some(found) = self.find(name) else { return refuse(404, &format!("No such container: {name}")) };
        match (method, action) {
            (&Method::GET, Some("json")) => reply(200, &found.inspect()),
            (&Method::POST, Some("start")) => {
                if let Some(it) = self.containers.get_mut(&found.id) {
                    it.status = "running";
                }
                if found.status != "running" {
                    self.runs.begins(&self.host, &found.labels, &found.addresses);
                    self.tell("start", &found);
                }
                reply(204, &Value::Null)
            }
            (&Method::POST, Some("stop" | "kill")) => {
                if found.status == "running" {
                    self.end(&found.id, 137, true);
                } else if action == Some("kill") {
                    return refuse(409, "Cannot kill container: it is not running");
                }
                reply(204, &Value::Null)
            }
            (&Method::DELETE, None) => {
                if found.status == "running" {
                    self.end(&found.id, 137, true);
                }
                self.containers.remove(&found.id);
                self.tell("destroy", &found);
                reply(204, &Value::Null)
            }
            _ => refuse(404, "page not found"),
        }
    }
}

fn address(endpoint: &Value) -> Option<String> {
    endpoint["IPAMConfig"]["IPv4Address"].as_str().map(str::to_owned)
}

impl Container {
    fn inspect(&self) -> Value {
        let pid = if self.status == "running" { 1 } else { 0 };
        json!({"Id": self.id, "Name": format!("/{}", self.name), "Config": {"Labels": self.labels},
            "State": {"Status": self.status, "ExitCode": self.exit_code, "Pid": pid, "Error": ""},
            "NetworkSettings": {"Ports": {}}})
    }
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).boxed_unsync()
}

fn reply(status: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(full(if body.is_null() { String::new() } else { body.to_string() }));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    response
}

fn refuse(status: u16, message: &str) -> Response<Body> {
    reply(status, &json!({"message": message}))
}

impl Dial for Engine {
    fn dial<'d>(&'d self, _: &'d str) -> Dialling<'d> {
        Box::pin(async {
            let Some(power) = self.0.lock().power.clone() else { return Err(io::ErrorKind::ConnectionRefused.into()) };
            let (here, there) = tokio::io::duplex(PIPE_BYTES);
            let served = serve(self.clone(), there);
            tokio::spawn(async move { power.run_until_cancelled(served).await });
            Ok(Box::new(here) as Box<dyn Duplex>)
        })
    }
}

async fn serve(engine: Engine, connection: DuplexStream) {
    let service = service_fn(|request| {
        let engine = engine.clone();
        async move { Ok::<_, Infallible>(engine.answer(request).await) }
    });
    // A connection that breaks is normal here.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

impl Engine {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let took = self.0.lock().take();
        sleep(took).await;
        let path = parts.uri.path();
        let path = path.strip_prefix("/v1.41").unwrap_or(path);
        let mut state = self.0.lock();
        if state.power.is_none() {
            return refuse(500, "no power");
        }
        match (&parts.method, path) {
            (_, "/version") => reply(200, &json!({"Version": "20.10.24", "ApiVersion": "1.41"})),
            (_, "/_ping") => reply(200, &Value::Null),
            (_, "/info") => reply(200, &state.info()),
            (_, "/events") => Response::new(events(state.events.subscribe())),
            (_, "/containers/json") => reply(200, &state.containers.keys().map(|id| json!({"Id": id})).collect()),
            (_, "/volumes/create") => reply(201, &json!({})),
            (_, "/images/create") => reply(200, &Value::Null),
            (&Method::POST, "/containers/create") => {
                let name = parts.uri.query().and_then(|query| query.strip_prefix("name=")).unwrap_or_default();
                state.create(name, &body)
            }
            (method, path) => {
                let mut words = path.split('/').skip(1);
                match (words.next(), words.next()) {
                    (Some("networks"), Some(network)) => state.connect(network, &body),
                    (Some("containers"), Some(name)) => state.container(method, name, words.next()),
                    _ => refuse(404, "page not found"),
                }
            }
        }
    }
}

fn events(receiver: broadcast::Receiver<Bytes>) -> Body {
    let live = stream::unfold(receiver, |mut receiver| async {
        let event = receiver.recv().await.ok()?;
        Some((event, receiver))
    });
    StreamBody::new(live.map(|event| Ok(Frame::data(event)))).boxed_unsync()
}
