//! Stacks at the door: the stack API, and the loop of the leader that carries operations out.
//!
//! A request becomes an operation in the swarm's state; the leader carries it out through the Docker API of the target, for
//! its own swarm through its own door. See `herder_stacks`.

pub(crate) mod asked;
pub(crate) mod document;
mod inside;
pub(crate) mod inventory;
pub(crate) mod listed;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod operations;
pub(crate) mod problem;
pub(crate) mod python;
pub(crate) mod reach;
pub(crate) mod reached;
pub(crate) mod remote;
pub(crate) mod rename;
pub(crate) mod shown;
pub(crate) mod targets;
pub(crate) mod v1;
pub(crate) mod v2;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use herder_model::swarm::View;
use herder_stacks::{NotWritten, Operation, Records, find, kinds};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub(crate) use inside::Inside;

use crate::Front;
use crate::swarm::{self, Swarm};

/// Interval at which a manager checks whether it leads and an operation waits. After one is written through this door
/// it checks at once.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Operations that a leader carries out at the same time; the others wait.
const RUNNING_MAX: usize = 16;

/// The swarm's state as `herder_stacks` needs it.
pub(crate) struct SwarmRecords(pub(crate) Arc<dyn Swarm>);

impl Records for SwarmRecords {
    async fn read(&self) -> Result<View, String> {
        swarm::read(&self.0).await.map_err(|error| error.to_string())
    }

    async fn write(&self, changes: Vec<herder_model::swarm::Change>) -> Result<View, NotWritten> {
        self.0.commit(changes).await.map_err(|error| match error {
            swarm::NotWritten::Conflict(conflict) => NotWritten::Conflict(conflict),
            swarm::NotWritten::Failed(error) => NotWritten::Failed(error.to_string()),
        })
    }

    fn now(&self) -> String {
        jiff::Timestamp::now().to_string()
    }
}

/// Carries operations on stacks out while this node leads the swarm, until `stop`.
pub async fn follow(front: Arc<Front>, stop: CancellationToken) {
    let Some(swarm) = front.swarm().cloned() else { return };
    let mut ticks = interval(LOOK_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut running: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
    loop {
        let next = async {
            tokio::select! {
                _ = ticks.tick() => {}
                () = front.operations_begun.notified() => {}
            }
        };
        if stop.run_until_cancelled(next).await.is_none() {
            break;
        }
        running.retain(|_, it| !it.is_finished());
        let me = swarm.status().node_id;
        if !swarm.managers().iter().any(|it| it.leader && it.node_id == me) {
            // The next leader goes on.
            std::mem::take(&mut running).into_values().for_each(|it| it.abort());
            continue;
        }
        let Ok(view) = swarm::read(&swarm).await else { continue };
        let mut waiting = herder_stacks::due(&view);
        waiting.retain(|it| !running.contains_key(&it.id));
        for operation in waiting.into_iter().take(RUNNING_MAX.saturating_sub(running.len())) {
            let (front, swarm, me, id) = (front.clone(), swarm.clone(), me.clone(), operation.id.clone());
            let work = tokio::spawn(async move {
                let (target, start) = (operation.record.target, Instant::now());
                let request_id = format!("stack-operation-{id}");
                let kept = SwarmRecords(swarm);
                match targets::api_of(&front, &target, &request_id).await {
                    Ok(api) => herder_stacks::run(&kept, &api, &id, &me).await,
                    Err(problem) => {
                        let door = Inside::new(&front, &request_id);
                        herder_stacks::fail(&kept, &door, &id, &me, &problem.detail).await;
                    }
                }
                count(&front, &kept, &id, &me, start.elapsed()).await;
                // The next operation on the stack may have its turn now.
                front.operations_begun.notify_one();
            });
            running.insert(operation.id, work);
        }
    }
    running.into_values().for_each(|it| it.abort());
}

/// Counts an operation that this node has brought to its end.
async fn count(front: &Front, kept: &SwarmRecords, id: &str, me: &str, time: Duration) {
    let (Ok(view), Some(kinds)) = (kept.read().await, kinds()) else { return };
    let over = find::<Operation>(&view, kinds.operation, id).filter(|it| it.record.state.is_over());
    if let Some(Operation { verb, state, runner, .. }) = over.map(|it| it.record)
        && runner == me
    {
        front.metrics.ended(verb, state, time);
    }
}
