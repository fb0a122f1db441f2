//! Two buses on one machine, joined by mutual TLS over loopback TCP: messages a second and how long each took.
//!
//! `cargo bench -p herder-bus --bench bus [-- --format json]`. Both buses are in this process and share its cores.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[expect(dead_code, reason = "goals of other benchmarks")]
#[path = "../../../benches/src/report.rs"]
mod report;

use std::sync::Arc;
use std::time::{Duration, Instant};

use herder_bus::{Bus, Headers, Links, Settings};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use report::{Goal, Report, Row, Times};

/// Addresses registered while messages flow.
const ADDRESSES: usize = 10_000;

/// Messages a second that two nodes shall carry, and how long one may take.
const RATE: u64 = 50_000;
const P99: Goal = Goal::Below(5.0);

/// Interval at which the sender checks its rate.
const INTERVAL: Duration = Duration::from_micros(500);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

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
    let ((one, one_links), (two, two_links)) =
        (Links::bus("n1", Settings::default()), Links::bus("n2", Settings::default()));
    let (client, server) = tls_pair().await?;
    let (ours, theirs) = (one.clone(), two.clone());
    tokio::spawn(async move { one_links.carry(&ours, "n2", client).await });
    tokio::spawn(async move { two_links.carry(&theirs, "n1", server).await });
    Ok((one, two))
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Messages that a receiver got.
#[derive(Default)]
struct Seen {
    count: u64,
    in_order: bool,
    times: Vec<Duration>,
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
            seen.times.push(start.elapsed().saturating_sub(Duration::from_nanos(sent)));
            seen.in_order &= last < Some(number);
            last = Some(number);
            seen.count += 1;
        }
    }))
}

/// Sends for some seconds at a rate, or as fast as it goes with 0.
async fn send(bus: &Bus, addresses: &[&str], start: Instant, seconds: f64, rate: u64) {
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
            tokio::time::sleep(INTERVAL).await;
        }
    }
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

/// Messages a second, of those that were to be sent, and how long they took.
fn tell(report: &mut Report, part: &str, wanted: Option<f64>, p99: Goal, seconds: f64, seen: Seen) {
    assert!(seen.in_order, "{part}: a message came before an earlier one");
    let goal = wanted.map_or(Goal::None, |_| Goal::RatioAtLeast(0.99));
    let measured = seen.count as f64 / seconds;
    report.row(Row { figure: format!("{part}, rate"), unit: "/s", measured, baseline: wanted, goal });
    let mut times: Times = seen.times.into_iter().collect();
    for (share, label, goal) in [(0.5, "p50", Goal::None), (0.99, "p99", p99)] {
        let measured = times.ms(share);
        report.row(Row { figure: format!("{part}, {label}"), unit: "ms", measured, baseline: None, goal });
    }
}

async fn stream(report: &mut Report, part: &str, seconds: f64, rate: u64) -> Result<()> {
    let (one, two) = pair().await?;
    let start = Instant::now();
    let seen = receiver(&two, "a", start)?;
    until(|| one.stats().addresses == 1).await;
    send(&one, &["a"], start, seconds, rate).await;
    finish(&one, "a").await;
    let (wanted, goal) = if rate == 0 { (None, Goal::None) } else { (Some(rate as f64), P99) };
    tell(report, part, wanted, goal, seconds, seen.await?);
    Ok(())
}

async fn many_addresses(report: &mut Report, seconds: f64, rate: u64) -> Result<()> {
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
    send(&one, &cycle, start, seconds, rate).await;
    finish(&one, &names[0]).await;
    reads.abort();
    let figure = "10,000 addresses told to a peer".to_owned();
    report.row(Row { figure, unit: "ms", measured: known.as_secs_f64() * 1e3, baseline: None, goal: Goal::None });
    tell(report, "one of 10,000 addresses", Some(rate as f64 / 2.0), P99, seconds, seen.await?);
    Ok(())
}

async fn slow_consumer(report: &mut Report, seconds: f64, rate: u64) -> Result<()> {
    let (one, two) = pair().await?;
    let start = Instant::now();
    let seen = receiver(&two, "quick", start)?;
    let stuck = two.register("stuck")?;
    until(|| one.stats().addresses == 2).await;
    send(&one, &["quick", "stuck"], start, seconds, rate).await;
    finish(&one, "quick").await;
    tell(report, "beside a stuck receiver", Some(rate as f64 / 2.0), P99, seconds, seen.await?);
    assert!(stuck.dropped() > 0 || rate < 10_000, "the stuck receiver was not stuck");
    Ok(())
}

async fn requests(report: &mut Report, seconds: f64, clients: usize) -> Result<()> {
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
                    times.push(began.elapsed());
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
    tell(report, &format!("requests, {clients} at once"), None, Goal::None, seconds, seen);
    Ok(())
}

fn main() -> Result<()> {
    let json = std::env::args().skip_while(|argument| argument != "--format").nth(1).is_some_and(|it| it == "json");
    // `cargo bench` says so; as a test it only has to run.
    let (seconds, rate) = if std::env::args().any(|it| it == "--bench") { (5.0, RATE) } else { (0.1, 1000) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::new("bus", json, "the rate at which messages are sent");
    runtime.block_on(async {
        stream(&mut report, &format!("{rate} messages a second"), seconds, rate).await?;
        stream(&mut report, "as fast as it goes", seconds, 0).await?;
        many_addresses(&mut report, seconds, rate).await?;
        slow_consumer(&mut report, seconds, rate).await?;
        requests(&mut report, seconds, 64).await
    })?;
    report.end();
    Ok(())
}
