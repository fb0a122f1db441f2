//! One call to all healthy nodes at once: answers gathered, bodies shared out, progress told line by line.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use herder_decide::merge::{Part, Progress};
use herder_decide::versions;
use herder_model::{Node, NodeState};
use herder_pool::{Body, BoxError, Engine};
use http::{HeaderMap, Method, Request, Response, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use parking_lot::Mutex;
use serde_json::Value;

use crate::path::for_engine;
use crate::{ApiError, Call, Front, Reply};

/// Pieces of a body that wait for one engine; the slowest engine paces the client. 16 pieces of 64 KiB are 1 MiB a node.
const PIECES_WAITING_MAX: usize = 16;

/// Lines of progress that wait for the client; a client that does not read paces the engines.
const LINES_WAITING_MAX: usize = 64;

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

/// What is done on every node, and how it is told.
pub(crate) struct Work {
    pub method: Method,
    /// Without version, decoded.
    pub path: String,
    /// `Pulling busybox:latest...`
    pub what: String,
    pub headers: HeaderMap,
    /// The body is for every engine; without, each gets an empty one.
    pub body: Option<Body>,
}

/// Does `work` on all healthy nodes and streams their progress, `id` being the node. Failures are told at the end.
/// `after` runs on each engine that succeeded, before the end is told.
pub(crate) fn stream(front: &Arc<Front>, call: &Call, work: Work) -> Result<Reply, ApiError> {
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
    if let Some(body) = work.body {
        tokio::spawn(share_out(body, feeds));
    }
    let (told, answer) = Channel::<Bytes, BoxError>::new(LINES_WAITING_MAX);
    let teller =
        Arc::new(Teller { progress: Mutex::new(Progress::new(&work.what)), told: tokio::sync::Mutex::new(told) });
    let mut tasks = Vec::new();
    for (engine, body) in engines.into_iter().zip(bodies) {
        let version = versions::for_engine(call.version.as_deref(), &engine.node().api_version);
        let uri = for_engine(Some(version.as_str()).filter(|it| !it.is_empty()), &work.path, call.parts.uri.query());
        let mut request = Request::new(if has_body { body } else { herder_pool::empty() });
        *request.method_mut() = work.method.clone();
        *request.uri_mut() = uri.parse().map_err(|_| ApiError::bad_request(format!("invalid path {uri:?}")))?;
        *request.headers_mut() = work.headers.clone();
        tasks.push(tokio::spawn(on_one(engine, request, teller.clone())));
    }
    let nodes = front.pool.nodes();
    let skipped: Vec<String> =
        nodes.iter().filter(|node| node.state == NodeState::Unhealthy).map(|node| node.name.clone()).collect();
    tokio::spawn(async move {
        for node in skipped {
            let line = teller.progress.lock().skipped(&node);
            teller.tell(&line).await;
        }
        join_all(tasks).await;
        let (said, end) = {
            let progress = teller.progress.lock();
            (progress.said(), progress.end())
        };
        for line in said.iter().chain(&end) {
            teller.tell(line).await;
        }
    });
    let mut reply = Response::new(answer.boxed_unsync());
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(reply)
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

struct Teller {
    progress: Mutex<Progress>,
    told: tokio::sync::Mutex<Sender<Bytes, BoxError>>,
}

impl Teller {
    /// A client that has gone does not stop what nodes do, as with an engine.
    async fn tell(&self, line: &Value) {
        let _ = self.told.lock().await.send_data(Bytes::from(format!("{line}\r\n"))).await;
    }
}

async fn on_one(engine: Arc<Engine>, request: Request<Body>, teller: Arc<Teller>) {
    let node = engine.node();
    let begin = teller.progress.lock().begin(&node.name);
    teller.tell(&begin).await;
    let outcome = tokio::select! {
        outcome = follow(&engine, &node, request, &teller) => outcome,
        () = engine.until_lost() => Err("the node was lost meanwhile".to_owned()),
    };
    match outcome {
        Ok(()) => {
            teller.progress.lock().ended(&node.name);
            if let Err(error) = engine.refresh_images().await {
                tracing::debug!(%error, node = node.name, "cannot read images anew");
            }
        }
        Err(reason) => teller.progress.lock().failed(&node.name, &reason),
    }
}

/// Sends the request and tells what the engine says until it ends.
async fn follow(engine: &Engine, node: &Node, request: Request<Body>, teller: &Teller) -> Result<(), String> {
    let response = engine.send(request).await.map_err(|error| error.to_string())?;
    let success = response.status().is_success();
    let mut body = response.into_body();
    let mut waiting = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        waiting.extend_from_slice(&piece);
        if waiting.len() > LINE_BYTES_MAX {
            return Err(format!("a line of progress is longer than {LINE_BYTES_MAX} bytes"));
        }
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line = waiting.split_to(end + 1);
            tell_line(node, success, &line, teller).await?;
        }
    }
    tell_line(node, success, &waiting, teller).await
}

async fn tell_line(node: &Node, success: bool, line: &[u8], teller: &Teller) -> Result<(), String> {
    let Ok(line) = serde_json::from_slice::<Value>(line) else { return Ok(()) };
    if !success {
        return Err(line["message"].as_str().unwrap_or("the engine refused without a reason").to_owned());
    }
    let told = teller.progress.lock().line(&node.name, &line);
    if let Some(told) = told {
        teller.tell(&told).await;
    }
    Ok(())
}
