//! The server by its sockets: names, sizes, strangers, rubbish, and what it knows after a restart.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use herder_dns::{DNS_PORT, Feed, serve};
use herder_parts::aside::Client;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a feed for a network with its gateway on loopback; queries come from 127.0.0.1.
fn feed(gateway: &str, tasks: u8) -> Feed {
    let mut state = json!({
        "facts": {"name": "ov", "vni": 4097, "subnets": [{"subnet": "127.0.0.0/8", "gateway": gateway}]},
        "nodes": {"n1": {"vtep": "192.0.2.1", "up": true}},
        "endpoints": {"me": {"node": "n1", "v4": "127.0.0.1", "names": ["me"], "serving": true, "dns": ["127.0.0.254"]}},
        "services": {"big": {"name": "big", "mode": "dnsrr"}}
    });
    for n in 0..tasks {
        state["endpoints"][format!("t{n}")] = json!({"node": "n1", "v4": format!("127.3.0.{n}"), "names": [format!("big.{n}")], "service": "big", "serving": true});
    }
    let state = serde_json::from_value(state).unwrap();
    Feed { node: "n1".into(), put: [("ov".to_owned(), state)].into(), ..Feed::default() }
}

fn question(name: &str, kind: RecordType, edns: bool) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if edns {
        message.set_edns(Edns::new().set_max_payload(4096).clone());
    }
    message.to_vec().unwrap()
}

async fn by_udp(gateway: &str, from: &str, packet: &[u8]) -> Message {
    let socket = UdpSocket::bind((from.parse::<IpAddr>().unwrap(), 0)).await.unwrap();
    socket.send_to(packet, SocketAddr::new(gateway.parse().unwrap(), DNS_PORT)).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let count = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    Message::from_vec(&buffer[..count]).unwrap()
}

async fn by_tcp(gateway: &str, packet: &[u8]) -> Message {
    let mut stream = TcpStream::connect((gateway.parse::<Ipv4Addr>().unwrap(), DNS_PORT)).await.unwrap();
    stream.write_all(&[&u16::try_from(packet.len()).unwrap().to_be_bytes(), packet].concat()).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

async fn connected(path: &std::path::Path) -> Client {
    let connecting = async {
        loop {
            match Client::connect(path).await {
                Ok(client) => break client,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(PATIENCE, connecting).await.expect("a server")
}

#[tokio::test]
async fn sizes_strangers_and_rubbish() {
    let (gateway, folder) = ("127.2.0.1", tempfile::tempdir().unwrap());
    let (path, end) = (folder.path().join("s"), CancellationToken::new());
    let server = tokio::spawn({
        let (path, folder, end) = (path.clone(), folder.path().to_owned(), end.clone());
        async move { serve(&path, &folder, end).await }
    });
    let mut client = connected(&path).await;
    client.feed(feed(gateway, 100)).await.unwrap();
    let ask = question("big.", RecordType::A, false);
    let short = by_udp(gateway, "127.0.0.1", &ask).await;
    assert!(short.metadata.truncation && short.answers.is_empty());
    assert_eq!(by_tcp(gateway, &ask).await.answers.len(), 100);
    client.feed(feed(gateway, 60)).await.unwrap();
    let large = by_udp(gateway, "127.0.0.1", &question("big.", RecordType::A, true)).await;
    assert_eq!((large.metadata.truncation, large.answers.len()), (false, 60));
    let stranger = by_udp(gateway, "127.0.0.9", &ask).await;
    assert_eq!(stranger.metadata.response_code, ResponseCode::Refused);
    let rubbish = by_udp(gateway, "127.0.0.1", &[1, 2, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0xc0, 0x0c]).await;
    assert_eq!(rubbish.metadata.response_code, ResponseCode::FormErr);
    // Its own server is away: said so, and not left without an answer.
    let other = by_udp(gateway, "127.0.0.1", &question("example.org.", RecordType::A, false)).await;
    assert_eq!(other.metadata.response_code, ResponseCode::ServFail);
    // Killed and started again: it answers before anybody feeds it.
    server.abort();
    let _ = server.await;
    drop(client);
    let again = CancellationToken::new();
    let restarted = {
        let (path, folder, again) = (path.clone(), folder.path().to_owned(), again.clone());
        tokio::spawn(async move { serve(&path, &folder, again).await })
    };
    connected(&path).await;
    assert_eq!(by_udp(gateway, "127.0.0.1", &question("big.3.", RecordType::A, false)).await.answers.len(), 1);
    let mut client = connected(&path).await;
    // It may end before it answers.
    let _ = client.feed(Feed { end: true, ..Feed::default() }).await;
    timeout(PATIENCE, client.closed()).await.expect("its end");
    timeout(PATIENCE, restarted).await.expect("its end").unwrap().unwrap();
}
