//! Properties of every run of the scheduler, checked without its filters.

use std::collections::{BTreeMap, BTreeSet};

use herder_model::swarm::{Availability, Change, Command, NodeRecord, Object, SwarmNodeState};
use proptest::prelude::*;

use super::*;
use crate::swarm::testing::object;

const NOW: Time = Time(1_000_000_000_000);

fn node(id: usize) -> impl Strategy<Value = String> {
    let sizes = (0..4_i64, 0..100_i64, 0..4_i64, 0..3_usize);
    (sizes, 0..3_u8, 0..2_u8, 0..8_usize).prop_map(move |((cpus, mem, ssd, gpus), zone, rack, state)| {
        let state = ["", "", "", "", "", "down", "pause", "drain"][state];
        let gpus: String = (0..gpus).map(|gpu| format!(",GPU=n{id}g{gpu}")).collect();
        let labels = format!("zone={zone} rack={rack}");
        format!("node n{id} cpus={cpus} mem={mem} res=SSD:{ssd}{gpus} {labels} arch=x86_64 os=linux {state}")
    })
}

/// The words that all tasks of a service have.
fn spec() -> impl Strategy<Value = String> {
    let choice = |words: &'static [&'static str]| prop::sample::select(words.to_vec());
    (
        choice(&["", "", "cpus=1", "mem=20", "cpus=1 mem=30"]),
        choice(&["", "", "", "res=GPU:1", "res=SSD:2", "res=GPU:1,SSD:1"]),
        choice(&["", "", "ports=80", "ports=80,53/udp", "ports=53"]),
        choice(&["", "", "max=1", "max=2"]),
        choice(&["", "", "if=node.labels.zone==1", "if=node.labels.zone!=2", "arch=amd64", "arch=arm64"]),
        choice(&["", "", "spread=node.labels.zone", "spread=node.labels.zone spread=node.labels.rack"]),
    )
        .prop_map(|(room, things, ports, max, only, spread)| [room, things, ports, max, only, spread].join(" "))
}

/// Nodes, and what services ask for with how many tasks each; the last one has tasks without a service.
fn swarm() -> impl Strategy<Value = (Vec<String>, Vec<(String, usize)>)> {
    let nodes = (1..7_usize).prop_flat_map(|count| (0..count).map(node).collect::<Vec<_>>());
    (nodes, prop::collection::vec((spec(), 0..12_usize), 1..5))
}

fn tasks(services: &[(String, usize)]) -> Vec<String> {
    let of = |(number, (spec, count)): (usize, &(String, usize))| {
        let (name, version) = if number == 0 { (String::new(), 0) } else { (format!("s{number}"), number) };
        let spec = spec.clone();
        (1..=*count).map(move |slot| format!("task {name}.{slot} v={version} {spec}"))
    };
    services.iter().enumerate().flat_map(of).collect()
}

fn view_of(nodes: &[String], services: &[(String, usize)]) -> View {
    View::of(1, nodes.iter().chain(&tasks(services)).map(|line| object(line)))
}

/// Writes what a run decided; says which tasks still wait.
fn write(view: &mut View, changes: Vec<Change>) -> Vec<String> {
    let index = view.index + 1;
    view.apply(index, &Command { at: NOW, changes }).expect("nobody else writes");
    let waiting = view.tasks.values().filter(|record| record.task.status.state == TaskState::Pending);
    waiting.map(|record| record.task.id.clone()).collect()
}

/// Everything that may not be, for what runs on a node.
fn check_node(view: &View, node: &NodeRecord) -> Result<(), TestCaseError> {
    let has = &node.node.description.resources;
    let (mut cpus, mut memory, mut ssds) = (0, 0, 0);
    let (mut gpus, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let mut services: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for record in view.tasks_of_node(&node.node.id) {
        let task = &record.task;
        prop_assert_eq!(node.node.status.state, SwarmNodeState::Ready);
        prop_assert_eq!(node.node.spec.availability, Availability::Active);
        let placement = task.spec.placement.as_ref().expect("all have one");
        let zone = &node.node.spec.labels.as_ref().expect("all have some")["zone"];
        for constraint in &placement.constraints {
            prop_assert!(
                if constraint.contains("==") { zone == "1" } else { zone != "2" },
                "{} in {}",
                constraint,
                zone
            );
        }
        prop_assert!(placement.platforms.iter().all(|platform| platform.architecture == "amd64"));
        let asked = task.spec.resources.as_ref().and_then(|it| it.reservations.as_ref()).expect("all have one");
        cpus += asked.nano_cpus;
        memory += asked.memory_bytes;
        let mut got = 0;
        for thing in &task.generic_resources {
            if let Some(gpu) = &thing.named_resource_spec {
                prop_assert!(gpu.value.starts_with(&node.node.id), "{:?} is of another node", gpu);
                prop_assert!(gpus.insert(&gpu.value), "{:?} is given twice", gpu);
                got += 1;
            }
            if let Some(some) = &thing.discrete_resource_spec {
                ssds += some.value;
                got += some.value;
            }
        }
        let wanted = asked.generic_resources.iter().filter_map(|it| it.discrete_resource_spec.as_ref());
        prop_assert_eq!(got, wanted.map(|it| it.value).sum::<i64>());
        for port in &record.ports {
            prop_assert!(ports.insert((port.published_port, &port.protocol)), "{:?} is used twice", port);
        }
        if !task.service_id.is_empty() {
            let (count, max) = services.entry(&task.service_id).or_default();
            (*count, *max) = (*count + 1, placement.max_replicas);
        }
    }
    prop_assert!(cpus <= has.nano_cpus && memory <= has.memory_bytes, "{} and {} of {:?}", cpus, memory, has);
    let ssds_max = has.generic_resources.iter().filter_map(|it| it.discrete_resource_spec.as_ref()).map(|it| it.value);
    prop_assert!(ssds <= ssds_max.sum::<i64>());
    prop_assert!(services.values().all(|(count, max)| *max == 0 || count <= max), "{:?}", services);
    Ok(())
}

proptest! {
    #[test]
    fn every_placement_meets_every_condition((nodes, services) in swarm(), limit in 1..30_usize) {
        let mut view = view_of(&nodes, &services);
        let mut fleet = Fleet::of(&view);
        loop {
            let placed = fleet.schedule_up_to(NOW, limit);
            let command = Command { at: NOW, changes: placed.changes };
            fleet.see(&view.apply(view.index + 1, &command).expect("nobody else writes"));
            if !placed.more {
                break;
            }
        }
        for node in view.nodes.values() {
            check_node(&view, node)?;
        }
        // A second look finds nothing new to say.
        prop_assert_eq!(fleet.schedule(NOW), Placed::default());
    }

    #[test]
    fn who_waits_fits_nowhere((nodes, services) in swarm()) {
        let mut view = view_of(&nodes, &services);
        let changes = schedule(&view, NOW).changes;
        let waiting = write(&mut view, changes);
        for id in waiting {
            let record = view.tasks[&id].clone();
            prop_assert!(record.task.status.err.starts_with("no suitable node ("), "{:?}", record.task.status);
            // Alone with what runs, it is refused by each node.
            let others = view.objects().filter(|it| !matches!(it, Object::Task(it) if it.task.status.state == TaskState::Pending));
            let alone = View::of(1, others.chain([Object::Task(record)]));
            prop_assert!(schedule(&alone, NOW).changes.iter().all(|change| match change {
                Change::Put(Object::Task(record)) => record.task.node_id.is_empty(),
                _ => false,
            }), "{}", id);
        }
    }

    #[test]
    fn the_order_in_which_nodes_came_does_not_matter(
        (nodes, services) in swarm(),
        seeds in prop::collection::vec(any::<u32>(), 6),
    ) {
        let expected = schedule(&view_of(&nodes, &services), NOW);
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by_key(|index| seeds[*index % seeds.len()]);
        let (mut view, mut fleet) = (View::default(), Fleet::default());
        let nodes = order.into_iter().map(|index| nodes[index].clone());
        for (index, line) in (1..).zip(tasks(&services).into_iter().rev().chain(nodes)) {
            let command = Command { at: NOW, changes: vec![Change::Put(object(&line))] };
            fleet.see(&view.apply(index, &command).expect("all are new"));
        }
        let where_to = |placed: &Placed| -> Vec<(String, String, String)> {
            let one = |change: &Change| match change {
                Change::Put(Object::Task(it)) => (it.task.id.clone(), it.task.node_id.clone(), it.task.status.err.clone()),
                other => (format!("{other:?}"), String::new(), String::new()),
            };
            placed.changes.iter().map(one).collect()
        };
        prop_assert_eq!(where_to(&fleet.schedule(NOW)), where_to(&expected));
    }

    #[test]
    fn with_room_everywhere_branches_and_nodes_are_even(
        zones in prop::collection::vec(0..4_u8, 1..10),
        count in 0..40_usize,
        before in prop::collection::vec(0..10_usize, 0..6),
    ) {
        let nodes = zones.iter().enumerate().map(|(id, zone)| format!("node n{id} zone={zone}"));
        let before = before.iter().enumerate().map(|(slot, node)| {
            format!("task web.{} running on=n{} spread=node.labels.zone", 100 + slot, node % zones.len())
        });
        let tasks = (1..=count).map(|slot| format!("task web.{slot} spread=node.labels.zone"));
        let mut view = View::of(1, nodes.chain(before).chain(tasks).map(|line| object(&line)));
        let counts = |view: &View| {
            let mut counts: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            for (id, zone) in zones.iter().enumerate() {
                counts.entry(*zone).or_default().push(view.tasks_of_node(&format!("n{id}")).count());
            }
            counts
        };
        let was = counts(&view);
        let changes = schedule(&view, NOW).changes;
        prop_assert_eq!(write(&mut view, changes), Vec::<String>::new());
        let is = counts(&view);
        let total = |of: &BTreeMap<u8, Vec<usize>>, zone: &u8| of[zone].iter().sum::<usize>();
        for zone in is.keys() {
            // Whoever got something is not ahead of anybody by more than one.
            let got = total(&is, zone) > total(&was, zone);
            prop_assert!(!got || is.keys().all(|other| total(&is, zone) <= total(&is, other) + 1), "{:?}", is);
            for (at, count) in is[zone].iter().enumerate() {
                prop_assert!(*count == was[zone][at] || is[zone].iter().all(|other| *count <= other + 1), "{:?}", is);
            }
        }
    }
}
