//! Identity of a node: its key and certificate, and the values that its pool shares.
//!
//! In a pool without managers every node is equal: each holds the CA's key, lets newcomers in and renews its own certificate.
//! In a swarm only managers have that key, in their store; they certify the keys of all nodes (docs/adr/0015).

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use herder_parts::blocking;
use herder_tls::certs::{Authority, CertError, Pair, Usage};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};

use crate::join_code::{self, JoinCode, Secret, fingerprint, same_secret};
use crate::lenient::Lenient;
use crate::rotation::Rotation;
use crate::subject::{self, Subject};

const CA_NAME: &str = "herder pool";
/// Lifetime of the CA, as in swarm mode.
const CA_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Default lifetime of a node's certificate, as in swarm mode.
pub const NODE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Names of nodes in certificates are below this one, which no resolver knows.
const DOMAIN: &str = "node.herder";
const FILE: &str = "identity.json";
/// Placeholder for a join code without a secret.
const NO_SECRET: Secret = [0; 16];
/// The only TLS versions of the node link. Every release of herder speaks TLS 1.3.
pub(crate) const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Reason why a node has no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot {what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is damaged: {reason}; remove it to join again", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error(transparent)]
    Cert(#[from] CertError),
    #[error("the certificate of this node cannot be used: {0}")]
    Tls(String),
    #[error("this node does not have the key of its root: managers certify the nodes of a swarm")]
    NoAuthority,
}

/// Values that all nodes of a pool share. A node that has them belongs to the pool.
#[derive(Clone, Serialize, Deserialize)]
pub struct Shared {
    pub(crate) ca_cert: String,
    /// Empty on the nodes of a swarm.
    #[serde(default)]
    ca_key: String,
    /// Seals gossip.
    pub gossip_key: [u8; 32],
    /// The key that takes its place when the root has been changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gossip_next: Option<[u8; 32]>,
    /// The secret half of the join code. Zeros on the nodes of a swarm, which tokens let in.
    pub(crate) secret: Secret,
    /// Time at which the secret was made, see [`Rotation`]. Files and nodes of the first version do not have it.
    #[serde(default)]
    secret_made: u64,
    /// The root before this one, while nodes may have a certificate of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Before>,
    /// Ids of nodes that were removed from the swarm that this pool was. Their certificates may still be valid.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) removed: BTreeSet<String>,
}

/// The roots that nodes trust, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The one that certificates come from.
    pub root: String,
    /// During a change of root: the previous root, and the new root's certificate that it signed.
    pub before: Option<(String, String)>,
    /// The key of gossip that comes with the next root.
    pub gossip_next: Option<[u8; 32]>,
}

/// A pool that a node begins with the root of a swarm.
#[derive(Clone)]
pub struct OwnPool {
    pub root: Pair,
    /// Key of gossip. `None` stands for that of the node's pool.
    pub gossip_key: Option<[u8; 32]>,
    /// Ids of nodes that were removed from the swarm: they stay outside.
    pub removed: BTreeSet<String>,
}

impl std::fmt::Debug for OwnPool {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnPool").field("removed", &self.removed).finish_non_exhaustive()
    }
}

/// A root that another one takes the place of.
#[derive(Clone, Serialize, Deserialize)]
struct Before {
    /// PEM.
    ca_cert: String,
    /// The newer root, signed by this one: nodes that know only this one trust it. PEM.
    cross: String,
}

impl std::fmt::Debug for Shared {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A new id of 25 characters, base 36: 128 random bits.
pub fn new_id() -> String {
    join_code::encode(&rand::random::<[u8; 16]>(), 25)
}

impl Shared {
    /// PEM.
    pub fn ca_certificate(&self) -> &str {
        &self.ca_cert
    }

    /// Makes another root. It has the same name, as in swarm mode; what tells them apart are their keys.
    pub fn new_root(now: SystemTime) -> Result<Pair, IdentityError> {
        Ok(Authority::new(CA_NAME, now, CA_LIFETIME)?.pair)
    }

    /// The root `next`, signed by the one before it: nodes that know only that one trust it.
    pub fn cross_sign(before: Pair, next: &str, now: SystemTime) -> Result<String, CertError> {
        Authority::from_pair(before)?.cross_sign(next, now, CA_LIFETIME)
    }

    pub(crate) fn rotation(&self) -> Rotation {
        Rotation { made: self.secret_made, secret: self.secret }
    }

    /// True if this node can sign certificates by itself.
    pub fn has_authority(&self) -> bool {
        !self.ca_key.is_empty()
    }

    /// The root with its key, where this node has it.
    pub fn root(&self) -> Option<Pair> {
        self.has_authority().then(|| Pair { cert: self.ca_cert.clone(), key: self.ca_key.clone() })
    }

    /// Returns the part that a node of a swarm gets: nothing that could let another node in.
    fn public(&self) -> Shared {
        Shared { ca_key: String::new(), secret: NO_SECRET, secret_made: 0, ..self.clone() }
    }

    /// The same, where certificates come from the root `to`, which is not this one while the root is being changed.
    pub fn public_for(&self, trust: Trust) -> Shared {
        let Trust { root, before, gossip_next } = trust;
        let before = before.map(|(ca_cert, cross)| Before { ca_cert, cross });
        Shared { ca_cert: root, before, gossip_next, ..self.public() }
    }

    /// True if there is a join code, and this is its secret.
    pub(crate) fn lets_in(&self, secret: &Secret) -> bool {
        self.has_join_code() && same_secret(&self.secret, secret)
    }

    pub fn has_join_code(&self) -> bool {
        self.secret != NO_SECRET
    }

    fn authority(&self) -> Result<Authority, IdentityError> {
        Ok(Authority::from_pair(self.root().ok_or(IdentityError::NoAuthority)?)?)
    }
}

/// One node's identity.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// 25 characters, base 36; stays over restarts.
    pub id: String,
    pub name: String,
    cert: String,
    key: String,
    /// Seconds since 1970.
    not_after: u64,
    /// Lifetime of this node's certificates in seconds. Files of the first version do not have it.
    #[serde(default = "node_lifetime_s")]
    lifetime_s: u64,
    pub shared: Shared,
}

fn node_lifetime_s() -> u64 {
    NODE_LIFETIME.as_secs()
}

/// A manager's answer to a certificate request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Certified {
    /// PEM.
    pub(crate) cert: String,
    pub(crate) shared: Shared,
    /// Lifetime of this swarm's certificates in seconds; 0 keeps the present one.
    #[serde(default)]
    pub(crate) lifetime_s: u64,
}

/// Issuer of a certificate in DER, in the form in which swarm mode shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    pub subject: Vec<u8>,
    pub public_key: Vec<u8>,
}

impl Issuer {
    /// Returns the issuer in certificates that this root (PEM) signs.
    pub fn of_root(root: &str) -> Result<Issuer, IdentityError> {
        let root = der(root)?;
        let anchor = webpki::anchor_from_trusted_cert(&root).map_err(tls)?;
        Ok(Issuer { subject: sequence(&anchor.subject), public_key: sequence(&anchor.subject_public_key_info) })
    }
}

/// The content of a DER sequence with its head, which is not kept where roots are trusted.
fn sequence(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|it| **it == 0).count()..];
    let mut der = vec![0x30];
    if content.len() >= 0x80 {
        // Never more than eight bytes.
        der.extend(u8::try_from(length.len()).map(|it| 0x80 | it));
    }
    der.extend(length);
    der.extend(content);
    der
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Identity {
    /// The first node of a new pool.
    pub fn first(name: &str, now: SystemTime) -> Result<Identity, IdentityError> {
        let ca = Shared::new_root(now)?;
        let (gossip_key, secret) = (rand::random(), rand::random());
        let shared = Shared {
            ca_cert: ca.cert,
            ca_key: ca.key,
            gossip_key,
            gossip_next: None,
            secret,
            secret_made: 0,
            before: None,
            removed: BTreeSet::new(),
        };
        Identity::of(name, shared, now)
    }

    /// A new node of an existing pool.
    pub fn of(name: &str, shared: Shared, now: SystemTime) -> Result<Identity, IdentityError> {
        let id = new_id();
        let (name, lifetime_s) = (name.into(), node_lifetime_s());
        Identity { id, name, cert: String::new(), key: String::new(), not_after: 0, lifetime_s, shared }.renewed(now)
    }

    /// The same node with a new key and a new certificate.
    pub fn renewed(&self, now: SystemTime) -> Result<Identity, IdentityError> {
        let pair =
            self.shared.authority()?.sign(&self.name, &names(&self.id), Usage::Endpoint, now, self.lifetime())?;
        Ok(Identity { cert: pair.cert, key: pair.key, not_after: seconds(now + self.lifetime()), ..self.clone() })
    }

    /// A node that a manager has let into its swarm as `id`.
    pub(crate) fn admitted(
        id: String,
        name: &str,
        key: String,
        certified: Certified,
    ) -> Result<Identity, IdentityError> {
        let (cert, name, lifetime_s) = (String::new(), name.to_owned(), node_lifetime_s());
        let shared = certified.shared.clone();
        Identity { id, name, cert, key: String::new(), not_after: 0, lifetime_s, shared }.certified(key, certified)
    }

    /// The same node with a certificate that a manager has given it for `key`. What a node of a swarm need not know is
    /// forgotten.
    pub(crate) fn certified(&self, key: String, certified: Certified) -> Result<Identity, IdentityError> {
        let Certified { cert, shared, lifetime_s } = certified;
        let not_after = subject::not_after(&der(&cert)?).ok_or_else(|| tls("it does not say when it ends"))?;
        let lifetime_s = if lifetime_s == 0 { self.lifetime_s } else { lifetime_s };
        let next = Identity { cert, key, not_after, lifetime_s, shared: shared.public(), ..self.clone() };
        next.check()?;
        Ok(next)
    }

    /// Refuses a certificate that other nodes would refuse.
    fn check(&self) -> Result<(), IdentityError> {
        let (roots, crypto) = (Arc::new(self.roots()?), Arc::new(provider::default_provider()));
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, crypto).build().map_err(tls)?;
        let name = ServerName::try_from(server_name(&self.id)).map_err(tls)?;
        let chain = self.chain()?;
        let (cert, rest) = chain.split_first().ok_or_else(|| tls("there is none"))?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.not_after));
        verifier.verify_server_cert(cert, rest, &name, &[], now).map_err(tls)?;
        self.client(Vec::new()).map(drop)
    }

    /// The same node in a pool without managers, with what its nodes share.
    pub(crate) fn of_pool(&self, shared: Shared, now: SystemTime) -> Result<Identity, IdentityError> {
        Identity { shared, ..self.clone() }.renewed(now)
    }

    /// The same node, the first one of the pool of this root. Its join code is a new one.
    pub fn alone(&self, pool: OwnPool, now: SystemTime) -> Result<Identity, IdentityError> {
        let rotation = self.shared.rotation().next(now);
        let OwnPool { root: Pair { cert: ca_cert, key: ca_key }, gossip_key, removed } = pool;
        let gossip_key = gossip_key.unwrap_or(self.shared.gossip_key);
        let shared = Shared { ca_cert, ca_key, gossip_key, before: None, removed, ..self.shared.clone() };
        let shared = Shared { secret: rotation.secret, secret_made: rotation.made, ..shared };
        self.of_pool(shared, now)
    }

    /// The names in this node's certificate; the first one is its own.
    pub fn names(&self) -> Vec<String> {
        names(&self.id)
    }

    /// Returns the subject of this node's certificate.
    pub fn subject(&self) -> Option<Subject> {
        Subject::of(&der(&self.cert).ok()?)
    }

    /// Returns this node with a certificate of another lifetime, which later ones keep.
    pub(crate) fn living(&self, lifetime: Duration, now: SystemTime) -> Result<Identity, IdentityError> {
        Identity { lifetime_s: lifetime.as_secs(), ..self.clone() }.renewed(now)
    }

    /// The same node with a certificate of another root. The one before is trusted as well, and who knows only that one trusts
    /// this node.
    pub(crate) fn rerooted(&self, root: Pair, now: SystemTime) -> Result<Identity, IdentityError> {
        let next = Authority::from_pair(root)?;
        let cross = self.shared.authority()?.cross_sign(&next.pair.cert, now, CA_LIFETIME)?;
        let before = Some(Before { ca_cert: self.shared.ca_cert.clone(), cross });
        let Pair { cert: ca_cert, key: ca_key } = next.pair;
        Identity { shared: Shared { ca_cert, ca_key, before, ..self.shared.clone() }, ..self.clone() }.renewed(now)
    }

    /// The same node, which trusts no root but its own.
    pub(crate) fn settled(&self) -> Identity {
        let gossip_key = self.shared.gossip_next.unwrap_or(self.shared.gossip_key);
        let shared = Shared { before: None, gossip_key, gossip_next: None, ..self.shared.clone() };
        Identity { shared, ..self.clone() }
    }

    /// True if a root of before is trusted, too.
    pub(crate) fn is_between_roots(&self) -> bool {
        self.shared.before.is_some()
    }

    /// The root that this node trusts longest, in PEM: while the root is changed, the one before.
    pub fn trust_root(&self) -> &str {
        self.shared.before.as_ref().map_or(&self.shared.ca_cert, |it| &it.ca_cert)
    }

    /// Returns the issuer of this node's certificate.
    pub fn issuer(&self) -> Result<Issuer, IdentityError> {
        Issuer::of_root(&self.shared.ca_cert)
    }

    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime_s)
    }

    /// Returns the end of the certificate.
    pub fn ends_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.not_after)
    }

    /// The same node with this secret of the join code.
    pub(crate) fn rotated(&self, rotation: Rotation) -> Identity {
        let shared = Shared { secret: rotation.secret, secret_made: rotation.made, ..self.shared.clone() };
        Identity { shared, ..self.clone() }
    }

    /// Returns the time of renewal: a third of the certificate's life before its end.
    pub fn renew_at(&self) -> SystemTime {
        // An external CA may give less than the swarm asks for.
        let begins = der(&self.cert).ok().and_then(|it| subject::not_before(&it));
        let validity = begins.map(|it| Duration::from_secs(self.not_after.saturating_sub(it)));
        self.ends_at() - validity.map_or(self.lifetime(), |it| it.min(self.lifetime())) / 3
    }

    pub fn join_code(&self) -> Result<JoinCode, IdentityError> {
        self.join_code_of(&self.shared.ca_cert)
    }

    /// The join code of this pool when it has this root (PEM).
    pub fn join_code_of(&self, root: &str) -> Result<JoinCode, IdentityError> {
        Ok(JoinCode { ca: fingerprint(&der(root)?), secret: self.shared.secret })
    }

    /// The identity kept in this folder, if there is one.
    pub fn load(folder: &Path) -> Result<Option<Identity>, IdentityError> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(identity) => Ok(Some(identity)),
                Err(error) => Err(IdentityError::Damaged { path, reason: error.to_string() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IdentityError::File { what: "read", path, source }),
        }
    }

    /// Keeps the identity in this folder, readable for root only: whole or not at all.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        blocking(|| {
            let failed = |what, path: &Path| {
                let path = path.to_owned();
                move |source| IdentityError::File { what, path, source }
            };
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make", folder))?;
            // It may have been made by hand, for everybody to read.
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed("protect", folder))?;
            let (path, new) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
            let write = || -> io::Result<()> {
                let text = serde_json::to_vec_pretty(self)?;
                let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
                file.write_all(&text)?;
                file.sync_all()?;
                fs::rename(&new, &path)?;
                fs::File::open(folder)?.sync_all()
            };
            write().map_err(failed("write", &path))
        })
    }

    /// TLS for the node link's listener: a peer may come without certificate (to join), but not with a foreign one.
    pub(crate) fn server(&self, protocols: Vec<Vec<u8>>) -> Result<Arc<ServerConfig>, IdentityError> {
        let crypto = Arc::new(provider::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), crypto);
        self.server_with(verifier.allow_unauthenticated().build().map_err(tls)?, protocols)
    }

    /// TLS for peers that come for a new certificate: theirs may have expired lately.
    pub(crate) fn renewing_server(&self, protocols: Vec<Vec<u8>>) -> Result<Arc<ServerConfig>, IdentityError> {
        let crypto = Arc::new(provider::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), crypto);
        self.server_with(Arc::new(Lenient(verifier.build().map_err(tls)?)), protocols)
    }

    fn server_with(
        &self,
        verifier: Arc<dyn ClientCertVerifier>,
        protocols: Vec<Vec<u8>>,
    ) -> Result<Arc<ServerConfig>, IdentityError> {
        let crypto = Arc::new(provider::default_provider());
        let builder = ServerConfig::builder_with_provider(crypto).with_protocol_versions(VERSIONS).map_err(tls)?;
        // The CA's certificate goes along: newcomers know it by its fingerprint only.
        let mut chain = self.chain()?;
        chain.push(der(&self.shared.ca_cert)?);
        chain.extend(self.shared.before.iter().map(|it| der(&it.ca_cert)).collect::<Result<Vec<_>, _>>()?);
        let builder = builder.with_client_cert_verifier(verifier);
        let mut config = builder.with_single_cert(chain, self.private_key()?).map_err(tls)?;
        config.alpn_protocols = protocols;
        Ok(Arc::new(config))
    }

    /// TLS towards a peer.
    pub(crate) fn client(&self, protocols: Vec<Vec<u8>>) -> Result<Arc<ClientConfig>, IdentityError> {
        let crypto = Arc::new(provider::default_provider());
        let builder = ClientConfig::builder_with_provider(crypto).with_protocol_versions(VERSIONS).map_err(tls)?;
        let builder = builder.with_root_certificates(self.roots()?);
        let mut config = builder.with_client_auth_cert(self.chain()?, self.private_key()?).map_err(tls)?;
        config.alpn_protocols = protocols;
        Ok(Arc::new(config))
    }

    /// Returns TLS for calls to an external CA. Shows this node's certificate, and trusts the roots of the swarm and
    /// `more` (PEM).
    pub fn for_external_ca(&self, more: &[&str]) -> Result<Arc<ClientConfig>, IdentityError> {
        let mut roots = self.roots()?;
        for root in more.iter().filter(|it| !it.trim().is_empty()) {
            roots.add(der(root)?).map_err(tls)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(tls)?.with_root_certificates(roots);
        builder.with_client_auth_cert(self.chain()?, self.private_key()?).map(Arc::new).map_err(tls)
    }

    fn roots(&self) -> Result<RootCertStore, IdentityError> {
        let mut roots = RootCertStore::empty();
        for root in [&self.shared.ca_cert].into_iter().chain(self.shared.before.iter().map(|it| &it.ca_cert)) {
            roots.add(der(root)?).map_err(tls)?;
        }
        Ok(roots)
    }

    /// This node's certificate, and what leads from it to the root of before.
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let mut chain: Vec<_> =
            CertificateDer::pem_slice_iter(self.cert.as_bytes()).collect::<Result<_, _>>().map_err(tls)?;
        chain.extend(self.shared.before.iter().map(|it| der(&it.cross)).collect::<Result<Vec<_>, _>>()?);
        Ok(chain)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(tls)
    }
}

/// The names in the certificate of node `id`.
pub(crate) fn names(id: &str) -> Vec<String> {
    vec![server_name(id), DOMAIN.to_owned()]
}

/// The name by which the certificate of node `id` is checked.
pub(crate) fn server_name(id: &str) -> String {
    format!("{id}.{DOMAIN}")
}

/// Returns the id of the node that a certificate belongs to. The certificate must be verified already.
pub(crate) fn node_of(cert: &CertificateDer<'_>) -> Option<String> {
    let cert = webpki::EndEntityCert::try_from(cert).ok()?;
    let suffix = format!(".{DOMAIN}");
    cert.valid_dns_names().find_map(|name| name.strip_suffix(&suffix).map(str::to_owned))
}

fn der(pem: &str) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(tls)
}

fn tls(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Tls(error.to_string())
}

pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
