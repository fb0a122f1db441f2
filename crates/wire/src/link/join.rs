//! Admission of newcomers. The newcomer knows the pool by its CA's fingerprint; the pool knows it by the secret of its
//! code or token.
//!
//! A pool without managers gives a newcomer what all its nodes share. In a swarm a manager certifies the newcomer's key, and gives
//! it nothing that could let another node in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use herder_model::swarm::ManagerAddr;
use herder_tls::certs::Request;
use herder_tls::{Judge, judged_by};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring as provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::certify::{heard, new_request, say, talk};
use super::{CONNECT_TIME_MAX, Link, LinkError, Road, connect, shake};
use crate::identity::{Certified, Identity, Shared, VERSIONS, new_id};
use crate::join_code::{JoinCode, Secret, fingerprint};

/// Refusal of a manager to a release without certificate requests.
const TOO_OLD: &str = "the managers of this swarm certify its nodes; update herder on the node that is to join";

#[derive(Serialize, Deserialize)]
struct Question {
    secret: Secret,
    name: String,
    /// PKCS #10, PEM. Releases before this one do not have it.
    #[serde(default)]
    request: String,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    /// Into a pool without managers.
    Welcome(Box<Shared>),
    Refused(String),
    /// Into a swarm.
    Admitted(Box<Admission>),
    /// Managers let nodes in, and these are some.
    Elsewhere(Vec<ManagerAddr>),
    /// The token is right, and the node cannot be certified at present. Earlier releases take it for a refusal.
    NotNow(String),
}

#[derive(Serialize, Deserialize)]
struct Admission {
    /// Id of the newcomer.
    id: String,
    certified: Certified,
    managers: Vec<ManagerAddr>,
}

/// A node that was let in.
#[derive(Clone, Debug)]
pub struct Joined {
    pub identity: Identity,
    /// The managers of the swarm; none in a pool without managers.
    pub managers: Vec<ManagerAddr>,
}

/// Asks these nodes in turn, and the managers that they name, to be let into the pool of `code`. Ends with the first
/// answer that is a yes or a no.
pub async fn join(addresses: &[String], code: &JoinCode, name: &str, now: SystemTime) -> Result<Joined, LinkError> {
    let mut last = LinkError::NoManager;
    let mut waiting: Vec<String> = addresses.iter().rev().cloned().collect();
    let mut asked = Vec::new();
    while let Some(addr) = waiting.pop() {
        if asked.contains(&addr) {
            continue;
        }
        asked.push(addr.clone());
        let Request { request, key } = new_request(name)?;
        let question = Question { secret: *code.secret(), name: name.to_owned(), request };
        let answer = match timeout(CONNECT_TIME_MAX * 2, ask(&addr, code, &question)).await {
            Ok(answer) => answer,
            Err(_) => Err(LinkError::Late { addr: addr.clone() }),
        };
        match answer {
            Ok(Answer::Welcome(shared)) => {
                return Ok(Joined { identity: Identity::of(name, *shared, now)?, managers: Vec::new() });
            }
            Ok(Answer::Admitted(admission)) => {
                let Admission { id, certified, managers } = *admission;
                return Ok(Joined { identity: Identity::admitted(id, name, key, certified)?, managers });
            }
            Ok(Answer::Elsewhere(managers)) => waiting.extend(managers.into_iter().map(|it| it.addr)),
            Ok(Answer::Refused(reason)) => return Err(LinkError::Refused { addr, reason }),
            Ok(Answer::NotNow(reason)) => last = LinkError::NotNow { addr, reason },
            Err(error @ (LinkError::Connect { .. } | LinkError::Late { .. })) => {
                tracing::debug!(%error, "asking the next node");
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

async fn ask(addr: &str, code: &JoinCode, question: &Question) -> Result<Answer, LinkError> {
    let stranger = |source| LinkError::Stranger { addr: addr.to_owned(), source };
    let verifier = judged_by(ByFingerprint(code.clone()));
    let crypto = Arc::new(provider::default_provider());
    let builder = ClientConfig::builder_with_provider(crypto).with_protocol_versions(VERSIONS);
    let builder = builder.map_err(|error| stranger(io::Error::other(error)))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = Road::Join.protocols();
    let name_there = ServerName::try_from("node.herder").map_err(|error| stranger(io::Error::other(error)))?;
    let tcp = connect(addr).await?;
    let stream = shake(Arc::new(config), name_there, tcp, addr, Road::Join).await?;
    talk(stream, question).await.map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => {
            LinkError::Refused { addr: addr.to_owned(), reason: format!("its answer is malformed: {source}") }
        }
        _ => LinkError::Connect { addr: addr.to_owned(), source },
    })
}

/// Answers a newcomer.
pub(super) async fn answer(link: &Link, mut stream: TlsStream<TcpStream>, from: SocketAddr) -> io::Result<()> {
    let answer = match heard::<Question>(&mut stream).await {
        Ok(question) => {
            let answer = decide(link, &question).await;
            match &answer {
                Answer::Welcome(_) | Answer::Admitted(_) => {
                    tracing::info!(%from, name = question.name, "a node joined")
                }
                Answer::Elsewhere(_) => {}
                Answer::Refused(reason) | Answer::NotNow(reason) => {
                    if let Some(silent) = link.limits.newcomers.due() {
                        tracing::warn!(%from, name = question.name, reason, silent, "refused a node that asked to join");
                    }
                }
            }
            answer
        }
        Err(error) => {
            if let Some(silent) = link.limits.newcomers.due() {
                tracing::warn!(%from, %error, silent, "refused a malformed request to join");
            }
            Answer::Refused(format!("malformed question: {error}"))
        }
    };
    say(&mut stream, &answer).await
}

async fn decide(link: &Link, question: &Question) -> Answer {
    if let Some(certifier) = link.certifier() {
        let Some(role) = certifier.admits(&question.secret) else {
            return Answer::Refused(
                "the token is none of this swarm's (any more); `docker swarm join-token` prints it".into(),
            );
        };
        if question.request.is_empty() {
            return Answer::Refused(TOO_OLD.into());
        }
        let id = new_id();
        return match link.certified_as(&*certifier, &id, role, question.request.clone()).await {
            Ok(certified) => Answer::Admitted(Box::new(Admission { id, certified, managers: certifier.managers() })),
            Err(reason) => Answer::NotNow(format!("the node cannot be certified: {reason}")),
        };
    }
    if let Some(roster) = link.roster() {
        return match question.request.is_empty() {
            true => Answer::Refused(TOO_OLD.into()),
            false => Answer::Elsewhere(roster.managers.clone()),
        };
    }
    // As it is now: a newcomer that came with the old code before a change must not outwait it.
    let shared = &link.identity().shared;
    match shared.lets_in(&question.secret) {
        true if shared.has_authority() => Answer::Welcome(Box::new(shared.clone())),
        true => Answer::Refused("this node does not have the key of the root yet; try again".into()),
        false => Answer::Refused("the join code is not that of this pool (any more); `herder token` prints it".into()),
    }
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
