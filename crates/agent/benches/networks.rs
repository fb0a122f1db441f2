//! One node's part in large networks: 1,000 services with ten tasks each, on ten nodes.
//!
//! Measures the real worker, kernel and DNS server in namespaces of their own: time until the tables are there, processor time for
//! each change, memory. Needs root. `--format json` prints JSON, `--changes N` makes so many changes.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[expect(dead_code, reason = "goals of other benchmarks")]
#[path = "../../../benches/src/report.rs"]
mod report;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use herder_agent::net::{NetSettings, Networks};
use herder_model::swarm::{NetBody, NetChanges, NetNews, NetState, NetUpdate};
use herder_parts::Parts;
use report::{Goal, Report, Row, Times};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const SERVICES: usize = 1000;
const TASKS: usize = 10;
const PORTS: usize = 100;
const NODES: usize = 10;

/// Goals of 1,000 services with ten tasks each.
const LOAD_MS: f64 = 500.0;
const CHANGE_CPU_MS: f64 = 1.0;
const MEMORY_MB: f64 = 60.0;

/// Set in the process that is in its own namespaces.
const INSIDE: &str = "BENCH_NETWORKS_INSIDE";

/// Milliseconds of processor time in one tick of `/proc` (`USER_HZ` is 100 on all Linux machines).
const TICK_MS: f64 = 10.0;

type BoxedError = Box<dyn std::error::Error>;

fn main() -> Result<ExitCode, BoxedError> {
    let words: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let [_, verb, _, socket, _, folder] = words.as_slice()
        && verb == "net-dns"
    {
        runtime.block_on(herder_dns::serve(socket.as_ref(), folder.as_ref(), CancellationToken::new()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if std::env::var_os(INSIDE).is_none() {
        return Err(inside(&words).exec().into());
    }
    let value = |name: &str| words.iter().position(|it| it == name).and_then(|at| words.get(at + 1));
    let changes = value("--changes").and_then(|it| it.parse().ok()).unwrap_or(500);
    let report = Report::new("networks", value("--format").is_some_and(|it| it == "json"), "none");
    // The first process of a namespace gets no signal that it does not ask for.
    runtime.block_on(async {
        tokio::select! {
            outcome = measure(changes, report) => outcome.map(|()| ExitCode::SUCCESS),
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::FAILURE),
        }
    })
}

/// Starts this program again, in namespaces of its own. They end with it: the links and tables that it makes, and the DNS server that it
/// starts. Its `/sys` shows these links and not those of the machine.
fn inside(words: &[String]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-ec", "mount -t sysfs sysfs /sys; exec \"$0\" \"$@\""]).args(words).env(INSIDE, "1");
    command
}

fn sh(script: &str) -> std::io::Result<()> {
    let status = Command::new("sh").args(["-ec", script]).status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(script.to_owned())) }
}

fn address(net: u8, n: usize) -> String {
    format!("10.{net}.{}.{}", n / 250 + 1, n % 250 + 1)
}

/// A user network and ingress: services have ten tasks in both, the first ones publish a port.
fn states() -> Result<[(String, NetState); 2], serde_json::Error> {
    let nodes = |has_ingress: bool| -> Value {
        let node = |n: usize| {
            let ingress = has_ingress.then(|| format!("10.98.0.{}", n + 1));
            (format!("n{n}"), json!({"vtep": format!("192.0.2.{n}"), "ingress": ingress, "up": true}))
        };
        (1..=NODES).map(node).collect::<serde_json::Map<_, _>>().into()
    };
    // One by one: what the agent has in memory is measured.
    let endpoints = |net: u8, services: usize| {
        let endpoint = |n: usize| {
            let (service, node) = (n / TASKS, n % NODES + 1);
            let value = json!({"node": format!("n{node}"), "v4": address(net, n), "names": [format!("s{service}.{n}"), format!("h{n}")],
                "service": format!("s{service}"), "serving": true});
            Ok((format!("t{n}"), serde_json::from_value(value)?))
        };
        (0..services * TASKS).map(endpoint).collect::<Result<_, serde_json::Error>>()
    };
    let services: Value = (0..SERVICES)
        .map(|n| {
            (format!("s{n}"), json!({"name": format!("service-{n}"), "mode": "vip", "vip4": address(97, 10_000 + n)}))
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let ports: Value = (0..PORTS)
        .map(|n| {
            let published = 20_000 + n;
            (
                format!("{published}/tcp"),
                json!({"protocol": "tcp", "published": published, "target": 80, "service": format!("s{n}")}),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let ov = json!({
        "facts": {"name": "ov", "vni": 4097, "subnets": [{"subnet": "10.97.0.0/16", "gateway": "10.97.0.1"}]},
        "nodes": nodes(false), "services": services,
    });
    let ingress = json!({
        "facts": {"name": "ingress", "vni": 4096, "ingress": true, "subnets": [{"subnet": "10.98.0.0/16", "gateway": "10.98.0.1"}]},
        "nodes": nodes(true), "services": services, "ports": ports,
    });
    let ov = NetState { endpoints: endpoints(97, SERVICES)?, ..serde_json::from_value(ov)? };
    let ingress = NetState { endpoints: endpoints(98, PORTS)?, ..serde_json::from_value(ingress)? };
    Ok([("ov".to_owned(), ov), ("in".to_owned(), ingress)])
}

/// An engine that has both networks, and nothing else.
fn engine() -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?.to_string();
    let network =
        |id: &str, name: &str| json!({"Id": format!("e-{id}"), "Name": name, "Labels": {"com.herder.network": id}});
    let body = json!([network("ov", "ov"), network("in", "ingress")]).to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Ok(at)
}

/// Processor time of this process, of its DNS server and of programs that it ran, in milliseconds.
fn processor_ms() -> f64 {
    let own = std::process::id();
    let mut ticks = 0.0;
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |entry: &std::fs::DirEntry| entry.file_name().to_str().is_some_and(|it| it.parse::<u32>().is_ok());
    for entry in entries.filter(is_process) {
        let text = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((head, rest)) = text.rsplit_once(") ") else { continue };
        let fields: Vec<f64> = rest.split(' ').map(|it| it.parse().unwrap_or_default()).collect();
        let pid: u32 = head.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or_default();
        if let [_, parent, _, _, _, _, _, _, _, _, _, user, system, ended_user, ended_system, ..] = fields[..] {
            if pid == own {
                ticks += user + system + ended_user + ended_system;
            } else if parent == f64::from(own) {
                ticks += user + system;
            }
        }
    }
    ticks * TICK_MS
}

fn memory_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb: f64 = line.and_then(|it| it.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
    kb / 1024.0
}

async fn applied(networks: &Networks, network: &str, version: u64) -> Result<(), BoxedError> {
    let mut seen = networks.applied();
    let is_there = seen.wait_for(|all| all.get(network).is_some_and(|it| *it >= version));
    tokio::time::timeout(Duration::from_secs(120), is_there).await??;
    Ok(())
}

/// Changes from version 1 on: tasks of services all over the network leave, and come back.
fn updates(id: &str, state: &NetState, changes: usize) -> Result<Vec<NetUpdate>, BoxedError> {
    let mut state = state.clone();
    let update = |n: usize| {
        let mut next = state.clone();
        let task = format!("t{}", (n / 2 * 37) % (SERVICES * TASKS));
        next.endpoints.get_mut(&task).ok_or("an endpoint")?.serving = n % 2 == 1;
        let version = u64::try_from(n)? + 1;
        let body = NetBody::Changes(Box::new(NetChanges::between(&state, &next)));
        state = next;
        let (network_id, results_in) = (id.to_owned(), version + 1);
        Ok(NetUpdate { network_id, applies_to: version, results_in, settled: version, body, ..NetUpdate::default() })
    };
    (0..changes).map(update).collect()
}

async fn measure(changes: usize, mut report: Report) -> Result<(), BoxedError> {
    sh("ip link set lo up; ip link add u0 type veth peer name u1; ip link set u1 up
        ip addr add 192.0.2.1/24 dev u0; ip link set u0 up
        for v in 4096 4097; do ip link add hv$v type bridge; ip link set hv$v mtu 1450 up; done
        iptables -w -N DOCKER-USER; iptables -w -A DOCKER-USER -j RETURN; iptables -w -A FORWARD -j DOCKER-USER")?;
    let mut row = |figure: &str, unit, measured, goal| {
        report.row(Row { figure: figure.into(), unit, measured, baseline: None, goal });
    };
    let folder = tempfile::tempdir()?;
    let before_mb = memory_mb();
    let networks = Networks::default();
    let settings = NetSettings {
        dns_command: vec![std::env::current_exe()?.into(), "net-dns".into()],
        tunnel_command: Vec::new(),
        folder: folder.path().to_owned(),
    };
    let states = states()?;
    networks.start(settings, &engine()?, herder_agent::Way::Plain, "n1", &Parts::default());
    let (began, processor) = (Instant::now(), processor_ms());
    let update = |(id, state): &(String, NetState)| {
        let body = NetBody::Whole(Box::new(state.clone()));
        NetUpdate { network_id: id.clone(), results_in: 1, body, ..NetUpdate::default() }
    };
    let news = NetNews { whole: true, updates: states.iter().map(update).collect(), ..NetNews::default() };
    networks.take(&news).map_err(|_| "a gap")?;
    applied(&networks, "ov", 1).await?;
    applied(&networks, "in", 1).await?;
    row("tables load", "ms", began.elapsed().as_secs_f64() * 1e3, Goal::Below(LOAD_MS));
    row("  processor time, with programs that are run", "ms", processor_ms() - processor, Goal::None);
    let (id, state) = &states[0];
    let updates = updates(id, state, changes)?;
    // What the load has caused comes to rest.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (began, processor) = (Instant::now(), processor_ms());
    let mut waits = Vec::new();
    for update in updates {
        let sent = Instant::now();
        networks.update(&update).map_err(|_| "a gap")?;
        applied(&networks, id, update.results_in).await?;
        waits.push(sent.elapsed());
    }
    let (processor, took) = (processor_ms() - processor, began.elapsed().as_secs_f64());
    let count = f64::from(u32::try_from(changes)?);
    let mut waits: Times = waits.into_iter().collect();
    row("one change, processor time of agent and DNS", "ms", processor / count, Goal::Below(CHANGE_CPU_MS));
    row("one change to kernel and DNS, p50", "ms", waits.ms(0.5), Goal::None);
    row("one change to kernel and DNS, p99", "ms", waits.ms(0.99), Goal::None);
    row("changes one after the other", "/s", count / took, Goal::None);
    row("memory of the agent", "MB", memory_mb(), Goal::Below(MEMORY_MB));
    row("  before it had networks", "MB", before_mb, Goal::None);
    report.end();
    Ok(())
}
