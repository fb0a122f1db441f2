//! Files for TLS to a store.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::ring;

use super::{KvError, Store};

/// PEM files for TLS to a store: whom to trust, and who we are (`kv.cacertfile`, `kv.certfile`, `kv.keyfile`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// Returns the configuration for rustls. A file that cannot be used fails here, not at the first connection.
    pub(super) fn config(&self, store: Store) -> Result<rustls::ClientConfig, KvError> {
        let files = herder_tls::Files { cert: &self.certificate, key: &self.key, ca: Some(&self.ca) };
        herder_tls::client(files).map_err(|source| KvError::Tls { store, source })
    }
}

/// Returns a configuration that trusts no certificate, for a store without TLS.
pub(super) fn none(store: Store) -> Result<rustls::ClientConfig, KvError> {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| KvError::Host { store, host: String::new(), reason: error.to_string() })?;
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}
