//! The clients of the storm: requests at a steady rate over connections that stay, websockets, and streams of gRPC.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{BEAT, CLOSE};

/// A client that waits longer has failed.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);
/// Connections for requests, websockets, streams; over all addresses.
const KEPT: usize = 64;
const WEBSOCKETS: usize = 200;
const STREAMS: usize = 200;
/// Streams share connections.
const STREAMS_OF_ONE: usize = 20;
/// Pause of a client that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// Counts since the last reading.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub times: Vec<Duration>,
    /// Requests that found their connection closed before the first byte of an answer, and went over a new one.
    pub anew: u64,
    /// Messages over websockets and streams.
    pub messages: u64,
    /// Websockets that were closed with 1001, and streams that ended with status 14; their clients came again.
    pub moved: u64,
    pub failed: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default)]
struct Tally(Arc<Mutex<Seen>>);

impl Tally {
    async fn failed(&self, what: &str, address: &str, error: &anyhow::Error) {
        *self.0.lock().failed.entry(format!("{what} by {address}: {error:#}")).or_default() += 1;
        sleep(PAUSE).await;
    }
}

/// The clients. Dropped, they end.
#[derive(Debug)]
pub(crate) struct Load {
    tally: Tally,
    _clients: JoinSet<()>,
}

impl Load {
    /// Starts clients that send `rate` requests a second, shared by the addresses.
    pub(crate) fn start(addresses: &[String], rate: u32) -> Load {
        let (tally, mut clients) = (Tally::default(), JoinSet::new());
        let of = |at: usize| addresses[at % addresses.len()].clone();
        let period = Duration::from_secs(1) * u32::try_from(KEPT).unwrap_or(1) / rate.max(1);
        for at in 0..KEPT {
            clients.spawn(keep_asking(of(at), period, tally.clone()));
        }
        for at in 0..WEBSOCKETS {
            clients.spawn(keep_talking(of(at), tally.clone()));
        }
        for at in 0..STREAMS / STREAMS_OF_ONE {
            clients.spawn(keep_streaming(of(at), tally.clone()));
        }
        Load { tally, _clients: clients }
    }

    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut self.tally.0.lock())
    }
}

async fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let stream = timeout(ANSWER_TIME_MAX, TcpStream::connect((address, 80))).await.context("no connection in time")?;
    let stream = stream.context("no connection")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn keep_asking(address: String, period: Duration, tally: Tally) {
    let mut open: Option<TcpStream> = None;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let began = Instant::now();
        let mut asked = ask(&mut open, &address).await;
        if matches!(asked, Ok(false)) {
            tally.0.lock().anew += 1;
            asked = ask(&mut open, &address).await;
        }
        match asked {
            Ok(true) => tally.0.lock().times.push(began.elapsed()),
            Ok(false) => tally.failed("a request", &address, &anyhow::anyhow!("a new connection was closed")).await,
            Err(error) => {
                open = None;
                tally.failed("a request", &address, &error).await;
            }
        }
    }
}

/// One request. False, if a connection that was kept was closed before the first byte of an answer: that one may be sent again.
async fn ask(open: &mut Option<TcpStream>, address: &str) -> anyhow::Result<bool> {
    let mut stream = match open.take() {
        Some(stream) => stream,
        None => connect(address).await?,
    };
    let request = b"GET / HTTP/1.1\r\nhost: web.storm\r\n\r\n";
    let mut answer = Vec::with_capacity(1024);
    let read = async {
        if stream.write_all(request).await.is_err() {
            return Ok(None);
        }
        loop {
            match stream.read_buf(&mut answer).await {
                Ok(0) | Err(_) if answer.is_empty() => return Ok(None),
                Ok(0) => bail!("the connection ended within an answer"),
                read => read?,
            };
            let Some(end) = answer.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|it| it.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
            if answer.len() >= end + 4 + length.context("an answer without a length")? {
                return Ok(Some(head));
            }
        }
    };
    let Some(head) = timeout(ANSWER_TIME_MAX, read).await.context("no answer in time")?? else { return Ok(false) };
    if !head.starts_with("http/1.1 200") {
        bail!("the answer is {}", String::from_utf8_lossy(&answer).lines().next().unwrap_or_default());
    }
    if !head.contains("connection: close") {
        *open = Some(stream);
    }
    Ok(true)
}

async fn keep_talking(address: String, tally: Tally) {
    loop {
        if let Err(error) = talk(&address, &tally).await {
            tally.failed("a websocket", &address, &error).await;
        }
    }
}

/// One websocket, until it is closed with 1001.
async fn talk(address: &str, tally: &Tally) -> anyhow::Result<()> {
    let mut stream = connect(address).await?;
    let asks = "GET /ws HTTP/1.1\r\nhost: web.storm\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(asks.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(ANSWER_TIME_MAX, stream.read_u8()).await.context("no upgrade in time")?;
        head.push(byte.context("no upgrade")?);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        bail!("the answer is {}", String::from_utf8_lossy(&head).lines().next().unwrap_or_default());
    }
    loop {
        // A mask of zeros leaves the text as it is. A task that has gone is told by what is read.
        let _ = stream.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'.']).await;
        let mut frame = [0; 2];
        let read = timeout(ANSWER_TIME_MAX, stream.read_exact(&mut frame)).await.context("no message in time")?;
        read.context("ended without a close frame")?;
        let mut body = vec![0; usize::from(frame[1])];
        stream.read_exact(&mut body).await.context("ended within a frame")?;
        if frame[0] & 0x0f == CLOSE {
            if body != [0x03, 0xe9] {
                bail!("closed with {body:?}");
            }
            tally.0.lock().moved += 1;
            return Ok(());
        }
        tally.0.lock().messages += 1;
        sleep(BEAT).await;
    }
}

type Sender = SendRequest<Empty<Bytes>>;

/// Connections of HTTP/2, one after the other, with as many streams each.
async fn keep_streaming(address: String, tally: Tally) {
    loop {
        let opened = async {
            let io = TokioIo::new(connect(&address).await?);
            anyhow::Ok(handshake(TokioExecutor::new(), io).await?)
        };
        let (sender, connection): (Sender, _) = match opened.await {
            Ok(opened) => opened,
            Err(error) => {
                tally.failed("a connection of HTTP/2", &address, &error).await;
                continue;
            }
        };
        let mut streams = JoinSet::new();
        for _ in 0..STREAMS_OF_ONE {
            let (sender, address, tally) = (sender.clone(), address.clone(), tally.clone());
            streams.spawn(async move {
                while !sender.is_closed() {
                    if let Err(error) = stream(sender.clone(), &tally).await {
                        tally.failed("a stream", &address, &error).await;
                    }
                }
            });
        }
        drop(sender);
        // Its end shows in the streams.
        let _ = connection.await;
        while streams.join_next().await.is_some() {}
    }
}

/// One stream, until it ends with status 14.
async fn stream(mut sender: Sender, tally: &Tally) -> anyhow::Result<()> {
    if sender.ready().await.is_err() {
        return Ok(());
    }
    let request = Request::post("http://grpc.storm/storm.Storm/Watch");
    let request = request.header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
    let sent = timeout(ANSWER_TIME_MAX, sender.send_request(request.body(Empty::new())?)).await;
    let mut reply = match sent.context("no answer in time")? {
        Ok(reply) => reply,
        // The connection was told to end, and has not sent it.
        Err(error) if error.is_canceled() => return Ok(()),
        Err(error) => return Err(error).context("no answer"),
    };
    if !reply.status().is_success() {
        bail!("the answer is {}", reply.status());
    }
    loop {
        let frame = timeout(ANSWER_TIME_MAX, reply.frame()).await.context("no message in time")?;
        let frame = frame.context("ended without a status")?.context("broke")?;
        match frame.into_trailers() {
            Ok(trailers) if trailers.get("grpc-status").is_some_and(|it| it == "14") => {
                tally.0.lock().moved += 1;
                return Ok(());
            }
            Ok(trailers) => bail!("ended with {trailers:?}"),
            Err(_) => tally.0.lock().messages += 1,
        }
    }
}
