//! What tasks say, read from the engines that they are on.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use herder_front::Front;
use herder_front::swarm::{LogPiece, LogsOf, LogsWanted};
use herder_model::swarm::{TaskRecord, View};
use herder_store::Store;
use http::Method;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Pieces that wait for the client; when it does not read, the engines wait.
const PIECES_WAITING_MAX: usize = 16;

/// The logs of all tasks that are meant; with `follow`, also of those that come.
pub(super) fn of(front: Arc<Front>, store: Arc<Store>, wanted: LogsWanted) -> BoxStream<'static, LogPiece> {
    let (pieces, stream) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(gather(front, store, wanted, pieces));
    futures_util::stream::unfold(stream, |mut stream| async { Some((stream.recv().await?, stream)) }).boxed()
}

async fn gather(front: Arc<Front>, store: Arc<Store>, wanted: LogsWanted, pieces: mpsc::Sender<LogPiece>) {
    let (mut view, mut watch) = store.watch();
    let mut begun = BTreeSet::new();
    let mut reading = JoinSet::new();
    loop {
        for task in tasks(&view, &wanted.of) {
            let Some(container) = container(&task).filter(|_| begun.insert(task.task.id.clone())) else { continue };
            let read = read(front.clone(), view.clone(), task.clone(), container, wanted.clone(), pieces.clone());
            reading.spawn(read);
        }
        if reading.is_empty() && !wanted.follow {
            return;
        }
        tokio::select! {
            _ = reading.join_next(), if !reading.is_empty() => {}
            seen = watch.next(), if wanted.follow => view = seen.view,
            () = pieces.closed() => return,
        }
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
) {
    let task = &task.task;
    let addr = view.nodes.get(&task.node_id).map(|it| it.addr.clone()).unwrap_or_default();
    let missing = || LogPiece::Missing(format!("node {} is not available", task.node_id));
    let Some(engine) = front.pool.engine(&addr).filter(|it| it.node().is_healthy()) else {
        let _ = pieces.send(missing()).await;
        return;
    };
    let LogsWanted { follow, stdout, stderr, timestamps, since, until, tail, .. } = wanted;
    let path = format!(
        "/containers/{container}/logs?follow={follow}&stdout={stdout}&stderr={stderr}&timestamps={timestamps}&since={since}\
         &until={until}&tail={tail}"
    );
    let mut body = match engine.open(Method::GET, &path, None).await {
        Ok(answer) => answer.into_body(),
        Err(error) => {
            let _ = pieces.send(LogPiece::Missing(format!("task {}: {error}", task.id))).await;
            return;
        }
    };
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            let _ = pieces.send(missing()).await;
            return;
        };
        let Ok(bytes) = frame.into_data() else { continue };
        let piece = LogPiece::Bytes {
            service_id: task.service_id.clone(),
            task_id: task.id.clone(),
            node_id: task.node_id.clone(),
            bytes,
        };
        if pieces.send(piece).await.is_err() {
            return;
        }
    }
}
