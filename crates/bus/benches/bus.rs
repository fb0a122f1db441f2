//! Two buses on one machine, joined by mutual TLS over loopback TCP: messages a second and how long each took.
//!
//! `cargo bench -p herder-bus [-- SECONDS [RATE]]`. Each part prints one line of JSON. The streams have a queue and a writer
//! that sends what waits in one piece, as a node link does; both buses are in this process, so its CPU time is that of both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use herder_bus::{Bus, Headers, Settings, Transport};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Frames that may wait for a link.
const LINK_QUEUE: usize = 4096;

/// Bytes that the writer puts together at most.
const BATCH_BYTES: usize = 64 << 10;

/// Addresses registered while messages flow.
const ADDRESSES: usize = 10_000;

/// How often the sender looks at the clock to keep its rate.
const PACE: Duration = Duration::from_micros(500);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Queues in front of streams.
#[derive(Debug, Default)]
struct Links {
    queues: Mutex<HashMap<String, mpsc::Sender<Bytes>>>,
}

impl Transport for Links {
    fn send(&self, node: &str, frame: Bytes) -> bool {
        self.queues.lock().get(node).is_some_and(|queue| queue.try_send(frame).is_ok())
    }
}

fn bus(node: &str) -> (Arc<Bus>, Arc<Links>) {
    let links = Arc::new(Links::default());
    (Bus::new(node, Settings::default(), links.clone()), links)
}

/// Carries frames of a bus to and from a peer, each with its length in front.
fn link<S: AsyncRead + AsyncWrite + Send + 'static>(bus: &Arc<Bus>, links: &Links, peer: &str, stream: S) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (queue, mut frames) = mpsc::channel::<Bytes>(LINK_QUEUE);
    links.queues.lock().insert(peer.to_owned(), queue);
    bus.peer_up(peer);
    tokio::spawn(async move {
        let mut batch = BytesMut::new();
        while let Some(mut frame) = frames.recv().await {
            loop {
                batch.extend_from_slice(&(frame.len() as u32).to_be_bytes());
                batch.extend_from_slice(&frame);
                match frames.try_recv() {
                    Ok(next) if batch.len() < BATCH_BYTES => frame = next,
                    Ok(next) => {
                        batch.extend_from_slice(&(next.len() as u32).to_be_bytes());
                        batch.extend_from_slice(&next);
                        break;
                    }
                    Err(_) => break,
                }
            }
            if writer.write_all(&batch).await.is_err() || writer.flush().await.is_err() {
                return;
            }
            batch.clear();
        }
    });
    let (bus, peer) = (bus.clone(), peer.to_owned());
    tokio::spawn(async move {
        let mut input = BytesMut::with_capacity(BATCH_BYTES * 2);
        while reader.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
            while let Some(head) = input.first_chunk::<4>() {
                let length = u32::from_be_bytes(*head) as usize;
                if input.len() < 4 + length {
                    break;
                }
                input.advance(4);
                bus.receive(&peer, input.split_to(length).freeze());
            }
        }
    });
}

/// Both ends of a connection with certificates on both sides.
async fn tls_pair() -> Result<(tokio_rustls::client::TlsStream<TcpStream>, tokio_rustls::server::TlsStream<TcpStream>)>
{
    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    let made = rcgen::generate_simple_self_signed(["node".to_owned()])?;
    let key = || PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let chain = vec![made.cert.der().clone()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key().into())?;
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key().into())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (one, accepted) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
    let (one, (other, _)) = (one?, accepted?);
    one.set_nodelay(true)?;
    other.set_nodelay(true)?;
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(client)).connect(ServerName::try_from("node")?, one),
        TlsAcceptor::from(Arc::new(server)).accept(other),
    );
    Ok((client?, server?))
}

/// Two buses that know each other.
async fn pair() -> Result<(Arc<Bus>, Arc<Bus>)> {
    let ((one, one_links), (two, two_links)) = (bus("n1"), bus("n2"));
    let (client, server) = tls_pair().await?;
    link(&one, &one_links, "n2", client);
    link(&two, &two_links, "n1", server);
    Ok((one, two))
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a receiver saw.
#[derive(Default)]
struct Seen {
    count: u64,
    in_order: bool,
    times: Vec<u32>,
}

/// Receives messages with a number and the time of their sending, in nanoseconds since `start`.
fn receiver(bus: &Arc<Bus>, address: &str, start: Instant) -> Result<tokio::task::JoinHandle<Seen>> {
    let mut consumer = bus.register(address)?;
    Ok(tokio::spawn(async move {
        let mut seen = Seen { in_order: true, ..Seen::default() };
        let mut last = None;
        loop {
            let message = consumer.recv().await;
            let Some(number) = message.body["number"].as_u64() else { return seen };
            let sent = message.body["at"].as_u64().unwrap_or_default();
            let took = (start.elapsed().as_nanos() as u64).saturating_sub(sent) / 1000;
            seen.times.push(u32::try_from(took).unwrap_or(u32::MAX));
            seen.in_order &= last < Some(number);
            last = Some(number);
            seen.count += 1;
        }
    }))
}

/// Sends for some seconds at a rate, or as fast as it goes with 0.
async fn send(bus: &Bus, addresses: &[&str], start: Instant, seconds: f64, rate: u64) -> (u64, u64) {
    let (mut sent, mut refused) = (0_u64, 0_u64);
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < seconds {
        let due = if rate == 0 { sent + 64 } else { (begin.elapsed().as_secs_f64() * rate as f64) as u64 };
        while sent + refused < due {
            let number = sent + refused;
            let address = addresses[(number % addresses.len() as u64) as usize];
            let at = start.elapsed().as_nanos() as u64;
            let body = json!({"number": number, "at": at, "container": "0123456789abcdef", "action": "start"});
            match bus.send(address, Headers::default(), body) {
                Ok(()) => sent += 1,
                Err(_) if rate == 0 => {
                    tokio::task::yield_now().await;
                    break;
                }
                Err(_) => refused += 1,
            }
        }
        if rate == 0 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(PACE).await;
        }
    }
    (sent, refused)
}

/// The end of a stream; it is not lost even when the queue is full.
async fn finish(bus: &Bus, address: &str) {
    while bus
        .request(address, Headers::default(), Value::Null, Duration::from_secs(5))
        .await
        .is_err_and(|error| error.code == herder_bus::BusError::CODE_OVERFLOW)
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn report(part: &str, sent: u64, refused: u64, seconds: f64, mut seen: Seen) {
    seen.times.sort_unstable();
    let at = |part: f64| {
        let index = ((seen.times.len() as f64 * part) as usize).min(seen.times.len().saturating_sub(1));
        f64::from(seen.times.get(index).copied().unwrap_or_default()) / 1000.0
    };
    let line = json!({"part": part, "sent": sent, "refused": refused, "received": seen.count, "in_order": seen.in_order,
        "per_second": (seen.count as f64 / seconds).round(), "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999),
        "max_ms": at(1.0)});
    anstream_println(&line.to_string());
}

#[expect(clippy::print_stdout, reason = "a benchmark tells its figures")]
fn anstream_println(line: &str) {
    println!("{line}");
}

async fn stream(part: &str, seconds: f64, rate: u64) -> Result<()> {
    let (one, two) = pair().await?;
    let start = Instant::now();
    let seen = receiver(&two, "a", start)?;
    until(|| one.stats().addresses == 1).await;
    let (sent, refused) = send(&one, &["a"], start, seconds, rate).await;
    finish(&one, "a").await;
    report(part, sent, refused, seconds, seen.await?);
    Ok(())
}

async fn many_addresses(seconds: f64, rate: u64) -> Result<()> {
    let (one, two) = pair().await?;
    let start = Instant::now();
    let names: Vec<String> = (0..ADDRESSES).map(|number| format!("{number:064x}")).collect();
    let began = Instant::now();
    let mut others = two.inbox();
    for name in &names[1..] {
        others.register(name)?;
    }
    let seen = receiver(&two, &names[0], start)?;
    until(|| one.stats().addresses == ADDRESSES).await;
    let known = began.elapsed();
    let reads = tokio::spawn(async move {
        loop {
            others.recv().await;
        }
    });
    let cycle: Vec<&str> = names.iter().step_by(97).flat_map(|name| [names[0].as_str(), name.as_str()]).collect();
    let (sent, refused) = send(&one, &cycle, start, seconds, rate).await;
    finish(&one, &names[0]).await;
    reads.abort();
    anstream_println(&json!({"part": "10000 addresses known", "ms": known.as_secs_f64() * 1000.0}).to_string());
    report("10000 addresses, half of the messages to one", sent, refused, seconds, seen.await?);
    Ok(())
}

async fn slow_consumer(seconds: f64, rate: u64) -> Result<()> {
    let (one, two) = pair().await?;
    let start = Instant::now();
    let seen = receiver(&two, "quick", start)?;
    let stuck = two.register("stuck")?;
    until(|| one.stats().addresses == 2).await;
    let (sent, refused) = send(&one, &["quick", "stuck"], start, seconds, rate).await;
    finish(&one, "quick").await;
    report("beside a stuck receiver, half of the messages", sent, refused, seconds, seen.await?);
    anstream_println(&json!({"part": "the stuck receiver", "dropped": stuck.dropped()}).to_string());
    Ok(())
}

async fn requests(seconds: f64, clients: usize) -> Result<()> {
    let (one, two) = pair().await?;
    let mut consumer = two.register("echo")?;
    tokio::spawn(async move {
        loop {
            let message = consumer.recv().await;
            let body = (*message.body).clone();
            message.reply(Headers::default(), body);
        }
    });
    until(|| one.stats().addresses == 1).await;
    let mut tasks = Vec::new();
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    for _ in 0..clients {
        let one = one.clone();
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                let body = json!({"action": "inspect-container", "id": "0123456789abcdef"});
                if one.request("echo", Headers::default(), body, Duration::from_secs(5)).await.is_ok() {
                    times.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
            }
            times
        }));
    }
    let mut seen = Seen { in_order: true, ..Seen::default() };
    for task in tasks {
        seen.times.extend(task.await?);
    }
    seen.count = seen.times.len() as u64;
    report(&format!("requests with answers, {clients} at once"), seen.count, 0, seconds, seen);
    Ok(())
}

fn main() -> Result<()> {
    // `cargo bench` passes `--bench`, `cargo test` nothing that is a number; then one tenth of a second is enough.
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<f64>().ok());
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let seconds = arguments.next().unwrap_or(if is_bench { 5.0 } else { 0.1 });
    let rate = arguments.next().map_or(if is_bench { 50_000 } else { 1000 }, |rate| rate as u64);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        stream(&format!("{rate} messages a second"), seconds, rate).await?;
        stream("as fast as it goes", seconds, 0).await?;
        many_addresses(seconds, rate).await?;
        slow_consumer(seconds, rate).await?;
        requests(seconds, 64).await
    })
}
