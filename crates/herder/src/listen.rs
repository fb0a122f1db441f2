//! What `manage` and `up` listen on, with TLS where it is asked for.

use std::net::SocketAddr;
use std::sync::Arc;

use herder_cli::TlsFiles;
use herder_front::server::{self, Listener};
use herder_tls as tls;

/// TLS of all listeners of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerTls {
    config: Option<Arc<rustls::ServerConfig>>,
    /// Only clients with a certificate of the CA are served.
    verify: bool,
}

impl ServerTls {
    pub(crate) fn of(files: Option<&TlsFiles>) -> Result<ServerTls, tls::TlsError> {
        let Some(files) = files else { return Ok(ServerTls::default()) };
        Ok(ServerTls { config: Some(Arc::new(tls::server(pem(files))?)), verify: files.verify })
    }

    /// Opens a listener, with TLS if there is some. One that strangers reach is told.
    pub(crate) async fn bind(&self, url: &str) -> Result<Listener, server::BindError> {
        let listener = server::bind(url, self.config.clone()).await?;
        if !self.verify && listener.local_addr().is_some_and(|addr| is_reached_from_afar(&addr)) {
            tracing::warn!(
                url,
                "this address is open to whoever reaches it, and gives power over all nodes; listen on 127.0.0.1, or use \
                 --tlsverify with certificates of `herder certs`"
            );
        }
        Ok(listener)
    }
}

/// The files of a side that shows a certificate, and asks the other side for one of the CA if it verifies.
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
