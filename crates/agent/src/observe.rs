//! Engine's view of the containers of this node's tasks: read whole when the event stream begins, then updated by
//! events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use herder_decide::swarm::container::{LABEL_NODE, LABEL_TASK};
use herder_decide::swarm::members::FENCE;
use herder_decide::swarm::step::{Health, Seen};
use herder_docker::{Decoder, EngineError};
use herder_model::swarm::PortConfig;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::call::{Engine, escaped, refusal};

/// Inspections at the same time. More make an engine hardly faster.
const INSPECTIONS_MAX: usize = 4;

/// Pause after a failure of the engine: at first, and at most. An engine that comes back gives no notice.
const RETRY_TIME_MIN: Duration = Duration::from_millis(50);
const RETRY_TIME_MAX: Duration = Duration::from_secs(1);

/// Everything is read again so often, in case that an event was lost without a trace.
const READ_PERIOD: Duration = Duration::from_secs(60);

/// A container as the engine shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Empty: there is none.
    pub(crate) id: String,
    pub(crate) seen: Seen,
    /// 0: it does not run.
    pub(crate) pid: i64,
    /// Ports of the node that lead to it.
    pub(crate) ports: Vec<PortConfig>,
    /// True if the container must not run without a manager's answer.
    pub(crate) is_fenced: bool,
}

#[derive(Debug, Default)]
struct Entry {
    shown: watch::Sender<Shown>,
    /// Grows with each event: an inspection that began before one tells nothing.
    version: u64,
}

/// Follows the engine.
#[derive(Debug)]
pub(crate) struct Observer {
    engine: Arc<Engine>,
    node_id: String,
    /// Keyed by task.
    entries: Mutex<HashMap<String, Entry>>,
    /// Number of full reads.
    reads: watch::Sender<u64>,
    /// Grows when a container may belong to no task.
    strays: watch::Sender<u64>,
    doubt: Notify,
}

impl Observer {
    pub(crate) fn new(engine: Arc<Engine>, node_id: &str) -> Arc<Observer> {
        Arc::new(Observer {
            engine,
            node_id: node_id.to_owned(),
            entries: Mutex::default(),
            reads: watch::Sender::new(0),
            strays: watch::Sender::new(0),
            doubt: Notify::new(),
        })
    }

    /// The container of a task, as it is and as it changes.
    pub(crate) fn watch(&self, task: &str) -> watch::Receiver<Shown> {
        self.entries.lock().entry(task.to_owned()).or_default().shown.subscribe()
    }

    /// Stops tracking a task, unless its container still exists.
    pub(crate) fn forget(&self, task: &str) {
        self.entries.lock().retain(|id, entry| id != task || !entry.shown.borrow().id.is_empty());
    }

    /// Returns the tasks that have containers, with true for fenced ones.
    pub(crate) fn tasks(&self) -> Vec<(String, bool)> {
        let entries = self.entries.lock();
        let shown = entries.iter().map(|(id, entry)| (id, entry.shown.borrow()));
        shown.filter(|(_, shown)| !shown.id.is_empty()).map(|(id, shown)| (id.clone(), shown.is_fenced)).collect()
    }

    /// Ids of the containers that are there.
    pub(crate) fn containers(&self) -> Vec<String> {
        let entries = self.entries.lock();
        entries.values().map(|entry| entry.shown.borrow().id.clone()).filter(|id| !id.is_empty()).collect()
    }

    pub(crate) fn reads(&self) -> watch::Receiver<u64> {
        self.reads.subscribe()
    }

    pub(crate) fn strays(&self) -> watch::Receiver<u64> {
        self.strays.subscribe()
    }

    /// Requests a full read after an engine error, and waits until it is done.
    pub(crate) async fn recovered(&self) {
        let mut reads = self.reads();
        reads.mark_unchanged();
        self.doubt.notify_one();
        // The sender is ours.
        let _ = reads.changed().await;
    }

    /// Follows the engine for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut patience = RETRY_TIME_MIN;
        loop {
            let reads = *self.reads.borrow();
            let Err(error) = self.follow().await else { continue };
            if *self.reads.borrow() > reads {
                patience = RETRY_TIME_MIN;
                info!(%error, "the event stream of the engine ended; it is opened again");
            } else if patience < RETRY_TIME_MAX {
                warn!(%error, "cannot follow the engine");
            }
            sleep(patience).await;
            patience = (patience * 2).min(RETRY_TIME_MAX);
        }
    }

    /// Follows the stream of events until it ends.
    async fn follow(self: &Arc<Self>) -> Result<(), EngineError> {
        self.engine.greet().await?;
        let filters = json!({"type": ["container"], "label": [format!("{LABEL_NODE}={}", self.node_id)]});
        let events = self.engine.get(format!("/events?filters={}", escaped(&filters.to_string()))).open().await?;
        let mut events = events.into_body();
        let mut decoder = Decoder::default();
        let broken = |message: String| EngineError::Answer { status: 500, message };
        self.read().await?;
        let mut next_read = Instant::now() + READ_PERIOD;
        loop {
            tokio::select! {
                frame = events.frame() => {
                    let frame = frame.ok_or_else(|| broken("it ended".into()))?;
                    let frame = frame.map_err(|error| broken(error.to_string()))?;
                    decoder.push(frame.data_ref().map_or(&[][..], |data| data));
                    while let Some(event) = decoder.next().map_err(broken)? {
                        self.apply(&event);
                    }
                }
                () = self.doubt.notified() => next_read = Instant::now(),
                () = sleep_until(next_read) => {
                    self.read().await?;
                    next_read = Instant::now() + READ_PERIOD;
                }
            }
        }
    }

    /// Reads all containers of this node's tasks.
    async fn read(&self) -> Result<(), EngineError> {
        let versions: HashMap<String, u64> =
            self.entries.lock().iter().map(|(id, entry)| (id.clone(), entry.version)).collect();
        let filters = json!({"label": [format!("{LABEL_NODE}={}", self.node_id)]});
        let path = format!("/containers/json?all=1&filters={}", escaped(&filters.to_string()));
        let list = self.engine.get(path).json().await?;
        let ids = list.as_array().into_iter().flatten().filter_map(|it| it["Id"].as_str());
        let ids: Vec<String> = ids.map(str::to_owned).collect();
        let inspections = ids.into_iter().map(|id| async move { self.inspect(&id).await });
        let inspections = stream::iter(inspections).buffer_unordered(INSPECTIONS_MAX);
        let inspections: Vec<_> = inspections.collect().await;
        let mut there = HashSet::new();
        for inspection in inspections {
            if let Some((task, shown)) = inspection? {
                self.put(&task, versions.get(&task).copied().unwrap_or_default(), shown);
                there.insert(task);
            }
        }
        for (task, version) in versions.iter().filter(|(task, _)| !there.contains(*task)) {
            self.put(task, *version, Shown::default());
        }
        // Events of what is over leave entries behind.
        self.entries.lock().retain(|_, entry| entry.shown.receiver_count() > 0 || !entry.shown.borrow().id.is_empty());
        self.reads.send_modify(|reads| *reads += 1);
        self.strays.send_modify(|strays| *strays += 1);
        Ok(())
    }

    /// Inspects a container; `None` if it is gone, or is no task's.
    async fn inspect(&self, container: &str) -> Result<Option<(String, Shown)>, EngineError> {
        match self.engine.get(format!("/containers/{}/json", escaped(container))).json().await {
            Ok(inspection) => Ok(shown(&inspection)),
            Err(error) if refusal(&error).is_some_and(|(status, _)| status == 404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks at the container of a task again.
    pub(crate) async fn look(&self, task: &str, container: &str) -> Result<(), EngineError> {
        let version = self.entries.lock().get(task).map_or(0, |entry| entry.version);
        let seen = self.inspect(container).await?;
        // A name may be another task's.
        let shown = seen.filter(|(other, _)| other == task).map(|(_, shown)| shown);
        self.put(task, version, shown.unwrap_or_default());
        Ok(())
    }

    /// Shows what was read, unless an event has come since.
    fn put(&self, task: &str, version: u64, shown: Shown) {
        let mut entries = self.entries.lock();
        let entry = entries.entry(task.to_owned()).or_default();
        if entry.version == version {
            entry.shown.send_if_modified(|old| std::mem::replace(old, shown) != *old);
        }
    }

    fn apply(self: &Arc<Self>, event: &Value) {
        let (id, attributes) = (event["Actor"]["ID"].as_str().unwrap_or_default(), &event["Actor"]["Attributes"]);
        let action = event["Action"].as_str().unwrap_or_default();
        let Some(task) = attributes[LABEL_TASK].as_str().filter(|task| !task.is_empty()) else { return };
        let mut entries = self.entries.lock();
        let entry = entries.entry(task.to_owned()).or_default();
        let (is_it, is_free) = {
            let shown = entry.shown.borrow();
            (shown.id == id, shown.id.is_empty())
        };
        let news = match action {
            "create" if is_free => {
                let is_fenced = attributes[FENCE] == "true";
                if entry.shown.receiver_count() == 0 {
                    self.strays.send_modify(|strays| *strays += 1);
                }
                Some(Shown { id: id.to_owned(), seen: Seen::Created, is_fenced, ..Shown::default() })
            }
            "die" if is_it => {
                let exit_code = attributes["exitCode"].as_str().and_then(|code| code.parse().ok()).unwrap_or_default();
                let seen = Seen::Ended { exit_code, error: String::new() };
                Some(Shown { seen, pid: 0, ports: Vec::new(), ..entry.shown.borrow().clone() })
            }
            "health_status: healthy" | "health_status: unhealthy" if is_it => {
                let health = if action.ends_with(" healthy") { Health::Healthy } else { Health::Unhealthy };
                let shown = entry.shown.borrow().clone();
                matches!(shown.seen, Seen::Running(_)).then(|| Shown { seen: Seen::Running(health), ..shown })
            }
            "destroy" if is_it => Some(Shown::default()),
            "start" if is_it || is_free => {
                // Whether it has a health check, its process and its ports are not in the event.
                entry.version += 1;
                let (observer, task, id) = (self.clone(), task.to_owned(), id.to_owned());
                tokio::spawn(async move {
                    // An engine that cannot say is read anew as a whole.
                    if observer.look(&task, &id).await.is_err() {
                        observer.doubt.notify_one();
                    }
                });
                None
            }
            _ => None,
        };
        if let Some(news) = news {
            entry.version += 1;
            entry.shown.send_replace(news);
        }
    }
}

/// The task and its container, of an inspection. None if it is no task's.
fn shown(inspection: &Value) -> Option<(String, Shown)> {
    let labels = &inspection["Config"]["Labels"];
    let task = labels[LABEL_TASK].as_str().filter(|task| !task.is_empty())?;
    let state = &inspection["State"];
    let exit_code = state["ExitCode"].as_i64().unwrap_or_default();
    let seen = match state["Status"].as_str().unwrap_or_default() {
        // Otherwise it could not be started.
        "created" if exit_code == 0 => Seen::Created,
        "running" | "paused" | "restarting" => Seen::Running(match state["Health"]["Status"].as_str() {
            Some("starting") => Health::Starting,
            Some("healthy") => Health::Healthy,
            Some("unhealthy") => Health::Unhealthy,
            _ => Health::Unchecked,
        }),
        _ => Seen::Ended { exit_code, error: state["Error"].as_str().unwrap_or_default().to_owned() },
    };
    let shown = Shown {
        id: inspection["Id"].as_str().unwrap_or_default().to_owned(),
        seen,
        pid: state["Pid"].as_i64().unwrap_or_default(),
        ports: ports(&inspection["NetworkSettings"]["Ports"]),
        is_fenced: labels[FENCE] == "true",
    };
    Some((task.to_owned(), shown))
}

/// `{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}`. A port is there once for each family of addresses.
fn ports(ports: &Value) -> Vec<PortConfig> {
    let mut published = Vec::new();
    for (key, bindings) in ports.as_object().into_iter().flatten() {
        let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        for binding in bindings.as_array().into_iter().flatten() {
            published.push(PortConfig {
                protocol: protocol.to_owned(),
                target_port: port.parse().unwrap_or_default(),
                published_port: binding["HostPort"].as_str().and_then(|port| port.parse().ok()).unwrap_or_default(),
                publish_mode: "host".to_owned(),
                ..PortConfig::default()
            });
        }
    }
    published
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observer() -> Arc<Observer> {
        Observer::new(Arc::new(Engine::new("unix:///nowhere", herder_docker::Way::Plain)), "n1")
    }

    fn event(action: &str, container: &str, code: &str) -> Value {
        json!({"Type": "container", "Action": action,
            "Actor": {"ID": container, "Attributes": {LABEL_TASK: "t1", "exitCode": code}}})
    }

    fn text(shown: &Shown) -> String {
        format!("{} {:?}", shown.id, shown.seen)
    }

    #[tokio::test]
    async fn events_tell_of_the_container_that_is_known() {
        let observer = observer();
        let watch = observer.watch("t1");
        let check = |action: &str, container: &str, expected: &str| {
            observer.apply(&event(action, container, "3"));
            assert_eq!(text(&watch.borrow()), expected, "{action} {container}");
        };
        check("create", "c1", "c1 Created");
        check("create", "c2", "c1 Created");
        check("die", "c2", "c1 Created");
        check("health_status: healthy", "c1", "c1 Created");
        let created = watch.borrow().clone();
        observer.put("t1", 1, Shown { seen: Seen::Running(Health::Starting), ..created });
        check("health_status: unhealthy", "c1", "c1 Running(Unhealthy)");
        check("health_status: healthy", "c1", "c1 Running(Healthy)");
        check("exec_create: x", "c1", "c1 Running(Healthy)");
        check("die", "c1", "c1 Ended { exit_code: 3, error: \"\" }");
        check("destroy", "c2", "c1 Ended { exit_code: 3, error: \"\" }");
        check("destroy", "c1", " Nothing");
    }

    #[tokio::test]
    async fn an_inspection_that_began_before_an_event_tells_nothing() {
        let observer = observer();
        let watch = observer.watch("t1");
        observer.apply(&event("create", "c1", ""));
        let (before, running) = (1, Shown { seen: Seen::Running(Health::Unchecked), ..watch.borrow().clone() });
        observer.apply(&event("die", "c1", "0"));
        observer.put("t1", before, running.clone());
        assert_eq!(text(&watch.borrow()), "c1 Ended { exit_code: 0, error: \"\" }");
        observer.put("t1", 2, running);
        assert_eq!(text(&watch.borrow()), "c1 Running(Unchecked)");
    }

    #[test]
    fn an_inspection_says_what_a_container_is() {
        let check = |state: Value, expected: &str| {
            let inspection = json!({"Id": "c1", "Config": {"Labels": {LABEL_TASK: "t1"}}, "State": state});
            assert_eq!(format!("{:?}", shown(&inspection).expect("a task's").1.seen), expected);
        };
        check(json!({"Status": "created"}), "Created");
        check(json!({"Status": "created", "ExitCode": 127}), "Ended { exit_code: 127, error: \"\" }");
        check(json!({"Status": "running"}), "Running(Unchecked)");
        check(json!({"Status": "running", "Health": {"Status": "starting"}}), "Running(Starting)");
        check(json!({"Status": "running", "Health": {"Status": "none"}}), "Running(Unchecked)");
        check(json!({"Status": "paused", "Health": {"Status": "healthy"}}), "Running(Healthy)");
        check(json!({"Status": "exited", "ExitCode": 7}), "Ended { exit_code: 7, error: \"\" }");
        check(json!({"Status": "exited", "ExitCode": 127, "Error": "e"}), "Ended { exit_code: 127, error: \"e\" }");
        assert!(shown(&json!({"Id": "c1", "Config": {"Labels": null}})).is_none());
    }

    #[test]
    fn ports_are_those_of_the_node() {
        let both = json!({"90/udp": [{"HostIp": "0.0.0.0", "HostPort": "22090"}, {"HostIp": "::", "HostPort": "22090"}],
            "80/tcp": null});
        let ports: Vec<String> =
            ports(&both).iter().map(|it| format!("{}:{}/{}", it.published_port, it.target_port, it.protocol)).collect();
        assert_eq!(ports, ["22090:90/udp", "22090:90/udp"]);
    }
}
