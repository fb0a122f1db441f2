//! The bus bridge on TCP, as [`server::serve_bus`] serves it.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use herder_bus::Settings;
use herder_bus::bridge::{Bridge, Limits, Rules, tcp};
use herder_bus::memory::Mesh;
use herder_front::server;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls};
use tokio_util::sync::CancellationToken;

/// A client and a server that know only each other's certificate.
fn tls() -> (Arc<rustls::ClientConfig>, Arc<rustls::ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["bus".to_owned()]).expect("a certificate");
    let key = || rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let chain = vec![made.cert.der().clone()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(chain.clone(), key().into())
        .expect("a certificate that fits");
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key().into())
        .expect("a certificate that fits");
    (Arc::new(client), Arc::new(server))
}

#[tokio::test]
async fn over_tls_only_clients_with_a_known_certificate_are_served() {
    let bus = Mesh::new(1).bus("one", Settings::default());
    let bridge = Bridge::new(bus, Rules::documented("herder"), Limits::default());
    let (known, server) = tls();
    let (stranger, _) = tls();
    let listener = server::bind("tcp://127.0.0.1:0", Some(server)).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server::serve_bus(bridge, listener, stop.clone()));
    let ask = async |config: &Arc<rustls::ClientConfig>| {
        let stream = TcpStream::connect(addr).await?;
        let name = rustls::pki_types::ServerName::try_from("bus").expect("a name");
        let mut stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
        let mut frame = BytesMut::new();
        tcp::join(&mut frame, &json!({"type": "ping"}));
        stream.write_all(&frame).await?;
        let mut answer = vec![0; 19];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = ask(&known).await.expect("served");
    assert_eq!(&answer[4..], br#"{"type":"pong"}"#);
    ask(&stranger).await.expect_err("refused");
    let mut plain = TcpStream::connect(addr).await.expect("a connection");
    plain.write_all(b"\0\0\0\x0f{\"type\":\"ping\"}").await.expect("written");
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard).await;
    assert!(!String::from_utf8_lossy(&heard).contains("pong"), "{heard:?}");
    stop.cancel();
    serving.await.expect("an end");
}
