//! One call to all healthy nodes at once: gathers answers, shares out bodies, streams progress line by line.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use herder_decide::merge::{self, Part, Progress};
use herder_decide::naming::Naming;
use herder_decide::versions;
use herder_model::{Node, NodeState};
use herder_pool::{Body, BoxError, Engine};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::call::gather_answer;
use crate::path::for_engine;
use crate::{ApiError, Front, Reply};

/// Maximum number of pieces of a body that wait for one engine. The slowest engine sets the rate of the client; 16 pieces of 64
/// KiB are 1 MiB a node.
const PIECES_WAITING_MAX: usize = 16;

/// Lines of progress that wait for the client; a client that does not read holds the engines back.
const LINES_WAITING_MAX: usize = 64;

/// Maximum bytes of output of work without progress: some lines for each image of an archive.
const HELD_BYTES_MAX: usize = 4 << 20;

/// A line of progress of an engine is a few hundred bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Asks all healthy nodes at once.
pub(crate) async fn ask_all(front: &Front, method: Method, path: &str, body: Option<&Value>) -> Vec<Part> {
    ask(front.healthy_engines(), method, path, body).await
}

/// Asks these engines at once.
pub(crate) async fn ask(engines: Vec<Arc<Engine>>, method: Method, path: &str, body: Option<&Value>) -> Vec<Part> {
    let one = |engine: Arc<Engine>| {
        let method = method.clone();
        async move {
            let node = engine.node();
            let answer = tokio::select! {
                answer = engine.call(method, path, body) => answer.map_err(|error| error.to_string()),
                () = engine.until_lost() => Err("the node was lost meanwhile".into()),
            };
            (node, answer)
        }
    };
    join_all(engines.into_iter().map(one)).await
}

/// Any healthy engine, for what every engine answers alike.
pub(crate) fn any(front: &Front) -> Result<Arc<Engine>, ApiError> {
    let engine = front.healthy_engines().into_iter().next();
    engine.ok_or_else(|| ApiError::internal("No healthy node available in the cluster"))
}

/// Work for every node, and the form of its output.
pub(crate) struct Work {
    pub method: Method,
    /// The client's version of the API.
    pub version: Option<String>,
    /// The client's query string.
    pub query: Option<String>,
    /// Without version, decoded.
    pub path: String,
    /// `Pulling busybox:latest...`
    pub what: String,
    pub headers: HeaderMap,
    /// The body is for every engine; without, each gets an empty one.
    pub body: Option<Body>,
    /// The answer begins when the work is done.
    pub hold: bool,
}

/// Reason why an engine did not begin.
struct Refusal {
    node: Arc<Node>,
    status: StatusCode,
    message: String,
}

/// Does `work` on all healthy nodes and streams their progress. Errors of some nodes are told at the end; as with one
/// engine, what fails everywhere before it has begun is no success with an error in it, but an error with its own
/// status.
pub(crate) async fn stream(front: &Arc<Front>, work: Work) -> Result<Reply, ApiError> {
    let engines = front.healthy_engines();
    if engines.is_empty() {
        return Err(ApiError::internal("No healthy node available in the cluster"));
    }
    let (mut bodies, mut feeds) = (Vec::new(), Vec::new());
    for _ in &engines {
        let (feed, body) = Channel::<Bytes, BoxError>::new(PIECES_WAITING_MAX);
        bodies.push(body.boxed_unsync());
        feeds.push(feed);
    }
    let has_body = work.body.is_some();
    let mut requests = Vec::new();
    for (engine, body) in engines.iter().zip(bodies) {
        let version = versions::for_engine(work.version.as_deref(), &engine.node().api_version);
        let uri = for_engine(Some(version.as_str()).filter(|it| !it.is_empty()), &work.path, work.query.as_deref());
        let mut request = Request::new(if has_body { body } else { herder_pool::empty() });
        *request.method_mut() = work.method.clone();
        *request.uri_mut() = uri.parse().map_err(|_| ApiError::bad_request(format!("invalid path {uri:?}")))?;
        *request.headers_mut() = work.headers.clone();
        requests.push(request);
    }
    if let Some(body) = work.body {
        tokio::spawn(share_out(body, feeds));
    }
    let progress = match front.pool.settings().naming {
        Naming::Docker if engines.len() == 1 => Progress::of_one(),
        Naming::Docker => Progress::new(&work.what),
        Naming::Classic => Progress::classic(&work.what),
    };
    let (told, answer) = Channel::<Bytes, BoxError>::new(LINES_WAITING_MAX);
    let broadcaster = Arc::new(Broadcaster { progress: Mutex::new(progress), told: tokio::sync::Mutex::new(told) });
    let count = engines.len();
    let (begun, mut beginnings) = mpsc::channel(count);
    let (go, may_tell) = watch::channel(false);
    let tasks: Vec<_> = engines
        .into_iter()
        .zip(requests)
        .map(|(engine, request)| {
            tokio::spawn(on_one(engine, request, broadcaster.clone(), begun.clone(), may_tell.clone()))
        })
        .collect();
    drop((begun, may_tell));
    let nodes = front.pool.nodes();
    let skipped: Vec<String> =
        nodes.iter().filter(|node| node.state == NodeState::Unhealthy).map(|node| node.name.clone()).collect();
    let refusal = first_refusal(&mut beginnings, count).await;
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let told_all = tokio::spawn(async move {
        // Before, nobody reads what is told.
        let _ = go.send(true);
        for node in skipped {
            let line = broadcaster.progress.lock().skipped(&node);
            if let Some(line) = line {
                broadcaster.tell(&line).await;
            }
        }
        join_all(tasks).await;
        let (said, end) = {
            let progress = broadcaster.progress.lock();
            (progress.said(), progress.end())
        };
        for line in said.iter().chain(&end) {
            broadcaster.tell(line).await;
        }
    });
    let body = if work.hold { held_back(answer, told_all).await } else { answer.boxed_unsync() };
    let mut reply = Response::new(body);
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(reply)
}

/// Waits until one engine has begun, or all have refused. Returns the refusal, with a line for each node if they
/// differ.
async fn first_refusal(beginnings: &mut mpsc::Receiver<Option<Refusal>>, count: usize) -> Option<ApiError> {
    let mut refusals: Vec<Refusal> = Vec::new();
    while refusals.len() < count {
        // Without a sender the engine's task has ended, and its reason is told at the end.
        refusals.push(beginnings.recv().await??);
    }
    let status = refusals.iter().map(|it| it.status).min().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let same = refusals.windows(2).all(|pair| pair[0].message == pair[1].message);
    let message = match refusals.as_slice() {
        [first, ..] if same => first.message.clone(),
        _ => refusals.iter().map(|it| merge::failure(&it.node, &it.message)).collect::<Vec<_>>().join("\n"),
    };
    Some(ApiError::new(status, message))
}

/// Returns the whole output once the work is done.
async fn held_back(answer: Channel<Bytes, BoxError>, work: JoinHandle<()>) -> Body {
    let mut answer = answer.boxed_unsync();
    let mut whole = BytesMut::new();
    while let Some(Ok(frame)) = answer.frame().await {
        let room = HELD_BYTES_MAX.saturating_sub(whole.len());
        whole.extend(frame.into_data().iter().flatten().take(room));
    }
    if let Err(error) = work.await {
        tracing::error!(%error, "the work on all nodes was interrupted");
    }
    herder_pool::full(whole.freeze())
}

/// Headers that an engine needs for pulls and builds.
pub(crate) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let wanted = |name: &str| name.starts_with("x-registry-") || name == "content-type" || name == "content-encoding";
    headers
        .iter()
        .filter(|(name, _)| wanted(name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Gives each piece of a body to all feeds. A feed whose engine does not listen any more is left out.
async fn share_out(mut body: Body, mut feeds: Vec<Sender<Bytes, BoxError>>) {
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(piece)) => {
                let mut alive = Vec::with_capacity(feeds.len());
                for mut feed in feeds {
                    if feed.send_data(piece.clone()).await.is_ok() {
                        alive.push(feed);
                    }
                }
                feeds = alive;
            }
            // Trailers mean nothing to engines.
            Ok(Err(_)) => {}
            Err(error) => {
                let reason = error.to_string();
                for feed in feeds {
                    feed.abort(format!("the client broke off: {reason}").into());
                }
                return;
            }
        }
        if feeds.is_empty() {
            return;
        }
    }
}

struct Broadcaster {
    progress: Mutex<Progress>,
    told: tokio::sync::Mutex<Sender<Bytes, BoxError>>,
}

impl Broadcaster {
    /// A client that has gone does not stop what nodes do, as with an engine.
    async fn tell(&self, line: &Value) {
        let _ = self.told.lock().await.send_data(Bytes::from(format!("{line}\r\n"))).await;
    }
}

async fn on_one(
    engine: Arc<Engine>,
    request: Request<Body>,
    broadcaster: Arc<Broadcaster>,
    begun: mpsc::Sender<Option<Refusal>>,
    may_tell: watch::Receiver<bool>,
) {
    let node = engine.node();
    let outcome = tokio::select! {
        outcome = follow(&engine, &node, request, &broadcaster, &begun, may_tell) => outcome,
        () = engine.until_lost() => Err((StatusCode::INTERNAL_SERVER_ERROR, "the node was lost meanwhile".to_owned())),
    };
    match outcome {
        Ok(()) => {
            if let Err(error) = engine.refresh_images().await {
                tracing::debug!(%error, node = node.name, "cannot read images again");
            }
            broadcaster.progress.lock().ended(&node.name);
        }
        Err((status, message)) => {
            broadcaster.progress.lock().failed(&node.name, &message);
            // Read only until one engine has begun.
            let _ = begun.try_send(Some(Refusal { node, status, message }));
        }
    }
}

/// Sends the request and tells what the engine says until it ends.
async fn follow(
    engine: &Engine,
    node: &Node,
    request: Request<Body>,
    broadcaster: &Broadcaster,
    begun: &mpsc::Sender<Option<Refusal>>,
    mut may_tell: watch::Receiver<bool>,
) -> Result<(), (StatusCode, String)> {
    let failed = |message: String| (StatusCode::INTERNAL_SERVER_ERROR, message);
    let response = engine.send(request).await.map_err(|error| failed(error.to_string()))?;
    let status = response.status();
    let mut body = response.into_body();
    if !status.is_success() {
        let answer = gather_answer(body, LINE_BYTES_MAX).await.map_err(|error| failed(error.to_string()))?;
        return Err((status, herder_docker::error_message(&answer)));
    }
    let _ = begun.try_send(None);
    // All have refused but this one, or the client has gone: then nobody reads.
    let _ = may_tell.wait_for(|may| *may).await;
    let begin = broadcaster.progress.lock().begin(&node.name);
    if let Some(begin) = begin {
        broadcaster.tell(&begin).await;
    }
    let mut waiting = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|error| failed(error.to_string()))?.into_data() else { continue };
        waiting.extend_from_slice(&piece);
        if waiting.len() > LINE_BYTES_MAX {
            return Err(failed(format!("a line of progress is longer than {LINE_BYTES_MAX} bytes")));
        }
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line = waiting.split_to(end + 1);
            tell_line(node, &line, broadcaster).await;
        }
    }
    tell_line(node, &waiting, broadcaster).await;
    Ok(())
}

async fn tell_line(node: &Node, line: &[u8], broadcaster: &Broadcaster) {
    let Ok(line) = serde_json::from_slice::<Value>(line) else { return };
    let told = broadcaster.progress.lock().line(&node.name, &line);
    if let Some(told) = told {
        broadcaster.tell(&told).await;
    }
}
