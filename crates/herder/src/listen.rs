//! Listeners of `manage` and `up`, with TLS where it is requested.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use herder_cli::{EndpointArgs, TlsFiles};
use herder_front::FrontSettings;
use herder_front::audit::{Audit, AuditFile};
use herder_front::server::{self, Listener};
use herder_tls as tls;

/// TLS of all listeners of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerTls {
    config: Option<Arc<rustls::ServerConfig>>,
    /// Only clients with a certificate of the CA are served.
    verify: bool,
    /// Names in the certificate.
    names: Vec<String>,
}

impl ServerTls {
    pub(crate) fn of(files: Option<&TlsFiles>) -> Result<ServerTls, tls::TlsError> {
        let Some(files) = files else { return Ok(ServerTls::default()) };
        let config = Some(Arc::new(tls::server(pem(files))?));
        Ok(ServerTls { config, verify: files.verify, names: tls::hosts(&files.cert)? })
    }

    /// Opens a listener, with TLS if there is some. One that strangers reach is told.
    pub(crate) async fn bind(&self, url: &str) -> Result<Listener, server::BindError> {
        let listener = server::bind(url, self.config.clone()).await?.named(self.names.iter().cloned());
        if !self.verify && listener.local_addr().is_some_and(|addr| is_reached_from_afar(&addr)) {
            tracing::warn!(
                url,
                "this address is open to every client that reaches it, and gives power over all nodes; listen on 127.0.0.1, or use \
                 --tlsverify with certificates of `herder certs`"
            );
        }
        Ok(listener)
    }
}

/// Returns the settings for the protection of an endpoint.
pub(crate) fn front_settings(endpoint: &EndpointArgs) -> anyhow::Result<FrontSettings> {
    let open = |path: &std::path::PathBuf| {
        let log = AuditFile::open(path).with_context(|| format!("--audit-log {}", path.display()))?;
        anyhow::Ok(Arc::new(log) as Arc<dyn Audit>)
    };
    let audit = endpoint.audit_log.as_ref().map(open).transpose()?;
    Ok(FrontSettings { allowed_hosts: endpoint.allowed_host.clone(), audit, ..FrontSettings::default() })
}

/// Returns the files of a side that shows a certificate. It asks the other side for one of the CA if it verifies.
pub(crate) fn pem(files: &TlsFiles) -> tls::Files<'_> {
    tls::Files { cert: &files.cert, key: &files.key, ca: files.ca.as_deref().filter(|_| files.verify) }
}

fn is_reached_from_afar(addr: &SocketAddr) -> bool {
    !addr.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_out_of_reach() {
        for (addr, expected) in [
            ("127.0.0.1:1", false),
            ("127.8.0.1:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.1:1", true),
        ] {
            assert_eq!(is_reached_from_afar(&addr.parse().expect(addr)), expected, "{addr}");
        }
    }
}
