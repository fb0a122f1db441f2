//! The door without any engine behind it: what it says, and what does not bring it down.

use std::sync::Arc;

use herder_decide::schedule::Scheduler;
use herder_front::{Front, FrontSettings, server};
use herder_pool::{Pool, Settings};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls};
use tokio_util::sync::CancellationToken;

/// A door on a free port of this machine, closed when dropped.
struct Door {
    addr: std::net::SocketAddr,
    _stop: tokio_util::sync::DropGuard,
}

async fn open(tls: Option<Arc<rustls::ServerConfig>>, cors: bool) -> Door {
    let settings = FrontSettings { cors, allowed_hosts: vec!["door".to_owned()], ..FrontSettings::default() };
    let front = Front::new(Pool::new(Settings::default()), Scheduler::default(), settings);
    let listener = server::bind("tcp://127.0.0.1:0", tls).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(front, vec![listener], stop.clone()));
    Door { addr, _stop: stop.drop_guard() }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    let request = format!("{request}\r\nHost: door\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// Status and body of the answer to a request line.
async fn check(door: &Door, line: &str, expected: &str) {
    let stream = TcpStream::connect(door.addr).await.expect("a connection");
    let answer = ask(stream, &format!("{line} HTTP/1.1")).await;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    assert_eq!(format!("{status} {body}").trim(), expected, "{line}");
}

#[tokio::test]
async fn answers_without_engines_are_dockers_own() {
    let door = open(None, false).await;
    let no_swarm = r#"503 {"message":"This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."}"#;
    check(&door, "GET /v1.41/containers/json", "200 []").await;
    check(&door, "GET /containers/json?all=1", "200 []").await;
    check(&door, "HEAD /containers/json", "200").await;
    check(&door, "GET /containers/web/json", r#"404 {"message":"No such container web"}"#).await;
    check(&door, "GET /containers/web/logs", r#"404 {"message":"No such container: web"}"#).await;
    check(&door, "GET /containers/n1%2Fweb/something/new", r#"404 {"message":"No such container: n1/web/something"}"#)
        .await;
    check(&door, "DELETE /containers/web", r#"404 {"message":"Container web not found"}"#).await;
    check(&door, "GET /exec/0123/json", r#"404 {"message":"Exec 0123 not found"}"#).await;
    check(&door, "GET /exec/..%2f../json", r#"404 {"message":"page not found"}"#).await;
    check(&door, "GET /nonsense", r#"404 {"message":"page not found"}"#).await;
    check(&door, "GET /v1.41/services", no_swarm).await;
    check(&door, "POST /swarm/init", no_swarm).await;
    check(&door, "OPTIONS /nonsense", r#"404 {"message":"page not found"}"#).await;
    check(
        &door,
        "POST /containers/create",
        r#"400 {"message":"the request body is empty: expected a JSON object with at least `Image`"}"#,
    )
    .await;
    check(
        &door,
        "GET /v1.12/containers/json",
        r#"400 {"message":"client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"}"#,
    )
    .await;
    check(
        &door,
        "GET /containers/json?filters=x",
        r#"400 {"message":"invalid filters `x`: expected value at line 1 column 1"}"#,
    )
    .await;
}

#[tokio::test]
async fn every_answer_carries_dockers_headers() {
    let door = open(None, true).await;
    let stream = TcpStream::connect(door.addr).await.expect("a connection");
    let answer = ask(stream, "OPTIONS /containers/json HTTP/1.1").await;
    let mut headers: Vec<&str> = answer.lines().skip(1).take_while(|line| !line.is_empty()).collect();
    headers.retain(|line| !["date:", "con", "x-request-id:"].iter().any(|it| line.starts_with(it)));
    headers.sort_unstable();
    let expected = [
        "access-control-allow-headers: Origin, X-Requested-With, Content-Type, Accept",
        "access-control-allow-methods: GET, POST, DELETE, PUT, OPTIONS, HEAD",
        "access-control-allow-origin: *",
        "api-version: 1.41",
        "docker-experimental: false",
        "ostype: linux",
        concat!("server: herder/", env!("CARGO_PKG_VERSION")),
    ];
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let door = open(None, false).await;
    let stream = TcpStream::connect(door.addr).await.expect("a connection");
    let head = "POST /containers/create HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 64000000";
    let answer = ask(stream, head).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn tls_is_served_and_plain_text_on_it_harms_nobody() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(["door".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a server");
    let door = open(Some(Arc::new(server)), false).await;

    let mut plain = TcpStream::connect(door.addr).await.expect("a connection");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    // What a Docker engine says, and nothing of what is behind the door.
    let _ = plain.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("Client sent an HTTP request to an HTTPS server."), "{answer}");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(door.addr).await.expect("a connection");
    let name = "door".try_into().expect("a name");
    let mut tls = TlsConnector::from(Arc::new(client)).connect(name, tcp).await.expect("a handshake");
    tls.write_all(b"GET /containers/json HTTP/1.1\r\nHost: door\r\n\r\n").await.expect("written");
    let mut answer = [0; 15];
    tls.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}
