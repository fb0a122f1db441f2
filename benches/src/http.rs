//! A client of the Docker API that costs little itself: one connection, kept open, one request at a time. The same for
//! herder and for engines, so that the two can be compared.

use anyhow::{Context as _, bail};
use bytes::{Buf as _, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// Read at once; lists of a large cluster have tens of megabytes.
const READ_BYTES: usize = 256 << 10;
/// A body that is sent goes out in pieces of this size.
const WRITE_BYTES: usize = 256 << 10;

/// The head and a small body of a request, ready to be sent many times.
pub(crate) fn request(method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
    let body = body.map(Value::to_string).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Bytes in both directions, over whatever.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// One connection.
pub(crate) struct Connection {
    stream: Box<dyn Duplex>,
    buffer: BytesMut,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Head of an answer.
#[derive(Clone, Copy, Debug)]
struct Head {
    status: u16,
    length: Length,
}

#[derive(Clone, Copy, Debug)]
enum Length {
    Known(usize),
    Chunked,
    UntilEnd,
}

impl Connection {
    /// `host:port`, or `unix:///path`.
    pub(crate) async fn open(addr: &str) -> anyhow::Result<Connection> {
        let context = || format!("cannot connect to {addr}");
        let stream: Box<dyn Duplex> = match addr.strip_prefix("unix://") {
            Some(path) => Box::new(UnixStream::connect(path).await.with_context(context)?),
            None => {
                let stream = TcpStream::connect(addr).await.with_context(context)?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        Ok(Connection { stream, buffer: BytesMut::with_capacity(READ_BYTES) })
    }

    /// Sends a request and reads the answer to its end into `body`, which is emptied before. Gives the status.
    pub(crate) async fn exchange(&mut self, request: &[u8], body: &mut Vec<u8>) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.answer(body).await
    }

    /// Asks once; an answer of 400 and above is an error. An empty answer is null, text that is no JSON a string.
    pub(crate) async fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut answer = Vec::new();
        let status = self.exchange(&request(method, path, body), &mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        if status >= 400 {
            bail!("{method} {path} was answered with {status}: {}", text.trim());
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_str(&text).unwrap_or_else(|_| text.into()))
    }

    /// Sends a large body and gives the answer as text.
    pub(crate) async fn upload(&mut self, path: &str, body: &[u8]) -> anyhow::Result<String> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(head.as_bytes()).await?;
        for piece in body.chunks(WRITE_BYTES) {
            self.stream.write_all(piece).await?;
        }
        let mut answer = Vec::new();
        let status = self.answer(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        if status >= 400 || text.contains("errorDetail") {
            bail!("POST {path} was answered with {status}: {}", text.trim());
        }
        Ok(text)
    }

    /// Sends a request that turns the connection into a raw stream.
    pub(crate) async fn hijack(mut self, path: &str, body: &Value) -> anyhow::Result<Stream> {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(head.as_bytes()).await?;
        let head = self.head().await?;
        if !matches!(head.status, 101 | 200) {
            bail!("POST {path} was answered with {}", head.status);
        }
        Ok(Stream(self))
    }

    async fn answer(&mut self, body: &mut Vec<u8>) -> anyhow::Result<u16> {
        body.clear();
        let head = self.head().await?;
        match head.length {
            Length::Known(length) => self.take(length, body).await?,
            Length::UntilEnd => {
                while self.fill().await? > 0 {}
                body.extend_from_slice(&self.buffer.split());
            }
            Length::Chunked => loop {
                let line = self.line().await?;
                let digits = line.split(';').next().unwrap_or_default().trim();
                let length = usize::from_str_radix(digits, 16).with_context(|| format!("a chunk of `{line}` bytes"))?;
                self.take(length, body).await?;
                self.line().await?;
                if length == 0 {
                    break;
                }
            },
        }
        Ok(head.status)
    }

    async fn head(&mut self) -> anyhow::Result<Head> {
        let first = self.line().await?;
        let status: u16 = first.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP answer")?;
        let mut length = if matches!(status, 101 | 204 | 304) { Length::Known(0) } else { Length::UntilEnd };
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = Length::Known(value.trim().parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                length = Length::Chunked;
            }
        }
        Ok(Head { status, length })
    }

    /// The next line, without its end.
    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(at + 1);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.fill().await? == 0 {
                bail!("the connection ended within an answer");
            }
        }
    }

    async fn take(&mut self, mut length: usize, body: &mut Vec<u8>) -> anyhow::Result<()> {
        while length > 0 {
            if self.buffer.is_empty() && self.fill().await? == 0 {
                bail!("the connection ended within an answer");
            }
            let piece = length.min(self.buffer.len());
            body.extend_from_slice(&self.buffer[..piece]);
            self.buffer.advance(piece);
            length -= piece;
        }
        Ok(())
    }

    async fn fill(&mut self) -> anyhow::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        Ok(self.stream.read_buf(&mut self.buffer).await?)
    }
}

/// A hijacked connection.
#[derive(Debug)]
pub(crate) struct Stream(Connection);

impl Stream {
    /// Reads to the end: bytes, and the seconds from the first to the last.
    pub(crate) async fn drain(mut self) -> anyhow::Result<(u64, f64)> {
        let mut bytes = 0_u64;
        let mut began = None;
        loop {
            bytes += self.0.buffer.len() as u64;
            self.0.buffer.clear();
            if self.0.fill().await? == 0 {
                break;
            }
            began.get_or_insert_with(std::time::Instant::now);
        }
        Ok((bytes, began.map_or(0.0, |began| began.elapsed().as_secs_f64())))
    }
}
