//! Clusters as text. Times are seconds.
//!
//! ```text
//! now=100 history=5                            default: now=100, no history limit said
//! node a down off drain since=90 label=ssd     a node, ready and active unless it is said; off: it is fenced off
//! web replicas=3 v2 …                          the service: global, job=2/4, global-job, run=1;
//!                                              image=i1 (default: i and the version), previous=i1, ports=80, on=ssd,
//!                                              policy=none, grace=10, delay=5, attempts=3, window=60,
//!                                              parallel=2, pause=10, monitor=5, ratio=0.5, action=rollback, start-first,
//!                                              status=updating, fenced; the same settings are for rollbacks
//! t1 1@a running >ready v1 …                   a task in slot 1 on node a; what is wanted of it, if it is not what the mode
//!                                              wants; version, if it is another; image, ports, policy …, at=90 (state
//!                                              since), since=80 (runs since), hold=105 (not before), made=99, restarted=2,
//!                                              restarts=90,95, waited (made in place of one without a node), upd, ahead (of its
//!                                              turn, upd), succeeded, run=0,
//!                                              err=_ for spaces
//! ```

use std::sync::Arc;

use herder_model::swarm::{
    Availability, Change, Cluster, ClusterRecord, Command, ContainerSpec, Empty, EndpointSpec, JobStatus, NodeRecord,
    Object, Placement, PortConfig, Ratio, Replicated, ReplicatedJob, RestartPolicy, ServiceRecord, ServiceSpec,
    SwarmNodeState, Task, TaskRecord, TaskSpec, TaskState, Time, UpdateConfig, UpdateStatus, Version, View,
};

use crate::swarm::nodes::members::FENCE;
use crate::swarm::orchestrate::reconcile::{Mode, Plan};

pub(super) const SECOND: u64 = 1_000_000_000;

/// The words of a line.
struct Words<'t>(Vec<&'t str>);

impl<'t> Words<'t> {
    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    fn value(&self, key: &str) -> Option<&'t str> {
        self.0.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.value(key).map(|text| text.parse().expect("a number"))
    }

    fn time(&self, key: &str) -> Option<Time> {
        self.number(key).map(|it| Time(it * SECOND))
    }

    fn duration(&self, key: &str) -> Option<i64> {
        self.number(key).map(|it| i64::try_from(it * SECOND).expect("small"))
    }

    fn version(&self) -> Option<Version> {
        let number = self.0.iter().find_map(|word| word.strip_prefix('v')?.parse().ok());
        number.map(|index| Version { index })
    }
}

pub(super) fn read(text: &str) -> (View, Time) {
    let mut now = Time(100 * SECOND);
    let mut objects = vec![];
    let mut web: Option<ServiceRecord> = None;
    for (at, line) in text.lines().map(str::trim).filter(|it| !it.is_empty()).enumerate() {
        let words = Words(line.split_whitespace().collect());
        match words.0[0] {
            "node" => objects.push(Object::Node(node(&words).into())),
            "web" => {
                let record = service(&words);
                objects.push(Object::Service(record.clone().into()));
                web = Some(record);
            }
            id if id.starts_with('t') => objects.push(Object::Task(task(&words, at as u64, web.as_ref()).into())),
            _ => {
                now = words.time("now").unwrap_or(now);
                let mut cluster = Cluster { id: "c".into(), ..Cluster::default() };
                cluster.spec.orchestration.task_history_retention_limit =
                    words.value("history").map(|it| it.parse().expect("a number"));
                objects.push(Object::Cluster(ClusterRecord { cluster, ..ClusterRecord::default() }.into()));
            }
        }
    }
    (View::of(50, objects), now)
}

fn node(words: &Words<'_>) -> NodeRecord {
    let mut record = NodeRecord { state_since: words.time("since").unwrap_or_default(), ..NodeRecord::default() };
    record.node.id = words.0[1].into();
    record.fenced_off = words.has("off");
    record.node.status.state = if words.has("down") { SwarmNodeState::Down } else { SwarmNodeState::Ready };
    record.node.spec.availability = match () {
        () if words.has("drain") => Availability::Drain,
        () if words.has("pause") => Availability::Pause,
        () => Availability::Active,
    };
    record.node.spec.labels = words.value("label").map(|it| [(it.to_owned(), "yes".to_owned())].into());
    record
}

fn spec(words: &Words<'_>, version: Version) -> TaskSpec {
    let image = words.value("image").map_or_else(|| format!("i{}", version.index), str::to_owned);
    let policy = RestartPolicy {
        condition: words.value("policy").unwrap_or_default().into(),
        delay: words.duration("delay"),
        max_attempts: words.number("attempts"),
        window: words.duration("window"),
        ..RestartPolicy::default()
    };
    let placement = words
        .value("on")
        .map(|label| Placement { constraints: vec![format!("node.labels.{label}==yes")], ..Placement::default() });
    TaskSpec {
        container_spec: Some(ContainerSpec {
            image,
            stop_grace_period: words.duration("grace"),
            ..ContainerSpec::default()
        }),
        restart_policy: (policy != RestartPolicy::default()).then_some(policy),
        placement,
        ..TaskSpec::default()
    }
}

fn ports(words: &Words<'_>) -> Vec<PortConfig> {
    let port = words.value("ports").map(|it| it.parse().expect("a port"));
    port.map(|published_port| PortConfig { published_port, publish_mode: "host".into(), ..PortConfig::default() })
        .into_iter()
        .collect()
}

fn service(words: &Words<'_>) -> ServiceRecord {
    let version = words.version().unwrap_or(Version { index: 1 });
    let mut record = ServiceRecord { spec_version: version, ..ServiceRecord::default() };
    record.service.id = "web".into();
    let mut spec = ServiceSpec { name: "web".into(), task_template: spec(words, version), ..ServiceSpec::default() };
    if let Some((concurrent, total)) = words.value("job").and_then(|it| it.split_once('/')) {
        let (max_concurrent, total_completions) = (concurrent.parse().ok(), total.parse().ok());
        spec.mode.replicated_job =
            Some(ReplicatedJob { max_concurrent, total_completions, ..ReplicatedJob::default() });
    } else if words.has("global") {
        spec.mode.global = Some(Empty::default());
    } else if words.has("global-job") {
        spec.mode.global_job = Some(Empty::default());
    } else {
        spec.mode.replicated = Some(Replicated { replicas: words.number("replicas"), ..Replicated::default() });
    }
    if Mode::of(&spec.mode).is_job() {
        let job_iteration = Version { index: words.number("run").unwrap_or(0) };
        record.service.job_status = Some(JobStatus { job_iteration, ..JobStatus::default() });
    }
    let config = UpdateConfig {
        parallelism: words.number("parallel").unwrap_or(1),
        delay: words.duration("pause").unwrap_or(0),
        failure_action: words.value("action").unwrap_or_default().into(),
        monitor: words.duration("monitor").unwrap_or(0),
        max_failure_ratio: Ratio(words.value("ratio").map_or(0.0, |it| it.parse().expect("a ratio"))),
        order: if words.has("start-first") { "start-first" } else { "" }.into(),
        ..UpdateConfig::default()
    };
    if config != (UpdateConfig { parallelism: 1, ..UpdateConfig::default() }) {
        (spec.update_config, spec.rollback_config) = (Some(config.clone()), Some(config));
    }
    let ports = ports(words);
    spec.endpoint_spec = (!ports.is_empty()).then(|| EndpointSpec { ports, ..EndpointSpec::default() });
    record.service.previous_spec = words.value("previous").map(|image| {
        let mut previous = spec.clone();
        previous.task_template.container_spec.get_or_insert_default().image = image.into();
        previous
    });
    record.service.update_status =
        words.value("status").map(|state| UpdateStatus { state: state.into(), ..UpdateStatus::default() });
    if words.has("fenced") {
        spec.labels = Some([(FENCE.to_owned(), "true".to_owned())].into());
    }
    record.service.spec = spec;
    record
}

fn state(word: &str) -> Option<TaskState> {
    TaskState::KNOWN.iter().copied().find(|it| it.as_str() == word)
}

fn task(words: &Words<'_>, at: u64, service: Option<&ServiceRecord>) -> TaskRecord {
    let mode = service.map_or(Mode::Replicated(1), |it| Mode::of(&it.service.spec.mode));
    let current = service.map_or(Version { index: 1 }, |it| it.spec_version);
    let version = words.version().unwrap_or(current);
    let (slot, node) = words.0[1].split_once('@').unwrap_or((words.0[1], ""));
    let of_service = || service.filter(|_| version == current && words.value("image").is_none());
    let spec = of_service().map_or_else(|| spec(words, version), |it| it.service.spec.task_template.clone());
    let spec_ports = of_service().and_then(|it| it.service.spec.endpoint_spec.clone()).map(|it| it.ports);
    let mut task = Task {
        id: words.0[0].into(),
        service_id: "web".into(),
        slot: slot.parse().unwrap_or(0),
        node_id: node.into(),
        spec: Arc::new(spec),
        desired_state: words.0.iter().find_map(|it| state(it.strip_prefix('>')?)).unwrap_or(mode.target()),
        job_iteration: mode.is_job().then(|| Version { index: words.number("run").unwrap_or(0) }),
        ..Task::default()
    };
    task.status.err = words.value("err").unwrap_or_default().replace('_', " ");
    task.status.state = words.0.iter().skip(2).find_map(|it| state(it)).unwrap_or(TaskState::Running);
    TaskRecord {
        task,
        spec_version: version,
        ports: spec_ports.unwrap_or_else(|| ports(words)),
        applied_at: words.time("at").unwrap_or_default(),
        running_since: words.time("since"),
        not_before: words.time("hold"),
        restarted: words.number("restarted").unwrap_or(0),
        restarts: times(words.value("restarts").unwrap_or_default()),
        made_at: words.time("made").unwrap_or(Time(at)),
        by_update: words.has("upd") || words.has("ahead"),
        ahead: words.has("ahead"),
        in_place_of_waiting: words.has("waited"),
        succeeded: words.has("succeeded"),
        ..TaskRecord::default()
    }
}

/// Seconds with commas between them.
fn times(text: &str) -> Vec<Time> {
    text.split(',').filter(|it| !it.is_empty()).map(|it| Time(it.parse::<u64>().expect("seconds") * SECOND)).collect()
}

fn name(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default()
}

fn seconds(time: Time) -> String {
    (time.0 / SECOND).to_string()
}

/// Writes a plan as text: `+` creates, `-` removes.
pub(super) fn write(view: &View, plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = plan.changes.iter().map(|it| write_change(view, it)).collect();
    lines.extend(plan.again.map(|at| format!("again {}", seconds(at))));
    lines
}

fn write_change(view: &View, change: &Change) -> String {
    match change {
        Change::Put(Object::Task(after)) => match view.tasks.get(&after.task.id) {
            None => made(after),
            Some(before) => {
                let mut line = after.task.id.clone();
                if before.task.desired_state != after.task.desired_state {
                    line += &format!(" >{}", name(after.task.desired_state));
                }
                if before.task.status.state != after.task.status.state {
                    line += &format!(" {}", name(after.task.status.state));
                }
                if before.ahead && !after.ahead {
                    line += " turn";
                }
                if before.succeeded != after.succeeded {
                    line += if after.succeeded { " succeeded" } else { " stays" };
                }
                line
            }
        },
        Change::Remove(_, id) => format!("- {id}"),
        Change::Put(Object::Service(after)) => written(after),
        Change::PutSpec(after) => {
            let image = after.service.spec.task_template.container_spec.as_ref().map(|it| it.image.clone());
            format!("image={} {}", image.unwrap_or_default(), written(after))
        }
        other => format!("{other:?}"),
    }
}

fn made(record: &TaskRecord) -> String {
    let task = &record.task;
    let place = if task.node_id.is_empty() { task.slot.to_string() } else { format!("@{}", task.node_id) };
    let mut line = format!("+ {} {place} >{}", task.id, name(task.desired_state));
    if let Some(at) = record.not_before {
        line += &format!(" hold={}", seconds(at));
    }
    if record.restarted > 0 {
        line += &format!(" restarted={}", record.restarted);
    }
    match (record.ahead, record.by_update) {
        (true, _) => line += " ahead",
        (false, true) => line += " upd",
        (false, false) => {}
    }
    line
}

fn written(record: &ServiceRecord) -> String {
    let status = record.service.update_status.clone().unwrap_or_default();
    format!("{}: {}", status.state, status.message)
}

/// The view after the plan, and whether the plan went back to an earlier specification.
pub(super) fn apply(mut view: View, plan: &Plan, now: Time) -> (View, bool) {
    let goes_back = plan.changes.iter().any(|it| matches!(it, Change::PutSpec(_)));
    let command = Command { at: now, changes: plan.changes.clone() };
    view.apply(view.index + 1, &command).expect("a plan fits to the view that it is made of");
    (view, goes_back)
}
