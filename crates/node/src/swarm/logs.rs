//! Logs of tasks, read from their engines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use herder_place::Placer as Front;

use super::{LogPiece, LogsOf, LogsWanted};
use herder_model::swarm::{TaskRecord, View};
use herder_pool::EngineError;
use herder_store::Store;
use http::Method;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Pieces that wait for the client; when it does not read, the engines wait.
const PIECES_WAITING_MAX: usize = 16;

/// The logs of all tasks that are meant; with `follow`, also of those that come.
pub(super) fn of(front: Arc<Front>, store: Arc<Store>, wanted: LogsWanted) -> BoxStream<'static, LogPiece> {
    let (pieces, stream) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(gather(front, store, wanted, pieces));
    futures_util::stream::unfold(stream, |mut stream| async { Some((stream.recv().await?, stream)) }).boxed()
}

/// Pause before the logs of a task are read again after a failure, while they are followed.
const AGAIN_TIME: Duration = Duration::from_secs(2);

/// Result of reading the logs of one task.
struct Outcome {
    task: String,
    /// Reason why some logs are missing.
    missing: Option<String>,
}

async fn gather(front: Arc<Front>, store: Arc<Store>, wanted: LogsWanted, pieces: mpsc::Sender<LogPiece>) {
    let (mut view, mut watch) = store.watch();
    let mut begun = BTreeSet::new();
    let mut missing = BTreeSet::new();
    let mut reading = JoinSet::new();
    // Tasks whose node was away, and since when nothing more is to be expected of what was read before.
    let mut again: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        for task in tasks(&view, &wanted.of) {
            let id = &task.task.id;
            let rests = again.get(id).is_some_and(|at| *at > Instant::now());
            let Some(container) = container(&task).filter(|_| !rests && begun.insert(id.clone())) else { continue };
            let mut wanted = wanted.clone();
            if again.remove(id).is_some() {
                // The rest of what was said while its node was away is not told: nobody knows how much of it was read before.
                wanted.tail = "0".into();
            }
            reading.spawn(read(front.clone(), view.clone(), task.clone(), container, wanted, pieces.clone()));
        }
        if reading.is_empty() && !wanted.follow {
            break;
        }
        let next = again.values().min().copied().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            Some(read) = reading.join_next(), if !reading.is_empty() => {
                let Ok(Outcome { task, missing: Some(why) }) = read else { continue };
                if wanted.follow {
                    begun.remove(&task);
                    again.insert(task, Instant::now() + AGAIN_TIME);
                } else {
                    missing.insert(why);
                }
            }
            seen = watch.next(), if wanted.follow => {
                view = seen.view;
                again.retain(|task, _| view.tasks.contains_key(task));
            }
            () = sleep_until(next), if !again.is_empty() => {}
            () = pieces.closed() => return,
        }
    }
    // At the end, and once: Docker's clients stop at the first failure that they are told.
    if !missing.is_empty() {
        let reasons: Vec<String> = missing.into_iter().collect();
        let _ = pieces.send(LogPiece::Missing(reasons.join("; "))).await;
    }
}

fn tasks(view: &View, of: &LogsOf) -> Vec<Arc<TaskRecord>> {
    match of {
        LogsOf::Service(id) => view.tasks_of_service(id).cloned().collect(),
        LogsOf::Task(id) => view.tasks.get(id).cloned().into_iter().collect(),
    }
}

fn container(task: &TaskRecord) -> Option<String> {
    let status = task.task.status.container_status.as_ref()?;
    Some(status.container_id.clone()).filter(|id| !id.is_empty())
}

/// One task's logs, to their end.
async fn read(
    front: Arc<Front>,
    view: View,
    task: Arc<TaskRecord>,
    container: String,
    wanted: LogsWanted,
    pieces: mpsc::Sender<LogPiece>,
) -> Outcome {
    let outcome = |missing: Option<String>| Outcome { task: task.task.id.clone(), missing };
    let node = view.nodes.get(&task.task.node_id);
    let addr = node.map(|it| it.addr.clone()).unwrap_or_default();
    let hostname = node.map_or(&task.task.node_id, |it| &it.node.description.hostname).clone();
    let away = || Some(format!("node {hostname} is not available"));
    let Some(engine) = front.pool.engine(&addr).filter(|it| it.node().is_healthy()) else {
        // Of a node that is gone nothing will ever be read.
        return outcome(node.and_then(|_| away()));
    };
    let LogsWanted { follow, stdout, stderr, timestamps, since, until, tail, .. } = wanted;
    let path = format!(
        "/containers/{container}/logs?follow={follow}&stdout={stdout}&stderr={stderr}&timestamps={timestamps}&since={since}\
         &until={until}&tail={tail}"
    );
    let mut body = match engine.open(Method::GET, &path, None).await {
        Ok(answer) => answer.into_body(),
        // The container of a task that has ended was removed: there are no logs of it any more.
        Err(EngineError::Answer { status: 404, .. }) => return outcome(None),
        Err(error) => return outcome(Some(format!("task {} on node {hostname}: {error}", task.task.id))),
    };
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return outcome(away()) };
        let Ok(bytes) = frame.into_data() else { continue };
        let piece = LogPiece::Bytes {
            service_id: task.task.service_id.clone(),
            task_id: task.task.id.clone(),
            node_id: task.task.node_id.clone(),
            bytes,
        };
        if pieces.send(piece).await.is_err() {
            return outcome(None);
        }
    }
    outcome(None)
}
