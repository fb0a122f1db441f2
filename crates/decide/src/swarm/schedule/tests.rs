use herder_model::swarm::{Change, Object, TaskState};

use super::*;
use crate::swarm::testing::{changes, generic, view};

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(changes(&schedule(&view(text), Time(1_000_000_000_000)).changes), expected, "\n{text}");
}

/// `count` tasks of a service with these words each.
fn tasks(service: &str, count: usize, words: &str) -> String {
    (1..=count).map(|slot| format!("\ntask {service}.{slot} {words}")).collect()
}

#[test]
fn the_node_with_the_fewest_tasks_of_the_service_comes_first_then_the_one_with_the_fewest_tasks() {
    let nodes = "node a\nnode b\nnode c";
    check(&format!("{nodes}{}", tasks("web", 4, "")), "web.1→a; web.2→b; web.3→c; web.4→a");
    let others = "\ntask x.1 running on=a\ntask x.2 running on=a\ntask x.3 running on=b";
    check(&format!("{nodes}{others}{}", tasks("web", 4, "")), "web.1→c; web.2→b; web.3→a; web.4→c");
    check(&format!("{nodes}\ntask web.9 running on=c{}", tasks("web", 2, "")), "web.1→a; web.2→b");
    check(&format!("{nodes}\ntask web.9 running on=c{}", tasks("db", 1, "")), "db.1→a");
}

#[test]
fn tasks_that_shall_stop_are_no_load_but_hold_what_they_have() {
    check("node a\nnode b\ntask x.1 running on=a want=shutdown\ntask x.2 running on=b\ntask web.1", "web.1→a");
    let full = "node a mem=100\ntask x.1 running on=a want=shutdown mem=60 ports=80";
    check(&format!("{full}\ntask web.1 mem=60"), "web.1 pending: no suitable node (insufficient resources on 1 node)");
    let taken = "web.1 pending: no suitable node (host-mode port already in use on 1 node)";
    check(&format!("{full}\ntask web.1 ports=80"), taken);
    check(&format!("{full}\ntask web.1 ports=80/udp"), "web.1→a");
    check("node a mem=100\ntask x.1 failed on=a mem=60 ports=80\ntask web.1 mem=60 ports=80", "web.1→a");
}

#[test]
fn a_task_whose_successor_is_prepared_is_no_load() {
    check(
        "node a\nnode b\ntask web.1 running on=a\ntask web.2 running on=b succeeded\ntask web.2 want=ready",
        "web.2→b",
    );
}

#[test]
fn only_pending_tasks_that_are_wanted_are_placed() {
    check("node a\ntask web.1 new\ntask web.2 want=shutdown\ntask web.3 want=remove\ntask web.4 failed", "");
    check("node a\ntask web.1 want=ready\ntask web.2 want=complete", "web.1→a; web.2→a");
}

#[test]
fn encrypted_networks_need_nodes_with_a_tunnel() {
    let nodes = "network sealed encrypted\nnetwork clear\nnode a\nnode b\nnode c tunnel";
    check(&format!("{nodes}{}", tasks("web", 3, "net=sealed")), "web.1→c; web.2→c; web.3→c");
    check(&format!("{nodes}{}", tasks("web", 3, "net=clear")), "web.1→a; web.2→b; web.3→c");
    check(
        "network sealed encrypted\nnode a\nnode b\ntask web.1 net=clear net=sealed",
        "web.1 pending: no suitable node (no tunnel for encrypted networks on 2 nodes)",
    );
}

#[test]
fn without_a_node_a_task_says_why_and_says_it_once() {
    check("task web.1", "web.1 pending: no suitable node");
    check("node a drain\ntask web.1", "web.1 pending: no suitable node (1 node not available for new tasks)");
    let known = "node a drain\ntask web.1 err=no_suitable_node_(1_node_not_available_for_new_tasks)";
    check(known, "");
    check(
        "node a drain\nnode b mem=10\nnode c mem=10\nnode d mem=99\ntask web.1 mem=50 if=node.id!=d",
        "web.1 pending: no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks; \
         scheduling constraints not satisfied on 1 node)",
    );
    check(
        "node a manager\nnode b\ntask x.1 running on=b ports=80\ntask web.1 ports=80 if=node.role==worker",
        "web.1 pending: no suitable node (scheduling constraints not satisfied on 1 node; host-mode port already in use \
         on 1 node)",
    );
    check(
        "node a\nnode b arch=x86_64 os=linux\ntask web.1 arch=arm64 max=1\ntask web.2 arch=arm64 max=1",
        "web.1 pending: no suitable node (unsupported platform on 2 nodes); web.2 pending: no suitable node (unsupported \
         platform on 2 nodes)",
    );
}

#[test]
fn nothing_is_given_twice() {
    check(
        &format!("node a cpus=2 mem=100\nnode b cpus=1 mem=100{}", tasks("web", 4, "cpus=1")),
        "web.1→a; web.2→b; web.3→a; web.4 pending: no suitable node (insufficient resources on 2 nodes)",
    );
    check(
        &format!("node a\nnode b{}", tasks("web", 3, "ports=80")),
        "web.1→a; web.2→b; web.3 pending: no suitable node (host-mode port already in use on 2 nodes)",
    );
    check(
        "node a\ntask web.1 ports=80\ntask dns.1 v=2 ports=80",
        "web.1→a; dns.1 pending: no suitable node (host-mode port already in use on 1 node)",
    );
    check(
        &format!("node a\nnode b\ntask web.9 running on=a{}", tasks("web", 4, "max=2")),
        "web.1→b; web.2→a; web.3→b; web.4 pending: no suitable node (max replicas per node limit exceed)",
    );
    check(
        "node a\ntask web.1 max=1\ntask web.2 v=2 max=1",
        "web.1→a; web.2 pending: no suitable node (max replicas per node limit exceed)",
    );
}

#[test]
fn generic_resources_are_given_one_by_one() {
    let text =
        format!("node a res=GPU=x,GPU=y,SSD:3\ntask o.1 running on=a holds=GPU=x{}", tasks("web", 2, "res=GPU:1"));
    let placed = schedule(&view(&text), Time(0));
    let refused = "web.2 pending: no suitable node (insufficient resources on 1 node)";
    assert_eq!(changes(&placed.changes), format!("web.1→a; {refused}"));
    let Change::Put(Object::Task(record)) = &placed.changes[0] else { panic!("{placed:?}") };
    assert_eq!(record.task.generic_resources, generic("GPU=y"));
    check(
        &format!("node a res=SSD:5{}", tasks("web", 3, "res=SSD:2")),
        "web.1→a; web.2→a; web.3 pending: no suitable node (insufficient resources on 1 node)",
    );
}

#[test]
fn a_node_that_failed_often_and_lately_comes_last() {
    let nodes = "node a\nnode b\ntask web.8 running on=b\ntask web.9 running on=b";
    let failed = |count: usize, at: u64, version: u64| {
        (0..count).map(|n| format!("\ntask web.{n}f failed on=a at={at} v={version}")).collect::<String>()
    };
    // It is second 1000.
    check(&format!("{nodes}{}\ntask web.1", failed(4, 900, 1)), "web.1→a");
    check(&format!("{nodes}{}\ntask web.1", failed(5, 900, 1)), "web.1→b");
    check(&format!("{nodes}{}\ntask web.1", failed(5, 700, 1)), "web.1→a");
    check(&format!("{nodes}{}\ntask web.1", failed(5, 900, 7)), "web.1→a");
    check(&format!("{nodes}{}\ntask db.1", failed(5, 900, 1)), "db.1→a");
    check(&format!("node a{}\ntask web.1", failed(9, 900, 1)), "web.1→a");
}

#[test]
fn preferences_even_out_branches_from_the_outside_in() {
    let spread = "spread=node.labels.zone";
    let nodes = "node a zone=1\nnode b zone=1\nnode c zone=1\nnode d zone=2";
    let counts = |text: &str| {
        let placed = schedule(&view(text), Time(0));
        let mut counts = std::collections::BTreeMap::new();
        for change in &placed.changes {
            let Change::Put(Object::Task(record)) = change else { panic!("{change:?}") };
            *counts.entry(record.task.node_id.clone()).or_insert(0) += 1;
        }
        counts.into_iter().map(|(node, count)| format!("{node}{count}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(counts(&format!("{nodes}{}", tasks("web", 6, spread))), "a1 b1 c1 d3");
    assert_eq!(counts(&format!("{nodes}\nnode e{}", tasks("web", 9, spread))), "a1 b1 c1 d3 e3");
    assert_eq!(counts(&format!("{nodes}\ntask web.9 running on=d{}", tasks("web", 3, spread))), "a1 b1 d1");
    // A full branch gives its share to the others.
    assert_eq!(counts(&format!("{nodes}{}", tasks("web", 6, &format!("{spread} max=2")))), "a2 b1 c1 d2");
    let racks = "node a zone=1 rack=1\nnode b zone=1 rack=2\nnode c zone=1 rack=2\nnode d zone=2 rack=1";
    let both = format!("{spread} spread=node.labels.rack");
    assert_eq!(counts(&format!("{racks}{}", tasks("web", 8, &both))), "a2 b1 c1 d4");
    // What runs on a node that takes nothing counts for its branch.
    let paused = "node a zone=1 pause\nnode b zone=1\nnode c zone=2\ntask web.8 running on=a\ntask web.9 running on=a";
    assert_eq!(counts(&format!("{paused}{}", tasks("web", 2, spread))), "c2");
}

#[test]
fn preassigned_tasks_are_only_looked_at_on_their_nodes() {
    check(
        "node a\nnode b mem=10\ntask g.1 on=b\ntask g.2 on=a mem=1",
        "g.1→b; g.2 pending: insufficient resources on 1 node",
    );
    check("node a pause\ntask g.1 on=a", "g.1 pending: 1 node not available for new tasks");
    check("node a\ntask g.1 on=gone", "");
    let placed = schedule(&view("node a\ntask g.1 on=a"), Time(7));
    let Change::Put(Object::Task(record)) = &placed.changes[0] else { panic!("{placed:?}") };
    assert_eq!(record.task.status.message, "scheduler confirmed task can run on preassigned node");
    // They come first.
    check(
        "node a mem=10\ntask b.1 mem=8\ntask g.1 on=a mem=8",
        "g.1→a; b.1 pending: no suitable node (insufficient resources on 1 node)",
    );
}

#[test]
fn a_placed_task_says_when_and_by_whom() {
    let placed = schedule(&view("node a\ntask web.1 err=no_suitable_node"), Time(1_000_000_000));
    let Change::Put(Object::Task(record)) = &placed.changes[0] else { panic!("{placed:?}") };
    let status = &record.task.status;
    let text = format!("{:?} {} {:?} {:?}", status.state, status.timestamp, status.message, status.err);
    assert_eq!(text, "Assigned 1970-01-01T00:00:01Z \"scheduler assigned task to node\" \"\"");
    assert_eq!((record.applied_at, status.state), (Time(1_000_000_000), TaskState::Assigned));
}

#[test]
fn a_limit_leaves_the_rest_for_the_next_run() {
    let text = format!("node a\nnode b{}", tasks("web", 5, ""));
    let fleet = Fleet::of(&view(&text));
    let part = fleet.schedule_up_to(Time(0), 3);
    assert_eq!((changes(&part.changes).as_str(), part.more), ("web.1→a; web.2→b; web.3→a", true));
    assert!(!fleet.schedule_up_to(Time(0), 6).more);
    assert_eq!(fleet.schedule(Time(0)).changes.len(), 5);
}

#[test]
fn tasks_without_a_service_go_where_the_fewest_tasks_are() {
    check("node a\nnode b\ntask x.1 running on=a\ntask .1 v=0\ntask .2 v=0\ntask .3 v=0", ".1→b; .2→a; .3→b");
    check("node a\nnode b\ntask web.1 v=0\ntask web.2 v=0\ntask web.3 v=0", "web.1→a; web.2→b; web.3→a");
}
