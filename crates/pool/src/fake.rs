//! An engine that is none: answers as a Docker Engine does, without containers behind it. For tests that need faults on
//! demand, and for benchmarks of a thousand nodes.

mod objects;
mod serve;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use objects::FakeContainer;

use crate::board::now_nano;

/// Events that the engine remembers for `since`, as dockerd does.
const EVENTS_KEPT: usize = 256;

/// Description of a fake engine.
#[derive(Clone, Debug)]
pub struct FakeSpec {
    pub name: String,
    /// Id as in `docker info`; the same on two engines is an error that the pool must find.
    pub engine_id: String,
    /// Daemon labels, `key=value`.
    pub labels: Vec<String>,
    pub ncpu: i64,
    pub memory_bytes: i64,
    /// Address of the listener; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Delay of each answer.
    pub latency: Duration,
    /// Seconds by which the engine's clock is ahead.
    pub clock_ahead: i64,
}

impl FakeSpec {
    /// An engine called `name` with two processors and 4 GiB on a free port of the loopback address.
    pub fn new(name: &str) -> FakeSpec {
        FakeSpec {
            name: name.to_owned(),
            engine_id: format!("FAKE:{name}"),
            labels: vec![],
            ncpu: 2,
            memory_bytes: 4 << 30,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            latency: Duration::ZERO,
            clock_ahead: 0,
        }
    }
}

/// A fake engine. Ends when dropped.
#[derive(Debug)]
pub struct FakeEngine {
    shared: Arc<Shared>,
    addr: SocketAddr,
    /// Ends the listener, and its task.
    listening: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
}

/// State that connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    spec: FakeSpec,
    /// Changes between two lives.
    engine_id: Mutex<String>,
    hung: watch::Sender<bool>,
    /// Ends the connections that are open now.
    connected: Mutex<CancellationToken>,
    containers: Mutex<BTreeMap<String, FakeContainer>>,
    events: broadcast::Sender<Arc<str>>,
    past: Mutex<std::collections::VecDeque<(i64, Arc<str>)>>,
    /// Requests so far by method and first words of the path, such as `GET /containers/{id}/json`.
    requests: Mutex<HashMap<String, usize>>,
    /// `(part of a path, status)`: such requests are answered with an error.
    errors: Mutex<Vec<(String, u16)>>,
}

impl FakeEngine {
    /// Starts to listen. Must be called inside a tokio runtime.
    pub async fn start(spec: FakeSpec) -> io::Result<FakeEngine> {
        let listener = TcpListener::bind(spec.addr).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            engine_id: Mutex::new(spec.engine_id.clone()),
            spec,
            hung: watch::Sender::new(false),
            connected: Mutex::default(),
            containers: Mutex::default(),
            events: broadcast::Sender::new(1024),
            past: Mutex::default(),
            requests: Mutex::default(),
            errors: Mutex::default(),
        });
        let engine = FakeEngine { shared, addr, listening: Mutex::default() };
        engine.run(listener);
        Ok(engine)
    }

    /// `host:port`, as discovery names it.
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    fn run(&self, listener: TcpListener) {
        let token = CancellationToken::new();
        let task = tokio::spawn(serve::accept(self.shared.clone(), listener, token.clone()));
        *self.listening.lock() = Some((token, task));
    }

    /// Ends at once: connections are closed, new ones refused. What it "runs" is kept, what it remembers is not.
    pub fn kill(&self) {
        if let Some((token, _)) = &*self.listening.lock() {
            token.cancel();
        }
        self.cut();
        self.shared.past.lock().clear();
    }

    /// Closes every connection; new ones are welcome.
    pub fn cut(&self) {
        std::mem::take(&mut *self.shared.connected.lock()).cancel();
    }

    /// Listens again at the same address after [`FakeEngine::kill`].
    pub async fn revive(&self) -> io::Result<()> {
        let last = self.listening.lock().take();
        if let Some((token, task)) = last {
            token.cancel();
            task.await?;
        }
        self.run(TcpListener::bind(self.addr).await?);
        Ok(())
    }

    /// Stops answering; connections stay open and are still taken by the kernel.
    pub fn hang(&self) {
        self.shared.hung.send_replace(true);
    }

    /// Resumes after [`FakeEngine::hang`].
    pub fn resume(&self) {
        self.shared.hung.send_replace(false);
    }

    /// Shows another engine id from now on, as a machine that was installed anew does.
    pub fn set_engine_id(&self, id: &str) {
        *self.shared.engine_id.lock() = id.to_owned();
    }

    /// Answers requests whose path has `part` in it with `status`.
    pub fn fail(&self, part: &str, status: u16) {
        self.shared.errors.lock().push((part.to_owned(), status));
    }

    /// Puts a container in and tells about it. Gives its id.
    pub fn add(&self, container: FakeContainer) -> String {
        self.shared.add(container)
    }

    /// Changes a container's state. `tell` says whether an event is sent; without, it happened while nobody could know.
    pub fn set_state(&self, id: &str, state: &str, tell: bool) {
        if let Some(container) = self.shared.containers.lock().get_mut(id) {
            container.state = state.to_owned();
        }
        if tell {
            let action = if state == "running" { "start" } else { "die" };
            self.shared.tell(action, id);
        }
    }

    /// Takes a container out; see [`FakeEngine::set_state`] for `tell`.
    pub fn remove(&self, id: &str, tell: bool) {
        if tell {
            self.shared.tell("destroy", id);
        }
        self.shared.containers.lock().remove(id);
    }

    /// Sends an event about a container that changes nothing.
    pub fn tell(&self, action: &str, id: &str) {
        self.shared.tell(action, id);
    }

    /// Number of containers.
    pub fn containers(&self) -> usize {
        self.shared.containers.lock().len()
    }

    /// Returns the number of requests of a kind, such as `GET /containers/{id}/json`.
    pub fn requests(&self, kind: &str) -> usize {
        self.shared.requests.lock().get(kind).copied().unwrap_or_default()
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn add(&self, container: FakeContainer) -> String {
        let id = container.id.clone();
        let running = container.state == "running";
        self.containers.lock().insert(id.clone(), container);
        self.tell("create", &id);
        if running {
            self.tell("start", &id);
        }
        id
    }

    fn tell(&self, action: &str, id: &str) {
        let name = self.containers.lock().get(id).map(|container| container.name.clone()).unwrap_or_default();
        let nano = self.now_nano();
        let event = json!({"status": action, "id": id, "from": "busybox", "Type": "container", "Action": action,
            "Actor": {"ID": id, "Attributes": {"image": "busybox", "name": name}}, "scope": "local",
            "time": nano / 1_000_000_000, "timeNano": nano});
        let event: Arc<str> = format!("{event}\n").into();
        let mut past = self.past.lock();
        past.push_back((nano, event.clone()));
        if past.len() > EVENTS_KEPT {
            past.pop_front();
        }
        // Nobody listening is no error.
        let _ = self.events.send(event);
    }

    /// Returns the time by the engine's clock.
    fn now_nano(&self) -> i64 {
        now_nano() + self.spec.clock_ahead * 1_000_000_000
    }

    fn info(&self) -> Value {
        let spec = &self.spec;
        let time = jiff::Timestamp::from_nanosecond(self.now_nano().into()).unwrap_or_default();
        json!({"ID": *self.engine_id.lock(), "Name": spec.name, "NCPU": spec.ncpu, "MemTotal": spec.memory_bytes,
            "Labels": spec.labels, "Driver": "overlay2", "KernelVersion": "6.1.0", "OperatingSystem": "Fake",
            "OSType": "linux", "Architecture": "x86_64", "ServerVersion": "20.10.24",
            "SystemTime": time.to_string(), "Containers": self.containers.lock().len()})
    }
}
