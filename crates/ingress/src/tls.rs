//! Certificates, and the choice among them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock, Weak};

use herder_model::swarm::ServedCertificate;
use imbl::OrdMap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::Shared;

/// The protocol of TLS-ALPN-01.
pub(crate) const ACME: &[u8] = b"acme-tls/1";

/// The certificates of one version.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    of: OrdMap<String, ServedCertificate>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
    challenges: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads all of them. One that cannot be read is told, and not served.
    pub(crate) fn of(all: &OrdMap<String, ServedCertificate>) -> Certificates {
        let mut certificates = Certificates { of: all.clone(), ..Certificates::default() };
        for (id, served) in all {
            match certified(&served.chain, &served.key, served.challenge) {
                Ok(key) => {
                    let key = Arc::new(key);
                    let to = if served.challenge { &mut certificates.challenges } else { &mut certificates.by_name };
                    for name in &served.names {
                        to.insert(name.to_ascii_lowercase(), key.clone());
                    }
                }
                Err(error) => {
                    tracing::warn!(id, names = served.names.join(" "), error, "cannot serve a certificate")
                }
            }
        }
        certificates
    }

    /// The ends of the certificates that are known, in seconds since 1970, by their first names.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (&str, i64)> {
        let known = self.of.values().filter(|it| it.not_after > 0);
        known.filter_map(|it| Some((it.names.first()?.as_str(), it.not_after)))
    }

    /// The certificate for a name: its own, or that of all names beside it.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let exact = self.by_name.get(name);
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        exact.or_else(wildcard).cloned()
    }
}

/// Reads a chain and its key. Answers to TLS-ALPN-01 have a critical extension that only authorities read: what else is in them is not
/// looked at.
fn certified(chain: &str, key: &str, is_challenge: bool) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().map_err(|it| it.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|it| it.to_string())?;
    let provider = rustls::crypto::ring::default_provider();
    if is_challenge {
        let key = provider.key_provider.load_private_key(key).map_err(|it| it.to_string())?;
        return Ok(CertifiedKey::new(chain, key));
    }
    CertifiedKey::from_der(chain, key, &provider).map_err(|it| it.to_string())
}

/// The certificate of names that have none: self-signed, made once for each start.
fn default_certificate() -> Option<Arc<CertifiedKey>> {
    static MADE: OnceLock<Option<Arc<CertifiedKey>>> = OnceLock::new();
    let make = || {
        let made = rcgen::generate_simple_self_signed(vec!["herder.default".to_owned()]).ok()?;
        let key = certified(&made.cert.pem(), &made.signing_key.serialize_pem(), false).ok()?;
        Some(Arc::new(key))
    };
    MADE.get_or_init(make).clone()
}

/// Chooses by the name in the greeting.
#[derive(Debug)]
struct ByName {
    shared: Weak<Shared>,
    is_challenge: bool,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shared = self.shared.upgrade()?;
        let table = shared.table.load();
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        if self.is_challenge {
            return table.certificates.challenges.get(&name).cloned();
        }
        table.certificates.find(&name).or_else(default_certificate)
    }
}

/// TLS towards clients.
pub(crate) fn server(shared: &Arc<Shared>, alpn: &[&[u8]]) -> io::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let is_challenge = alpn == [ACME];
    let resolver = Arc::new(ByName { shared: Arc::downgrade(shared), is_challenge });
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.map_err(io::Error::other)?.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
    Ok(Arc::new(config))
}
