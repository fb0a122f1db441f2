//! The pool over engines that die, hang, change and lie. Defaults throughout: they promise that no wrong picture lasts
//! longer than five seconds.

use std::collections::BTreeSet;
use std::sync::Arc;

use herder_model::NodeState;
use herder_pool::fake::{FakeContainer, FakeEngine, FakeSpec};
use tokio::time::timeout;

mod shared;

use shared::*;

#[tokio::test]
async fn an_engine_is_read_whole_and_then_followed() {
    let (one, two) = (fake("node-10").await, fake("node-2").await);
    let a = one.add(FakeContainer::new("a"));
    let pool = pool_of(&[&one, &two]);
    let mut events = pool.events();
    check(&pool, "node-2 Healthy; node-10 Healthy a=running").await;
    one.set_state(&a, "exited", true);
    two.add(FakeContainer { memory_bytes: 100, host_port: 8080, ..FakeContainer::new("b") });
    check(&pool, "node-2 Healthy b=running; node-10 Healthy a=exited").await;
    assert_eq!(pool.nodes()[0].used.memory_bytes, 100);
    one.remove(&a, true);
    check(&pool, "node-2 Healthy b=running; node-10 Healthy").await;
    assert_eq!(pool.nodes()[0].images.len(), 1);
    let heard = heard(&mut events, "destroy a").await;
    assert_eq!(heard.iter().filter(|event| *event == "engine_connect").count(), 2, "{heard:?}");
}

#[tokio::test]
async fn a_dead_engine_is_lost_in_time_and_comes_back_as_it_is_then() {
    let engine = fake("n").await;
    let (a, b) = (engine.add(FakeContainer::new("a")), engine.add(FakeContainer::new("b")));
    let pool = pool_of(&[&engine]);
    let mut events = pool.events();
    check(&pool, "n Healthy a=running b=running").await;
    engine.kill();
    let took = check(&pool, "n Unhealthy a=running b=running").await;
    assert!(took < DETECTION_MAX, "{took:?}");
    assert!(pool.nodes()[0].error.as_deref().unwrap_or_default().starts_with("Cannot connect to the Docker daemon at"));
    engine.set_state(&a, "exited", false);
    engine.remove(&b, false);
    engine.revive().await.expect("the same port");
    let took = check(&pool, "n Healthy a=exited").await;
    assert!(took < DETECTION_MAX, "{took:?}");
    assert_eq!(
        heard(&mut events, "engine_reconnect").await,
        ["engine_connect", "engine_disconnect", "engine_reconnect"]
    );
}

#[tokio::test]
async fn a_hung_engine_is_lost_in_time_and_comes_back() {
    let (engine, other) = (fake("n").await, fake("o").await);
    let pool = pool_of(&[&engine, &other]);
    check(&pool, "n Healthy; o Healthy").await;
    engine.hang();
    let took = check(&pool, "n Unhealthy; o Healthy").await;
    assert!(took < DETECTION_MAX, "{took:?}");
    engine.add(FakeContainer::new("late"));
    engine.resume();
    let took = check(&pool, "n Healthy late=running; o Healthy").await;
    assert!(took < DETECTION_MAX, "{took:?}");
}

/// Its stream may have broken before, and is not tried again for a while.
#[tokio::test]
async fn an_engine_that_answers_as_none_is_lost_in_time() {
    for (status, lost) in [(400, true), (502, true), (403, false)] {
        let engine = fake("n").await;
        let pool = pool_of(&[&engine]);
        check(&pool, "n Healthy").await;
        engine.fail("/_ping", status);
        let mut changes = pool.changes();
        let unhealthy = async {
            while pool.nodes()[0].state == NodeState::Healthy {
                changes.changed().await.expect("the pool lives");
            }
        };
        assert_eq!(timeout(DETECTION_MAX, unhealthy).await.is_ok(), lost, "{status}");
    }
}

#[tokio::test]
async fn waiting_for_a_loss_ends_with_the_loss() {
    let fake = fake("n").await;
    let pool = pool_of(&[&fake]);
    check(&pool, "n Healthy").await;
    let engine = pool.engine(&fake.addr()).expect("a member");
    fake.hang();
    timeout(DETECTION_MAX, engine.until_lost()).await.expect("the loss is told");
}

#[tokio::test]
async fn events_of_a_broken_stream_are_heard_once_and_all() {
    let engine = fake("n").await;
    let pool = pool_of(&[&engine]);
    let mut events = pool.events();
    check(&pool, "n Healthy").await;
    engine.add(FakeContainer::new("a"));
    check(&pool, "n Healthy a=running").await;
    engine.cut();
    engine.add(FakeContainer::new("b"));
    check(&pool, "n Healthy a=running b=running").await;
    engine.add(FakeContainer::new("c"));
    assert_eq!(
        heard(&mut events, "start c").await,
        ["engine_connect", "create a", "start a", "create b", "start b", "create c", "start c"]
    );
}

#[tokio::test]
async fn two_addresses_with_one_engine_id_are_not_both_nodes() {
    let mut specs = [FakeSpec::new("first"), FakeSpec::new("second")];
    for spec in &mut specs {
        spec.engine_id = "SAME".into();
    }
    let [first, second] = specs;
    let first = FakeEngine::start(first).await.expect("a free port");
    let pool = pool_of(&[&first]);
    check(&pool, "first Healthy").await;
    let second = FakeEngine::start(second).await.expect("a free port");
    pool.set_members(&members(&[&first, &second]));
    let engine = pool.engine(&second.addr()).expect("a member");
    let refused = async {
        while engine.node().error.is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("an error");
    let expected =
        format!("ID duplicated. SAME shared by this node {} and another node {}", second.addr(), first.addr());
    assert_eq!(engine.node().error, Some(expected));
    assert_eq!(engine.node().state, NodeState::Pending);
    // The address is free again when the first one has left.
    pool.set_members(&members(&[&second]));
    check(&pool, "second Healthy").await;
}

#[tokio::test]
async fn an_address_that_shows_another_engine_is_not_a_node_until_it_was_removed() {
    let engine = fake("n").await;
    let pool = pool_of(&[&engine]);
    check(&pool, "n Healthy").await;
    engine.kill();
    engine.set_engine_id("OTHER");
    engine.revive().await.expect("the same port");
    check(&pool, "n Pending").await;
    pool.set_members(&BTreeSet::new());
    check(&pool, "").await;
    pool.set_members(&members(&[&engine]));
    check(&pool, "n Healthy").await;
    assert!(pool.nodes()[0].id.starts_with("OTHER|"));
}

#[tokio::test]
async fn a_burst_of_events_reads_each_container_a_few_times_only() {
    let engine = fake("n").await;
    let a = engine.add(FakeContainer::new("a"));
    let pool = pool_of(&[&engine]);
    let mut events = pool.events();
    check(&pool, "n Healthy a=running").await;
    for _ in 0..500 {
        engine.tell("update", &a);
    }
    engine.tell("rename", &a);
    heard(&mut events, "rename a").await;
    let inspections = engine.requests("GET /containers/{id}/json");
    assert!(inspections < 50, "{inspections} inspections for 501 events");
}

#[tokio::test]
async fn a_node_that_leaves_is_told() {
    let engine = fake("n").await;
    let pool = pool_of(&[&engine]);
    let mut events = pool.events();
    check(&pool, "n Healthy").await;
    pool.set_members(&BTreeSet::new());
    check(&pool, "").await;
    assert_eq!(heard(&mut events, "engine_disconnect").await, ["engine_connect", "engine_disconnect"]);
}

#[tokio::test]
async fn a_container_that_cannot_be_inspected_is_there_all_the_same() {
    let engine = fake("n").await;
    let id = engine.add(FakeContainer::new("broken"));
    engine.fail(&format!("/{id}/json"), 500);
    engine.fail("/volumes", 500);
    let pool = pool_of(&[&engine]);
    check(&pool, "n Healthy broken=running").await;
}

#[tokio::test]
async fn times_of_an_engine_with_a_wrong_clock_are_shifted() {
    let mut spec = FakeSpec::new("n");
    spec.clock_ahead = 1000;
    let engine = FakeEngine::start(spec).await.expect("a free port");
    let now = FakeContainer::new("").created;
    engine.add(FakeContainer { created: now + 1000, ..FakeContainer::new("a") });
    let pool = pool_of(&[&engine]);
    check(&pool, "n Healthy a=running").await;
    let nodes = pool.nodes();
    let container = nodes[0].containers.values().next().expect("a container");
    assert!((container.created - now).abs() <= 1, "{} and {now}", container.created);
}

#[tokio::test]
async fn what_did_not_change_wakes_nobody() {
    let engine = fake("n").await;
    engine.add(FakeContainer::new("a"));
    let pool = pool_of(&[&engine]);
    check(&pool, "n Healthy a=running").await;
    let (version, before) = (pool.version(), pool.nodes());
    pool.engine(&engine.addr()).expect("a member").refresh_all().await.expect("an engine that answers");
    assert_eq!(pool.version(), version);
    let same = before[0].containers.iter().all(|(id, old)| Arc::ptr_eq(old, &pool.nodes()[0].containers[id]));
    assert!(same, "the container was replaced by an equal one");
}
