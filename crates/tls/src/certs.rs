//! Certificates for a pool: a CA, and pairs of certificate and key that it signs. P-256, as every client knows it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Certificates are valid a little before they are made: clocks of hosts differ.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the certificate of {name}: {source}")]
pub struct CertError {
    name: String,
    source: rcgen::Error,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl std::fmt::Debug for Pair {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// An engine: serves.
    Engine,
    /// The pool's endpoint: serves clients and calls engines.
    Endpoint,
    /// A user of the endpoint: calls.
    Client,
}

/// A certificate authority that can sign.
pub struct Authority {
    pub pair: Pair,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("pair", &self.pair).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new CA, valid for `lifetime` from `now`.
    pub fn new(name: &str, now: SystemTime, lifetime: Duration) -> Result<Authority, CertError> {
        let failed = |source| CertError { name: name.to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let params = ca_params(name, now, lifetime).map_err(failed)?;
        let cert = params.self_signed(&key).map_err(failed)?;
        let pair = Pair { cert: cert.pem(), key: key.serialize_pem() };
        Ok(Authority { pair, issuer: Issuer::new(params, key) })
    }

    /// A CA that was made before.
    pub fn from_pair(pair: Pair) -> Result<Authority, CertError> {
        let failed = |source| CertError { name: "the CA".to_owned(), source };
        let key = KeyPair::from_pem(&pair.key).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(&pair.cert, key).map_err(failed)?;
        Ok(Authority { pair, issuer })
    }

    /// The certificate of another CA of this name, signed by this one: who trusts this one trusts that one, too.
    pub fn cross_sign(
        &self,
        name: &str,
        other: &Authority,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<String, CertError> {
        let failed = |source| CertError { name: name.to_owned(), source };
        let params = ca_params(name, now, lifetime).map_err(failed)?;
        let cert = params.signed_by(other.issuer.key(), &self.issuer).map_err(failed)?;
        Ok(cert.pem())
    }

    /// A certificate for `names` (host names and addresses; none for clients), valid for `lifetime` from `now`.
    pub fn sign(
        &self,
        common_name: &str,
        names: &[String],
        usage: Usage,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Pair, CertError> {
        let failed = |source| CertError { name: common_name.to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params(common_name, names, now, lifetime).map_err(failed)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match usage {
            Usage::Engine => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Endpoint => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
    }
}

fn ca_params(name: &str, now: SystemTime, lifetime: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(name, &[], now, lifetime)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(
    common_name: &str,
    names: &[String],
    now: SystemTime,
    lifetime: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    // rcgen tells addresses from names by their form.
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + lifetime).into();
    Ok(params)
}

/// Whether a text can stand in a certificate as a name: an address or a host name.
pub fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.parse::<IpAddr>().is_ok() || text.len() <= 253 && text.trim_start_matches("*.").split('.').all(label)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::{self as tls, Files};

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    /// Shakes hands between a client and a server over a pipe; what the client says.
    async fn handshake(server: &Pair, client: &Pair, ca: &Pair, host: &str) -> Result<(), String> {
        let folder = std::env::temp_dir().join(format!("herder-certs-{}-{:x}", std::process::id(), rand_suffix()));
        std::fs::create_dir_all(&folder).unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let ca = put("ca.pem", &ca.cert);
        let (cert, key) = (put("s.pem", &server.cert), put("s-key.pem", &server.key));
        let accept = tls::server(Files { cert: &cert, key: &key, ca: Some(&ca) }).map_err(|error| error.to_string())?;
        let (cert, key) = (put("c.pem", &client.cert), put("c-key.pem", &client.key));
        let connect =
            tls::client(Files { cert: &cert, key: &key, ca: Some(&ca) }).map_err(|error| error.to_string())?;
        std::fs::remove_dir_all(&folder).unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(connect));
        let acceptor = TlsAcceptor::from(Arc::new(accept));
        let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        client.map_err(|error| error.to_string())?;
        server.map(drop).map_err(|error| error.to_string())
    }

    fn rand_suffix() -> u128 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()
    }

    #[tokio::test]
    async fn certificates_work_for_what_they_are_made_for() {
        let now = SystemTime::now();
        let ca = Authority::new("pool", now, YEAR).unwrap();
        let other = Authority::new("other", now, YEAR).unwrap();
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let engine = ca.sign("h1", &names("h1.example 10.0.0.1"), Usage::Engine, now, YEAR).unwrap();
        let endpoint = ca.sign("herder", &names("127.0.0.1"), Usage::Endpoint, now, YEAR).unwrap();
        let client = ca.sign("admin", &[], Usage::Client, now, YEAR).unwrap();
        let ca = Authority::from_pair(ca.pair).unwrap();
        let foreign = other.sign("admin", &[], Usage::Client, now, YEAR).unwrap();
        let old = now - 10 * YEAR;
        let expired = ca.sign("admin", &[], Usage::Client, old, YEAR).unwrap();
        for (server, client, host, expected) in [
            (&engine, &endpoint, "10.0.0.1", ""),
            (&engine, &endpoint, "h1.example", ""),
            (&endpoint, &client, "127.0.0.1", ""),
            (&engine, &endpoint, "10.0.0.2", "not valid for"),
            (&endpoint, &foreign, "127.0.0.1", "UnknownIssuer"),
            (&endpoint, &expired, "127.0.0.1", "expired"),
            (&client, &endpoint, "127.0.0.1", "not valid for name"),
        ] {
            match handshake(server, client, &ca.pair, host).await {
                Ok(()) => assert_eq!(expected, "", "{host}"),
                Err(error) => assert!(
                    !expected.is_empty() && (error.contains(expected) || error.contains("invalid peer certificate")),
                    "{error}"
                ),
            }
        }
    }

    #[test]
    fn names_are_addresses_or_host_names() {
        for (text, expected) in [
            ("10.0.0.1", true),
            ("::1", true),
            ("h1.example", true),
            ("*.example", true),
            ("a b", false),
            ("", false),
            ("a/b", false),
        ] {
            assert_eq!(is_name(text), expected, "{text}");
        }
    }
}
