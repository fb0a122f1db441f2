//! Any bytes as a request, for fuzzing and property tests.

use std::sync::OnceLock;

use herder_decide::actions;
use herder_decide::schedule::{Filter, Scheduler};
use herder_pool::{Pool, Settings};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::runtime::Runtime;

use crate::{Front, FrontSettings};

/// Handles what the bytes say (a line with method and path, then the body) over a pool without nodes. Panics if a handler
/// does.
pub fn fuzz_request(bytes: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("a runtime")
    });
    let text = String::from_utf8_lossy(bytes);
    let (line, body) = text.split_once('\n').unwrap_or((&text, ""));
    let (method, path) = line.split_once(' ').unwrap_or(("POST", line));
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let Ok(request) = Request::builder().method(method).uri(path).body(herder_pool::full(body.to_owned())) else {
        return;
    };
    // Streams without end: what they say is not what is asked here.
    if request.uri().path().contains("events") || request.uri().path().contains("xhr") {
        return;
    }
    runtime.block_on(async {
        let scheduler = Scheduler { strategy: Default::default(), filters: Filter::ALL.to_vec() };
        let front = Front::new(Pool::new(Settings::default()), scheduler, FrontSettings::default());
        let reply = front.handle(request).await;
        let status = reply.status();
        let body = reply.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let sorry = status == StatusCode::INTERNAL_SERVER_ERROR && String::from_utf8_lossy(&body).contains("is sorry");
        assert!(!sorry, "{}", String::from_utf8_lossy(&body));
    });
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
