//! Figures of the ingress, and the address where they are read.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::Shared;
use crate::log::Line;
use crate::page::full;

/// Upper ends of the histogram, in milliseconds.
const BUCKETS_MS: [u64; 8] = [5, 10, 25, 100, 250, 1000, 5000, 30_000];
/// Readers at the same time.
const READERS_MAX: usize = 16;
const READ_TIME_MAX: Duration = Duration::from_secs(30);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers `GET /metrics` for ever.
pub(crate) async fn serve(shared: Arc<Shared>, listener: Arc<TcpListener>) {
    let readers = Arc::new(Semaphore::new(READERS_MAX));
    loop {
        let Ok(permit) = readers.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let answer = answer(&shared, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(READ_TIME_MAX);
            // One who reads no further is not waited for.
            let _ = tokio::time::timeout(READ_TIME_MAX, server.serve_connection(TokioIo::new(stream), service)).await;
            drop(permit);
        });
    }
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<herder_http::Body> {
    let is_there = request.uri().path() == "/metrics";
    let text = if is_there { shared.metrics.text(shared) } else { "GET /metrics\n".to_owned() };
    let mut reply = Response::new(full(text));
    *reply.status_mut() = if is_there { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

/// Figures, by route and service.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, String, u16), Figures>>,
    handshakes: AtomicU64,
    retries: AtomicU64,
}

#[derive(Debug, Default)]
struct Figures {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS_MS.len()],
}

impl Metrics {
    pub(crate) fn answered(&self, line: &Line, time: Duration) {
        let mut all = self.requests.lock();
        let figures = all.entry((line.route.clone(), line.service.clone(), line.status / 100)).or_default();
        figures.count += 1;
        figures.seconds += time.as_secs_f64();
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        for (bucket, end) in figures.buckets.iter_mut().zip(BUCKETS_MS) {
            *bucket += u64::from(ms <= end);
        }
        self.retries.fetch_add(u64::from(line.retries), Ordering::Relaxed);
    }

    pub(crate) fn handshake(&self) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// The figures in the text form of Prometheus.
    pub(crate) fn text(&self, shared: &Shared) -> String {
        let mut text = String::new();
        let all = self.requests.lock();
        let _ = writeln!(text, "# TYPE herder_ingress_requests_total counter");
        for ((route, service, class), it) in &*all {
            let labels = format!("route={route:?},service={service:?},code_class=\"{class}xx\"");
            let _ = writeln!(text, "herder_ingress_requests_total{{{labels}}} {}", it.count);
        }
        let _ = writeln!(text, "# TYPE herder_ingress_request_seconds histogram");
        for ((route, service, class), it) in &*all {
            let labels = format!("route={route:?},service={service:?},code_class=\"{class}xx\"");
            for (count, end) in it.buckets.iter().zip(BUCKETS_MS) {
                let end = Duration::from_millis(end).as_secs_f64();
                let _ = writeln!(text, "herder_ingress_request_seconds_bucket{{{labels},le=\"{end}\"}} {count}");
            }
            let _ = writeln!(text, "herder_ingress_request_seconds_bucket{{{labels},le=\"+Inf\"}} {}", it.count);
            let _ = writeln!(text, "herder_ingress_request_seconds_sum{{{labels}}} {}", it.seconds);
            let _ = writeln!(text, "herder_ingress_request_seconds_count{{{labels}}} {}", it.count);
        }
        for (name, value) in [("tls_handshakes_total", &self.handshakes), ("retries_total", &self.retries)] {
            let _ = writeln!(text, "# TYPE herder_ingress_{name} counter");
            let _ = writeln!(text, "herder_ingress_{name} {}", value.load(Ordering::Relaxed));
        }
        let _ = writeln!(text, "# TYPE herder_ingress_inflight gauge");
        for service in shared.services.all() {
            let count: usize = service.tasks().iter().map(|it| it.in_flight.load(Ordering::Relaxed)).sum();
            let _ = writeln!(text, "herder_ingress_inflight{{service={:?}}} {count}", service.name);
        }
        let _ = writeln!(text, "# TYPE herder_ingress_cert_expiry_seconds gauge");
        for (name, end) in shared.table.load().certificates.ends() {
            let _ = writeln!(text, "herder_ingress_cert_expiry_seconds{{name={name:?}}} {end}");
        }
        let _ = writeln!(text, "# TYPE herder_ingress_table_version gauge");
        let _ = writeln!(text, "herder_ingress_table_version {}", shared.applied.borrow().version);
        text
    }
}
