//! A fleet that saw every change is the fleet of the view after them.

use std::collections::BTreeMap;

use herder_model::swarm::{Change, Command, Kind};
use proptest::prelude::*;

use super::*;
use crate::swarm::testing::object;

/// A fleet without its numbers, which depend on the order in which things came.
#[derive(Debug, PartialEq)]
struct Sums {
    hosts: BTreeMap<String, (bool, Taken)>,
    order: Vec<String>,
    counts: BTreeMap<(String, String), u32>,
    services: BTreeMap<String, u32>,
    waiting: BTreeMap<String, u64>,
    preassigned: Vec<String>,
    failures: BTreeMap<String, usize>,
}

fn sums(fleet: &Fleet) -> Sums {
    let hosts: BTreeMap<HostNo, &String> = fleet.numbers.iter().map(|(id, number)| (*number, id)).collect();
    let services: BTreeMap<ServiceNo, &String> = fleet.services.iter().map(|(id, (no, _))| (*no, id)).collect();
    let host = |number: &HostNo| hosts[number].clone();
    let of_host = |(number, id): (&HostNo, &&String)| {
        let host = &fleet.hosts[*number as usize];
        ((*id).clone(), (host.record.is_some(), host.taken.clone()))
    };
    let counts =
        fleet.counts.iter().map(|((service, number), count)| ((services[service].clone(), host(number)), *count));
    Sums {
        hosts: hosts.iter().map(of_host).collect(),
        order: fleet.order.iter().map(host).collect(),
        counts: counts.collect(),
        services: fleet.services.iter().map(|(id, (_, tasks))| (id.clone(), *tasks)).collect(),
        waiting: fleet
            .waiting
            .iter()
            .map(|it| (it.record.task.id.clone(), it.record.task.meta.version.index))
            .collect(),
        preassigned: fleet.preassigned.keys().cloned().collect(),
        failures: fleet.failures.iter().map(|(service, failures)| (service.clone(), failures.len())).collect(),
    }
}

/// Puts a node or a task as the line says, or takes it away.
fn step() -> impl Strategy<Value = String> {
    let node = prop::sample::select(vec!["a", "b", "c", "d"]);
    let service = prop::sample::select(vec!["web", "db", ""]);
    let states = ["new", "pending", "assigned", "running", "complete", "failed", "rejected", "orphaned"];
    let task = (service, 0..6_u8, prop::sample::select(states.to_vec()), node.clone(), 0..4_u8, any::<bool>());
    let task = task.prop_map(|(service, slot, state, node, want, on)| {
        let want = ["ready", "running", "shutdown", "remove"][usize::from(want)];
        let on = if on { format!("on={node}") } else { String::new() };
        let more = ["cpus=1 res=GPU:1 holds=GPU=x", "mem=5 ports=80,81/udp", "holds=SSD:2 ports=80"];
        format!("task {service}.{slot} {state} want={want} {on} {}", more[usize::from(slot) % more.len()])
    });
    let put = prop_oneof![4 => task.clone(), 1 => node.clone().prop_map(|id| format!("node {id} mem=100"))];
    let remove = prop_oneof![task, node.prop_map(|id| format!("node {id}"))].prop_map(|line| format!("-{line}"));
    prop_oneof![4 => put, 1 => remove]
}

fn change(view: &View, line: &str) -> Change {
    if let Some(line) = line.strip_prefix('-') {
        let object = object(line);
        return Change::Remove(object.kind(), object.id().to_owned());
    }
    let mut object = object(line);
    let known = view.get(object.kind(), object.id());
    let version = known.map_or(0, |known| known.meta().version.index);
    match &mut object {
        Object::Node(record) => Arc::make_mut(record).node.meta.version.index = version,
        Object::Task(record) => Arc::make_mut(record).task.meta.version.index = version,
        _ => {}
    }
    Change::Put(object)
}

proptest! {
    #[test]
    fn seeing_changes_is_the_same_as_looking_anew(steps in prop::collection::vec(step(), 0..60)) {
        let mut view = View::default();
        let mut fleet = Fleet::default();
        for (index, line) in (1..).zip(&steps) {
            let changes = vec![change(&view, line)];
            let written = view.apply(index, &Command { at: Time(index), changes }).expect("versions are right");
            fleet.see(&written);
            let (mut seen, mut anew) = (sums(&fleet), sums(&Fleet::of(&view)));
            // Failures of tasks that are gone are remembered, too.
            for (service, count) in &anew.failures {
                prop_assert!(seen.failures[service] >= *count);
            }
            seen.failures.clear();
            anew.failures.clear();
            prop_assert_eq!(seen, anew, "{}", line);
        }
    }

    #[test]
    fn what_is_about_to_be_written_is_placed_as_if_it_was_and_leaves_nothing_behind(
        before in prop::collection::vec(step(), 0..40),
        after in prop::collection::vec(step(), 0..20),
    ) {
        let mut view = View::default();
        let mut index = 0;
        let mut apply = |view: &mut View, line: &String| {
            index += 1;
            let changes = vec![change(view, line)];
            view.apply(index, &Command { at: Time(index), changes }).expect("versions are right")
        };
        before.iter().for_each(|line| drop(apply(&mut view, line)));
        let (mut fleet, mut seen) = (Fleet::of(&view), Fleet::of(&view));
        let was = sums(&fleet);
        let written: Vec<Written> = after.iter().flat_map(|line| apply(&mut view, line)).collect();
        let waits = Fleet::of(&view).is_waited_for();

        seen.see(&written);
        let placed = fleet.schedule_after(&written, Time(100), usize::MAX);
        prop_assert_eq!(placed, seen.schedule(Time(100)));
        prop_assert!(!waits || fleet.is_waited_for() || Fleet::is_waited_for_in(&written));
        prop_assert_eq!(sums(&fleet), was);
    }

    #[test]
    fn when_everything_is_gone_nothing_is_left(steps in prop::collection::vec(step(), 0..60)) {
        let mut view = View::default();
        let mut fleet = Fleet::default();
        let mut index = 0;
        let mut apply = |fleet: &mut Fleet, view: &mut View, change: Change| {
            index += 1;
            fleet.see(&view.apply(index, &Command { at: Time(1), changes: vec![change] }).expect("versions are right"));
        };
        for line in &steps {
            let change = change(&view, line);
            apply(&mut fleet, &mut view, change);
        }
        let all: Vec<(Kind, String)> = view.objects().map(|it| (it.kind(), it.id().to_owned())).collect();
        for (kind, id) in all {
            apply(&mut fleet, &mut view, Change::Remove(kind, id));
        }
        let left = sums(&fleet);
        let nothing = sums(&Fleet::default());
        prop_assert_eq!(Sums { failures: BTreeMap::new(), ..left }, nothing);
        prop_assert!(fleet.hosts.iter().all(|host| host.taken == Taken::default()));
    }
}
