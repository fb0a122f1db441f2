//! DockerMod's actions over engines that refuse, hang and die.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use herder_decide::schedule::Scheduler;
use herder_front::actions::ActionSettings;
use herder_front::{Front, FrontSettings};
use herder_pool::fake::{FakeContainer, FakeEngine, FakeSpec};
use herder_pool::{Pool, Settings};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// More than any picture may take to become true, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(180);

/// Some engines and a door over them.
struct Herd {
    fakes: Vec<FakeEngine>,
    front: Arc<Front>,
}

impl Herd {
    /// Engines `n0`, `n1` …
    async fn of(count: usize, settings: ActionSettings) -> Herd {
        let mut fakes = Vec::new();
        for number in 0..count {
            fakes.push(FakeEngine::start(FakeSpec::new(&format!("n{number}"))).await.expect("a free port"));
        }
        let pool = Pool::new(Settings::default());
        pool.set_members(&fakes.iter().map(FakeEngine::addr).collect::<BTreeSet<String>>());
        let front = Front::new(pool, Scheduler::default(), FrontSettings::default());
        front.set_actions(settings);
        let herd = Herd { fakes, front };
        herd.until_healthy(count).await;
        herd
    }

    async fn until_healthy(&self, count: usize) {
        let mut changes = self.front.pool.changes();
        let healthy = || self.front.pool.nodes().iter().filter(|node| node.is_healthy()).count();
        let seen = async {
            while healthy() != count {
                changes.changed().await.expect("the pool lives");
            }
        };
        timeout(PATIENCE, seen).await.expect("as many healthy nodes as expected");
    }

    /// Status and document.
    async fn act(&self, request: Value) -> (u16, Value) {
        let (status, answer) = timeout(PATIENCE, self.front.act(&request, None)).await.expect("an answer in time");
        (status.as_u16(), answer)
    }

    /// Creates many and returns the result: `n0:201×2 n1:504×1`, and the status of the whole.
    async fn create(&self, request: Value) -> String {
        let (status, answer) = self.act(request).await;
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for reply in answer["containers"].as_array().expect("a list") {
            let node = reply["dockerInstance"].as_str().unwrap_or("-");
            *kinds.entry(format!("{node}:{}", reply["statusCode"])).or_default() += 1;
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind}×{count}")).collect();
        format!("{status} {}", kinds.join(" "))
    }
}

fn impatient() -> ActionSettings {
    let (task_timeout, new_container_timeout) = (Duration::from_secs(2), Duration::from_secs(3));
    ActionSettings { task_timeout, new_container_timeout, ..ActionSettings::default() }
}

fn instances(count: usize) -> Value {
    json!({ "action": "create-container", "image": "busybox", "instances": count })
}

#[tokio::test]
async fn instances_are_spread_over_the_nodes_that_take_them() {
    let herd = Herd::of(3, ActionSettings::default()).await;
    assert_eq!(herd.create(instances(7)).await, "201 n0:201×3 n1:201×2 n2:201×2");
    // The emptiest first.
    assert_eq!(herd.create(instances(2)).await, "201 n1:201×1 n2:201×1");
    assert_eq!(herd.create(instances(0)).await.split(' ').count(), 2);
    herd.fakes[1].fail("/containers/create", 503);
    assert_eq!(herd.create(instances(6)).await, "201 n0:201×3 n2:201×3");
    let mut on_one = instances(2);
    on_one["hostname"] = "n1".into();
    assert_eq!(herd.create(on_one).await, "503 n1:503×2");
    for fake in &herd.fakes {
        fake.fail("/containers/create", 404);
    }
}

#[tokio::test]
async fn a_thousand_at_once_are_even_too() {
    let herd = Herd::of(5, ActionSettings::default()).await;
    assert_eq!(herd.create(instances(1000)).await, "201 n0:201×200 n1:201×200 n2:201×200 n3:201×200 n4:201×200");
    let nodes = herd.front.pool.nodes();
    let names: BTreeSet<&str> =
        nodes.iter().flat_map(|node| node.containers.values()).map(|container| container.name.as_str()).collect();
    assert_eq!(names.len(), 1000);
}

#[tokio::test]
async fn a_node_that_hangs_is_late_and_gets_the_next_only_if_nobody_else_is_left() {
    let herd = Herd::of(3, impatient()).await;
    herd.fakes[2].hang();
    let seen = herd.create(instances(60)).await;
    let late: usize = seen.split("n2:504×").nth(1).expect("some were late").parse().expect("a number");
    // At most as many as are begun at a time: four for each of three nodes.
    assert!((1..=12).contains(&late), "{seen}");
    assert!(seen.starts_with("200 n0:201×") && !seen.contains("n2:201"), "{seen}");
    herd.fakes[2].resume();
}

#[tokio::test]
async fn lists_say_who_is_late_and_keep_the_rest() {
    let herd = Herd::of(3, impatient()).await;
    herd.fakes[0].add(FakeContainer::new("a"));
    herd.fakes[1].add(FakeContainer::new("b"));
    herd.fakes[1].hang();
    let (status, answer) = herd.act(json!({"action": "list-containers", "all": true})).await;
    let parts: Vec<String> = answer["containers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|part| format!("{} {} {}", part["dockerInstance"], part["statusCode"], part["error"]))
        .collect();
    assert_eq!(parts, [r#""n0" 200 null"#, r#""n1" 504 "timeout""#, r#""n2" 200 null"#]);
    assert_eq!(
        (status, &answer["statusCode"], &answer["Response"]["Body"][0]["Names"]),
        (200, &json!(200), &json!(["/a"]))
    );
    let (status, answer) = herd.act(json!({"action": "list-images", "hostname": "n1"})).await;
    assert_eq!((status, &answer["error"], &answer["dockerInstance"]), (504, &json!("timeout"), &json!("n1")));
    herd.fakes[1].resume();
}

#[tokio::test]
async fn a_container_on_a_node_that_died_is_known_and_late() {
    let herd = Herd::of(2, impatient()).await;
    let (_, made) =
        herd.act(json!({"action": "create-container", "image": "busybox", "hostname": "n1", "name": "web"})).await;
    assert_eq!((&made["statusCode"], &made["dockerInstance"]), (&json!(201), &json!("n1")));
    let id = made["Response"]["Body"]["Id"].as_str().expect("an id").to_owned();
    for (action, expected) in [("start", 204), ("inspect", 200), ("stop", 204)] {
        let (_, answer) = herd.act(json!({"action": format!("{action}-container"), "id": &id[..7]})).await;
        assert_eq!((&answer["statusCode"], &answer["dockerInstance"]), (&json!(expected), &json!("n1")), "{action}");
    }
    herd.fakes[1].kill();
    herd.until_healthy(1).await;
    let (status, answer) = herd.act(json!({"action": "start-container", "id": "web"})).await;
    assert_eq!((status, &answer["error"], &answer["dockerInstance"]), (504, &json!("timeout"), &json!("n1")));
    let (status, answer) = herd.act(json!({"action": "delete-container", "id": "nosuch"})).await;
    assert_eq!((status, &answer["status"]), (404, &json!("timeout or no such id")));
    let mut on_it = instances(2);
    on_it["hostname"] = "n1".into();
    assert_eq!(herd.create(on_it).await, "504 n1:504×2");
}

#[tokio::test]
async fn what_is_wrong_with_all_of_them_is_told_once() {
    let herd = Herd::of(1, impatient()).await;
    let mut request = instances(5);
    request["body"] = json!({"Labels": []});
    let (status, answer) = herd.act(request).await;
    assert_eq!((status, &answer["status"]), (400, &json!("error")));
    assert_eq!(herd.fakes[0].requests("POST /containers/create"), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Some engines refuse, some fail: the answer has one entry for each instance, and those that accept are even.
    #[test]
    fn there_is_one_entry_for_each_instance(moods in prop::collection::vec(0u8..3, 1..5), count in 1usize..25) {
        Runtime::new().expect("a runtime").block_on(async {
            let herd = Herd::of(moods.len(), ActionSettings::default()).await;
            for (fake, mood) in herd.fakes.iter().zip(&moods) {
                match mood {
                    0 => {}
                    1 => fake.fail("/containers/create", 503),
                    _ => fake.fail("/containers/create", 500),
                }
            }
            let (_, answer) = herd.act(instances(count)).await;
            let replies = answer["containers"].as_array().expect("a list");
            prop_assert_eq!(replies.len(), count);
            for reply in replies {
                prop_assert!(reply["statusCode"].is_u64() && reply.get("dockerInstance").is_some(), "{}", reply);
            }
            let made: Vec<usize> =
                herd.fakes.iter().zip(&moods).filter(|(_, mood)| **mood == 0).map(|(fake, _)| fake.containers()).collect();
            let successes = replies.iter().filter(|reply| reply["statusCode"] == 201).count();
            prop_assert_eq!(successes, made.iter().sum::<usize>());
            if let (Some(most), Some(least)) = (made.iter().max(), made.iter().min()) {
                prop_assert!(most - least <= 1, "{:?}", made);
            }
            Ok(())
        })?;
    }
}
