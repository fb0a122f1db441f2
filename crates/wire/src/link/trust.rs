//! Tests rights in a swarm over real connections. They are the rights of a worker, and those of a stranger with a
//! copied identity.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use herder_model::swarm::{ManagerAddr, Role};
use herder_tls::certs::Pair;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tests::{Host, first, greet, host, join};
use super::*;
use crate::Secret;
use crate::identity::{NODE_LIFETIME, OwnPool, Shared, Trust};
use crate::join_code::JoinCode;

const CLUSTER: &str = "the-swarm";
const WORKER: Secret = [7; 16];
const MANAGER: Secret = [8; 16];

/// State that managers agree on.
#[derive(Debug, Default)]
struct State {
    root: Option<Pair>,
    next: Option<Pair>,
    roles: BTreeMap<String, Role>,
    removed: BTreeSet<String>,
    demoted: BTreeMap<String, u64>,
    managers: Vec<ManagerAddr>,
    issued_ms: u64,
}

#[derive(Clone, Debug, Default)]
struct Managers(Arc<Mutex<State>>);

impl Managers {
    fn roster(&self) -> Roster {
        let state = self.0.lock();
        let named = |it: &&ManagerAddr| state.roles.get(&it.id) == Some(&Role::Manager);
        Roster {
            cluster: CLUSTER.into(),
            managers: state.managers.iter().filter(named).cloned().collect(),
            removed: state.removed.clone(),
            demoted: state.demoted.clone(),
        }
    }

    fn tell(&self, hosts: &[&Host]) {
        hosts.iter().for_each(|host| host.link.follow_roster(Some(self.roster())));
    }

    fn set(&self, host: &Host, role: Role) {
        self.0.lock().roles.insert(host.id.clone(), role);
    }
}

impl Certifier for Managers {
    fn cluster(&self) -> String {
        CLUSTER.into()
    }

    fn admits(&self, secret: &Secret) -> Option<Role> {
        [(WORKER, Role::Worker), (MANAGER, Role::Manager)].into_iter().find(|it| it.0 == *secret).map(|it| it.1)
    }

    fn role_of(&self, subject: &Subject) -> Result<Role, String> {
        let state = self.0.lock();
        match state.removed.contains(&subject.node) {
            true => Err("removed".into()),
            false => Ok(state.roles.get(&subject.node).copied().unwrap_or_default()),
        }
    }

    fn managers(&self) -> Vec<ManagerAddr> {
        self.roster().managers
    }

    fn lifetime(&self) -> Duration {
        Duration::ZERO
    }

    fn trust(&self) -> Result<Trust, String> {
        let state = self.0.lock();
        let root = state.root.clone().ok_or("no root")?;
        let Some(next) = state.next.clone() else {
            return Ok(Trust { root: root.cert, before: None, gossip_next: None });
        };
        let cross = Shared::cross_sign(root.clone(), &next.cert, SystemTime::now()).unwrap();
        Ok(Trust { root: next.cert, before: Some((root.cert, cross)), gossip_next: Some([5; 32]) })
    }

    fn certify(&self, wish: Wish) -> BoxFuture<'_, Result<String, String>> {
        let mut state = self.0.lock();
        state.issued_ms += 1;
        let root = state.next.clone().or(state.root.clone()).unwrap();
        let signed = wish.sign(root, state.issued_ms, SystemTime::now());
        std::future::ready(signed.map_err(|error| error.to_string())).boxed()
    }
}

/// A pool of one node that has become a swarm.
async fn swarm() -> (Host, Managers) {
    let manager = host(first("manager")).await;
    let managers = Managers::default();
    {
        let mut state = managers.0.lock();
        state.root = manager.link.identity().shared.root();
        state.managers.push(ManagerAddr { id: manager.id.clone(), addr: manager.addr.clone() });
    }
    managers.set(&manager, Role::Manager);
    manager.link.certify_with(Some(Arc::new(managers.clone())));
    managers.tell(&[&manager]);
    manager.link.obtain(&[]).await.unwrap();
    (manager, managers)
}

fn token(host: &Host, secret: Secret) -> JoinCode {
    host.code.with_secret(secret)
}

async fn worker(manager: &Host, managers: &Managers, name: &str) -> Host {
    let worker = host(join(&manager.addr, &token(manager, WORKER), name).await.unwrap()).await;
    managers.set(&worker, Role::Worker);
    managers.tell(&[&worker]);
    worker
}

fn peer(host: &Host) -> Peer {
    Peer { id: host.id.clone(), addr: host.addr.clone() }
}

/// Returns a stranger with a copy of this node's identity.
fn stranger(host: &Host) -> (Arc<Link>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Link::new(Identity::clone(&host.link.identity()), folder.path().to_owned()).unwrap(), folder)
}

fn subject(host: &Host) -> (String, Option<Role>, String) {
    let Subject { node, cluster, role, .. } = host.link.identity().subject().unwrap();
    (node, role, cluster)
}

#[tokio::test]
async fn a_node_that_joins_a_swarm_gets_a_certificate_and_nothing_that_lets_others_in() {
    let (manager, managers) = swarm().await;
    for (secret, role) in [(WORKER, Role::Worker), (MANAGER, Role::Manager)] {
        let joined = super::join(std::slice::from_ref(&manager.addr), &token(&manager, secret), "n", SystemTime::now())
            .await
            .unwrap();
        assert_eq!(joined.managers, managers.roster().managers);
        let identity = joined.identity;
        let subject = identity.subject().unwrap();
        assert_eq!((&subject.node, subject.role, &*subject.cluster), (&identity.id, Some(role), CLUSTER));
        assert!(!identity.shared.has_authority() && !identity.shared.has_join_code());
        assert!(identity.renewed(SystemTime::now()).is_err());
    }
    // Neither does the code of the pool that became a swarm let anybody in, nor zeros, nor a guess.
    for secret in [*manager.code.secret(), [0; 16], [1; 16]] {
        let error = join(&manager.addr, &token(&manager, secret), "n").await.unwrap_err();
        assert!(error.to_string().contains("none of this swarm's"), "{error}");
    }
}

#[tokio::test]
async fn a_pool_that_becomes_a_swarm_loses_the_key_of_its_root_also_on_disks() {
    let manager = host(first("manager")).await;
    let other = host(join(&manager.addr, &manager.code, "other").await.unwrap()).await;
    assert!(other.link.identity().shared.has_authority());
    let managers = Managers::default();
    managers.0.lock().root = manager.link.identity().shared.root();
    managers.0.lock().managers.push(ManagerAddr { id: manager.id.clone(), addr: manager.addr.clone() });
    managers.set(&manager, Role::Manager);
    manager.link.certify_with(Some(Arc::new(managers.clone())));
    managers.tell(&[&manager, &other]);
    manager.link.obtain(&[]).await.unwrap();
    other.link.obtain(&[peer(&manager)]).await.unwrap();
    for (host, role) in [(&manager, Role::Manager), (&other, Role::Worker)] {
        assert_eq!(subject(host), (host.id.clone(), Some(role), CLUSTER.into()));
        let text = std::fs::read_to_string(host.folder().join("identity.json")).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&file["shared"]["ca_key"], &file["shared"]["secret"]), (&"".into(), &vec![0; 16].into()));
    }
    assert_eq!(greet(&other.link, &manager, &manager.id).await, Ok(other.id.clone()));
    assert_eq!(greet(&manager.link, &other, &other.id).await, Ok(manager.id.clone()));
}

#[tokio::test]
async fn workers_send_newcomers_to_managers() {
    let (manager, managers) = swarm().await;
    let worker = worker(&manager, &managers, "worker").await;
    let joined = join(&worker.addr, &token(&manager, WORKER), "third").await.unwrap();
    assert_eq!(joined.subject().unwrap().cluster, CLUSTER);
    let error = join(&worker.addr, &token(&manager, [1; 16]), "late").await.unwrap_err();
    assert!(error.to_string().contains("none of this swarm's"), "{error}");
}

#[tokio::test]
async fn a_copied_identity_of_a_worker_can_be_that_worker_and_nothing_more() {
    let (manager, managers) = swarm().await;
    let (one, two) = (worker(&manager, &managers, "one").await, worker(&manager, &managers, "two").await);
    let (copy, _folder) = stranger(&one);
    // It signs nothing, and lets nobody in.
    assert!(copy.identity().shared.root().is_none() && copy.renew(SystemTime::now()).is_err());
    // On other nodes, managers or not, it reads what workers read.
    for host in [&manager, &two] {
        for road in [Road::Engine, Road::Calls, Road::Bus] {
            let mut stream = copy.dial(&host.addr, &host.id, road).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
        }
        assert_eq!(*host.access.lock(), [Access::Worker; 3]);
    }
    // A certificate is for the key and the name of that worker, whatever is asked for, and does not say more of it.
    copy.obtain(&[peer(&manager)]).await.unwrap();
    let is = copy.identity().subject().unwrap();
    assert_eq!((is.node, is.role), (one.id.clone(), Some(Role::Worker)));
    // Nobody takes it for the leader: the node that dials checks who answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let _end = stop.clone().drop_guard();
    tokio::spawn(copy.clone().serve(listener, stop, |_: Incoming| {}));
    let error = two.link.dial(&addr, &one.id, Road::Swarm).await.unwrap_err();
    assert!(error.to_string().contains("is no manager of this swarm"), "{error}");
    assert!(two.link.dial(&addr, &manager.id, Road::Swarm).await.is_err());
    // Managers do everything everywhere.
    assert!(manager.link.dial(&two.addr, &two.id, Road::Engine).await.is_ok());
    two.access.lock().clear();
    assert_eq!(greet(&manager.link, &two, &two.id).await, Ok(manager.id.clone()));
    assert_eq!(two.access.lock().last(), Some(&Access::Full));
}

#[tokio::test]
async fn a_node_that_is_removed_loses_its_connections_and_opens_no_other_one() {
    let (manager, managers) = swarm().await;
    let (gone, stays) = (worker(&manager, &managers, "gone").await, worker(&manager, &managers, "stays").await);
    let mut open = Vec::new();
    for host in [&manager, &stays] {
        for road in [Road::Engine, Road::Calls, Road::Bus, Road::Swarm] {
            if road != Road::Swarm || host.id == manager.id {
                open.push(gone.link.dial(&host.addr, &host.id, road).await.unwrap());
            }
        }
    }
    managers.0.lock().removed.insert(gone.id.clone());
    managers.tell(&[&manager, &stays]);
    for mut stream in open {
        let mut text = String::new();
        let read = stream.read_to_string(&mut text).await;
        assert!(read.is_err() || text.is_empty(), "{text}");
    }
    for host in [&manager, &stays] {
        let error = greet(&gone.link, host, &host.id).await;
        assert!(error.as_ref().is_err() || error == Ok(String::new()), "{error:?}");
        let error = host.link.dial(&gone.addr, &gone.id, Road::Engine).await.unwrap_err();
        assert!(error.to_string().contains("was removed from the swarm"), "{error}");
    }
    gone.link.obtain(&[peer(&manager)]).await.unwrap_err();
}

#[tokio::test]
async fn a_manager_that_is_demoted_is_a_worker_with_its_old_certificate_and_a_manager_with_a_newer_one() {
    let (manager, managers) = swarm().await;
    let other = host(join(&manager.addr, &token(&manager, MANAGER), "other").await.unwrap()).await;
    let mut third = worker(&manager, &managers, "third").await;
    managers.0.lock().managers.push(ManagerAddr { id: other.id.clone(), addr: other.addr.clone() });
    managers.set(&other, Role::Manager);
    managers.tell(&[&manager, &other, &third]);
    greet(&other.link, &third, &third.id).await.unwrap();
    let mut open = other.link.dial(&third.addr, &third.id, Road::Engine).await.unwrap();
    for _ in 0..2 {
        assert_eq!(third.roads.recv().await, Some(Road::Engine));
    }
    assert_eq!(third.access.lock()[0], Access::Full);
    let (copy, _folder) = stranger(&other);
    let issued_ms = managers.0.lock().issued_ms;
    managers.0.lock().demoted.insert(other.id.clone(), issued_ms);
    managers.set(&other, Role::Worker);
    managers.tell(&[&manager, &other, &third]);
    let mut text = String::new();
    assert!(open.read_to_string(&mut text).await.is_err() || text.is_empty(), "{text}");
    greet(&copy, &third, &third.id).await.unwrap();
    assert_eq!(third.access.lock().last(), Some(&Access::Worker));
    // Promoted again: what was copied before stays of no use.
    managers.set(&other, Role::Manager);
    other.link.obtain(&[peer(&manager)]).await.unwrap();
    managers.tell(&[&manager, &other, &third]);
    greet(&copy, &third, &third.id).await.unwrap();
    assert_eq!(third.access.lock().last(), Some(&Access::Worker));
    greet(&other.link, &third, &third.id).await.unwrap();
    assert_eq!(third.access.lock().last(), Some(&Access::Full));
}

#[tokio::test]
async fn a_worker_that_is_promoted_outgrows_the_connections_that_it_opened_as_a_worker() {
    let (manager, managers) = swarm().await;
    let (one, mut two) = (worker(&manager, &managers, "one").await, worker(&manager, &managers, "two").await);
    let mut old = one.link.dial(&two.addr, &two.id, Road::Calls).await.unwrap();
    managers.set(&one, Role::Manager);
    managers.0.lock().managers.push(ManagerAddr { id: one.id.clone(), addr: one.addr.clone() });
    one.link.obtain(&[peer(&manager)]).await.unwrap();
    // Opened before the other node heard of it: not yet with all rights.
    let mut early = one.link.dial(&two.addr, &two.id, Road::Calls).await.unwrap();
    for _ in 0..2 {
        assert_eq!(two.roads.recv().await, Some(Road::Calls));
    }
    assert_eq!(*two.access.lock(), [Access::Worker; 2]);
    managers.tell(&[&two]);
    for open in [&mut old, &mut early] {
        let mut text = String::new();
        assert!(open.read_to_string(&mut text).await.is_err() || text.is_empty(), "{text}");
    }
    greet(&one.link, &two, &two.id).await.unwrap();
    assert_eq!(two.access.lock().last(), Some(&Access::Full));
}

/// The same worker with a certificate that is valid for a day.
fn of_day(worker: &Identity, root: Pair, issued: SystemTime) -> Identity {
    let request = certify::new_request(&worker.id).unwrap();
    let subject = crate::subject::certified(&worker.id, CLUSTER, Role::Worker);
    let (names, lifetime) = (crate::identity::names(&worker.id), Duration::from_secs(24 * 3600));
    let wish = Wish { request: request.request, subject, names, lifetime };
    let cert = wish.sign(root, 1, issued).unwrap();
    let certified = crate::identity::Certified { cert, shared: worker.shared.clone(), lifetime_s: 24 * 3600 };
    worker.certified(request.key, certified).unwrap()
}

#[tokio::test]
async fn a_node_that_was_suspended_for_longer_than_its_certificate_lives_renews_it_by_itself() {
    let (manager, managers) = swarm().await;
    let worker = worker(&manager, &managers, "worker").await;
    let root = managers.0.lock().root.clone().unwrap();
    let now = SystemTime::now();
    let began = now - Duration::from_secs(3 * 24 * 3600);
    let folder = tempfile::tempdir().unwrap();
    let suspended = of_day(&worker.link.identity(), root, began);
    assert!(suspended.ends_at() < now);
    let link = Link::new(suspended, folder.path().to_owned()).unwrap();
    link.follow_roster(Some(managers.roster()));
    let mut identities = link.identities();
    // The clock stands still while the host is asleep, and then says what time it is; sleep of tasks tells nothing of that.
    let (resumed, looks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clock = {
        let (resumed, looks) = (resumed.clone(), looks.clone());
        move || {
            looks.fetch_add(1, Ordering::Relaxed);
            if resumed.load(Ordering::Relaxed) == 0 { began } else { now }
        }
    };
    let stop = CancellationToken::new();
    let _end = stop.clone().drop_guard();
    let keeping = link.clone();
    tokio::spawn(async move { keeping.keep_renewed_by(clock, Duration::from_millis(5), stop).await });
    while looks.load(Ordering::Relaxed) < 5 {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(!identities.has_changed().unwrap(), "it is renewed long before its time");
    greet(&link, &manager, &manager.id).await.unwrap_err();
    resumed.store(1, Ordering::Relaxed);
    timeout(Duration::from_secs(60), identities.changed()).await.expect("renewed in time").unwrap();
    assert!(link.identity().ends_at() > SystemTime::now());
    assert_eq!(greet(&link, &manager, &manager.id).await, Ok(worker.id.clone()));
}

#[tokio::test]
async fn an_expired_certificate_is_exchanged_for_a_new_one_and_good_for_nothing_else() {
    let (manager, managers) = swarm().await;
    let late = worker(&manager, &managers, "late").await;
    let valid = Identity::clone(&late.link.identity());
    let day = Duration::from_secs(24 * 3600);
    let root = managers.0.lock().root.clone().unwrap();
    for (ended, expected) in [(day, true), (NODE_LIFETIME - day, true), (NODE_LIFETIME + day, false)] {
        let folder = tempfile::tempdir().unwrap();
        let expired = of_day(&valid, root.clone(), SystemTime::now() - ended - day);
        assert!(expired.ends_at() < SystemTime::now());
        let link = Link::new(expired, folder.path().to_owned()).unwrap();
        greet(&link, &manager, &manager.id).await.unwrap_err();
        assert_eq!(link.obtain(&[peer(&manager)]).await.is_ok(), expected, "{ended:?}");
        if expected {
            assert_eq!(greet(&link, &manager, &manager.id).await, Ok(valid.id.clone()));
        }
    }
}

#[tokio::test]
async fn the_root_is_changed_without_any_node_but_managers_knowing_its_key() {
    let (manager, managers) = swarm().await;
    let (one, two) = (worker(&manager, &managers, "one").await, worker(&manager, &managers, "two").await);
    let left_behind = worker(&manager, &managers, "left").await;
    let next = Shared::new_root(SystemTime::now()).unwrap();
    managers.0.lock().next = Some(next.clone());
    let talk = async |one: &Host, two: &Host| {
        assert_eq!(greet(&one.link, two, &two.id).await, Ok(one.id.clone()));
        assert_eq!(greet(&two.link, one, &one.id).await, Ok(two.id.clone()));
    };
    manager.link.obtain(&[]).await.unwrap();
    talk(&manager, &one).await;
    one.link.obtain(&[peer(&manager)]).await.unwrap();
    talk(&one, &two).await;
    two.link.obtain(&[peer(&manager)]).await.unwrap();
    talk(&one, &two).await;
    talk(&two, &left_behind).await;
    {
        let mut state = managers.0.lock();
        (state.root, state.next) = (Some(next.clone()), None);
    }
    for host in [&manager, &one, &two] {
        assert!(host.link.trust_only(&next.cert).unwrap());
        assert!(!host.link.identity().shared.has_authority());
        // Gossip gets another key with the root.
        let shared = &host.link.identity().shared;
        assert_eq!((shared.gossip_key, shared.gossip_next), ([5; 32], None));
    }
    assert_ne!(left_behind.link.identity().shared.gossip_key, [5; 32]);
    talk(&one, &two).await;
    greet(&left_behind.link, &one, &one.id).await.unwrap_err();
    left_behind.link.obtain(&[peer(&manager)]).await.unwrap_err();
}

#[tokio::test]
async fn when_a_swarm_has_ended_the_nodes_of_its_pool_are_equal_again() {
    let (manager, managers) = swarm().await;
    let (one, gone) = (worker(&manager, &managers, "one").await, worker(&manager, &managers, "gone").await);
    one.link.obtain(&[peer(&manager)]).await.unwrap();
    let root = managers.0.lock().root.clone().unwrap();
    manager.link.certify_with(None);
    let removed = [gone.id.clone()].into();
    manager.link.begin_pool(OwnPool { root: root.clone(), gossip_key: None, removed }).unwrap();
    manager.link.follow_roster(None);
    one.link.follow_roster(None);
    one.link.obtain(&[peer(&manager)]).await.unwrap();
    assert_eq!(one.link.identity().shared.root().map(|it| it.key), Some(root.key));
    let code = manager.link.identity().join_code().unwrap();
    assert!(code != manager.code && one.link.identity().join_code().unwrap() == code);
    assert!(join(&one.addr, &code, "new").await.is_ok());
    // Who was removed from the swarm does not come into its pool by the certificate that it has.
    gone.link.follow_roster(None);
    for host in [&manager, &one] {
        gone.link.obtain(&[peer(host)]).await.unwrap_err();
        assert!(!gone.link.identity().shared.has_authority());
    }
}
