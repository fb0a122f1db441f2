//! How a newcomer is let in: it knows the pool by the CA's fingerprint, the pool knows it by the secret of the join code.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use herder_tls::{Judge, judged_by};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring as provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::{CONNECT_TIME_MAX, Link, LinkError, Road, connect, shake};
use crate::identity::{Shared, VERSIONS};
use crate::join_code::{JoinCode, Secret, fingerprint, same_secret};

/// Question and answer are some kilobytes.
const MESSAGE_BYTES_MAX: u64 = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Question {
    secret: Secret,
    name: String,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Welcome(Box<Shared>),
    Refused(String),
}

/// Asks the node at `addr` to be let into the pool of `code`.
pub async fn join(addr: &str, code: &JoinCode, name: &str) -> Result<Shared, LinkError> {
    timeout(CONNECT_TIME_MAX * 2, ask(addr, code, name)).await.map_err(|_| LinkError::Late { addr: addr.to_owned() })?
}

async fn ask(addr: &str, code: &JoinCode, name: &str) -> Result<Shared, LinkError> {
    let stranger = |source| LinkError::Stranger { addr: addr.to_owned(), source };
    let broken = |source| LinkError::Connect { addr: addr.to_owned(), source };
    let verifier = judged_by(ByFingerprint(code.clone()));
    let crypto = Arc::new(provider::default_provider());
    let builder = ClientConfig::builder_with_provider(crypto).with_protocol_versions(VERSIONS);
    let builder = builder.map_err(|error| stranger(io::Error::other(error)))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = Road::Join.protocols();
    let name_there = ServerName::try_from("node.herder").map_err(|error| stranger(io::Error::other(error)))?;
    let tcp = connect(addr).await?;
    let mut stream = shake(Arc::new(config), name_there, tcp, addr, Road::Join).await?;
    let question = Question { secret: code.secret, name: name.to_owned() };
    let question = serde_json::to_vec(&question).map_err(|error| broken(error.into()))?;
    stream.write_all(&question).await.map_err(broken)?;
    stream.shutdown().await.map_err(broken)?;
    let mut text = Vec::new();
    stream.take(MESSAGE_BYTES_MAX).read_to_end(&mut text).await.map_err(broken)?;
    let refused = |reason: String| LinkError::Refused { addr: addr.to_owned(), reason };
    match serde_json::from_slice(&text) {
        Ok(Answer::Welcome(shared)) => Ok(*shared),
        Ok(Answer::Refused(reason)) => Err(refused(reason)),
        Err(error) => Err(refused(format!("its answer makes no sense: {error}"))),
    }
}

/// Answers a newcomer.
pub(super) async fn answer(link: &Link, mut stream: TlsStream<TcpStream>, from: SocketAddr) -> io::Result<()> {
    let mut text = Vec::new();
    (&mut stream).take(MESSAGE_BYTES_MAX).read_to_end(&mut text).await?;
    // As it is now: a newcomer that came with the old code before a change must not outwait it.
    let shared = &link.identity().shared;
    let is_right = |secret: &Secret| {
        let also_in = link.also_in.lock();
        also_in.iter().chain([&shared.secret]).any(|right| same_secret(secret, right))
    };
    let answer = match serde_json::from_slice::<Question>(&text) {
        Ok(question) if is_right(&question.secret) => {
            tracing::info!(%from, name = question.name, "a node joins");
            Answer::Welcome(Box::new(shared.clone()))
        }
        Ok(question) => {
            if let Some(silent) = link.limits.newcomers.due() {
                tracing::warn!(%from, name = question.name, silent, "a node with a wrong join code is refused");
            }
            Answer::Refused("the join code is not that of this pool (any more); `herder token` prints it".into())
        }
        Err(error) => {
            if let Some(silent) = link.limits.newcomers.due() {
                tracing::warn!(%from, %error, silent, "a request to join that cannot be read is refused");
            }
            Answer::Refused(format!("the question makes no sense: {error}"))
        }
    };
    stream.write_all(&serde_json::to_vec(&answer)?).await?;
    stream.shutdown().await
}

/// Trusts exactly the CA with the fingerprint of the join code.
#[derive(Debug)]
struct ByFingerprint(JoinCode);

impl Judge for ByFingerprint {
    fn judge(
        &self,
        cert: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let ca = chain.iter().find(|it| fingerprint(it) == self.0.ca);
        let ca = ca.ok_or_else(|| rustls::Error::General("the join code is of another pool".into()))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let crypto = Arc::new(provider::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto).build();
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(cert, chain, name, &[], now).map(drop)
    }
}
