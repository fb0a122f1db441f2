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

/// Connector of hyper that always connects to one engine and ignores the host in the URI.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    addr: Arc<str>,
    way: Way,
}

impl Connector {
    pub(crate) fn new(addr: &str, way: Way) -> Connector {
        Connector { addr: addr.into(), way }
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
        Ok(Stream::Tls(Box::new(TokioIo::new(tls))))
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
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
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
            Stream::Tls($io) => {
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
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_read(cx, buffer))
    }
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
