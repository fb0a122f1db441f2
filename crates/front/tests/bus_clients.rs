//! Existing clients of the Vert.x event bus, unchanged from their registries, against the bridges.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use herder_bus::bridge::{Bridge, Limits, Rules};
use herder_bus::memory::Mesh;
use herder_decide::schedule::Scheduler;
use herder_front::{Front, FrontSettings, server};
use herder_pool::Pool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

#[path = "../examples/bus/services.rs"]
mod services;

/// A bus that clients can reach, closed when dropped.
struct Served {
    door: String,
    tcp: String,
    _stop: DropGuard,
}

async fn serve() -> Served {
    let stop = CancellationToken::new();
    let (door, tcp) = services::start("tcp://127.0.0.1:0", "127.0.0.1:0", &stop).await.expect("a bus");
    Served { door, tcp, _stop: stop.drop_guard() }
}

/// The folder with the clients; they are brought into the target directory when they are missing.
fn clients() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bus-clients");
    let script = package.join("../../xtask/assets/fetch-bus-clients.sh");
    let fetched = Command::new(script).arg(&folder).output().expect("a shell");
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    folder
}

/// Runs a client to its end and compares what it printed.
async fn check(program: &Path, arguments: &[&str], expected: &str) {
    let mut command = Command::new(program);
    command.args(arguments);
    let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("a thread");
    let Output { status, stdout, stderr } = ran.expect("a client that runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(stdout.trim(), expected.trim(), "{program:?} {arguments:?} {status}\n{stderr}");
}

/// Returns the output of every JavaScript client.
fn expected(reply_headers: &str) -> String {
    format!(
        r#"
heard [{{"n":1}},"ä €"]
reply {{"you":[1,{{"a":null}}]}} {reply_headers}
echo {{"deep":{{"list":[1.5,true,"x"]}}}} {{"k":"v"}}
large 100000
many true
test.fail failed: 7 RECIPIENT_FAILURE will not
test.nobody failed: -1 NO_HANDLERS No handlers for address test.nobody
test.silent failed: -1 TIMEOUT Timed out after waiting 200(ms) for a reply. address: test.silent
question really?
asked really
clock true
test.mine failed: -1 NO_HANDLERS No handlers for address test.mine
refused ["access_denied","access_denied","access_denied"]
"#
    )
}

async fn check_javascript(library: &str, how: &[&str]) {
    let library = clients().join("node_modules").join(library);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/bus.js");
    let arguments = [&[script, library.to_str().expect("a path")], how].concat();
    check(Path::new("node"), &arguments, &expected(r#"{"x":"y"}"#)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sockjs_client_of_today_works_over_every_transport() {
    let served = serve().await;
    let url = format!("http://{}/eventbus", served.door);
    for transport in ["websocket", "xhr-streaming", "eventsource", "xhr-polling"] {
        check_javascript("@vertx/eventbus-bridge-client.js", &[&url, transport]).await;
    }
    check_javascript("@vertx/eventbus-bridge-client.js", &[&url]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sockjs_client_of_vertx_3_works() {
    let served = serve().await;
    check_javascript("vertx3-eventbus-client", &[&format!("http://{}/eventbus", served.door)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tcp_client_for_javascript_works() {
    let served = serve().await;
    let (host, port) = served.tcp.split_once(':').expect("an address");
    check_javascript("vertx3-tcp-eventbus-client/lib/tcp-vertx-eventbus.js", &[host, port]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tcp_client_for_python_works() {
    let served = serve().await;
    let (host, port) = served.tcp.split_once(':').expect("an address");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/bus.py");
    let expected = r#"
heard [{"n": 1}, "ä €"]
reply {"you": [1, {"a": null}]} {"x": "y"}
echo {"deep": {"list": [1.5, true, "x"]}} {"k": "v"}
large 100000
many true
clock true
test.fail failed: 7 RECIPIENT_FAILURE will not
test.mine failed: -1 NO_HANDLERS No handlers for address test.mine
secret failed:   access_denied
test-strict failed:   access_denied
"#;
    check(&clients().join("vertx/bin/python"), &[script, host, port], expected).await;
}

/// Sends a request and reads until the answer has `enough` in it, or ends.
async fn ask(served: &Served, request: &str, enough: &str) -> String {
    let mut stream = TcpStream::connect(&served.door).await.expect("a connection");
    let request = request.replace('\n', "\r\n").replace("DOOR", &served.door);
    stream.write_all(format!("{request}\r\n\r\n").as_bytes()).await.expect("written");
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut piece)).await;
        let Ok(Ok(1..)) = read else { break };
        answer.extend_from_slice(&piece[..read.expect("in time").expect("read")]);
        if String::from_utf8_lossy(&answer).contains(enough) {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_streamed_to_browsers_and_curl() {
    let served = serve().await;
    let all = ask(&served, "GET /events/stream HTTP/1.1\nHost: DOOR", "\"number\"").await;
    assert!(all.contains("content-type: text/event-stream\r\n"), "{all}");
    assert!(all.contains("data: {\"address\":\"herder.events.container\",\"body\":{\"number\":"), "{all}");
    let one = ask(&served, "GET /v1.41/events/stream?address=test.clock HTTP/1.1\nHost: DOOR", "\"number\"").await;
    assert!(one.contains("data: {\"address\":\"test.clock\",\"body\":{\"number\":"), "{one}");
    let refused = ask(&served, "GET /events/stream?address=secret HTTP/1.1\nHost: DOOR", "}").await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_and_strange_requests_are_refused() {
    let served = serve().await;
    let upgrade = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (request, status) in [
        (format!("GET /eventbus/websocket HTTP/1.1\nHost: DOOR\n{upgrade}"), "101"),
        (format!("GET /eventbus/websocket HTTP/1.1\nHost: DOOR\nOrigin: http://DOOR\n{upgrade}"), "101"),
        (format!("GET /eventbus/websocket HTTP/1.1\nHost: DOOR\nOrigin: http://evil.example\n{upgrade}"), "403"),
        (format!("GET /eventbus/websocket HTTP/1.1\nHost: DOOR\nOrigin: null\n{upgrade}"), "403"),
        (format!("GET /eventbus/000/abcdefgh/websocket HTTP/1.1\nHost: DOOR\n{upgrade}"), "101"),
        (format!("GET /eventbus/000/abc.defgh/websocket HTTP/1.1\nHost: DOOR\n{upgrade}"), "404"),
        ("GET /eventbus/websocket HTTP/1.1\nHost: DOOR".to_owned(), "400"),
        ("GET /eventbus HTTP/1.1\nHost: DOOR".to_owned(), "200"),
        ("GET /eventbus/info HTTP/1.1\nHost: DOOR".to_owned(), "200"),
        ("OPTIONS /eventbus/000/abcdefgh/xhr HTTP/1.1\nHost: DOOR\nOrigin: http://DOOR".to_owned(), "204"),
        ("POST /eventbus/000/nobody/xhr_send HTTP/1.1\nHost: DOOR\nContent-Length: 2\n\n[]".to_owned(), "404"),
        ("GET /events/stream HTTP/1.1\nHost: DOOR\nOrigin: http://evil.example".to_owned(), "403"),
    ] {
        let answer = ask(&served, &request, "\r\n\r\n").await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request}\n{answer}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_call_where_they_are_let() {
    let settings = FrontSettings { cors: true, ..FrontSettings::default() };
    let front = Front::new(Pool::new(herder_pool::Settings::default()), Scheduler::default(), settings);
    let bus = Mesh::new(10).bus("n1", herder_bus::Settings::default());
    front.open_bus(Bridge::new(bus, Rules::documented("herder"), Limits::default()));
    let listener = server::bind("tcp://127.0.0.1:0", None).await.expect("a free port");
    let door = listener.local_addr().expect("an address").to_string();
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(front, vec![listener], stop.clone()));
    let served = Served { door, tcp: String::new(), _stop: stop.drop_guard() };
    for line in ["OPTIONS /eventbus/000/abcdefgh/xhr", "GET /eventbus/info", "POST /eventbus/000/abcdefgh/xhr"] {
        let request = format!("{line} HTTP/1.1\nHost: DOOR\nOrigin: http://page.example\nContent-Length: 0");
        let answer = ask(&served, &request, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        assert!(answer.contains("access-control-allow-origin: http://page.example\r\n"), "{answer}");
        assert!(answer.contains("access-control-allow-credentials: true\r\n"), "{answer}");
    }
}
