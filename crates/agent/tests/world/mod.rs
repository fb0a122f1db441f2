//! A node with an engine for tests: they add and remove tasks and wait for reports.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use herder_agent::{Agent, Images, NoImages, Settings, Uptime, Way};
use herder_model::swarm::{Assignments, Report, Secret, ServiceFacts, TaskRecord, TaskSpec, TaskState, TaskStatus};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// More than anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One node of a swarm that does what the test says. Each has an id of its own, so that worlds share an engine.
pub(crate) struct World {
    pub(crate) engine: String,
    pub(crate) node_id: String,
    pub(crate) folder: PathBuf,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) told: Assignments,
    agent: Option<Agent>,
    reports: Option<mpsc::Receiver<Report>>,
    /// Last of each task.
    pub(crate) seen: BTreeMap<String, TaskStatus>,
    /// All states of each task.
    pub(crate) history: BTreeMap<String, Vec<TaskState>>,
}

pub(crate) fn engine() -> String {
    std::env::var("AGENT_TEST_ENGINE").expect("set by the outer run")
}

/// Asks the engine beside the agent.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).env("DOCKER_HOST", engine()).output().expect("a docker CLI");
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

impl World {
    pub(crate) fn new(name: &str) -> World {
        let folder = std::env::temp_dir().join(format!("herder-agent-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut world = World {
            engine: engine(),
            node_id: format!("node-{name}"),
            folder,
            images: Arc::new(NoImages),
            told: Assignments::default(),
            agent: None,
            reports: None,
            seen: BTreeMap::new(),
            history: BTreeMap::new(),
        };
        world.told.services.insert("s1".into(), ServiceFacts::default());
        world
    }

    pub(crate) fn start(&mut self) {
        let settings = Settings {
            engine: self.engine.clone(),
            way: Way::Plain,
            node_id: self.node_id.clone(),
            folder: self.folder.clone(),
            generic_resources: Vec::new(),
            images: self.images.clone(),
            uptime: Uptime::system(),
            watchdog: None,
            clock: herder_model::swarm::Clock::system(),
        };
        let agent = Agent::start(settings, CancellationToken::new());
        self.reports = Some(agent.reports());
        self.agent = Some(agent);
    }

    /// The agent is gone; the containers stay.
    pub(crate) fn crash(&mut self) {
        self.agent = None;
        self.reports = None;
    }

    pub(crate) fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("started")
    }

    /// A task with this container (busybox if it names no image), to be in this state.
    pub(crate) fn want(&mut self, id: &str, desired: TaskState, mut container: Value) {
        if container.get("Image").is_none() {
            container["Image"] = "busybox".into();
        }
        let spec: TaskSpec = serde_json::from_value(json!({"ContainerSpec": container})).expect("a spec");
        let mut record = TaskRecord { service_name: "web".into(), ..TaskRecord::default() };
        record.task.id = id.into();
        record.task.service_id = "s1".into();
        record.task.slot = 1;
        record.task.node_id = self.node_id.clone();
        record.task.spec = Arc::new(spec);
        record.task.desired_state = desired;
        record.task.status.state = TaskState::Assigned;
        self.told.tasks.push(Arc::new(record));
    }

    pub(crate) fn change(&mut self, id: &str, change: impl FnOnce(&mut TaskRecord)) {
        let record = self.told.tasks.iter_mut().find(|record| record.task.id == id).expect("a task");
        change(Arc::make_mut(record));
    }

    pub(crate) fn desire(&mut self, id: &str, desired: TaskState) {
        self.change(id, |record| record.task.desired_state = desired);
        self.assign();
    }

    pub(crate) fn secret(&mut self, id: &str, data: &str) {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        let secret: Secret =
            serde_json::from_value(json!({"ID": id, "Spec": {"Name": id, "Data": data}})).expect("one");
        self.told.secrets.push(Arc::new(secret));
    }

    pub(crate) fn assign(&self) {
        self.agent().assign(self.told.clone());
    }

    /// Waits for a report that is so.
    pub(crate) async fn until(&mut self, id: &str, is_so: impl Fn(&TaskStatus) -> bool) -> TaskStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.seen.get(id).filter(|status| is_so(status)) {
                return status.clone();
            }
            let reports = self.reports.as_mut().expect("started");
            let left = PATIENCE.saturating_sub(started.elapsed());
            let Ok(report) = tokio::time::timeout(left, reports.recv()).await else {
                panic!("{id} told only {:?}", self.seen.get(id));
            };
            let report = report.expect("the agent lives");
            self.history.entry(report.task_id.clone()).or_default().push(report.status.state);
            self.seen.insert(report.task_id, report.status);
        }
    }

    pub(crate) async fn until_state(&mut self, id: &str, state: TaskState) -> TaskStatus {
        self.until(id, |status| status.state >= state).await
    }

    /// Containers of this world, as the engine lists them.
    pub(crate) fn containers(&self, format: &str) -> String {
        let label = format!("label=com.docker.swarm.node.id={}", self.node_id);
        docker(&["ps", "-a", "--filter", &label, "--format", format])
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.crash();
        for id in self.containers("{{.ID}}").split_whitespace() {
            docker(&["rm", "-f", "-v", id]);
        }
        let _ = rustix::mount::unmount(self.folder.join("files"), rustix::mount::UnmountFlags::DETACH);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Something outside of this process that has no event.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
