//! A remote target: the Docker API of an engine of a swarm, by TCP with or without TLS.

pub(crate) mod faults;
mod limits;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use herder_deploy::{Answer, Api, Cause, Fault, Pieces};
use herder_docker::{Body, EngineLink, LinkError, Way, empty, full, gather, spoken_version};
use herder_stacks::engine::Raw;
use http::{Method, Request, StatusCode, header};
use serde_json::Value;
use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use faults::unusable;
pub(crate) use limits::Limits;

use super::inside::pieces;
use crate::Front;

/// The time for one answer of a remote engine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// The time for the first answer, connection included.
const FIRST_TIME_MAX: Duration = Duration::from_secs(15);
/// Bytes of one answer at most.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// The pause before the second and last attempt to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(250);
/// The oldest API that herder's requests fit.
const API_VERSION_MIN: (u32, u32) = (1, 24);

/// Certificates of a client, as PEM.
#[derive(Clone, Default)]
pub(crate) struct Pem {
    pub(crate) ca: String,
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Pem {
    /// The parts that are missing, where some are given and some are not.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let parts = [("ca-cert", &self.ca), ("cert", &self.cert), ("cert-key", &self.key)];
        let missing: Vec<&str> =
            parts.iter().filter(|(_, text)| text.trim().is_empty()).map(|(name, _)| *name).collect();
        if missing.len() == parts.len() { Vec::new() } else { missing }
    }

    fn is_empty(&self) -> bool {
        self.ca.trim().is_empty()
    }
}

/// The Docker API of a remote engine.
pub(crate) struct Remote {
    addr: String,
    link: EngineLink,
    turns: Arc<Semaphore>,
    /// The version in paths: `/v1.41`.
    prefix: String,
    /// The newest version that the engine and herder both speak.
    version: (u32, u32),
    front: Arc<Front>,
}

impl Remote {
    /// Connects, and agrees on a version. `addr` is `host:port`.
    pub(crate) async fn connect(front: &Arc<Front>, addr: &str, pem: &Pem) -> Result<Remote, Fault> {
        allowed(addr).await?;
        let way = if pem.is_empty() {
            Way::Plain
        } else {
            let config = herder_tls::client_of_pem(&pem.ca, &pem.cert, &pem.key);
            Way::Tls(Arc::new(config.map_err(|error| faults::of_pem(&error))?))
        };
        let mut remote = Remote {
            addr: addr.to_owned(),
            link: EngineLink::new(addr, way),
            turns: front.limits.turns(addr),
            prefix: String::new(),
            version: API_VERSION_MIN,
            front: front.clone(),
        };
        let version = remote.ask(Method::GET, "/version", None, FIRST_TIME_MAX).await?;
        let Some(spoken) = version.body["ApiVersion"].as_str() else {
            let reason = format!("{addr} is no Docker engine: its answer names no ApiVersion");
            return Err(unusable(Cause::BadAnswer, reason));
        };
        let number = |text: &str| -> Option<(u32, u32)> {
            let (major, minor) = text.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        if number(spoken).is_none_or(|it| it < API_VERSION_MIN) {
            let (major, minor) = API_VERSION_MIN;
            let reason = format!("{addr} speaks API {spoken}; {major}.{minor} or later is needed");
            return Err(unusable(Cause::EngineVersion, reason));
        }
        let spoken = spoken_version(spoken);
        remote.prefix = format!("/v{spoken}");
        remote.version = number(&spoken).unwrap_or(API_VERSION_MIN);
        Ok(remote)
    }

    pub(crate) fn version(&self) -> (u32, u32) {
        self.version
    }

    fn unreachable(&self, reason: impl std::fmt::Display) -> Fault {
        Fault::Unreachable(format!("{}: {reason}", self.addr))
    }

    fn late(&self, limit: Duration) -> Fault {
        unusable(Cause::Timeout, format!("{}: no answer within {} s", self.addr, limit.as_secs()))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: Option<Bytes>,
    ) -> Result<Request<Body>, Fault> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.prefix));
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, media_type).body(full(body)),
            None => request.body(empty()),
        };
        request.map_err(|error| self.unreachable(error))
    }

    /// One call, with its turn and a second attempt to connect, all within `limit`.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>, limit: Duration) -> Result<Answer, Fault> {
        let limits = &self.front.limits;
        limits.check(&self.addr, Instant::now())?;
        let body = body.map(|it| Bytes::from(it.to_string()));
        let answer = timeout(limit, async {
            let _turn = self.turns.acquire().await.map_err(|error| self.unreachable(error))?;
            let request = || self.request(method.clone(), path, JSON, body.clone());
            let sent = match self.link.send(request()?).await {
                // Nothing was sent yet.
                Err(LinkError::Connect { .. }) => {
                    sleep(CONNECT_PAUSE).await;
                    self.link.send(request()?).await
                }
                sent => sent,
            };
            let response = sent.map_err(|error| faults::of_link(&self.addr, &error))?;
            let status = response.status().as_u16();
            let bytes = gather(response.into_body(), ANSWER_BYTES_MAX).await;
            Ok((status, bytes.map_err(|error| faults::of_body(&self.addr, &error))?))
        });
        let start = Instant::now();
        let outcome = answer.await.unwrap_or_else(|_| Err(self.late(limit)));
        self.front.metrics.called(&self.addr, outcome.is_ok(), start.elapsed());
        limits.heard(&self.addr, outcome.is_err(), Instant::now());
        let (status, bytes) = outcome?;
        if bytes.is_empty() {
            return Ok(Answer { status, body: Value::Null });
        }
        let body = serde_json::from_slice(&bytes).map_err(|error| faults::of_text(&self.addr, &bytes, &error))?;
        Ok(Answer { status, body })
    }
}

const JSON: &str = "application/json";

/// Resources that only managers of a swarm have.
const OF_SWARM: [&str; 6] = ["services", "tasks", "nodes", "secrets", "configs", "networks"];

impl Raw for Remote {
    async fn raw(&self, method: Method, path: &str, media_type: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), Fault> {
        self.front.limits.check(&self.addr, Instant::now())?;
        let request = self.request(method, path, media_type, Some(body.into()))?;
        let answer = timeout(RAW_TIME_MAX, async {
            let response = self.link.send(request).await.map_err(|error| faults::of_link(&self.addr, &error))?;
            let status = response.status().as_u16();
            let bytes = gather(response.into_body(), ANSWER_BYTES_MAX).await;
            Ok((status, bytes.map_err(|error| faults::of_body(&self.addr, &error))?.to_vec()))
        });
        answer.await.unwrap_or_else(|_| Err(self.late(RAW_TIME_MAX)))
    }
}

/// The time for a pull of an image, or for files that are copied into a container.
const RAW_TIME_MAX: Duration = Duration::from_secs(600);

impl Api for Remote {
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Fault> {
        let answer = self.ask(method, path, body, ANSWER_TIME_MAX).await?;
        let is_of_swarm = OF_SWARM.contains(&path.split(['/', '?']).nth(1).unwrap_or_default());
        // Engines that manage no swarm say in general words only what can be done.
        if is_of_swarm && answer.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
            let info = self.ask(Method::GET, "/info", None, ANSWER_TIME_MAX).await?;
            if let Some(fault) = faults::of_info(&self.addr, &info.body) {
                return Err(fault);
            }
        }
        Ok(answer)
    }

    async fn pieces(&self, path: &str) -> Result<Pieces, Fault> {
        self.front.limits.check(&self.addr, Instant::now())?;
        let request = self.request(Method::GET, path, JSON, None)?;
        let response = timeout(ANSWER_TIME_MAX, self.link.send(request)).await;
        let response = response.map_err(|_| self.late(ANSWER_TIME_MAX))?;
        pieces(response.map_err(|error| faults::of_link(&self.addr, &error))?, path).await
    }
}

/// Refuses addresses that callers have no business with: link-local ones, where clouds keep credentials.
async fn allowed(addr: &str) -> Result<(), Fault> {
    let found = lookup_host(addr).await.map_err(|error| Fault::Unreachable(format!("{addr}: {error}")))?;
    for found in found {
        if is_link_local(found.ip()) {
            return Err(Fault::Unreachable(format!("{addr} is a link-local address; such targets are refused")));
        }
    }
    Ok(())
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => is_link_local_v6(ip),
    }
}

fn is_link_local_v6(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}
