//! Tests managers of two releases: writes of the newer one survive changes of leader, restarts and restores.

mod common;

use std::sync::Arc;

use common::{Swarm, addr, put, secret};
use herder_model::swarm::{
    Change, ClusterRecord, Feature, Kind, NodeRecord, Resource, ServiceRecord, SwarmNodeState, TaskRecord, Time, View,
    Word,
};
use herder_store::{Backup, Store, StoreError};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Additions of the next release: members at several depths, a word, an object kind.
const NOVELTY: &str = "Novelty";

fn kind() -> Word {
    Word::new("novelty").expect("a word")
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("this release reads it")
}

fn cluster(level: u32) -> Change {
    let mut record = ClusterRecord { level, ..ClusterRecord::default() };
    record.cluster.id = "swarm".to_owned();
    record.into()
}

/// Returns the writes of a leader of the next release.
fn novelties() -> Vec<Change> {
    let container = json!({"Image": "app", NOVELTY: 1});
    let template = json!({"ContainerSpec": container, "ForceUpdate": 0, NOVELTY: {"Deep": [true]}});
    let spec = json!({"Name": "web", "Labels": null, "TaskTemplate": template, "Mode": {}, NOVELTY: "spec"});
    let service: ServiceRecord = read(json!({"service": {"ID": "web", "Spec": spec, NOVELTY: 2}, "novelty": 3}));
    let status = json!({"State": "migrating", "PortStatus": {}, NOVELTY: "status"});
    let task: TaskRecord = read(json!({"task": {"ID": "t1", "ServiceID": "web", "NodeID": "n1", "Spec": template,
        "Status": status, "DesiredState": "running", NOVELTY: 4}, "novelty": 5}));
    let node: NodeRecord =
        read(json!({"node": {"ID": "n1", "Spec": {"Role": "learner", NOVELTY: "node"}}, "novelty": 6}));
    let resource = Resource::new(kind(), "x1", "first", &json!({"anything": [1, {"at": null}]})).expect("a resource");
    vec![service.into(), task.into(), node.into(), resource.into()]
}

/// Writes back these records as a leader of this release does after changing known members.
async fn work_on(store: &Store, round: u64) {
    let view = store.read().await.expect("a majority");
    let mut service = ServiceRecord::clone(&view.services["web"]);
    service.service.spec.labels = Some([("round".to_owned(), round.to_string())].into());
    service.service.spec.task_template.force_update = round;
    let mut task = TaskRecord::clone(&view.tasks["t1"]);
    task.task.spec = Arc::new(service.service.spec.task_template.clone());
    task.task.status.message = format!("round {round}");
    let mut node = NodeRecord::clone(&view.nodes["n1"]);
    node.node.status.state = SwarmNodeState::Down;
    node.state_since = Time(round);
    store.commit(vec![Change::PutSpec(service.into()), task.into(), node.into()], Time(round)).await.expect("written");
}

/// Everything that the next release wrote is there.
fn check(view: &View, of: &str) {
    let text = |value: Result<Value, serde_json::Error>| value.expect("JSON");
    let service = text(serde_json::to_value(&view.services["web"]));
    let spec = &service["service"]["Spec"];
    assert_eq!(
        json!([
            spec[NOVELTY],
            spec["TaskTemplate"][NOVELTY],
            spec["TaskTemplate"]["ContainerSpec"][NOVELTY],
            service["service"][NOVELTY],
            service["novelty"]
        ]),
        json!(["spec", {"Deep": [true]}, 1, 2, 3]),
        "{of}"
    );
    let task = text(serde_json::to_value(&view.tasks["t1"]));
    let (status, template) = (&task["task"]["Status"], &task["task"]["Spec"]);
    assert_eq!(
        json!([
            status["State"],
            status[NOVELTY],
            template["ContainerSpec"][NOVELTY],
            task["task"][NOVELTY],
            task["novelty"]
        ]),
        json!(["migrating", "status", 1, 4, 5]),
        "{of}"
    );
    let node = text(serde_json::to_value(&view.nodes["n1"]));
    let spec = &node["node"]["Spec"];
    assert_eq!(json!([spec["Role"], spec[NOVELTY], node["novelty"]]), json!(["learner", "node", 6]), "{of}");
    let resource = view.resources_of(kind()).next().expect("a resource");
    let body: Value = resource.read().expect("JSON");
    assert_eq!((resource.id.as_str(), body), ("x1", json!({"anything": [1, {"at": null}]})), "{of}");
    assert_eq!(view.named(Kind::Resource(kind()), "FIRST"), Some("x1"), "{of}");
}

async fn check_all(swarm: &Swarm) {
    let view = swarm.agree().await;
    check(&view, "the swarm");
    for store in swarm.stores() {
        check(&store.view(), &format!("{store:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_next_release_wrote_outlives_leaders_of_this_one() {
    let swarm = Swarm::with(3, |settings| (settings.snapshot_interval, settings.keep) = (20, 2)).await;
    let first = swarm.store("n1");
    first.commit(vec![cluster(1)], Time(1)).await.expect("written");
    first.commit(novelties(), Time(1)).await.expect("written");
    check_all(&swarm).await;
    for round in 1..=3 {
        let leader = swarm.leader(&["n1", "n2", "n3"]).await;
        work_on(&swarm.store(&leader), round).await;
        check_all(&swarm).await;
        // Whoever leads next has read the log from another manager, or from its disk.
        swarm.kill(&leader).await;
        let rest: Vec<String> = swarm.names();
        swarm.leader(&rest.iter().map(String::as_str).collect::<Vec<_>>()).await;
        work_on(&swarm.store(&rest[0]), 10 + round).await;
        swarm.open(&leader).await.expect("opens");
        check_all(&swarm).await;
    }
    // Snapshots: of a store that starts with one, of a manager that comes too late for the log, of a backup.
    for number in 0..30 {
        put(&swarm.store("n2"), &format!("s{number}")).await.expect("written");
    }
    swarm.kill("n3").await;
    swarm.open("n3").await.expect("opens");
    swarm.join("n4").await;
    check_all(&swarm).await;
    let backup = swarm.store("n4").backup(None).await.expect("a backup");
    let another = Swarm::empty(|_| {});
    let store = another.open("m1").await.expect("opens");
    store.restore(Backup::open(&backup, None).expect("whole"), &addr("m1")).await.expect("restored");
    check_all(&another).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_above_the_level_of_the_swarm_is_written() {
    let swarm = Swarm::of(3).await;
    let store = swarm.store("n2");
    store.commit(vec![cluster(0)], Time(1)).await.expect("written");
    let resource = || Resource::new(kind(), "x1", "", &json!({})).expect("a resource");
    let changes = [
        Change::from(resource()),
        Change::Remove(Kind::Resource(kind()), "x1".to_owned()),
        Change::Expect(Kind::Resource(kind()), "x1".to_owned(), 0),
    ];
    for change in changes {
        let refused = store.commit(vec![secret("a", ""), change], Time(1)).await.expect_err("refused");
        assert!(matches!(refused, StoreError::Level { feature: Feature::Resources, level: 0 }), "{refused}");
        let expected =
            "stored resources need feature level 1, and the swarm's managers agree on level 0: upgrade all managers";
        assert_eq!(refused.to_string(), expected);
    }
    let mut raised = ClusterRecord::clone(swarm.agree().await.cluster.as_ref().expect("a swarm"));
    assert!(swarm.agree().await.secrets.is_empty(), "all or nothing");
    raised.level = Feature::Resources.level();
    store.commit(vec![raised.into()], Time(2)).await.expect("written");
    store.commit(vec![resource().into()], Time(2)).await.expect("written");
    assert_eq!(swarm.agree().await.resources_of(kind()).count(), 1);
}
