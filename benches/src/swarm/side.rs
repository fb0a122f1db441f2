//! One side of the comparison: a door that speaks Docker's API of services, and the engine below.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::future::{try_join, try_join_all};
use serde_json::{Value, json};

use crate::http::Connection;
use crate::pool::{API, id};

/// Minimum interval of questions to both sides. It grows with the time that they take, since each question costs time
/// that a client with its own containers does not spend.
const LOOK_PERIOD_MIN: Duration = Duration::from_millis(3);
/// Share of the time that a look may come too late.
const LOOK_SHARE: u32 = 100;
/// No step takes longer, save on a machine that does nothing else.
const STEP_TIME_MAX: Duration = Duration::from_secs(120);
/// Calls at the same time of a client that makes containers without a swarm.
const PARALLEL: usize = 8;
/// Slots that an update works on at the same time.
const UPDATED_AT_ONCE: usize = 2;
/// Program that ends when it is stopped.
const PROGRAM: &str = r#"trap "exit 0" TERM; sleep 100000 & wait"#;

/// Declaration of a service.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) replicas: usize,
    /// Tasks of another version are replaced.
    pub(crate) version: u32,
    /// `stop-first` or `start-first`.
    pub(crate) order: &'static str,
    /// Pause between the end of a task and its next start; `None` for Docker's own.
    pub(crate) restart_delay: Option<Duration>,
    /// Network that its tasks are on.
    pub(crate) network: Option<&'static str>,
    /// Host that its tasks run on.
    pub(crate) on: Option<&'static str>,
}

impl Declared {
    pub(crate) fn new(replicas: usize) -> Declared {
        Declared { replicas, version: 0, order: "stop-first", restart_delay: None, network: None, on: None }
    }

    fn spec(&self, name: &str) -> Value {
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let restart = self.restart_delay.map(|delay| json!({"Condition": "any", "Delay": nanos(delay)}));
        json!({
            "Name": name,
            "Mode": {"Replicated": {"Replicas": self.replicas}},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "busybox:latest",
                    "Command": ["sh", "-c", PROGRAM],
                    "Env": [format!("VERSION={}", self.version)],
                },
                "RestartPolicy": restart,
                "Networks": self.network.map(|it| json!([{"Target": it}])),
                "Placement": self.on.map(|it| json!({"Constraints": [format!("node.hostname=={it}")]})),
            },
            "UpdateConfig": {"Parallelism": UPDATED_AT_ONCE, "Delay": 0, "Order": self.order},
        })
    }
}

/// A side, with connections that are open.
#[derive(Debug)]
pub(crate) struct Side {
    door: Connection,
    engine: Connection,
    engine_addr: String,
}

/// A service that was made.
#[derive(Debug)]
pub(crate) struct Service {
    id: String,
    name: String,
}

impl Side {
    /// `host:port` of both; `address` is what other nodes would reach the manager by.
    pub(crate) async fn open(door: &str, engine: &str, address: &str) -> anyhow::Result<Side> {
        let mut side = Side {
            door: Connection::open(door).await?,
            engine: Connection::open(engine).await?,
            engine_addr: engine.to_owned(),
        };
        let swarm = json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": address});
        side.door.call("POST", &format!("{API}/swarm/init"), Some(&swarm)).await?;
        Ok(side)
    }

    pub(crate) async fn create(&mut self, name: &str, declared: &Declared) -> anyhow::Result<Service> {
        let path = format!("{API}/services/create");
        let made = self.door.call("POST", &path, Some(&declared.spec(name))).await?;
        Ok(Service { id: made["ID"].as_str().context("no id was answered")?.to_owned(), name: name.to_owned() })
    }

    /// Declares it anew, from what it is at the moment.
    pub(crate) async fn declare(&mut self, service: &Service, declared: &Declared) -> anyhow::Result<()> {
        let version = self.inspect(service).await?["Version"]["Index"].clone();
        let path = format!("{API}/services/{}/update?version={version}", service.id);
        self.door.call("POST", &path, Some(&declared.spec(&service.name))).await.map(drop)
    }

    pub(crate) async fn remove(&mut self, service: &Service) -> anyhow::Result<()> {
        self.door.call("DELETE", &format!("{API}/services/{}", service.id), None).await.map(drop)
    }

    async fn inspect(&mut self, service: &Service) -> anyhow::Result<Value> {
        self.door.call("GET", &format!("{API}/services/{}", service.id), None).await
    }

    /// Waits until the swarm reports this many running tasks.
    pub(crate) async fn until_running(&mut self, service: &Service, count: usize) -> anyhow::Result<()> {
        let path = format!("{API}/services?status=1&filters={}", filter("id", &service.id));
        let door = &mut self.door;
        until("all tasks run", async || {
            let services = door.call("GET", &path, None).await?;
            Ok(services[0]["ServiceStatus"]["RunningTasks"].as_u64() == Some(count as u64))
        })
        .await
    }

    /// Waits until the engine has (or runs) this many containers of the service.
    pub(crate) async fn until_containers(&mut self, service: &Service, all: bool, count: usize) -> anyhow::Result<()> {
        let path = containers(service, all);
        let engine = &mut self.engine;
        until("no other containers are there", async || {
            let containers = engine.call("GET", &path, None).await?;
            Ok(containers.as_array().is_some_and(|it| it.len() == count))
        })
        .await
    }

    /// Waits until the declared number of tasks of this version run, and no others.
    pub(crate) async fn until_updated(&mut self, service: &Service, declared: &Declared) -> anyhow::Result<()> {
        let filters = json!({"service": [service.id], "desired-state": ["running"]}).to_string();
        let path = format!("{API}/tasks?filters={}", escaped(&filters));
        let version = json!([format!("VERSION={}", declared.version)]);
        let door = &mut self.door;
        until("all tasks are new", async || {
            let tasks = door.call("GET", &path, None).await?;
            let new = |it: &&Value| it["Spec"]["ContainerSpec"]["Env"] == version && it["Status"]["State"] == "running";
            Ok(tasks.as_array().is_some_and(|it| it.iter().filter(new).count() == declared.replicas))
        })
        .await
    }

    pub(crate) async fn until_completed(&mut self, service: &Service) -> anyhow::Result<()> {
        let path = format!("{API}/services/{}", service.id);
        let door = &mut self.door;
        until("the update is completed", async || {
            let state = door.call("GET", &path, None).await?["UpdateStatus"]["State"].clone();
            Ok(state == "completed")
        })
        .await
    }

    /// Kills the container of the only task; comes when another task runs.
    pub(crate) async fn crash(&mut self, service: &Service) -> anyhow::Result<Duration> {
        let old = self.engine.call("GET", &containers(service, false), None).await?;
        let old = id(&old[0])?;
        let began = Instant::now();
        self.engine.call("POST", &format!("{API}/containers/{old}/kill?signal=KILL"), None).await?;
        let filters = json!({"service": [service.id], "desired-state": ["running"]}).to_string();
        let path = format!("{API}/tasks?filters={}", escaped(&filters));
        let door = &mut self.door;
        until("the task is replaced", async || {
            let tasks = door.call("GET", &path, None).await?;
            let is_new = |it: &Value| {
                let container = it["Status"]["ContainerStatus"]["ContainerID"].as_str();
                it["Status"]["State"] == "running" && container.is_some_and(|it| !it.is_empty() && it != old)
            };
            Ok(tasks.as_array().is_some_and(|it| it.iter().any(is_new)))
        })
        .await?;
        Ok(began.elapsed())
    }

    /// Measures containers of the same kind, created and started by the engine's own API without a swarm.
    pub(crate) async fn raw(&self, count: usize) -> anyhow::Result<Duration> {
        let connections = self.connections(PARALLEL.min(count)).await?;
        let began = Instant::now();
        let numbers = connections.into_iter().enumerate().map(|(at, mut connection)| async move {
            let mut made = Vec::new();
            for number in (at..count).step_by(PARALLEL) {
                let container = make(&mut connection, 0, number).await?;
                start(&mut connection, &container).await?;
                made.push(container);
            }
            Ok::<_, anyhow::Error>((connection, made))
        });
        let made = try_join_all(numbers).await?;
        let took = began.elapsed();
        try_join_all(made.into_iter().map(|(connection, made)| clear(connection, made))).await?;
        Ok(took)
    }

    /// Measures the least time of an update. A client alone replaces containers by the engine's own API, two at a time.
    /// Each one is created while the one before it stops.
    pub(crate) async fn raw_update(&self, count: usize, start_first: bool) -> anyhow::Result<Duration> {
        let mut before = Vec::new();
        let mut one = Connection::open(&self.engine_addr).await?;
        for number in 0..count {
            let container = make(&mut one, 0, number).await?;
            start(&mut one, &container).await?;
            before.push(container);
        }
        let queue = RefCell::new(before.clone().into_iter().enumerate());
        let (makers, stoppers) = (self.connections(UPDATED_AT_ONCE).await?, self.connections(UPDATED_AT_ONCE).await?);
        let began = Instant::now();
        let workers = makers.into_iter().zip(stoppers).map(|(mut maker, mut stopper)| {
            let queue = &queue;
            async move {
                let mut made = Vec::new();
                let mut leaving = None;
                loop {
                    let next = queue.borrow_mut().next();
                    let Some((number, old)) = next else { break };
                    let container = if start_first {
                        let next = async {
                            let container = make(&mut maker, 1, number).await?;
                            start(&mut maker, &container).await?;
                            Ok(container)
                        };
                        // Nobody waits for what is replaced already.
                        let (container, ()) = try_join(next, stop(&mut stopper, leaving.replace(old))).await?;
                        container
                    } else {
                        let (container, ()) =
                            try_join(make(&mut maker, 1, number), stop(&mut stopper, Some(old))).await?;
                        start(&mut maker, &container).await?;
                        container
                    };
                    made.push(container);
                }
                Ok::<_, anyhow::Error>((made, stopper, leaving))
            }
        });
        let done = try_join_all(workers).await?;
        let took = began.elapsed();
        for (made, mut stopper, leaving) in done {
            stop(&mut stopper, leaving).await?;
            clear(stopper, made).await?;
        }
        clear(one, before).await?;
        Ok(took)
    }

    async fn connections(&self, count: usize) -> anyhow::Result<Vec<Connection>> {
        try_join_all((0..count).map(|_| Connection::open(&self.engine_addr))).await
    }
}

async fn make(connection: &mut Connection, version: u32, number: usize) -> anyhow::Result<String> {
    let spec = json!({
        "Image": "busybox:latest", "Entrypoint": ["sh", "-c", PROGRAM], "Env": [format!("VERSION={version}")],
        "Labels": {"bench": "raw"},
    });
    let path = format!("{API}/containers/create?name=raw-{version}-{number}");
    Ok(id(&connection.call("POST", &path, Some(&spec)).await?)?.to_owned())
}

async fn start(connection: &mut Connection, container: &str) -> anyhow::Result<()> {
    connection.call("POST", &format!("{API}/containers/{container}/start"), None).await.map(drop)
}

async fn stop(connection: &mut Connection, container: Option<String>) -> anyhow::Result<()> {
    let Some(container) = container else { return Ok(()) };
    connection.call("POST", &format!("{API}/containers/{container}/stop?t=10"), None).await.map(drop)
}

async fn clear(mut connection: Connection, made: Vec<String>) -> anyhow::Result<()> {
    for container in made {
        connection.call("DELETE", &format!("{API}/containers/{container}?force=1&v=1"), None).await?;
    }
    Ok(())
}

fn containers(service: &Service, all: bool) -> String {
    let label = format!("com.docker.swarm.service.id={}", service.id);
    format!("{API}/containers/json?all={}&filters={}", u8::from(all), filter("label", &label))
}

fn filter(key: &str, value: &str) -> String {
    escaped(&json!({key: [value]}).to_string())
}

/// A text as a part of a query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !holds().await? {
        if began.elapsed() > STEP_TIME_MAX {
            bail!("waited {STEP_TIME_MAX:?} in vain until {what}");
        }
        tokio::time::sleep(LOOK_PERIOD_MIN.max(began.elapsed() / LOOK_SHARE)).await;
    }
    Ok(())
}
