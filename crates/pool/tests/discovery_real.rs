//! One contract of discovery and election, run over each real store.

mod stores;

use std::collections::BTreeSet;
use std::time::Duration;

use herder_kv::{Kv, Store};
use herder_pool::discovery::{Discovery, Election, Role, join, list};
use stores::Server;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Limit of every wait in these tests, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Short time to live for quick tests. etcd has no lease below 2 s, Consul none below 1 s (of which twice is the most).
const TTL: Duration = Duration::from_secs(4);
const HEARTBEAT: Duration = Duration::from_secs(1);

const LEADER_KEY: &str = "test/docker/swarm/leader";

type Members = watch::Receiver<Option<BTreeSet<String>>>;

/// Waits for exactly these members.
async fn members(members: &mut Members, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|addr| addr.to_string()).collect();
    let there = timeout(PATIENCE, members.wait_for(|seen| seen.as_ref() == Some(&expected))).await.map(drop);
    assert!(there.is_ok(), "expected {expected:?}, there are {:?}", members.borrow());
}

async fn role(role: &mut watch::Receiver<Role>, expected: Role) {
    let there = timeout(PATIENCE, role.wait_for(|seen| *seen == expected)).await.map(drop);
    assert!(there.is_ok(), "expected {expected:?}, it is {:?}", role.borrow());
}

fn replica_of(primary: &str) -> Role {
    Role::Replica { primary: Some(primary.to_owned()) }
}

fn stand(discovery: &Discovery, advertise: &str) -> Election {
    Election::start(discovery, advertise, TTL, &CancellationToken::new()).expect("an election")
}

/// A killable part of the program: it has threads of its own, and its sockets close without notice.
struct Mortal {
    runtime: Option<tokio::runtime::Runtime>,
}

impl Mortal {
    fn new() -> Mortal {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Mortal { runtime: Some(runtime.expect("a runtime")) }
    }

    async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.as_ref().expect("alive").spawn(work).await.expect("no panic")
    }

    fn die(self) {}
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.runtime.take().expect("alive").shutdown_background();
    }
}

async fn members_come_and_go_and_run_out(store: Store) {
    let server = Server::started(store).await;
    let discovery = server.discovery();
    let mut seen = discovery.watch(HEARTBEAT, CancellationToken::new());
    members(&mut seen, &[]).await;

    let stop = CancellationToken::new();
    let joined = tokio::spawn({
        let (discovery, stop) = (server.discovery(), stop.clone());
        async move { join(&discovery, "10.0.0.1:2375", HEARTBEAT, TTL, Duration::ZERO, stop).await }
    });
    members(&mut seen, &["10.0.0.1:2375"]).await;

    let mortal = Mortal::new();
    let other = server.discovery();
    let registered = async move { other.register("10.0.0.2:2375", TTL).await.map(|()| other) };
    let _connection = mortal.run(registered).await.expect("registered");
    members(&mut seen, &["10.0.0.1:2375", "10.0.0.2:2375"]).await;
    let listed = list(&server.discovery(), PATIENCE).await.expect("a list");
    assert_eq!(Vec::from_iter(listed), ["10.0.0.1:2375", "10.0.0.2:2375"]);

    // The dead one runs out; the one that renews outlives several of its times.
    mortal.die();
    members(&mut seen, &["10.0.0.1:2375"]).await;
    let flap = timeout(TTL * 2, seen.changed()).await;
    assert!(flap.is_err(), "a member that renews went: {:?}", seen.borrow());

    stop.cancel();
    joined.await.expect("no panic").expect("joined");
    members(&mut seen, &[]).await;

    // One that stops leaves at once: its entry would last longer than the test waits.
    let stop = CancellationToken::new();
    let joined = tokio::spawn({
        let (discovery, stop) = (server.discovery(), stop.clone());
        async move { join(&discovery, "10.0.0.3:2375", HEARTBEAT, PATIENCE * 10, Duration::ZERO, stop).await }
    });
    members(&mut seen, &["10.0.0.3:2375"]).await;
    stop.cancel();
    joined.await.expect("no panic").expect("joined");
    members(&mut seen, &[]).await;
}

async fn a_store_that_is_away_changes_nothing_and_is_found_again(store: Store) {
    let mut server = Server::new(store);
    let error = list(&server.discovery(), Duration::from_secs(1)).await.expect_err("nobody there").to_string();
    assert!(error.starts_with(&format!("Timed out: no answer from {store} at 127.0.0.1:1,")), "{error}");

    // Down at the start.
    let discovery = server.discovery();
    let mut seen = discovery.watch(HEARTBEAT, CancellationToken::new());
    let stop = CancellationToken::new();
    let joined = tokio::spawn({
        let (discovery, stop) = (server.discovery(), stop.clone());
        async move { join(&discovery, "10.0.0.1:2375", HEARTBEAT, TTL, Duration::ZERO, stop).await }
    });
    server.start().await;
    members(&mut seen, &["10.0.0.1:2375"]).await;

    // Gone for longer than the entries live, then back.
    server.kill();
    let change = timeout(TTL * 2, seen.changed()).await;
    assert!(change.is_err(), "the last list did not stay: {:?}", seen.borrow());
    server.start().await;
    let back = Instant::now();
    timeout(PATIENCE, async {
        // Its session may have run out meanwhile.
        while let Err(error) = discovery.register("10.0.0.2:2375", PATIENCE).await {
            eprintln!("not yet: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("registered");
    members(&mut seen, &["10.0.0.1:2375", "10.0.0.2:2375"]).await;
    eprintln!("{store}: followed again {:?} after the store was back", back.elapsed());
    stop.cancel();
    joined.await.expect("no panic").expect("joined");
}

async fn the_lead_moves_when_its_holder_goes(store: Store) {
    let mut server = Server::started(store).await;
    let mortal = Mortal::new();
    let discovery = server.discovery();
    let first = mortal.run(async move { stand(&discovery, "10.0.0.1:4000") }).await;
    role(&mut first.role(), Role::Primary).await;
    assert_eq!(server.kv().get(LEADER_KEY).await.expect("a value").as_deref(), Some("10.0.0.1:4000"));

    let second = stand(&server.discovery(), "10.0.0.2:4000");
    let third = stand(&server.discovery(), "10.0.0.3:4000");
    let (mut second_role, mut third_role) = (second.role(), third.role());
    role(&mut second_role, replica_of("10.0.0.1:4000")).await;
    role(&mut third_role, replica_of("10.0.0.1:4000")).await;

    // The first dies without a word: one of the others leads, the other follows.
    let died = Instant::now();
    mortal.die();
    timeout(PATIENCE, async {
        tokio::select! {
            _ = second_role.wait_for(|role| *role == Role::Primary) => {}
            _ = third_role.wait_for(|role| *role == Role::Primary) => {}
        }
    })
    .await
    .expect("a new primary");
    eprintln!("{store}: a new primary {:?} after the old one died (ttl {TTL:?})", died.elapsed());
    let second_leads = *second_role.borrow() == Role::Primary;
    let (leader, mut follower_role, addr) =
        if second_leads { (second, third_role, "10.0.0.3:4000") } else { (third, second_role, "10.0.0.2:4000") };
    let leader_addr = if second_leads { "10.0.0.2:4000" } else { "10.0.0.3:4000" };
    role(&mut follower_role, replica_of(leader_addr)).await;

    // The store is gone: nobody may lead for longer than the lock lives; then somebody does again.
    server.kill();
    let mut leader_role = leader.role();
    let resigned = timeout(TTL * 3, leader_role.wait_for(|role| *role != Role::Primary)).await.map(drop);
    assert!(resigned.is_ok(), "it leads without the store");
    server.start().await;
    timeout(PATIENCE, async {
        tokio::select! {
            _ = leader_role.wait_for(|role| *role == Role::Primary) => {}
            _ = follower_role.wait_for(|role| *role == Role::Primary) => {}
        }
    })
    .await
    .expect("a primary after the store is back");

    // A clean end hands over at once.
    leader.resign().await;
    role(&mut follower_role, Role::Primary).await;
    assert_eq!(server.kv().get(LEADER_KEY).await.expect("a value").as_deref(), Some(addr));

    // Somebody removes the key by hand: the lead is lost, and won again.
    let removed = server.kv().delete(LEADER_KEY).await;
    removed.expect("deleted");
    timeout(PATIENCE, follower_role.wait_for(|role| *role != Role::Primary)).await.expect("noticed").expect("open");
    role(&mut follower_role, Role::Primary).await;
}

async fn a_store_that_hangs_is_given_up_in_time(store: Store) {
    let server = Server::started(store).await;
    let discovery = server.discovery();
    let election = stand(&discovery, "10.0.0.1:4000");
    let mut leader_role = election.role();
    role(&mut leader_role, Role::Primary).await;

    server.hang(true);
    let error = discovery.register("10.0.0.1:2375", TTL).await.expect_err("nobody answers").to_string();
    assert!(error.contains(&format!("no answer from {store} at ")), "{error}");
    assert!(error.contains("for key `test/docker/swarm/nodes/10.0.0.1:2375`"), "{error}");
    timeout(PATIENCE, leader_role.wait_for(|role| *role != Role::Primary)).await.expect("resigned").expect("open");

    server.hang(false);
    role(&mut leader_role, Role::Primary).await;
    let mut seen = discovery.watch(HEARTBEAT, CancellationToken::new());
    discovery.register("10.0.0.2:2375", PATIENCE).await.expect("registered");
    let there = |seen: &Option<BTreeSet<String>>| seen.as_ref().is_some_and(|seen| seen.contains("10.0.0.2:2375"));
    timeout(PATIENCE, seen.wait_for(there)).await.expect("followed").expect("open");
}

/// Stores that ask for certificates.
async fn members_are_found_over_tls(store: Store) {
    let mut server = Server::secure(store);
    server.start().await;
    let discovery = server.discovery();
    discovery.register("10.0.0.1:2375", PATIENCE).await.expect("registered");
    let listed = list(&discovery, PATIENCE).await.expect("a list");
    assert_eq!(Vec::from_iter(listed), ["10.0.0.1:2375"]);

    // Nobody comes in without one.
    let plain = Kv::new(store, &[server.addr()], None).expect("a store");
    plain.get("x").await.expect_err("refused");
}

#[tokio::test]
async fn consul_is_reached_by_tls() {
    members_are_found_over_tls(Store::Consul).await;
}

#[tokio::test]
async fn etcd_is_reached_by_tls() {
    members_are_found_over_tls(Store::Etcd).await;
}

/// The same checks for each store.
macro_rules! contract {
    ($($module:ident: $store:expr,)*) => {$(
        mod $module {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn members_come_and_go_and_run_out() {
                super::members_come_and_go_and_run_out($store).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_store_that_is_away_changes_nothing_and_is_found_again() {
                super::a_store_that_is_away_changes_nothing_and_is_found_again($store).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_store_that_hangs_is_given_up_in_time() {
                super::a_store_that_hangs_is_given_up_in_time($store).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn the_lead_moves_when_its_holder_goes() {
                super::the_lead_moves_when_its_holder_goes($store).await;
            }
        }
    )*};
}

contract! {
    consul: Store::Consul,
    etcd: Store::Etcd,
    zookeeper: Store::Zookeeper,
}
