//! One life of a node: with one identity, in one pool. A node that joins another pool begins anew, in the same program.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use herder_agent::net::NetSettings;
use herder_agent::{Agent, Uptime, Watchdog};
use herder_bus::bridge::Rules;
use herder_cli::UpSettings;
use herder_decide::actions::conf::Conf;
use herder_decide::schedule::{Filter, Scheduler, Strategy};
use herder_front::actions::ActionSettings;
use herder_front::{Front, FrontSettings, server};
use herder_node::bus::PoolBus;
use herder_node::members::{self, Directory};
use herder_node::peers::PoolPeers;
use herder_node::roads::{LinkAcceptor, NodeDialler};
use herder_node::source::NodeSource;
use herder_node::swarm::{Door, Host, HostDeps, JoinStatus};
use herder_node::{NodeSettings, code, identity, images, store};
use herder_parts::{Ended, Fault, Parts};
use herder_place::peers::Templates;
use herder_pool::discovery::Discovery;
use herder_pool::{Pool, Settings, Source, Way};
use herder_wire::calls::Calls;
use herder_wire::gossip::{self, Gossip, Member};
use herder_wire::identity::Identity;
use herder_wire::link::Link;
use herder_wire::multicast;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::answers;
use crate::listen::ServerTls;
use crate::manage::reschedule_while_primary;

/// Maximum time for the removal of a leaving node from its store.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(5);

/// Time limit for parts to end once they are stopped.
const PARTS_END_MAX: Duration = Duration::from_secs(1);

/// State that all lives of a node have in common: its settings.
pub(super) struct Plan {
    pub(super) settings: UpSettings,
    pub(super) node: NodeSettings,
    pub(super) endpoint: FrontSettings,
    pub(super) conf: Conf,
    pub(super) actions: ActionSettings,
    pub(super) strategy: Strategy,
    pub(super) rules: Rules,
    pub(super) tls: ServerTls,
    pub(super) store: Option<Discovery>,
    /// Status of the node in a swarm.
    pub(super) standing: watch::Sender<JoinStatus>,
}

pub(super) struct Life {
    pub(super) front: Arc<Front>,
    gossip: Arc<Gossip>,
    host: Arc<Host>,
    /// Other identities that this node shall have from now on.
    others: mpsc::Receiver<Identity>,
    parts: Parts,
    stop: CancellationToken,
    link: Arc<Link>,
    serving: JoinHandle<()>,
    in_store: Option<JoinHandle<()>>,
}

/// Reason why another life is to begin.
#[derive(Debug)]
pub(super) enum Changed {
    /// This node is to be another one from now on.
    Identity(Box<Identity>),
    /// A part has ended that cannot be started again by itself.
    Failed(Ended),
}

/// The reason for the end of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The node stops, or becomes another one: the others are informed that it leaves.
    Leaves,
    /// A part has failed: the same node is back in a moment, and other nodes are not informed.
    Failed,
}

impl Life {
    /// `others`: whether the pool may have other nodes already.
    pub(super) async fn begin(plan: &Plan, identity: Identity, others: bool) -> anyhow::Result<Life> {
        let settings = &plan.settings;
        let code = identity.join_code()?;
        let me = identity.id.clone();
        let key = identity.shared.gossip_key;
        let advertise = identity::advertise(&plan.node)?;
        let here = advertise.to_string();
        let bind = SocketAddr::from(([0, 0, 0, 0], advertise.port()));
        let bind = if advertise.is_ipv6() { SocketAddr::from(([0u16; 8], advertise.port())) } else { bind };
        let listener = TcpListener::bind(bind).await;
        let listener = listener.with_context(|| format!("cannot listen for other nodes on {bind}"))?;
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let parts = Parts::new(stop.clone());
        let link = Link::new(identity, settings.state.clone())?;
        let directory = Arc::new(Directory::new(&me, &here, others));
        let dialler = NodeDialler::new(&settings.engine, link.clone(), directory.clone());
        let calls = Arc::new(Calls::new(link.clone()));
        let source: Arc<dyn Source> = Arc::new(NodeSource::new(directory.clone(), calls.clone()));
        let way = Way::Through(Arc::new(dialler));
        let pool_settings = Settings { way, source: Some(source), ..Settings::default() };
        let pool = Pool::new(crate::actions::with_conf(&plan.conf, pool_settings));
        let scheduler = Scheduler { strategy: plan.strategy, filters: Filter::ALL.to_vec() };
        let front = Front::new(pool.clone(), scheduler, plan.endpoint.clone());
        front.placer.join_peers(Arc::new(PoolPeers::new(directory.clone(), calls, &front.placer)));
        front.set_actions(plan.actions.clone());
        let bus = Arc::new(PoolBus::new(&me));
        let bridge = bus.bridge(plan.rules.clone());
        front.open_bus(bridge.clone());
        if let Some(addr) = &settings.bus_listen {
            let listener = plan.tls.bind(addr).await.context("--bus-listen")?;
            parts.vital("bus endpoint", server::serve_bus(bridge, listener, stop.clone()));
        }
        let with = (link.clone(), stop.clone());
        parts.restarted("certificate renewal", move || with.0.clone().keep_renewed(with.1.clone()));
        let member = Member { id: me.clone(), addr: advertise, generation: generation() };
        let seeds = identity::seeds(&plan.node, &code).await;
        if settings.multicast {
            let with = (link.clone(), stop.clone());
            parts.until_done("multicast", move || answer_questions(with.0.clone(), advertise, with.1.clone()));
        }
        let gossip = Gossip::start(member, key, bind, seeds, gossip::Settings::default(), &parts).await?;
        let gossip = Arc::new(gossip);
        let (another, others) = mpsc::channel(1);
        let (facts, swarm_fact) = watch::channel(None);
        let (seeds, more_seeds) = watch::channel(Vec::new());
        let with = (gossip.clone(), more_seeds);
        parts.until_done("seeds of gossip", move || meet(with.0.clone(), with.1.clone()));
        let images = Arc::new(images::FromOthers::new(&front.placer, &here));
        let agent = herder_agent::Settings {
            engine: settings.engine.trim_start_matches("tcp://").to_owned(),
            way: Way::Plain,
            node_id: me.clone(),
            folder: settings.state.clone(),
            generic_resources: Vec::new(),
            images,
            uptime: Uptime::system(),
            // Also when the file that this program was started from has been replaced meanwhile.
            watchdog: Some(Watchdog { program: "/proc/self/exe".into(), arguments: vec!["fence-watch".into()] }),
            clock: herder_model::swarm::Clock::system(),
        };
        let networks = NetSettings {
            dns_command: vec!["/proc/self/exe".into(), "net-dns".into()],
            tunnel_command: vec!["/proc/self/exe".into(), "net-tunnel".into()],
            folder: settings.state.clone(),
        };
        let (engine, way) = (agent.engine.clone(), agent.way.clone());
        let agent = Arc::new(Agent::start(agent, &parts));
        agent.networks().start(networks, &engine, way, &me, &parts);
        let host = Host::start(
            HostDeps {
                state: settings.state.clone(),
                link: link.clone(),
                directory: directory.clone(),
                views: gossip.view(),
                agent,
                front: Arc::downgrade(&front.placer),
                another,
                standing: plan.standing.clone(),
                facts,
                seeds,
                hold_command: vec!["/proc/self/exe".into(), "ingress-hold".into()],
            },
            parts.clone(),
        )
        .await?;
        let door = Arc::new(Door(host.clone()));
        front.set_swarm(door.clone());
        let with = (front.clone(), stop.clone());
        parts.restarted("swarm events", move || herder_front::swarm::follow(with.0.clone(), with.1.clone()));
        let with = (front.clone(), stop.clone());
        parts.restarted("stacks", move || herder_front::stacks::follow(with.0.clone(), with.1.clone()));
        let with = (front.clone(), stop.clone());
        parts.restarted("exports", move || crate::export::follow(with.0.clone(), with.1.clone()));
        let templates: Weak<dyn Templates> = Arc::downgrade(&(front.clone() as Arc<dyn Templates>));
        let gate =
            LinkAcceptor::new(&settings.engine, &here, &front.placer, templates, bus.clone(), door, stop.clone());
        let serving = parts.vital("node link", link.clone().serve(listener, stop.clone(), gate));
        let in_store = plan.store.clone().map(|store| {
            let with = (store, gossip.clone(), stop.clone());
            parts.restarted("discovery", move || store::keep(with.0.clone(), advertise, with.1.clone(), with.2.clone()))
        });
        let publisher = code::FactsPublisher::new(link.clone(), gossip.clone(), members::facts(&plan.node), swarm_fact);
        publisher.tell().await.context("--label")?;
        let with = stop.clone();
        parts.restarted("join code", move || publisher.clone().keep(with.clone()));
        let with = (link.clone(), gossip.clone(), stop.clone());
        parts.restarted("gossip keys", move || code::keep_keys(with.0.clone(), with.1.clone(), with.2.clone()));
        let role = members::rescheduler(gossip.view(), &me, &parts);
        let with = (front.placer.clone(), stop.clone());
        parts
            .until_done("rescheduling", move || reschedule_while_primary(with.0.clone(), role.clone(), with.1.clone()));
        let with = (front.placer.clone(), stop.clone());
        parts.restarted("duplicate names", move || {
            herder_place::peers::report_duplicates(with.0.clone(), with.1.clone())
        });
        let follows = Follows { link: link.clone(), pool, directory, views: gossip.view(), bus, stop: stop.clone() };
        follows.start(&parts, (front.clone(), settings.cluster.clone(), here.clone()));
        info!(node = me, addr = here, "this node is up");
        guard.disarm();
        Ok(Life { front, gossip, host, others, parts, stop, link, serving, in_store })
    }

    /// Resolves when this life is to end.
    pub(super) async fn change(&mut self) -> Changed {
        tokio::select! {
            Some(identity) = self.others.recv() => Changed::Identity(Box::new(identity)),
            ended = self.parts.ended() => Changed::Failed(ended),
        }
    }

    /// Makes a part fail, for tests. False if there is none of this name.
    pub(super) fn fault(&self, part: &str, fault: Fault) -> bool {
        self.parts.fault(part, fault)
    }

    /// Returns the identity that the node has now.
    pub(super) fn identity(&self) -> Identity {
        Identity::clone(&self.link.identity())
    }

    /// Ends everything. When this returns, nothing listens for other nodes any more.
    pub(super) async fn end(self, why: Why) {
        self.host.end().await;
        if why == Why::Leaves {
            self.gossip.leave().await;
        }
        self.stop.cancel();
        self.front.pool.set_members(&BTreeSet::new());
        let _ = self.serving.await;
        // Whom a store still names is asked in vain by those who come.
        if let Some(in_store) = self.in_store
            && timeout(FAREWELL_TIME_MAX, in_store).await.is_err()
        {
            warn!(limit = ?FAREWELL_TIME_MAX, "the store does not answer; it names this node until its entry ends");
        }
        if !self.parts.all_ended(PARTS_END_MAX).await {
            warn!(limit = ?PARTS_END_MAX, "some parts of the node did not end in time");
        }
    }
}

/// The parts that follow the members of the pool.
struct Follows {
    link: Arc<Link>,
    pool: Arc<Pool>,
    directory: Arc<Directory>,
    views: watch::Receiver<gossip::View>,
    bus: Arc<PoolBus>,
    stop: CancellationToken,
}

impl Follows {
    fn start(self, parts: &Parts, (front, cluster, here): (Arc<Front>, String, String)) {
        let Follows { link, pool, directory, views, bus, stop } = self;
        let with = ((bus.bus.clone(), link.clone()), stop.clone());
        parts.restarted("bus requests", move || {
            answers::answer(front.clone(), with.0.clone(), cluster.clone(), here.clone(), with.1.clone())
        });
        let with = (bus.clone(), directory.clone(), views.clone(), stop.clone());
        parts.restarted("bus links", move || {
            with.0.clone().keep_links(link.clone(), with.1.clone(), with.2.clone(), with.3.clone())
        });
        let with = (bus.clone(), pool.clone(), directory.clone(), stop.clone());
        parts.restarted("bus events", move || {
            with.0.clone().tell_events(with.1.clone(), with.2.clone(), with.3.clone())
        });
        let with = (bus, pool.clone(), directory.clone(), views.clone(), stop.clone());
        parts.restarted("bus membership", move || {
            with.0.clone().tell_membership(with.1.clone(), with.2.clone(), with.3.clone(), with.4.clone())
        });
        parts.restarted("pool members", move || {
            members::follow(pool.clone(), directory.clone(), views.clone(), stop.clone())
        });
    }
}

/// Has gossip ask at these addresses whenever there are some, until the sender is dropped.
async fn meet(gossip: Arc<Gossip>, mut seeds: watch::Receiver<Vec<SocketAddr>>) {
    while seeds.changed().await.is_ok() {
        let more = seeds.borrow_and_update().clone();
        gossip.add_seeds(more).await;
    }
}

/// Newcomers know the pool by its root, which may be changed.
async fn answer_questions(link: Arc<Link>, here: SocketAddr, stop: CancellationToken) {
    let mut identities = link.identities();
    loop {
        let Ok(code) = identities.borrow_and_update().join_code() else { return };
        let asked_for_another = |it: &Arc<Identity>| it.join_code().is_ok_and(|it| !it.of_same_pool(&code));
        tokio::select! {
            answered = multicast::answer(&code, here, stop.clone()) => {
                if let Err(error) = answered {
                    warn!(%error, "other nodes cannot find this one by multicast");
                }
                return;
            }
            changed = identities.wait_for(asked_for_another) => if changed.is_err() { return },
        }
    }
}

/// A start is newer than all before it. Milliseconds since 1970; the clock of one host goes forward between two starts.
fn generation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
