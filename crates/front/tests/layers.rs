//! Tests the layers before a handler: the caller, the page and name of the request, and the audit log.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use herder_decide::schedule::Scheduler;
use herder_front::audit::{Audit, Entry, Written};
use herder_front::{Front, FrontSettings, server};
use herder_pool::{Pool, Settings};
use herder_tls as tls;
use herder_tls::certs::{Authority, Pair, Usage};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, rustls};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Keeps entries in memory.
#[derive(Debug, Default)]
struct Entries(Mutex<Vec<Entry>>);

impl Audit for Entries {
    fn write(&self, entry: Entry) -> Written<'_> {
        self.write_now(entry);
        Box::pin(std::future::ready(()))
    }
    fn write_now(&self, entry: Entry) {
        self.0.lock().push(entry);
    }
}

impl Entries {
    /// `container.create by - at tcp: 400 failed` for each; ports and process ids left out.
    fn said(&self) -> String {
        let entries = self.0.lock();
        let lines = entries.iter().map(|it| {
            let from = it.from.split([':', ',']).take(2).collect::<Vec<_>>().join(":");
            let status = it.status.map_or_else(|| "-".to_owned(), |it| it.to_string());
            let who = it.who.as_deref().unwrap_or("-");
            format!("{} {} by {who} at {from}: {status} {:?}", it.method, it.action, it.outcome)
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// A door over no engines, on TCP and on a socket.
struct Door {
    tcp: std::net::SocketAddr,
    folder: tempfile::TempDir,
    entries: Arc<Entries>,
    _stop: DropGuard,
}

async fn open(tls: Option<Arc<rustls::ServerConfig>>, names: &[&str]) -> Door {
    let entries = Arc::new(Entries::default());
    let settings = FrontSettings {
        allowed_hosts: vec!["*.pool.example".to_owned()],
        audit: Some(entries.clone()),
        ..FrontSettings::default()
    };
    let front = Front::new(Pool::new(Settings::default()), Scheduler::default(), settings);
    let folder = tempfile::tempdir().expect("a folder");
    let tcp = server::bind("tcp://127.0.0.1:0", tls).await.expect("a free port");
    let tcp = tcp.named(names.iter().map(|it| (*it).to_owned()));
    let addr = tcp.local_addr().expect("an address");
    let url = format!("unix://{}", folder.path().join("sock").display());
    let unix = server::bind(&url, None).await.expect("a socket");
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(front, vec![tcp, unix], stop.clone()));
    Door { tcp: addr, folder, entries, _stop: stop.drop_guard() }
}

/// Status, and what was said, of the answer to these lines of a head.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str) -> String {
    let head = head.replace('\n', "\r\n");
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    // Over TLS, the door does not say goodbye.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    format!("{status} {body}").trim().to_owned()
}

impl Door {
    async fn over_tcp(&self, head: &str) -> String {
        ask(TcpStream::connect(self.tcp).await.expect("a connection"), head).await
    }

    async fn over_unix(&self, head: &str) -> String {
        ask(UnixStream::connect(self.folder.path().join("sock")).await.expect("a connection"), head).await
    }
}

#[tokio::test]
async fn a_page_of_a_stranger_drives_nothing() {
    let door = open(None, &["door.example"]).await;
    let here = format!("Host: {}", door.tcp);
    let own = format!("Origin: http://{}", door.tcp);
    let json = "Content-Type: application/json";
    let upgrade = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
    let table = [
        (format!("GET /_ping HTTP/1.1\n{here}"), "200"),
        ("GET /_ping HTTP/1.1\nHost: localhost:1".to_owned(), "200"),
        ("GET /_ping HTTP/1.1\nHost: door.example".to_owned(), "200"),
        ("GET /_ping HTTP/1.1\nHost: n1.pool.example:2375".to_owned(), "200"),
        // Two hosts or none.
        ("GET /_ping HTTP/1.1".to_owned(), "400"),
        (format!("GET /_ping HTTP/1.1\n{here}\n{here}"), "400"),
        (format!("POST / HTTP/1.1\nHost: a\n{here}"), "400"),
        // DNS rebinding.
        ("GET /containers/json HTTP/1.1\nHost: evil.example".to_owned(), "403"),
        ("GET /_ping HTTP/1.1\nHost: pool.example.evil.example".to_owned(), "403"),
        ("POST / HTTP/1.1\nHost: evil.example\nOrigin: http://evil.example".to_owned(), "403"),
        ("GET /eventbus/info HTTP/1.1\nHost: evil.example".to_owned(), "403"),
        // Other origins, on every kind of route.
        (format!("GET /containers/json HTTP/1.1\n{here}\n{own}"), "200"),
        (format!("GET /containers/json HTTP/1.1\n{here}\nOrigin: http://evil.example"), "403"),
        (format!("POST /containers/create HTTP/1.1\n{here}\nOrigin: null\n{json}"), "403"),
        (format!("POST /v1.41/containers/prune HTTP/1.1\n{here}\nOrigin: http://evil.example"), "403"),
        (format!("POST /herder/token/rotate HTTP/1.1\n{here}\nOrigin: http://evil.example"), "403"),
        (format!("POST /herder/backup HTTP/1.1\n{here}\nOrigin: http://evil.example"), "403"),
        (format!("POST /swarm/leave HTTP/1.1\n{here}\nOrigin: http://evil.example"), "403"),
        (format!("POST / HTTP/1.1\n{here}\nOrigin: http://evil.example"), "403"),
        (format!("GET /containers/web/attach/ws HTTP/1.1\n{here}\n{upgrade}\nOrigin: http://evil.example"), "403"),
        (format!("GET /containers/web/attach/ws HTTP/1.1\n{here}\n{upgrade}\n{own}"), "404"),
        (format!("GET /events/stream HTTP/1.1\n{here}\nOrigin: http://evil.example"), "404"),
        (format!("OPTIONS /containers/create HTTP/1.1\n{here}\nOrigin: http://evil.example"), "403"),
        (format!("POST /images/prune HTTP/1.1\n{here}\nSec-Fetch-Site: cross-site\nSec-Fetch-Mode: no-cors"), "403"),
        // Types of bodies that a page may send without asking.
        (format!("POST /containers/create HTTP/1.1\n{here}\n{json}\nContent-Length: 0"), "400"),
        (format!("POST / HTTP/1.1\n{here}\nContent-Type: text/plain\nContent-Length: 0"), "415"),
        (format!("POST / HTTP/1.1\n{here}\nContent-Type: multipart/form-data; boundary=x\nContent-Length: 0"), "415"),
    ];
    for (head, expected) in table {
        let said = door.over_tcp(&head).await;
        assert!(said.starts_with(expected), "{head}\n{said}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        for path in ["/containers/create", "/volumes/create", "/networks/create", "/v1.41/networks/x/connect"] {
            let said =
                door.over_tcp(&format!("POST {path} HTTP/1.1\n{here}\nContent-Type: {kind}\nContent-Length: 0")).await;
            let sentence = format!("unsupported Content-Type header ({kind}): must be 'application/json'");
            assert_eq!(said, format!("400 {{\"message\":\"{sentence}\"}}"), "{path}");
        }
    }
    // On the socket are no browsers; a name may be anything, as clients put it there.
    for host in ["docker", "%2Fvar%2Frun%2Fdocker.sock", "localhost", "evil.example"] {
        assert_eq!(door.over_unix(&format!("GET /_ping HTTP/1.1\nHost: {host}")).await, "200 OK", "{host}");
    }
}

#[tokio::test]
async fn the_table_says_what_is_allowed_and_since_when() {
    let door = open(None, &[]).await;
    for (line, expected) in [
        ("PUT /info", r#"405 {"message":"the method is not allowed here; allowed: GET, HEAD"}"#),
        ("POST /v1.30/networks/a/b", r#"405 {"message":"the method is not allowed here; allowed: DELETE, GET, HEAD"}"#),
        ("GET /nothing", r#"404 {"message":"page not found"}"#),
        ("HEAD /info", "200"),
        ("GET /v1.29/configs", r#"400 {"message":"GET /configs requires minimum API version 1.30"}"#),
        ("POST /v1.24/volumes/prune", r#"400 {"message":"POST /volumes/prune requires minimum API version 1.25"}"#),
    ] {
        assert_eq!(door.over_unix(&format!("{line} HTTP/1.1\nHost: x")).await, expected, "{line}");
    }
    let mut stream = UnixStream::connect(door.folder.path().join("sock")).await.expect("a connection");
    let request = b"PUT /info HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine-1\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-request-id: mine-1\r\n"), "{answer}");
}

#[tokio::test]
async fn backups_are_for_callers_that_the_connection_proves() {
    let door = open(None, &[]).await;
    let head = "POST /v1.41/herder/backup HTTP/1.1\nHost: localhost\nContent-Length: 0";
    let refused = door.over_tcp(head).await;
    assert!(
        refused.starts_with(r#"403 {"message":"swarm.backup is only for callers that the connection proves: "#),
        "{refused}"
    );
    assert!(door.over_unix(head).await.starts_with("404 "), "there is no swarm here");
}

#[tokio::test]
async fn what_may_change_something_and_what_was_denied_is_noted_with_its_caller() {
    let door = open(None, &[]).await;
    let uid = rustix::process::getuid().as_raw();
    door.over_unix("GET /containers/json HTTP/1.1\nHost: x").await;
    door.over_unix("DELETE /containers/web?force=1 HTTP/1.1\nHost: x").await;
    door.over_tcp("POST /containers/prune HTTP/1.1\nHost: localhost").await;
    door.over_tcp("POST /herder/backup HTTP/1.1\nHost: localhost\nContent-Length: 0").await;
    door.over_tcp("GET /info HTTP/1.1\nHost: evil.example").await;
    door.over_tcp("POST /nothing HTTP/1.1\nHost: localhost").await;
    let expected = format!(
        "DELETE container.remove by uid={uid} at unix:uid={uid}: 404 Failed\n\
         POST container.prune by - at tcp:127.0.0.1: 200 Done\n\
         POST swarm.backup by - at tcp:127.0.0.1: 403 Denied\n\
         GET  by - at tcp:127.0.0.1: 403 Denied"
    );
    assert_eq!(door.entries.said(), expected);
    assert_eq!(door.entries.0.lock()[0].path, "/containers/web", "without the query");
}

/// Writes a pair where TLS is read from.
#[expect(clippy::disallowed_methods, reason = "a test may block")]
fn files(folder: &Path, name: &str, pair: &Pair) -> (std::path::PathBuf, std::path::PathBuf) {
    let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}-key.pem")));
    std::fs::write(&cert, &pair.cert).expect("written");
    std::fs::write(&key, &pair.key).expect("written");
    (cert, key)
}

#[tokio::test]
async fn a_client_certificate_names_its_caller() {
    let folder = tempfile::tempdir().expect("a folder");
    let (now, day) = (SystemTime::now(), Duration::from_secs(86400));
    let authority = Authority::new("CA", now, day).expect("a CA");
    let (ca, _) = files(folder.path(), "ca", &authority.pair);
    let sign =
        |name: &str, hosts: &[String], usage| authority.sign(name, hosts, usage, now, day).expect("a certificate");
    let (cert, key) = files(folder.path(), "door", &sign("door", &["door.example".to_owned()], Usage::Endpoint));
    let server = tls::server(tls::Files { cert: &cert, key: &key, ca: Some(&ca) }).expect("a server");
    assert_eq!(tls::hosts(&cert).expect("names"), ["door.example"]);
    let door = open(Some(Arc::new(server)), &["door.example"]).await;
    let (cert, key) = files(folder.path(), "admin", &sign("admin", &[], Usage::Client));
    let client = tls::client(tls::Files { cert: &cert, key: &key, ca: Some(&ca) }).expect("a client");
    let connect = async || {
        let tcp = TcpStream::connect(door.tcp).await.expect("a connection");
        let name = "door.example".try_into().expect("a name");
        TlsConnector::from(Arc::new(client.clone())).connect(name, tcp).await.expect("a handshake")
    };
    let said = ask(connect().await, "POST /containers/prune HTTP/1.1\nHost: door.example").await;
    assert!(said.starts_with("200 "), "{said}");
    let said = ask(connect().await, "POST /herder/backup HTTP/1.1\nHost: door.example\nContent-Length: 0").await;
    assert!(said.starts_with("404 "), "it may, and there is no swarm: {said}");
    let expected = "POST container.prune by admin at tcp:127.0.0.1: 200 Done\n\
                    POST swarm.backup by admin at tcp:127.0.0.1: 404 Failed";
    assert_eq!(door.entries.said(), expected);
}
