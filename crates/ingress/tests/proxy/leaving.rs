//! Tests what clients see when a node is lost behind the ingress, and when the ingress itself leaves.

use std::collections::BTreeSet;
use std::io;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::edge::{Edge, PATIENCE, head, state, status};

fn tasks(tasks: &[(&str, &str)]) -> Value {
    let one = |(id, node): &(&str, &str)| ((*id).to_owned(), json!({"state": "serving", "weight": 1, "node": node}));
    json!({"s": {"pass_host": true, "backends": tasks.iter().map(one).collect::<serde_json::Map<_, _>>()}})
}

fn route() -> Value {
    json!({"r": {"rule": "Host(`a`)", "service": "s"}})
}

/// Nothing comes from a host without power, not even the end of a connection.
async fn silent(edge: &Edge, name: &str) -> watch::Receiver<u32> {
    let (asked, seen) = watch::channel(0);
    let asked = std::sync::Arc::new(asked);
    edge.task(name, move |mut stream| {
        let asked = asked.clone();
        async move {
            head(&mut stream).await?;
            asked.send_modify(|it| *it += 1);
            std::future::pending::<io::Result<()>>().await
        }
    })
    .await;
    seen
}

#[tokio::test]
async fn a_request_to_a_lost_node_goes_to_another_task() {
    let mut edge = Edge::new();
    let mut asked = silent(&edge, "lost").await;
    edge.apply(state(route(), json!({}), tasks(&[("lost", "n1")])));
    let at = edge.at("web");
    let waiting = tokio::spawn(super::edge::ask(at, "GET / HTTP/1.1\nhost: a\n"));
    asked.wait_for(|it| *it == 1).await.expect("it is asked");
    edge.echo("good").await;
    edge.apply(state(route(), json!({}), tasks(&[("good", "n2"), ("lost", "n1")])));
    edge.ingress.suspect(BTreeSet::from(["n1".to_owned()]));
    let answer = timeout(PATIENCE, waiting).await.expect("in time").expect("no panic");
    assert!(answer.contains("good\nGET / HTTP/1.1"), "{answer}");
    // Nobody asks it, as long as there is another one.
    for _ in 0..4 {
        assert!(edge.ask("GET / HTTP/1.1\nhost: a\n").await.contains("good\n"));
    }
    assert_eq!(*asked.borrow(), 1);
}

#[tokio::test]
async fn a_leaving_ingress_ends_each_connection_with_an_answer() {
    let mut edge = Edge::new();
    edge.echo("web").await;
    edge.apply(state(route(), json!({}), tasks(&[("web", "n1")])));
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut kept = TcpStream::connect(edge.at("web")).await.expect("it listens");
    kept.write_all(request).await.expect("written");
    let first = head(&mut kept).await.expect("read").expect("an answer");
    assert!(!first.contains("connection: close"), "{first}");
    let length: usize =
        first.lines().find_map(|it| it.strip_prefix("content-length: ")?.parse().ok()).expect("a length");
    kept.read_exact(&mut vec![0; length]).await.expect("a body");
    let mut idle = TcpStream::connect(edge.at("web")).await.expect("it listens");
    idle.write_all(request).await.expect("written");
    idle.read_exact(&mut [0; 20]).await.expect("an answer");
    let at = edge.at("web");
    let ingress = &edge.ingress;
    let leaving = async {
        timeout(PATIENCE, ingress.leave()).await.expect("in time");
    };
    let client = async {
        // It is told with the answer, whatever it asked before.
        kept.write_all(request).await.expect("written");
        let mut answer = String::new();
        kept.read_to_string(&mut answer).await.expect("an answer");
        assert!(status(&answer) == "200" && answer.contains("connection: close"), "{answer}");
        // One that comes meanwhile is served.
        assert_eq!(status(&super::edge::ask(at, "GET / HTTP/1.1\nhost: a\n").await), "200");
    };
    // The client goes first: it must not find a closed connection.
    tokio::join!(leaving, client);
    // One that says nothing is closed.
    let mut rest = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut rest)).await.expect("in time").expect("it is closed");
    assert!(TcpStream::connect(at).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_leaving_ingress_closes_websockets_in_their_way() {
    let mut edge = Edge::new();
    edge.task("web", |mut stream| async move {
        head(&mut stream).await?;
        let upgraded = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(upgraded.as_bytes()).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(drop)
    })
    .await;
    edge.apply(state(route(), json!({}), tasks(&[("web", "n1")])));
    let mut stream = TcpStream::connect(edge.at("web")).await.expect("it listens");
    let asks = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(asks.as_bytes()).await.expect("written");
    let upgraded = head(&mut stream).await.expect("read").expect("an answer");
    assert_eq!(status(&upgraded), "101");
    let leaving = async {
        timeout(PATIENCE, edge.ingress.leave()).await.expect("in time");
    };
    let client = async {
        let mut close = [0; 4];
        stream.read_exact(&mut close).await.expect("a frame");
        assert_eq!(close, [0x88, 0x02, 0x03, 0xe9]);
        drop(stream);
    };
    tokio::join!(leaving, client);
}
