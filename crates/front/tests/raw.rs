//! Bytes as they come from the network, wrong ones included: what the door says, and when it hangs up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use herder_decide::schedule::Scheduler;
use herder_front::{Front, FrontSettings, server};
use herder_pool::fake::{FakeContainer, FakeEngine, FakeSpec};
use herder_pool::{Pool, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A door that has nothing to wait for hangs up at once; tests may be slow.
const HANG_UP_MAX: Duration = Duration::from_secs(5);

/// Limit far above those of the door; a longer wait counts as endless.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A door without engines on a free port, closed when dropped.
struct Door {
    addr: std::net::SocketAddr,
    _stop: DropGuard,
}

async fn open() -> Door {
    open_over(Pool::new(Settings::default())).await
}

async fn open_over(pool: Arc<Pool>) -> Door {
    let settings = FrontSettings { allowed_hosts: vec!["door".to_owned()], ..FrontSettings::default() };
    let front = Front::new(pool, Scheduler::default(), settings);
    let listener = server::bind("tcp://127.0.0.1:0", None).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(front, vec![listener], stop.clone()));
    Door { addr, _stop: stop.drop_guard() }
}

impl Door {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("a connection")
    }

    /// Sends the bytes and reads until the door hangs up. Gives the status codes that came, and what the last answer said.
    async fn say(&self, bytes: &[u8]) -> (String, String) {
        let (mut reader, mut writer) = self.connect().await.into_split();
        let mut answer = Vec::new();
        // The door may hang up before it has heard everything; what it said before counts.
        let write = async {
            let _ = writer.write_all(bytes).await;
        };
        let read = async {
            let _ = reader.read_to_end(&mut answer).await;
        };
        let both = async { tokio::join!(write, read) };
        let kept = timeout(HANG_UP_MAX, both).await.is_err();
        let answer = String::from_utf8_lossy(&answer);
        let last = answer.rsplit_once("\r\n\r\n").map_or("", |(_, body)| body);
        (statuses(&answer) + if kept { " and waits" } else { "" }, last.trim_end().to_owned())
    }

    /// The status codes of all answers to these bytes. Without a `close` among them the door must hang up by itself.
    async fn check(&self, bytes: impl AsRef<[u8]>, expected: &str) {
        self.check_all([(bytes, expected)]).await;
    }

    /// Checks a table as [`Door::check`] does, and shows all its wrong lines.
    async fn check_all<B: AsRef<[u8]>>(&self, table: impl IntoIterator<Item = (B, &str)>) {
        let mut wrong = Vec::new();
        for (bytes, expected) in table {
            let (statuses, _) = self.say(bytes.as_ref()).await;
            if statuses != expected {
                wrong.push(format!("{statuses} instead of {expected}: {}", shown(bytes.as_ref())));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// `200 404` for two answers.
fn statuses(answer: &str) -> String {
    let lines = answer.split("HTTP/1.").skip(1);
    let codes: Vec<&str> = lines.filter_map(|line| line.split(' ').nth(1)).map(|code| &code[..3]).collect();
    codes.join(" ")
}

fn shown(bytes: &[u8]) -> String {
    let text = bytes[..bytes.len().min(120)].escape_ascii().to_string();
    if bytes.len() > 120 { format!("{text} … ({} bytes)", bytes.len()) } else { text }
}

/// A request that ends its connection, with more lines for the head.
fn request(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: door\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_request_line_that_is_none_is_refused() {
    let door = open().await;
    let table = [
        (&b"GARBAGE\r\n\r\n"[..], "400"),
        (b"GET\r\n\r\n", "400"),
        (b"GET /_ping\r\n\r\n", "400"),
        (b"GET  /_ping HTTP/1.1\r\n\r\n", "400"),
        (b"GET /_ping HTTP/1.1 \r\n\r\n", "400"),
        (b"GET /_ping HTTP/2.0\r\n\r\n", "400"),
        (b"GET /_ping HTTP/1.9\r\n\r\n", "400"),
        (b"GET /_ping http/1.1\r\n\r\n", "400"),
        (b"GET /_ping FTP/1.1\r\n\r\n", "400"),
        (b"GET /_p ing HTTP/1.1\r\n\r\n", "400"),
        (b"G\0T /_ping HTTP/1.1\r\n\r\n", "400"),
        (b"GET /_p\x01ing HTTP/1.1\r\n\r\n", "400"),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", "400"),
        // hyper knows what this begins, and hangs up without a word.
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "400"),
        (b"\0\0\0\0\0\0\0\0", "400"),
    ];
    door.check_all(table).await;
    door.check(request("GET /_ping", ""), "200").await;
}

#[tokio::test]
async fn forms_of_a_target_that_http_allows_are_read() {
    let door = open().await;
    door.check(request("GET http://door/_ping", ""), "200").await;
    door.check(request("OPTIONS *", ""), "404").await;
    // Without a slash it is read as a host, and hosts have no answers.
    door.check(request("CONNECT door:80", ""), "400").await;
    door.check(request("GET _ping", ""), "400").await;
    door.check(request("get /_ping", ""), "405").await;
    door.check(request("BREW /_ping", ""), "405").await;
    door.check(format!("\r\n\r\n{}", request("GET /_ping", "")), "200").await;
}

#[tokio::test]
async fn headers_that_are_none_are_refused() {
    let door = open().await;
    for headers in [
        "no colon\r\n",
        "a b: c\r\n",
        ": c\r\n",
        "a: b\0c\r\n",
        "a: b\r\n folded\r\n",
        "a\u{fc}: b\r\n",
        "a: b\r\u{1}\r\n",
    ] {
        door.check(request("GET /_ping", headers), "400").await;
    }
    door.check(request("GET /_ping", &"a: b\r\n".repeat(200)), "431").await;
    door.check(request("GET /_ping", &format!("a: {}\r\n", "b".repeat(200_000))), "200").await;
    door.check(request("GET /_ping", &format!("a: {}\r\n", "b".repeat(1 << 20))), "431").await;
}

#[tokio::test]
async fn a_length_that_is_none_is_refused() {
    let door = open().await;
    for (length, expected) in [
        ("-1", "400"),
        ("+1", "400"),
        ("1 1", "400"),
        ("0x10", "400"),
        ("", "400"),
        ("1,2", "400"),
        ("99999999999999999999999999", "400"),
        ("1\r\nContent-Length: 2", "400"),
        // More than hyper can count, and more than anybody has.
        ("18446744073709551615", "431"),
        ("9223372036854775807", "413"),
        ("64000000", "413"),
    ] {
        door.check(request("POST /containers/create", &format!("Content-Length: {length}\r\n")), expected).await;
    }
}

#[tokio::test]
async fn a_body_has_one_length() {
    let door = open().await;
    let ping = request("GET /_ping", "");
    let create = "POST /containers/create HTTP/1.1\r\nHost: door\r\n";
    // Chunks count, and nothing that follows is a request (RFC 9112, 6.3): somebody else may have counted otherwise.
    let both = ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"];
    door.check_all(both.map(|both| (format!("{create}{both}\r\n\r\n0\r\n\r\n{ping}"), "400"))).await;
    for encoding in ["gzip", "identity", "chunked, gzip", "xchunked", "chunked\r\nTransfer-Encoding: identity"] {
        door.check(format!("{create}Transfer-Encoding: {encoding}\r\n\r\n0\r\n\r\n{ping}"), "400").await;
    }
    door.check("POST /containers/create HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400").await;
}

#[tokio::test]
async fn chunks_that_are_none_break_the_request_off() {
    let door = open().await;
    for body in [
        "zz\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "\r\n\r\n",
        "2\r\n{}garbage\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}\r\n",
        "2;\u{1}\0\n{}",
    ] {
        let text = format!("{}{body}", request("POST /containers/create", "Transfer-Encoding: chunked\r\n"));
        let (statuses, said) = door.say(text.as_bytes()).await;
        assert_eq!(statuses, "400", "{}", shown(text.as_bytes()));
        assert!(said.starts_with(r#"{"message":"the request body broke off: "#), "{said}");
    }
    let good = "1;name=value\r\n{\r\n1\r\n}\r\n0\r\nTrailer: x\r\n\r\n";
    let text = format!("{}{good}", request("POST /volumes/create", "Transfer-Encoding: chunked\r\n"));
    let (statuses, said) = door.say(text.as_bytes()).await;
    assert_eq!((statuses.as_str(), said.contains("broke off")), ("500", false), "{said}");
}

#[tokio::test]
async fn a_large_json_body_is_refused_before_it_is_sent() {
    let door = open().await;
    let head = "Content-Type: application/json\r\nContent-Length: 64000000\r\n";
    let (statuses, said) = door.say(request("POST /containers/create", head).as_bytes()).await;
    assert_eq!(
        (statuses.as_str(), said.as_str()),
        ("413", r#"{"message":"the request body is larger than 8388608 bytes"}"#)
    );
    let polite = format!("{head}Expect: 100-continue\r\n");
    for route in ["/", "/containers/create", "/volumes/create", "/networks/create", "/v1.41/networks/x/connect"] {
        door.check(request(&format!("POST {route}"), &polite), "413").await;
    }
    // Nobody said how large: refused as soon as it is too large, not at its end.
    let mut endless = request("POST /containers/create", "Transfer-Encoding: chunked\r\n");
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    endless.push_str(&chunk.repeat(9));
    door.check(endless, "413").await;
}

#[tokio::test]
async fn requests_in_one_packet_are_answered_in_order() {
    let door = open().await;
    let keep = |line: &str| format!("{line} HTTP/1.1\r\nHost: door\r\n\r\n");
    let last = request("GET /_ping", "");
    door.check(format!("{}{}{last}", keep("GET /_ping"), keep("GET /nonsense")), "200 404 200").await;
    let body = "POST /containers/create HTTP/1.1\r\nHost: door\r\nContent-Length: 2\r\n\r\n[]";
    door.check(format!("{body}{}{last}", keep("HEAD /_ping")), "400 200 200").await;
    door.check(format!("{}{last}", keep("GET /_ping").repeat(500)), "200 ".repeat(501).trim_end()).await;
    // What follows a request that cannot be read cannot be read, either.
    door.check(format!("{}BROKEN\r\n\r\n{last}", keep("GET /_ping")), "200 400").await;
    // What follows the last request is not one.
    door.check(format!("{last}{last}"), "200").await;
}

#[tokio::test]
async fn http_1_0_ends_with_its_answer_unless_it_says_otherwise() {
    let door = open().await;
    door.check("GET /_ping HTTP/1.0\r\n\r\n", "200").await;
    door.check("GET /_ping HTTP/1.0\r\n\r\nGET /_ping HTTP/1.0\r\n\r\n", "200").await;
    door.check("GET /_ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /_ping HTTP/1.0\r\n\r\n", "200 200").await;
    let (_, answer) = door.say(b"GET /containers/json HTTP/1.0\r\n\r\n").await;
    assert_eq!(answer, "[]");
}

#[tokio::test]
async fn an_upgrade_that_no_route_wants_is_not_made() {
    let door = open().await;
    let last = request("GET /_ping", "");
    for upgrade in ["tcp", "h2c", "websocket", "", "TLS/1.0, HTTP/1.1"] {
        let asked = format!("HTTP/1.1\r\nHost: door\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
        door.check(format!("GET /_ping {asked}{last}"), "200 200").await;
        door.check(format!("GET /containers/json {asked}{last}"), "200 200").await;
        door.check(format!("POST /containers/web/attach {asked}{last}"), "404 200").await;
        door.check(format!("GET /containers/web/attach/ws {asked}{last}"), "404 200").await;
        door.check(format!("POST /exec/0123/start {asked}{last}"), "404 200").await;
    }
}

#[tokio::test]
async fn odd_paths_are_names_of_nothing() {
    let door = open().await;
    let table = [
        ("GET /containers/%2e%2e/json", "404"),
        ("GET /containers/..%2f..%2finfo/json", "404"),
        ("GET /%2e%2e/%2e%2e/etc/passwd", "404"),
        ("GET /containers/%00/json", "404"),
        ("GET /containers/a%00b/logs", "404"),
        ("GET /containers/%ff%fe/json", "404"),
        ("GET /containers/%/json", "404"),
        ("GET /containers/%0d%0aX:%201/json", "404"),
        ("GET /containers//json", "404"),
        ("GET //containers/json", "200"),
        ("GET /v1.41/../containers/json", "404"),
        ("GET /v1.41//containers/json", "200"),
        ("GET /containers/json/", "200"),
        ("GET /_ping?%00=%ff&&&==", "200"),
        ("GET /containers/json?filters=%00", "400"),
        ("GET /containers/json?limit=99999999999999999999", "400"),
        ("DELETE /images/%2e%2e", "404"),
        ("GET /networks/%00", "404"),
        ("DELETE /volumes/..", "404"),
    ];
    door.check_all(table.map(|(line, expected)| (request(line, ""), expected))).await;
}

#[tokio::test]
async fn a_long_target_is_read_up_to_64_kib() {
    let door = open().await;
    let long = "a".repeat(65_000);
    door.check(request(&format!("GET /containers/{long}/json"), ""), "404").await;
    door.check(request(&format!("GET /_ping?x={long}"), ""), "200").await;
    door.check(request(&format!("GET /containers/json?{}", "a=b&".repeat(16_000)), ""), "200").await;
    door.check(request(&format!("GET /{}", "a/".repeat(32_000)), ""), "404").await;
    door.check(request(&format!("GET /_ping?x={long}{long}"), ""), "414").await;
    let nested = "%5b".repeat(20_000);
    door.check(request(&format!("GET /containers/json?filters={nested}"), ""), "400").await;
}

#[tokio::test]
async fn json_without_end_is_refused() {
    let door = open().await;
    for body in ["[".repeat(1 << 20), "{\"a\":".repeat(100_000), "\"".to_owned(), "\u{feff}{}".to_owned()] {
        let head = request("POST /containers/create", &format!("Content-Length: {}\r\n", body.len()));
        let (statuses, said) = door.say(format!("{head}{body}").as_bytes()).await;
        assert_eq!(statuses, "400", "{said}");
        assert!(said.starts_with(r#"{"message":"invalid JSON body: "#), "{said}");
    }
}

#[tokio::test]
async fn what_is_broken_off_does_nothing_to_the_engine_behind() {
    let engine = FakeEngine::start(FakeSpec::new("n1")).await.expect("a free port");
    engine.add(FakeContainer::new("web"));
    let pool = Pool::new(Settings::default());
    pool.set_members(&BTreeSet::from([engine.addr()]));
    let healthy = |_: &u64| pool.nodes().iter().any(|node| node.is_healthy());
    pool.changes().wait_for(healthy).await.expect("a pool");
    let door = open_over(pool.clone()).await;
    let last = request("GET /_ping", "");

    // An upgrade that the engine does not make: its answer is an answer, and the connection goes on.
    let upgrade = "HTTP/1.1\r\nHost: door\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    door.check(format!("POST /containers/web/start {upgrade}{last}"), "204 200").await;
    door.check(format!("GET /containers/n1%2Fweb/json {upgrade}{last}"), "200 200").await;
    door.check(format!("POST /containers/web/../../info {upgrade}{last}"), "404 200").await;

    let body = r#"{"Image":"busybox"}"#;
    for (length, body) in [("100", body), ("19", &body[..10]), ("0", body)] {
        let head =
            format!("POST /containers/create?name=half HTTP/1.1\r\nHost: door\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = door.connect().await;
        stream.write_all(format!("{head}{body}").as_bytes()).await.expect("written");
        stream.shutdown().await.expect("closed");
        let mut answer = Vec::new();
        // What is said to somebody who has gone does not matter.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!statuses(&String::from_utf8_lossy(&answer)).contains("201"), "{length}");
    }
    assert_eq!(engine.containers(), 1, "no half of a request made a container");
    let head = request("POST /containers/create?name=whole", &format!("Content-Length: {}\r\n", body.len()));
    door.check(format!("{head}{body}"), "201").await;
    assert_eq!(engine.containers(), 2);
    assert!(pool.nodes()[0].is_healthy());
}

/// Sends the pieces, each after the pause before it, then waits. Gives the statuses, and after how many seconds of silence the
/// door hung up.
async fn stall(pieces: &[(u64, &str)]) -> (String, u64) {
    let door = open().await;
    let mut stream = door.connect().await;
    let mut answer = Vec::new();
    for (pause, piece) in pieces {
        tokio::time::sleep(Duration::from_secs(*pause)).await;
        stream.write_all(piece.as_bytes()).await.expect("written");
    }
    let silent = Instant::now();
    let end = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "the door waits for ever after {pieces:?}");
    (statuses(&String::from_utf8_lossy(&answer)), silent.elapsed().as_secs())
}

#[track_caller]
fn near(got: (String, u64), statuses: &str, seconds: u64) {
    assert_eq!(got.0, statuses);
    assert!(got.1.abs_diff(seconds) <= 1, "after {} s, not {seconds}", got.1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stalls_in_its_head_is_left() {
    near(stall(&[(0, "GET /_ping HT")]).await, "", 10);
    near(stall(&[(0, "GET /_ping HTTP/1.1\r\nHost: door\r\nX: ")]).await, "", 10);
    near(stall(&[(0, "\r\n")]).await, "", 10);
    // Each piece in time, the whole not.
    let pieces = [(0, "GET /_ping HTTP/1.1\r\n"), (4, "a: b\r\n"), (4, "c: d\r\n")];
    near(stall(&pieces).await, "", 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stalls_in_its_body_is_told_and_left() {
    let head = "POST /containers/create HTTP/1.1\r\nHost: door\r\nContent-Length: 100\r\n\r\n";
    near(stall(&[(0, head)]).await, "408", 30);
    near(stall(&[(0, head), (10, "{\"Image\""), (10, ":")]).await, "408", 10);
    let chunked = "POST /volumes/create HTTP/1.1\r\nHost: door\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{";
    near(stall(&[(0, chunked)]).await, "408", 30);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_silent_between_requests_may_be_so_for_five_minutes() {
    let ping = "GET /_ping HTTP/1.1\r\nHost: door\r\n\r\n";
    near(stall(&[]).await, "", 300);
    near(stall(&[(0, ping)]).await, "200", 300);
    near(stall(&[(0, ping), (200, ping)]).await, "200 200", 300);
    // The next head has begun: it must end, as the first one had to.
    near(stall(&[(0, ping), (200, "GET /_pi")]).await, "200", 10);
    // hyper holds what came in one packet with the request before it: that counts as silence, not as a head.
    near(stall(&[(0, "GET /_ping HTTP/1.1\r\nHost: door\r\n\r\nGET /_pi")]).await, "200", 300);
}
