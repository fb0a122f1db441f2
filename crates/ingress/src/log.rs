//! The access log.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use herder_parts::Parts;
use http::Version;
use serde_json::json;
use tokio::sync::mpsc;

/// Lines that wait to be written; more are dropped and counted.
const WAITING_MAX: usize = 4096;

/// Log line of one request.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) client: IpAddr,
    pub(crate) user: String,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
    pub(crate) entrypoint: String,
    pub(crate) route: String,
    pub(crate) service: String,
    pub(crate) task: String,
    pub(crate) retries: u32,
    pub(crate) tls: bool,
    pub(crate) id: String,
    pub(crate) agent: String,
    pub(crate) referer: String,
}

impl Default for Line {
    fn default() -> Line {
        Line {
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            user: String::new(),
            method: String::new(),
            host: String::new(),
            target: String::new(),
            version: Version::HTTP_11,
            status: 0,
            bytes: 0,
            time: Duration::ZERO,
            entrypoint: String::new(),
            route: String::new(),
            service: String::new(),
            task: String::new(),
            retries: 0,
            tls: false,
            id: String::new(),
            agent: String::new(),
            referer: String::new(),
        }
    }
}

/// The access log. Clones share one queue.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    lines: mpsc::Sender<String>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Begins to write to standard output, as long as these parts live.
    pub(crate) fn start(parts: &Parts) -> AccessLog {
        let (lines, waiting) = mpsc::channel::<String>(WAITING_MAX);
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        parts.looping("ingress log", move || {
            let waiting = waiting.clone();
            async move {
                let mut waiting = waiting.lock().await;
                while let Some(line) = waiting.recv().await {
                    let mut out = std::io::stdout().lock();
                    // A log that cannot be written must not stop requests.
                    let _ = writeln!(out, "{line}");
                }
                // The ingress is dropped, and its parts end now.
                std::future::pending::<()>().await;
            }
        });
        AccessLog { lines, dropped: Arc::default() }
    }

    /// Writes one request in this form.
    pub(crate) fn write(&self, form: &str, line: Line) {
        if matches!(form, "" | "off") {
            return;
        }
        let text = text(form, &line, jiff::Zoned::now());
        if self.lines.try_send(text).is_err() && self.dropped.fetch_add(1, Ordering::Relaxed).is_multiple_of(10_000) {
            tracing::warn!("dropping lines of the access log: requests come faster than they are written");
        }
    }
}

fn text(form: &str, line: &Line, now: jiff::Zoned) -> String {
    let path = line.target.split('?').next().unwrap_or_default();
    if form == "json" {
        return json!({
            "time": now.timestamp().to_string(), "client": line.client, "user": line.user, "method": line.method,
            "host": line.host, "path": path, "status": line.status, "bytes": line.bytes,
            "duration_ms": line.time.as_secs_f64() * 1000.0, "entrypoint": line.entrypoint, "route": line.route,
            "service": line.service, "task": line.task, "retries": line.retries, "tls": line.tls, "request_id": line.id,
        })
        .to_string();
    }
    let clean = |text: &str| text.replace(['"', '\\', '\n', '\r'], "_");
    let user = if line.user.is_empty() { "-".to_owned() } else { clean(&line.user) };
    let time = now.strftime("%d/%b/%Y:%H:%M:%S %z");
    let mut text = format!(
        "{} - {user} [{time}] \"{} {} {:?}\" {} {}",
        line.client,
        line.method,
        clean(path),
        line.version,
        line.status,
        line.bytes
    );
    if form == "combined" {
        let _ = write!(text, " \"{}\" \"{}\"", clean(&line.referer), clean(&line.agent));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_in_three_forms() {
        let now = "2026-11-30T10:00:00+00:00[UTC]".parse::<jiff::Zoned>().expect("a time");
        let line = Line {
            client: [1, 2, 3, 4].into(),
            method: "GET".into(),
            host: "a".into(),
            target: "/x\"y?secret=1".into(),
            status: 200,
            bytes: 5,
            agent: "curl".into(),
            ..Line::default()
        };
        let common = "1.2.3.4 - - [30/Nov/2026:10:00:00 +0000] \"GET /x_y HTTP/1.1\" 200 5";
        assert_eq!(text("common", &line, now.clone()), common);
        assert_eq!(text("combined", &line, now.clone()), format!("{common} \"\" \"curl\""));
        let json = text("json", &line, now);
        assert!(json.contains(r#""path":"/x\"y""#) && !json.contains("secret"), "{json}");
    }
}
