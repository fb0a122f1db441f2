//! Names and dates of certificates that servers have.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Host names and validity of the leaf certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Host names, in lower case.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

/// Reads the facts of a chain's first certificate, if the key is that of the certificate.
///
/// # Errors
///
/// Returns what cannot be read, or does not fit together.
pub fn facts(chain: &str, key: &str) -> Result<Facts, String> {
    let certificates: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let certificates = certificates.map_err(|error| format!("the chain cannot be read: {error}"))?;
    let first = certificates.first().ok_or("the chain has no certificate: it must be PEM, the own one first")?.clone();
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| format!("the key cannot be read: {error}"))?;
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(certificates, key, &provider)
        .map_err(|error| format!("key and certificate do not fit together: {error}"))?;
    let (_, parsed) =
        X509Certificate::from_der(&first).map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.map(|it| it.value.general_names.as_slice()).unwrap_or_default();
    let names: Vec<String> = names
        .iter()
        .filter_map(|it| match it {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        return Err("the certificate names no host (subjectAltName)".to_owned());
    }
    let (not_before, not_after) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    Ok(Facts { names, not_before, not_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_tells_its_names_and_its_end() {
        let made = rcgen::generate_simple_self_signed(vec!["A.example".to_owned(), "*.b.example".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let read = facts(&chain, &key).unwrap();
        assert_eq!(read.names, ["a.example", "*.b.example"]);
        assert!(read.not_after > read.not_before);
        let other = rcgen::generate_simple_self_signed(vec!["c".to_owned()]).unwrap();
        let wrong = facts(&chain, &other.signing_key.serialize_pem()).unwrap_err();
        assert!(wrong.starts_with("key and certificate do not fit together"), "{wrong}");
        assert!(facts("", &key).unwrap_err().starts_with("the chain has no certificate"));
        assert!(facts(&chain, "").unwrap_err().starts_with("the key cannot be read"));
    }
}
