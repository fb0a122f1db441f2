//! Each fault of a remote engine with a real cause, over real sockets. Each row has the code and the words of `/v2`,
//! the status and the text of `/v1`.

use std::net::SocketAddr;
use std::time::SystemTime;

use herder_decide::schedule::Scheduler;
use herder_pool::{Pool, Settings};
use herder_tls::certs::{Authority, Pair, Usage};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, rustls};

use super::*;
use crate::FrontSettings;
use crate::stacks::problem::Problem;
use crate::stacks::v1;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn front() -> Arc<Front> {
    Front::new(Pool::new(Settings::default()), Scheduler::default(), FrontSettings::default())
}

/// The body of the answer to a path.
type Answers = fn(&str) -> (u16, String);

fn good(path: &str) -> (u16, String) {
    match path {
        "/version" => (200, r#"{"ApiVersion":"1.41"}"#.into()),
        _ => (200, "[]".into()),
    }
}

/// An engine that is in a state with its swarm.
fn unfit(path: &str, swarm: &str) -> (u16, String) {
    match path {
        "/version" => good(path),
        "/v1.41/info" => (200, format!(r#"{{"Swarm":{swarm}}}"#)),
        _ => (503, r#"{"message":"This node is not a swarm manager."}"#.into()),
    }
}

/// Answers every request of a connection.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: Answers) {
    let mut head = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
        // The beginning of TLS is no HTTP.
        if head.starts_with(&[0x16]) {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.ok();
            return;
        }
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let path = text.split(' ').nth(1).unwrap_or_default();
        let (status, body) = answers(path.split('?').next().unwrap_or_default());
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        head.clear();
    }
}

/// An engine on a free port, with TLS if there is a configuration.
async fn engine(tls: Option<ServerConfig>, answers: Answers) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                match acceptor {
                    None => answer(stream, answers).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            answer(stream, answers).await;
                        }
                    }
                }
            });
        }
    });
    addr
}

/// TLS of a server. `clients` is the CA whose certificates clients must show.
fn server(pair: &Pair, clients: &Authority) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.pair.cert.as_bytes()).expect("a CA")).expect("it is taken");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(chain, key)
        .expect("a pair")
}

fn ca(name: &str) -> Authority {
    Authority::new(name, SystemTime::now(), 9 * DAY).expect("a CA")
}

fn signed(ca: &Authority, name: &str, usage: Usage, now: SystemTime) -> Pair {
    ca.sign(name, &[name.to_owned()], usage, now, DAY).expect("a pair")
}

fn pem(ca: &Authority, client: &Pair) -> Pem {
    Pem { ca: ca.pair.cert.clone(), cert: client.cert.clone(), key: client.key.clone() }
}

/// Connects and lists services. Returns the fault as `/v2` and as `/v1` tell it, with the address and varying parts
/// left out.
async fn check(front: &Arc<Front>, addr: impl ToString, pem: &Pem, expected: [&str; 2]) {
    let addr = addr.to_string();
    let outcome = async { Remote::connect(front, &addr, pem).await?.call(Method::GET, "/services?x=1", None).await };
    let fault = || async { outcome.await.expect_err("it cannot be used") };
    let fault = fault().await;
    let text = fault.to_string();
    for secret in [&pem.key, &pem.cert].iter().filter_map(|it| it.lines().nth(1)) {
        assert!(!text.contains(secret), "{text}");
    }
    let problem = Problem::from(fault);
    let detail = problem.detail.replace(&addr, "ADDR");
    assert_eq!(format!("{} {} {detail}", problem.status.as_u16(), problem.code), expected[0]);
    assert_eq!(v1::words(problem), expected[1]);
}

const UNREACHABLE: &str = "400 Connection error, please check if the Docker engine is reachable.";
const FAILED: &str = "400 Error Deploying Service";
const UNUSABLE: &str = "500 The answer of the Docker engine cannot be used.";

#[tokio::test]
async fn faults_of_connections_name_their_cause() {
    let (front, none) = (front(), Pem::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let closed = listener.local_addr().expect("an address");
    drop(listener);
    let refused = "502 target_unreachable ADDR: no connection: Connection refused (os error 111)";
    check(&front, closed, &none, [refused, UNREACHABLE]).await;
    let unroutable = "502 target_unreachable ADDR: no connection: Network is unreachable (os error 101)";
    check(&front, "255.255.255.255:2375", &none, [unroutable, UNREACHABLE]).await;
    let name = Remote::connect(&front, "no-such-host.invalid:2375", &none).await.map(drop).expect_err("no name");
    assert!(name.to_string().starts_with("no-such-host.invalid:2375: "), "{name}");
    assert_eq!(Problem::from(name).code, "target_unreachable");
    let own = "502 target_unreachable ADDR is a link-local address; such targets are refused";
    check(&front, "169.254.169.254:80", &none, [own, UNREACHABLE]).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_takes_connections_and_is_silent_is_late() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut kept: Vec<TcpStream> = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    check(&front(), addr, &Pem::default(), ["504 target_timeout ADDR: no answer within 15 s", UNREACHABLE]).await;
}

#[tokio::test]
async fn faults_of_tls_name_their_cause() {
    let (front, now) = (front(), SystemTime::now());
    let (own, other) = (ca("own"), ca("other"));
    let client = signed(&own, "admin", Usage::Client, now);
    let at = |pair: &Pair, clients: &Authority| engine(Some(server(pair, clients)), good);
    let fits = signed(&own, "127.0.0.1", Usage::Engine, now);
    let addr = at(&fits, &own).await;
    let reached = Remote::connect(&front, &addr.to_string(), &pem(&own, &client)).await.map(|it| it.version());
    assert_eq!(reached.expect("it fits"), (1, 41));

    let unknown = "502 tls_unknown_ca ADDR: its certificate is not of the CA that was given (invalid peer certificate: UnknownIssuer)";
    check(&front, addr, &pem(&other, &client), [unknown, UNREACHABLE]).await;
    let addr = at(&signed(&own, "127.0.0.2", Usage::Engine, now), &own).await;
    let name = "502 tls_name ADDR: its certificate is for 127.0.0.2; use such a name, or make one for this address";
    check(&front, addr, &pem(&own, &client), [name, UNREACHABLE]).await;

    // One day after its making a certificate is too old; one of tomorrow's tomorrow is not valid yet.
    for (made, words) in [(now - 3 * DAY, "too old since"), (now + 3 * DAY, "valid only from")] {
        let addr = at(&signed(&own, "127.0.0.1", Usage::Engine, made), &own).await.to_string();
        let fault = Remote::connect(&front, &addr, &pem(&own, &client)).await.map(drop).expect_err("a wrong time");
        assert!(fault.to_string().contains(&format!("{words} 20")), "{fault}");
        assert_eq!(Problem::from(fault).code, "tls_expired");
    }

    let addr = at(&fits, &other).await.to_string();
    let fault = Remote::connect(&front, &addr, &pem(&own, &client)).await.map(drop).expect_err("another CA's client");
    assert!(fault.to_string().contains("it does not take the client's certificate"), "{fault}");
    assert_eq!(Problem::from(fault).code, "tls_client_refused");
}

#[tokio::test]
async fn faults_of_certificates_are_told_before_a_connection() {
    let (front, now) = (front(), SystemTime::now());
    let own = ca("own");
    let (client, other) = (signed(&own, "admin", Usage::Client, now), signed(&own, "other", Usage::Client, now));
    let with_key = |key: &str| Pem { key: key.to_owned(), ..pem(&own, &client) };
    let mismatch = "400 tls_key_mismatch the private key is not that of the client certificate; send the pair that belongs together";
    check(&front, "127.0.0.1:1", &with_key(&other.key), [mismatch, UNREACHABLE]).await;
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHj\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let said = "400 tls_bad_pem the private key cannot be used: it is encrypted; send it without a passphrase (`openssl pkey`)";
    check(&front, "127.0.0.1:1", &with_key(encrypted), [said, UNREACHABLE]).await;
    let wrong = Pem { ca: "x".into(), ..pem(&own, &client) };
    let said = "400 tls_bad_pem the CA cannot be used: there is no certificate in it";
    check(&front, "127.0.0.1:1", &wrong, [said, UNREACHABLE]).await;
}

#[tokio::test]
async fn tls_on_one_side_only_is_told() {
    let (front, now) = (front(), SystemTime::now());
    let own = ca("own");
    let (client, fits) = (signed(&own, "admin", Usage::Client, now), signed(&own, "127.0.0.1", Usage::Engine, now));
    let plain = "502 tls_plain_server ADDR: it answers without TLS; give no certificates and use its port for that (2375), or turn TLS on there";
    check(&front, engine(None, good).await, &pem(&own, &client), [plain, UNREACHABLE]).await;
    // Docker's engine says it in clear words; other servers answer with an alert of TLS.
    let docker = |_: &str| (400, "Client sent an HTTP request to an HTTPS server.\n".into());
    let needs = "502 tls_needed ADDR: it wants TLS; give ca, cert and key";
    check(&front, engine(None, docker).await, &Pem::default(), [needs, UNREACHABLE]).await;
    let addr = engine(Some(server(&fits, &own)), good).await.to_string();
    let fault = Remote::connect(&front, &addr, &Pem::default()).await.map(drop).expect_err("no HTTP");
    assert!(fault.to_string().contains("if it wants TLS, give its certificates"), "{fault}");
    assert_eq!(Problem::from(fault).code, "bad_answer");
}

#[tokio::test]
async fn answers_that_are_of_no_use_are_told() {
    let (front, none) = (front(), Pem::default());
    let large = |path: &str| if path == "/version" { good(path) } else { (200, " ".repeat(17 << 20)) };
    let said = "502 bad_answer ADDR: its answer cannot be used: it is larger than 16777216 bytes";
    check(&front, engine(None, large).await, &none, [said, UNUSABLE]).await;
    let text = |_: &str| (200, "hello".into());
    let said = "502 bad_answer ADDR: its answer is no JSON: expected value at line 1 column 1";
    check(&front, engine(None, text).await, &none, [said, UNUSABLE]).await;
    let other = |_: &str| (200, "{}".into());
    let said = "502 bad_answer ADDR is no Docker engine: its answer names no ApiVersion";
    check(&front, engine(None, other).await, &none, [said, UNUSABLE]).await;
    let old = |_: &str| (200, r#"{"ApiVersion":"1.18"}"#.into());
    let said = "409 engine_version ADDR speaks API 1.18; 1.24 or later is needed";
    check(&front, engine(None, old).await, &none, [said, FAILED]).await;
}

#[tokio::test]
async fn engines_that_manage_no_swarm_are_told() {
    let (front, none) = (front(), Pem::default());
    let inactive = |path: &str| unfit(path, r#"{"LocalNodeState":"inactive"}"#);
    let said =
        "409 swarm_inactive ADDR: it is in no swarm (inactive); use the kind engine, or `docker swarm init` there";
    check(&front, engine(None, inactive).await, &none, [said, FAILED]).await;
    let worker = |path: &str| {
        unfit(
            path,
            r#"{"LocalNodeState":"active","ControlAvailable":false,"RemoteManagers":[{"Addr":"10.0.0.1:2377"}]}"#,
        )
    };
    let said = "409 not_a_manager ADDR: it is a worker; managers are 10.0.0.1:2377";
    check(&front, engine(None, worker).await, &none, [said, FAILED]).await;
    let locked = |path: &str| unfit(path, r#"{"LocalNodeState":"locked"}"#);
    let said = "409 swarm_locked ADDR: its swarm is locked; `docker swarm unlock` opens it";
    check(&front, engine(None, locked).await, &none, [said, FAILED]).await;
}

#[tokio::test]
async fn an_address_that_failed_five_times_is_not_dialled_for_a_while() {
    let (front, none) = (front(), Pem::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address").to_string();
    drop(listener);
    for _ in 0..5 {
        Remote::connect(&front, &addr, &none).await.map(drop).expect_err("nobody listens");
    }
    let listener = TcpListener::bind(&addr).await.expect("the same port");
    let fault = Remote::connect(&front, &addr, &none).await.map(drop).expect_err("it is left alone");
    assert!(fault.to_string().contains("did not answer 5 times"), "{fault}");
    drop(listener);
}

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
fn certificates_come_all_or_none() {
    let pem = |ca: &str, cert: &str, key: &str| Pem { ca: ca.into(), cert: cert.into(), key: key.into() };
    assert!(pem("", "", "").missing().is_empty());
    assert!(pem("a", "b", "c").missing().is_empty());
    assert_eq!(pem("a", "", "").missing(), ["cert", "cert-key"]);
}
