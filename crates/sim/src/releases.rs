//! A story of two releases: nodes are upgraded and downgraded one after the other, while services change and faults
//! happen. Nothing that a node of the next release wrote is lost, and nothing of it is written before all managers can
//! read it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use herder_model::swarm::{
    Change, ClusterRecord, Kind, LEVEL, NodeRecord, Object, Resource, ServiceRecord, TaskRecord, View, Word,
};
use herder_store::StoreError;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::disk::End;
use crate::nodes::Nodes;
use crate::stores::rng;
use crate::swarm::{self, STEADY};
use crate::trace::Trace;

const WORKERS: u64 = 2;
/// The level of the release after this one.
pub(crate) const NEXT: u32 = LEVEL + 1;
/// Time of upgrades, mixed operation, and downgrades.
const UPGRADE: Duration = Duration::from_secs(8);
const MIXED: Duration = Duration::from_secs(12);
const BACK: Duration = Duration::from_secs(8);
/// A member, a kind and a message that only the next release has.
const NOVELTY: &str = "Novelty";
const KIND: &str = "novelty";

/// Acknowledged writes of nodes of the next release: object → the value of its new member.
type Acknowledged = BTreeMap<(String, String), u64>;

fn kind() -> Option<Word> {
    Word::new(KIND).ok()
}

/// Returns the messages of a next-release node for `message` of this release.
pub(crate) fn as_next_release(message: &Bytes) -> Vec<Bytes> {
    let Ok(mut value) = serde_json::from_slice::<Value>(message) else { return vec![message.clone()] };
    let mut sent = Vec::new();
    match &mut value {
        // Still one message: each of a node's is answered.
        Value::String(name) if name == "alive" => *name = KIND.to_owned(),
        Value::Object(members) => {
            for (name, content) in members.iter_mut() {
                match name.as_str() {
                    "changes" | "assignments" => {
                        sent.push(Bytes::from(json!({KIND: {"any": [1]}}).to_string()));
                        content["novelties"] = json!([{"ID": "x"}]);
                        if name == "changes" {
                            let removed = content["removed"].take();
                            let removed = removed.as_array().cloned().unwrap_or_default();
                            content["removed"] = [vec![json!([KIND, "x"])], removed].concat().into();
                        }
                    }
                    "reports" => {
                        content.as_array_mut().into_iter().flatten().for_each(|it| it[NOVELTY] = 1.into());
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
    sent.push(value.to_string().into());
    sent
}

/// The object with the new member set.
fn novel(object: Object, value: u64) -> Option<Change> {
    let value = Value::from(value);
    Some(match object {
        Object::Cluster(it) => {
            let mut record = ClusterRecord::clone(&it);
            record.rest.insert(NOVELTY, value);
            record.into()
        }
        Object::Node(it) => {
            let mut record = NodeRecord::clone(&it);
            record.node.spec.rest.insert(NOVELTY, value);
            record.into()
        }
        Object::Service(it) => {
            let mut record = ServiceRecord::clone(&it);
            record.service.rest.insert(NOVELTY, value);
            record.into()
        }
        Object::Task(it) => {
            let mut record = TaskRecord::clone(&it);
            record.task.rest.insert(NOVELTY, value);
            record.into()
        }
        Object::Resource(it) => {
            let mut resource = Resource::clone(&it);
            resource.body.insert(NOVELTY, value);
            resource.into()
        }
        Object::Secret(_) | Object::Config(_) | Object::Network(_) => return None,
    })
}

/// Returns the value of an object's new member.
fn novelty_of(object: &Object) -> Option<u64> {
    let rest = match object {
        Object::Cluster(it) => &it.rest,
        Object::Node(it) => &it.node.spec.rest,
        Object::Service(it) => &it.service.rest,
        Object::Task(it) => &it.task.rest,
        Object::Resource(it) => &it.body,
        Object::Secret(_) | Object::Config(_) | Object::Network(_) => return None,
    };
    rest.get(NOVELTY).and_then(Value::as_u64)
}

/// Some object that outlives the story, save a task.
fn some_object(view: &View, rng: &mut StdRng) -> Option<Object> {
    let steady = view.services.values().find(|it| it.service.spec.name == STEADY)?;
    Some(match rng.random_range(0..5) {
        0 => Object::Cluster(view.cluster.clone()?),
        1 => Object::Node(view.nodes.values().collect::<Vec<_>>().choose(rng).copied()?.clone()),
        2 => Object::Service(steady.clone()),
        3 => Object::Task(view.tasks_of_service(&steady.service.id).collect::<Vec<_>>().choose(rng).copied()?.clone()),
        _ => Object::Resource(view.resources_of(kind()?).collect::<Vec<_>>().choose(rng).copied()?.clone()),
    })
}

/// A manager of the next release writes something that only that release knows.
async fn write_novelty(nodes: &Nodes, rng: &mut StdRng, kept: &mut Acknowledged, number: u64, trace: &Trace) {
    let next: Vec<String> = nodes.managers.up().into_iter().filter(|it| nodes.release(it) == NEXT).collect();
    let Some(store) = next.choose(rng).and_then(|it| nodes.managers.store(it)) else { return };
    let Ok(Ok(view)) = timeout(Duration::from_secs(2), store.read()).await else { return };
    if view.level() < NEXT {
        return;
    }
    let id = format!("x{number}");
    let made =
        kind().filter(|_| rng.random()).and_then(|kind| Resource::new(kind, &id, &id, &json!({NOVELTY: number})).ok());
    let change = match made {
        Some(resource) => Some(resource.into()),
        None => some_object(&view, rng).and_then(|it| novel(it, number)),
    };
    let Some(change) = change else { return };
    let Change::Put(object) = &change else { return };
    let key = (object.kind().to_string(), object.id().to_owned());
    let now = nodes.clock(&next[0]).now();
    let outcome = timeout(Duration::from_secs(4), store.commit(vec![change], now)).await;
    match &outcome {
        Ok(Ok(_)) => drop(kept.insert(key.clone(), number)),
        Ok(Err(StoreError::Conflict(_) | StoreError::NoLeader)) => {}
        // Whether it was written is not known.
        Ok(Err(_)) | Err(_) => drop(kept.remove(&key)),
    }
    trace.tell(format_args!("novelty {number} in {key:?}: {}", matches!(outcome, Ok(Ok(_)))));
}

/// The node's program is replaced by that of the other release.
async fn replace(nodes: &Arc<Nodes>, node: &str, level: u32, rng: &mut StdRng) {
    if nodes.release(node) == level {
        return;
    }
    nodes.set_release(node, level);
    if rng.random() {
        nodes.stop(node).await;
    } else {
        nodes.end(node, End::Killed).await;
    }
    sleep(Duration::from_millis(rng.random_range(0..500))).await;
    nodes.start(node).await;
}

/// The level of the swarm, as far as it was seen.
#[derive(Default)]
struct Seen {
    index: u64,
    level: u32,
}

/// The level does not fall, and rises only when all managers can.
fn check_level(nodes: &Nodes, seen: &mut Seen, trace: &Trace) {
    for node in nodes.managers.up() {
        let Some(view) = nodes.managers.store(&node).map(|it| it.view()) else { continue };
        if view.index <= seen.index || view.cluster.is_none() {
            continue;
        }
        let level = view.level();
        if level < seen.level {
            trace.fail(format_args!("the level fell from {} to {level}", seen.level));
        }
        let is_novel =
            view.nodes.values().any(|it| it.node.spec.rest.get(NOVELTY).is_some()) || !view.resources.is_empty();
        if is_novel && level < NEXT {
            trace.fail(format_args!("something of level {NEXT} is there at level {level}"));
        }
        *seen = Seen { index: view.index, level };
    }
}

fn check_kept(view: &View, kept: &Acknowledged, trace: &Trace) {
    for ((kind, id), number) in kept {
        let Ok(parsed) = kind.parse::<Kind>() else { continue };
        match view.get(parsed, id) {
            Some(object) if novelty_of(&object) == Some(*number) => {}
            // Tasks come and go.
            None if parsed == Kind::Task => {}
            Some(object) => trace.fail(format_args!("{kind} {id} has {:?} and not {number}", novelty_of(&object))),
            None => trace.fail(format_args!("{kind} {id} is gone")),
        }
    }
}

pub(crate) async fn story(seed: u64, folder: PathBuf, trace: Trace) -> String {
    let mut rng_of_faults = rng(seed, 0);
    let faults = &mut rng_of_faults;
    let nodes = Nodes::new(seed, 3, WORKERS, folder, trace.clone());
    if let Err(error) = swarm::begin(&nodes).await {
        trace.fail(format_args!("the swarm does not begin: {error}"));
        return String::new();
    }
    let people = {
        let (nodes, trace, mut rng) = (nodes.clone(), trace.clone(), rng(seed, 2));
        tokio::spawn(async move {
            let until = Instant::now() + UPGRADE + MIXED + BACK;
            while Instant::now() < until {
                sleep(Duration::from_millis(rng.random_range(100..2500))).await;
                swarm::declare(&nodes, &mut rng, &trace).await;
            }
        })
    };
    let (mut kept, mut seen, mut number, mut raised) = (Acknowledged::new(), Seen::default(), 0, false);
    let names = nodes.names();
    let began = Instant::now();
    while began.elapsed() < UPGRADE + MIXED + BACK && !trace.failed() {
        sleep(Duration::from_millis(faults.random_range(50..900))).await;
        let old = names.iter().find(|it| nodes.release(it) < NEXT).cloned();
        let new = names.iter().find(|it| nodes.release(it) == NEXT).cloned();
        match (began.elapsed(), old, new) {
            (at, Some(node), _) if at < UPGRADE => replace(&nodes, &node, NEXT, faults).await,
            (at, _, Some(node)) if at > UPGRADE + MIXED => replace(&nodes, &node, LEVEL, faults).await,
            _ if faults.random_range(0..6) == 0 => {
                let node = names.choose(faults).cloned().unwrap_or_default();
                let level = if nodes.release(&node) == NEXT { LEVEL } else { NEXT };
                replace(&nodes, &node, level, faults).await;
            }
            _ if faults.random_range(0..3) == 0 => swarm::fault(&nodes, faults, false).await,
            _ => {
                number += 1;
                write_novelty(&nodes, faults, &mut kept, number, &trace).await;
            }
        }
        check_level(&nodes, &mut seen, &trace);
        raised |= seen.level == NEXT;
    }
    // A panic is told elsewhere.
    let _ = people.await;
    nodes.heal().await;
    let took = if trace.failed() { None } else { swarm::converge(&nodes, &trace).await };
    if !trace.failed() && nodes.managers.agree().await.is_none() {
        trace.fail("the managers do not agree, though all is well");
    }
    for node in nodes.managers.up() {
        if let Some(store) = nodes.managers.store(&node) {
            check_kept(&store.view(), &kept, &trace);
        }
    }
    for node in names {
        nodes.end(&node, End::Killed).await;
    }
    nodes.managers.finish().await;
    format!("raised {raised}, {} novelties of {number} kept, in order after {took:?}", kept.len())
}
