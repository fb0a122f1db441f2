//! Hosts, containers and a client outside, as network namespaces.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use herder_decide::net::{Host, Op, States, Table, plan, table};
use herder_net::Kernel;
use serde_json::{Value, json};

const PREFIX: &str = "hkt-";
const ASKS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(10);

/// The hosts of one test.
pub(crate) struct World {
    states: RefCell<Value>,
    servers: Vec<Child>,
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().expect("a shell");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn down() {
    let all = sh("ip netns list");
    for name in all.lines().filter_map(|line| line.split(' ').next()).filter(|name| name.starts_with(PREFIX)) {
        sh(&format!("ip netns del {name}"));
    }
}

fn within(namespace: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("{PREFIX}{namespace}")]);
    command
}

fn this() -> std::path::PathBuf {
    std::env::current_exe().expect("this program")
}

impl World {
    pub(crate) fn up() -> World {
        down();
        let p = PREFIX;
        sh(&format!(
            "ip netns add {p}sw; ip -n {p}sw link add sw type bridge stp_state 0; ip -n {p}sw link set sw up
            ip netns exec {p}sw sh -c 'echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables'
            ip netns add {p}cl; ip -n {p}sw link add pc type veth peer name eth0 netns {p}cl
            ip -n {p}sw link set pc master sw up; ip -n {p}cl addr add 10.231.77.1/24 dev eth0; ip -n {p}cl link set eth0 up"
        ));
        let mut servers = Vec::new();
        for i in 1..=3 {
            sh(&format!(
                "ip netns add {p}h{i}; ip -n {p}h{i} link set lo up
                ip -n {p}sw link add p{i} type veth peer name eth0 netns {p}h{i}; ip -n {p}sw link set p{i} master sw up
                ip -n {p}h{i} addr add 10.231.77.1{i}/24 dev eth0; ip -n {p}h{i} link set eth0 up
                ip -n {p}h{i} route add default via 10.231.77.1
                ip netns exec {p}h{i} sh -c 'echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables
                    set -e; iptables -w -N DOCKER-USER; iptables -w -A DOCKER-USER -j RETURN
                    iptables -w -P FORWARD DROP; iptables -w -A FORWARD -j DOCKER-USER
                    iptables -w -A FORWARD -i hv+ ! -o hv+ -j ACCEPT
                    iptables -w -A FORWARD -o hv+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'
                ip netns add {p}c{i}; ip -n {p}c{i} link set lo up"
            ));
            // As an engine makes them: bridges with MACs of their own choice, containers with fixed addresses.
            for (vni, net, hex, eth) in [(4097, 99, "63", "eth0"), (4096, 98, "62", "eth1")] {
                sh(&format!(
                    "ip -n {p}h{i} link add hv{vni} type bridge stp_state 0; ip -n {p}h{i} link set hv{vni} mtu 1450 up
                    ip -n {p}h{i} link add v{vni} type veth peer name {eth} netns {p}c{i}
                    ip -n {p}h{i} link set v{vni} master hv{vni} mtu 1450 up
                    ip -n {p}c{i} link set {eth} mtu 1450 address 02:42:0a:{hex}:0{i}:01 up
                    ip -n {p}c{i} addr add 10.{net}.{i}.1/16 dev {eth}"
                ));
            }
            // The engine chooses either of its networks for the default route.
            let gateway = if i == 3 { "10.98.0.1" } else { "10.99.0.1" };
            sh(&format!(
                "ip -n {p}c{i} route add default via {gateway}; ip netns exec {p}h{i} nft 'add table ip engine
                add chain ip engine post {{ type nat hook postrouting priority 100; }}
                add rule ip engine post ip saddr 10.99.0.0/16 oifname != \"hv4097\" masquerade
                add rule ip engine post ip saddr 10.98.0.0/16 oifname != \"hv4096\" masquerade'"
            ));
            let server = within(&format!("c{i}")).arg(this()).args(["serve", &format!("c{i}")]).spawn();
            servers.push(server.expect("a server"));
        }
        World { states: RefCell::new(states()), servers }
    }

    fn child(&self, verb: &str, host: usize) -> String {
        let mut command = within(&format!("h{host}"));
        command.arg(this()).args([verb, &format!("n{host}")]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this program");
        let text = self.states.borrow().to_string();
        child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("its end");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Brings a host to its table.
    pub(crate) fn apply(&self, host: usize) {
        let said = self.child("apply", host);
        assert_eq!(said, "", "host {host}");
    }

    /// The steps that are left to do.
    pub(crate) fn missing(&self, host: usize) -> String {
        self.child("missing", host)
    }

    pub(crate) fn clear(&self, host: usize) {
        assert_eq!(self.child("clear", host), "");
    }

    pub(crate) fn stop_serving(&self, container: &str) {
        for net in ["ov", "in"] {
            self.states.borrow_mut()[net]["endpoints"][container]["serving"] = false.into();
        }
    }

    /// Opens a connection, and returns for how many seconds a host tracks it without a packet.
    pub(crate) fn idle_time(&self, from: &str, to: &str, host: usize) -> u64 {
        let mut held =
            within(from).arg(this()).args(["hold", to]).stdout(Stdio::piped()).spawn().expect("this program");
        let mut ready = [0; 1];
        held.stdout.as_mut().expect("its output").read_exact(&mut ready).expect("a connection");
        let text = self.run(host, &["cat", "/proc/net/nf_conntrack"]);
        let _ = (held.kill(), held.wait());
        let address = to.split(':').next().unwrap_or_default();
        let is_it = |line: &&str| line.contains("ESTABLISHED") && line.contains(&format!("dst={address} "));
        let line = text.lines().find(is_it).expect("a tracked connection");
        line.split_ascii_whitespace().nth(4).and_then(|it| it.parse().ok()).expect("a time")
    }

    pub(crate) fn run(&self, host: usize, command: &[&str]) -> String {
        let output = within(&format!("h{host}")).args(command).output().expect("a command");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns the answering side, and the address that it sees.
    pub(crate) fn ask(&self, from: &str, to: &str, protocol: &str) -> String {
        let output = within(from).arg(this()).args(["ask", to, protocol]).output().expect("this program");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        down();
    }
}

fn states() -> Value {
    let mut ov = json!({
        "facts": {"name": "ov", "vni": 4097, "subnets": [{"subnet": "10.99.0.0/16", "gateway": "10.99.0.1"}]},
        "services": {"web": {"name": "web", "mode": "vip", "vip4": "10.99.200.1"},
            "idle": {"name": "idle", "mode": "vip", "vip4": "10.99.200.2"}}
    });
    let mut ingress = json!({
        "facts": {"name": "ingress", "vni": 4096, "ingress": true,
            "subnets": [{"subnet": "10.98.0.0/16", "gateway": "10.98.0.1"}]},
        "services": {"web": {"name": "web"}, "idle": {"name": "idle"}}
    });
    for (protocol, published, target, service) in
        [("tcp", 8080, 80, "web"), ("udp", 8080, 80, "web"), ("tcp", 8081, 80, "idle"), ("tcp", 8082, 81, "web")]
    {
        ingress["ports"][format!("{published}/{protocol}")] =
            json!({"protocol": protocol, "published": published, "target": target, "service": service});
    }
    ingress["ports"]["8083/tcp"] = json!({"protocol": "tcp", "published": 8083, "target": 80, "service": "web", "on": ["127.0.0.1", "10.231.77.12"]});
    for i in 1..=3 {
        let node = |ingress: Option<String>| json!({"vtep": format!("10.231.77.1{i}"), "ingress": ingress, "up": true});
        ov["nodes"][format!("n{i}")] = node(None);
        ingress["nodes"][format!("n{i}")] = node(Some(format!("10.98.{i}.254")));
        for (state, net) in [(&mut ov, 99), (&mut ingress, 98)] {
            state["endpoints"][format!("c{i}")] =
                json!({"node": format!("n{i}"), "v4": format!("10.{net}.{i}.1"), "service": "web", "serving": true});
        }
    }
    json!({"ov": ov, "in": ingress})
}

/// Runs a verb of this program inside a namespace. False if `verb` is none of these.
pub(crate) fn child(verb: &str, rest: &[String]) -> bool {
    match (verb, rest) {
        ("apply" | "missing" | "clear", [node]) => kernel(verb, node),
        ("serve", [name]) => serve(name),
        ("ask", [to, protocol]) => ask(to.parse().expect("an address"), protocol),
        ("hold", [to]) => hold(to.parse().expect("an address")),
        _ => return false,
    }
    true
}

fn kernel(verb: &str, node: &str) {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("states");
    let states: States = serde_json::from_str(&text).expect("states");
    let host = Host { node: node.into(), underlay_mtu: 1500, dns_port: 5399, ..Host::default() };
    let wanted = if verb == "clear" { Table::default() } else { table(&states, &host) };
    let seen = Kernel.seen(&wanted).expect("the kernel");
    let ops = plan(&wanted, &seen);
    let mut said = String::new();
    if verb == "missing" {
        for op in &ops {
            match op {
                Op::Load(family, _) => said += &format!("load {}\n", family.name()),
                op => said += &format!("{op:?}\n"),
            }
        }
    } else {
        for failed in Kernel.carry_out(&ops) {
            said += &format!("{}: {}\n", failed.step, failed.error);
        }
        Kernel.set_hairpins();
        let mut before = herder_decide::net::Table::default();
        before.items = seen;
        let flows = herder_decide::net::ended(&before, &wanted);
        Kernel.end_flows(&flows).expect("conntrack");
    }
    std::io::stdout().write_all(said.as_bytes()).expect("written");
}

fn serve(name: &str) {
    let udp = UdpSocket::bind("0.0.0.0:80").expect("a socket");
    let own = name.to_owned();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{own} {}", from.ip()).as_bytes(), from);
        }
    });
    // On another port nothing is said, and connections stay.
    let silent = TcpListener::bind("0.0.0.0:81").expect("a socket");
    std::thread::spawn(move || silent.incoming().collect::<Vec<_>>());
    let tcp = TcpListener::bind("0.0.0.0:80").expect("a socket");
    while let Ok((mut stream, from)) = tcp.accept() {
        let _ = stream.write_all(format!("{name} {}", from.ip()).as_bytes());
    }
}

/// Opens a connection, and keeps it until this process is killed.
fn hold(to: SocketAddr) {
    let _stream = TcpStream::connect_timeout(&to, PATIENCE).expect("a connection");
    std::io::stdout().write_all(b".").expect("written");
    std::io::stdout().flush().expect("written");
    std::thread::park();
}

fn ask(to: SocketAddr, protocol: &str) {
    let (mut names, mut sources) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..ASKS {
        match if protocol == "udp" { ask_udp(to) } else { ask_tcp(to) } {
            Ok(text) => {
                let (name, source) = text.split_once(' ').expect("two words");
                names.insert(name.to_owned());
                sources.insert(source.to_owned());
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => _ = names.insert("refused".into()),
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                names.insert("timeout".into());
                break;
            }
            Err(error) => _ = names.insert(error.to_string()),
        }
    }
    let text = |all: BTreeSet<String>| all.into_iter().collect::<Vec<_>>().join(" ");
    let said = format!("{} from {}", text(names), text(sources));
    std::io::stdout().write_all(said.as_bytes()).expect("written");
}

fn ask_tcp(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_udp(to: SocketAddr) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(b"x")?;
    let mut buffer = [0; 64];
    let count = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}
