//! Tests a node of this version beside one of the next, or of one too far away. All happens at the link
//! before any call.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use tokio_rustls::TlsAcceptor;

use super::tests::{first, greet, host, join};
use super::*;

/// The roads that peers open; joining has its own test.
const PEERS: [Road; 3] = [Road::Engine, Road::Calls, Road::Bus];

/// Returns the offers of the next version for a road: its own protocol, then that of this version.
fn next(road: Road) -> Vec<Vec<u8>> {
    [far(road), road.protocols()].concat()
}

/// Returns the offers of a version that no longer knows this one.
fn far(road: Road) -> Vec<Vec<u8>> {
    let name = String::from_utf8_lossy(road.protocol()).into_owned();
    vec![name.replace("/1", "/2").into_bytes()]
}

/// A second node of the pool of `of`.
fn second(of: &Link) -> Identity {
    Identity::of("second", of.identity().shared.clone(), SystemTime::now()).unwrap()
}

/// Opens a connection as a node that offers `protocols` does.
async fn dial(identity: &Identity, protocols: Vec<Vec<u8>>, addr: &str, id: &str) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    let name = ServerName::try_from(server_name(id)).unwrap();
    let connector = TlsConnector::from(identity.client(protocols).unwrap());
    Ok(connector.connect(name, tcp).await?.into())
}

/// Takes one connection as a node that knows `protocols` does, reads a byte and answers with what was agreed on.
async fn serve_one(identity: &Identity, protocols: Vec<Vec<u8>>) -> (String, JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let config = identity.server(protocols).unwrap();
    let served = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let mut stream = TlsAcceptor::from(config).accept(tcp).await?;
        let agreed = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
        stream.read_u8().await?;
        stream.write_all(&agreed).await?;
        stream.shutdown().await
    });
    (addr, served)
}

async fn say(stream: &mut TlsStream<TcpStream>) -> String {
    let mut text = String::new();
    stream.write_all(b"x").await.unwrap();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_node_of_the_next_version_reaches_this_one() {
    let mut here = host(first("here")).await;
    let there = second(&here.link);
    for road in PEERS {
        let mut stream = dial(&there, next(road), &here.addr, &here.id).await.unwrap();
        assert_eq!(say(&mut stream).await, there.id);
        assert_eq!(here.roads.recv().await, Some(road));
    }
}

#[tokio::test]
async fn this_node_reaches_one_of_the_next_version() {
    let here = host(first("here")).await;
    let there = second(&here.link);
    for road in PEERS {
        let all: Vec<Vec<u8>> = Road::ALL.into_iter().flat_map(next).collect();
        let (addr, served) = serve_one(&there, all).await;
        let mut stream = here.link.dial(&addr, &there.id, road).await.unwrap();
        assert_eq!(say(&mut stream).await.as_bytes(), road.protocol());
        served.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_newcomer_of_this_version_joins_at_a_node_of_the_next() {
    let old = first("old");
    let code = old.join_code().unwrap();
    let config = old.server(Road::ALL.into_iter().flat_map(next).collect()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    // All that the next version shares, and something that this one does not know.
    let mut shared = serde_json::to_value(&old.shared).unwrap();
    shared["more"] = serde_json::json!([1, 2, 3]);
    let served = tokio::spawn(async move {
        let mut stream = TlsAcceptor::from(config).accept(listener.accept().await?.0).await?;
        let mut question = Vec::new();
        stream.read_to_end(&mut question).await?;
        stream.write_all(serde_json::json!({ "Welcome": shared }).to_string().as_bytes()).await?;
        stream.shutdown().await
    });
    let shared = join(&addr, &code, "new").await.unwrap();
    served.await.unwrap().unwrap();
    assert_eq!(shared.shared.gossip_key, old.shared.gossip_key);
}

#[tokio::test]
async fn a_newcomer_of_the_next_version_joins_here() {
    let here = host(first("here")).await;
    let mut stream = dial(&first("elsewhere"), next(Road::Join), &here.addr, &here.id).await;
    // With a foreign certificate it is a stranger, whatever it speaks.
    assert!(stream.is_err(), "a foreign CA was believed");
    stream = dial(&second(&here.link), next(Road::Join), &here.addr, &here.id).await;
    let mut stream = stream.unwrap();
    let question = serde_json::json!({"secret": here.code.secret, "name": "new", "more": {"of": "it"}});
    stream.write_all(question.to_string().as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("Welcome"), "{text}");
}

#[tokio::test]
async fn two_versions_too_far_apart_say_so_on_both_sides_and_nothing_breaks() {
    let mut here = host(first("here")).await;
    let there = second(&here.link);
    let expected = "too far apart";
    for road in PEERS {
        // The other one comes to us …
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let (opened, dialled) = tokio::join!(
            async {
                let (tcp, from) = listener.accept().await.unwrap();
                here.link.open(tcp, from).await
            },
            dial(&there, far(road), &addr, &here.id)
        );
        let refused = opened.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        assert!(refused.to_string().contains(expected) && refused.to_string().contains("herder-bus/1"), "{refused}");
        assert!(tells_of_version(&dialled.unwrap_err()));
        // … and we go to it.
        let (addr, served) = serve_one(&there, Road::ALL.into_iter().flat_map(far).collect()).await;
        let error = here.link.dial(&addr, &there.id, road).await.unwrap_err();
        let protocol = String::from_utf8_lossy(road.protocol());
        assert!(matches!(&error, LinkError::Version { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("does not speak {protocol}")), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(tells_of_version(&served.await.unwrap().unwrap_err()));
    }
    // A newcomer hears the same.
    let (addr, _) = serve_one(&there, far(Road::Join)).await;
    let error = join(&addr, &here.code, "new").await.unwrap_err();
    assert!(error.to_string().contains("does not speak herder-join/1"), "{error}");
    // Through the listener, too; and it goes on.
    assert!(dial(&there, far(Road::Calls), &here.addr, &here.id).await.is_err());
    let same = host(there).await;
    assert_eq!(greet(&same.link, &here, &here.id).await, Ok(same.id.clone()));
    assert_eq!(here.roads.recv().await, Some(Road::Engine));
}

#[tokio::test]
async fn whoever_knows_no_protocols_at_all_is_told_apart() {
    let here = host(first("here")).await;
    let there = second(&here.link);
    let (addr, _) = serve_one(&there, Vec::new()).await;
    let error = here.link.dial(&addr, &there.id, Road::Bus).await.unwrap_err();
    assert!(matches!(&error, LinkError::Version { protocol, .. } if protocol == "herder-bus/1"), "{error:?}");
    let mut stream = dial(&there, Vec::new(), &here.addr, &here.id).await.unwrap();
    let mut text = String::new();
    let read = stream.read_to_string(&mut text).await;
    assert!(read.is_err() || text.is_empty(), "{text}");
}
