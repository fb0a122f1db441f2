//! Several doors, one of them primary: calls through a replica are the primary's.

use std::sync::Arc;
use std::time::Duration;

use herder_decide::schedule::Scheduler;
use herder_front::replica::{Replica, Role};
use herder_front::{Front, FrontSettings, server};
use herder_pool::{Pool, Settings};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Limit of every wait in these tests, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A manager's door on a free port. Tests say what its election has found.
struct Manager {
    addr: String,
    role: watch::Sender<Role>,
    _stop: DropGuard,
}

/// `experimental` is what tells one manager's answers from another's.
async fn manager(role: Role, experimental: bool) -> Manager {
    let settings = FrontSettings { experimental, ..FrontSettings::default() };
    let front = Front::new(Pool::new(Settings::default()), Scheduler::default(), settings);
    let listener = server::bind("tcp://127.0.0.1:0", None).await.expect("a free port");
    let addr = listener.local_addr().expect("an address").to_string();
    let (sender, role) = watch::channel(role);
    front.replicate(Replica::new(role, &addr, herder_pool::Way::Plain));
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(Arc::clone(&front), vec![listener], stop.clone()));
    Manager { addr, role: sender, _stop: stop.drop_guard() }
}

fn replica_of(primary: &str) -> Role {
    Role::Replica { primary: Some(primary.to_owned()) }
}

/// One connection, kept for many calls.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(manager: &Manager) -> Client {
        Client(BufReader::new(TcpStream::connect(&manager.addr).await.expect("a connection")))
    }

    /// Status line and body of one answer.
    async fn call(&mut self, line: &str) -> String {
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.expect("written");
        let (status, length) = timeout(PATIENCE, self.head()).await.expect("an answer in time");
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.expect("a body");
        format!("{status} {}", String::from_utf8_lossy(&body))
    }

    async fn head(&mut self) -> (String, usize) {
        let (mut status, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.expect("a line");
            let line = line.trim_end();
            if status.is_empty() {
                status = line.split(' ').nth(1).unwrap_or_default().to_owned();
            } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            } else if line.is_empty() {
                return (status, length);
            }
        }
    }

    /// True if the manager with `experimental` on has answered.
    async fn is_answered_by_experimental(&mut self) -> bool {
        let answer = self.call("GET /version").await;
        assert!(answer.starts_with("200 {"), "{answer}");
        answer.contains(r#""Experimental":true"#)
    }
}

#[tokio::test]
async fn each_call_on_one_connection_follows_the_primary() {
    let first = manager(Role::Primary, true).await;
    let second = manager(Role::Primary, false).await;
    let replica = manager(replica_of(&first.addr), false).await;
    let mut client = Client::connect(&replica).await;

    assert!(client.is_answered_by_experimental().await);
    assert_eq!(client.call("GET /v1.41/containers/json").await, "200 []");
    assert!(client.call("GET /nonsense").await.starts_with("404 "), "the primary's own status");

    replica.role.send_replace(replica_of(&second.addr));
    assert!(!client.is_answered_by_experimental().await, "glued to the old primary");
    replica.role.send_replace(replica_of(&first.addr));
    assert!(client.is_answered_by_experimental().await);
    replica.role.send_replace(Role::Primary);
    assert!(!client.is_answered_by_experimental().await, "a primary answers itself");
}

#[tokio::test]
async fn a_replica_says_what_it_is_and_whom_it_follows() {
    let replica = manager(replica_of("10.0.0.9:4000"), false).await;
    let mut client = Client::connect(&replica).await;
    assert_eq!(client.call("GET /_ping").await, "200 OK");
    let info = client.call("GET /v1.41/info").await;
    assert!(info.contains(r#"["Role","replica"],["Primary","10.0.0.9:4000"]"#), "{info}");
    replica.role.send_replace(Role::Primary);
    let info = client.call("GET /info").await;
    assert!(info.contains(r#"["Role","primary"]"#), "{info}");
}

#[tokio::test]
async fn a_primary_that_is_not_there_is_an_error_at_once() {
    let replica = manager(replica_of("127.0.0.1:1"), false).await;
    let answer = Client::connect(&replica).await.call("POST /containers/create").await;
    let expected = "500 {\"message\":\"Unable to reach primary cluster manager (Connection refused (os error 111)): 127.0.0.1:1\"}";
    assert_eq!(answer.trim(), expected);
}

#[tokio::test]
async fn two_replicas_that_follow_each_other_do_not_play_ball() {
    let first = manager(Role::Primary, false).await;
    let second = manager(replica_of(&first.addr), false).await;
    first.role.send_replace(replica_of(&second.addr));
    let answer = Client::connect(&first).await.call("POST /containers/create").await;
    let expected = format!("No elected primary cluster manager: {} takes this manager for it", first.addr);
    assert!(answer.starts_with("500 ") && answer.contains(&expected), "{answer}");
}

/// Answers one call with 101, then gives everything back in capitals and, after the end of input, says goodbye.
async fn hijacking_primary() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut stream = BufReader::new(stream);
        let mut line = String::from("-");
        while !line.trim().is_empty() {
            line.clear();
            stream.read_line(&mut line).await.expect("a line");
        }
        let head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut input = String::new();
        stream.read_to_string(&mut input).await.expect("input with an end");
        stream.write_all(format!("{} bye", input.to_uppercase()).as_bytes()).await.expect("written");
    });
    addr
}

#[tokio::test]
async fn a_hijacked_connection_goes_through_with_an_end_of_its_own_for_each_direction() {
    let primary = hijacking_primary().await;
    let replica = manager(replica_of(&primary), false).await;
    let mut client = Client::connect(&replica).await.0;
    let request = "POST /containers/web/attach?stream=1 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    client.write_all(request.as_bytes()).await.expect("written");
    let mut line = String::new();
    client.read_line(&mut line).await.expect("a line");
    assert_eq!(line.trim(), "HTTP/1.1 101 UPGRADED");
    client.write_all(b"hello").await.expect("written");
    client.get_mut().shutdown().await.expect("closed");
    let mut rest = String::new();
    timeout(PATIENCE, client.read_to_string(&mut rest)).await.expect("in time").expect("text");
    assert!(rest.ends_with("\r\n\r\nHELLO bye"), "{rest}");
}

#[tokio::test]
async fn a_call_that_waits_at_a_primary_ends_when_another_one_leads() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = silent.local_addr().expect("an address").to_string();
    let replica = manager(replica_of(&addr), false).await;
    let mut client = Client::connect(&replica).await;
    let call = tokio::spawn(async move { client.call("POST /containers/web/wait").await });
    // It has the call, and is cut off then.
    let _connection = timeout(PATIENCE, silent.accept()).await.expect("in time").expect("a connection");
    replica.role.send_replace(Role::Primary);
    let answer = call.await.expect("no panic");
    assert!(answer.starts_with("500 ") && answer.contains("it no longer leads"), "{answer}");
}
