//! A story of a whole swarm: services change, nodes come and go, and in the end the declared tasks run.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herder_decide::swarm::control::{
    Declared, NetworkRequest, ServiceUpdate, create_network, create_service, remove_network, remove_service,
    update_service,
};
use herder_model::swarm::{
    Availability, Change, Cluster, ClusterRecord, Kind, NodeRecord, Object, Role, ServiceSpec, SwarmNode,
    SwarmNodeState, TaskState, Time, View,
};
use herder_store::{Store, StoreError};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::disk::{End, QUICK};
use crate::nodes::{Nodes, new_id};
use crate::play::Shared;
use crate::reach;
use crate::stores::{addr, rng};
use crate::trace::Trace;

const WORKERS: u64 = 3;
/// Time in which faults happen.
const TROUBLE: Duration = Duration::from_secs(25);
/// Maximum time to recover after the last fault. Nodes are silent for 5 s, restarts wait for 5 s, and updates take
/// their time.
const PEACE: Duration = Duration::from_secs(90);
/// A service that never changes: it shows how fast tasks of lost nodes are replaced.
pub(crate) const STEADY: &str = "steady";
/// The networks of services that are not fenced.
const NETWORKS: [&str; 2] = ["front", "back"];
/// Maximum time until every node reaches what runs, after the last change.
const REACH: Duration = Duration::from_secs(3);
/// Same as in `decide::swarm::orchestrate::lost`: two nodes, or a third of all, every 5 s. Nodes are looked at every 200 ms.
const AT_ONCE_MIN: usize = 2;
const PAUSE: Duration = Duration::from_millis(4800);

/// Decisions on tasks of lost nodes: node and time of its loss → time of the decision.
type Replaced = BTreeMap<(String, Time), Time>;

fn spec(name: &str, mode: Value, fenced: bool, image: u32) -> Option<ServiceSpec> {
    spec_on(name, mode, fenced, image, &json!([]), &json!({}))
}

fn spec_on(
    name: &str,
    mode: Value,
    fenced: bool,
    image: u32,
    networks: &Value,
    endpoint: &Value,
) -> Option<ServiceSpec> {
    let labels = if fenced { json!({"herder.fence": "true"}) } else { json!({}) };
    serde_json::from_value(json!({
        "Name": name, "Labels": labels, "Mode": mode,
        "TaskTemplate": {"ContainerSpec": {"Image": format!("app:{image}")}, "Networks": networks,
            "RestartPolicy": {"Condition": "any", "Delay": 500_000_000}},
        "UpdateConfig": {"Parallelism": 1, "Monitor": 1_000_000_000}, "EndpointSpec": endpoint,
    }))
    .ok()
}

fn declared(spec: ServiceSpec) -> Declared {
    Declared { spec, ..Declared::default() }
}

pub(crate) async fn begin(nodes: &Arc<Nodes>) -> Result<(), StoreError> {
    nodes.managers.begin().await?;
    let managers = nodes.managers.names();
    let first = nodes.managers.store(&managers[0]).ok_or(StoreError::NotBegun)?;
    let now = nodes.clock(&managers[0]).now();
    let cluster = Cluster { id: "swarm".to_owned(), ..Cluster::default() };
    let cluster = ClusterRecord { cluster, ..ClusterRecord::default() };
    let records = managers.iter().map(|id| {
        let mut node = SwarmNode { id: id.clone(), ..SwarmNode::default() };
        (node.spec.role, node.status.state) = (Role::Manager, SwarmNodeState::Ready);
        let record =
            NodeRecord { node, role: Role::Manager, addr: addr(id), state_since: now, ..NodeRecord::default() };
        Change::from(record)
    });
    first.commit([Change::from(cluster)].into_iter().chain(records).collect(), now).await?;
    for node in nodes.names() {
        nodes.start(&node).await;
    }
    // Everybody is there before anything happens.
    let all = nodes.names().len();
    let _ = timeout(PEACE, async {
        while first.view().nodes.len() < all {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let steady = spec(STEADY, json!({"Replicated": {"Replicas": 2 * all}}), false, 1);
    let changes = steady.map(|spec| create_service(&first.view(), &declared(spec), new_id(), now));
    if let Some(Ok(changes)) = changes {
        first.commit(changes, now).await?;
    }
    Ok(())
}

/// Declares something, on any manager.
pub(crate) async fn declare(nodes: &Nodes, rng: &mut StdRng, trace: &Trace) {
    let up = nodes.managers.up();
    let Some(node) = up.choose(rng) else { return };
    let Some(store) = nodes.managers.store(node) else { return };
    let Ok(Ok(view)) = timeout(Duration::from_secs(2), store.read()).await else { return };
    let now = nodes.clock(node).now();
    let network = *NETWORKS.choose(rng).unwrap_or(&NETWORKS[0]);
    let is_there = view.named(Kind::Network, network).is_some();
    if !is_there || rng.random_range(0..8) == 0 {
        let request = NetworkRequest { name: network.into(), driver: "overlay".into(), ..NetworkRequest::default() };
        let changes = if is_there { remove_network(&view, network) } else { create_network(&view, &request, new_id()) };
        let outcome = match changes {
            Ok(changes) => store.commit(changes, now).await.map(drop).map_err(|error| error.to_string()),
            Err(denial) => Err(format!("{denial:?}")),
        };
        let what = if is_there { "remove" } else { "create" };
        trace.tell(format_args!("{what} network {network}: {outcome:?}"));
        return;
    }
    let number = rng.random_range(0..4);
    let name = format!("s{number}");
    // The first ones are fenced and on no network. The others are on one; the third one publishes a port, the last one is global.
    let (fenced, mode, endpoint) = match number {
        0 | 1 => (true, json!({"Replicated": {"Replicas": 1}}), json!({})),
        2 => {
            let ports = json!([{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": rng.random_range(8080..8083)}]);
            (false, json!({"Replicated": {"Replicas": rng.random_range(0..6)}}), json!({"Ports": ports}))
        }
        _ => {
            let mode = if rng.random_range(0..3) == 0 { "dnsrr" } else { "vip" };
            (false, json!({"Global": {}}), json!({"Mode": mode}))
        }
    };
    let networks = if fenced { json!([]) } else { json!([{"Target": network}]) };
    let Some(spec) = spec_on(&name, mode, fenced, rng.random_range(0..3), &networks, &endpoint) else { return };
    let there = view.services.values().find(|it| it.service.spec.name == name);
    let (what, changes) = match there {
        None => ("create", create_service(&view, &declared(spec), new_id(), now)),
        Some(_) if rng.random_range(0..6) == 0 => ("remove", remove_service(&view, &name)),
        Some(it) => {
            let update = ServiceUpdate {
                version: it.service.meta.version.index,
                declared: declared(spec),
                ..ServiceUpdate::default()
            };
            ("update", update_service(&view, &name, &update, now))
        }
    };
    let outcome = match changes {
        Ok(changes) => store.commit(changes, now).await.map(drop).map_err(|error| error.to_string()),
        Err(denial) => Err(format!("{denial:?}")),
    };
    trace.tell(format_args!("{what} {name}: {outcome:?}"));
}

async fn drain(nodes: &Nodes, rng: &mut StdRng, availability: Availability) {
    let names = nodes.names();
    let up = nodes.managers.up();
    let (Some(node), Some(manager)) = (names.choose(rng), up.choose(rng)) else { return };
    let Some(store) = nodes.managers.store(manager) else { return };
    set_availability(&store, node, availability, nodes.clock(manager).now()).await;
}

async fn set_availability(store: &Store, node: &str, availability: Availability, now: Time) {
    let Some(known) = store.view().nodes.get(node).cloned() else { return };
    let mut record = NodeRecord::clone(&known);
    record.node.spec.availability = availability;
    // If somebody else wrote it, that counts.
    let _ = store.commit(vec![record.into()], now).await;
}

/// One fault, or the end of some.
pub(crate) async fn fault(nodes: &Nodes, rng: &mut StdRng, clocks: bool) {
    let names = nodes.names();
    let any = names.choose(rng).cloned().unwrap_or_default();
    let down: Vec<String> = names.iter().filter(|it| !nodes.is_up(it)).cloned().collect();
    match rng.random_range(0..23) {
        0 | 1 => nodes.end(&any, End::Killed).await,
        2 => nodes.end(&any, End::Dark).await,
        3 => nodes.end(&any, End::Torn).await,
        4..8 => {
            if let Some(node) = down.choose(rng) {
                nodes.start(node).await;
            }
        }
        8 | 9 => nodes.cut(std::slice::from_ref(&any)),
        10 => {
            // A zone.
            let count = rng.random_range(2..4);
            let some: Vec<String> = names.sample(rng, count).cloned().collect();
            if rng.random() {
                nodes.cut(&some);
            } else {
                for node in some {
                    nodes.end(&node, End::Dark).await;
                }
            }
        }
        11 | 12 => nodes.managers.net.heal(),
        13 => nodes.managers.net.weather(rng.random_range(0..100), 0..rng.random_range(3..80)),
        14 => nodes.managers.pace(&any, 20..rng.random_range(30..300)),
        15 => {
            if let Some(engine) = nodes.engine(&any) {
                engine.pace(10..rng.random_range(20..300));
            }
        }
        16 => {
            if let Some(engine) = nodes.engine(&any) {
                engine.break_one(rng.random());
            }
        }
        17 if clocks => {
            // Slightly wrong, set right, or a step of hours: a resumed machine, a clock that was never set.
            let step = match rng.random_range(0..4) {
                0 => 0,
                1 => rng.random_range(-7_200_000..7_200_000),
                _ => rng.random_range(-20_000..20_000),
            };
            nodes.skew(&any, step);
        }
        20 => {
            if let Some(engine) = nodes.engine(&any) {
                engine.die();
            }
        }
        21 => {
            if let Some(engine) = nodes.engine(&any).filter(|_| nodes.is_up(&any)) {
                engine.turn_on_if_off();
            }
        }
        22 => {
            if let Some(kernel) = nodes.kernel(&any) {
                kernel.disturb(rng.random());
            }
        }
        18 => {
            // The program is started again, as with an update of it.
            let how = *[None, Some(End::Killed)].choose(rng).unwrap_or(&None);
            match how {
                None => nodes.stop(&any).await,
                Some(how) => nodes.end(&any, how).await,
            }
            sleep(Duration::from_millis(rng.random_range(0..700))).await;
            nodes.start(&any).await;
        }
        19 if rng.random_range(0..3) == 0 => {
            for node in names {
                nodes.stop(&node).await;
                nodes.start(&node).await;
                sleep(Duration::from_millis(rng.random_range(0..400))).await;
            }
        }
        _ => nodes.managers.pace(&any, QUICK),
    }
}

/// A loop panics: mostly the one of a manager, which leads or waits to lead.
fn panic_somewhere(nodes: &Nodes, rng: &mut StdRng) {
    let part = if rng.random_range(0..3) == 0 { herder_agent::AGENT } else { herder_manager::LEADER };
    let some = if part == herder_manager::LEADER { nodes.managers.up() } else { nodes.names() };
    if let Some(node) = some.choose(rng) {
        nodes.panic(node, part);
    }
}

/// Writes down when tasks of lost nodes are replaced.
async fn follow(nodes: Arc<Nodes>, replaced: Shared<Replaced>, trace: Trace, rates: bool) {
    let mut follows: BTreeMap<(String, u64), tokio::task::JoinHandle<()>> = BTreeMap::new();
    loop {
        for node in nodes.managers.up() {
            let start = nodes.managers.start_of(&node);
            let Some(store) = nodes.managers.store(&node) else { continue };
            let (replaced, trace) = (replaced.clone(), trace.clone());
            let follow = || tokio::spawn(follow_one(store, replaced, trace, rates));
            follows.entry((node, start)).or_insert_with(follow);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// `rates`: it is a story in which clocks are right.
async fn follow_one(store: Arc<Store>, replaced: Shared<Replaced>, trace: Trace, rates: bool) {
    let (_, mut watch) = store.watch();
    loop {
        let seen = watch.next().await;
        let is_placed = |it: &Object| matches!(it, Object::Task(_) | Object::Service(_));
        if seen.written.iter().any(|it| it.after.as_ref().is_some_and(is_placed)) {
            check_addresses(&seen.view, &trace);
        }
        for written in seen.written.iter() {
            if let (Some(Object::Node(before)), Some(Object::Node(after))) = (&written.before, &written.after) {
                tell_node(&trace, before, after);
                note_given_up(&seen.view, before, after, &replaced, rates.then_some(&trace));
            }
        }
    }
}

/// Notes a node whose tasks are given up from now on. The time is that of the decision: the disk may be slow.
fn note_given_up(
    view: &View,
    before: &NodeRecord,
    after: &NodeRecord,
    replaced: &Shared<Replaced>,
    trace: Option<&Trace>,
) {
    let is_given_up = before.given_up_at == Time::default() && after.given_up_at != Time::default();
    if !is_given_up || after.node.spec.availability != Availability::Active {
        return;
    }
    let mut replaced = replaced.lock();
    if let Entry::Vacant(entry) = replaced.entry((after.node.id.clone(), after.state_since)) {
        entry.insert(after.given_up_at);
        if let Some(trace) = trace {
            check_rate(view, &replaced, after.given_up_at, trace);
        }
    }
}

fn tell_node(trace: &Trace, before: &NodeRecord, after: &NodeRecord) {
    let what = |it: &NodeRecord| (it.node.status.state, it.node.spec.availability, it.given_up_at, it.fenced_off);
    if what(before) != what(after) {
        let (state, availability, given_up_at, fenced_off) = what(after);
        let id = &after.node.id;
        trace.tell(format_args!(
            "{id} is {state:?}, {availability:?}, given up {given_up_at:?}, fenced off {fenced_off}"
        ));
    }
}

/// Checks that tasks of lost nodes are given up no faster than documented.
fn check_rate(view: &View, replaced: &Replaced, now: Time, trace: &Trace) {
    let at_once = view.nodes.len().div_ceil(3).max(AT_ONCE_MIN);
    let is_down = |(node, since): &(String, Time)| {
        let node = view.nodes.get(node);
        node.is_some_and(|it| it.node.status.state == SwarmNodeState::Down && it.state_since == *since)
    };
    let lately =
        replaced.iter().filter(|(episode, at)| is_down(episode) && now.since(**at) < PAUSE && at.since(now) < PAUSE);
    let lately: Vec<&str> = lately.map(|((node, _), _)| node.as_str()).collect();
    if lately.len() > at_once {
        trace.fail(format_args!("tasks of {lately:?} were given up within {PAUSE:?}, of {} nodes", view.nodes.len()));
    }
}

/// Checks that each address of a network has one owner.
fn check_addresses(view: &View, trace: &Trace) {
    let mut owners = BTreeMap::new();
    let tasks = view.tasks.values().filter(|it| it.task.status.state <= TaskState::Running).flat_map(|it| {
        it.networks.iter().filter_map(|place| Some((place.network_id.as_str(), place.v4?, it.task.id.as_str())))
    });
    let services = view.services.values().map(|it| &it.service).flat_map(|it| {
        let vips = it.endpoint.virtual_ips.iter();
        vips.filter_map(|vip| Some((vip.network_id.as_str(), vip.address()?, it.id.as_str())))
    });
    for (network, address, owner) in tasks.chain(services) {
        if let Some(other) = owners.insert((network, address), owner) {
            trace.fail(format_args!("{address} of network {network} is given to {owner} and to {other}"));
        }
    }
}

/// Returns the reason why the declared tasks do not run.
fn missing(view: &View, running: &[String]) -> Option<String> {
    if let Some(lost) = view.nodes.values().find(|it| it.node.status.state != SwarmNodeState::Ready) {
        return Some(format!("{} is not there: {:?}", lost.node.id, lost.node.status));
    }
    let mut wanted = BTreeSet::new();
    for service in view.services.values() {
        let spec = &service.service.spec;
        let replicas = match &spec.mode.replicated {
            Some(replicated) => usize::try_from(replicated.replicas.unwrap_or(1)).unwrap_or(usize::MAX),
            None => view.nodes.values().filter(|it| it.node.spec.availability == Availability::Active).count(),
        };
        let tasks = view.tasks_of_service(&service.service.id);
        let tasks: Vec<_> = tasks.filter(|it| it.task.desired_state <= TaskState::Running).collect();
        let up = tasks.iter().filter(|it| it.task.status.state == TaskState::Running).count();
        if (up, tasks.len()) != (replicas, replicas) {
            let known = view.tasks_of_service(&service.service.id).map(|it| {
                let task = &it.task;
                let waits = it.not_before.map_or(String::new(), |at| format!(" from {at}"));
                let (state, desired) = (task.status.state, task.desired_state);
                format!(
                    "{} on {} is {state:?}, to be {desired:?}{waits}: {}",
                    task.id, task.node_id, task.status.message
                )
            });
            return Some(format!(
                "{}: {up} run of {} that are to, {replicas} are declared: {:#?}",
                spec.name,
                tasks.len(),
                known.collect::<Vec<_>>()
            ));
        }
        wanted.extend(tasks.iter().map(|it| it.task.id.clone()));
    }
    let running: BTreeSet<String> = running.iter().cloned().collect();
    (running != wanted).then(|| format!("{wanted:?} are to run, {running:?} do"))
}

pub(crate) async fn converge(nodes: &Nodes, trace: &Trace) -> Option<Duration> {
    let began = Instant::now();
    let (mut why, mut unreached) = (String::new(), None);
    while began.elapsed() < PEACE {
        sleep(Duration::from_millis(200)).await;
        let Some(store) = nodes.managers.names().first().and_then(|it| nodes.managers.store(it)) else { continue };
        let view = store.view();
        if let Some(missing) = missing(&view, &nodes.runs.tasks()) {
            (why, unreached) = (missing, None);
            continue;
        }
        let Some(fault) = reach::fault(nodes, &view) else { return Some(began.elapsed()) };
        let since = unreached.get_or_insert_with(Instant::now);
        if since.elapsed() > REACH {
            trace.fail(format_args!("a node does not reach what runs after {REACH:?}: {fault}"));
            return None;
        }
    }
    trace.fail(format_args!("what is declared does not run after {PEACE:?}: {why}"));
    None
}

/// `parts`: whether loops panic, too.
pub(crate) async fn story(seed: u64, folder: PathBuf, trace: Trace, parts: bool) -> String {
    let mut faults = rng(seed, 0);
    // Where clocks are wrong, nobody can say from outside how long a leader waits.
    let clocks: bool = faults.random();
    let nodes = Nodes::new(seed, 3, WORKERS, folder, trace.clone());
    if let Err(error) = begin(&nodes).await {
        trace.fail(format_args!("the swarm does not begin: {error}"));
        return String::new();
    }
    let replaced = Shared::<Replaced>::default();
    let following = CancellationToken::new();
    let followed = follow(nodes.clone(), replaced.clone(), trace.clone(), !clocks);
    tokio::spawn(following.clone().run_until_cancelled_owned(followed));
    let people = {
        let (nodes, trace, mut rng) = (nodes.clone(), trace.clone(), rng(seed, 2));
        tokio::spawn(async move {
            let until = Instant::now() + TROUBLE;
            while Instant::now() < until {
                sleep(Duration::from_millis(rng.random_range(100..2500))).await;
                declare(&nodes, &mut rng, &trace).await;
                if rng.random_range(0..6) == 0 {
                    let availability =
                        *[Availability::Drain, Availability::Active].choose(&mut rng).unwrap_or(&Availability::Active);
                    drain(&nodes, &mut rng, availability).await;
                }
            }
        })
    };
    let until = Instant::now() + TROUBLE;
    while Instant::now() < until && !trace.failed() {
        sleep(Duration::from_millis(faults.random_range(100..2500))).await;
        if parts && faults.random_range(0..3) == 0 {
            panic_somewhere(&nodes, &mut faults);
        } else {
            fault(&nodes, &mut faults, clocks).await;
        }
    }
    // A panic is told elsewhere.
    let _ = people.await;
    nodes.heal().await;
    let took = if trace.failed() { None } else { converge(&nodes, &trace).await };
    if !trace.failed() && nodes.managers.agree().await.is_none() {
        trace.fail("the managers do not agree, though all is well");
    }
    following.cancel();
    let (terms, lost) = (nodes.managers.told.lock().terms.len(), replaced.lock().len());
    for node in nodes.names() {
        nodes.end(&node, End::Killed).await;
    }
    nodes.managers.finish().await;
    format!("{terms} terms, {lost} nodes replaced, in order after {took:?}")
}
