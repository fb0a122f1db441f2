//! Pools over engines that are none, shown as text.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use herder_model::{ClusterEvent, Node};
use herder_pool::fake::{FakeEngine, FakeSpec};
use herder_pool::{Pool, Settings};
use tokio::sync::broadcast;
use tokio::time::timeout;

/// Promised time until a lost node is noticed.
pub(crate) const DETECTION_MAX: Duration = Duration::from_secs(5);
/// More than any picture may take to become true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn fake(name: &str) -> FakeEngine {
    FakeEngine::start(FakeSpec::new(name)).await.expect("a free port")
}

pub(crate) fn members(fakes: &[&FakeEngine]) -> BTreeSet<String> {
    fakes.iter().map(|fake| fake.addr()).collect()
}

pub(crate) fn pool_of(fakes: &[&FakeEngine]) -> Arc<Pool> {
    let pool = Pool::new(Settings::default());
    pool.set_members(&members(fakes));
    pool
}

/// One line per node, as text to compare.
pub(crate) fn show(pool: &Pool) -> String {
    let line = |node: &Arc<Node>| {
        let mut containers: Vec<String> =
            node.containers.values().map(|it| format!(" {}={}", it.name, it.state)).collect();
        containers.sort();
        format!("{} {}{}", node.name, node.state.as_str(), containers.concat())
    };
    pool.nodes().iter().map(line).collect::<Vec<_>>().join("; ")
}

/// Waits until the pool shows `expected`; says what it showed instead when that takes too long.
pub(crate) async fn check(pool: &Pool, expected: &str) -> Duration {
    let began = Instant::now();
    let mut changes = pool.changes();
    let seen = async {
        while show(pool) != expected {
            changes.changed().await.expect("the pool lives");
        }
    };
    assert!(timeout(PATIENCE, seen).await.is_ok(), "expected `{expected}`, seen `{}`", show(pool));
    began.elapsed()
}

/// The next events, as `action name`, until `last` is among them.
pub(crate) async fn heard(events: &mut broadcast::Receiver<ClusterEvent>, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    let listen = async {
        loop {
            let event = events.recv().await.expect("no event is missed").json;
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let name = text(&event["Actor"]["Attributes"]["name"]);
            heard.push(format!("{} {name}", text(&event["Action"])).trim().to_owned());
            if heard.last().is_some_and(|event| event == last) {
                return;
            }
        }
    };
    assert!(timeout(PATIENCE, listen).await.is_ok(), "`{last}` never came, heard {heard:?}");
    heard
}
