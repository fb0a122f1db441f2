//! Explanations as texts: a swarm, and why its services have not got all their tasks.

use herder_model::swarm::{Change, Command, Empty, RestartPolicy, ServiceMode};

use super::*;
use crate::swarm::testing::view;

#[track_caller]
fn check(text: &str, subject: &str, expected: &[&str]) {
    let found = why(&view(text), subject, Time(0)).map_or_else(String::new, |why| why.to_string());
    assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{text}");
}

#[test]
fn a_task_that_waits_says_what_each_node_lacks_and_what_would_help() {
    check(
        "node a drain\nnode b mem=100 zone=west\nnode c mem=10 down\ntask web.1 mem=50 if=node.labels.zone==east",
        "web.1",
        &[
            "web.1: no node takes it",
            "  host-b refuses: node.labels.zone==east: it is \"west\"",
            "  host-a refuses: it is drained; 50 MiB of memory asked, 0 of 0 MiB left; node.labels.zone==east: it is \"\"",
            "  host-c refuses: it is down; 50 MiB of memory asked, 10 of 10 MiB left; node.labels.zone==east: it is \"\"",
            "what would help: docker node update --label-add zone=east host-b",
        ],
    );
    check("task web.1", "web.1", &["web.1: no node takes it", "what would help: add a node: the swarm has none"]);
    check(
        "node a cpus=2 res=GPU=x\ntask x.1 running on=a holds=GPU=x cpus=1\ntask web.1 cpus=2 res=GPU:1 err=no_suitable_node",
        "web.1",
        &[
            "web.1: no suitable node",
            "  host-a refuses: 2 CPUs asked, 1 of 2 left; 1 GPU asked, fewer are left",
            "what would help: free that much on host-a or ask for less (2 CPUs asked, 1 of 2 left), and free that much on \
             host-a or ask for less (1 GPU asked, fewer are left)",
        ],
    );
}

#[test]
fn ports_and_replicas_name_who_is_in_the_way() {
    check(
        "node a\nnode b arch=aarch64 os=linux\ntask x.1 running on=a ports=80\ntask web.2 running on=b max=1\n\
         task web.1 ports=80 max=1",
        "web.1",
        &[
            "web.1: no node takes it",
            "  host-a refuses: port 80/tcp is used by x.1",
            "  host-b refuses: it has 1 of at most 1 tasks of the service",
            "what would help: stop x.1 or publish another port than 80/tcp",
            "or: add a node, or allow more with --replicas-max-per-node",
        ],
    );
    check(
        "node b arch=aarch64 os=linux\ntask web.1 arch=amd64",
        "web.1",
        &[
            "web.1: no node takes it",
            "  host-b refuses: the image is for linux/amd64, the node is linux/arm64",
            "what would help: use an image that is also for linux/arm64",
        ],
    );
}

#[test]
fn a_task_on_a_network_says_what_it_waits_for() {
    check(
        "node a lacks=nft\ntask web.1 net=4kx",
        "web.1",
        &[
            "web.1: no node takes it",
            "  host-a refuses: no nft, which overlay networks need",
            "what would help: install nft on host-a",
        ],
    );
    check(
        "network 4kx encrypted\nnode a\ntask web.1 net=4kx",
        "web.1",
        &[
            "web.1: no node takes it",
            "  host-a refuses: no tunnel, which encrypted networks need",
            "what would help: give host-a WireGuard in its kernel or the device /dev/net/tun; `herder doctor net` there tells more",
        ],
    );
    check(
        "node a\ntask web.1 new net=4kx err=no_address_is_left_in_network_ov",
        "web.1",
        &["web.1: no address is left in network ov", "  host-a fits: 0 of the service, 0 in all"],
    );
}

#[test]
fn a_task_with_a_node_says_why_there() {
    let text = "node a\nnode b\nnode c pause\nservice web\ntask web.1 running on=a ports=80\ntask web.2 running on=b";
    let expected = [
        "web.1: it is on host-a; 2 of 3 nodes would take it now",
        "  * host-a fits: 0 of the service, 0 in all",
        "  host-b fits: 1 of the service, 1 in all",
        "  host-c refuses: it is paused",
    ];
    check(text, "web.1", &expected);
    check(
        "node a pause\ntask g.1 on=a",
        "g.1",
        &[
            "g.1: its node does not take it, and it may not go to another",
            "  * host-a refuses: it is paused",
            "what would help: docker node update --availability active host-a",
        ],
    );
}

#[test]
fn a_service_answers_with_the_task_that_waits() {
    let text = "node a\nservice web\ntask web.1 running on=a\ntask web.2";
    let expected =
        ["web.2: 1 of 1 nodes take it: it is placed in the next run", "  host-a fits: 1 of the service, 1 in all"];
    check(text, "web", &expected);
    check(text, "WEB", &expected);
    check("service web", "web", &["web: it has no task that should run"]);
    check("service web", "db", &[]);
    check(
        "node a\ntask web.1 failed on=a err=exit_1",
        "web.1",
        &["web.1: it has ended: exit 1", "  * host-a fits: 0 of the service, 0 in all"],
    );
}

#[test]
fn a_service_that_runs_nowhere_says_why() {
    let global = |nodes: &str| {
        let mut view = view(&format!("{nodes}\nservice web if=node.labels.zone==east"));
        let mut service = ServiceRecord::clone(&view.services["web"]);
        service.service.spec.mode = ServiceMode { global: Some(Empty::default()), ..ServiceMode::default() };
        let command = Command { at: Time(1), changes: vec![service.into()] };
        view.apply(view.index + 1, &command).expect("fits");
        why(&view, "web", Time(0)).expect("a service").to_string()
    };
    assert_eq!(
        global("node a zone=west\nnode b zone=east drain"),
        "web: it runs once on each node that takes it, and none does\n\
         \x20 host-a refuses: node.labels.zone==east: it is \"west\"\n\
         \x20 host-b refuses: it is drained\n\
         what would help: docker node update --label-add zone=east host-a\n\
         or: docker node update --availability active host-b\n"
    );
}

#[test]
fn a_service_that_gave_up_says_how_its_last_task_ended() {
    let mut view = view("node a\nservice web\ntask web.1 failed on=a want=shutdown err=task:_non-zero_exit_(3)");
    let mut task = TaskRecord::clone(&view.tasks["web.1"]);
    let policy = RestartPolicy { condition: "none".into(), ..RestartPolicy::default() };
    Arc::make_mut(&mut task.task.spec).restart_policy = Some(policy);
    task.task.status.err = "task: non-zero exit (3)".into();
    let command = Command { at: Time(1), changes: vec![task.into()] };
    view.apply(view.index + 1, &command).expect("fits");
    let found = why(&view, "web", Time(0)).expect("a service").to_string();
    assert_eq!(
        found,
        "web: it gave up: task: non-zero exit (3); its restart policy (none) starts no other task\n\
         what would help: mend the cause, then docker service update --force web\n"
    );
}

#[test]
fn a_task_that_waits_for_its_turn_says_how_the_one_before_it_ended() {
    let mut view =
        view("node a\nservice web\ntask web.1 rejected on=a want=shutdown\ntask web.2 ready on=a want=ready");
    let change = |id: &str, change: &dyn Fn(&mut TaskRecord)| {
        let mut task = TaskRecord::clone(&view.tasks[id]);
        change(&mut task);
        Change::from(task)
    };
    let changes = vec![
        change("web.1", &|it| {
            (it.made_at, it.task.slot, it.task.status.err) = (Time(1), 1, "No such image: none:1".into());
        }),
        change("web.2", &|it| (it.made_at, it.task.slot, it.not_before) = (Time(2), 1, Some(Time(4_000_000_000)))),
    ];
    view.apply(view.index + 1, &Command { at: Time(1), changes }).expect("fits");
    let found = why(&view, "web.2", Time(0)).expect("a task");
    assert_eq!(found.verdict, "it waits 4 s more: that is its restart delay; the one before it: No such image: none:1");
    assert!(found.help[0].starts_with("push "), "{:?}", found.help);
}
