//! Certificates of a swarm's nodes: a node makes a key and asks a manager to certify it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use herder_model::swarm::{ManagerAddr, Role};
use herder_tls::certs::{self, Authority, CertError, Pair, Request};
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{CONNECT_TIME_MAX, Current, Link, LinkError, Road, connect, shake};
use crate::Secret;
use crate::channels::Peer;
use crate::identity::{Certified, Identity, IdentityError, OwnPool, Shared, Trust, server_name};
use crate::subject::{self, Subject};

/// Question and answer are some kilobytes.
pub(super) const MESSAGE_BYTES_MAX: u64 = 64 << 10;

/// Maximum time that a manager may take for a certificate. An external CA may be involved.
const CERTIFY_TIME_MAX: Duration = Duration::from_secs(20);

/// A manager's right to let nodes in and to certify them.
pub trait Certifier: std::fmt::Debug + Send + Sync + 'static {
    /// Id of the swarm.
    fn cluster(&self) -> String;
    /// Returns the role that the secret of a token admits; `None` if no token has it.
    fn admits(&self, secret: &Secret) -> Option<Role>;
    /// Returns the role of this node in the swarm's record, or the reason why it gets no certificate.
    fn role_of(&self, subject: &Subject) -> Result<Role, String>;
    /// The managers that are there now.
    fn managers(&self) -> Vec<ManagerAddr>;
    /// Returns the lifetime of certificates; zero keeps that of the nodes.
    fn lifetime(&self) -> Duration;
    /// The roots that nodes shall trust.
    fn trust(&self) -> Result<Trust, String>;
    /// A certificate (PEM) for the key of the request.
    fn certify(&self, wish: Wish) -> BoxFuture<'_, Result<String, String>>;
}

/// A certificate that is to be made.
#[derive(Clone, Debug)]
pub struct Wish {
    /// PKCS #10, PEM.
    pub request: String,
    pub subject: certs::Subject,
    pub names: Vec<String>,
    pub lifetime: Duration,
}

impl Wish {
    /// Returns the role that the certificate is to have.
    pub fn role(&self) -> Option<Role> {
        subject::role(&self.subject.unit)
    }

    /// Signs it with the key of this root. The certificate says that it was issued then, in milliseconds since 1970.
    pub fn sign(&self, root: Pair, issued_ms: u64, now: SystemTime) -> Result<String, CertError> {
        let serial = subject::serial(issued_ms);
        Authority::from_pair(root)?.certify(&self.request, &self.subject, &self.names, &serial, now, self.lifetime)
    }
}

/// Request of a node of the pool to a manager.
#[derive(Serialize, Deserialize)]
struct Question {
    /// PKCS #10, PEM.
    request: String,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Certified(Box<Certified>),
    /// There is no swarm: the values that all nodes share.
    Pool(Box<Shared>),
    /// Managers are asked, and these are some.
    Elsewhere(Vec<ManagerAddr>),
    Refused(String),
}

impl Link {
    /// Sets the certifier if this node is a manager, or removes it.
    pub fn certify_with(&self, certifier: Option<Arc<dyn Certifier>>) {
        *self.certifier.lock() = certifier;
    }

    pub(super) fn certifier(&self) -> Option<Arc<dyn Certifier>> {
        self.certifier.lock().clone()
    }

    /// Gets a new key and a certificate for it. The certificate comes from this node if it can certify, else from
    /// the first of `managers` that does. Values that the node does not need any more are removed, also from the
    /// disk.
    pub async fn obtain(&self, managers: &[Peer]) -> Result<(), LinkError> {
        let identity = self.identity();
        let Request { request, key } = new_request(&identity.id)?;
        if let Some(certifier) = self.certifier() {
            let subject = identity.subject().ok_or(IdentityError::NoAuthority)?;
            let certified = self.certified(&*certifier, &subject, request).await;
            let refused = |reason| LinkError::Refused { addr: "this node".to_owned(), reason };
            return self.take_up(key, certified.map_err(refused)?);
        }
        let mut last = LinkError::NoManager;
        let mut waiting: Vec<Peer> = managers.iter().rev().cloned().collect();
        let mut asked = Vec::new();
        while let Some(manager) = waiting.pop() {
            if asked.contains(&manager) {
                continue;
            }
            asked.push(manager.clone());
            match timeout(CONNECT_TIME_MAX + CERTIFY_TIME_MAX, self.ask(&manager, &request)).await {
                Ok(Ok(Answer::Certified(certified))) => return self.take_up(key, *certified),
                Ok(Ok(Answer::Pool(shared))) => {
                    self.change(|is| Ok(Some(is.of_pool(*shared, SystemTime::now())?)))?;
                    return Ok(());
                }
                Ok(Ok(Answer::Elsewhere(managers))) => {
                    waiting.extend(managers.into_iter().map(|it| Peer { id: it.id, addr: it.addr }));
                }
                Ok(Ok(Answer::Refused(reason))) => last = LinkError::Refused { addr: manager.addr, reason },
                Ok(Err(error)) => last = error,
                Err(_) => last = LinkError::Late { addr: manager.addr },
            }
        }
        Err(last)
    }

    /// Makes this node the first one of a pool without managers.
    pub fn begin_pool(&self, pool: OwnPool) -> Result<(), IdentityError> {
        self.change(|is| is.alone(pool, SystemTime::now()).map(Some)).map(drop)
    }

    /// Puts this node back to the identity that it had.
    pub fn put_back(&self, identity: Arc<Identity>) -> Result<(), IdentityError> {
        self.change(|_| Ok(Some(Identity::clone(&identity)))).map(drop)
    }

    fn take_up(&self, key: String, certified: Certified) -> Result<(), LinkError> {
        self.change(|is| is.certified(key, certified).map(Some))?;
        Ok(())
    }

    async fn ask(&self, manager: &Peer, request: &str) -> Result<Answer, LinkError> {
        let addr = &manager.addr;
        let config = self.current.load().clients[Road::Renew as usize].clone();
        let stranger = |source| LinkError::Stranger { addr: addr.clone(), source };
        let name = ServerName::try_from(server_name(&manager.id))
            .map_err(|error| stranger(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = shake(config, name, connect(addr).await?, addr, Road::Renew).await?;
        let broken = |source| LinkError::Connect { addr: addr.clone(), source };
        let question = Question { request: request.to_owned() };
        talk(stream, &question).await.map_err(broken)
    }

    /// Certifies the node with this subject, as this manager.
    pub(super) async fn certified(
        &self,
        certifier: &dyn Certifier,
        subject: &Subject,
        request: String,
    ) -> Result<Certified, String> {
        let role = certifier.role_of(subject)?;
        self.certified_as(certifier, &subject.node, role, request).await
    }

    pub(super) async fn certified_as(
        &self,
        certifier: &dyn Certifier,
        node: &str,
        role: Role,
        request: String,
    ) -> Result<Certified, String> {
        let identity = self.identity();
        let trust = certifier.trust()?;
        let told = certifier.lifetime();
        let lifetime = if told.is_zero() { identity.lifetime() } else { told };
        let subject = subject::certified(node, &certifier.cluster(), role);
        let wish = Wish { request, subject, names: crate::identity::names(node), lifetime };
        let cert = certifier.certify(wish).await?;
        let shared = identity.shared.public_for(trust);
        tracing::info!(node, ?role, "certified a node");
        Ok(Certified { cert, shared, lifetime_s: told.as_secs() })
    }

    /// Answers a node that comes for a certificate.
    pub(super) async fn answer_renewal(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        subject: &Subject,
        is_valid: bool,
    ) -> io::Result<()> {
        let question: Question = heard(&mut stream).await?;
        let roster = self.roster();
        let answer = match (self.certifier(), &roster) {
            (Some(certifier), _) => {
                match timeout(CERTIFY_TIME_MAX, self.certified(&*certifier, subject, question.request)).await {
                    Ok(Ok(certified)) => Answer::Certified(Box::new(certified)),
                    Ok(Err(reason)) => Answer::Refused(reason),
                    Err(_) => Answer::Refused("the CA did not answer in time".to_owned()),
                }
            }
            (None, Some(roster)) => Answer::Elsewhere(roster.managers.clone()),
            // Of a pool without managers all nodes are equal, but for those that its swarm had put out.
            (None, None) => {
                let shared = &self.identity().shared;
                match shared.has_authority() && is_valid {
                    true => Answer::Pool(Box::new(shared.clone())),
                    false => Answer::Refused("this node does not have the key of the root".to_owned()),
                }
            }
        };
        if let Answer::Refused(reason) = &answer
            && let Some(silent) = self.limits.newcomers.due()
        {
            tracing::warn!(node = subject.node, reason, silent, "refused to certify a node");
        }
        say(&mut stream, &answer).await
    }

    pub(super) fn change(
        &self,
        next: impl FnOnce(&Identity) -> Result<Option<Identity>, IdentityError>,
    ) -> Result<bool, IdentityError> {
        let _changing = self.changing.lock();
        let Some(next) = next(&self.identity())? else { return Ok(false) };
        let current = Current::new(next.clone())?;
        next.save(&self.folder)?;
        self.put_in_force(current);
        Ok(true)
    }
}

/// A new key, and the request to certify it. What the certificate says is the manager's decision.
pub(super) fn new_request(node: &str) -> Result<Request, IdentityError> {
    let subject = certs::Subject { common_name: node.to_owned(), ..certs::Subject::default() };
    Ok(certs::request(&subject, &[])?)
}

/// One question, one answer.
pub(super) async fn talk<Q: Serialize, A: for<'a> Deserialize<'a>>(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    question: &Q,
) -> io::Result<A> {
    say(&mut stream, question).await?;
    heard(&mut stream).await
}

pub(super) async fn say<T: Serialize>(stream: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    stream.write_all(&serde_json::to_vec(message)?).await?;
    stream.shutdown().await
}

pub(super) async fn heard<T: for<'a> Deserialize<'a>>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let mut text = Vec::new();
    stream.take(MESSAGE_BYTES_MAX).read_to_end(&mut text).await?;
    serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
