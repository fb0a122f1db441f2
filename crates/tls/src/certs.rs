//! Certificates for a pool: a CA, and pairs of certificate and key that it signs. P-256, as every client knows it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub use crate::facts::{Facts, facts};

/// Certificates are valid a little before they are made: clocks of hosts differ.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// Reason why a certificate cannot be made.
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

/// Purpose of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// An engine: serves.
    Engine,
    /// The pool's endpoint: serves clients and calls engines.
    Endpoint,
    /// A user of the endpoint: calls.
    Client,
}

/// The subject of a node's certificate, in the form of swarm mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// CN.
    pub common_name: String,
    /// O: the id of the swarm.
    pub organization: String,
    /// OU: the role.
    pub unit: String,
}

impl Subject {
    fn name(&self) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        let parts = [
            (DnType::OrganizationName, &self.organization),
            (DnType::OrganizationalUnitName, &self.unit),
            (DnType::CommonName, &self.common_name),
        ];
        parts.into_iter().filter(|(_, text)| !text.is_empty()).for_each(|(kind, text)| name.push(kind, text));
        name
    }
}

/// Makes a new key, and the request to certify it, both in PEM. Names in the request are a wish: the CA decides.
pub fn request(subject: &Subject, names: &[String]) -> Result<Request, CertError> {
    let failed = |source| CertError { name: subject.common_name.clone(), source };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
    params.distinguished_name = subject.name();
    let request = params.serialize_request(&key).and_then(|it| it.pem()).map_err(failed)?;
    Ok(Request { request, key: key.serialize_pem() })
}

/// A key whose certificate is asked for.
#[derive(Clone)]
pub struct Request {
    /// PKCS #10, PEM.
    pub request: String,
    pub key: String,
}

impl std::fmt::Debug for Request {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("request", &self.request).finish_non_exhaustive()
    }
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

    /// The certificate of another CA (PEM), signed by this one: who trusts this one trusts that one, too.
    pub fn cross_sign(&self, other: &str, now: SystemTime, lifetime: Duration) -> Result<String, CertError> {
        let failed = |source| CertError { name: "the other CA".to_owned(), source };
        let invalid = || failed(rcgen::Error::CouldNotParseCertificate);
        let der = CertificateDer::from_pem_slice(other.as_bytes()).map_err(|_| invalid())?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| invalid())?;
        let mut params = ca_params("", now, lifetime).map_err(failed)?;
        params.distinguished_name = name_of(&parsed).ok_or_else(invalid)?;
        let key = SubjectPublicKeyInfo::from_der(parsed.public_key().raw).map_err(failed)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        // Certificates name their issuer byte by byte: one that is written otherwise leads nowhere.
        let same = X509Certificate::from_der(cert.der())
            .is_ok_and(|(_, it)| it.subject().as_raw() == parsed.subject().as_raw());
        if same { Ok(cert.pem()) } else { Err(invalid()) }
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

    /// A certificate (PEM) for the key of this request, for both ends of connections. Of the request only the key counts.
    pub fn certify(
        &self,
        request: &str,
        subject: &Subject,
        names: &[String],
        serial: &[u8],
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<String, CertError> {
        let failed = |source| CertError { name: subject.common_name.clone(), source };
        let mut request = CertificateSigningRequestParams::from_pem(request).map_err(failed)?;
        let mut params = params(&subject.common_name, names, now, lifetime).map_err(failed)?;
        params.distinguished_name = subject.name();
        params.serial_number = Some(SerialNumber::from_slice(serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        request.params = params;
        Ok(request.signed_by(&self.issuer).map_err(failed)?.pem())
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

/// The subject of a certificate, as it is written there.
fn name_of(cert: &X509Certificate<'_>) -> Option<DistinguishedName> {
    let mut name = DistinguishedName::new();
    for attribute in cert.subject().iter_attributes() {
        let text = attribute.as_str().ok()?.to_owned();
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().ok()?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().ok()?),
            _ => return None,
        };
        name.push(DnType::CustomDnType(attribute.attr_type().iter()?.collect()), value);
    }
    Some(name)
}

/// Reason why a certificate cannot be the root of a swarm.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("the CA certificate cannot be read: {0}")]
    Form(String),
    #[error("the desired CA certificate cannot contain multiple certificates")]
    Several,
    #[error("the certificate is not one of a CA")]
    NoCa,
    #[error("CA certificate expires too soon")]
    TooSoon,
    #[error("the CA key cannot be used: {0}; PKCS #8 is expected (`openssl pkcs8 -topk8 -nocrypt`)")]
    Key(rcgen::Error),
    #[error("the CA key is not that of the CA certificate")]
    OtherKey,
}

/// A root must be valid for a year at least, as in swarm mode.
const ROOT_LIFETIME_MIN: Duration = Duration::from_secs(365 * 24 * 3600);

/// Checks that a certificate (PEM) can be the root of a swarm, and that the key is its own.
///
/// # Errors
///
/// Returns why it cannot be.
pub fn check_root(cert: &str, key: Option<&str>, now: SystemTime) -> Result<(), RootError> {
    let form = |error: &dyn std::fmt::Display| RootError::Form(error.to_string());
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
    let all = all.map_err(|error| form(&error))?;
    let der = match &all[..] {
        [der] => der,
        [] => return Err(RootError::Form("there is none in it".to_owned())),
        _ => return Err(RootError::Several),
    };
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| form(&error))?;
    if !parsed.is_ca() {
        return Err(RootError::NoCa);
    }
    let ends = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    if SystemTime::UNIX_EPOCH + Duration::from_secs(ends) < now + ROOT_LIFETIME_MIN {
        return Err(RootError::TooSoon);
    }
    let Some(key) = key else { return Ok(()) };
    let key = KeyPair::from_pem(key).map_err(RootError::Key)?;
    if key.subject_public_key_info() == parsed.public_key().raw { Ok(()) } else { Err(RootError::OtherKey) }
}

/// True if a text can stand in a certificate as a name: an address or a host name.
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
    fn a_root_of_ones_own_is_checked_before_it_is_used() {
        let now = SystemTime::now();
        let [ca, other] = ["one", "two"].map(|name| Authority::new(name, now, 2 * YEAR).unwrap().pair);
        let short = Authority::new("short", now, YEAR / 2).unwrap().pair;
        let leaf = Authority::from_pair(ca.clone()).unwrap().sign("leaf", &[], Usage::Client, now, 2 * YEAR).unwrap();
        let check = |cert: &str, key: Option<&str>, expected: &str| {
            let said = check_root(cert, key, now).map_or_else(|error| error.to_string(), |()| "fits".to_owned());
            assert!(said.contains(expected), "{said}, not {expected}");
        };
        check(&ca.cert, Some(&ca.key), "fits");
        check(&ca.cert, None, "fits");
        check(&ca.cert, Some(&other.key), "is not that of the CA certificate");
        check(&ca.cert, Some("no key"), "the CA key cannot be used");
        check(&short.cert, Some(&short.key), "CA certificate expires too soon");
        check(&leaf.cert, Some(&leaf.key), "not one of a CA");
        check(&format!("{}{}", ca.cert, other.cert), None, "cannot contain multiple certificates");
        check("nothing", None, "there is none in it");
    }

    #[test]
    fn another_root_is_cross_signed_under_its_own_name() {
        let now = SystemTime::now();
        let [one, two] = ["one", "another name"].map(|name| Authority::new(name, now, YEAR).unwrap());
        let cross = one.cross_sign(&two.pair.cert, now, YEAR).unwrap();
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (cross, root) = (der(&cross), der(&two.pair.cert));
        let [cross, root] = [&cross, &root].map(|it| X509Certificate::from_der(it).unwrap().1);
        assert_eq!((cross.subject(), cross.public_key()), (root.subject(), root.public_key()));
        assert_ne!(cross.issuer(), root.issuer());
        assert!(one.cross_sign("nothing", now, YEAR).is_err());
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
