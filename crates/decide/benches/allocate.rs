//! Benchmark of the allocator: 100,000 tasks get their addresses in one network of 131,070; then one of them is replaced.
//!
//! As in the scheduler's benchmark no log, disk or network takes part, and measured is the processor time of the one thread.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[expect(dead_code, reason = "goals of other benchmarks")]
#[path = "../../../benches/src/report.rs"]
mod report;

use std::time::Duration;

use herder_decide::swarm::allocate::Addresses;
use herder_decide::swarm::control::{Declared, Ipam, IpamRequest, NetworkRequest, create_network, create_service};
use herder_model::swarm::{
    Change, Cluster, ClusterRecord, Command, LEVEL, Object, ServiceSpec, Task, TaskRecord, TaskState, Time, View,
};
use report::{Goal, Report, Row, Times};
use rustix::time::{ClockId, clock_gettime};

const SERVICES: usize = 100;
const REPLICAS: usize = 1000;
const REPLACED: usize = 1000;
const NOW: Time = Time(1_700_000_000_000_000_000);

fn main() {
    let json = std::env::args().any(|it| it == "json");
    let mut report = Report::new("allocate", json, "none");
    let (mut view, mut addresses) = (View::default(), Addresses::default());
    let cluster = ClusterRecord {
        cluster: Cluster { id: "c".into(), ..Cluster::default() },
        level: LEVEL,
        ..ClusterRecord::default()
    };
    write(&mut view, &mut addresses, vec![cluster.into()]);
    let config = vec![IpamRequest { subnet: "10.128.0.0/15".into(), ..IpamRequest::default() }];
    let request = NetworkRequest {
        name: "ov".into(),
        driver: "overlay".into(),
        ipam: Some(Ipam { config, ..Ipam::default() }),
        ..NetworkRequest::default()
    };
    let changes = create_network(&view, &request, "net".into()).expect("a network");
    write(&mut view, &mut addresses, changes);
    let mut give = Duration::ZERO;
    for number in 0..SERVICES {
        let id = format!("s{number}");
        let spec = serde_json::json!({"Name": id, "TaskTemplate": {"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "ov"}]}});
        let spec: ServiceSpec = serde_json::from_value(spec).expect("a specification");
        let declared = Declared { spec, ..Declared::default() };
        let changes = create_service(&view, &declared, id.clone(), NOW).expect("a service");
        write(&mut view, &mut addresses, changes);
        let drafts = (0..REPLICAS).map(|n| draft(&id, number * REPLICAS + n)).collect();
        give += put(&mut view, &mut addresses, &id, drafts);
    }
    let given = view.tasks.values().filter(|it| it.networks.iter().any(|it| it.v4.is_some())).count();
    assert_eq!(given, SERVICES * REPLICAS, "all have an address");
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let mut row = |figure: &str, unit, measured| {
        report.row(Row { figure: figure.into(), unit, measured, baseline: None, goal: Goal::None });
    };
    row("addresses for 100,000 tasks of 100 services", "ms", ms(give));
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    row("  each", "µs", ms(give) * 1e3 / (SERVICES * REPLICAS) as f64);
    let mut times = Vec::new();
    for n in 0..REPLACED {
        let service = format!("s{}", n % SERVICES);
        let old = view.tasks_of_service(&service).next().map(|it| TaskRecord::clone(it)).expect("a task");
        let mut ended = old;
        ended.task.status.state = TaskState::Shutdown;
        write(&mut view, &mut addresses, vec![ended.into()]);
        times.push(put(&mut view, &mut addresses, &service, vec![draft(&service, SERVICES * REPLICAS + n)]));
    }
    row("a task is replaced among 100,000, p50", "ms", times.iter().copied().collect::<Times>().ms(0.5));
    row("a task is replaced among 100,000, p99", "ms", times.into_iter().collect::<Times>().ms(0.99));
    report.end();
}

fn draft(service: &str, number: usize) -> Change {
    let mut task =
        Task { id: format!("t{number:06}"), service_id: service.into(), slot: number as u64 + 1, ..Task::default() };
    (task.status.state, task.desired_state) = (TaskState::New, TaskState::Running);
    TaskRecord { task, ..TaskRecord::default() }.into()
}

/// Gives the tasks their addresses, writes them, and returns the time of the first.
fn put(view: &mut View, addresses: &mut Addresses, service: &str, drafts: Vec<Change>) -> Duration {
    let record = view.services[service].clone();
    let began = cpu_time();
    addresses.begin_step();
    let changes = addresses.give(view, &record, drafts);
    let took = cpu_time().saturating_sub(began);
    assert!(changes.iter().all(|it| matches!(it, Change::Put(Object::Task(_)))));
    write(view, addresses, changes);
    took
}

fn write(view: &mut View, addresses: &mut Addresses, changes: Vec<Change>) {
    let command = Command { at: NOW, changes };
    let written = view.apply_owned(view.index + 1, command).expect("it fits");
    addresses.see(&written, NOW);
}

/// Returns the processor time of this thread.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
