//! Attacks a manager with the copied identity of a worker. Every channel of the node link is tried from another
//! machine. Afterwards the same stranger attacks without any identity. All of it against a real lab of two hosts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use herder_bus::{Headers, Links};
use herder_model::swarm::{Hello, Report, Role, TaskState, TaskStatus, ToLeader, ToNode, encode};
use herder_wire::calls::{self, Calls, ClaimRequest, Code, CreateRequest, Peer, RereadRequest, SettleRequest};
use herder_wire::identity::Identity;
use herder_wire::link::{Link, Road, join};
use herder_wire::swarm::{SESSION_WAITING_MAX, SwarmCalls};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Time limit for every wait; generous, for busy machines.
const LIMIT: Duration = Duration::from_secs(60);
/// The port of the node link.
const PORT: u16 = 7946;
/// Time in which strangers open handshakes that do not end.
const FLOOD: Duration = Duration::from_secs(6);
/// Bytes that such a flood may add to a log. It wrote 2.8 to 13.5 MB in 30 s before lines were limited.
const LOG_BYTES_MAX: u64 = 64 << 10;
/// Bodies that stall, each of the largest size.
const BODIES: usize = 200;
const BODY_BYTES: usize = 8 << 20;
/// Memory that they may add: a share of 128 MiB for bodies, and room for buffers: 280 MB were measured. It was 1.85 GB.
const MEMORY_KB_MAX: u64 = 512 << 10;
/// Open files that this test and the lab may have: herder takes 7,936 connections over TCP then.
const FILES: u64 = 16_384;
/// Connections over TCP that say nothing: with those that wait in the kernel, more than an endpoint takes.
const IDLE: usize = 12_000;
/// A connection that takes so long waits for others to end.
const FULL: Duration = Duration::from_secs(2);

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Hosts h1, which becomes the manager, and h2, a worker.
struct Lab {
    name: String,
    /// The endpoint of each host's herder.
    doors: Vec<String>,
}

impl Lab {
    fn begin() -> Lab {
        let name = format!("{}-taken", std::env::var("SCENARIOS_LAB").unwrap_or("scenarios".into()));
        let mut lab = Lab { name, doors: Vec::new() };
        let mut files = getrlimit(Resource::Nofile);
        files.current = Some(files.maximum.map_or(FILES, |it| it.min(FILES)));
        setrlimit(Resource::Nofile, files).expect("up to the hard limit");
        lab.call("down", &[]);
        lab.call("up", &["--hosts", "2", "--memory", "2g", "--herder"]);
        let status: Value = serde_json::from_str(&lab.call("status", &["--format", "json"])).expect("JSON");
        let doors = status["hosts"].as_array().expect("hosts").iter();
        lab.doors = doors.map(|it| it["herder_host"].as_str().expect("a URL").to_owned()).collect();
        lab
    }

    fn call(&self, verb: &str, arguments: &[&str]) -> String {
        run(env!("CARGO_BIN_EXE_herder"), &[&["lab", verb, "--name", &self.name], arguments].concat())
    }

    fn docker(&self, arguments: &[&str]) -> String {
        run("docker", &[&["-H", &self.doors[0]], arguments].concat())
    }

    fn disk(&self, host: &str) -> PathBuf {
        PathBuf::from("/var/lib/herder-lab").join(&self.name).join(host)
    }

    fn identity(&self, host: &str) -> Identity {
        Identity::load(&self.disk(host).join("herder")).expect("readable").expect("an identity")
    }

    fn peer(&self, host: usize) -> Peer {
        let door = self.doors[host].trim_start_matches("tcp://");
        let (ip, _) = door.rsplit_once(':').expect("a port");
        Peer { id: self.identity(["h1", "h2"][host]).id, addr: format!("{ip}:{PORT}") }
    }

    /// Reads a value of the status of herder on h1, in kB.
    fn memory_kb(&self, what: &str) -> u64 {
        let told = format!(
            "sed -n 's/^{what}:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$(cat /run/herder-lab/{}/h1/herder.pid)/status",
            self.name
        );
        self.call("exec", &["h1", "sh", "-c", &told]).parse().expect("a number")
    }

    /// All that a stranger must not change.
    fn state(&self) -> String {
        let nodes =
            self.docker(&["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}"]);
        let services = self.docker(&["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]);
        let secrets = self.docker(&["secret", "ls", "--format", "{{.Name}}"]);
        // What runs on the worker itself is the stranger's, too.
        let containers = self.docker(&["ps", "-a", "--filter", "name=there", "--format", "{{.ID}} {{.State}}"]);
        format!("{nodes}\n{services}\n{secrets}\n{containers}")
    }

    async fn until(&self, wanted: &str, look: impl Fn(&Lab) -> String) {
        let began = Instant::now();
        loop {
            let seen = look(self);
            if seen == wanted {
                return;
            }
            assert!(began.elapsed() < LIMIT, "{seen} instead of {wanted}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Its logs are of use when the test failed.
        if !std::thread::panicking() {
            self.call("down", &[]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_copied_a_worker_can_be_that_worker_and_who_has_nothing_can_do_nothing() {
    let lab = Lab::begin();
    lab.until("2", |lab| {
        run(env!("CARGO_BIN_EXE_herder"), &["node", "ls", "-H", &lab.doors[0]]).matches("Healthy").count().to_string()
    })
    .await;
    lab.docker(&["swarm", "init"]);
    lab.until("Ready\nReady", |lab| lab.docker(&["node", "ls", "--format", "{{.Status}}"])).await;
    tokens_and_files_are_nobodys(&lab);
    let secret = lab.disk("h1").join("secret");
    fs::write(&secret, "of the manager's tasks").expect("written");
    lab.docker(&["secret", "create", "pass", secret.to_str().expect("a path")]);
    let words = ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.2; done"];
    for (name, host) in [("there", "h1"), ("here", "h2")] {
        let constraint = format!("node.hostname=={host}");
        let create = ["service", "create", "-d", "--no-resolve-image", "--name", name, "--constraint", &constraint];
        let secret: &[&str] = if host == "h1" { &["--secret", "pass"] } else { &[] };
        lab.docker(&[&create, secret, &["busybox"], &words].concat());
    }
    lab.until("here 1/1\nthere 1/1", |lab| {
        let mut lines: Vec<String> =
            lab.docker(&["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]).lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    })
    .await;
    // Its certificate as a worker may come a moment after the node counts as one.
    lab.until("Some(Worker)", |lab| format!("{:?}", lab.identity("h2").subject().and_then(|it| it.role))).await;
    let before = lab.state();
    let folder = tempfile::tempdir().expect("a folder");
    let link = Link::new(lab.identity("h2"), folder.path().to_owned()).expect("a link");
    let manager = lab.peer(0);
    engines_are_out_of_reach(&link, &manager).await;
    calls_read_and_change_nothing(&link, &manager).await;
    no_action_over_the_bus(&link, &manager).await;
    certificates_are_for_that_worker(&link, &manager).await;
    stores_and_sessions_are_those_of_a_worker(&link, &manager).await;
    // A session of the stranger took the place of the worker's, which comes again.
    let began = Instant::now();
    while lab.state() != before {
        assert!(began.elapsed() < LIMIT, "{}\ninstead of\n{before}", lab.state());
        sleep(Duration::from_millis(200)).await;
    }
    old_tls_is_refused(&manager).await;
    half_handshakes_fill_no_log_and_delay_no_node(&lab, &manager).await;
    stalled_bodies_take_little_memory(&lab).await;
    idle_connections_leave_those_of_the_socket(&lab).await;
    a_page_of_a_stranger_changes_nothing(&lab).await;
    a_job_counts_no_slot_twice(&lab).await;
}

/// Join codes and tokens are in no command line, and files of a node are for root only.
fn tokens_and_files_are_nobodys(lab: &Lab) {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    for process in processes.filter(|it| it.file_name().to_string_lossy().parse::<u32>().is_ok()) {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // The lab's own program that enters the host keeps what it was started with.
        let is_ours = line.contains(&lab.name) && !line.starts_with("/usr/bin/nsenter");
        assert!(!(is_ours && line.contains("SWMTKN-1-")), "{line}");
    }
    for host in ["h1", "h2"] {
        let folder = lab.disk(host).join("herder");
        let others = run("find", &[folder.to_str().expect("a path"), "-xdev", "-type", "f", "-perm", "/077"]);
        let others: Vec<&str> = others.lines().filter(|it| it.ends_with(".json") || it.contains(".redb")).collect();
        assert!(others.is_empty(), "{others:?}");
    }
    let stores = run("find", &[lab.disk("h1").join("herder").to_str().expect("a path"), "-name", "*.redb"]);
    assert!(!stores.is_empty(), "it has another name: this looks at nothing");
}

/// Channel `engine`: a worker gets images from it, and nothing else.
async fn engines_are_out_of_reach(link: &Arc<Link>, manager: &Peer) {
    for (line, expected) in [
        // The engine's own answer.
        ("GET /v1.41/images/nosuch/get", "404"),
        ("GET /containers/json", "403"),
        ("GET /v1.41/info", "403"),
        ("GET /v1.41/events", "403"),
        ("GET /v1.41/images/../containers/json/get", "403"),
        ("POST /v1.41/containers/create", "403"),
        ("POST /v1.41/images/load", "403"),
        ("POST /v1.41/build", "403"),
        ("POST /session", "403"),
        ("DELETE /v1.41/images/busybox", "403"),
    ] {
        let mut stream = link.dial(&manager.addr, &manager.id, Road::Engine).await.expect("a connection");
        let request = format!("{line} HTTP/1.1\r\nHost: engine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        // The other end may close without a word of TLS.
        let _ = timeout(LIMIT, stream.read_to_string(&mut answer)).await.expect("an answer in time");
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{line}: {answer}");
    }
}

/// Channel `calls`: workers follow what is on other nodes and claim names; they make nothing there.
async fn calls_read_and_change_nothing(link: &Arc<Link>, manager: &Peer) {
    let calls = Calls::new(link.clone());
    let body = serde_json::to_vec(&json!({"Image": "busybox", "HostConfig": {"Binds": ["/:/host"]}})).expect("JSON");
    let create = CreateRequest { name: "taken-over".into(), body, ..CreateRequest::default() };
    assert_eq!(calls.create(manager, create).await.expect_err("denied").code(), Code::PermissionDenied);
    assert_eq!(calls.templates(manager, None).await.expect_err("denied").code(), Code::PermissionDenied);
    let claim = ClaimRequest { name: "a-name".into(), ..ClaimRequest::default() };
    let claim = calls.claim(manager, claim).await.expect("as any node").claim;
    calls.settle(manager, SettleRequest { claim, ..SettleRequest::default() }).await.expect("as any node");
    calls
        .reread(manager, RereadRequest { part: calls::Part::All.into(), container: String::new() })
        .await
        .expect("a look");
    let mut news = calls.follow(manager).await.expect("as any node");
    let first = timeout(LIMIT, news.message()).await.expect("in time").expect("no error").expect("a picture");
    assert!(!first.news.is_empty());
}

/// Channel `bus`: messages go through, actions on other nodes are refused.
async fn no_action_over_the_bus(link: &Arc<Link>, manager: &Peer) {
    let stream = link.dial(&manager.addr, &manager.id, Road::Bus).await.expect("a connection");
    let (bus, links) = Links::bus(&link.identity().id, herder_bus::Settings::default());
    let carrying = {
        let (bus, id) = (bus.clone(), manager.id.clone());
        tokio::spawn(async move { links.carry(&bus, &id, stream).await })
    };
    for address in ["herder", "herder.h1"] {
        let action = json!({"action": "spawn", "type": "busybox", "image": "busybox"});
        let began = Instant::now();
        let why = loop {
            match bus.request(address, Headers::default(), action.clone(), LIMIT).await {
                Ok(answer) => panic!("{address} answered {}", answer.body),
                // It has not told its addresses yet.
                Err(error) if error.kind == herder_bus::Kind::NoHandlers && began.elapsed() < LIMIT => {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(error) => break error.message,
            }
        };
        assert!(why.contains("workers of a swarm do not carry out actions on other nodes"), "{address}: {why}");
    }
    carrying.abort();
}

/// Channels `renew` and `join` give a certificate for that worker and for no other node.
async fn certificates_are_for_that_worker(link: &Arc<Link>, manager: &Peer) {
    let shared = &link.identity().shared;
    assert!(!shared.has_authority() && !shared.has_join_code(), "a worker keeps what lets others in");
    link.obtain(std::slice::from_ref(manager)).await.expect("as that worker");
    let (identity, now) = (link.identity(), SystemTime::now());
    let subject = identity.subject().expect("one of a node");
    assert_eq!((&subject.node, subject.role), (&identity.id, Some(Role::Worker)));
    let code = identity.join_code().expect("the root's");
    for secret in [[0; 16], [1; 16]] {
        let error =
            join(std::slice::from_ref(&manager.addr), &code.with_secret(secret), "n", now).await.expect_err("refused");
        assert!(error.to_string().contains("none of this swarm's"), "{error}");
    }
}

/// Channel `swarm`: no message of raft, and a session that tells and gets what is this worker's.
async fn stores_and_sessions_are_those_of_a_worker(link: &Arc<Link>, manager: &Peer) {
    let calls = SwarmCalls::new(link.clone());
    let me = &link.identity().id;
    let vote = |committed| format!(r#"{{"leader_id":{{"term":99,"node_id":"{me}:0"}},"committed":{committed}}}"#);
    for call in [
        format!(r#"{{"Vote":{{"vote":{},"last_log_id":null}}}}"#, vote(false)),
        format!(r#"{{"Append":{{"vote":{},"prev_log_id":null,"entries":[],"leader_commit":null}}}}"#, vote(true)),
        format!(r#"{{"Add":{{"node":"{me}","addr":"127.0.0.1:1"}}}}"#),
        format!(r#"{{"Remove":{{"node":"{}"}}}}"#, manager.id),
        r#""Managers""#.to_owned(),
        r#""Hello""#.to_owned(),
    ] {
        let head = format!(r#"{{"from":"{me}:0","to":null,"call":{call},"proof":"AAAA"}}"#);
        let length = u32::try_from(head.len()).expect("short").to_be_bytes();
        let message = [&[1], &length[..], head.as_bytes()].concat();
        let refused = calls.raft(manager, message.into()).await.expect_err("refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{call}: {refused}");
    }
    let (say, said) = mpsc::channel(SESSION_WAITING_MAX);
    let mut heard = calls.session(manager, said).await.expect("as that worker");
    // As a manager would: its store is open.
    let hello = Hello { addr: "192.0.2.1:7946".into(), ready: true, ..Hello::default() };
    let status = TaskStatus { state: TaskState::Failed, ..TaskStatus::default() };
    let lie = Report { task_id: "of-somebody-else".into(), status };
    for message in [ToLeader::Hello(Box::new(hello)), ToLeader::Ready, ToLeader::Reports(vec![lie])] {
        say.send(encode(&message).expect("JSON").into()).await.expect("it listens");
    }
    let (mut role, mut mine) = (None, None);
    while role.is_none() || mine.is_none() {
        let message = timeout(LIMIT, heard.next()).await.expect("in time").expect("open").expect("whole");
        match serde_json::from_slice(&message) {
            Ok(ToNode::Welcome(welcome)) => role = Some(welcome.role),
            Ok(ToNode::Assignments(all)) => mine = Some(all),
            _ => {}
        }
    }
    let mine = mine.expect("assignments");
    assert_eq!(role, Some(Role::Worker));
    assert!(mine.tasks.iter().all(|it| it.task.node_id == *me), "tasks of others");
    assert_eq!((mine.tasks.len(), mine.secrets.len()), (1, 0), "its own task has no secret");
}

/// The link speaks TLS 1.3 only.
async fn old_tls_is_refused(manager: &Peer) {
    let tcp = TcpStream::connect(&manager.addr).await.expect("a connection").into_std().expect("a stream");
    tcp.set_nonblocking(false).expect("blocking");
    tcp.set_read_timeout(Some(LIMIT)).expect("a limit");
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(crypto).with_protocol_versions(&[&rustls::version::TLS12]);
    let config = config.expect("TLS 1.2").with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let name = "node.herder".try_into().expect("a name");
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
    let mut tcp = tcp;
    let refused = tokio::task::block_in_place(|| session.complete_io(&mut tcp)).expect_err("refused");
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

/// Handshakes that begin and do not end.
async fn half_handshakes_fill_no_log_and_delay_no_node(lab: &Lab, manager: &Peer) {
    let log = lab.disk("h1").join("herder.log");
    let length = || fs::metadata(&log).expect("a log").len();
    let (before, ends) = (length(), Instant::now() + FLOOD);
    let mut strangers = tokio::task::JoinSet::new();
    for number in 0..64_usize {
        let addr = manager.addr.clone();
        strangers.spawn(async move {
            let mut count = 0_usize;
            let mut open = std::collections::VecDeque::new();
            while Instant::now() < ends {
                let Ok(Ok(mut tcp)) = timeout(Duration::from_secs(1), TcpStream::connect(&addr)).await else {
                    continue;
                };
                // Some say nothing, some begin, some say nonsense.
                let _ =
                    tcp.write_all([&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"][(number + count) % 3]).await;
                open.push_back(tcp);
                open.truncate(64);
                count += 1;
                if open.len() == 64 {
                    open.pop_front();
                }
                sleep(Duration::from_millis(5)).await;
            }
            count
        });
    }
    // Nodes are judged meanwhile, and the one that the flood goes to leads.
    while Instant::now() < ends {
        let lab = (lab.docker(&["node", "ls", "--format", "{{.Status}}"]), ());
        assert_eq!(lab.0, "Ready\nReady");
        sleep(Duration::from_millis(200)).await;
    }
    let count: usize = strangers.join_all().await.into_iter().sum();
    let written = length() - before;
    eprintln!("{count} handshakes without an end wrote {written} bytes of log");
    assert!(count > 1000, "only {count}: that is no flood");
    assert!(written <= LOG_BYTES_MAX, "{written} bytes of log for {count} handshakes");
}

/// Bodies of the largest size that do not end, at the endpoint on TCP.
async fn stalled_bodies_take_little_memory(lab: &Lab) {
    let addr = lab.doors[0].trim_start_matches("tcp://").to_owned();
    let before = lab.memory_kb("VmRSS");
    let body: Arc<[u8]> = vec![b' '; BODY_BYTES - 1].into();
    let mut bodies = tokio::task::JoinSet::new();
    for _ in 0..BODIES {
        let (addr, body) = (addr.clone(), body.clone());
        bodies.spawn(async move {
            let mut tcp = TcpStream::connect(&addr).await.expect("a connection");
            let head = format!(
                "POST /v1.41/containers/create HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
            );
            tcp.write_all(head.as_bytes()).await.expect("written");
            // As much as herder takes; the rest waits in the kernel.
            let _ = timeout(Duration::from_secs(4), tcp.write_all(&body)).await;
            tcp
        });
    }
    let stalled = bodies.join_all().await;
    // Small requests are answered, on this listener as on the socket.
    lab.docker(&["version"]);
    let socket = format!("unix:///run/herder-lab/{}/h1/herder.sock", lab.name);
    run("docker", &["-H", &socket, "node", "ls"]);
    let peak = lab.memory_kb("VmHWM");
    drop(stalled);
    eprintln!("{BODIES} bodies of {BODY_BYTES} bytes: {} kB at the most, {before} kB before", peak);
    assert!(peak <= before + MEMORY_KB_MAX, "{peak} kB, {before} kB before");
    lab.until("Ready\nReady", |lab| lab.docker(&["node", "ls", "--format", "{{.Status}}"])).await;
}

/// Connections over TCP that say nothing, more than an endpoint takes.
async fn idle_connections_leave_those_of_the_socket(lab: &Lab) {
    let addr = lab.doors[0].trim_start_matches("tcp://").to_owned();
    let mut idle = Vec::with_capacity(IDLE);
    while idle.len() < IDLE {
        // One that waits is more than the endpoint and its backlog take.
        let Ok(connected) = timeout(FULL, TcpStream::connect(&addr)).await else { break };
        idle.push(connected.expect("a connection"));
    }
    eprintln!("{} idle connections over TCP", idle.len());
    let socket = format!("unix:///run/herder-lab/{}/h1/herder.sock", lab.name);
    assert_eq!(run("docker", &["-H", &socket, "node", "ls", "--format", "{{.Status}}"]), "Ready\nReady");
    assert!(timeout(FULL, ask(&addr, "GET /_ping HTTP/1.1", "")).await.is_err(), "TCP has room left");
    drop(idle);
    let answer = timeout(LIMIT, ask(&addr, "GET /_ping HTTP/1.1", "")).await.expect("its turn");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Answer to a request with these lines of a head; `Host` is the endpoint's address unless they name another one.
async fn ask(addr: &str, head: &str, body: &str) -> String {
    let mut tcp = TcpStream::connect(addr).await.expect("a connection");
    let host = if head.contains("\nHost: ") { String::new() } else { format!("\nHost: {addr}") };
    let head = format!("{head}{host}\nContent-Length: {}\nConnection: close\n\n", body.len()).replace('\n', "\r\n");
    tcp.write_all(format!("{head}{body}").as_bytes()).await.expect("written");
    let mut answer = String::new();
    let _ = tcp.read_to_string(&mut answer).await;
    answer
}

/// Requests that a browser sends for a page from elsewhere, to an endpoint on TCP with real containers behind it.
async fn a_page_of_a_stranger_changes_nothing(lab: &Lab) {
    let addr = lab.doors[0].trim_start_matches("tcp://").to_owned();
    lab.docker(&["create", "--name", "stopped", "busybox", "true"]);
    lab.docker(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]);
    let seen = |lab: &Lab| {
        let containers = lab.docker(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
        let token = lab.docker(&["swarm", "join-token", "-q", "worker"]);
        format!("{containers}\n{token}\n{}", lab.docker(&["volume", "ls", "-q"]))
    };
    let before = seen(lab);
    let evil = "Origin: http://evil.example";
    let rebound = "Host: evil.example:2375";
    let create = r#"{"Image": "busybox", "HostConfig": {"Binds": ["/:/host"]}}"#;
    let upgrade = "Upgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
    for (head, body, expected) in [
        // A form or a simple request of a script needs no permission of the server.
        ("POST /containers/create?name=evil HTTP/1.1\nContent-Type: text/plain", create, "400"),
        ("POST /volumes/create HTTP/1.1\nContent-Type: application/x-www-form-urlencoded", "{}", "400"),
        ("POST / HTTP/1.1\nContent-Type: text/plain", r#"{"action": "spawn", "image": "busybox"}"#, "415"),
        (&format!("POST /containers/create?name=evil HTTP/1.1\nContent-Type: application/json\n{evil}"), create, "403"),
        (&format!("POST /containers/prune HTTP/1.1\n{evil}"), "", "403"),
        ("POST /containers/prune HTTP/1.1\nSec-Fetch-Site: cross-site\nSec-Fetch-Mode: no-cors", "", "403"),
        (&format!("DELETE /containers/runs?force=1 HTTP/1.1\n{evil}"), "", "403"),
        (&format!("POST /swarm/update?version=1&rotateWorkerToken=1 HTTP/1.1\n{evil}"), "{}", "403"),
        (&format!("POST /herder/token/rotate HTTP/1.1\n{evil}"), "", "403"),
        (&format!("POST /herder/backup HTTP/1.1\n{evil}"), "", "403"),
        ("POST /herder/backup HTTP/1.1", "", "403"),
        (&format!("GET /containers/runs/attach/ws?stream=1&stdout=1 HTTP/1.1\n{upgrade}\n{evil}"), "", "403"),
        // A name that resolves to this address since a moment ago.
        (&format!("GET /containers/json HTTP/1.1\n{rebound}"), "", "403"),
        (&format!("POST /containers/prune HTTP/1.1\n{rebound}\nOrigin: http://evil.example:2375"), "", "403"),
        (&format!("GET /containers/runs/attach/ws?stream=1 HTTP/1.1\n{rebound}\n{upgrade}"), "", "403"),
        (&format!("GET /eventbus/info HTTP/1.1\n{rebound}"), "", "403"),
    ] {
        let answer = timeout(LIMIT, ask(&addr, head, body)).await.expect("in time");
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{head}\n{answer}");
        assert!(!answer.to_lowercase().contains("access-control-allow-origin: *"), "{answer}");
    }
    assert_eq!(seen(lab), before);
    // The endpoint's own pages and clients that are no browsers go on.
    for head in ["GET /containers/json HTTP/1.1".to_owned(), format!("GET /info HTTP/1.1\nOrigin: http://{addr}")] {
        let answer = ask(&addr, &head, "").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    lab.docker(&["rm", "-f", "runs", "stopped"]);
}

/// Tasks of a job complete on a node that is cut off. They complete as well on the node that they were
/// given to.
async fn a_job_counts_no_slot_twice(lab: &Lab) {
    let gate = PathBuf::from("/var/lib/herder-lab").join(&lab.name).join("gate");
    fs::create_dir_all(&gate).expect("a folder");
    let mount = format!("type=bind,src={},dst=/gate", gate.display());
    let wait = "until [ -e /gate/open ]; do sleep 0.1; done";
    let create = ["service", "create", "-d", "--no-resolve-image", "--name", "job", "--mode", "replicated-job"];
    let job = ["--replicas", "4", "--mount", &mount, "busybox", "sh", "-c", wait];
    lab.docker(&[&create[..], &job[..]].concat());
    let states = |lab: &Lab| {
        let all = lab.docker(&["service", "ps", "job", "--format", "{{.CurrentState}}"]);
        let count = |state: &str| all.lines().filter(|it| it.starts_with(state)).count();
        (count("Running"), count("Complete"))
    };
    let shown = |lab: &Lab| {
        let services = lab.docker(&["service", "ls", "--filter", "name=job", "--format", "{{.Replicas}}"]);
        services.rsplit_once('(').map_or(services.clone(), |(_, completed)| completed.to_owned())
    };
    lab.until("(4, 0)", |lab| format!("{:?}", states(lab))).await;
    let there = lab.docker(&["service", "ps", "job", "--filter", "node=h2", "--format", "{{.Name}}"]).lines().count();
    assert!(there > 0, "nothing runs on h2");
    lab.call("partition", &["h2"]);
    // The tasks of h2 are given to h1, and run there, too.
    let mine = ["service", "ps", "job", "--filter", "node=h1", "--format", "{{.CurrentState}}"];
    lab.until("4", |lab| lab.docker(&mine).matches("Running").count().to_string()).await;
    fs::write(gate.join("open"), "").expect("written");
    lab.until("4/4 completed)", shown).await;
    lab.call("heal", &[]);
    // What the lost node did meanwhile is told; each slot was asked for once.
    lab.until(&format!("(0, {})", 4 + there), |lab| format!("{:?}", states(lab))).await;
    assert_eq!(shown(lab), "4/4 completed)");
    lab.docker(&["service", "rm", "job"]);
}
