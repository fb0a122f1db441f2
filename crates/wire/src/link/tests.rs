use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::*;
use crate::join_code::JoinCode;

/// A node that listens on loopback and answers each byte of a peer with the peer's id.
pub(super) struct Host {
    pub(super) link: Arc<Link>,
    pub(super) addr: String,
    pub(super) id: String,
    pub(super) code: JoinCode,
    pub(super) roads: mpsc::UnboundedReceiver<Road>,
    /// Rights of the peers that connected.
    pub(super) access: Arc<Mutex<Vec<Access>>>,
    _stop: tokio_util::sync::DropGuard,
    folder: tempfile::TempDir,
}

impl Host {
    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

pub(super) async fn host(identity: Identity) -> Host {
    let folder = tempfile::tempdir().unwrap();
    let (id, code) = (identity.id.clone(), identity.join_code().unwrap());
    let link = Link::new(identity, folder.path().to_owned()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let (told, roads) = mpsc::unbounded_channel();
    let access = Arc::new(Mutex::new(Vec::new()));
    let seen = access.clone();
    let accept = move |mut incoming: Incoming| {
        seen.lock().push(incoming.access);
        let _ = told.send(incoming.road);
        tokio::spawn(async move {
            let (revoked, outgrown) = (incoming.revoked(), incoming.outgrown());
            tokio::select! {
                _ = incoming.stream.read_u8() => {}
                () = revoked => return,
                () = outgrown => return,
            }
            let _ = incoming.stream.write_all(incoming.node.as_bytes()).await;
            let _ = incoming.stream.shutdown().await;
        });
    };
    tokio::spawn(link.clone().serve(listener, stop.clone(), accept));
    Host { link, addr, id, code, roads, access, _stop: stop.drop_guard(), folder }
}

/// Lets a node in by the one at `addr`.
pub(super) async fn join(addr: &str, code: &JoinCode, name: &str) -> Result<Identity, LinkError> {
    Ok(super::join(&[addr.to_owned()], code, name, SystemTime::now()).await?.identity)
}

pub(super) fn first(name: &str) -> Identity {
    Identity::first(name, SystemTime::now()).unwrap()
}

/// Returns the identity that the other end sees, or the reason why it refuses.
pub(super) async fn greet(from: &Link, to: &Host, id: &str) -> Result<String, String> {
    let mut stream = from.dial(&to.addr, id, Road::Engine).await.map_err(|error| error.to_string())?;
    let mut text = String::new();
    let talk = async {
        stream.write_all(b"x").await?;
        stream.read_to_string(&mut text).await
    };
    talk.await.map_err(|error| error.to_string())?;
    Ok(text)
}

#[tokio::test]
async fn a_newcomer_with_the_code_becomes_a_node_like_any_other() {
    let mut old = host(first("old")).await;
    let shared = join(&old.addr, &old.code, "new").await.unwrap();
    let new = host(shared).await;
    assert_ne!(new.id, old.id);
    assert_eq!(new.code, old.code);
    assert_eq!(greet(&new.link, &old, &old.id).await, Ok(new.id.clone()));
    assert_eq!(greet(&old.link, &new, &new.id).await, Ok(old.id.clone()));
    assert_eq!(old.roads.recv().await, Some(Road::Engine));
}

#[tokio::test]
async fn a_wrong_code_lets_nobody_in() {
    let old = host(first("old")).await;
    let foreign = first("foreign").join_code().unwrap();
    for (code, expected) in [
        (JoinCode { secret: [0; 16], ca: old.code.ca }, "does not let this node in: the join code is not that"),
        (foreign, "the join code is of another pool"),
        (JoinCode { secret: old.code.secret, ca: [1; 32] }, "the join code is of another pool"),
    ] {
        let error = join(&old.addr, &code, "new").await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn after_a_change_only_the_new_code_lets_in_and_who_is_in_stays_in() {
    let old = host(first("old")).await;
    let shared = join(&old.addr, &old.code, "second").await.unwrap();
    let second = host(shared).await;
    let mut open = second.link.dial(&old.addr, &old.id, Road::Engine).await.unwrap();
    let code = old.link.rotate(SystemTime::now()).unwrap();
    // Where it was not told yet, the old code is good.
    assert!(join(&second.addr, &old.code, "early").await.is_ok());
    second.link.adopt(*old.link.rotations().borrow()).unwrap();
    for at in [&old.addr, &second.addr] {
        let error = join(at, &old.code, "late").await.unwrap_err().to_string();
        assert!(
            error.contains("the join code is not that of this pool (any more); `herder token` prints it"),
            "{error}"
        );
        let shared = join(at, &code, "third").await.unwrap();
        let third = host(shared).await;
        assert_eq!(third.code, code);
        assert_eq!(greet(&third.link, &second, &second.id).await, Ok(third.id.clone()));
    }
    assert_eq!(greet(&second.link, &old, &old.id).await, Ok(second.id.clone()));
    let mut text = String::new();
    open.write_all(b"x").await.unwrap();
    open.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, second.id);
}

#[tokio::test]
async fn a_newcomer_that_came_before_a_change_cannot_outwait_it() {
    let old = host(first("old")).await;
    let (tcp, accepted) = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap());
        (dialled.await.unwrap(), listener.accept().await.unwrap().0)
    };
    let from = accepted.peer_addr().unwrap();
    let link = old.link.clone();
    let answered = tokio::spawn(async move { link.open(accepted, from).await });
    let config = old.link.identity().client(Road::Join.protocols()).unwrap();
    let name = ServerName::try_from("node.herder").unwrap();
    let mut stream = TlsConnector::from(config).connect(name, tcp).await.unwrap();
    old.link.rotate(SystemTime::now()).unwrap();
    let question = serde_json::json!({"secret": old.code.secret, "name": "late"});
    stream.write_all(question.to_string().as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("Refused"), "{text}");
    assert!(answered.await.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn strangers_are_refused() {
    let old = host(first("old")).await;
    let foreign = host(first("foreign")).await;
    let error = greet(&foreign.link, &old, &old.id).await.unwrap_err();
    assert!(error.contains("is no node of this pool"), "{error}");
    // Of the pool, but not the one that was meant.
    let shared = join(&old.addr, &old.code, "new").await.unwrap();
    let new = host(shared.clone()).await;
    let error = greet(&new.link, &old, &new.id).await.unwrap_err();
    assert!(error.contains("is no node of this pool"), "{error}");
    // Of the pool, but long ago.
    let long_ago = SystemTime::now() - crate::identity::NODE_LIFETIME * 2;
    let expired = host(Identity::of("expired", shared.shared, long_ago).unwrap()).await;
    let error = greet(&expired.link, &old, &old.id).await.unwrap_err();
    assert!(!error.is_empty(), "{error}");
}

#[tokio::test]
async fn without_a_certificate_only_joining_is_possible() {
    let mut old = host(first("old")).await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = old.link.identity().shared.ca_cert.clone();
    let ca = <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::from_pem_slice(pem.as_bytes());
    roots.add(ca.unwrap()).unwrap();
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![Road::Engine.protocol().to_vec()];
    let tcp = TcpStream::connect(&old.addr).await.unwrap();
    let name = ServerName::try_from("node.herder").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let _ = stream.write_all(b"x").await;
    let mut text = String::new();
    let read = stream.read_to_string(&mut text).await;
    assert!(read.is_err() || text.is_empty(), "{text}");
    assert!(old.roads.try_recv().is_err());
}

#[tokio::test]
async fn noise_and_half_handshakes_harm_nobody() {
    let old = host(first("old")).await;
    let mut waiting = Vec::new();
    for noise in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096], b"\x16\x03\x01"] {
        let mut tcp = TcpStream::connect(&old.addr).await.unwrap();
        tcp.write_all(noise).await.unwrap();
        waiting.push(tcp);
    }
    let shared = join(&old.addr, &old.code, "new").await.unwrap();
    let new = host(shared).await;
    assert_eq!(greet(&new.link, &old, &old.id).await, Ok(new.id.clone()));
}

#[tokio::test]
async fn a_renewed_node_is_still_the_same_to_others() {
    let old = host(first("old")).await;
    let shared = join(&old.addr, &old.code, "new").await.unwrap();
    let new = host(shared).await;
    new.link.renew(SystemTime::now()).unwrap();
    assert_eq!(greet(&new.link, &old, &old.id).await, Ok(new.id.clone()));
    assert_eq!(greet(&old.link, &new, &new.id).await, Ok(old.id.clone()));
}
