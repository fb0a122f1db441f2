//! Any bytes as a request, for fuzzing and property tests.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use herder_decide::actions;
use herder_decide::schedule::{Filter, Scheduler};
use herder_pool::{Pool, Settings};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::{Front, FrontSettings, path};

/// A request that is not a stream is answered within this time, on however slow a machine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("a runtime")
    })
}

/// A door over a pool without nodes.
fn front() -> Arc<Front> {
    let scheduler = Scheduler { strategy: Default::default(), filters: Filter::ALL.to_vec() };
    Front::new(Pool::new(Settings::default()), scheduler, FrontSettings::default())
}

/// Same as [`fuzz_request_on`], over a pool without nodes.
pub fn fuzz_request(bytes: &[u8]) {
    runtime().block_on(async { fuzz_request_on(&front(), bytes).await });
}

/// Handles the bytes as a request, and returns the status of the answer. A request is a line with method and path,
/// then the body. `None` if they are not a request. Panics if a handler does, or does not end.
pub async fn fuzz_request_on(front: &Arc<Front>, bytes: &[u8]) -> Option<StatusCode> {
    let text = String::from_utf8_lossy(bytes);
    let (line, body) = text.split_once('\n').unwrap_or((&text, ""));
    let (method, path) = line.split_once(' ').unwrap_or(("POST", line));
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return None };
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let Ok(request) = request.body(herder_pool::full(body.to_owned())) else {
        return None;
    };
    // Streams without end: what they say is not what is asked here.
    if request.uri().path().contains("events") || request.uri().path().contains("xhr") {
        return None;
    }
    let answer = async {
        let reply = front.handle(request).await;
        let status = reply.status();
        let body = reply.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    let (status, said) = timeout(ANSWER_TIME_MAX, answer).await.expect("an answer in time");
    assert!(status != StatusCode::INTERNAL_SERVER_ERROR || !said.contains("internal error of herder"), "{said}");
    Some(status)
}

/// Takes the bytes for what a connection brings until its end. Panics if what comes back is no HTTP.
pub fn fuzz_connection(bytes: &[u8]) {
    // What answers never end: the client goes away, which ends everything, but needs no fuzzing.
    if bytes.windows(6).any(|part| part == b"events") || bytes.windows(3).any(|part| part == b"xhr") {
        return;
    }
    let said = runtime().block_on(async {
        let (client, ours) = tokio::io::duplex(64 << 10);
        let served = tokio::spawn(herder_http::one_connection(front(), ours));
        let (mut reader, mut writer) = tokio::io::split(client);
        let mut said = Vec::new();
        let talk = async {
            // The door may hang up before it has heard everything.
            let _ = writer.write_all(bytes).await;
            let _ = writer.shutdown().await;
            let _ = reader.read_to_end(&mut said).await;
        };
        timeout(ANSWER_TIME_MAX, talk).await.expect("a connection ends after its client did");
        served.await.expect("no panic");
        said
    });
    assert!(said.is_empty() || said.starts_with(b"HTTP/1."), "{}", said.escape_ascii());
    assert!(!String::from_utf8_lossy(&said).contains("internal error of herder"), "{}", said.escape_ascii());
}

/// Takes the bytes for a path, apart and together again.
pub fn fuzz_path(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    assert!(path::query(query).0.len() <= query.split('&').count());
    let Ok(target) = path::split(path) else { return };
    // A question mark that was encoded brings a query of its own; longer than 64 KiB no URI is.
    if target.path.contains('?') || bytes.len() > 10_000 || !target.path.starts_with('/') {
        return;
    }
    let uri: http::Uri = path::for_engine(Some("1.41"), &target.path, None).parse().expect("a path that can be sent");
    let again = path::split(uri.path()).expect("a version that is served");
    assert_eq!((again.version.as_deref(), again.path), (Some("1.41"), target.path));
}

/// Reads the bytes as an action and as a template.
pub fn fuzz_action(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(value) = serde_json::from_str(&text) {
        let _ = actions::parse(&value);
    }
    if let Ok(template) = actions::template::parse("any", &text) {
        let values = template.variables.keys().map(|name| (name.clone(), 1.into())).collect();
        let _ = template.fill(&values);
        let _ = template.fill(&serde_json::Map::new());
    }
    let _ = actions::conf::parse(&text);
}
