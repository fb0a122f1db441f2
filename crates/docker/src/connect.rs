//! Opens connections to one engine: TCP, TLS over TCP, or a unix socket.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Maximum time to open a connection, TLS included. An engine in reach answers in milliseconds.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// A connection of any kind.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection under way.
pub type Dialling<'d> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Duplex>>> + Send + 'd>>;

/// Opens connections to engines that are not reached by their address alone: through the node beside them, say.
pub trait Dial: Send + Sync + std::fmt::Debug {
    fn dial<'d>(&'d self, addr: &'d str) -> Dialling<'d>;
}

/// Way to reach engines.
#[derive(Clone, Debug)]
pub enum Way {
    /// TCP or a unix socket, by the address.
    Plain,
    /// TLS over TCP; unix sockets stay as they are.
    Tls(Arc<rustls::ClientConfig>),
    Through(Arc<dyn Dial>),
}

/// The TLS error that ended a connection, until a request takes it as its reason.
///
/// In TLS 1.3 a server refuses a client's certificate after the client's handshake. If that ends the connection before
/// hyper hands a request to it, hyper cancels the request and drops the reason.
pub(crate) type Refusal = Arc<Mutex<Option<rustls::Error>>>;

/// Connector of hyper that always connects to one engine and ignores the host in the URI.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    addr: Arc<str>,
    way: Way,
    refusal: Refusal,
}

impl Connector {
    pub(crate) fn new(addr: &str, way: Way, refusal: Refusal) -> Connector {
        Connector { addr: addr.into(), way, refusal }
    }

    async fn connect(self) -> io::Result<Stream> {
        if let Way::Through(dial) = &self.way {
            return Ok(Stream::Other(TokioIo::new(dial.dial(&self.addr).await?)));
        }
        if let Some(path) = self.addr.strip_prefix("unix://") {
            return Ok(Stream::Unix(TokioIo::new(UnixStream::connect(path).await?)));
        }
        let tcp = TcpStream::connect(&*self.addr).await?;
        herder_tls::tcp::tune(&tcp);
        let Way::Tls(tls) = self.way else { return Ok(Stream::Tcp(TokioIo::new(tcp))) };
        let host = self.addr.rsplit_once(':').map_or(&*self.addr, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let tls = TlsConnector::from(tls).connect(name, tcp).await?;
        Ok(Stream::Tls(Box::new(TokioIo::new(tls)), self.refusal))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT_TIME_MAX:?}"));
            timeout(CONNECT_TIME_MAX, connector.connect()).await.map_err(|_| late())?
        })
    }
}

/// An open connection.
pub(crate) enum Stream {
    Tcp(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>, Refusal),
    Unix(TokioIo<UnixStream>),
    Other(TokioIo<Box<dyn Duplex>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Calls the same method on whatever the stream is made of.
macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($io) => {
                let $io = Pin::new($io);
                $call
            }
            Stream::Tls($io, _) => {
                let $io = Pin::new($io.as_mut());
                $call
            }
            Stream::Unix($io) => {
                let $io = Pin::new($io);
                $call
            }
            Stream::Other($io) => {
                let $io = Pin::new($io);
                $call
            }
        }
    };
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = each!(self.as_mut(), io => io.poll_read(cx, buffer));
        if let (Stream::Tls(_, refusal), Poll::Ready(Err(error))) = (self.get_mut(), &read)
            && let Some(reason) = tls_error(error)
        {
            *refusal.lock() = Some(reason);
        }
        read
    }
}

/// Returns the TLS error that an I/O error stands for.
pub(crate) fn tls_error(error: &io::Error) -> Option<rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>().cloned()
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write(cx, bytes))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::mem::MaybeUninit;
    use std::pin::Pin;
    use std::sync::Arc;

    use hyper::rt::{Read as _, ReadBuf};
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::{Connector, Refusal, Way};
    use crate::TlsFault;

    /// Returns TLS for a client whose certificate the server does not know, and for that server.
    fn strangers() -> (ClientConfig, ServerConfig) {
        let make = || rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let (known, stranger) = (make(), make());
        let mut roots = RootCertStore::empty();
        roots.add(known.cert.der().clone()).expect("a root");
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let key =
            |of: &rcgen::CertifiedKey<rcgen::KeyPair>| PrivatePkcs8KeyDer::from(of.signing_key.serialize_der()).into();
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.expect("a verifier"))
            .with_single_cert(vec![known.cert.der().clone()], key(&known));
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![stranger.cert.der().clone()], key(&stranger));
        (client.expect("a pair"), server.expect("a pair"))
    }

    #[tokio::test]
    async fn the_reason_of_a_connection_that_ends_before_its_request_is_kept() {
        let (client, server) = strangers();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address").to_string();
        let refusing = async {
            let (tcp, _) = listener.accept().await.expect("a connection");
            TlsAcceptor::from(Arc::new(server)).accept(tcp).await.err()
        };
        let refusal = Refusal::default();
        let connector = Connector::new(&addr, Way::Tls(Arc::new(client)), refusal.clone());
        let (refused, stream) = tokio::join!(refusing, connector.connect());
        let mut stream = stream.expect("the client's handshake is over before it is refused");
        assert!(refused.is_some() && refusal.lock().is_none());
        let mut room = [MaybeUninit::uninit(); 64];
        let mut buffer = ReadBuf::uninit(&mut room);
        let read = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, buffer.unfilled())).await;
        let kept = refusal.lock().take();
        assert!(read.is_err());
        assert_eq!(kept.as_ref().map(TlsFault::of), Some(TlsFault::ClientRefused));
    }
}
