//! TLS settings from files, for the door and for engines. One key pair serves both, as in classic Swarm.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

/// Reason why TLS cannot be set up. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {what} from {}: {reason}", path.display())]
    File { what: &'static str, path: PathBuf, reason: String },
    #[error("the certificate {} and the key {} do not go together: {source}", cert.display(), key.display())]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("the CA {} cannot be used: {reason}", path.display())]
    Ca { path: PathBuf, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Versions(rustls::Error),
    /// The PEM text of a request, not of a file.
    #[error("the {what} cannot be used: {reason}")]
    Pem { what: &'static str, reason: String },
    /// The same, of a key that is not the certificate's.
    #[error("the private key is not that of the client certificate; send the pair that belongs together")]
    OtherKey,
}

/// A certificate with its key, and the CA if the other side is to be verified.
#[derive(Clone, Copy, Debug)]
pub struct Files<'f> {
    pub cert: &'f Path,
    pub key: &'f Path,
    pub ca: Option<&'f Path>,
}

/// TLS for the door. With a CA, clients must show a certificate of it.
pub fn server(files: Files<'_>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let pair = |source| TlsError::Pair { cert: files.cert.into(), key: files.key.into(), source };
    let builder = builder.map_err(TlsError::Versions)?;
    let builder = match files.ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| ca_error(path, &error))?)
        }
    };
    let mut config = builder.with_single_cert(certificates(files.cert)?, key(files.key)?).map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// TLS towards engines. Without a CA, their certificates are not verified.
pub fn client(files: Files<'_>) -> Result<ClientConfig, TlsError> {
    client_with(files.ca, Some((files.cert, files.key)))
}

/// TLS for a client that may lack a certificate. Without a CA, the server is not verified.
pub fn client_with(ca: Option<&Path>, pair: Option<(&Path, &Path)>) -> Result<ClientConfig, TlsError> {
    let builder =
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::Versions)?;
    let builder = match ca {
        Some(path) => builder.with_root_certificates(roots(path)?),
        None => builder.dangerous().with_custom_certificate_verifier(judged_by(Anybody)),
    };
    let Some((cert_file, key_file)) = pair else { return Ok(builder.with_no_client_auth()) };
    let wrong = |source| TlsError::Pair { cert: cert_file.into(), key: key_file.into(), source };
    builder.with_client_auth_cert(certificates(cert_file)?, key(key_file)?).map_err(wrong)
}

/// TLS for a client from PEM texts. The server's certificate must be of the CA.
pub fn client_of_pem(ca: &str, cert: &str, key: &str) -> Result<ClientConfig, TlsError> {
    let wrong = |what: &'static str, reason: String| TlsError::Pem { what, reason };
    let certificates = |what: &'static str, text: &str| -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let all = all.map_err(|error| wrong(what, error.to_string()))?;
        if all.is_empty() { Err(wrong(what, "there is no certificate in it".into())) } else { Ok(all) }
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA", ca)? {
        roots.add(certificate).map_err(|error| wrong("CA", error.to_string()))?;
    }
    // Of both forms that OpenSSL writes, the head says it.
    if key.contains("ENCRYPTED") {
        return Err(wrong("private key", "it is encrypted; send it without a passphrase (`openssl pkey`)".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| wrong("private key", error.to_string()))?;
    let builder =
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::Versions)?.with_root_certificates(roots);
    let chain = certificates("client certificate", cert)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::OtherKey,
        error => wrong("client certificate with its private key", error.to_string()),
    })
}

/// The host names and addresses in the first certificate of a file.
pub fn hosts(cert: &Path) -> Result<Vec<String>, TlsError> {
    let first = certificates(cert)?.into_iter().next();
    Ok(first.and_then(|it| crate::names::names(&it)).map(|it| it.hosts).unwrap_or_default())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::File { what: "certificates", path: path.into(), reason };
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?.collect();
    let all = all.map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong("there is none in it".into())) } else { Ok(all) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::File {
        what: "a private key",
        path: path.into(),
        reason: error.to_string(),
    })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| ca_error(path, &error))?;
    }
    Ok(roots)
}

fn ca_error(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Ca { path: path.into(), reason: error.to_string() }
}

/// Custom certificate check that a client uses in place of the default verifier.
pub trait Judge: std::fmt::Debug + Send + Sync + 'static {
    /// Judges whether `cert`, which came with `chain`, may speak for `name`. That the other side has its key is checked
    /// elsewhere.
    fn judge(
        &self,
        cert: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error>;
}

/// TLS settings need a verifier; this is one that asks the judge.
pub fn judged_by(judge: impl Judge) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Judged { judge, crypto: ring::default_provider() })
}

/// Accepts any certificate, as `--tls` without `--tlsverify` does in Docker.
#[derive(Debug)]
struct Anybody;

impl Judge for Anybody {
    fn judge(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: UnixTime,
    ) -> Result<(), rustls::Error> {
        Ok(())
    }
}

#[derive(Debug)]
struct Judged<J> {
    judge: J,
    crypto: CryptoProvider,
}

impl<J: Judge> ServerCertVerifier for Judged<J> {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge.judge(cert, chain, name, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.crypto.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}
