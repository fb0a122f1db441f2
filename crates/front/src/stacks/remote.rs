//! A remote target: the Docker API of an engine of a swarm, by TCP with or without TLS.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use herder_deploy::{Answer, Api, Fault, Pieces};
use herder_docker::{EngineLink, LinkError, Way, empty, full, gather, spoken_version};
use herder_stacks::engine::Raw;
use http::{Method, Request, header};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout};

use super::inside::pieces;
use crate::Front;

/// The time for one answer of a remote engine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// The time for the first answer, connection included.
const FIRST_TIME_MAX: Duration = Duration::from_secs(15);
/// Bytes of one answer at most.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Faults in a row after which an address is not tried for a while.
const FAULTS_MAX: u32 = 5;
/// The time for which an address is not tried then.
const OPEN_TIME: Duration = Duration::from_secs(10);
/// Addresses whose faults are remembered.
const ADDRESSES_MAX: usize = 1024;
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

/// The addresses that failed of late: those that failed often are left alone for a moment.
#[derive(Debug, Default)]
pub(crate) struct Breakers(Mutex<BTreeMap<String, Breaker>>);

#[derive(Clone, Copy, Debug)]
struct Breaker {
    faults: u32,
    last: Instant,
}

impl Breakers {
    /// Refuses an address that failed often, until its time is over.
    fn check(&self, addr: &str, now: Instant) -> Result<(), Fault> {
        let breakers = self.0.lock();
        let Some(breaker) = breakers.get(addr) else { return Ok(()) };
        let since = now.saturating_duration_since(breaker.last);
        if breaker.faults < FAULTS_MAX || since >= OPEN_TIME {
            return Ok(());
        }
        Err(Fault::Unreachable(format!(
            "{addr} did not answer {} times, the last {} s ago; it is asked again {} s after that",
            breaker.faults,
            since.as_secs(),
            OPEN_TIME.as_secs()
        )))
    }

    fn heard(&self, addr: &str, is_fault: bool, now: Instant) {
        let mut breakers = self.0.lock();
        if !is_fault {
            breakers.remove(addr);
        } else if breakers.len() < ADDRESSES_MAX || breakers.contains_key(addr) {
            let breaker = breakers.entry(addr.to_owned()).or_insert(Breaker { faults: 0, last: now });
            *breaker = Breaker { faults: breaker.faults + 1, last: now };
        }
    }
}

/// The Docker API of a remote engine.
pub(crate) struct Remote {
    addr: String,
    link: EngineLink,
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
            Way::Tls(Arc::new(config.map_err(|error| Fault::Unreachable(format!("{addr}: {error}")))?))
        };
        let (link, front) = (EngineLink::new(addr, way), front.clone());
        let mut remote = Remote { addr: addr.to_owned(), link, prefix: String::new(), version: API_VERSION_MIN, front };
        let version = timeout(FIRST_TIME_MAX, remote.call(Method::GET, "/version", None)).await;
        let late = |_| Fault::Unreachable(format!("{addr} does not answer within {} s", FIRST_TIME_MAX.as_secs()));
        let version = version.map_err(late)??;
        let Some(spoken) = version.body["ApiVersion"].as_str() else {
            return Err(Fault::Unreachable(format!("{addr} is no Docker engine: its answer names no ApiVersion")));
        };
        let number = |text: &str| -> Option<(u32, u32)> {
            let (major, minor) = text.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        if number(spoken).is_none_or(|it| it < API_VERSION_MIN) {
            let (major, minor) = API_VERSION_MIN;
            return Err(Fault::Unreachable(format!("{addr} speaks API {spoken}; {major}.{minor} or later is needed")));
        }
        let spoken = spoken_version(spoken);
        remote.prefix = format!("/v{spoken}");
        remote.version = number(&spoken).unwrap_or(API_VERSION_MIN);
        Ok(remote)
    }

    pub(crate) fn version(&self) -> (u32, u32) {
        self.version
    }
}

impl Raw for Remote {
    async fn raw(&self, method: Method, path: &str, media_type: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), Fault> {
        self.front.breakers.check(&self.addr, Instant::now())?;
        let unreachable = |reason: String| Fault::Unreachable(format!("{}: {reason}", self.addr));
        let request = Request::builder().method(method).uri(format!("{}{path}", self.prefix));
        let request = request.header(header::CONTENT_TYPE, media_type).body(full(body));
        let request = request.map_err(|error| unreachable(error.to_string()))?;
        let late = |_| unreachable(format!("no answer within {} s", RAW_TIME_MAX.as_secs()));
        let answer = timeout(RAW_TIME_MAX, async {
            let response = self.link.send(request).await.map_err(|error| unreachable(reason(&error)))?;
            let status = response.status().as_u16();
            let bytes = gather(response.into_body(), ANSWER_BYTES_MAX).await;
            Ok((status, bytes.map_err(|error| unreachable(error.to_string()))?.to_vec()))
        });
        answer.await.map_err(late)?
    }
}

/// The time for a pull of an image, or for files that are copied into a container.
const RAW_TIME_MAX: Duration = Duration::from_secs(600);

impl Api for Remote {
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Fault> {
        let breakers = &self.front.breakers;
        breakers.check(&self.addr, Instant::now())?;
        let unreachable = |reason: String| Fault::Unreachable(format!("{}: {reason}", self.addr));
        let request = Request::builder().method(method).uri(format!("{}{path}", self.prefix));
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(full(body.to_string())),
            None => request.body(empty()),
        };
        let request = request.map_err(|error| unreachable(error.to_string()))?;
        let outcome = timeout(ANSWER_TIME_MAX, async {
            let response = self.link.send(request).await.map_err(|error| unreachable(reason(&error)))?;
            let status = response.status().as_u16();
            let bytes = gather(response.into_body(), ANSWER_BYTES_MAX).await;
            Ok((status, bytes.map_err(|error| unreachable(error.to_string()))?))
        });
        let outcome = outcome
            .await
            .unwrap_or_else(|_| Err(unreachable(format!("no answer within {} s", ANSWER_TIME_MAX.as_secs()))));
        breakers.heard(&self.addr, outcome.is_err(), Instant::now());
        let (status, bytes) = outcome?;
        if bytes.is_empty() {
            return Ok(Answer { status, body: Value::Null });
        }
        match serde_json::from_slice(&bytes) {
            Ok(body) => Ok(Answer { status, body }),
            Err(_) if bytes.starts_with(b"Client sent an HTTP request to an HTTPS server") => {
                Err(unreachable("it wants TLS; send ca-cert, cert and cert-key".into()))
            }
            Err(error) => Err(unreachable(format!("its answer is no JSON: {error}"))),
        }
    }

    async fn pieces(&self, path: &str) -> Result<Pieces, Fault> {
        self.front.breakers.check(&self.addr, Instant::now())?;
        let unreachable = |reason: String| Fault::Unreachable(format!("{}: {reason}", self.addr));
        let request = Request::builder().uri(format!("{}{path}", self.prefix)).body(empty());
        let request = request.map_err(|error| unreachable(error.to_string()))?;
        let late = |_| unreachable(format!("no answer within {} s", ANSWER_TIME_MAX.as_secs()));
        let response = timeout(ANSWER_TIME_MAX, self.link.send(request)).await.map_err(late)?;
        pieces(response.map_err(|error| unreachable(reason(&error)))?, path).await
    }
}

/// The reason of a failed connection, and the way out where there is one.
fn reason(error: &LinkError) -> String {
    match error {
        LinkError::Tls { reason, .. } => {
            let has = |part: &str| reason.contains(part);
            let advice = match () {
                () if has("InvalidContentType") => {
                    "; it answers without TLS: send no certificates, or use its TLS port"
                }
                () if has("UnknownIssuer") || has("BadSignature") => "; its certificate is not of the CA in ca-cert",
                () if has("Expired") => "; a certificate is too old",
                () if has("not valid for name") || has("NotValidForName") => "; its certificate is for other names",
                () if has("CertificateRequired") || has("UnknownCA") || has("BadCertificate") => {
                    "; it does not take the certificate in cert"
                }
                () => "",
            };
            format!("no TLS: {reason}{advice}")
        }
        LinkError::Connect { source, .. } => {
            let mut cause: &(dyn std::error::Error + 'static) = &**source;
            while let Some(next) = cause.source() {
                cause = next;
            }
            format!("no connection: {cause}")
        }
        other => other.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_refused() {
        for (ip, expected) in [
            ("169.254.169.254", true),
            ("::ffff:169.254.0.1", true),
            ("fe80::1", true),
            ("10.0.0.1", false),
            ("127.0.0.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(is_link_local(ip.parse().expect("an address")), expected, "{ip}");
        }
    }

    #[test]
    fn an_address_that_failed_five_times_is_left_alone_for_ten_seconds() {
        let breakers = Breakers::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for fault in 0..5 {
            assert!(breakers.check("a:1", at(fault)).is_ok(), "{fault}");
            breakers.heard("a:1", true, at(fault));
        }
        assert_eq!(
            breakers.check("a:1", at(6)).expect_err("it is open").to_string(),
            "a:1 did not answer 5 times, the last 2 s ago; it is asked again 10 s after that"
        );
        assert!(breakers.check("b:1", at(6)).is_ok());
        assert!(breakers.check("a:1", at(14)).is_ok());
        breakers.heard("a:1", false, at(14));
        breakers.heard("a:1", true, at(15));
        assert!(breakers.check("a:1", at(15)).is_ok());
    }

    #[test]
    fn certificates_come_all_or_none() {
        let pem = |ca: &str, cert: &str, key: &str| Pem { ca: ca.into(), cert: cert.into(), key: key.into() };
        assert!(pem("", "", "").missing().is_empty());
        assert!(pem("a", "b", "c").missing().is_empty());
        assert_eq!(pem("a", "", "").missing(), ["cert", "cert-key"]);
    }
}
