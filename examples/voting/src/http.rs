//! A minimal HTTP/1.1 server for two small pages: one request a connection.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::{setting, wire};

/// A form of this application is a few bytes; more is not for us.
const BODY_BYTES_MAX: u64 = 4096;
/// Maximum bytes of the head.
const HEAD_BYTES_MAX: u64 = 16 << 10;
/// A browser that stalls is let go.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

pub(crate) fn serve(
    handle: impl Fn(Request, &mut TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", wire::number(&setting("PORT", "80"))?))?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (mut stream, handle) = (stream?, handle.clone());
        thread::spawn(move || {
            if let Err(error) = read(&stream).and_then(|request| handle(request, &mut stream)) {
                eprintln!("a request failed: {error}");
            }
        });
    }
    Ok(())
}

fn read(stream: &TcpStream) -> io::Result<Request> {
    stream.set_read_timeout(Some(REQUEST_TIME_MAX))?;
    let mut reader = BufReader::new(stream.try_clone()?.take(HEAD_BYTES_MAX + BODY_BYTES_MAX));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0_u64);
    let mut body = String::new();
    reader.take(length.min(BODY_BYTES_MAX)).read_to_string(&mut body)?;
    Ok(Request { method, path, headers, body })
}

/// Sends a whole answer. `extra` holds further header lines, each ending with CRLF.
pub(crate) fn reply(stream: &mut TcpStream, status: &str, kind: &str, extra: &str, body: &str) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n{extra}\r\n{body}",
        body.len()
    )
}
