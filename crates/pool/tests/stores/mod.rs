//! Real stores as processes on loopback, each with its own directory and free ports, ended with their test.

mod certificates;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use herder_kv::{Kv, Store, TlsFiles};
use herder_pool::discovery::{Discovery, Options};
use tokio::time::{Instant, sleep};

/// Starting a store on a loaded machine; Java is the slowest.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Pause between two looks whether a store answers, for want of another sign. It has no other way to say so.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// A store that can be killed and started again with its data and address.
#[derive(Debug)]
pub(crate) struct Server {
    store: Store,
    ports: [u16; 4],
    directory: tempfile::TempDir,
    process: Option<Child>,
    tls: Option<TlsFiles>,
}

impl Server {
    /// Returns a server with an address that does not run yet.
    pub(crate) fn new(store: Store) -> Server {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Server { store, ports: free_ports(), directory, process: None, tls: None }
    }

    /// Asks for certificates and shows one.
    pub(crate) fn secure(store: Store) -> Server {
        let mut server = Server::new(store);
        server.tls = Some(certificates::make(server.directory.path()));
        server
    }

    pub(crate) async fn started(store: Store) -> Server {
        let mut server = Server::new(store);
        server.start().await;
        server
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = match self.store {
            Store::Etcd => self.etcd(),
            Store::Zookeeper => self.zookeeper(),
            Store::Consul => self.consul(),
        };
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        let process = command.spawn();
        self.process = Some(process.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")));
        let kv = self.kv();
        let deadline = Instant::now() + START_TIME_MAX;
        while let Err(error) = kv.get("ready").await {
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{} does not start: {error}\n{}", self.store, log());
            sleep(LOOK_PERIOD).await;
        }
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("our own process");
            process.wait().expect("our own process");
        }
    }

    /// Stops it in the middle of whatever it does, with its connections open; or lets it go on.
    pub(crate) fn hang(&self, hang: bool) {
        use rustix::process::{Pid, Signal, kill_process};
        let process = self.process.as_ref().expect("it runs");
        let signal = if hang { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(process), signal).expect("our own process");
    }

    /// Discovery over it, with connections of its own.
    pub(crate) fn discovery(&self) -> Discovery {
        let scheme = match self.store {
            Store::Consul => "consul",
            Store::Etcd => "etcd",
            Store::Zookeeper => "zk",
        };
        // A first host that is not there: stores are given as several.
        let url = format!("{scheme}://127.0.0.1:1,{}/test", self.addr());
        Discovery::parse(&url, &Options { tls: self.tls.clone(), ..Options::default() }).expect("a URL")
    }

    /// The store below discovery.
    pub(crate) fn kv(&self) -> Kv {
        Kv::new(self.store, &[self.addr()], self.tls.as_ref()).expect("a store")
    }

    pub(crate) fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn etcd(&self) -> Command {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let (client, peer) =
            (format!("{scheme}://127.0.0.1:{}", self.ports[0]), format!("http://127.0.0.1:{}", self.ports[1]));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.path("data"));
        command.args(["--name", "one", "--logger", "zap", "--log-level", "warn"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("one={peer}")]);
        if let Some(tls) = &self.tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.ca);
            command.arg("--cert-file").arg(&tls.certificate).arg("--key-file").arg(&tls.key);
        }
        command
    }

    fn zookeeper(&self) -> Command {
        let settings = format!(
            "tickTime=500\nmaxSessionTimeout=60000\ndataDir={}\nclientPortAddress=127.0.0.1\nclientPort={}\nadmin.enableServer=false\n",
            self.path("data").display(),
            self.ports[0],
        );
        std::fs::write(self.path("zoo.cfg"), settings).expect("a file");
        let mut command = Command::new("java");
        command.args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-cp", "/usr/share/java/zookeeper.jar"]);
        command.arg("org.apache.zookeeper.server.ZooKeeperServerMain").arg(self.path("zoo.cfg"));
        command
    }

    fn consul(&self) -> Command {
        let [http, server, lan, wan] = self.ports;
        let mut command = Command::new(consul_binary());
        command.args([
            "agent",
            "-server",
            "-bootstrap-expect=1",
            "-bind=127.0.0.1",
            "-client=127.0.0.1",
            "-log-level=warn",
        ]);
        command.arg("-data-dir").arg(self.path("data"));
        command.args(["-dns-port=-1", "-grpc-port=-1", &format!("-server-port={server}")]);
        if let Some(tls) = &self.tls {
            let [ca, certificate, key] = [&tls.ca, &tls.certificate, &tls.key].map(|path| path.display());
            command.args(["-http-port=-1", "-hcl", &format!("ports {{ https = {http} }}")]);
            command.args(["-hcl", &format!("ca_file = \"{ca}\" cert_file = \"{certificate}\" key_file = \"{key}\"")]);
            command.args(["-hcl", "verify_incoming_https = true"]);
        } else {
            command.arg(format!("-http-port={http}"));
        }
        command.args([&format!("-serf-lan-port={lan}"), &format!("-serf-wan-port={wan}")]);
        command.args(["-hcl", "session_ttl_min = \"1s\"", "-hcl", "performance { raft_multiplier = 1 }"]);
        command.args(["-hcl", "leave_on_terminate = false", "-hcl", "disable_update_check = true"]);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns free ports. All are held until all are found, so that they differ.
fn free_ports() -> [u16; 4] {
    let listeners = std::array::from_fn::<_, 4, _>(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// Debian 12 has no Consul; that of Debian 11 is brought once.
fn consul_binary() -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().expect("no panic before");
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let script = Path::new(&package).join("../../xtask/assets/fetch-consul.sh");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("consul");
    let output = Command::new(script).arg(cache).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}
