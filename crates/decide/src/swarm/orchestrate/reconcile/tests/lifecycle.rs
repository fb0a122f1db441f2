//! Tests of the number of tasks, of ends of tasks, and of removals.

use super::check;

#[test]
fn a_new_service_gets_its_tasks() {
    check("web replicas=2", "+ n1 1 >running\n + n2 2 >running");
    check("node a\n node b drain\n node c down\n node d pause\n web global", "+ n1 @a >running");
    check("node a\n node b label=ssd\n web global on=ssd", "+ n1 @b >running");
    check("web", "+ n1 1 >running");
    check("web replicas=0", "");
}

#[test]
fn more_replicas_get_the_lowest_free_numbers() {
    check("node a\n web replicas=4\n t1 1@a\n t3 3@a", "+ n1 2 >running\n + n2 4 >running");
}

#[test]
fn fewer_replicas_take_away_what_does_not_run_then_what_is_crowded_then_what_is_high() {
    let cluster = "node a\n node b\n web replicas=REPLICAS\n t1 1@a starting\n t2 2@a\n t3 3@a\n t4 4@b\n t5 5@b";
    let check = |replicas: &str, expected| check(&cluster.replace("REPLICAS", replicas), expected);
    check("4", "t1 >remove");
    check("3", "t1 >remove\n t5 >remove");
    check("2", "t1 >remove\n t3 >remove\n t5 >remove");
}

#[test]
fn a_replica_on_a_node_that_is_down_goes_before_one_that_runs() {
    check(
        "node a down since=99\n node b down since=99\n node c down off since=99\n node d\n web replicas=1\n t1 1@c\n t2 2@d",
        "- t1\n again 105",
    );
}

#[test]
fn a_slot_that_is_given_up_is_forgotten_with_its_history() {
    let slot = "t1 2@a failed >shutdown\n t2 2@a running >shutdown\n t3 2@a";
    check(&format!("node a\n web replicas=1\n t0 1@a\n {slot}"), "- t1\n t2 >remove\n t3 >remove");
}

#[test]
fn tasks_of_a_service_that_is_gone_are_forgotten_when_they_have_ended() {
    let tasks = "t1 1@a\n t2 2@a failed\n t3 3 pending\n t4 4@b\n t5 5@a >remove\n t6 6@c";
    check(&format!("node a\n node b down off\n {tasks}"), "t1 >remove\n - t2\n - t3\n - t4\n - t6");
    check(&format!("node a\n node b down\n {tasks}"), "t1 >remove\n - t2\n - t3\n t4 >remove\n - t6\n again 86400");
}

#[test]
fn a_task_that_ends_is_made_again_after_a_delay() {
    check("node a\n web\n t1 1@a failed at=100", "t1 >shutdown\n + n1 1 >ready hold=105 restarted=1\n again 105");
    check("node a\n web delay=0\n t1 1@a complete at=100", "t1 >shutdown\n + n1 1 >running hold=100 restarted=1");
    check(
        "node a\n web global delay=2\n t1 @a failed at=100",
        "t1 >shutdown\n + n1 @a >ready hold=102 restarted=1\n again 102",
    );
    // The delay counts from the end of the task, not from when somebody looks.
    check(
        "node a\n web delay=20\n t1 1@a failed at=90",
        "t1 >shutdown\n + n1 1 >ready hold=110 restarted=1\n again 110",
    );
}

#[test]
fn a_task_starts_when_its_delay_is_over_and_the_one_before_has_stopped() {
    let check = |now: u64, old: &str, expected| {
        let tasks = format!("t1 1@{old} >shutdown\n t2 1@b ready >ready hold=105");
        check(&format!("now={now}\n node a\n node b\n node z down\n web\n {tasks}"), expected);
    };
    check(104, "a failed", "again 105");
    check(105, "a failed", "t2 >running");
    check(105, "a running", "again 165");
    check(105, "a shutdown", "t2 >running");
    check(105, "z running", "t2 >running\n again 86400");
    check(165, "a running", "t2 >running");
}

#[test]
fn what_must_never_run_twice_waits_for_as_long_as_it_takes() {
    let check = |web: &str, expected| {
        let tasks = "t1 1@a running >remove\n t2 1@b ready >ready hold=40";
        check(&format!("now=100\n node a\n node b\n web {web}\n {tasks}"), expected);
    };
    check("", "t2 >running");
    check("fenced", "");
    super::check("node a\n web fenced\n t1 1@a running >remove", "+ n1 1 >ready");
    super::check("node a down\n web fenced\n t1 1@a running >remove", "+ n1 1 >ready\n again 86400");
    super::check("node a down off\n web fenced\n t1 1@a running >remove", "+ n1 1 >running\n - t1\n again 86400");
    let lost = |node: &str, expected| {
        super::check(
            &format!(
                "now=100\n node {node}\n node b\n web fenced\n t1 1@a running >shutdown\n t2 1@b ready >ready hold=40"
            ),
            expected,
        );
    };
    lost("a", "");
    lost("a down", "again 86400");
    lost("a down off", "t2 >running\n again 86400");
}

#[test]
fn a_task_that_ends_within_its_delay_is_not_made_again_before() {
    let cluster = "node a\n web\n t1 1@a rejected >ready at=101 hold=105";
    check(&format!("now=101\n {cluster}"), "again 105");
    check(&format!("now=105\n {cluster}"), "t1 >shutdown\n + n1 1 >ready hold=110 restarted=1\n again 110");
}

#[test]
fn a_restart_policy_says_what_is_made_again() {
    let check = |policy: &str, ended: &str, expected| {
        check(&format!("node a\n web delay=0 {policy}\n t1 1@a {ended} at=100"), expected);
    };
    let again = "t1 >shutdown\n + n1 1 >running hold=100 restarted=1";
    check("policy=any", "complete", again);
    check("policy=on-failure", "failed", again);
    check("policy=on-failure", "rejected", again);
    check("policy=on-failure", "complete", "t1 >shutdown");
    check("policy=none", "failed", "t1 >shutdown");
    check("attempts=3", "failed since=90 restarted=2", "t1 >shutdown\n + n1 1 >running hold=100 restarted=3");
    check("attempts=3", "failed restarted=3", "t1 >shutdown");
    // What ended for good holds its slot.
    check("policy=none", "failed >shutdown", "");
    check("policy=on-failure", "failed >shutdown", "+ n1 1 >running");
    check("attempts=3", "failed >shutdown restarted=3", "");
}

#[test]
fn a_lost_node_costs_no_attempt_and_no_delay() {
    let lost = "t1 >shutdown\n + n1 1 >running hold=100 restarted=3\n again 86499";
    check("node a down since=99\n node b\n web attempts=3\n t1 1@a restarted=3", lost);
    check("node a down since=99\n web policy=none\n t1 1@a", "t1 >shutdown\n again 86499");
    check("web\n t1 1@gone", "t1 >shutdown orphaned\n + n1 1 >running hold=100");
    check("node a drain\n web\n t1 1@a", "t1 >shutdown\n + n1 1 >ready hold=100\n again 160");
    // A task that waits for the end of a delay still does.
    check("node a drain\n web\n t1 1@a ready >ready hold=103", "t1 >shutdown\n + n1 1 >ready hold=103\n again 103");
}

#[test]
fn nodes_that_are_lost_together_are_replaced_one_share_after_the_other() {
    let nodes = "node a down since=98\n node b down since=98\n node c down since=98\n node d";
    let cluster = format!("{nodes}\n web replicas=3\n t1 1@a\n t2 2@b\n t3 3@c");
    let first = "t1 >shutdown\n + n1 1 >running hold=100\n t2 >shutdown\n + n2 2 >running hold=100\n again 105";
    check(&cluster, first);
}

#[test]
fn a_global_task_ends_with_its_node_and_comes_back_with_it() {
    check("node a down since=99\n web global\n t1 @a", "t1 >shutdown\n again 86499");
    check("node a drain\n web global\n t1 @a", "t1 >shutdown");
    check("node a\n web global\n t1 @a shutdown >shutdown", "+ n1 @a >running");
    // The old one still holds what the new one needs.
    check("node a\n web global\n t1 @a running >shutdown", "+ n1 @a >ready\n again 160");
    check("web global\n t1 @gone\n t2 @gone failed >shutdown", "- t1\n - t2");
    check("node a\n web global on=ssd\n t1 @a", "t1 >shutdown");
    check("node a pause\n web global v2\n t1 @a v1", "");
    check("node a\n web global policy=none\n t1 @a failed >shutdown", "");
}

#[test]
fn a_replicated_job_keeps_so_many_running_until_all_have_completed() {
    check("web job=2/3", "+ n1 0 >complete\n + n2 1 >complete");
    check("node a\n web job=2/3\n t1 0@a complete\n t2 1@a", "+ n1 2 >complete");
    check("node a\n web job=2/3\n t1 0@a complete\n t2 1@a complete\n t3 2@a", "");
    check(
        "node a\n web job=1/1\n t1 0@a failed at=100",
        "t1 >shutdown\n + n1 0 >ready hold=105 restarted=1\n again 105",
    );
    check("now=105\n node a\n web job=1/1\n t1 0@a failed >shutdown\n t2 0 pending >ready hold=105", "t2 >complete");
    check("node a\n web job=1/2 policy=none\n t1 0@a failed", "t1 >shutdown\n + n1 1 >complete");
    check("node a\n web job=1/1 policy=none\n t1 0@a failed >shutdown", "");
    check("node a drain\n web job=1/1\n t1 0@a complete", "");
    check("node a\n web job=1/1 run=1\n t1 0@a complete\n t2 1@a failed", "- t1\n - t2\n + n1 0 >complete");
}

#[test]
fn a_global_job_runs_once_on_each_node() {
    let nodes = "node a\n node b pause\n node c";
    check(&format!("{nodes}\n web global-job\n t1 @a complete"), "+ n1 @c >complete");
    check("node a down since=99\n web global-job\n t1 @a", "t1 >shutdown\n again 86499");
    check("node a\n web global-job\n t1 @a shutdown >shutdown", "+ n1 @a >complete");
    check("node a\n web global-job run=1\n t1 @a run=0", "t1 >remove\n + n1 @a >ready\n again 160");
}

#[test]
fn of_each_slot_so_many_tasks_are_kept() {
    let old = "t1 1@a failed >shutdown\n t2 1@a failed >shutdown\n t3 1@a running >shutdown\n t4 1@a failed >shutdown";
    let cluster = |settings: &str, web: &str| format!("{settings}\n node a\n web {web}\n {old}\n t5 1@a");
    check(&cluster("history=5", ""), "");
    check(&cluster("history=4", ""), "- t1");
    check(&cluster("history=1", ""), "- t1\n - t2\n - t4");
    check(&cluster("history=0", ""), "- t1\n - t2\n - t4");
    check(&cluster("history=-1", ""), "");
    check(&cluster("history=1", "attempts=2"), "- t1\n - t2");
    // What holds its slot stays, and what never had a node has no history.
    check("history=0\n node a\n web policy=none\n t1 1@a failed >shutdown", "");
    check("node a\n web\n t1 1 pending >shutdown\n t2 1@a", "- t1");
}

#[test]
fn after_a_day_a_node_that_is_down_runs_nothing() {
    let cluster = "node a down since=100\n node b\n web\n t1 1@a >shutdown\n t2 1@b";
    check(&format!("now=86499\n {cluster}"), "again 86500");
    check(&format!("now=86500\n {cluster}"), "t1 orphaned");
    // Also when its service is gone.
    check("now=86499\n node a down since=100\n t1 1@a >remove", "again 86500");
    check("now=86500\n node a down since=100\n t1 1@a >remove", "- t1");
}

/// Each attempt counts, also where the delay between two of them is longer than the window in which they count.
#[test]
fn attempts_count_however_short_their_window_is() {
    let check = |restarts: &str, expected| {
        let web = "web attempts=2 window=5 delay=5";
        check(&format!("node a\n {web}\n t1 1@a failed at=100 since=99 restarted=2 restarts={restarts}"), expected);
    };
    check("88,94", "t1 >shutdown");
    check("80,94", "t1 >shutdown\n + n1 1 >ready hold=105 restarted=3\n again 105");
}

#[test]
fn a_long_grace_period_is_waited_for() {
    let check = |now: u64, web: &str, expected| {
        let tasks = "t1 1@a running >shutdown\n t2 1@b ready >ready hold=105";
        check(&format!("now={now}\n node a\n node b\n web {web}\n {tasks}"), expected);
    };
    check(165, "grace=10", "t2 >running");
    check(165, "grace=120", "again 255");
    check(255, "grace=120", "t2 >running");
}

#[test]
fn what_cannot_start_anywhere_is_tried_less_and_less_often() {
    let check = |task: &str, expected| check(&format!("node a\n web delay=0\n t1 1@a {task}"), expected);
    check("rejected at=100", "t1 >shutdown\n + n1 1 >running hold=100 restarted=1");
    check("rejected at=100 restarted=2", "t1 >shutdown\n + n1 1 >ready hold=100 restarted=3\n again 100");
    check("rejected at=100 restarted=9", "t1 >shutdown\n + n1 1 >ready hold=105 restarted=10\n again 105");
    check("failed at=100 restarted=9", "t1 >shutdown\n + n1 1 >ready hold=105 restarted=10\n again 105");
    check("failed at=100 since=90 restarted=9", "t1 >shutdown\n + n1 1 >running hold=100 restarted=10");
}

/// A node that comes and goes would else be given one task after the other.
#[test]
fn a_task_that_is_lost_before_it_ran_is_not_made_again_at_once() {
    let check = |task: &str, expected| check(&format!("node a down since=99\n node b\n web\n t1 1@a {task}"), expected);
    check("ready >running made=100", "t1 >shutdown\n + n1 1 >ready hold=101\n again 101");
    check("ready >running made=98", "t1 >shutdown\n + n1 1 >running hold=100\n again 86499");
    check("running made=100", "t1 >shutdown\n + n1 1 >running hold=100\n again 86499");
}

/// A clock that was an hour ahead for a moment, or one that was set back.
#[test]
fn nothing_waits_longer_than_declared_whatever_the_clocks_did() {
    check("node a\n web\n t1 1@a failed at=3700", "t1 >shutdown\n + n1 1 >ready hold=105 restarted=1\n again 105");
    let ended = "t1 1@a failed >shutdown at=90";
    check(&format!("node a\n web\n {ended}\n t2 1@a ready >ready hold=3705"), "t2\n again 105");
    check(&format!("node a\n web delay=60\n {ended}\n t2 1@a ready >ready hold=3705"), "t2\n again 160");
    check(&format!("node a\n web delay=60\n {ended}\n t2 1@a ready >ready hold=155"), "again 155");
    check("node a\n web\n t1 1@a rejected >ready at=3700 hold=3705", "t1\n again 105");
    check("node a down since=3700\n node b\n web\n t1 1@a", "t1 >shutdown\n + n1 1 >running hold=100\n again 90100");
    check("node a\n web v2 status=updating\n t1 1@a running since=3700 upd", "t1\n again 105");
    // What was tried an hour ahead is as if it were tried now: it counts for as long as the window says, and no longer.
    let web = "web attempts=2 window=60 delay=5";
    check(
        &format!("node a\n {web}\n t1 1@a failed at=3700 since=99 restarted=1 restarts=3690"),
        "t1 >shutdown\n + n1 1 >ready hold=105 restarted=2\n again 105",
    );
}
