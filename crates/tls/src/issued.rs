//! Checks of certificates that another authority issued for a root.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Reason why a certificate is of no use to those who trust a root.
#[derive(Debug, thiserror::Error)]
pub enum IssuedError {
    #[error("its answer is no certificate: {0}")]
    Form(String),
    #[error("it signs with another root: its certificate was issued by `{issuer}`, the root is `{root}`")]
    OtherRoot { issuer: String, root: String },
    #[error("it signs with another key than that of the root `{root}`, which has the same name")]
    OtherKey { root: String },
    #[error(
        "its certificates are no use to nodes: {0}; the profile must allow `server auth` and `client auth`, and take the hosts"
    )]
    Unusable(rustls::Error),
}

/// Checks that the first certificate (PEM; others are intermediates) leads to this root, and serves and calls as `name`.
///
/// # Errors
///
/// Returns why servers or clients that trust only the root would refuse it.
pub fn check_issued(cert: &str, root: &str, name: &str) -> Result<(), IssuedError> {
    let form = |error: &dyn std::fmt::Display| IssuedError::Form(error.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
    let chain = chain.map_err(|error| form(&error))?;
    let (leaf, rest) = chain.split_first().ok_or_else(|| form(&"there is none in it"))?;
    let anchor = CertificateDer::from_pem_slice(root.as_bytes()).map_err(|error| form(&error))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| form(&error))?;
    let (_, top) = X509Certificate::from_der(&anchor).map_err(|error| form(&error))?;
    // Clocks of hosts differ: the end counts, as where a node takes its certificate up.
    let ends = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    let judged = judge(leaf, rest, anchor.clone(), name, UnixTime::since_unix_epoch(Duration::from_secs(ends)));
    judged.map_err(|error| match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            let (issuer, root) = (parsed.issuer().to_string(), top.subject().to_string());
            match issuer == root {
                true => IssuedError::OtherKey { root },
                false => IssuedError::OtherRoot { issuer, root },
            }
        }
        other => IssuedError::Unusable(other),
    })
}

fn judge(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    root: CertificateDer<'_>,
    name: &str,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let general = |error: &dyn std::fmt::Display| rustls::Error::General(error.to_string());
    let mut roots = RootCertStore::empty();
    roots.add(root.into_owned())?;
    let (roots, crypto) = (Arc::new(roots), Arc::new(default_provider()));
    let name = ServerName::try_from(name).map_err(|error| general(&error))?;
    let server = WebPkiServerVerifier::builder_with_provider(roots.clone(), crypto.clone()).build();
    server.map_err(|error| general(&error))?.verify_server_cert(leaf, rest, &name, &[], now)?;
    let client = WebPkiClientVerifier::builder_with_provider(roots, crypto).build().map_err(|error| general(&error))?;
    client.verify_client_cert(leaf, rest, now).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::certs::{Authority, Subject, request};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn only_certificates_of_the_root_for_the_name_are_taken() {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let root = |name: &str| Authority::new(name, begin, DAY).unwrap();
        let (own, twin, other) = (root("root"), root("root"), root("elsewhere"));
        let subject = Subject { common_name: "n1".into(), ..Subject::default() };
        let asked = request(&subject, &[]).unwrap().request;
        let made = |root: &Authority, names: &[String]| {
            root.certify(&asked, &subject, names, &[7; 20], begin, DAY / 2).unwrap()
        };
        let names = ["n1.node.herder".to_owned()];
        let check = |cert: &str| match check_issued(cert, &own.pair.cert, &names[0]) {
            Ok(()) => "taken".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(check(&made(&own, &names)), "taken");
        assert_eq!(
            check(&made(&other, &names)),
            "it signs with another root: its certificate was issued by `CN=elsewhere`, the root is `CN=root`"
        );
        assert_eq!(
            check(&made(&twin, &names)),
            "it signs with another key than that of the root `CN=root`, which has the same name"
        );
        let nameless = check(&made(&own, &["other".to_owned()]));
        assert!(nameless.starts_with("its certificates are no use to nodes: "), "{nameless}");
        assert_eq!(check("none"), "its answer is no certificate: there is none in it");
    }
}
