//! Certificates of the ingress as the managers keep them. They come with their keys, where they are from, and how far
//! an order is.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ServedCertificate, Word};

/// Kind of the resources with certificates.
pub const CERTIFICATE_KIND: &str = "certificate";
/// Kind of the resources with accounts at authorities, and with keys of own authorities.
pub const AUTHORITY_KIND: &str = "authority";
/// Stands for a [`Resolver::directory`](super::Resolver::directory): the swarm has an authority of its own.
pub const OWN_AUTHORITY: &str = "own";

/// A certificate, or the wish for one.
///
/// All members are always written: what is kept is replaced member by member.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateRecord {
    /// Lower case.
    pub names: Vec<String>,
    /// PEM, the leaf first; empty until there is one.
    pub chain: String,
    /// PEM.
    pub key: String,
    /// `import`, `acme`, `own`.
    pub source: String,
    /// `valid`, `ordering`, `failed`. One that failed to be renewed still has its chain.
    pub state: String,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// Name of the resolver that it is from.
    pub resolver: String,
    /// A new one is asked for from then on, in seconds since 1970; 0: never.
    pub renew_at: i64,
    /// Orders that failed since the last one that did not.
    pub failures: u32,
    pub last_error: String,
    /// No order before, in seconds since 1970.
    pub next_try: i64,
    /// The order under way. A new leader goes on with it.
    pub order: Option<CertificateOrder>,
}

/// An order at an authority.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateOrder {
    /// URL of the order.
    pub url: String,
    /// Key of the certificate to come, in PEM.
    pub key: String,
    /// Answers to HTTP-01: token → key authorisation.
    pub tokens: BTreeMap<String, String>,
    /// Answers to TLS-ALPN-01, by token.
    pub alpn: BTreeMap<String, ServedCertificate>,
}

impl fmt::Debug for CertificateRecord {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CertificateRecord");
        shown.field("names", &self.names).field("state", &self.state).field("resolver", &self.resolver);
        shown.finish_non_exhaustive()
    }
}

impl fmt::Debug for CertificateOrder {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateOrder").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The kind of the resources with certificates.
pub fn certificate_kind() -> Option<Word> {
    Word::new(CERTIFICATE_KIND).ok()
}

/// The kind of the resources with accounts and own authorities.
pub fn authority_kind() -> Option<Word> {
    Word::new(AUTHORITY_KIND).ok()
}
