//! Updates and rollbacks.

use super::check;

const STARTED: &str = "updating: update in progress";

#[test]
fn only_what_is_out_of_date_is_replaced() {
    let check = |web: &str, task: &str, expected| {
        check(&format!("node a\n node b label=ssd\n web v2 {web}\n {task}"), expected)
    };
    check("image=i1", "t1 1@a v1", "");
    check("", "t1 1@a v2", "");
    check("image=i1 on=ssd", "t1 1@b v1", "");
    let replaced = format!("+ n1 1 >ready upd\n t1 >shutdown\n {STARTED}\n again 160");
    check("", "t1 1@a v1", &replaced);
    check("image=i1 on=ssd", "t1 1@a v1", &replaced);
    check("image=i2 on=ssd", "t1 1@b v1", &replaced);
    check("image=i1 ports=80", "t1 1@a v1", &replaced);
    check("image=i1 ports=80", "t1 1@a v1 ports=80", "");
}

#[test]
fn so_many_slots_are_updated_at_the_same_time() {
    let check = |parallel: &str, slots: usize| {
        let started = (1..=slots).map(|slot| format!("+ n{slot} {slot} >ready upd\n t{slot} >shutdown"));
        let expected = format!("{}\n {STARTED}\n again 160", started.collect::<Vec<_>>().join("\n"));
        check(&format!("node a\n web v2 replicas=3 {parallel}\n t1 1@a v1\n t2 2@a v1\n t3 3@a v1"), &expected);
    };
    check("", 1);
    check("parallel=2", 2);
    check("parallel=0", 3);
}

#[test]
fn a_slot_is_in_work_until_its_task_runs_and_then_for_the_delay() {
    let check = |now: u64, web: &str, first: &str, expected: &str| {
        let web = format!("web v2 replicas=2 status=updating {web}");
        check(&format!("now={now}\n node a\n {web}\n t1 1@a {first} upd\n t2 2@a v1 starting"), expected);
    };
    let next = "+ n1 2 >ready upd\n t2 >shutdown\n again 160";
    check(100, "", "starting", "");
    check(100, "", "running since=100", next);
    check(100, "parallel=2", "starting", next);
    check(100, "parallel=0", "starting", next);
    check(100, "pause=10", "running since=95", "+ n1 2 >ready ahead\n t2 succeeded\n again 105");
    check(105, "pause=10", "running since=95", "+ n1 2 >ready upd\n t2 >shutdown\n again 165");
}

#[test]
fn start_first_keeps_the_old_task_until_the_new_one_runs() {
    let check = |web: &str, tasks: &str, expected: &str| {
        check(&format!("node a\n node b\n web v2 start-first {web}\n {tasks}"), expected);
    };
    check("", "t1 1@a v1", &format!("+ n1 1 >running upd\n {STARTED}"));
    check("fenced", "t1 1@a v1", &format!("+ n1 1 >ready upd\n t1 >shutdown\n {STARTED}"));
    check("", "t1 1@a v1 starting", &format!("+ n1 1 >ready upd\n t1 >shutdown\n {STARTED}\n again 160"));
    check("status=updating", "t1 1@a v1\n t2 1@b starting upd", "");
    check("status=updating", "t1 1@a v1\n t2 1@b running since=100 upd", "t1 >shutdown\n again 105");
    check("status=paused", "t1 1@a v1\n t2 1@b running since=100 upd", "t1 >shutdown");
    check("status=updating", "t1 1@a v1 failed\n t2 1@b starting upd", "t1 >shutdown");
    // A third specification: the second never ran, and is not waited for.
    check("v3", "", "+ n1 1 >running");
    check("", "t1 1@a v0\n t2 1@b v1 starting", &format!("t2 >shutdown\n + n1 1 >running upd\n {STARTED}"));
    // Back to what still runs.
    check("image=i1", "t1 1@a v1\n t2 1@b image=i9 v0 starting", "t2 >shutdown");
}

#[test]
fn start_first_stops_first_where_the_new_task_waits_for_the_ports_of_the_old_one() {
    let check = |err: &str, expected: &str| {
        let web = "web v2 start-first status=updating";
        check(&format!("node a\n {web}\n t1 1@a v1\n t2 1 pending upd err={err}"), expected);
    };
    check("no_suitable_node_(host-mode_port_already_in_use_on_1_node)", "t1 >shutdown");
    check("no_suitable_node_(insufficient_resources_on_1_node)", "");
}

#[test]
fn an_update_ends_when_its_last_task_was_watched() {
    let check = |now: u64, web: &str, expected: &str| {
        check(&format!("now={now}\n node a\n web v2 {web}\n t1 1@a running since=100 upd"), expected);
    };
    check(104, "status=updating", "again 105");
    check(105, "status=updating", "completed: update completed");
    check(102, "status=updating monitor=2", "completed: update completed");
    check(105, "status=updating pause=9", "again 110");
    check(109, "status=updating pause=9", "again 110");
    check(110, "status=updating pause=9", "completed: update completed");
    check(105, "status=rollback_started", "rollback_completed: rollback completed");
    check(105, "status=completed", "");
    check(105, "status=paused", "");
}

#[test]
fn an_update_of_nothing_ends_at_once() {
    check("node a\n web v2 status=rollback_started image=i1\n t1 1@a v1", "rollback_completed: rollback completed");
    check("node a\n web v2 status=updating image=i1\n t1 1@a v1", "completed: update completed");
}

#[test]
fn too_many_failures_pause_or_go_on_or_go_back() {
    let check = |web: &str, first: &str, expected: &str| {
        let web = format!("web v2 replicas=2 delay=20 {web}");
        check(
            &format!("node a\n {web}\n t1 1@a {first} >shutdown upd\n t3 1 pending >ready hold=120\n t2 2@a v1"),
            expected,
        );
    };
    let because = "due to failure or early termination of task t1";
    let next = "+ n1 2 >ready upd\n t2 >shutdown\n again 120";
    let early = "failed at=100 since=95";
    check("status=updating", early, &format!("paused: update paused {because}\n again 120"));
    check("status=updating", "complete at=100 since=95", &format!("paused: update paused {because}\n again 120"));
    check("status=updating", "rejected at=100", &format!("paused: update paused {because}\n again 120"));
    check("status=updating", "failed at=100 since=94", next);
    check("status=updating", "shutdown at=100 since=95", next);
    check("status=updating ratio=0.5", early, next);
    check("status=updating ratio=0.4", early, &format!("paused: update paused {because}\n again 120"));
    check("status=updating action=continue", early, next);
    let back = format!("image=i1 rollback_started: update rolled back {because}\n again 120");
    check("status=updating action=rollback previous=i1", early, &back);
    check("status=updating action=rollback", early, &format!("paused: update paused {because}\n again 120"));
    check("status=rollback_started", early, &format!("rollback_paused: update paused {because}\n again 120"));
    let again = format!("rollback_paused: rollback paused {because}\n again 120");
    check("status=rollback_started action=rollback", early, &again);
    check("status=paused", early, "again 120");
}

#[test]
fn a_rollback_fills_slots_again_that_the_update_left_for_good() {
    let web = "web v3 policy=none image=i1 status=rollback_started";
    check(
        &format!("node a\n {web}\n t1 1@a v2 policy=none failed >shutdown"),
        "+ n1 1 >running\n rollback_completed: rollback completed",
    );
    check(&format!("node a\n {web}\n t1 1@a failed >shutdown"), "rollback_completed: rollback completed");
}

#[test]
fn an_update_fills_slots_that_were_left_for_good() {
    let updated = format!("+ n1 1 >running upd\n {STARTED}");
    check("node a\n web v2 policy=none\n t1 1@a v1 policy=none failed >shutdown", &updated);
}

#[test]
fn a_task_of_an_update_that_loses_its_node_is_waited_for_on_another() {
    let lost = "t1 >shutdown\n + n1 1 >ready hold=100 upd\n again 160";
    check("node a drain\n web v2 status=updating\n t1 1@a starting upd", lost);
    let ran = "t1 >shutdown\n + n1 1 >ready hold=100\n again 105";
    check("node a drain\n web v2 status=updating\n t1 1@a running since=100 upd", ran);
}

#[test]
fn what_an_update_is_judged_by_is_not_forgotten_while_it_goes_on() {
    let tasks = "t1 1@a failed >shutdown at=90 upd\n t2 1@a starting\n t3 2@a v1 starting";
    let cluster =
        |web: &str| format!("history=1\n node a\n web v2 replicas=2 action=continue pause=90 {web}\n {tasks}");
    check(&cluster("status=updating"), "again 180");
    check(&cluster("status=paused"), "- t1");
}

#[test]
fn global_services_are_updated_node_by_node() {
    let tasks = "t1 @a v1 starting\n t2 @b v1 starting";
    let expected = format!("+ n1 @a >ready upd\n t1 >shutdown\n {STARTED}\n again 160");
    check(&format!("node a\n node b\n web global v2\n {tasks}"), &expected);
    // On a node that is paused nothing begins, but what took over there does.
    let both = "t1 @a v1\n t2 @a v2 running since=100 upd";
    let web = "web global v2 start-first status=updating";
    check(&format!("node a pause\n {web}\n {both}"), "t1 >shutdown\n completed: update completed");
}

#[test]
fn the_next_slots_are_prepared_while_the_present_ones_are_in_work() {
    let check = |web: &str, tasks: &str, expected: &str| {
        let web = format!("web v2 replicas=4 status=updating {web}");
        check(&format!("now=106\n node a\n {web}\n t1 1@a running since=100 upd\n {tasks}"), expected);
    };
    let old = "t2 2@a v1\n t3 3@a v1\n t4 4@a v1";
    let stopped = "+ n1 2 >ready upd\n t2 >shutdown";
    let prepared = format!("{stopped}\n + n2 3 >ready ahead\n t3 succeeded\n again 166");
    check("", old, &prepared);
    check("start-first", old, "+ n1 2 >running upd\n + n2 3 >ready ahead\n t3 succeeded");
    check(
        "parallel=0",
        old,
        &format!("{stopped}\n + n2 3 >ready upd\n t3 >shutdown\n + n3 4 >ready upd\n t4 >shutdown\n again 166"),
    );
    // What asks for something that the task before has is made when that has gone.
    check("ports=80", old, &format!("{stopped}\n again 166"));
    // Between two slots there may be a pause.
    check("pause=10", old, "+ n1 2 >ready ahead\n t2 succeeded\n again 110");
    // In its turn it is as any other; how long the one before may take to stop is counted from then.
    let waits = "t2 2@a v1 succeeded\n t3 3@a v1\n t4 4@a v1\n t5 2@a >ready ready ahead";
    check("", waits, "t5 turn\n t2 >shutdown\n + n1 3 >ready ahead\n t3 succeeded\n again 166");
    check("start-first", waits, "t5 >running turn\n t2 stays\n + n1 3 >ready ahead\n t3 succeeded");
    check("pause=10", waits, "again 110");
}

#[test]
fn nothing_is_prepared_before_a_task_of_the_update_has_come_up() {
    let web = "web v2 replicas=3 status=updating";
    check(&format!("node a\n {web}\n t1 1@a starting upd\n t2 2@a v1\n t3 3@a v1"), "");
}

#[test]
fn what_was_prepared_goes_when_its_turn_does_not_come() {
    let check = |web: &str, tasks: &str, expected: &str| {
        let web = format!("web replicas=2 delay=20 {web}");
        check(&format!("now=103\n node a\n {web}\n t1 1@a v2 running since=100 upd\n {tasks}"), expected);
    };
    let waits = "t2 2@a v1 succeeded\n t3 2@a v2 >ready ready ahead";
    check("v2 status=updating pause=10", waits, "again 110");
    check("v2 status=paused", waits, "t3 >remove\n t2 stays");
    // It is told so, and is forgotten when its container is gone.
    check("v2 status=paused", "t2 2@a v1 succeeded\n t3 2 v2 pending >ready ahead", "- t3\n t2 stays");
    check(
        "v3 pause=10",
        waits,
        &format!("t3 >remove\n t2 stays\n + n1 1 >ready upd\n t1 >shutdown\n {STARTED}\n again 163"),
    );
    check(
        "v3 image=i1 status=rollback_started",
        waits,
        "t3 >remove\n t2 stays\n + n1 1 >ready upd\n t1 >shutdown\n again 163",
    );
    // In the same step in which the update stops.
    check(
        "v2 status=updating pause=10",
        &format!("t4 1@a v2 failed at=102 since=101 >shutdown upd\n {waits}"),
        "t3 >remove\n t2 stays\n paused: update paused due to failure or early termination of task t4",
    );
    // The task before it ended by itself: the next one waits for the delay, as ever.
    check(
        "v2 status=updating pause=10",
        "t2 2@a v1 failed at=103 succeeded\n t3 2@a v2 >ready ready ahead",
        "t2 >shutdown\n + n1 2 >ready hold=108 restarted=1\n t3 >remove\n again 108",
    );
}

#[test]
fn what_cannot_be_prepared_has_failed_and_is_not_tried_before_its_turn() {
    let check = |web: &str, expected: &str| {
        let web = format!("web v2 replicas=3 status=updating pause=10 {web}");
        let tasks =
            "t1 1@a running since=100 upd\n t2 2@a v1 succeeded\n t4 3@a v1\n t3 2@a rejected at=102 >ready ahead";
        check(&format!("now=103\n node a\n {web}\n {tasks}"), expected);
    };
    let because = "due to failure or early termination of task t3";
    check("", &format!("t3 >shutdown\n t2 stays\n paused: update paused {because}"));
    check("action=continue", "t3 >shutdown\n t2 stays\n again 110");
    check(
        "parallel=2\n t5 3@a v2 >ready ready ahead",
        &format!("t3 >shutdown\n t2 stays\n t5 >remove\n paused: update paused {because}"),
    );
}

/// Room that comes free during an update must not go to tasks of the specification that is being replaced.
#[test]
fn tasks_that_wait_for_a_node_are_replaced_first_and_hold_nothing_up() {
    let no_room = "err=no_suitable_node_(insufficient_resources_on_1_node)";
    check(
        &format!("node a\n web v2 replicas=2\n t1 1@a v1\n t2 2 pending v1 {no_room}"),
        &format!("+ n1 2 >running upd\n - t2\n + n2 1 >ready upd\n t1 >shutdown\n {STARTED}\n again 160"),
    );
    // The room of slot 1 went to slot 2, which had none: as many run as before.
    let tasks = |second: &str| format!("t1 1 pending upd {no_room}\n t2 2@a running since=95 upd {second}");
    let web = "node a\n web v2 replicas=2 status=updating";
    check(&format!("{web}\n {}", tasks("waited")), "completed: update completed");
    check(&format!("{web}\n {}", tasks("")), "");
}
