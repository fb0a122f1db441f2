//! Benchmark of the scheduler of services in the shapes of swarmkit's own: all tasks wait and all nodes are empty. The
//! time ends when all assignments are in the view and in the fleet. As there, no log, disk or network takes part.
//!
//! Measured is how long the one thread had a processor, so that other programs on the machine count for little. The baseline are
//! the times of swarmkit (`3e72cb64`, Go 1.25.5) on an idle machine of two cores, on another day: a ratio tells the magnitude
//! only. Where it would have run for hours, there is none. `--only TEXT` measures the figures with this text.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time and memory")]

#[expect(dead_code, reason = "goals of other benchmarks")]
#[path = "../../../benches/src/report.rs"]
mod report;

use std::sync::Arc;
use std::time::Duration;

use herder_decide::swarm::Fleet;
use herder_model::swarm::{
    Change, Command, ContainerSpec, NodeRecord, Object, Placement, Preference, Reservations, ResourceRequirements,
    Spread, SwarmNode, SwarmNodeState, Task, TaskRecord, TaskSpec, TaskState, Time, Version, View,
};
use report::{Goal, Report, Row, Times};
use rustix::time::{ClockId, clock_gettime};

/// Tasks of one command. A store has a limit of its own.
const COMMAND_TASKS: usize = 10_000;
const NOW: Time = Time(1_700_000_000_000_000_000);
/// Share of swarmkit's time that herder may take.
const GOAL: Goal = Goal::RatioAtMost(0.1);

/// Requirements of tasks.
#[derive(Clone, Copy, PartialEq)]
enum Asks {
    Nothing,
    /// Any node but those of one zone.
    Constraint,
    /// A constraint, processors, memory, a preference.
    Much,
}

/// Nodes, tasks, services (0: tasks without one), what they ask for, and swarmkit's milliseconds.
const SHAPES: &[(usize, usize, usize, Asks, Option<f64>)] = &[
    (1_000, 1_000, 0, Asks::Nothing, Some(204.0)),
    (1_000, 10_000, 0, Asks::Nothing, Some(2_032.0)),
    (1_000, 100_000, 0, Asks::Nothing, Some(24_689.0)),
    (100_000, 1_000, 0, Asks::Nothing, Some(35_546.0)),
    (100_000, 100_000, 0, Asks::Nothing, None),
    (100_000, 1_000_000, 0, Asks::Nothing, None),
    (1_000, 1_000, 0, Asks::Constraint, Some(256.0)),
    (1_000, 10_000, 0, Asks::Constraint, Some(2_252.0)),
    (1_000, 100_000, 0, Asks::Constraint, Some(24_622.0)),
    (1_000, 1_000, 1, Asks::Nothing, Some(39.0)),
    (1_000, 10_000, 1, Asks::Nothing, Some(536.0)),
    (1_000, 100_000, 1, Asks::Nothing, Some(11_276.0)),
    (1_000, 100_000, 100, Asks::Nothing, Some(12_893.0)),
    (1_000, 100_000, 100_000, Asks::Nothing, None),
    (100_000, 100_000, 1, Asks::Nothing, Some(9_523.0)),
    (100_000, 1_000_000, 1, Asks::Nothing, None),
    (100_000, 1_000_000, 1_000, Asks::Nothing, None),
    (1_000, 10_000, 100, Asks::Much, Some(730.0)),
    (5_000, 100_000, 100, Asks::Much, Some(10_472.0)),
    (100_000, 1_000_000, 1_000, Asks::Much, None),
];

fn main() {
    let after = |name: &str| std::env::args().skip_while(|it| it != name).nth(1);
    let json = after("--format").is_some_and(|it| it == "json");
    let only = after("--only").unwrap_or_default();
    let mut report = Report::new("swarm_schedule", json, "swarmkit's scheduler with its store in memory");
    for (nodes, tasks, services, asks, baseline) in SHAPES {
        let figure = figure(*nodes, *tasks, *services, *asks);
        if !figure.contains(&only) {
            continue;
        }
        let mut view = view(*nodes, *tasks, *services, *asks);
        forget_peak();
        let times = place(&mut view, *tasks);
        let goal = if baseline.is_some() { GOAL } else { Goal::None };
        let mut row = |part: &str, unit, measured, baseline, goal| {
            report.row(Row { figure: format!("{figure}{part}"), unit, measured, baseline, goal });
        };
        row("", "ms", ms(times.all()), *baseline, goal);
        row("  read, decide", "ms", ms(times.read + times.decide), None, Goal::None);
        row("  write to the view", "ms", ms(times.write), None, Goal::None);
        row("  write to the fleet", "ms", ms(times.see), None, Goal::None);
        row("  rate", "tasks/s", *tasks as f64 / times.all().as_secs_f64(), None, Goal::None);
        row("  peak, with the view", "MiB", peak_mib(), None, Goal::None);
    }
    if "one is replaced".contains(&only) {
        one_of_many(&mut report);
    }
    report.end();
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn figure(nodes: usize, tasks: usize, services: usize, asks: Asks) -> String {
    let short = |count: usize| match count {
        1_000_000.. => format!("{}M", count / 1_000_000),
        1_000.. => format!("{}k", count / 1_000),
        _ => count.to_string(),
    };
    let what = match asks {
        Asks::Nothing => "",
        Asks::Constraint => ", constraint",
        Asks::Much => ", rich",
    };
    let of = if services == 0 { "one-off".to_owned() } else { format!("{} svc", short(services)) };
    format!("{}n {}t {of}{what}", short(nodes), short(tasks))
}

/// Times of the parts until every task has its node in the view and in the fleet.
#[derive(Default)]
struct Parts {
    /// The fleet is made of a view.
    read: Duration,
    decide: Duration,
    write: Duration,
    see: Duration,
}

impl Parts {
    fn all(&self) -> Duration {
        self.read + self.decide + self.write + self.see
    }
}

fn place(view: &mut View, tasks: usize) -> Parts {
    let mut parts = Parts::default();
    let mut count = 0;
    let mut fleet = timed(&mut parts.read, || Fleet::of(view));
    loop {
        let placed = timed(&mut parts.decide, || fleet.schedule_up_to(NOW, COMMAND_TASKS));
        count += placed.changes.len();
        let written = timed(&mut parts.write, || {
            let command = Command { at: NOW, changes: placed.changes };
            view.apply_owned(view.index + 1, command).unwrap_or_default()
        });
        timed(&mut parts.see, || {
            fleet.see(&written);
            drop(written);
        });
        if !placed.more {
            break;
        }
    }
    assert_eq!((count, fleet.waiting_count()), (tasks, 0), "all have a node");
    parts
}

fn timed<T>(time: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = cpu_time();
    let outcome = work();
    *time += cpu_time().saturating_sub(began);
    outcome
}

/// Returns the processor time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// A task that ends is replaced while a million run: the everyday run.
fn one_of_many(report: &mut Report) {
    let mut view = view(100_000, 1_000_000, 1_000, Asks::Nothing);
    place(&mut view, 1_000_000);
    let mut fleet = Fleet::of(&view);
    let records: Vec<Arc<TaskRecord>> = view.tasks.values().take(100).cloned().collect();
    let mut times: Times = records
        .iter()
        .map(|record| {
            let mut ended = TaskRecord::clone(record);
            ended.task.status.state = TaskState::Complete;
            let next = waiting(2_000_000, &record.task.service_id, &record.task.spec);
            let command = Command { at: NOW, changes: vec![ended.into(), next.into()] };
            let written = view.apply(view.index + 1, &command).unwrap_or_default();
            let mut time = Duration::ZERO;
            let placed = timed(&mut time, || {
                fleet.see(&written);
                fleet.schedule(NOW)
            });
            assert_eq!(placed.changes.len(), 1, "it has a node");
            let remove = Change::Remove(herder_model::swarm::Kind::Task, "task2000000".into());
            let written = view.apply(view.index + 1, &Command { at: NOW, changes: vec![remove] }).unwrap_or_default();
            fleet.see(&written);
            time
        })
        .collect();
    for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
        let figure = format!("100kn 1Mt run, one is replaced, {name}");
        let (measured, goal) = (times.ms(share), Goal::Below(10.0));
        report.row(Row { figure, unit: "ms", measured, baseline: None, goal });
    }
}

fn view(nodes: usize, tasks: usize, services: usize, asks: Asks) -> View {
    let specs: Vec<Arc<TaskSpec>> = (0..services.max(1)).map(|number| Arc::new(spec(number, asks))).collect();
    let nodes = (0..nodes).map(|number| Object::Node(Arc::new(node(number))));
    let tasks = (0..tasks).map(|number| {
        let service = number.checked_rem(services).unwrap_or_default();
        let id = if services == 0 { String::new() } else { format!("service{service:018}") };
        Object::Task(Arc::new(waiting(number, &id, &specs[service])))
    });
    View::of(0, nodes.chain(tasks))
}

fn node(number: usize) -> NodeRecord {
    let mut node = SwarmNode { id: format!("node{number:021}"), ..SwarmNode::default() };
    node.description.hostname = format!("host-{number}");
    node.description.resources =
        Reservations { nano_cpus: 64_000_000_000, memory_bytes: 256 << 30, ..Reservations::default() };
    node.spec.labels = Some([("zone".to_owned(), format!("z{}", number % 10))].into());
    node.status.state = SwarmNodeState::Ready;
    NodeRecord { node, ..NodeRecord::default() }
}

fn spec(number: usize, asks: Asks) -> TaskSpec {
    let container = ContainerSpec { image: format!("app-{number}:latest"), ..ContainerSpec::default() };
    let mut spec = TaskSpec { container_spec: Some(container), ..TaskSpec::default() };
    if asks == Asks::Nothing {
        return spec;
    }
    let mut placement = Placement { constraints: vec!["node.labels.zone!=z0".into()], ..Placement::default() };
    if asks == Asks::Much {
        let spread = Some(Spread { spread_descriptor: "node.labels.zone".into(), ..Spread::default() });
        placement.preferences.push(Preference { spread, ..Preference::default() });
        let reserved = Reservations { nano_cpus: 1_000_000, memory_bytes: 1 << 20, ..Reservations::default() };
        spec.resources = Some(ResourceRequirements { reservations: Some(reserved), ..ResourceRequirements::default() });
    }
    TaskSpec { placement: Some(placement), ..spec }
}

fn waiting(number: usize, service: &str, spec: &Arc<TaskSpec>) -> TaskRecord {
    let mut task = Task {
        id: format!("task{number}"),
        service_id: service.to_owned(),
        slot: number as u64 + 1,
        spec: spec.clone(),
        desired_state: TaskState::Running,
        ..Task::default()
    };
    task.name = format!("{service}.{number}.{}", task.id);
    task.status.state = TaskState::Pending;
    task.status.timestamp = NOW.to_string();
    task.status.message = "pending task scheduling".into();
    let index = service.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().map_or(0, |it| it + 1);
    TaskRecord { task, service_name: service.to_owned(), spec_version: Version { index }, ..TaskRecord::default() }
}

/// Resets the peak of memory. It is known on Linux only.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kib = line.trim().trim_end_matches(" kB").parse::<f64>();
    kib.unwrap_or_default() / 1024.0
}
