//! Managers that agree.

mod common;

use common::{Swarm, has, put, secret, until};
use herder_model::swarm::{Change, Kind, Time};
use herder_store::StoreError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_manager_writes_and_reads_and_finds_it_again() {
    let swarm = Swarm::of(1).await;
    let view = put(&swarm.store("n1"), "a").await.expect("written");
    assert!(has(&view, "a"));
    assert!(has(&swarm.store("n1").read().await.expect("read"), "a"));
    assert_eq!(put(&swarm.store("n1"), "a").await.expect_err("twice").to_string(), "update out of sequence");
    swarm.kill("n1").await;
    let store = swarm.open("n1").await.expect("opens");
    assert!(store.begun().await.expect("runs"));
    assert!(has(&store.read().await.expect("read"), "a"));
    assert!(matches!(store.begin("n1:2377").await, Err(StoreError::AlreadyBegun { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_any_manager_writes_every_manager_reads() {
    let swarm = Swarm::of(3).await;
    for node in swarm.names() {
        let view = put(&swarm.store(&node), &node).await.expect("written");
        assert!(has(&view, &node), "{node} does not see what it wrote");
        for other in swarm.stores() {
            assert!(has(&other.read().await.expect("read"), &node), "{other:?}");
        }
    }
    let view = swarm.agree().await;
    assert_eq!(view.secrets.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_is_refused_on_all_alike() {
    let swarm = Swarm::of(3).await;
    put(&swarm.store("n1"), "a").await.expect("written");
    for store in swarm.stores() {
        let view = store.read().await.expect("read");
        let known = view.get(Kind::Secret, "a").expect("there");
        let changes = vec![Change::Put(known.clone()), secret("b", "")];
        let before = store.view().index;
        store.commit(changes.clone(), Time(2)).await.expect("first");
        let error = store.commit(changes, Time(2)).await.expect_err("second");
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
        store.commit(vec![Change::Remove(Kind::Secret, "b".to_owned())], Time(3)).await.expect("removed");
        until(&store, |view| view.index >= before + 3).await;
    }
    swarm.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_has_a_successor_soon() {
    let swarm = Swarm::of(3).await;
    let old = swarm.leader(&["n1", "n2", "n3"]).await;
    put(&swarm.store(&old), "before").await.expect("written");
    swarm.kill(&old).await;
    let (one, other) = (swarm.names()[0].clone(), swarm.names()[1].clone());
    let view = put(&swarm.store(&one), "after").await.expect("written");
    assert!(has(&view, "before") && has(&view, "after"));
    let new = swarm.leader(&[&one, &other]).await;
    assert_ne!(new, old);
    swarm.open(&old).await.expect("opens");
    let back = swarm.agree().await;
    assert!(has(&back, "before") && has(&back, "after"));
}
