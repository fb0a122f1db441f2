//! Certificates of an external CA (cfssl's protocol, as in swarm mode): managers ask it to sign the requests of nodes.
//!
//! A CA that is declared signs a trial request first, so that one that is away or has another root is refused at once.

use std::time::Duration;

use bytes::Bytes;
use herder_model::swarm::ExternalCa;
use herder_tls::certs;
use herder_tls::check_issued;
use herder_wire::Subject;
use herder_wire::identity::Identity;
use herder_wire::link::Wish;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Maximum time of one CA. A node waits for its certificate for four times as long.
const CALL_TIME_MAX: Duration = Duration::from_secs(5);
/// Maximum bytes of an answer: a certificate takes some kilobytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;
const HTTPS_PORT: u16 = 443;
const OTHER_SERVER: &str = "its server certificate comes neither from the root of the swarm nor from that of the CA: \
                            give the CA's root with `cacert=FILE` in --external-ca";

/// Answer of cfssl.
#[derive(Deserialize)]
struct Answer {
    success: bool,
    #[serde(default)]
    result: Option<Certificate>,
    #[serde(default)]
    errors: Vec<Fault>,
}

#[derive(Deserialize)]
struct Certificate {
    certificate: String,
}

#[derive(Deserialize)]
struct Fault {
    message: String,
}

/// Has the first CA that answers with a certificate of this root sign the request. A certificate that was issued until
/// `after` (milliseconds since 1970) would not count, and is refused.
pub(super) async fn sign(
    cas: &[ExternalCa],
    wish: &Wish,
    identity: &Identity,
    root: &str,
    after: Option<u64>,
) -> Result<String, String> {
    let mut failures = Vec::new();
    for ca in cas {
        let asked = timeout(CALL_TIME_MAX, ask(ca, &question(ca, wish), identity)).await;
        let signed = asked.unwrap_or_else(|_| Err(late()));
        match signed.and_then(|cert| check(&cert, wish, root, after).map(|()| cert)) {
            Ok(cert) => return Ok(cert),
            Err(reason) => failures.push(format!("external CA {}: {reason}", ca.url)),
        }
    }
    Err(failures.join("; "))
}

/// Has a CA sign a trial request, whose key is thrown away, for the root that it is declared for.
pub(super) async fn try_out(ca: &ExternalCa, identity: &Identity) -> Result<(), String> {
    let unit = "swarm-worker".to_owned();
    let organization = identity.subject().map(|it| it.cluster).filter(|it| !it.is_empty());
    let organization = organization.unwrap_or_else(|| "trial".to_owned());
    let subject = certs::Subject { common_name: identity.id.clone(), organization, unit };
    let names = identity.names();
    let request = certs::request(&subject, &names).map_err(|error| error.to_string())?.request;
    let wish = Wish { request, subject, names, lifetime: identity.lifetime() };
    let asked = timeout(CALL_TIME_MAX, ask(ca, &question(ca, &wish), identity)).await;
    let root = Some(ca.ca_cert.as_str()).filter(|it| !it.trim().is_empty()).unwrap_or(identity.trust_root());
    check(&asked.unwrap_or_else(|_| Err(late()))?, &wish, root, None)
}

fn late() -> String {
    format!("it did not answer within {} s", CALL_TIME_MAX.as_secs())
}

fn question(ca: &ExternalCa, wish: &Wish) -> Value {
    let names = json!([{ "O": wish.subject.organization, "OU": wish.subject.unit }]);
    json!({
        "certificate_request": wish.request,
        "hosts": wish.names,
        "subject": { "CN": wish.subject.common_name, "names": names },
        "profile": ca.options.get("profile").map_or("", String::as_str),
    })
}

/// Checks that a certificate comes from this root and says what was asked for. A CA may leave parts of the subject
/// out.
fn check(cert: &str, wish: &Wish, root: &str, after: Option<u64>) -> Result<(), String> {
    let subject = Subject::of_pem(cert).ok_or("it answered with no certificate of a node")?;
    let role = wish.role().ok_or("the request names no role")?;
    let is_right = subject.node == wish.subject.common_name
        && subject.cluster == wish.subject.organization
        && subject.role == Some(role);
    if !is_right {
        return Err("it changed the subject of the certificate; its profile must take CN, O and OU".into());
    }
    let name = wish.names.first().ok_or("the request names no node")?;
    check_issued(cert, root, name).map_err(|error| error.to_string())?;
    match after.filter(|it| subject.issued_ms <= *it) {
        Some(demoted) => {
            let minutes = (demoted - subject.issued_ms).div_ceil(60_000) + 1;
            Err(format!(
                "it dates certificates back, and this node was demoted after that; it gets one in {minutes} min"
            ))
        }
        None => Ok(()),
    }
}

async fn ask(ca: &ExternalCa, question: &Value, identity: &Identity) -> Result<String, String> {
    let (host, port, path) = target(&ca.url)?;
    let stream = connect(ca, &host, port, identity).await?;
    let broken = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let body = Full::new(Bytes::from(question.to_string()));
    let request = Request::post(path)
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok::<_, String>((status, body.map_err(|error| error.to_string())?.to_bytes()))
    };
    let (status, bytes) = tokio::select! {
        answer = answer => answer?,
        ended = connection => return Err(ended.map_or_else(|error| error.to_string(), |()| "it closed the connection".into())),
    };
    let Ok(answer) = serde_json::from_slice::<Answer>(&bytes) else {
        return Err(format!("it answered {status} with something else than cfssl does"));
    };
    let faults = || answer.errors.iter().map(|it| it.message.clone()).collect::<Vec<_>>().join(", ");
    match answer.result.as_ref().filter(|_| answer.success) {
        Some(result) => Ok(result.certificate.clone()),
        None => Err(format!("it answered {status}: {}", faults())),
    }
}

async fn connect(ca: &ExternalCa, host: &str, port: u16, identity: &Identity) -> Result<TlsStream<TcpStream>, String> {
    let plain = host.trim_matches(['[', ']']);
    let config = identity.for_external_ca(&[&ca.ca_cert]).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(plain.to_owned()).map_err(|error| error.to_string())?;
    let stream = TcpStream::connect((plain, port)).await.map_err(|error| format!("cannot connect: {error}"))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        match error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>()) {
            Some(inner) if *inner == unknown => OTHER_SERVER.to_owned(),
            _ => format!("TLS with it fails: {error}"),
        }
    })
}

/// Splits a URL into host, port and path.
fn target(url: &str) -> Result<(String, u16, String), String> {
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let host = uri.host().ok_or("the URL has no host")?.to_owned();
    let path = uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
    Ok((host, uri.port_u16().unwrap_or(HTTPS_PORT), path))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use herder_tls::certs::{self, Authority};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn subject(node: &str, unit: &str) -> certs::Subject {
        certs::Subject { common_name: node.into(), organization: "c1".into(), unit: unit.into() }
    }

    #[test]
    fn certificates_that_would_not_count_are_refused() {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let root = Authority::new("elsewhere", begin, DAY).expect("a root");
        let names = vec!["n1.node.herder".to_owned()];
        let wanted = subject("n1", "swarm-manager");
        let request = certs::request(&wanted, &[]).expect("a request").request;
        let wish = Wish { request, subject: wanted, names, lifetime: DAY };
        let made = |subject: &certs::Subject| {
            root.certify(&wish.request, subject, &wish.names, &[7; 20], begin, DAY / 2).expect("a certificate")
        };
        let check = |cert: &str, wish: &Wish, after| check(cert, wish, &root.pair.cert, after);
        let good = made(&wish.subject);
        let begins = Subject::of_pem(&good).expect("a subject").issued_ms;
        assert_eq!(check(&good, &wish, None), Ok(()));
        assert_eq!(check(&good, &wish, Some(begins - 1)), Ok(()));
        let late = check(&good, &wish, Some(begins + 90_000)).expect_err("demoted since");
        assert!(late.ends_with("it gets one in 3 min"), "{late}");
        for other in [subject("n1", "swarm-worker"), subject("n1", ""), certs::Subject::default()] {
            assert!(check(&made(&other), &wish, None).is_err(), "{other:?}");
        }
        assert!(check("none", &wish, None).is_err());
    }

    #[test]
    fn a_url_names_host_port_and_path() {
        let said = |url: &str| {
            target(url).map_or_else(|_| "none".to_owned(), |(host, port, path)| format!("{host} {port} {path}"))
        };
        assert_eq!(said("https://ca.example:8888/api/v1/cfssl/sign"), "ca.example 8888 /api/v1/cfssl/sign");
        assert_eq!(said("https://[::1]/sign?a=b"), "[::1] 443 /sign?a=b");
        assert_eq!(said("/sign"), "none");
    }
}
