//! `herder up`: a node of a pool without masters, until somebody says stop.

mod answers;
mod bus;
mod code;
mod identity;
mod members;
mod peers;
mod roads;
mod source;
mod store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use herder_cli::UpSettings;
use herder_decide::actions::conf::Conf;
use herder_decide::schedule::{Filter, Scheduler};
use herder_front::{Front, FrontSettings, server};
use herder_pool::{Pool, Settings, Source, Way};
use herder_wire::calls::Calls;
use herder_wire::gossip::{self, Gossip, Member};
use herder_wire::link::Link;
use herder_wire::{JoinCode, multicast};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::listen::ServerTls;
use crate::manage::{asked_to_stop, reschedule_while_primary};
use bus::PoolBus;
use members::Directory;
use peers::PoolPeers;
use roads::NodeDialler;
use source::NodeSource;

/// How long requests may take to finish after a stop was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(mut settings: UpSettings, experimental: bool) -> anyhow::Result<()> {
    let (conf, actions) = crate::actions::settings(&settings.actions)?;
    add_conf(&mut settings, &conf);
    let strategy = settings.strategy.parse().map_err(anyhow::Error::msg);
    let strategy = strategy.with_context(|| format!("--strategy {}", settings.strategy))?;
    let rules = bus::rules(&settings)?;
    let (plain, tls) = (ServerTls::default(), ServerTls::of(settings.tls.as_ref())?);
    let store = store::of(&settings)?;
    let identity = identity::of(&settings, store.as_ref()).await?;
    let code = identity.join_code()?;
    let me = identity.id.clone();
    let key = identity.shared.gossip_key;
    let advertise = identity::advertise(&settings)?;
    let here = advertise.to_string();
    let bind = SocketAddr::from(([0, 0, 0, 0], advertise.port()));
    let bind = if advertise.is_ipv6() { SocketAddr::from(([0u16; 8], advertise.port())) } else { bind };
    let listener = TcpListener::bind(bind).await.with_context(|| format!("cannot listen for other nodes on {bind}"))?;
    let mut doors = Vec::new();
    for url in &settings.listen {
        let tls = if url.starts_with("unix://") { &plain } else { &tls };
        doors.push(tls.bind(url).await?);
    }
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let link = Link::new(identity, settings.state.clone())?;
    let directory = Arc::new(Directory::new(&me, &here));
    let dialler = NodeDialler::new(&settings.engine, link.clone(), directory.clone());
    let calls = Arc::new(Calls::new(link.clone()));
    let source: Arc<dyn Source> = Arc::new(NodeSource::new(directory.clone(), calls.clone()));
    let way = Way::Through(Arc::new(dialler));
    let pool_settings = Settings { way, source: Some(source), ..Settings::default() };
    let pool = Pool::new(crate::actions::paced(&conf, pool_settings));
    let scheduler = Scheduler { strategy, filters: Filter::ALL.to_vec() };
    let front = Front::new(pool.clone(), scheduler, FrontSettings { experimental, ..FrontSettings::default() });
    front.join_peers(Arc::new(PoolPeers::new(directory.clone(), calls, &front)));
    front.set_actions(actions);
    let bus = Arc::new(PoolBus::new(&me));
    let bridge = bus.bridge(rules);
    front.open_bus(bridge.clone());
    if let Some(addr) = &settings.bus_listen {
        let listener = tls.bind(addr).await.context("--bus-listen")?;
        tokio::spawn(server::serve_bus(bridge, listener, stop.clone()));
    }
    tokio::spawn(link.clone().keep_renewed(stop.clone()));
    let gate = roads::Gate::new(&settings.engine, &here, &front, bus.clone());
    tokio::spawn(link.clone().serve(listener, stop.clone(), gate));
    let member = Member { id: me.clone(), addr: advertise, generation: generation() };
    let seeds = identity::seeds(&settings, &code).await;
    if settings.multicast {
        tokio::spawn(answer_questions(code, advertise, stop.clone()));
    }
    let gossip = Gossip::start(member, key, bind, seeds, gossip::Settings::default(), stop.clone()).await?;
    let gossip = Arc::new(gossip);
    let in_store = store.map(|store| tokio::spawn(store::keep(store, advertise, gossip.clone(), stop.clone())));
    let code = code::Teller::new(link.clone(), gossip.clone(), members::facts(&settings));
    code.tell().await.context("--label")?;
    tokio::spawn(code.keep(stop.clone()));
    info!(node = me, addr = here, "this node is up");
    let answers = answers::answer(front.clone(), bus.bus.clone(), settings.cluster.clone(), here.clone(), stop.clone());
    tokio::spawn(answers);
    tokio::spawn(bus.clone().keep_links(link, directory.clone(), gossip.view(), stop.clone()));
    tokio::spawn(bus.clone().tell_events(pool.clone(), directory.clone(), stop.clone()));
    tokio::spawn(bus.tell_membership(pool.clone(), directory.clone(), gossip.view(), stop.clone()));
    let follower = members::follow(pool, directory.clone(), gossip.view(), stop.clone());
    tokio::spawn(follower);
    let role = members::rescheduler(gossip.view(), &me, stop.clone());
    tokio::spawn(reschedule_while_primary(front.clone(), role, stop.clone()));
    tokio::spawn(herder_front::peers::report_duplicates(front.clone(), stop.clone()));
    notify_ready();
    let mut door = tokio::spawn(server::serve(front, doors, stop.clone()));
    let outcome = tokio::select! {
        signal = asked_to_stop() => signal,
        ended = &mut door => ended.map_err(Into::into),
    };
    info!("shutting down");
    gossip.leave().await;
    stop.cancel();
    let ended = async {
        if !door.is_finished() && timeout(SHUTDOWN_GRACE, door).await.is_err() {
            warn!(grace = ?SHUTDOWN_GRACE, "some requests did not finish in time");
        }
    };
    // Whom a store still names is asked in vain by those who come.
    let out_of_store = async {
        if let Some(in_store) = in_store
            && timeout(SHUTDOWN_GRACE, in_store).await.is_err()
        {
            warn!(grace = ?SHUTDOWN_GRACE, "the store does not answer; it names this node until its entry ends");
        }
    };
    tokio::join!(ended, out_of_store);
    outcome
}

async fn answer_questions(code: JoinCode, here: SocketAddr, stop: CancellationToken) {
    if let Err(error) = multicast::answer(&code, here, stop).await {
        warn!(%error, "other nodes cannot find this one by multicast");
    }
}

/// DockerMod's own file. Its name for the node gives way to the command line's; its other keys are meant as they are written.
fn add_conf(settings: &mut UpSettings, conf: &Conf) {
    settings.name = settings.name.take().or(conf.hostname.clone());
    if let Some(cluster) = &conf.cluster {
        settings.cluster.clone_from(cluster);
    }
    if let Some(engine) = &conf.engine {
        settings.engine.clone_from(engine);
    }
    settings.listen.extend(conf.rest_port.map(|port| format!("tcp://0.0.0.0:{port}")));
}

/// A start is newer than all before it. Milliseconds since 1970; the clock of one host goes forward between two starts.
fn generation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Tells systemd, if it is what started this (sd_notify(3)).
fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = || -> std::io::Result<()> {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        let text = path.to_string_lossy();
        if let Some(name) = text.strip_prefix('@') {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(b"READY=1\nSTATUS=serving", &address)?;
        } else {
            socket.send_to(b"READY=1\nSTATUS=serving", &path)?;
        }
        Ok(())
    };
    if let Err(error) = told() {
        warn!(%error, "cannot tell systemd that the node is up");
    }
}
