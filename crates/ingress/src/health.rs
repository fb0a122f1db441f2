//! Checks of tasks by this node, where a service asks for them.

use std::collections::HashMap;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use herder_model::swarm::HealthCheck;
use http::{Method, Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, interval, timeout};

use crate::Shared;
use crate::balance::Task;
use crate::connect::open_for;

/// Interval at which due checks are started.
const LOOK: Duration = Duration::from_millis(250);

/// Checks tasks for ever. A task that fails a check takes no requests from this node until it passes one.
pub(crate) async fn check(shared: Weak<Shared>) {
    let mut look = interval(LOOK);
    let mut due: HashMap<String, Instant> = HashMap::new();
    loop {
        look.tick().await;
        // The ingress is dropped: its parts end now.
        let Some(shared) = shared.upgrade() else { return std::future::pending().await };
        let now = Instant::now();
        let mut seen = HashMap::new();
        for service in shared.services.all() {
            let upstream = service.is.read().clone();
            let Some(health) = &upstream.health else { continue };
            for task in service.tasks().iter() {
                let key = format!("{} {}", service.name, task.id);
                let next = due.get(&key).copied();
                if next.is_some_and(|it| it > now) {
                    seen.extend(next.map(|it| (key, it)));
                    continue;
                }
                seen.insert(key, now + Duration::from_millis(health.interval_ms));
                let (shared, task, health) = (shared.clone(), task.clone(), health.clone());
                let is_tls = upstream.scheme == "https";
                let port = if health.port == 0 { upstream.port } else { health.port };
                tokio::spawn(async move {
                    let limit = Duration::from_millis(health.timeout_ms);
                    let outcome = timeout(limit, ask(&shared, &task, &health, port, is_tls)).await;
                    let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
                    let before = task.healthy.swap(outcome.is_ok(), Ordering::Relaxed);
                    match outcome {
                        Err(why) if before => tracing::warn!(task = task.id, why, "a task fails its ingress check"),
                        Ok(()) if !before => tracing::info!(task = task.id, "a task passes its ingress check"),
                        _ => {}
                    }
                });
            }
        }
        due = seen;
    }
}

/// Asks a task once.
async fn ask(shared: &Shared, task: &Task, health: &HealthCheck, port: u16, is_tls: bool) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let conn = open_for(shared, task, port, is_tls).await.map_err(|it| text(&it))?;
    let opened = hyper::client::conn::http1::handshake(TokioIo::new(conn)).await;
    let (mut sender, connection) = opened.map_err(|it| text(&it))?;
    tokio::spawn(async move { drop(connection.await) });
    let method = if health.method.is_empty() { Method::GET } else { health.method.parse().map_err(|it| text(&it))? };
    let host = if health.hostname.is_empty() { "localhost" } else { &health.hostname };
    let mut request = Request::builder().method(method).uri(&health.path).header(header::HOST, host);
    for (name, value) in &health.headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|it| text(&it))?;
    let status = sender.send_request(request).await.map_err(|it| text(&it))?.status();
    let fits =
        if health.status == 0 { (200..400).contains(&status.as_u16()) } else { status.as_u16() == health.status };
    if fits { Ok(()) } else { Err(format!("{} answers {status}", health.path)) }
}
