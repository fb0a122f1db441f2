//! A node that still balances to an endpoint is found once the leader says that none does, and only then.

use herder_model::swarm::{NetUpdate, ServiceRecord, TaskRecord, TaskState, View};

use super::*;
use crate::kernel::tests::{kernel, new_task, states, view, write};

/// Situations of node `n2` when `n1` hears that the end of task `t2` has settled; what is said of each.
const SITUATIONS: &[(&str, &[&str])] = &[
    ("applied", &[]),
    (
        "balances",
        &[
            "n2 balances to t2, which has left in, as n1 has heard",
            "n2 balances to t2, which has left ov, as n1 has heard",
        ],
    ),
    ("names", &["n2 gives out the address of t2, which has left ov, as n1 has heard"]),
    ("names, but as a virtual IP", &[]),
    // The leader does not wait for it.
    ("balances, its session is young", &[]),
    ("balances, its session is with another manager", &[]),
    ("balances, its session ends before it proves itself", &[]),
    ("balances, and has said nothing since", &[]),
    ("balances, nothing is settled", &[]),
    ("balances, and the task serves again", &[]),
];

async fn said(situation: &str) -> Vec<String> {
    let is = |what: &str| situation.contains(what);
    let before = view();
    let after = ended(&before);
    let (old, new) = (states(&before, "n2"), states(&after, "n2"));
    let (two, trace) = kernel("n2", if is("balances") { old.clone() } else { new.clone() });
    two.name_only(match situation {
        "names, but as a virtual IP" => states(&with_virtual_ip(&after, "10.0.2.12/24"), "n2"),
        "names" => old,
        _ => new,
    });
    judged(&before, &after, (two, trace), is).await
}

/// Task `t2` has ended, another one follows it, and their service has a virtual IP on the user network.
fn with_virtual_ip(view: &View, addr: &str) -> View {
    let mut view = view.clone();
    let mut task = TaskRecord::clone(&view.tasks["t2"]);
    task.task.status.state = TaskState::Shutdown;
    write(&mut view, task);
    write(&mut view, new_task("t3", "n2", 13));
    let mut service = ServiceRecord::clone(&view.services["s"]);
    let vips = service.service.endpoint.virtual_ips.iter_mut().filter(|it| it.network_id == "ov");
    vips.for_each(|it| addr.clone_into(&mut it.addr));
    write(&mut view, service);
    view
}

fn ended(view: &View) -> View {
    let mut view = view.clone();
    let mut task = TaskRecord::clone(&view.tasks["t2"]);
    task.task.desired_state = TaskState::Shutdown;
    write(&mut view, task);
    view
}

async fn judged(before: &View, after: &View, (two, trace): (Kernel, Trace), is: impl Fn(&str) -> bool) -> Vec<String> {
    let kernels = BTreeMap::from([("n2".to_owned(), two)]);
    let leaving = Leaving::new(trace.clone(), kernels);
    leaving.begins("n1", "m1");
    if !is("young") {
        leaving.begins("n2", if is("another") { "m2" } else { "m1" });
    }
    tokio::time::advance(SESSION_AGE_MIN * 2).await;
    if is("young") {
        leaving.begins("n2", "m1");
    }
    let (before, after) = (states(before, "n1"), states(after, "n1"));
    let update = |version: u64, settled: u64| {
        let of =
            |id: &String| NetUpdate { network_id: id.clone(), results_in: version, settled, ..NetUpdate::default() };
        NetNews { updates: before.keys().map(of).collect(), ..NetNews::default() }
    };
    leaving.hears("n1", &update(7, 3), &before, &after);
    assert_eq!(trace.failures(), Vec::<String>::new(), "nothing is settled");
    let now = if is("serves again") { &before } else { &after };
    leaving.hears("n1", &update(8, if is("nothing is settled") { 6 } else { 7 }), &after, now);
    if is("ends before") {
        leaving.ends("n2");
        leaving.begins("n2", "m1");
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    if !is("said nothing") {
        leaving.heard("n2", Instant::now());
    }
    trace.failures()
}

#[tokio::test(start_paused = true)]
async fn only_a_node_that_the_leader_waited_for_is_at_fault() {
    for (situation, wanted) in SITUATIONS {
        assert_eq!(said(situation).await, *wanted, "{situation}");
    }
}
