//! Three hosts, and the ways between a client and a server.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use herder_lab::{Lab, LabSpec};
use serde_json::{Value, json};

use crate::http::Connection;
use crate::note;
use crate::pool::API;
use crate::process::sibling;
use crate::report::Goal;
use crate::swarm::side::Side;

pub(super) const OVERLAY: &str = "bench-ov";
const SEALED: &str = "bench-sealed";
const LAB: &str = "bench-net";
/// Ports of iperf3 and of nginx.
pub(super) const IPERF: u16 = 5201;
pub(super) const HTTP: u16 = 80;
/// Published ports, and those of the proxy, by what they lead to.
const PUBLISHED: u16 = 15_000;
const PROXIED: u16 = 16_000;
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Way from a client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    ByHand,
    Overlay,
    Vip,
    MeshNated,
    MeshKept,
    Proxy,
    Sealed,
}

impl Path {
    pub(super) const ALL: [Path; 7] =
        [Path::ByHand, Path::Overlay, Path::Vip, Path::MeshNated, Path::MeshKept, Path::Proxy, Path::Sealed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Path::ByHand => "VXLAN by hand",
            Path::Overlay => "overlay",
            Path::Vip => "virtual IP",
            Path::MeshNated => "mesh, NATed",
            Path::MeshKept => "mesh, address kept",
            Path::Proxy => "nginx stream",
            Path::Sealed => "encrypted overlay",
        }
    }

    /// Goals, each against another path.
    pub(super) fn goals(self) -> &'static [(Path, Goal)] {
        match self {
            Path::ByHand => &[],
            Path::Overlay => &[(Path::ByHand, Goal::RatioAtLeast(0.97))],
            Path::Vip => &[(Path::Overlay, Goal::RatioAtLeast(0.95))],
            Path::MeshNated | Path::Sealed => &[(Path::Overlay, Goal::None)],
            Path::MeshKept => &[(Path::Overlay, Goal::RatioAtLeast(0.9)), (Path::Proxy, Goal::RatioAtLeast(2.0))],
            Path::Proxy => &[(Path::Overlay, Goal::None)],
        }
    }
}

/// Place where commands run. It is outside of the lab, in a host, or in the network of a process of a
/// host.
#[derive(Clone, Debug, Default)]
pub(super) struct Place(Vec<String>);

impl Place {
    pub(super) fn words(&self, command: &[&str]) -> Vec<String> {
        self.0.iter().cloned().chain(command.iter().map(|it| (*it).to_owned())).collect()
    }

    fn command(&self, words: &[&str]) -> Command {
        let words = self.words(words);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command
    }

    pub(super) fn output(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = self.command(words).output().with_context(|| format!("cannot run {}", words[0]))?;
        if !output.status.success() {
            let error = [output.stdout, output.stderr].concat();
            bail!("{}: {}", words.join(" "), String::from_utf8_lossy(&error).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn sh(&self, script: &str) -> anyhow::Result<()> {
        self.output(&["sh", "-ec", script]).map(drop)
    }

    fn inside(&self, pid: &str) -> Place {
        Place(self.words(&["nsenter", "-t", pid, "-n"]))
    }

    fn spawn(&self, words: &[&str]) -> anyhow::Result<Child> {
        let mut command = self.command(words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().with_context(|| format!("cannot start {}", words[0]))
    }
}

/// The lab, with everything that is measured. Its end removes it.
pub(super) struct World {
    lab: Lab,
    pub(super) door: String,
    /// Id of the service whose ports are published.
    pub(super) service: String,
    entry: String,
    /// Clients on the first host: by hand, on the overlay, on the encrypted one.
    clients: [Place; 3],
    /// Addresses of the server: by hand, on the overlay, virtual, on the encrypted overlay.
    servers: [String; 4],
    /// Process of the client on the overlay.
    pub(super) client_pid: String,
    processes: Vec<Child>,
    folder: tempfile::TempDir,
}

impl World {
    pub(super) fn up() -> anyhow::Result<World> {
        note(&format!("starting the lab {LAB}"));
        let herder = Some(sibling("herder")?);
        let lab = Lab::ensure(&LabSpec { name: LAB.into(), hosts: 3, herder, ..LabSpec::default() })?;
        let hosts = lab.status();
        let first = hosts.first().context("the lab has no host")?;
        let door = first.herder_host.clone().context("no herder runs there")?.trim_start_matches("tcp://").to_owned();
        let entry = first.address.clone();
        Ok(World {
            lab,
            door,
            service: String::new(),
            entry,
            clients: Default::default(),
            servers: Default::default(),
            client_pid: String::new(),
            processes: Vec::new(),
            folder: tempfile::tempdir()?,
        })
    }

    pub(super) fn on(&self, host: &str) -> Place {
        Place(self.lab.enter(host).unwrap_or_default())
    }

    pub(super) async fn side(&self) -> anyhow::Result<Side> {
        let engine = self.lab.docker_host("h1")?.trim_start_matches("tcp://").to_owned();
        Side::open(&self.door, &engine, &self.entry).await
    }

    /// Makes networks, containers and the service, and starts the servers.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let mut door = Connection::open(&self.door).await?;
        let began = Instant::now();
        while door.call("GET", &format!("{API}/nodes"), None).await?.as_array().is_none_or(|it| it.len() < 3) {
            self.wait(began, "three nodes").await?;
        }
        for (name, options) in [(OVERLAY, json!({})), (SEALED, json!({"encrypted": ""}))] {
            let body = json!({"Name": name, "Driver": "overlay", "Attachable": true, "Options": options});
            door.call("POST", &format!("{API}/networks/create"), Some(&body)).await?;
        }
        let mut pids = Vec::new();
        for (name, host, network) in [
            ("client", "h1", OVERLAY),
            ("sealed-client", "h1", SEALED),
            ("server", "h2", OVERLAY),
            ("sealed-server", "h2", SEALED),
            ("bare-client", "h1", "none"),
            ("bare-server", "h2", "none"),
        ] {
            let container = self.container(&mut door, name, host, network).await?;
            pids.push((name, host, container));
        }
        self.declare(&mut door).await?;
        let inspect = |it: &Value, network: &str| {
            let address = it["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().unwrap_or_default();
            (it["State"]["Pid"].to_string(), address.to_owned())
        };
        let find = |name: &str| pids.iter().find(|(it, ..)| *it == name).map(|(.., it)| it.clone()).unwrap_or_default();
        let (client, _) = inspect(&find("client"), OVERLAY);
        let (sealed_client, _) = inspect(&find("sealed-client"), SEALED);
        let (server, overlay) = inspect(&find("server"), OVERLAY);
        let (sealed_server, sealed) = inspect(&find("sealed-server"), SEALED);
        let (bare_client, _) = inspect(&find("bare-client"), "none");
        let (bare_server, _) = inspect(&find("bare-server"), "none");
        self.by_hand(&bare_client, &bare_server)?;
        let (task, vip) = self.task(&mut door).await?;
        let h1 = self.on("h1");
        self.clients = [&bare_client, &client, &sealed_client].map(|pid| h1.inside(pid));
        self.client_pid = client;
        self.servers = ["10.55.0.2".to_owned(), overlay, vip, sealed];
        let h2 = self.on("h2");
        for (n, pid) in [bare_server, server, task, sealed_server].iter().enumerate() {
            self.serve(&h2.inside(pid), n)?;
        }
        self.proxy()?;
        Ok(())
    }

    async fn wait(&self, began: Instant, what: &str) -> anyhow::Result<()> {
        if began.elapsed() > WAIT_MAX {
            bail!("waited {WAIT_MAX:?} in vain for {what}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(())
    }

    async fn container(&self, door: &mut Connection, name: &str, host: &str, network: &str) -> anyhow::Result<Value> {
        let body = json!({
            "Image": "busybox:latest", "Cmd": ["sleep", "100000"], "Env": [format!("constraint:node=={host}")],
            "StopSignal": "KILL", "HostConfig": {"NetworkMode": network},
        });
        let made = door.call("POST", &format!("{API}/containers/create?name=bench-{name}"), Some(&body)).await?;
        let id = made["Id"].as_str().context("no id was answered")?.to_owned();
        door.call("POST", &format!("{API}/containers/{id}/start"), None).await?;
        door.call("GET", &format!("{API}/containers/{id}/json"), None).await
    }

    async fn declare(&mut self, door: &mut Connection) -> anyhow::Result<()> {
        let port = |target: u16| json!({"Protocol": "tcp", "TargetPort": target, "PublishedPort": PUBLISHED + target});
        let spec = json!({
            "Name": "bench-web",
            "Mode": {"Replicated": {"Replicas": 1}},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "busybox:latest", "Command": ["sleep", "100000"], "StopSignal": "KILL"},
                "Placement": {"Constraints": ["node.hostname==h2"]},
                "Networks": [{"Target": OVERLAY}],
            },
            "EndpointSpec": {"Ports": [port(IPERF), port(HTTP)]},
        });
        let made = door.call("POST", &format!("{API}/services/create"), Some(&spec)).await?;
        self.service = made["ID"].as_str().context("no id was answered")?.to_owned();
        Ok(())
    }

    /// The process of the service's task, and the virtual IP.
    async fn task(&self, door: &mut Connection) -> anyhow::Result<(String, String)> {
        let began = Instant::now();
        let pid = loop {
            let tasks = door.call("GET", &format!("{API}/tasks"), None).await?;
            let of = |it: &&Value| it["ServiceID"] == self.service.as_str() && it["Status"]["State"] == "running";
            let task = tasks.as_array().and_then(|it| it.iter().find(of).cloned());
            if let Some(pid) = task.and_then(|it| it["Status"]["ContainerStatus"]["PID"].as_u64()) {
                break pid.to_string();
            }
            self.wait(began, "a task").await?;
        };
        let service = door.call("GET", &format!("{API}/services/{}", self.service), None).await?;
        let network = door.call("GET", &format!("{API}/networks/{OVERLAY}"), None).await?;
        let vips = service["Endpoint"]["VirtualIPs"].as_array().cloned().unwrap_or_default();
        let vip = vips.iter().find(|it| it["NetworkID"] == network["Id"]).and_then(|it| it["Addr"].as_str());
        let vip = vip.and_then(|it| it.split('/').next()).context("the service has no virtual IP")?;
        Ok((pid, vip.to_owned()))
    }

    /// Builds what people build themselves: a bridge and a VXLAN device on each host, past the host's firewall.
    fn by_hand(&self, client: &str, server: &str) -> anyhow::Result<()> {
        let addresses: Vec<String> = self.lab.status().into_iter().map(|it| it.address).collect();
        let [first, second, ..] = &addresses[..] else { bail!("the lab lacks hosts") };
        for (n, (host, pid, own, other)) in
            [("h1", client, first, second), ("h2", server, second, first)].into_iter().enumerate()
        {
            let n = n + 1;
            self.on(host).sh(&format!(
                "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables
                ip link add bb0 type bridge; ip link set bb0 mtu 1450 up
                ip link add bx0 mtu 1450 type vxlan id 99 local {own} remote {other} dstport 4799
                ip link set bx0 master bb0 up
                ip link add bv0 type veth peer name eth0 netns {pid}; ip link set bv0 mtu 1450 master bb0 up
                nsenter -t {pid} -n ip addr add 10.55.0.{n}/24 dev eth0
                nsenter -t {pid} -n ip link set eth0 mtu 1450 up"
            ))?;
        }
        Ok(())
    }

    fn serve(&mut self, place: &Place, n: usize) -> anyhow::Result<()> {
        let folder = self.folder.path().join(n.to_string());
        std::fs::create_dir(&folder)?;
        let path = folder.join("nginx.conf");
        std::fs::write(
            &path,
            format!(
                "daemon off; worker_processes 1; pid {0}/pid; error_log /dev/null;
                events {{ worker_connections 4096; }}
                http {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u;
                  scgi_temp_path {0}/s; server {{ listen {HTTP} backlog=4096; location / {{ return 200 'x'; }} }} }}",
                folder.display()
            ),
        )?;
        let path = path.display().to_string();
        self.processes.push(place.spawn(&["nginx", "-c", &path])?);
        self.processes.push(place.spawn(&["iperf3", "-s"])?);
        Ok(())
    }

    /// A proxy on the first host, in front of the port that the second host publishes. Hosts have no addresses on
    /// overlays of people.
    fn proxy(&mut self) -> anyhow::Result<()> {
        let folder = self.folder.path().join("proxy");
        std::fs::create_dir(&folder)?;
        let server = self.lab.status().get(1).map(|it| it.address.clone()).context("the lab lacks hosts")?;
        let listen = |port: u16| {
            let (here, there) = (PROXIED + port, PUBLISHED + port);
            format!("server {{ listen {here} backlog=4096; proxy_pass {server}:{there}; }}")
        };
        let text = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so; daemon off; worker_processes 1; pid {0}/pid; error_log /dev/null;
            events {{ worker_connections 4096; }} stream {{ {1} {2} }}",
            folder.display(),
            listen(IPERF),
            listen(HTTP)
        );
        let path = folder.join("nginx.conf");
        std::fs::write(&path, text)?;
        let child = self.on("h1").spawn(&["nginx", "-c", &path.display().to_string()])?;
        self.processes.push(child);
        Ok(())
    }

    /// The client of a way, and the address and port that it connects to.
    pub(super) fn way(&self, path: Path, port: u16) -> (Place, String) {
        let [bare, overlay, sealed] = self.clients.clone();
        let (client, address, port) = match path {
            Path::ByHand => (bare, &self.servers[0], port),
            Path::Overlay => (overlay, &self.servers[1], port),
            Path::Vip => (overlay, &self.servers[2], port),
            Path::Sealed => (sealed, &self.servers[3], port),
            Path::MeshNated => (self.on("h1"), &self.entry, PUBLISHED + port),
            Path::MeshKept => (Place::default(), &self.entry, PUBLISHED + port),
            Path::Proxy => (Place::default(), &self.entry, PROXIED + port),
        };
        (client, format!("{address}:{port}"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
        note(&format!("taking the lab {LAB} down"));
        if let Err(error) = Lab::down_by_name(LAB) {
            note(&format!("cannot remove the lab: {error:#}"));
        }
    }
}
