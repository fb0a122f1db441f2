//! Requests through the ingress, HAProxy and nginx in turn, each with one core, to the same upstream.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../../../benches/src/report.rs"]
mod report;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::{BoxFuture, join_all};
use herder_decide::endpoints::ServiceEndpoints;
use herder_decide::ingress::Routes;
use herder_ingress::{Conn, Ingress, Reach};
use herder_model::swarm::{Backend, Entrypoint, IngressChanges, IngressNews, IngressSettings, IngressState};
use herder_tls::certs::{Authority, Usage};
use report::{Goal, Report, Row, Times, middle};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5;
/// Time for a proxy to listen. HAProxy ends at once where it may not open as many files as it wants.
const START_MAX: Duration = Duration::from_secs(20);
const ROUND: Duration = Duration::from_secs(2);
/// Connections that are kept, and those that are made anew for each request.
const KEPT: usize = 64;
const NEW: usize = 16;
const LARGE: usize = 4;
const IDLE: usize = 10_000;
/// The ingress takes so many of one client.
const OF_ONE: usize = 900;
const ROUTES: usize = 10_000;
/// Name of the variable that makes this program the ingress.
const ROLE: &str = "BENCH_INGRESS";

#[derive(Debug)]
struct Upstream(SocketAddr);

impl Reach for Upstream {
    fn connect<'r>(&'r self, _: &'r str, _: &'r Backend, _: u16) -> BoxFuture<'r, std::io::Result<Conn>> {
        Box::pin(async {
            let stream = TcpStream::connect(self.0).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Conn)
        })
    }

    fn datagrams<'r>(&'r self, _: &'r str, _: &'r Backend, _: u16) -> BoxFuture<'r, std::io::Result<UdpSocket>> {
        Box::pin(async { Err(std::io::ErrorKind::Unsupported.into()) })
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn news(before: &IngressState, after: &IngressState, version: u64) -> IngressNews {
    let changes = IngressChanges::between(before, after);
    IngressNews { whole: version == 1, applies_to: version - 1, results_in: version, listens: true, changes }
}

fn state(text: serde_json::Value) -> IngressState {
    serde_json::from_value(text).expect("a state")
}

/// Is the ingress: prints its two ports, and serves until its input ends.
fn serve(upstream: &str, chain: &str, key: &str) {
    runtime().block_on(async {
        let reach = Arc::new(Upstream(upstream.parse().expect("an address")));
        let ingress = Ingress::new(reach, CancellationToken::new());
        let read = |path: &str| std::fs::read_to_string(path).expect("PEM");
        let after = state(json!({
            "settings": {"entrypoints": {"web": {"address": "127.0.0.1:0"}, "tls": {"address": "127.0.0.1:0"}}},
            "routes": {"r": {"rule": "Host(`a`)", "service": "s"}, "t": {"rule": "Host(`a`)", "service": "s", "tls": {}}},
            "services": {"s": {"pass_host": true, "port": 80, "backends": {"t": {"state": "serving", "weight": 1}}}},
            "certificates": {"c": {"names": ["a"], "chain": read(chain), "key": read(key)}},
        }));
        ingress.take(&news(&IngressState::default(), &after, 1)).expect("it is the first");
        let addresses = ingress.addresses();
        println!("{} {}", addresses["web"].port(), addresses["tls"].port());
        let mut input = [0];
        while tokio::io::stdin().read(&mut input).await.is_ok_and(|count| count > 0) {}
    });
}

/// A program that ends with the benchmark.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Starts it on the first core.
    fn start(line: &[&str]) -> Program {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).args(line).stdout(Stdio::null()).stderr(Stdio::null());
        Program(command.spawn().expect("HAProxy and nginx of Debian are there"))
    }

    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
        line.and_then(|it| it.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    }
}

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port()
}

/// A proxy under test: its ports for plain and for TLS connections.
struct Proxy {
    name: &'static str,
    plain: u16,
    tls: u16,
    program: Program,
}

fn ingress(upstream: u16, folder: &Path) -> Proxy {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(std::env::current_exe().expect("this program"));
    let files = ["chain.pem", "key.pem"].map(|it| folder.join(it).display().to_string());
    command.env(ROLE, format!("127.0.0.1:{upstream} {} {}", files[0], files[1]));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its ports");
    let mut ports = line.split_whitespace().map(|it| it.parse().expect("a port"));
    let (plain, tls) = (ports.next().expect("a port"), ports.next().expect("a port"));
    Proxy { name: "herder", plain, tls, program: Program(child) }
}

fn haproxy(upstream: u16, folder: &Path) -> Proxy {
    let (plain, tls) = (port(), port());
    let pem = folder.join("both.pem").display().to_string();
    let config = format!(
        "global\n maxconn 2000\n nbthread 1\ndefaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n \
         option forwardfor\nfrontend f\n bind 127.0.0.1:{plain}\n bind 127.0.0.1:{tls} ssl crt {pem} alpn h2,http/1.1\n \
         use_backend b if {{ hdr(host) -i a }}\nbackend b\n server s 127.0.0.1:{upstream}\n"
    );
    let path = folder.join("haproxy.cfg");
    std::fs::write(&path, config).expect("written");
    let program = Program::start(&["haproxy", "-db", "-f", &path.display().to_string()]);
    Proxy { name: "haproxy", plain, tls, program }
}

fn nginx(folder: &Path, name: &str, server: &str) -> Program {
    let at = folder.join(name);
    std::fs::create_dir_all(&at).expect("a folder");
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|it| format!("{it}_temp_path {}/{it};", at.display()));
    let config = format!(
        "daemon off; worker_processes 1; master_process off; pid {0}/pid; error_log /dev/null;\nevents {{ worker_connections 4000; }}\n\
         http {{ access_log off; keepalive_requests 100000000; {1}\n{server} }}\n",
        at.display(),
        temporary.join(" ")
    );
    let path = at.join("nginx.conf").display().to_string();
    std::fs::write(&path, config).expect("written");
    Program::start(&["nginx", "-p", &at.display().to_string(), "-c", &path])
}

fn nginx_proxy(upstream: u16, folder: &Path) -> Proxy {
    let (plain, tls) = (port(), port());
    let file = |name: &str| folder.join(name).display().to_string();
    let server = format!(
        "upstream u {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}\nserver {{ listen 127.0.0.1:{plain}; \
         listen 127.0.0.1:{tls} ssl http2; server_name a; ssl_certificate {}; ssl_certificate_key {}; location / {{ proxy_pass http://u; \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Forwarded-For \
         $proxy_add_x_forwarded_for; }} }}",
        file("chain.pem"),
        file("key.pem")
    );
    Proxy { name: "nginx", plain, tls, program: nginx(folder, "proxy", &server) }
}

/// Reads one answer; the bytes of it.
async fn answer(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> usize {
    buffer.clear();
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|it| it == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(stream.read_buf(buffer).await.expect("read") > 0, "an answer");
    };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let length = head.lines().find_map(|it| it.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
    let total = end + length.expect("a length");
    let mut had = buffer.len();
    while had < total {
        buffer.clear();
        let read = stream.read_buf(buffer).await.expect("read");
        assert!(read > 0, "all of the answer");
        had += read;
    }
    total
}

/// One kind of load: answers in a second, and how long each took.
type Load = fn(SocketAddr, SocketAddr, TlsConnector, Instant) -> BoxFuture<'static, Vec<Duration>>;

async fn kept(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, until: Instant) -> Vec<Duration> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nuser-agent: bench\r\naccept: */*\r\n\r\n");
    let (mut times, mut buffer) = (Vec::new(), Vec::with_capacity(256 << 10));
    while Instant::now() < until {
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await.expect("written");
        answer(&mut stream, &mut buffer).await;
        times.push(began.elapsed());
    }
    times
}

async fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).await.expect("it listens");
    stream.set_nodelay(true).expect("set");
    stream
}

fn keep_alive(plain: SocketAddr, _: SocketAddr, _: TlsConnector, until: Instant) -> BoxFuture<'static, Vec<Duration>> {
    Box::pin(async move {
        join_all((0..KEPT).map(|_| async move { kept(connect(plain).await, "/small", until).await })).await.concat()
    })
}

fn large(plain: SocketAddr, _: SocketAddr, _: TlsConnector, until: Instant) -> BoxFuture<'static, Vec<Duration>> {
    Box::pin(async move {
        join_all((0..LARGE).map(|_| async move { kept(connect(plain).await, "/large", until).await })).await.concat()
    })
}

fn anew(plain: SocketAddr, _: SocketAddr, _: TlsConnector, until: Instant) -> BoxFuture<'static, Vec<Duration>> {
    Box::pin(async move {
        let one = || async move {
            let (mut times, mut buffer) = (Vec::new(), Vec::new());
            while Instant::now() < until {
                let began = Instant::now();
                let mut stream = connect(plain).await;
                stream
                    .write_all(b"GET /small HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                    .await
                    .expect("written");
                answer(&mut stream, &mut buffer).await;
                times.push(began.elapsed());
            }
            times
        };
        join_all((0..NEW).map(|_| one())).await.concat()
    })
}

fn handshakes(_: SocketAddr, tls: SocketAddr, tool: TlsConnector, until: Instant) -> BoxFuture<'static, Vec<Duration>> {
    Box::pin(async move {
        let one = |tool: TlsConnector| async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let began = Instant::now();
                let name = ServerName::try_from("a").expect("a name");
                let mut stream = tool.connect(name, connect(tls).await).await.expect("a handshake");
                times.push(began.elapsed());
                let _ = stream.shutdown().await;
            }
            times
        };
        join_all((0..NEW).map(|_| one(tool.clone()))).await.concat()
    })
}

fn certificates(folder: &Path) -> TlsConnector {
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
    let ca = Authority::new("bench", now, day).expect("a CA");
    let pair = ca.sign("a", &["a".to_owned()], Usage::Engine, now, day).expect("signed");
    for (name, text) in
        [("chain.pem", pair.cert.clone()), ("key.pem", pair.key.clone()), ("both.pem", pair.cert + &pair.key)]
    {
        std::fs::write(folder.join(name), text).expect("written");
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pair.cert.as_bytes()).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    // Each handshake is a whole one.
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

/// Plays one load with each proxy in turn; the requests per second and p99 of each in each round.
fn play(proxies: &[Proxy], tool: &TlsConnector, load: Load) -> Vec<Vec<(f64, f64)>> {
    let mut rounds = vec![Vec::new(); proxies.len()];
    for _ in 0..ROUNDS {
        for (at, proxy) in proxies.iter().enumerate() {
            let [plain, tls] = [proxy.plain, proxy.tls].map(|it| SocketAddr::from(([127, 0, 0, 1], it)));
            let began = Instant::now();
            let times = runtime().block_on(load(plain, tls, tool.clone(), began + ROUND));
            let rate = times.len() as f64 / began.elapsed().as_secs_f64();
            rounds[at].push((rate, times.into_iter().collect::<Times>().ms(0.99)));
        }
    }
    rounds
}

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        let parts: Vec<&str> = role.split(' ').collect();
        return serve(parts[0], parts[1], parts[2]);
    }
    let option = |name: &str| std::env::args().skip_while(|argument| argument != name).nth(1);
    let json = option("--format").is_some_and(|it| it == "json");
    // `--only load|idle|swap` runs one part.
    let only = option("--only");
    let is_meant = |part: &str| only.as_deref().is_none_or(|it| it == part);
    let mut report = Report::new("ingress", json, "the same load through another proxy of one core, in turn");
    if is_meant("swap") {
        report.row(swap());
        leader().into_iter().for_each(|it| report.row(it));
    }
    if !is_meant("load") && !is_meant("idle") {
        return report.end();
    }
    let folder = tempfile::tempdir().expect("a folder");
    let tool = certificates(folder.path());
    std::fs::write(folder.path().join("large"), vec![b'x'; 1 << 20]).expect("written");
    let upstream = port();
    let server = format!(
        "server {{ listen 127.0.0.1:{upstream}; root {}; location = /small {{ return 200 \"{}\"; }} }}",
        folder.path().display(),
        "x".repeat(1000)
    );
    let _upstream = nginx(folder.path(), "upstream", &server);
    let proxies =
        [ingress(upstream, folder.path()), haproxy(upstream, folder.path()), nginx_proxy(upstream, folder.path())];
    for port in proxies.iter().flat_map(|it| [it.plain, it.tls]).chain([upstream]) {
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < START_MAX, "nobody listens on port {port}: does the proxy start by hand?");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let loads: [(&str, Load, f64, f64); 4] = [
        ("keep-alive, 1 KB", keep_alive, 0.6, 0.6),
        ("new connections", anew, 0.6, 0.6),
        ("TLS handshakes", handshakes, 0.6, 0.6),
        ("1 MB bodies", large, 0.6, 0.9),
    ];
    for (name, load, against_haproxy, against_nginx) in loads.into_iter().filter(|_| is_meant("load")) {
        let rounds = play(&proxies, &tool, load);
        for (other, least) in [(1, against_haproxy), (2, against_nginx)] {
            let of = |part: fn(&(f64, f64)) -> f64| {
                middle(rounds[0].iter().zip(&rounds[other]).map(|(a, b)| (part(a), part(b))).collect())
            };
            let (rate, p99) = (of(|it| it.0), of(|it| it.1));
            let row = |figure: &str, unit, (measured, baseline), goal| {
                let figure = format!("{name}, {figure}, {}", proxies[other].name);
                Row { figure, unit, measured, baseline: Some(baseline), goal }
            };
            report.row(row("per second", "/s", rate, Goal::RatioAtLeast(least)));
            let goal = if other == 1 { Goal::RatioAtMost(1.5) } else { Goal::None };
            report.row(row("p99", "ms", p99, goal));
        }
    }
    if is_meant("idle") {
        report.row(idle(&proxies[0]));
    }
    report.end();
}

/// Memory of the ingress with connections that say nothing.
fn idle(proxy: &Proxy) -> Row {
    let measured = runtime().block_on(async {
        let mut open = Vec::new();
        for at in 0..IDLE {
            let socket = TcpSocket::new_v4().expect("a socket");
            let client = u8::try_from(2 + at / OF_ONE).expect("a small number");
            socket.bind(SocketAddr::from(([127, 0, 0, client], 0))).expect("bound");
            let Ok(mut stream) = socket.connect(SocketAddr::from(([127, 0, 0, 1], proxy.plain))).await else { break };
            stream.write_all(b"GET /small HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("written");
            answer(&mut stream, &mut Vec::new()).await;
            open.push(stream);
        }
        assert_eq!(open.len(), IDLE, "raise the limit of open files (ulimit -n)");
        proxy.program.memory()
    });
    let figure = format!("memory with {IDLE} idle connections");
    Row { figure, unit: "MB", measured, baseline: None, goal: Goal::Below(60.0) }
}

/// Measures the time until requests are routed by another table.
fn swap() -> Row {
    let times = runtime().block_on(async {
        let ingress = Ingress::new(Arc::new(Upstream(SocketAddr::from(([127, 0, 0, 1], 1)))), CancellationToken::new());
        let of = |last: &str| {
            let mut routes: serde_json::Map<String, serde_json::Value> = (0..ROUTES)
                .map(|at| {
                    (format!("r{at}"), json!({"rule": format!("Host(`h{at}`) && PathPrefix(`/a`)"), "service": "s"}))
                })
                .collect();
            routes.insert("last".to_owned(), json!({"rule": last, "service": "s"}));
            state(json!({"routes": routes, "services": {"s": {"port": 80}}}))
        };
        let states = [of("Host(`x`)"), of("Host(`y`)")];
        ingress.take(&news(&IngressState::default(), &states[0], 1)).expect("it is the first");
        let swaps = (0..20).map(|at: u64| {
            let (before, after) =
                if at.is_multiple_of(2) { (&states[0], &states[1]) } else { (&states[1], &states[0]) };
            let news = news(before, after, at + 2);
            let began = Instant::now();
            ingress.take(&news).expect("it follows");
            began.elapsed()
        });
        swaps.collect::<Vec<_>>()
    });
    let measured = times.into_iter().collect::<Times>().ms(0.5);
    let figure = format!("one of {ROUTES} routes changes, p50");
    Row { figure, unit: "ms", measured, baseline: None, goal: Goal::Below(20.0) }
}

/// Measures how long the leader computes all routes, and those of one service after it changed.
fn leader() -> [Row; 2] {
    let service = |at: usize, host: &str| {
        let labels = [
            ("traefik.enable".to_owned(), "true".to_owned()),
            (format!("traefik.http.routers.r{at}.rule"), format!("Host(`{host}{at}`) && PathPrefix(`/a`)")),
            (format!("traefik.http.services.r{at}.loadbalancer.server.port"), "80".to_owned()),
        ];
        let (id, name) = (format!("id{at}"), format!("s{at}"));
        ServiceEndpoints { id: id.clone(), name, labels: labels.into(), ..ServiceEndpoints::default() }
    };
    let settings = IngressSettings {
        entrypoints: [("web".to_owned(), Entrypoint::default())].into(),
        ..IngressSettings::default()
    };
    let update = |routes: &mut Routes, changed: Vec<ServiceEndpoints>| {
        let began = Instant::now();
        routes.update(changed.into_iter().map(|it| (it.id.clone(), Some(it))), &|_| None, &|_| String::new());
        began.elapsed()
    };
    let mut routes = Routes::default();
    let whole = (0..5).map(|_| {
        routes = Routes::new(settings.clone());
        update(&mut routes, (0..ROUTES).map(|at| service(at, "h")).collect())
    });
    let whole = whole.collect::<Times>().ms(0.5);
    let one = (0..20).map(|at| {
        let before = routes.state().clone();
        let time = update(&mut routes, vec![service(at, "x")]);
        assert_eq!(IngressChanges::between(&before, routes.state()).routes.put.len(), 1);
        time
    });
    let one = one.collect::<Times>().ms(0.5);
    assert!(routes.state().routes.len() == ROUTES && routes.problems().is_empty(), "{:?}", routes.problems());
    let row = |figure: &str, measured| Row {
        figure: format!("the leader computes {figure}, p50"),
        unit: "ms",
        measured,
        baseline: None,
        goal: Goal::None,
    };
    [row(&format!("{ROUTES} routes"), whole), row(&format!("one of {ROUTES} routes"), one)]
}
