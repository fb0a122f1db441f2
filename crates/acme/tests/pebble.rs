//! Orders at Debian's `pebble`, an authority for tests, which asks a real ingress. It rejects a fifth of all nonces.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use herder_acme::Settings;
use herder_decide::ingress::{challenges, table};
use herder_ingress::{Conn, Ingress, Reach};
use herder_model::swarm::{
    Backend, CertificateRecord, Change, Clock, ClusterRecord, Entrypoint, INGRESS_ID, IngressChanges, IngressNews,
    IngressSettings, IngressState, LEVEL, Resolver, Resource, Service, ServiceRecord, ServiceSpec, View,
    certificate_kind, ingress_kind,
};
use herder_store::{Store, Transport, TransportError};
use herder_tls::certs::{Authority, Usage};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Nobody;

impl Transport for Nobody {
    fn call<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: bytes::Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<bytes::Bytes, TransportError>> + Send + 'a>> {
        Box::pin(async { Err(TransportError("there is nobody else".to_owned())) })
    }
}

#[derive(Debug)]
struct NoTasks;

impl Reach for NoTasks {
    fn connect<'r>(&'r self, _: &'r str, _: &'r Backend, _: u16) -> BoxFuture<'r, io::Result<Conn>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }

    fn datagrams<'r>(&'r self, _: &'r str, _: &'r Backend, _: u16) -> BoxFuture<'r, io::Result<UdpSocket>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }
}

/// Programs that end with the test.
struct Programs(Vec<Child>);

impl Drop for Programs {
    fn drop(&mut self) {
        for program in &mut self.0 {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// A port that was free a moment ago.
fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// An authority, an ingress, and a swarm of one manager.
struct World {
    folder: tempfile::TempDir,
    directory: String,
    /// Ports of the authority's management interface and of its DNS server.
    management: u16,
    names_at: u16,
    root: String,
    programs: Programs,
    ingress: Arc<Ingress>,
    secure: SocketAddr,
    store: Arc<Store>,
    served: watch::Sender<BTreeSet<String>>,
    _stop: DropGuard,
}

const EAB_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

impl World {
    async fn begin(with_eab: bool) -> World {
        let stop = CancellationToken::new();
        let ingress = Arc::new(Ingress::new(Arc::new(NoTasks), &stop));
        let entrypoint = || Entrypoint { address: "127.0.0.1:0".to_owned(), ..Entrypoint::default() };
        let entrypoints: BTreeMap<String, Entrypoint> =
            [("web".to_owned(), entrypoint()), ("websecure".to_owned(), entrypoint())].into();
        // The authority must know the ports before it starts.
        let settings = IngressSettings { entrypoints: entrypoints.clone(), ..IngressSettings::default() };
        let changes = IngressChanges { settings: Some(settings.clone()), ..IngressChanges::default() };
        let news = IngressNews { whole: true, applies_to: 0, results_in: 1, listens: true, changes };
        ingress.take(&news).expect("it is the first");
        let addresses = ingress.addresses();
        let (web, secure) = (addresses["web"].port(), addresses["websecure"]);

        let folder = tempfile::tempdir().expect("a folder");
        let ca = Authority::new("pebble", SystemTime::now(), Duration::from_secs(3600)).expect("a CA");
        let names = ["127.0.0.1".to_owned()];
        let pair =
            ca.sign("pebble", &names, Usage::Engine, SystemTime::now(), Duration::from_secs(3600)).expect("signed");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let (cert, key) = (file("cert.pem", &pair.cert), file("key.pem", &pair.key));
        let (listen, management, dns, names_at) = (port(), port(), port(), port());
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{listen}"), "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": cert, "privateKey": key, "httpPort": web, "tlsPort": secure.port(), "ocspResponderURL": "",
            "externalAccountBindingRequired": with_eab, "externalAccountMACKeys": {"kid-1": EAB_KEY},
        }});
        let config = file("pebble.json", &config.to_string());
        let log = std::fs::File::create(folder.path().join("pebble.log")).expect("a file");
        let pebble = Command::new("pebble")
            .args(["-config".as_ref(), config.as_os_str(), "-dnsserver".as_ref(), format!("127.0.0.1:{dns}").as_ref()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "20")
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("Debian's package pebble is there: `cargo xtask test` installs it");
        let names = Command::new("pebble-challtestsrv")
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
            .args([
                "-dns01".to_owned(),
                format!("127.0.0.1:{dns}"),
                "-management".to_owned(),
                format!("127.0.0.1:{names_at}"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let programs = Programs(vec![pebble, names]);
        let store = store(folder.path()).await;
        let world = World {
            directory: format!("https://127.0.0.1:{listen}/dir"),
            root: ca.pair.cert.clone(),
            served: watch::Sender::default(),
            folder,
            management,
            names_at,
            programs,
            ingress,
            secure,
            store,
            _stop: stop.drop_guard(),
        };
        world.answers(listen).await;
        world.answers(management).await;
        world.answers(names_at).await;
        world
    }

    /// Waits until something listens there.
    async fn answers(&self, port: u16) {
        let listens = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, listens).await.expect("pebble listens");
    }

    fn resolver(&self, challenge: &str) -> Resolver {
        let (directory, root, challenge) = (self.directory.clone(), self.root.clone(), challenge.to_owned());
        Resolver { directory, root, challenge, email: "ops@example.com".to_owned(), ..Resolver::default() }
    }

    /// Enables the ingress with these resolvers, and declares a service for each: its name, host names and resolver.
    async fn declare(&self, resolvers: &[(&str, Resolver)], services: &[(&str, &str)]) {
        let resolvers = resolvers.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect();
        let entrypoint = || Entrypoint { address: "127.0.0.1:0".to_owned(), ..Entrypoint::default() };
        let entrypoints = [("web".to_owned(), entrypoint()), ("websecure".to_owned(), entrypoint())].into();
        let settings = IngressSettings { entrypoints, resolvers, ..IngressSettings::default() };
        let kind = ingress_kind().expect("a word");
        let mut changes: Vec<Change> =
            vec![Resource::new(kind, INGRESS_ID, INGRESS_ID, &settings).expect("a resource").into()];
        for (at, (hosts, resolver)) in services.iter().enumerate() {
            let name = format!("s{at}");
            let rule = hosts.split(',').map(|it| format!("Host(`{it}`)")).collect::<Vec<_>>().join(" || ");
            let router = format!("traefik.http.routers.{name}");
            let labels = [
                ("traefik.enable".to_owned(), "true".to_owned()),
                (format!("{router}.rule"), rule),
                (format!("{router}.tls.certresolver"), (*resolver).to_owned()),
                (format!("traefik.http.services.{name}.loadbalancer.server.port"), "80".to_owned()),
            ];
            let spec = ServiceSpec { name: name.clone(), labels: Some(labels.into()), ..ServiceSpec::default() };
            let service = Service { id: name, spec, ..Service::default() };
            changes.push(ServiceRecord { service, ..ServiceRecord::default() }.into());
        }
        self.store.commit(changes, Clock::system().now()).await.expect("written");
    }

    /// Brings what is declared to the ingress. Its answers are known to be served while `tells`.
    fn serve(&self, tells: bool) -> JoinHandle<()> {
        let (store, ingress, served) = (self.store.clone(), self.ingress.clone(), self.served.clone());
        tokio::spawn(async move {
            let (_, mut watch) = store.watch();
            let (mut known, mut version) = (IngressState::default(), 1);
            loop {
                if let Some((state, _)) = table(&store.view(), &[]) {
                    let changes = IngressChanges::between(&known, &state);
                    let whole = known == IngressState::default();
                    version += 1;
                    let news =
                        IngressNews { whole, applies_to: version - 1, results_in: version, listens: true, changes };
                    ingress.take(&news).expect("it follows");
                    if tells {
                        served.send_replace(challenges(&state));
                    }
                    known = state;
                }
                watch.next().await;
            }
        })
    }

    fn lead(&self) -> JoinHandle<()> {
        let settings = Settings {
            plain: watch::channel(Arc::default()).1,
            store: self.store.clone(),
            served: self.served.subscribe(),
            clock: Clock::system(),
            new_id: || port().to_string(),
        };
        tokio::spawn(herder_acme::run(settings))
    }

    fn record(&self, name: &str) -> Option<CertificateRecord> {
        record(&self.store.view(), name)
    }

    /// Waits until the record is so.
    async fn until(&self, name: &str, what: &str, is: impl Fn(&CertificateRecord) -> bool) -> CertificateRecord {
        let (_, mut watch) = self.store.watch();
        let found = async {
            loop {
                if let Some(record) = self.record(name).filter(&is) {
                    return record;
                }
                watch.next().await;
            }
        };
        match timeout(PATIENCE, found).await {
            Ok(record) => record,
            Err(_) => {
                let error = self.record(name).map(|it| (it.last_error.clone(), it));
                panic!("{name} is not {what}: {error:?}\n{}", self.log())
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("pebble.log")).unwrap_or_default()
    }

    /// Certificates that the authority has issued.
    fn issued(&self) -> usize {
        self.log().lines().filter(|it| it.contains("Issued certificate serial")).count()
    }

    /// The root of what the authority issues.
    async fn issuer(&self) -> String {
        let output =
            Command::new("curl").args(["-sk", &format!("https://127.0.0.1:{}/roots/0", self.management)]).output();
        String::from_utf8(output.expect("curl").stdout).expect("text")
    }

    /// Connects as a client that trusts the authority; fails unless the certificate for the name is accepted.
    async fn accepts(&self, name: &str) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.issuer().await.as_bytes()).map_err(|it| it.to_string())?;
        roots.add(root).map_err(|it| it.to_string())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|it| it.to_string())?.with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.secure).await.map_err(|it| it.to_string())?;
        let server = ServerName::try_from(name.to_owned()).map_err(|it| it.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(server, stream).await.map(drop).map_err(|it| it.to_string())
    }
}

fn record(view: &View, name: &str) -> Option<CertificateRecord> {
    let found = view.resources_of(certificate_kind()?).find(|it| it.name == name)?;
    found.read().ok()
}

async fn store(folder: &Path) -> Arc<Store> {
    let settings = herder_store::Settings::new(folder.join("store"), "manager");
    let store = Store::open(settings, Arc::new(Nobody)).await.expect("opens");
    store.begin("127.0.0.1:1").await.expect("begins");
    let cluster = ClusterRecord { level: LEVEL, ..ClusterRecord::default() };
    store.commit(vec![cluster.into()], Clock::system().now()).await.expect("written");
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_routes_get_certificates_by_each_challenge_and_new_ones_in_time() {
    let world = World::begin(false).await;
    let hook = world.folder.path().join("hook");
    let management = world.names_at;
    let script = format!(
        "#!/bin/sh\n[ $1 = set ] && exec curl -sf -d \"{{\\\"host\\\": \\\"$2.\\\", \\\"value\\\": \\\"$3\\\"}}\" http://127.0.0.1:{management}/set-txt\n\
         exec curl -sf -d \"{{\\\"host\\\": \\\"$2.\\\"}}\" http://127.0.0.1:{management}/clear-txt\n"
    );
    std::fs::write(&hook, script).expect("written");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("set");
    let dns = Resolver { hook: hook.display().to_string(), ..world.resolver("dns-01") };
    let own = Resolver { directory: "own".into(), ..Resolver::default() };
    let resolvers =
        [("le", world.resolver("http-01")), ("alpn", world.resolver("tls-alpn-01")), ("dns", dns), ("own", own)];
    let services = [("a.example,b.example", "le"), ("c.example", "alpn"), ("*.d.example", "dns"), ("e.example", "own")];
    world.declare(&resolvers, &services).await;
    let (_serve, _lead) = (world.serve(true), world.lead());
    for (name, _) in &services {
        let record = world.until(name, "valid", |it| it.state == "valid").await;
        let names: Vec<&str> = name.split(',').collect();
        assert_eq!(record.names, names);
        assert!(record.order.is_none() && record.renew_at > record.not_before && record.renew_at < record.not_after);
    }
    assert_eq!(world.issued(), 3);
    for name in ["a.example", "b.example", "c.example", "x.d.example"] {
        assert_eq!(world.accepts(name).await, Ok(()), "{name}");
    }
    assert!(world.accepts("e.example").await.is_err(), "of another authority");
    // A new one in time: the old one is served until then.
    let before = world.record("c.example").expect("a record");
    let kind = certificate_kind().expect("a word");
    let view = world.store.view();
    let mut old = Resource::clone(view.resources_of(kind).find(|it| it.name == "c.example").expect("a resource"));
    old.set(&CertificateRecord { renew_at: 1, ..before.clone() }).expect("a resource");
    world.store.commit(vec![old.into()], Clock::system().now()).await.expect("written");
    let renewed = world.until("c.example", "renewed", |it| it.chain != before.chain && it.state == "valid").await;
    assert!(renewed.renew_at > 1 && renewed.key != before.key);
    assert_eq!(world.accepts("c.example").await, Ok(()));
    assert_eq!(world.issued(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_leader_goes_on_with_the_same_order() {
    let world = World::begin(false).await;
    world.declare(&[("le", world.resolver("http-01"))], &[("a.example", "le")]).await;
    // No node is known to answer: the leader waits, and is lost.
    let (serve, lead) = (world.serve(false), world.lead());
    let begun =
        world.until("a.example", "ordered", |it| it.order.as_ref().is_some_and(|it| !it.tokens.is_empty())).await;
    lead.abort();
    serve.abort();
    let _ = lead.await;
    let (_serve, _lead) = (world.serve(true), world.lead());
    world.until("a.example", "valid", |it| it.state == "valid").await;
    assert_eq!(world.issued(), 1, "{}", world.log());
    let url = begun.order.expect("an order").url;
    let orders = world.log().lines().filter(|it| it.contains("Added order")).count();
    assert_eq!(orders, 1, "{url}\n{}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_away_or_refuses_is_told_and_asked_again() {
    let mut world = World::begin(true).await;
    let eab = Resolver { eab_id: "kid-1".into(), eab_secret: "eab".into(), ..world.resolver("http-01") };
    let nowhere = Resolver { directory: format!("https://127.0.0.1:{}/dir", port()), ..world.resolver("http-01") };
    let resolvers = [("le", world.resolver("http-01")), ("eab", eab), ("nowhere", nowhere)];
    world.declare(&resolvers, &[("a.example", "le"), ("b.example", "eab"), ("c.example", "nowhere")]).await;
    let (_serve, _lead) = (world.serve(true), world.lead());
    let refused = world.until("a.example", "refused", |it| it.state == "failed").await;
    assert!(refused.last_error.contains("externalAccount"), "{}", refused.last_error);
    let secret = world.until("b.example", "refused", |it| it.state == "failed").await;
    assert!(secret.last_error.contains("no secret eab"), "{}", secret.last_error);
    let away = world.until("c.example", "away", |it| it.state == "failed").await;
    assert!(away.next_try - secret.next_try < -100, "an authority that is away is asked again sooner");
    // The swarm gets the secret; the time of the next try is set to now.
    let spec = herder_model::swarm::SecretSpec {
        name: "eab".into(),
        data: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, EAB_KEY),
        ..herder_model::swarm::SecretSpec::default()
    };
    let secret = herder_model::swarm::Secret { id: "eab".into(), spec, ..herder_model::swarm::Secret::default() };
    let kind = certificate_kind().expect("a word");
    let view = world.store.view();
    let mut again = Resource::clone(view.resources_of(kind).find(|it| it.name == "b.example").expect("a resource"));
    again.set(&serde_json::json!({"next_try": 0})).expect("a resource");
    world.store.commit(vec![secret.into(), again.into()], Clock::system().now()).await.expect("written");
    world.until("b.example", "valid", |it| it.state == "valid" && it.failures == 0).await;
    assert_eq!(world.accepts("b.example").await, Ok(()));
    // What ended with the authority: the certificate is served on.
    world.programs.0.iter_mut().for_each(|it| drop(it.kill()));
    let served = world.record("b.example").expect("a record");
    assert!(!served.chain.is_empty());
}
