//! Managers that come, go, are cut off, and come back.

mod common;

use std::time::{Duration, Instant};

use common::{LIMIT, Swarm, addr, has, put, until};
use herder_model::swarm::Reachability;
use herder_store::{Backup, Key, Store, StoreError};
use tokio::time::timeout;

/// Waits until this store tells of these managers. A leader knows a follower as reachable from its first heartbeat on.
async fn sees(store: &Store, expected: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let seen = store.managers().await.expect("runs").into_iter().map(|it| {
            let leader = if it.leader { "*" } else { "" };
            format!("{}{leader} {:?}", it.id, it.reachability)
        });
        let seen = seen.collect::<Vec<_>>().join(", ");
        if seen == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{seen}\ninstead of\n{expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_manager_knows_who_the_managers_are() {
    let swarm = Swarm::steady(3).await;
    let leader = swarm.leader(&["n1", "n2", "n3"]).await;
    assert_eq!(leader, "n1");
    for store in swarm.stores() {
        sees(&store, "n1* Reachable, n2 Reachable, n3 Reachable").await;
    }
    swarm.kill("n3").await;
    sees(&swarm.store("n2"), "n1* Reachable, n2 Reachable, n3 Unreachable").await;
    swarm.kill("n1").await;
    let alone = swarm.store("n2").managers().await.expect("runs");
    assert_eq!(alone.iter().filter(|it| it.reachability == Reachability::Unknown).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_is_removed_unless_a_majority_would_be_lost() {
    let swarm = Swarm::steady(3).await;
    put(&swarm.store("n1"), "a").await.expect("written");
    let error = swarm.store("n2").remove_manager("n9").await.expect_err("unknown").to_string();
    assert_eq!(error, "can't find manager in raft memberlist");
    swarm.kill("n3").await;
    sees(&swarm.store("n1"), "n1* Reachable, n2 Reachable, n3 Unreachable").await;
    let error = swarm.store("n2").remove_manager("n1").await.expect_err("a loss").to_string();
    assert_eq!(error, "can't remove member from the raft: this would result in a loss of quorum");
    swarm.store("n2").remove_manager("n3").await.expect("the one that is gone");
    swarm.store("n2").remove_manager("n1").await.expect("the leader itself");
    assert_eq!(swarm.leader(&["n2"]).await, "n2");
    sees(&swarm.store("n2"), "n2* Reachable").await;
    let error = swarm.store("n2").remove_manager("n2").await.expect_err("the last").to_string();
    assert_eq!(error, "can't remove member from the raft: this would result in a loss of quorum");
    assert!(has(&put(&swarm.store("n2"), "b").await.expect("written"), "a"));
    let error = put(&swarm.store("n1"), "c").await.expect_err("no manager any more").to_string();
    assert_eq!(error, "n1 is no manager of this swarm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_lost_its_folder_is_taken_back_as_another_member() {
    let swarm = Swarm::steady(3).await;
    put(&swarm.store("n1"), "a").await.expect("written");
    swarm.kill("n3").await;
    std::fs::remove_dir_all(swarm.path("n3")).expect("removed");
    let store = swarm.open("n3").await.expect("opens");
    assert!(!store.begun().await.expect("runs"));
    put(&swarm.store("n1"), "b").await.expect("written by the two others");
    assert!(!has(&store.view(), "b"), "it was taken for the one that it was");
    swarm.store("n2").add_manager("n3", &addr("n3")).await.expect("joins");
    sees(&store, "n1* Reachable, n2 Reachable, n3 Reachable").await;
    assert!(has(&swarm.agree().await, "b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_of_another_swarm_or_not_there_is_not_added() {
    let swarm = Swarm::of(1).await;
    swarm.open("n2").await.expect("opens").begin(&addr("n2")).await.expect("begins");
    let check = async |node: &str, expected: &str| {
        let error = swarm.store("n1").add_manager(node, &addr(node)).await.expect_err("refused").to_string();
        assert_eq!(error, expected);
    };
    check("n2", "n2 is a manager of a swarm already").await;
    check("n3", "manager n3 at n3:2377 does not answer: connection refused").await;
    assert!(has(&put(&swarm.store("n1"), "a").await.expect("written"), "a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_when_it_is_asked_to_and_when_it_is_shut_down() {
    // An election without a handover comes long after a request is given up.
    let swarm = Swarm::with(3, |settings| settings.patience = Duration::from_secs(120)).await;
    swarm.store("n3").transfer().await.expect("asked on another manager");
    let new = swarm.leader(&["n2", "n3"]).await;
    let writer = swarm.store(&swarm.other(&new));
    swarm.store(&new).shutdown().await;
    put(&writer, "after").await.expect("written");
    assert!(matches!(put(&swarm.store(&new), "b").await, Err(StoreError::Stopped { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_cut_off_does_not_depose_the_leader_when_it_is_back() {
    let swarm = Swarm::of(3).await;
    let term = swarm.store("n1").leadership().borrow().term;
    swarm.cut("n3");
    // Several elections' time: it asks for votes all the while.
    let mut changes = swarm.store("n3").leadership();
    let lost = timeout(LIMIT, changes.wait_for(|it| it.leader.is_none())).await;
    assert!(lost.expect("in time").is_ok(), "it believes in a leader that it does not hear");
    tokio::time::sleep(Duration::from_secs(3)).await;
    put(&swarm.store("n1"), "while it was away").await.expect("written");
    swarm.heal();
    until(&swarm.store("n3"), |view| has(view, "while it was away")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for store in swarm.stores() {
        let mut leads = store.leadership();
        let led = timeout(LIMIT, leads.wait_for(|it| it.leader.as_deref() == Some("n1"))).await;
        assert_eq!(led.expect("in time").expect("open").term, term, "{store:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_knows_it_and_what_it_could_not_write_is_gone() {
    let swarm = Swarm::of(3).await;
    swarm.cut("n1");
    let old = swarm.store("n1");
    let lost = tokio::spawn({
        let old = old.clone();
        async move { put(&old, "lost").await }
    });
    let mut leads = old.leadership();
    leads.wait_for(|it| !it.me).await.expect("it hears nobody");
    let new = swarm.leader(&["n2", "n3"]).await;
    put(&swarm.store(&new), "kept").await.expect("written");
    assert!(!has(&old.view(), "kept"));
    let read = timeout(Duration::from_millis(500), old.read()).await;
    assert!(!matches!(read, Ok(Ok(_))), "it says that what it knows is all");
    swarm.heal();
    until(&old, |view| has(view, "kept")).await;
    // Its request goes to the new leader, and counts once.
    let view = lost.await.expect("no panic").expect("written in the end");
    assert!(has(&view, "lost") && has(&view, "kept"));
    let view = swarm.agree().await;
    assert_eq!(view.secrets.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_written_or_read_but_seen() {
    let swarm = Swarm::with(3, |settings| settings.wait = Duration::from_secs(3)).await;
    put(&swarm.store("n1"), "a").await.expect("written");
    until(&swarm.store("n2"), |view| has(view, "a")).await;
    swarm.kill("n1").await;
    swarm.kill("n3").await;
    let store = swarm.store("n2");
    let (read, written) = tokio::join!(store.read(), put(&store, "b"));
    for error in [read.expect_err("no majority"), written.expect_err("no majority")] {
        assert!(matches!(error, StoreError::NoLeader | StoreError::Lost { .. }), "{error}");
    }
    assert!(has(&store.view(), "a") && !has(&store.view(), "b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_left_begins_the_swarm_anew_with_everything() {
    let swarm = Swarm::of(3).await;
    for name in ["a", "b", "c"] {
        put(&swarm.store("n2"), name).await.expect("written");
    }
    until(&swarm.store("n2"), |view| has(view, "c")).await;
    swarm.kill("n1").await;
    swarm.kill("n3").await;
    let store = swarm.store("n2");
    let (before, mut watch) = store.watch();
    store.force_new_cluster(&addr("n2")).await.expect("begins");
    assert!(watch.next().await.resync, "who watches must look anew");
    sees(&store, "n2* Reachable").await;
    let view = put(&store, "d").await.expect("written");
    assert!(before.objects().all(|object| view.get(object.kind(), object.id()).is_some_and(|it| it == object)));
    assert!(view.index > before.index, "a version would come twice");
    // One that comes back does not belong to it, and changes nothing.
    swarm.open("n1").await.expect("opens");
    assert_eq!(put(&store, "e").await.expect("written").secrets.len(), 5);
    swarm.kill("n1").await;
    std::fs::remove_dir_all(swarm.path("n1")).expect("removed");
    swarm.open("n1").await.expect("opens");
    store.add_manager("n1", &addr("n1")).await.expect("joins");
    swarm.kill("n2").await;
    swarm.open("n2").await.expect("opens");
    assert_eq!(swarm.agree().await.secrets.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_restored_whole_or_not_at_all() {
    let swarm = Swarm::of(1).await;
    put(&swarm.store("n1"), "a").await.expect("written");
    let index = swarm.store("n1").view().index;
    let key = Key::random();
    for key in [None, Some(key.clone())] {
        let whole = swarm.store("n1").backup(key.clone()).await.expect("backed up");
        let open = |bytes: &[u8]| Backup::open(bytes, key.as_ref());
        let check = |bytes: &[u8], expected: &str| {
            let error = open(bytes).expect_err("refused").to_string();
            assert_eq!(error, format!("this is no backup that can be restored: {expected}"));
        };
        check(b"herder backup", "it does not begin as one");
        check(b"herder backup 2\n", "it does not begin as one");
        for cut in [20, 40, whole.len() - 1] {
            check(&whole[..cut], "it is not whole");
        }
        check(&[&*whole, b" "].concat(), "it is not whole");
        let mut garbled = whole.clone();
        *garbled.last_mut().expect("bytes") ^= 1;
        check(&garbled, "its checksum does not fit: it was changed");
        if key.is_some() {
            assert!(!whole.windows(8).any(|bytes| bytes == b"\"secret\""), "it is not sealed");
            let refused = |key: Option<&Key>| Backup::open(&whole, key).expect_err("sealed").to_string();
            assert!(refused(None).ends_with("it is sealed, and no key was given"));
            assert!(refused(Some(&Key::random())).ends_with("the key is not the one that it was sealed with"));
        }
        let backup = open(&whole).expect("whole");
        assert!(has(backup.view(), "a"));
        let store = swarm.open("n2").await.expect("opens");
        // Whoever looks meanwhile whether it ended is not told so.
        let ends = async {
            loop {
                if let Ok(why) = timeout(Duration::from_millis(1), store.ended()).await {
                    break why;
                }
            }
        };
        let here = addr("n2");
        tokio::select! {
            restored = store.restore(backup, &here) => restored.expect("restored"),
            why = ends => panic!("it ended: {why}"),
        }
        let view = put(&store, "b").await.expect("written");
        assert!(has(&view, "a") && has(&view, "b") && view.index > index);
        let again = store.restore(open(&whole).expect("whole"), &addr("n2")).await;
        assert!(matches!(again, Err(StoreError::AlreadyBegun { .. })));
        swarm.kill("n2").await;
        std::fs::remove_dir_all(swarm.path("n2")).expect("removed");
    }
}
